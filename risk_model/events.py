"""A payment as the profiles see it: an instant, an operation, a bounded amount, a counterparty.

Amounts of all currencies are brought to hundredths of the major unit and bounded, and compared by
their logarithm, so that features are about proportions ("five times the usual"), not about prices.
No amount here is ever charged; this is the one package where an amount may become a float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.errors import InvalidArgument
from core.money import exponent

OPERATIONS = ("PAY", "TOP_UP", "TRANSFER", "PAYOUT")
BETWEEN_PARTIES = ("PAY", "TRANSFER")
"""The operations that have a counterparty; the others move the payer's own money in or out."""

HUNDREDTHS_MAX = 1_000_000_000
TOKEN_MAX = 1 << 24


@dataclass(frozen=True, slots=True)
class Event:
    """What is assessed. `at` is whole seconds since 1970, `hundredths` the bounded amount.

    `size` is ln(1 + amount in major units); `counterparty` a number in [0, 2^24) that stands for
    the merchant or payee: two of them may share one, which costs a little accuracy and nothing
    else.
    """

    operation: str
    at: int
    hundredths: int
    size: float
    counterparty: int


def event_of(operation: str, hundredths: int, at: int, counterparty: int) -> Event:
    """The event of an amount that is already in bounded hundredths (see `hundredths_of`)."""
    size = round(math.log1p(hundredths / 100), 6)
    return Event(operation, at, hundredths, size, counterparty)


def hundredths_of(amount_minor: int, currency: str) -> int:
    """The amount in hundredths of its major unit, 1 to 10^9, whatever the currency's minor unit is.

    3000 JPY (no minor unit) is 300000, 3.000 BHD (thousandths) is 300, half-up; a virtual currency
    counts as one with hundredths.
    """
    try:
        places = exponent(currency)
    except InvalidArgument:
        places = 2
    scaled = amount_minor * 10 ** (2 - places) if places <= 2 else _shortened(amount_minor, places)
    return max(1, min(scaled, HUNDREDTHS_MAX))


def seconds_of(instant: datetime) -> int:
    """Whole seconds since 1970 of an aware instant, rounded down."""
    return math.floor(instant.timestamp())


def token_of(party_id: UUID) -> int:
    """The number that stands for a merchant or payee in a payer's profile."""
    return party_id.int % TOKEN_MAX


def _shortened(amount_minor: int, places: int) -> int:
    unit: int = 10 ** (places - 2)
    return (amount_minor + unit // 2) // unit
