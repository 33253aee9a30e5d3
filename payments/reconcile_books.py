"""Whether the orders' money is their postings: what the orders say against what the books hold.

Two sums are compared per order, read from the two sides apart: the amounts on the order, and the
postings of the entries that name it. Nothing is repaired here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from core.phase import phase, statement
from core.principal import SYSTEM
from wallet.by_order import moved_by_order

BATCH_ORDERS = 1_000

EXPECTED_SQL = """
SELECT order_id, type, currency, state,
       captured_minor + suspense_minor AS received_minor, refunded_minor, payout_progress
FROM payment_order WHERE order_id > $1 ORDER BY order_id LIMIT $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An order whose amounts are not its postings; both in minor units."""

    order_id: UUID
    what: str
    order_minor: int
    books_minor: int


async def verify_orders() -> list[Difference]:
    """Every order that differs from the books; reads all orders in batches."""
    found: list[Difference] = []
    last = UUID(int=0)
    while True:
        async with phase(SYSTEM):
            orders = await statement(EXPECTED_SQL, last, BATCH_ORDERS)
            if not orders:
                return found
            moved = await moved_by_order([row["order_id"] for row in orders])
        for row in orders:
            found.extend(_differences(row, moved.get(row["order_id"], {})))
        last = orders[-1]["order_id"]


def _differences(order: Mapping[str, object], moved: Mapping[str, int]) -> list[Difference]:
    """What an order of each type must have moved, by the kind of entry (`TYPE_EVENT`)."""
    kind = str(order["type"])
    booked = sum(moved.get(f"{kind}_{event}", 0) for event in ("BOOKED", "HOLD_BOOKED"))
    if kind == "PAYOUT":
        booked = moved.get("PAYOUT_PAID", 0) - moved.get("PAYOUT_RETURNED", 0)
    else:
        booked += moved.get(f"{kind}_SUSPENDED", 0)
    refunded = moved.get("REFUND_REFUNDED", 0)
    pairs = (
        ("received", int(str(order["received_minor"])), booked),
        ("refunded", int(str(order["refunded_minor"])), refunded),
    )
    return [
        Difference(
            order_id=UUID(str(order["order_id"])), what=what, order_minor=said, books_minor=held
        )
        for what, said, held in pairs
        if said != held
    ]
