"""Steps 5 and 6: calling the channel, and updating the order with what it said.

The attempt row is committed before the first byte leaves. Whoever finds it `SUBMITTED` afterwards,
and too old to be in somebody's hands, queries and never sends again without proof that nothing
arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from channels import breaker
from channels.contract import Channel, Instruction, InstructionKind, Result, ResultKind
from channels.registry import channels
from core import configuration, ids
from core.crash import crash_point
from core.money import Money
from core.phase import statement
from core.principal import Principal
from core.records import changed
from payments import answers, update
from payments.group import Effects, Known, Member, Selector, read
from payments.notices import finish_event, order_event
from payments.opening import entry_of
from payments.product import Event, Movement
from payments.products import payout
from payments.products.registry import product_module
from payments.rounds import decide_and_commit
from payments.routing import Route, choose_route
from payments.states import OperationState, OperationType, OrderState
from payments.values import Attempt, Operation, Order

STEPS_MAX = 4
"""Sending, then at most a query and what it leads to; the rest belongs to the sweeper's schedule.
"""


async def finish(operation_id: UUID) -> None:
    """Do what is missing for one operation, step by step, until nothing is due now."""
    rows = await statement("SELECT * FROM place_of_operation($1)", operation_id, writes=False)
    if not rows:
        return
    principal = Principal("merchant", rows[0]["merchant_id"])
    selector = Selector(principal=principal, order_id=rows[0]["order_id"])
    for _ in range(STEPS_MAX):
        known = (await read([selector]))[0]
        if not await _step(selector, known, operation_id):
            return


async def update_order(
    selector: Selector,
    operation_id: UUID,
    result: Result,
    applied: Mapping[str, Any] | None = None,
) -> str:
    """Step 6: phase B for an answer of the channel, however it arrived.

    State, postings, what the channel said and the outbox rows commit together. A second call with
    the same answer changes nothing. Returns what became of it, as noted on the channel event.
    """
    noted = ["IGNORED"]

    def plan(known: Known) -> Member | None:
        member, noted[0] = _updated(selector.principal, known, operation_id, result, applied)
        crash_point("before_phase_b")
        return member

    await decide_and_commit(selector, plan)
    crash_point("after_phase_b")
    return noted[0]


async def _step(selector: Selector, known: Known, operation_id: UUID) -> bool:
    """One step for the operation as it stands; False when nothing (more) is due now."""
    order = known.order
    operation = next((each for each in known.operations if each.operation_id == operation_id), None)
    if order is None or operation is None:
        return False
    if operation.type is OperationType.CLOSE:
        return await _step_of_close(selector, known, order, operation)
    if order.state is OrderState.LATE_PAID:
        await decide_and_commit(selector, lambda fresh: _reopen(selector.principal, fresh))
        return False
    due = operation.next_check_at is not None and operation.next_check_at <= known.now
    match operation.state:
        case OperationState.CREATED if order.state in (OrderState.CREATED, OrderState.PROCESSING):
            return await _send(selector, operation_id)
        case OperationState.SUBMITTED if due and known.attempts[-1].result == ResultKind.NOT_SENT:
            if order.state is OrderState.CLOSING:
                never = Result(kind=ResultKind.NOT_SENT, reason="CLOSED_BEFORE_IT_WAS_SENT")
                await update_order(selector, operation_id, never)
                return False
            return await _send(selector, operation_id)
        case OperationState.SUBMITTED if due:
            lost = Result(kind=ResultKind.UNKNOWN, reason="CALLER_DIED")
            await update_order(selector, operation_id, lost)
            return True
        case OperationState.PENDING | OperationState.UNKNOWN if due:
            channel, number = _channel_of(known.attempts[-1])
            result = await _guarded(channel, "query", lambda: channel.query(number))
            await update_order(selector, operation_id, result)
            return True
    return False


async def _send(selector: Selector, operation_id: UUID) -> bool:
    """Commit the attempt, then call. Whoever loses the race for the attempt leaves the call."""
    won: list[tuple[Order, Operation, Attempt]] = []

    def plan(known: Known) -> Member | None:
        won.clear()
        member, sent = _attempt(selector.principal, known, operation_id)
        if sent is not None:
            won.append(sent)
        return member

    if await decide_and_commit(selector, plan) is None or not won:
        return False
    crash_point("attempt_committed")
    order, operation, attempt = won[0]
    result = await invoke_channel(order, operation, attempt)
    crash_point("answer_in_hand")
    await update_order(selector, operation_id, result)
    return result.kind is ResultKind.UNKNOWN


async def invoke_channel(order: Order, operation: Operation, attempt: Attempt) -> Result:
    """Step 5: the call itself, with no transaction open. Never raises; a resend is the same
    instruction.
    """
    channel, number = _channel_of(attempt)
    module = product_module(order.product).PRODUCT
    kind = InstructionKind(module.channel_kinds[operation.type])
    base = configuration.current().public_url.rstrip("/")
    instruction = Instruction(
        request_number=number,
        kind=kind,
        amount=Money(operation.amount_minor, operation.currency),
        description=operation.description or operation.operation_number,
        notify_url=f"{base}/callbacks/{attempt.channel}",
        return_url=order.return_url,
        expires_at=order.expires_at,
        destination=payout.destination(order.details) if kind is InstructionKind.PAY_OUT else None,
    )
    return await _guarded(channel, "invoke", lambda: channel.invoke(instruction))


def _attempt(
    principal: Principal, known: Known, operation_id: UUID
) -> tuple[Member | None, tuple[Order, Operation, Attempt] | None]:
    """The member that records the attempt: nothing may leave before it is committed."""
    order = known.order
    assert order is not None
    operation = next(each for each in known.operations if each.operation_id == operation_id)
    first = operation.state is OperationState.CREATED
    due = operation.next_check_at is not None and operation.next_check_at <= known.now
    resend = (
        operation.state is OperationState.SUBMITTED
        and order.state is not OrderState.CLOSING
        and due
        and bool(known.attempts)
        and known.attempts[-1].result == ResultKind.NOT_SENT
    )
    if not resend and not (first and order.state in (OrderState.CREATED, OrderState.PROCESSING)):
        return None, None
    module = product_module(order.product)
    if resend:
        last = known.attempts[-1]
        attempt = changed(
            last, result="SUBMITTED", sends_count=last.sends_count + 1, updated_at=known.now
        )
    else:
        route = choose_route(
            module.PRODUCT, operation.type, Money(order.amount_minor, order.currency)
        )
        assert route is not None
        attempt = _first_attempt(known, operation, route)
    started = update.next_version(order, known.now)
    started, sent = update.submitted(started, operation, known.now)
    entry = None
    if first and order.payout_progress is not None:
        movement = Movement(order=order, operation=operation, amount_minor=order.amount_minor)
        entry = entry_of(Event.SUBMITTED, movement, module)
    member = Member(
        principal=principal,
        order_id=order.order_id,
        expected_version=order.version,
        done=Effects(
            order=started,
            operation=sent,
            operations=(sent,),
            attempts=(attempt,),
            entry=entry,
            public_events=(order_event(started, sent),) if first else (),
        ),
    )
    return member, (started, sent, attempt)


def _first_attempt(known: Known, operation: Operation, route: Route) -> Attempt:
    return Attempt(
        attempt_id=ids.derived_id(operation.operation_id, "attempt:1"),
        operation_id=operation.operation_id,
        order_id=operation.order_id,
        merchant_id=operation.merchant_id,
        channel=route.channel,
        channel_request_number=operation.operation_id.hex,
        result="SUBMITTED",
        candidates=list(route.candidates),
        sends_count=1,
        created_at=known.now,
        updated_at=known.now,
    )


def _updated(
    principal: Principal,
    known: Known,
    operation_id: UUID,
    result: Result,
    applied: Mapping[str, Any] | None,
) -> tuple[Member | None, str]:
    order = known.order
    assert order is not None
    operation = next(each for each in known.operations if each.operation_id == operation_id)
    attempt = next(each for each in known.attempts if each.operation_id == operation_id)
    module = product_module(order.product)
    profile = channels()[attempt.channel].CHANNEL
    change = answers.answered(
        (order, operation, attempt), result, module.PRODUCT, profile, known.now
    )
    moved = (change.order, change.operation) != (order, operation)
    if not moved and applied is None:
        return None, change.outcome
    events = () if applied else _reply_event(attempt, result, known)
    entry = None
    if change.event is not None:
        movement = Movement(
            order=change.order,
            operation=operation,
            amount_minor=change.amount_minor,
            fee_minor=operation.fee_minor,
            channel=attempt.channel,
        )
        entry = entry_of(change.event, movement, module)
    done = update.next_version(change.order, known.now) if moved else order
    reopening = done.state is OrderState.LATE_PAID and module.PRODUCT.reopens_late_money
    told = moved and (done.state, done.action_url, done.payout_progress) != (
        order.state,
        order.action_url,
        order.payout_progress,
    )
    effects = Effects(
        order=done,
        operation=change.operation,
        operations=(change.operation,) if moved else (),
        attempts=(change.attempt,) if moved else (),
        channel_events=events,
        applied_events=(_applied(applied, change, attempt),) if applied else (),
        entry=entry,
        events=(finish_event(change.operation, done.version),) if reopening and moved else (),
        public_events=(order_event(done, change.operation),) if told else (),
        writes_order=moved,
    )
    member = Member(
        principal=principal,
        order_id=order.order_id,
        expected_version=order.version,
        done=effects,
    )
    return member, change.outcome


def _reopen(principal: Principal, known: Known) -> Member | None:
    """Late money of a product that keeps it: from suspense to where it was meant to go."""
    order = known.order
    assert order is not None
    module = product_module(order.product)
    if order.state is not OrderState.LATE_PAID or not module.PRODUCT.reopens_late_money:
        return None
    attempt = known.attempts[-1]
    operation = next(each for each in known.operations if each.operation_id == attempt.operation_id)
    done = update.reopened(update.next_version(order, known.now), known.now)
    movement = Movement(
        order=order,
        operation=operation,
        amount_minor=order.amount_minor,
        channel=attempt.channel,
    )
    return Member(
        principal=principal,
        order_id=order.order_id,
        expected_version=order.version,
        done=Effects(
            order=done,
            operation=operation,
            entry=entry_of(Event.REOPENED, movement, module),
            public_events=(order_event(done, operation),),
        ),
    )


async def _step_of_close(
    selector: Selector, known: Known, order: Order, operation: Operation
) -> bool:
    """Ask the channel to end what was sent; the order follows its answer."""
    due = operation.next_check_at is not None and operation.next_check_at <= known.now
    if operation.state not in (OperationState.CREATED, OperationState.UNKNOWN) or not due:
        return False
    if order.state is OrderState.CLOSING:
        attempt = known.attempts[-1]
        channel, number = _channel_of(attempt)
        result = await _guarded(channel, "close", lambda: channel.close(number))
        if (
            result.kind in (ResultKind.CLOSED, ResultKind.SUCCESS, ResultKind.DECLINED)
            or result.kind is ResultKind.NOT_FOUND
        ):
            await update_order(selector, attempt.operation_id, result)
    await decide_and_commit(
        selector, lambda fresh: _close_noted(selector.principal, fresh, operation.operation_id)
    )
    return False


def _close_noted(principal: Principal, known: Known, operation_id: UUID) -> Member | None:
    """The close operation follows its order: done, refused because it was paid, or asked again."""
    order = known.order
    assert order is not None
    operation = next(each for each in known.operations if each.operation_id == operation_id)
    if operation.state not in (OperationState.CREATED, OperationState.UNKNOWN):
        return None
    started = update.next_version(order, known.now)
    if order.state is OrderState.CLOSED:
        noted = update.ended(operation, OperationState.SUCCEEDED, known.now)
    elif order.state is OrderState.CLOSING:
        noted = answers.next_check(operation, known.now)
        if noted.next_check_at is None:
            started = changed(started, needs_attention="CLOSE_UNANSWERED")
    else:
        noted = update.ended(operation, OperationState.FAILED, known.now, "ALREADY_PAID")
    return Member(
        principal=principal,
        order_id=order.order_id,
        expected_version=order.version,
        done=Effects(order=started, operation=noted, operations=(noted,)),
    )


def _channel_of(attempt: Attempt) -> tuple[Channel, str]:
    return channels()[attempt.channel], attempt.channel_request_number


async def _guarded(channel: Channel, name: str, call: Callable[[], Awaitable[Result]]) -> Result:
    return await breaker.guarded(channel.CHANNEL.code, name, call)


def _reply_event(attempt: Attempt, result: Result, known: Known) -> tuple[dict[str, Any], ...]:
    """The verified reply or query answer as a channel event, applied in the same commit."""
    if not result.raw:
        return ()
    digest = hashlib.sha256(result.raw).hexdigest()
    return (
        {
            "channel_event_id": str(ids.new_id()),
            "channel": attempt.channel,
            "event_key": f"reply:{attempt.channel_request_number}:{digest}",
            "kind": "REPLY",
            "channel_request_number": attempt.channel_request_number,
            "attempt_id": str(attempt.attempt_id),
            "order_id": str(attempt.order_id),
            "merchant_id": str(attempt.merchant_id),
            "raw_body": "\\x" + result.raw.hex(),
            "parsed": {"kind": result.kind.value, "reason": result.reason},
            "outcome": "APPLIED",
            "received_at": known.now.isoformat(),
            "applied_at": known.now.isoformat(),
        },
    )


def _applied(
    applied: Mapping[str, Any], change: answers.Change, attempt: Attempt
) -> dict[str, Any]:
    return {
        "channel_event_id": applied["channel_event_id"],
        "outcome": change.outcome,
        "order_id": str(attempt.order_id),
        "attempt_id": str(attempt.attempt_id),
        "merchant_id": str(attempt.merchant_id),
    }
