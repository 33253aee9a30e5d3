"""What the books moved for given orders: one side of the proof that orders are their postings."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence

from core.phase import statement


async def moved_by_order(order_ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, dict[str, int]]:
    """For each order the minor units that its entries moved, summed by kind of entry.

    In the phase that is open; only operators and the system see anything.
    """
    rows = await statement("SELECT * FROM moved_by_order($1)", list(order_ids), writes=False)
    moved: dict[uuid.UUID, dict[str, int]] = defaultdict(dict)
    for row in rows:
        moved[row["order_id"]][row["kind"]] = row["moved_minor"]
    return moved
