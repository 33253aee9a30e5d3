"""Where the state of an order is decided; what a channel says about it is in `answers.py`.

Each function takes an order (and its operation) as committed and returns them as they shall be; it
reads no clock and writes nothing. `group.py` commits the result with the postings it calls for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from core.records import changed
from payments.states import (
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
    RefundProgress,
    SettlementProgress,
    changed_operation_state,
    changed_order_state,
)
from payments.values import Operation, Order

CALL_LIMIT_SECONDS = 20
"""15 s for a call and 5 s of grace: an older `SUBMITTED` belongs to a process that died."""


def succeeded(order: Order, operation: Operation, now: datetime) -> tuple[Order, Operation]:
    """The operation that opened the order took the whole amount."""
    eligible = operation.type is OperationType.PAY
    done = changed(
        order,
        state=changed_order_state(order.state, OrderState.SUCCEEDED),
        authorized_minor=order.amount_minor,
        captured_minor=order.amount_minor,
        fee_minor=operation.fee_minor,
        failure_reason=None,
        closed_by=None,
        action_url=None,
        settlement_progress=SettlementProgress.ELIGIBLE if eligible else SettlementProgress.NONE,
        payout_progress=PayoutProgress.PAID if order.payout_progress else None,
        updated_at=now,
    )
    return done, ended(operation, OperationState.SUCCEEDED, now)


def failed(
    order: Order, operation: Operation, reason: str, now: datetime
) -> tuple[Order, Operation]:
    """The order will not be paid; what was held for it is released by the postings beside this."""
    progress = PayoutProgress.CANCELLED if order.payout_progress else None
    done = changed(
        order,
        state=changed_order_state(order.state, OrderState.FAILED),
        failure_reason=reason,
        action_url=None,
        payout_progress=progress,
        updated_at=now,
    )
    return done, ended(operation, OperationState.FAILED, now, reason)


def asks_proof(order: Order, now: datetime) -> Order:
    """The payer must answer a challenge first."""
    state = changed_order_state(order.state, OrderState.REQUIRES_ACTION)
    return changed(order, state=state, updated_at=now)


def in_review(order: Order, now: datetime) -> Order:
    """An analyst decides first; nothing is sent meanwhile."""
    progress = PayoutProgress.HELD if order.payout_progress else None
    state = changed_order_state(order.state, OrderState.IN_REVIEW)
    return changed(order, state=state, payout_progress=progress, updated_at=now)


def cleared(order: Order, now: datetime) -> Order:
    """Nothing stands between the order and its channel any more."""
    progress = PayoutProgress.RESERVED if order.payout_progress else None
    state = changed_order_state(order.state, OrderState.PROCESSING)
    return changed(order, state=state, payout_progress=progress, updated_at=now)


def refunded(
    order: Order, operation: Operation, amount_minor: int, now: datetime
) -> tuple[Order, Operation]:
    """A refund of `amount_minor` succeeded, with `operation.fee_minor` of the fee given back."""
    total = order.refunded_minor + amount_minor
    progress = RefundProgress.FULL if total == order.captured_minor else RefundProgress.PARTIAL
    done = changed(
        order,
        refunded_minor=total,
        fee_refunded_minor=order.fee_refunded_minor + operation.fee_minor,
        refund_progress=progress,
        updated_at=now,
    )
    return done, ended(operation, OperationState.SUCCEEDED, now)


def submitted(order: Order, operation: Operation, now: datetime) -> tuple[Order, Operation]:
    """The attempt is committed and the first byte may leave."""
    progress = PayoutProgress.SUBMITTED if order.payout_progress else None
    state = order.state
    if state is OrderState.CREATED:
        state = changed_order_state(state, OrderState.PROCESSING)
    sent = changed(
        operation,
        state=changed_operation_state(operation.state, OperationState.SUBMITTED),
        submitted_at=operation.submitted_at or now,
        next_check_at=now + timedelta(seconds=CALL_LIMIT_SECONDS),
        updated_at=now,
    )
    return changed(order, state=state, payout_progress=progress, updated_at=now), sent


def closing(order: Order, closed_by: str, now: datetime) -> Order:
    """The order is ended at the channel first."""
    state = changed_order_state(order.state, OrderState.CLOSING)
    return changed(order, state=state, closed_by=closed_by, updated_at=now)


def closed(order: Order, now: datetime) -> Order:
    """The channel confirms that it is unpaid, or nothing was ever sent."""
    progress = PayoutProgress.CANCELLED if order.payout_progress else None
    return changed(
        order,
        state=changed_order_state(order.state, OrderState.CLOSED),
        action_url=None,
        payout_progress=progress,
        updated_at=now,
    )


def reopened(order: Order, now: datetime) -> Order:
    """Late money of a product that keeps it: out of suspense, and the order is paid after all."""
    return changed(
        order,
        state=changed_order_state(order.state, OrderState.SUCCEEDED),
        authorized_minor=order.amount_minor,
        captured_minor=order.amount_minor,
        suspense_minor=order.suspense_minor - order.amount_minor,
        failure_reason=None,
        closed_by=None,
        updated_at=now,
    )


def ended(
    operation: Operation, state: OperationState, now: datetime, reason: str | None = None
) -> Operation:
    """The operation in a final state: nothing is due for it any more."""
    return changed(
        operation,
        state=changed_operation_state(operation.state, state),
        reason=reason,
        next_check_at=None,
        updated_at=now,
    )


def next_version(order: Order, now: datetime) -> Order:
    """The order as the next commit writes it."""
    return changed(order, version=order.version + 1, updated_at=now)
