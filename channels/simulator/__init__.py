"""A bank, a phone and a merchant that stand for the outside world, in a process of their own.

They have their own books, so that what really happened can be asked from outside, and they
misbehave on request. Nothing of ours imports them but the command that starts them and the tests.
"""

from channels.simulator.application import application, serve
from channels.simulator.settings import SimulatorSettings

__all__ = ["SimulatorSettings", "application", "serve"]
