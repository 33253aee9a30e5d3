"""A history of payments as columns: what the generator makes and training replays.

Parties are numbers: merchants first, then customers. Instants are whole seconds since 1970, amounts
bounded hundredths (`events.hundredths_of`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

Column = np.ndarray[Any, Any]
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class History:
    """Columns of one length, ascending in time. `known_at` is `NEVER` where no fraud is told."""

    at: Column
    operation: Column
    payer: Column
    counterparty: Column
    hundredths: Column
    is_fraud: Column
    known_at: Column
    pattern: Column

    def __len__(self) -> int:
        return len(self.at)

    def taken(self, places: Column) -> History:
        """The rows at these places, in their order."""
        return History(*(getattr(self, each.name)[places] for each in fields(self)))

    def renumbered(self, offset: int) -> History:
        """The same rows with every party's number raised by `offset`."""
        return replace(self, payer=self.payer + offset, counterparty=self.counterparty + offset)

    def in_time(self) -> History:
        """The same rows, ascending in time; rows of one instant keep their order."""
        return self.taken(np.argsort(self.at, kind="stable"))


def joined(parts: list[History]) -> History:
    """The rows of all parts, ascending in time."""
    columns = (
        np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(History)
    )
    return History(*columns).in_time()
