"""What a channel's answer does to an order: the second half of where its state is decided.

`update.py` has the changes that we make; here are those that a reply, a query or a callback calls
for. An answer that is not understood changes nothing, and a known result is never turned back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.contract import ChannelProfile, InstructionKind, Result, ResultKind
from core.records import changed
from payments import update
from payments.product import Event, Product
from payments.states import (
    UNRESOLVED,
    OperationState,
    OrderState,
    PayoutProgress,
    changed_operation_state,
    changed_order_state,
)
from payments.values import Attempt, Operation, Order

QUERY_SCHEDULE_SECONDS = (0, *(60,) * 5, 300, 600, 1_200, 1_800, 3_600, *(86_400,) * 5)
"""Waits before each query of an unresolved operation; after the last one it needs attention."""
FIRST_PENDING_STEP = 1
UNANSWERED = ("QUERIES_EXHAUSTED", "CLOSE_UNANSWERED")
"""Reasons for attention that end with the channel's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a channel's answer does. `event` is what happens to the money, if anything does.

    `outcome` is noted on the channel event: APPLIED, ALREADY_PROCESSED, IGNORED, CONFLICTED or
    LATE.
    """

    order: Order
    operation: Operation
    attempt: Attempt
    event: Event | None = None
    amount_minor: int = 0
    outcome: str = "APPLIED"


def answered(
    paid: tuple[Order, Operation, Attempt],
    result: Result,
    product: Product,
    profile: ChannelProfile,
    now: datetime,
) -> Change:
    """What a channel's answer (reply, query or callback) does to the operation that it is about.

    Answers may come in any order: one that contradicts a newer verdict of the channel is IGNORED.
    """
    order, operation, attempt = paid
    here = Change(order=order, operation=operation, attempt=_noted(attempt, result, now))
    if _is_outdated(operation, attempt, result):
        return Change(order=order, operation=operation, attempt=attempt, outcome="IGNORED")
    change = _judged(here, result, product, profile, now)
    if change.operation.state not in UNRESOLVED and change.order.needs_attention in UNANSWERED:
        # Whoever was called because nobody answered has nothing left to look at.
        change = changed(change, order=changed(change.order, needs_attention=None))
    return change


def _judged(
    here: Change, result: Result, product: Product, profile: ChannelProfile, now: datetime
) -> Change:
    match result.kind:
        case ResultKind.SUCCESS:
            return _answered_success(here, result, product, now)
        case ResultKind.DECLINED | ResultKind.CLOSED:
            return _answered_refusal(here, result, profile, now)
        case ResultKind.PENDING:
            return _answered_pending(here, result, now)
        case ResultKind.NOT_SENT:
            return _answered_not_sent(here, profile, now)
        case ResultKind.NOT_FOUND:
            return _answered_not_found(here, profile, now)
        case ResultKind.UNKNOWN:
            return _answered_unknown(here, now)


def _answered_success(here: Change, result: Result, product: Product, now: datetime) -> Change:
    order, operation = here.order, here.operation
    amount = order.amount_minor if result.amount_minor is None else result.amount_minor
    same = amount == order.amount_minor and result.currency in (None, order.currency)
    if operation.state is OperationState.SUCCEEDED:
        return changed(here, outcome="ALREADY_PROCESSED" if same else "INCORRECT_DETAILS")
    if not same:
        return _conflicted(here, amount, result.currency, now)
    if order.payout_progress in (PayoutProgress.CANCELLED, PayoutProgress.RETURNED):
        # The money is back with the merchant: only a person can take it again.
        return _flagged(here, f"PAID_AFTER_{order.payout_progress}", now)
    late = order.state is OrderState.CLOSED or (
        order.state is OrderState.FAILED
        and order.payout_progress is None
        and (now >= order.expires_at or order.failure_reason == "RISK_BLOCKED")
    )
    if late:
        state = changed_order_state(order.state, OrderState.LATE_PAID)
        order = changed(
            order,
            state=state,
            suspense_minor=order.suspense_minor + amount,
            needs_attention=None if product.reopens_late_money else "LATE_PAID",
            updated_at=now,
        )
        operation = update.ended(operation, OperationState.SUCCEEDED, now)
        return changed(
            here,
            order=order,
            operation=operation,
            event=Event.SUSPENDED,
            amount_minor=amount,
            outcome="LATE",
        )
    event = Event.PAID if order.payout_progress else Event.BOOKED
    order, operation = update.succeeded(order, operation, now)
    return changed(here, order=order, operation=operation, event=event, amount_minor=amount)


def _answered_refusal(
    here: Change, result: Result, profile: ChannelProfile, now: datetime
) -> Change:
    order, operation = here.order, here.operation
    if operation.state is OperationState.FAILED:
        return changed(here, outcome="ALREADY_PROCESSED")
    if operation.state is OperationState.SUCCEEDED:
        return _success_withdrawn(here, result, profile, now)
    if order.state is OrderState.CLOSING:
        operation = update.ended(operation, OperationState.FAILED, now, "CLOSED")
        return changed(here, order=update.closed(order, now), operation=operation)
    order = changed(
        order,
        state=changed_order_state(order.state, OrderState.FAILED),
        failure_reason="CHANNEL_DECLINED",
        action_url=None,
        payout_progress=PayoutProgress.FAILED if order.payout_progress else None,
        updated_at=now,
    )
    reason = result.reason or result.kind.value
    return changed(
        here, order=order, operation=update.ended(operation, OperationState.FAILED, now, reason)
    )


def _success_withdrawn(
    here: Change, result: Result, profile: ChannelProfile, now: datetime
) -> Change:
    """A failure after a success is believed only of kinds whose success can be taken back."""
    payout = here.order.payout_progress is PayoutProgress.PAID
    if not (payout and InstructionKind.PAY_OUT in profile.success_may_be_withdrawn):
        return _flagged(here, "SUCCESS_CONTRADICTED", now)
    order = changed(
        here.order,
        state=changed_order_state(here.order.state, OrderState.FAILED),
        captured_minor=0,
        authorized_minor=0,
        failure_reason="RETURNED",
        payout_progress=PayoutProgress.RETURNED,
        updated_at=now,
    )
    operation = update.ended(here.operation, OperationState.FAILED, now, "RETURNED")
    return changed(
        here,
        order=order,
        operation=operation,
        event=Event.RETURNED,
        amount_minor=order.amount_minor,
    )


def _answered_pending(here: Change, result: Result, now: datetime) -> Change:
    order, operation = here.order, here.operation
    if operation.state not in (OperationState.SUBMITTED, OperationState.UNKNOWN):
        return _checked_again(here, now)
    state = order.state
    if result.payer_must_act and state is OrderState.PROCESSING:
        state = changed_order_state(state, OrderState.REQUIRES_ACTION)
    order = changed(
        order,
        state=state,
        action_url=result.action_url or order.action_url,
        payout_progress=PayoutProgress.IN_TRANSIT if order.payout_progress else None,
        updated_at=now,
    )
    operation = changed(
        operation,
        state=changed_operation_state(operation.state, OperationState.PENDING),
        checks_count=FIRST_PENDING_STEP,
        next_check_at=now + timedelta(seconds=QUERY_SCHEDULE_SECONDS[FIRST_PENDING_STEP]),
        updated_at=now,
    )
    return changed(here, order=order, operation=operation)


def _answered_not_sent(here: Change, profile: ChannelProfile, now: datetime) -> Change:
    """The channel certainly did not act: the same number is sent again, a few times."""
    order, operation = here.order, here.operation
    attempt = changed(here.attempt, result=ResultKind.NOT_SENT.value)
    if operation.state not in (OperationState.SUBMITTED, OperationState.UNKNOWN):
        return _checked_again(here, now)
    if order.state is OrderState.CLOSING:
        ended_operation = update.ended(operation, OperationState.FAILED, now, "CLOSED")
        return changed(here, order=update.closed(order, now), operation=ended_operation)
    if attempt.sends_count > profile.resends_max:
        order = changed(
            order,
            state=changed_order_state(order.state, OrderState.FAILED),
            failure_reason="NO_ROUTE",
            payout_progress=PayoutProgress.FAILED if order.payout_progress else None,
            updated_at=now,
        )
        operation = update.ended(operation, OperationState.FAILED, now, "NOT_SENT")
        return changed(here, order=order, operation=operation)
    operation = changed(
        operation,
        state=changed_operation_state(operation.state, OperationState.SUBMITTED),
        next_check_at=now + timedelta(seconds=profile.resend_after_seconds),
        updated_at=now,
    )
    return changed(here, operation=operation, attempt=attempt)


def _answered_not_found(here: Change, profile: ChannelProfile, now: datetime) -> Change:
    """Proof only of a channel with consistent queries, and only some time after the sending."""
    sent_at = here.operation.submitted_at or here.operation.created_at
    final_at = sent_at + timedelta(seconds=profile.not_found_final_seconds)
    if profile.queries_consistent and now >= final_at:
        return _answered_not_sent(here, profile, now)
    change = _answered_unknown(here, now)
    if now < final_at and change.operation.next_check_at is not None:
        change = changed(change, operation=changed(change.operation, next_check_at=final_at))
    return change


def _answered_unknown(here: Change, now: datetime) -> Change:
    if here.operation.state is not OperationState.SUBMITTED:
        return _checked_again(here, now)
    operation = changed(
        here.operation,
        state=changed_operation_state(here.operation.state, OperationState.UNKNOWN),
        checks_count=0,
        next_check_at=now,
        updated_at=now,
    )
    return changed(here, operation=operation)


def _checked_again(here: Change, now: datetime) -> Change:
    """Nothing new: the next query is due by the schedule; after the last one a person must look.

    A result that is known stays known, and nothing is due for it.
    """
    if here.operation.state not in UNRESOLVED:
        return changed(here, outcome="IGNORED")
    operation = next_check(here.operation, now)
    return changed(here, operation=operation, order=_attention_if_over(here.order, operation, now))


def next_check(operation: Operation, now: datetime) -> Operation:
    """The operation with its next query by the schedule; none is due after the last."""
    count = operation.checks_count + 1
    over = count >= len(QUERY_SCHEDULE_SECONDS)
    due = None if over else now + timedelta(seconds=QUERY_SCHEDULE_SECONDS[count])
    return changed(operation, checks_count=count, next_check_at=due, updated_at=now)


def _attention_if_over(order: Order, operation: Operation, now: datetime) -> Order:
    if operation.next_check_at is not None:
        return order
    return changed(order, needs_attention="QUERIES_EXHAUSTED", updated_at=now)


def _conflicted(here: Change, amount: int, currency: str | None, now: datetime) -> Change:
    """A success with another amount or currency: the money waits in suspense for an operator."""
    order = here.order
    if order.payout_progress is not None or currency not in (None, order.currency):
        return _flagged(here, "INCORRECT_DETAILS", now)
    order = changed(
        order,
        state=changed_order_state(order.state, OrderState.CONFLICTED),
        suspense_minor=order.suspense_minor + amount,
        needs_attention="CONFLICTED",
        updated_at=now,
    )
    operation = update.ended(here.operation, OperationState.SUCCEEDED, now, "CONFLICTED")
    return changed(
        here,
        order=order,
        operation=operation,
        event=Event.SUSPENDED,
        amount_minor=amount,
        outcome="CONFLICTED",
    )


def _flagged(here: Change, reason: str, now: datetime) -> Change:
    order = changed(here.order, needs_attention=reason, updated_at=now)
    return changed(here, order=order, outcome=reason)


def _is_outdated(operation: Operation, attempt: Attempt, result: Result) -> bool:
    """Whether the channel itself dates this verdict before the contrary one that stands."""
    contrary = {
        OperationState.SUCCEEDED: (ResultKind.DECLINED, ResultKind.CLOSED),
        OperationState.FAILED: (ResultKind.SUCCESS,),
    }
    if result.kind not in contrary.get(operation.state, ()):
        return False
    if result.occurred_at is None or attempt.verdict_at is None:
        return False
    return result.occurred_at < attempt.verdict_at


def _noted(attempt: Attempt, result: Result, now: datetime) -> Attempt:
    """The attempt with what was said; a known result is never turned back into `UNKNOWN`."""
    known = attempt.result in (ResultKind.SUCCESS, ResultKind.DECLINED, ResultKind.PENDING)
    silent = result.kind in (ResultKind.UNKNOWN, ResultKind.NOT_FOUND)
    is_verdict = result.kind in (ResultKind.SUCCESS, ResultKind.DECLINED, ResultKind.CLOSED)
    return changed(
        attempt,
        verdict_at=(result.occurred_at if is_verdict else None) or attempt.verdict_at,
        result=attempt.result if known and silent else result.kind.value,
        channel_trade_no=result.channel_trade_no or attempt.channel_trade_no,
        reason=result.reason or attempt.reason,
        updated_at=now,
    )
