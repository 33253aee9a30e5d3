"""The states of orders, operations and attempts, and every change that is allowed between them.

A table here is the whole truth: a change that it does not list is a bug and raises `ValueError`.
ARCHITECTURE.md draws them.
"""

from __future__ import annotations

from enum import StrEnum


class OperationType(StrEnum):
    """One step on an order."""

    PAY = "PAY"
    TOP_UP = "TOP_UP"
    TRANSFER = "TRANSFER"
    PAYOUT = "PAYOUT"
    REFUND = "REFUND"
    CLOSE = "CLOSE"


OPENING_TYPES = (
    OperationType.PAY,
    OperationType.TOP_UP,
    OperationType.TRANSFER,
    OperationType.PAYOUT,
)
"""The operations that open an order; the others follow on one."""


class OrderState(StrEnum):
    """Where an order stands. `NEEDS_ATTENTION` is a flag beside it, not a state."""

    CREATED = "CREATED"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    IN_REVIEW = "IN_REVIEW"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    LATE_PAID = "LATE_PAID"
    LATE_REFUNDED = "LATE_REFUNDED"
    CONFLICTED = "CONFLICTED"


class OperationState(StrEnum):
    """Where an operation stands; `UNKNOWN` ends only by the channel's own answer."""

    CREATED = "CREATED"
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


UNRESOLVED = frozenset(
    {
        OperationState.CREATED,
        OperationState.SUBMITTED,
        OperationState.PENDING,
        OperationState.UNKNOWN,
    }
)


class RefundProgress(StrEnum):
    """How much of what was captured has gone back."""

    NONE = "NONE"
    PENDING = "PENDING"
    PARTIAL = "PARTIAL"
    FULL = "FULL"


class SettlementProgress(StrEnum):
    """Whether the order's money counts for a settlement, and whether it has been settled."""

    NONE = "NONE"
    ELIGIBLE = "ELIGIBLE"
    SETTLED = "SETTLED"


class PayoutProgress(StrEnum):
    """Where the money of a payout is."""

    CREATED = "CREATED"
    HELD = "HELD"
    RESERVED = "RESERVED"
    SUBMITTED = "SUBMITTED"
    IN_TRANSIT = "IN_TRANSIT"
    PAID = "PAID"
    RETURNED = "RETURNED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class ChallengeState(StrEnum):
    """A challenge is asked once and answered at most once."""

    PENDING = "PENDING"
    PASSED = "PASSED"
    FAILED = "FAILED"


_S = OrderState
ORDER_CHANGES: dict[OrderState, frozenset[OrderState]] = {
    _S.CREATED: frozenset(
        {
            _S.REQUIRES_ACTION,
            _S.IN_REVIEW,
            _S.PROCESSING,
            _S.SUCCEEDED,
            _S.FAILED,
            _S.CLOSING,
            _S.CONFLICTED,
        }
    ),
    _S.REQUIRES_ACTION: frozenset(
        {_S.PROCESSING, _S.SUCCEEDED, _S.FAILED, _S.CLOSING, _S.CONFLICTED}
    ),
    _S.IN_REVIEW: frozenset(
        {_S.PROCESSING, _S.REQUIRES_ACTION, _S.SUCCEEDED, _S.FAILED, _S.CLOSING}
    ),
    _S.PROCESSING: frozenset(
        {
            _S.REQUIRES_ACTION,
            _S.SUCCEEDED,
            _S.FAILED,
            _S.CLOSING,
            _S.CLOSED,
            _S.CONFLICTED,
        }
    ),
    _S.SUCCEEDED: frozenset({_S.FAILED}),
    _S.FAILED: frozenset({_S.SUCCEEDED, _S.LATE_PAID, _S.CLOSED, _S.CONFLICTED}),
    _S.CLOSING: frozenset({_S.CLOSED, _S.SUCCEEDED, _S.LATE_PAID, _S.CONFLICTED}),
    _S.CLOSED: frozenset({_S.LATE_PAID, _S.CONFLICTED}),
    _S.LATE_PAID: frozenset({_S.LATE_REFUNDED, _S.SUCCEEDED}),
    _S.LATE_REFUNDED: frozenset({_S.LATE_PAID}),
    _S.CONFLICTED: frozenset({_S.SUCCEEDED, _S.FAILED}),
}

_O = OperationState
OPERATION_CHANGES: dict[OperationState, frozenset[OperationState]] = {
    _O.CREATED: frozenset({_O.SUBMITTED, _O.SUCCEEDED, _O.FAILED}),
    _O.SUBMITTED: frozenset({_O.PENDING, _O.SUCCEEDED, _O.UNKNOWN, _O.FAILED}),
    _O.PENDING: frozenset({_O.SUCCEEDED, _O.FAILED}),
    _O.UNKNOWN: frozenset({_O.PENDING, _O.SUCCEEDED, _O.FAILED, _O.SUBMITTED}),
    _O.FAILED: frozenset({_O.SUCCEEDED}),
    _O.SUCCEEDED: frozenset({_O.FAILED}),
}


def changed_order_state(present: OrderState, wanted: OrderState) -> OrderState:
    """The wanted state; raises `ValueError` for a change that the table does not list."""
    if wanted != present and wanted not in ORDER_CHANGES[present]:
        raise ValueError(f"an order never goes from {present} to {wanted}")
    return wanted


def changed_operation_state(present: OperationState, wanted: OperationState) -> OperationState:
    """The wanted state; raises `ValueError` for a change that the table does not list."""
    if wanted != present and wanted not in OPERATION_CHANGES[present]:
        raise ValueError(f"an operation never goes from {present} to {wanted}")
    return wanted
