"""Money on the wire: an exact count of minor units with its currency, never a float."""

from __future__ import annotations

import strawberry

from core import money as exact
from schema.scalars import BigInt, CurrencyCode


@strawberry.type(description="An exact amount of one currency.")
class Money:
    amount_minor: BigInt = strawberry.field(
        description="The amount in minor units of the currency: 3000 is 30.00 CNY, or 3000 JPY."
    )
    currency: CurrencyCode = strawberry.field(description="ISO 4217 code of the currency.")
    exponent: int = strawberry.field(
        description="Decimal places of the minor unit: 2 for CNY, 0 for JPY."
    )
    formatted: str = strawberry.field(
        description="The amount in major units as decimal text, such as `30.00`."
    )


@strawberry.input(description="An exact amount of one currency.")
class MoneyInput:
    amount_minor: BigInt = strawberry.field(
        description="The amount in minor units of the currency, positive: 3000 is 30.00 CNY."
    )
    currency: CurrencyCode = strawberry.field(description="ISO 4217 code of the currency.")

    def value(self) -> exact.Money:
        """The amount as the domain takes it."""
        return exact.Money(int(self.amount_minor), str(self.currency))


def money(amount_minor: int, currency: str) -> Money:
    """The view of an amount."""
    value = exact.Money(amount_minor, currency)
    return Money(
        amount_minor=BigInt(amount_minor),
        currency=CurrencyCode(currency),
        exponent=exact.exponent(currency),
        formatted=exact.formatted(value),
    )
