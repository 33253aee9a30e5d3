"""What a product declares: one file in `products/` holds a product whole, and nothing else names
it.

A product module has `Details` (what the payer supplies, a frozen dataclass with a description in
each field's metadata), `PRODUCT`, `check` (refusals of this product alone) and `movements` (which
accounts are debited and credited by each event).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from core import ids
from payments.states import OperationType
from payments.values import OpenOrder, Operation, Order
from wallet.ledger import Action


class Interaction(StrEnum):
    """What the payer must do before the money moves."""

    NONE = "NONE"
    PROOF_OVER_SMALL_AMOUNT = "PROOF_OVER_SMALL_AMOUNT"
    REDIRECT = "REDIRECT"


class Event(StrEnum):
    """What can happen to the money of an order; each product says which postings that is."""

    BOOKED = "BOOKED"
    HELD = "HELD"
    HOLD_BOOKED = "HOLD_BOOKED"
    HOLD_RELEASED = "HOLD_RELEASED"
    REFUNDED = "REFUNDED"
    SUBMITTED = "SUBMITTED"
    PAID = "PAID"
    CANCELLED = "CANCELLED"
    RETURNED = "RETURNED"
    SUSPENDED = "SUSPENDED"
    REOPENED = "REOPENED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`channel_kinds` names the operations that need a channel and what that channel must carry.

    `events` lists, for each operation that opens an order or follows on it, what may happen to its
    money: `movements` must know every one of them.
    """

    code: str
    details: type[Any]
    interactions: dict[OperationType, Interaction]
    channel_kinds: dict[OperationType, str] = field(default_factory=dict)
    events: dict[OperationType, frozenset[Event]] = field(default_factory=dict)
    reopens_late_money: bool = False

    @property
    def operations(self) -> frozenset[OperationType]:
        """The operations that this product can do."""
        return frozenset(self.interactions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What the postings of one event are computed from; amounts in minor units of the order.

    `channel` moved the money where one did; `pending_minor` is what the merchant's pending account
    holds, for a refund that takes from it first.
    """

    order: Order
    operation: Operation
    amount_minor: int
    fee_minor: int = 0
    channel: str | None = None
    pending_minor: int = 0

    @property
    def hold_id(self) -> uuid.UUID:
        """The hold of the operation that opened the order: the same one whoever asks."""
        return ids.derived_id(self.order.order_id, "hold")


class ProductModule(Protocol):
    """A product is a module with these names. The registry refuses one that lacks any."""

    PRODUCT: Product

    def check(self, request: OpenOrder) -> dict[str, Any]:
        """The details fit to be stored; raises a `Refused` for what this product alone refuses."""

    def movements(self, event: Event, movement: Movement) -> Sequence[Action]:
        """The actions on the books, in order."""
