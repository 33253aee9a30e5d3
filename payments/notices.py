"""What is told about a change: events in the outbox, and live hints after the commit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core import hub, ids
from core.money import Money, formatted
from core.outbox import Event
from payments.states import OperationType
from payments.values import Operation, Order

FINISH_JOB = "finish_operation"


def order_event(order: Order, operation: Operation | None) -> Event:
    """The public event of an order at its new version, e.g. `order.succeeded` or
    `refund.succeeded`.
    """
    topic = f"order.{order.state.lower()}"
    if operation is not None and operation.type is OperationType.REFUND:
        topic = f"refund.{operation.state.lower()}"
    elif order.payout_progress is not None:
        topic = f"payout.{order.payout_progress.lower()}"
    return Event(
        event_id=ids.derived_id(order.order_id, f"event:{order.version}"),
        topic=topic,
        resource_kind="order",
        resource_id=order.order_id,
        resource_version=order.version,
        merchant_id=order.merchant_id,
        customer_ids=parties(order),
        payload={"order": public_order(order), "operation": _public_operation(operation)},
    )


def finish_event(operation: Operation, version: int, delay_seconds: float = 0.0) -> Event:
    """The internal event that makes a worker finish an operation."""
    return Event(
        event_id=ids.derived_id(operation.operation_id, f"finish:{version}"),
        topic="operation.accepted",
        resource_kind="operation",
        resource_id=operation.operation_id,
        resource_version=version,
        merchant_id=operation.merchant_id,
        payload={"operation_id": str(operation.operation_id)},
        job=FINISH_JOB,
        delay_seconds=delay_seconds,
    )


def publish(orders: Iterable[Order], *, wakes: bool) -> None:
    """Step 7, once committed: hint at the new versions to whoever watches, and wake the workers.

    The outbox rows of the commit are what is delivered; this only saves waiting. Never raises and
    nobody waits for it.
    """
    for order in orders:
        hint = {"order_id": order.order_id, "version": order.version}
        hub.announce_soon(f"order:{order.order_id}", hint)
        hub.announce_soon(f"merchant:{order.merchant_id}", hint)
        for customer_id in parties(order):
            hub.announce_soon(f"customer:{customer_id}", hint)
    if wakes:
        hub.announce_soon(hub.WAKE_DISPATCH, {})


def parties(order: Order) -> tuple[Any, ...]:
    """The customers that an order names."""
    return tuple(each for each in (order.payer_customer_id, order.payee_customer_id) if each)


def public_order(order: Order) -> dict[str, Any]:
    """An order as a merchant may see it; no customer's id, nothing internal."""
    return {
        "id": ids.node_id("Order", order.order_id),
        "merchant_order_no": order.merchant_order_no,
        "type": order.type.value,
        "state": order.state.value,
        "amount": _amount(order.amount_minor, order.currency),
        "captured": _amount(order.captured_minor, order.currency),
        "refunded": _amount(order.refunded_minor, order.currency),
        "fee": _amount(order.fee_minor, order.currency),
        "failure_reason": order.failure_reason,
        "payout_progress": order.payout_progress.value if order.payout_progress else None,
        "version": order.version,
        "updated_at": order.updated_at.isoformat(timespec="milliseconds"),
    }


def _public_operation(operation: Operation | None) -> dict[str, Any] | None:
    if operation is None:
        return None
    return {
        "type": operation.type.value,
        "number": operation.operation_number,
        "state": operation.state.value,
        "amount": _amount(operation.amount_minor, operation.currency),
        "reason": operation.reason,
    }


def _amount(amount_minor: int, currency: str) -> dict[str, Any]:
    money = Money(amount_minor, currency)
    return {"amount_minor": amount_minor, "currency": currency, "formatted": formatted(money)}
