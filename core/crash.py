"""Named places where a test may kill the process. Outside tests the name is empty and nothing
happens.
"""

from __future__ import annotations

import os
import signal

from core import configuration


def crash_point(name: str) -> None:
    """Die at once, as by `kill -9`, when this process was started to crash at `name`."""
    if configuration.current().crash_point == name:
        os.kill(os.getpid(), signal.SIGKILL)
