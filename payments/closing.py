"""Closing: ending an order that is not paid, by the merchant, the payer, or because its time is
over.

Where nothing was ever sent it is closed at once and what was held is released. Otherwise the
channel is asked first, and the order stays `CLOSING` until it has answered.
"""

from __future__ import annotations

from core import ids
from core.errors import (
    AlreadyPaid,
    Forbidden,
    NotFound,
    OperationInProgress,
    OperationNotSupported,
    OrderClosed,
    PayoutNotCancellable,
    PurserError,
)
from core.principal import Principal
from core.records import changed
from payments import update
from payments.group import Effects, Known, Member
from payments.idempotency import Key
from payments.notices import finish_event, order_event
from payments.opening import entry_of, opening_operation, release_entry, turned_away
from payments.product import Event, Movement
from payments.products.registry import product_module
from payments.states import (
    ChallengeState,
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
)
from payments.values import CloseOrder, Operation, Order

EXPIRY = "EXPIRY"
REVIEW_LAPSED = "REVIEW_LAPSED"


def close(request: CloseOrder, known: Known, idempotency: Key | None) -> Member:
    """The member that closes or cancels the order, or that stores the refusal.

    Raises `NotFound` for an order that is not the caller's. A second close of a closing or closed
    order answers with the order as it is.
    """
    order = known.order
    if order is None:
        raise NotFound("There is no such order.", field=("orderId",))
    if request.caller.kind == "customer" and request.caller.id != order.payer_customer_id:
        raise Forbidden()
    refusal = _refusal(order, known)
    if refusal is not None or order.state in (OrderState.CLOSING, OrderState.CLOSED):
        return Member(
            principal=request.caller,
            order_id=order.order_id,
            expected_version=order.version,
            idempotency=idempotency,
            done=Effects(order=order, refusal=refusal, writes_order=False),
        )
    closed_by = {"customer": "PAYER", "merchant": "MERCHANT"}.get(request.caller.kind, "OPERATOR")
    return closing_member(known, request.caller, closed_by, idempotency)


def expire(known: Known) -> Member | None:
    """What the sweeper does with an order whose time is over; None where there is nothing to do."""
    order = known.order
    if order is None or order.expires_at > known.now or _refusal(order, known) is not None:
        return None
    principal = Principal("merchant", order.merchant_id)
    if order.state is OrderState.IN_REVIEW:
        return Member(
            principal=principal,
            order_id=order.order_id,
            expected_version=order.version,
            done=turned_away(known, order, REVIEW_LAPSED),
        )
    if order.state in (OrderState.CLOSING, OrderState.CLOSED) or order.payout_progress is not None:
        return None
    return closing_member(known, principal, EXPIRY, None)


def closing_member(
    known: Known, principal: Principal, closed_by: str, idempotency: Key | None
) -> Member:
    """Close at once where no attempt was ever made, else `CLOSING` and a `CLOSE` for the worker."""
    order = known.order
    assert order is not None
    if order.payout_progress is PayoutProgress.FAILED:
        return _cancelled_after_failure(known, order, principal, idempotency)
    started = update.next_version(order, known.now)
    opening = opening_operation(known.operations)
    operation = _close_operation(order, known)
    if known.attempts:
        started = update.closing(started, closed_by, known.now)
        return Member(
            principal=principal,
            order_id=order.order_id,
            expected_version=order.version,
            idempotency=idempotency,
            done=Effects(
                order=started,
                operation=operation,
                operations=(operation,),
                events=(finish_event(operation, started.version),),
                public_events=(order_event(started, operation),),
            ),
        )
    done = update.closed(update.closing(started, closed_by, known.now), known.now)
    operation = update.ended(operation, OperationState.SUCCEEDED, known.now)
    opening = update.ended(opening, OperationState.FAILED, known.now, "CLOSED")
    challenge = known.challenge
    if challenge is not None and challenge.state == ChallengeState.PENDING:
        challenge = changed(challenge, state=ChallengeState.FAILED.value)
    return Member(
        principal=principal,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        done=Effects(
            order=done,
            operation=operation,
            operations=(operation, opening),
            challenges=(challenge,) if challenge else (),
            entry=release_entry(order, opening),
            public_events=(order_event(done, operation),),
        ),
    )


def _refusal(order: Order, known: Known) -> PurserError | None:
    if order.payout_progress is not None:
        return _payout_refusal(order, known)
    if OperationType.CLOSE not in product_module(order.product).PRODUCT.operations:
        return OperationNotSupported()
    if order.state in (OrderState.SUCCEEDED, OrderState.LATE_PAID, OrderState.LATE_REFUNDED):
        return AlreadyPaid()
    if order.state in (OrderState.FAILED, OrderState.CONFLICTED):
        return OrderClosed()
    return None


def _payout_refusal(order: Order, known: Known) -> PurserError | None:
    """Cancel only before the sending, or after a proven failure."""
    if any(each.state is OperationState.SUBMITTED for each in known.operations):
        return OperationInProgress()
    cancellable = (
        PayoutProgress.CREATED,
        PayoutProgress.HELD,
        PayoutProgress.RESERVED,
        PayoutProgress.FAILED,
        PayoutProgress.CANCELLED,
    )
    if order.payout_progress not in cancellable or order.state is OrderState.SUCCEEDED:
        return PayoutNotCancellable()
    if order.payout_progress is PayoutProgress.CANCELLED and order.state is OrderState.FAILED:
        return OrderClosed()
    return None


def _cancelled_after_failure(
    known: Known, order: Order, principal: Principal, idempotency: Key | None
) -> Member:
    """The bank refused the payout: what is in flight goes back to where it came from."""
    opening = opening_operation(known.operations)
    operation = update.ended(_close_operation(order, known), OperationState.SUCCEEDED, known.now)
    done = update.closed(update.next_version(order, known.now), known.now)
    done = changed(done, closed_by="MERCHANT")
    movement = Movement(order=order, operation=opening, amount_minor=order.amount_minor)
    return Member(
        principal=principal,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        done=Effects(
            order=done,
            operation=operation,
            operations=(operation,),
            entry=entry_of(Event.CANCELLED, movement, product_module(order.product)),
            public_events=(order_event(done, operation),),
        ),
    )


def _close_operation(order: Order, known: Known) -> Operation:
    return Operation(
        operation_id=ids.derived_id(order.order_id, f"close:{order.version}"),
        order_id=order.order_id,
        merchant_id=order.merchant_id,
        payer_customer_id=order.payer_customer_id,
        payee_customer_id=order.payee_customer_id,
        type=OperationType.CLOSE,
        operation_number=f"close-{ids.derived_id(order.order_id, str(order.version))}",
        state=OperationState.CREATED,
        amount_minor=0,
        currency=order.currency,
        next_check_at=known.now,
        created_at=known.now,
        updated_at=known.now,
    )
