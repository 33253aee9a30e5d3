"""The world of the payments' own tests: a payer, a shop, an operator, and a simulated bank."""

from tests.payments.conftest import bank, bank_settings, verdict, world

__all__ = ["bank", "bank_settings", "verdict", "world"]
