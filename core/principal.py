"""Who a database phase acts for. Row-level security reads it; nothing else decides by it alone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["customer", "merchant", "operator", "system"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A customer, merchant or operator by id, or the system itself (workers finding their work)."""

    kind: Kind
    id: uuid.UUID | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or (self.id is None) != (self.kind == "system"):
            raise ValueError("a principal is one of four kinds, and only the system has no id")

    def __str__(self) -> str:
        return self.kind if self.id is None else f"{self.kind}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Principal:
        """The inverse of `str()`; raises `ValueError` on anything else."""
        kind, _, identifier = text.partition(":")
        return cls(kind, uuid.UUID(identifier) if identifier else None)  # type: ignore[arg-type]


SYSTEM = Principal("system")


def customer(customer_id: uuid.UUID) -> Principal:
    return Principal("customer", customer_id)


def merchant(merchant_id: uuid.UUID) -> Principal:
    return Principal("merchant", merchant_id)


def operator(operator_id: uuid.UUID) -> Principal:
    return Principal("operator", operator_id)
