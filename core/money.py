"""Money as integer minor units with a currency. No float ever touches an amount.

Exponents come from ISO 4217. Each division here names its rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache

from iso4217 import Currency

from core.errors import InvalidArgument

AMOUNT_MINOR_MAX = 2**63 - 1
MILLIONTHS = 1_000_000


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units of one currency, e.g. `Money(3000, "CNY")` for 30.00 CNY."""

    amount_minor: int
    currency: str


@cache
def exponent(currency: str) -> int:
    """Decimal places of the minor unit. Raises `InvalidArgument` for a code that is no currency."""
    try:
        places = Currency(currency).exponent
    except ValueError:
        places = None
    if places is None:
        raise InvalidArgument("This currency is not supported.", field=("currency",))
    return int(places)


def positive(money: Money, field: tuple[str, ...] = ("amount",)) -> Money:
    """The same money, if it is a positive 64-bit amount of a known currency; else
    `InvalidArgument`.
    """
    exponent(money.currency)
    if not 0 < money.amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidArgument("The amount must be positive.", field=(*field, "amountMinor"))
    return money


def formatted(money: Money) -> str:
    """`Money(3000, "CNY")` → `"30.00"`; the sign stands in front."""
    places = exponent(money.currency)
    if not places:
        return str(money.amount_minor)
    whole, rest = divmod(abs(money.amount_minor), 10**places)
    return f"{'-' if money.amount_minor < 0 else ''}{whole}.{rest:0{places}d}"


def minor_units(text: str, currency: str) -> int:
    """`"30.00"`, CNY → 3000. Finer than the minor unit, or not a number, is `InvalidArgument`."""
    try:
        scaled = Decimal(text).scaleb(exponent(currency))
    except ArithmeticError:
        raise InvalidArgument("This is not an amount.") from None
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise InvalidArgument("The amount is finer than the currency's minor unit.")
    return int(scaled)


def fee_minor(amount_minor: int, rate_millionths: int) -> int:
    """The fee on one capture: amount × rate, half-even, at least 0 and at most the amount."""
    exact = Decimal(amount_minor) * rate_millionths / MILLIONTHS
    rounded = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    return max(0, min(rounded, amount_minor))


def fee_refund_minor(fee: int, refunded_before: int, refund: int, captured: int, given: int) -> int:
    """The part of `fee` that refund k returns: floor(fee × refunded incl. k ÷ captured) − given
    before.

    All amounts in minor units. Rounding down makes the last refund take the remainder, so that the
    parts sum to the fee exactly when everything captured has been refunded.
    """
    return fee * (refunded_before + refund) // captured - given
