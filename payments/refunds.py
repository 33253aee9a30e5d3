"""Refunds: giving back what was captured, whole or in part, any number of times.

Each returns its share of the fee. A refund of a local payment is booked at once, in one commit with
the order's ceiling (I4) and the merchant's money.
"""

from __future__ import annotations

from core import ids
from core import money as moneys
from core.errors import (
    Forbidden,
    InsufficientMerchantBalance,
    InvalidArgument,
    NotFound,
    OperationNotSupported,
    OperationParamMismatch,
    PurserError,
    RefundExceeds,
)
from core.money import fee_refund_minor
from payments import update
from payments.group import Effects, Known, Member
from payments.idempotency import Key
from payments.notices import order_event
from payments.opening import entry_of
from payments.product import Event, Movement
from payments.products.registry import product_module
from payments.states import OperationState, OperationType, OrderState
from payments.validation import number, text
from payments.values import Operation, Order, RefundOrder


def refund(request: RefundOrder, known: Known, idempotency: Key | None) -> Member:
    """The member that refunds, or that stores the refusal.

    Raises for input that is wrong in itself and for an order that is not the caller's; changes
    nothing then. The merchant's pending money is used before the available; what was read of both
    is judged again by the books, and a refusal there only means that they moved meanwhile.
    """
    order = _own_order(request, known)
    number(request.refund_number, "refundNumber")
    text(request.description, "description")
    amount = order.refundable_minor
    if request.money is not None:
        amount = moneys.positive(request.money).amount_minor
        if request.money.currency != order.currency:
            raise InvalidArgument(
                "A refund is in the order's currency.", field=("amount", "currency")
            )
    if known.refund_of_number is not None:
        return _met_again(request, order, known.refund_of_number, amount, idempotency)
    refusal = _refusal(order, amount)
    fee = 0
    if refusal is None:
        fee = fee_refund_minor(
            order.fee_minor,
            order.refunded_minor,
            amount,
            order.captured_minor,
            order.fee_refunded_minor,
        )
        net = amount - fee
        if net > known.pending_minor + known.available_minor or fee > known.fees_minor:
            refusal = InsufficientMerchantBalance()
    if refusal is not None:
        return _stored_refusal(request, order, refusal, idempotency)
    return _booked(request, known, order, (amount, fee), idempotency)


def _own_order(request: RefundOrder, known: Known) -> Order:
    order = known.order
    if order is None:
        raise NotFound("There is no such order.", field=("orderId",))
    if request.caller.kind == "customer":
        raise Forbidden("Only the merchant refunds an order.")
    return order


def _met_again(
    request: RefundOrder,
    order: Order,
    met: Operation,
    amount: int,
    idempotency: Key | None,
) -> Member:
    """The refund's number again: the same refund for the same order and amount, else a conflict."""
    same = met.order_id == order.order_id and (request.money is None or met.amount_minor == amount)
    refusal = None if same else OperationParamMismatch(field=("refundNumber",))
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        done=Effects(
            order=order, operation=met if same else None, refusal=refusal, writes_order=False
        ),
    )


def _refusal(order: Order, amount: int) -> PurserError | None:
    module = product_module(order.product)
    if OperationType.REFUND not in module.PRODUCT.operations or order.type is not OperationType.PAY:
        return OperationNotSupported()
    if order.state is not OrderState.SUCCEEDED:
        return OperationNotSupported("Only a paid order can be refunded.")
    if amount == 0 or amount > order.refundable_minor:
        return RefundExceeds(
            field=("amount", "amountMinor"), refundable_minor=order.refundable_minor
        )
    return None


def _stored_refusal(
    request: RefundOrder, order: Order, refusal: PurserError, idempotency: Key | None
) -> Member:
    """Refused by us: no operation is made, only the answer is kept under the key."""
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        done=Effects(order=order, refusal=refusal, writes_order=False),
    )


def _booked(
    request: RefundOrder,
    known: Known,
    order: Order,
    amounts: tuple[int, int],
    idempotency: Key | None,
) -> Member:
    amount, fee = amounts
    operation = Operation(
        operation_id=ids.new_id(),
        order_id=order.order_id,
        merchant_id=order.merchant_id,
        payer_customer_id=order.payer_customer_id,
        payee_customer_id=order.payee_customer_id,
        type=OperationType.REFUND,
        operation_number=request.refund_number,
        state=OperationState.CREATED,
        amount_minor=amount,
        currency=order.currency,
        fee_minor=fee,
        description=request.description or order.description,
        created_at=known.now,
        updated_at=known.now,
    )
    done_order, done_operation = update.refunded(order, operation, amount, known.now)
    done_order = update.next_version(done_order, known.now)
    movement = Movement(
        order=order,
        operation=operation,
        amount_minor=amount,
        fee_minor=fee,
        pending_minor=known.pending_minor,
    )
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        stale_when_refused=True,
        done=Effects(
            order=done_order,
            operation=done_operation,
            operations=(done_operation,),
            entry=entry_of(Event.REFUNDED, movement, product_module(order.product)),
            public_events=(order_event(done_order, done_operation),),
        ),
    )
