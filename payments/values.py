"""The values that flow between the steps: requests going in, orders and operations, answers coming
out.

All amounts are integer minor units of the order's currency; all instants are aware, in UTC.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.errors import PurserError
from core.money import Money
from core.principal import Principal
from payments.states import (
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
    RefundProgress,
    SettlementProgress,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as committed at `version`."""

    order_id: uuid.UUID
    version: int
    merchant_id: uuid.UUID
    merchant_order_no: str
    type: OperationType
    product: str
    state: OrderState
    currency: str
    amount_minor: int
    authorized_minor: int = 0
    capture_pending_minor: int = 0
    captured_minor: int = 0
    releasing_minor: int = 0
    released_minor: int = 0
    reversed_minor: int = 0
    refund_pending_minor: int = 0
    refunded_minor: int = 0
    disputed_open_minor: int = 0
    dispute_lost_minor: int = 0
    suspense_minor: int = 0
    fee_rate_millionths: int = 0
    fee_minor: int = 0
    fee_refunded_minor: int = 0
    refund_progress: RefundProgress = RefundProgress.NONE
    payout_progress: PayoutProgress | None = None
    settlement_progress: SettlementProgress = SettlementProgress.NONE
    payer_customer_id: uuid.UUID | None = None
    payee_customer_id: uuid.UUID | None = None
    description: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    action_url: str | None = None
    return_url: str | None = None
    failure_reason: str | None = None
    closed_by: str | None = None
    needs_attention: str | None = None
    effective_at: datetime
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    @property
    def refundable_minor(self) -> int:
        """What a new refund may be at most (invariant I4)."""
        given = self.refunded_minor + self.refund_pending_minor + self.reversed_minor
        disputed = self.disputed_open_minor + self.dispute_lost_minor
        return max(0, self.captured_minor - given - disputed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One step on an order, as committed with the order's version."""

    operation_id: uuid.UUID
    order_id: uuid.UUID
    merchant_id: uuid.UUID
    payer_customer_id: uuid.UUID | None
    payee_customer_id: uuid.UUID | None
    type: OperationType
    operation_number: str
    state: OperationState
    amount_minor: int
    currency: str
    fee_minor: int = 0
    reason: str | None = None
    description: str = ""
    approval: str | None = None
    next_check_at: datetime | None = None
    checks_count: int = 0
    submitted_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call chain of an operation at one channel; every resend carries the same number.

    `verdict_at` is the channel's own time of its newest success or refusal.
    """

    attempt_id: uuid.UUID
    operation_id: uuid.UUID
    order_id: uuid.UUID
    merchant_id: uuid.UUID
    channel: str
    channel_request_number: str
    result: str
    channel_trade_no: str | None = None
    reason: str | None = None
    candidates: list[dict[str, Any]] = field(default_factory=list)
    sends_count: int = 0
    verdict_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The extra proof that was asked; void once order, amount, currency or payee differ."""

    challenge_id: uuid.UUID
    order_id: uuid.UUID
    merchant_id: uuid.UUID
    customer_id: uuid.UUID
    binding: str
    state: str
    wrong_count: int
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """A request that opens an order: PAY, TOP_UP, TRANSFER or PAYOUT.

    `caller` is the principal of the verified token or signature. `unchecked_details` is what the
    payer supplied for the product. `effective_at` is given by a replay of recorded payments alone.
    """

    type: OperationType
    caller: Principal
    idempotency_key: str
    merchant_id: uuid.UUID
    merchant_order_no: str
    money: Money
    product: str
    unchecked_details: Any = None
    description: str = ""
    payee_customer_id: uuid.UUID | None = None
    return_url: str | None = None
    effective_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    """Give back the whole that is left (`money` absent) or a part of what was captured."""

    caller: Principal
    idempotency_key: str
    order_id: uuid.UUID
    refund_number: str
    money: Money | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOrder:
    """End an order that is not paid; for a payout: cancel it."""

    caller: Principal
    idempotency_key: str
    order_id: uuid.UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerChallenge:
    """The payer's proof: the payment password or the one-time code, never both."""

    caller: Principal
    idempotency_key: str
    order_id: uuid.UUID
    unchecked_payment_password: str | None = field(default=None, repr=False)
    unchecked_code: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideReview:
    """An analyst's verdict on an order in review."""

    caller: Principal
    idempotency_key: str
    order_id: uuid.UUID
    accept: bool
    reason: str


Request = OpenOrder | RefundOrder | CloseOrder | AnswerChallenge | DecideReview


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was committed, or the stored answer of the same key (`replay`)."""

    order: Order | None
    operation: Operation | None
    refusal: PurserError | None = None
    replay: bool = False
