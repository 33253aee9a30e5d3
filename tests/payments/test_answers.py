"""What a channel's answer does, for every state it may meet: rules alone, no database."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channels import bank
from channels.contract import Result, ResultKind
from core import ids
from payments import answers
from payments.answers import QUERY_SCHEDULE_SECONDS, Change
from payments.product import Event
from payments.products import account, payout
from payments.states import (
    UNRESOLVED,
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
)
from payments.values import Attempt, Operation, Order

SENT_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = SENT_AT + timedelta(minutes=5)
AMOUNT = 10_000

STANDING = {
    OperationType.TOP_UP: {
        OperationState.SUBMITTED: [OrderState.PROCESSING, OrderState.CLOSING],
        OperationState.PENDING: [OrderState.REQUIRES_ACTION, OrderState.CLOSING],
        OperationState.UNKNOWN: [OrderState.PROCESSING, OrderState.CLOSING],
        OperationState.SUCCEEDED: [
            OrderState.SUCCEEDED,
            OrderState.LATE_PAID,
            OrderState.CONFLICTED,
        ],
        OperationState.FAILED: [OrderState.FAILED, OrderState.CLOSED],
    },
    OperationType.PAYOUT: {
        OperationState.SUBMITTED: [OrderState.PROCESSING],
        OperationState.PENDING: [OrderState.PROCESSING],
        OperationState.UNKNOWN: [OrderState.PROCESSING],
        OperationState.SUCCEEDED: [OrderState.SUCCEEDED],
        OperationState.FAILED: [OrderState.FAILED],
    },
}
PROGRESS = {
    OperationState.SUBMITTED: PayoutProgress.SUBMITTED,
    OperationState.UNKNOWN: PayoutProgress.SUBMITTED,
    OperationState.PENDING: PayoutProgress.IN_TRANSIT,
    OperationState.SUCCEEDED: PayoutProgress.PAID,
    OperationState.FAILED: PayoutProgress.FAILED,
}
CASES = [
    (type_, state, order_state, kind)
    for type_, states in STANDING.items()
    for state, order_states in states.items()
    for order_state, kind in itertools.product(order_states, ResultKind)
]


def standing(
    type_: OperationType,
    state: OperationState,
    order_state: OrderState,
    **changes: Any,
) -> tuple[Order, Operation, Attempt]:
    """An order, its operation and its attempt as some earlier commit left them."""
    is_payout = type_ is OperationType.PAYOUT
    received = AMOUNT if order_state is OrderState.SUCCEEDED else 0
    suspended = AMOUNT if order_state in (OrderState.LATE_PAID, OrderState.CONFLICTED) else 0
    order = Order(
        order_id=ids.new_id(),
        version=3,
        merchant_id=ids.new_id(),
        merchant_order_no="A1",
        type=type_,
        product="payout" if is_payout else "account",
        state=order_state,
        currency="CNY",
        amount_minor=AMOUNT,
        authorized_minor=received,
        captured_minor=received,
        suspense_minor=suspended,
        payout_progress=PROGRESS[state] if is_payout else None,
        failure_reason="CHANNEL_DECLINED" if order_state is OrderState.FAILED else None,
        payer_customer_id=None if is_payout else ids.new_id(),
        effective_at=SENT_AT,
        expires_at=changes.pop("expires_at", SENT_AT + timedelta(minutes=30)),
        created_at=SENT_AT,
        updated_at=SENT_AT,
    )
    operation = Operation(
        operation_id=ids.new_id(),
        order_id=order.order_id,
        merchant_id=order.merchant_id,
        payer_customer_id=order.payer_customer_id,
        payee_customer_id=None,
        type=type_,
        operation_number="A1",
        state=state,
        amount_minor=AMOUNT,
        currency="CNY",
        next_check_at=NOW if state in UNRESOLVED else None,
        submitted_at=SENT_AT,
        created_at=SENT_AT,
        updated_at=SENT_AT,
    )
    attempt = Attempt(
        attempt_id=ids.new_id(),
        operation_id=operation.operation_id,
        order_id=order.order_id,
        merchant_id=order.merchant_id,
        channel="bank",
        channel_request_number=operation.operation_id.hex,
        result={"SUCCEEDED": "SUCCESS", "FAILED": "DECLINED"}.get(state.value, state.value),
        sends_count=1,
        verdict_at=None if state in UNRESOLVED else SENT_AT + timedelta(minutes=1),
        created_at=SENT_AT,
        updated_at=SENT_AT,
    )
    return order, replace(operation, **changes), attempt


def told(
    case: tuple[Order, Operation, Attempt], result: Result, *, now: datetime = NOW, **profile: Any
) -> Change:
    product = payout.PRODUCT if case[0].payout_progress else account.PRODUCT
    return answers.answered(case, result, product, replace(bank.CHANNEL, **profile), now)


def said(kind: ResultKind, **values: Any) -> Result:
    """An answer with the right amount, given by the channel a moment ago."""
    return Result(
        **{
            "kind": kind,
            "amount_minor": AMOUNT,
            "currency": "CNY",
            "occurred_at": NOW - timedelta(seconds=1),
            **values,
        }
    )


@pytest.mark.parametrize(("type_", "state", "order_state", "kind"), CASES)
def test_every_answer_in_every_state_keeps_the_promises(
    type_: OperationType, state: OperationState, order_state: OrderState, kind: ResultKind
) -> None:
    case = standing(type_, state, order_state)
    change = told(case, said(kind))
    order, operation = change.order, change.operation
    if state is not OperationState.SUBMITTED:
        assert operation.state is not OperationState.UNKNOWN or state is OperationState.UNKNOWN
    if kind is ResultKind.UNKNOWN:
        assert operation.state in (state, OperationState.UNKNOWN)
        assert order.state is order_state
        assert change.event is None
    assert (operation.next_check_at is None) == (operation.state not in UNRESOLVED)
    assert order.captured_minor <= order.authorized_minor <= order.amount_minor
    assert min(order.suspense_minor, order.captured_minor) == 0
    moved = (order.captured_minor + order.suspense_minor) - (
        case[0].captured_minor + case[0].suspense_minor
    )
    gained = {None: 0, Event.RETURNED: -AMOUNT}.get(change.event, change.amount_minor)
    assert moved == gained
    if order.state is not order_state and order.state is OrderState.FAILED:
        assert order.failure_reason is not None


@pytest.mark.parametrize(("type_", "state", "order_state", "kind"), CASES)
def test_the_same_answer_again_changes_nothing_more(
    type_: OperationType, state: OperationState, order_state: OrderState, kind: ResultKind
) -> None:
    first = told(standing(type_, state, order_state), said(kind))
    if first.operation.state in UNRESOLVED:
        return
    again = told((first.order, first.operation, first.attempt), said(kind))
    assert again.event is None
    assert (again.order.state, again.operation) == (first.order.state, first.operation)


@pytest.mark.parametrize("state", [OperationState.SUCCEEDED, OperationState.FAILED])
@pytest.mark.parametrize(
    "kind", [ResultKind.PENDING, ResultKind.UNKNOWN, ResultKind.NOT_FOUND, ResultKind.NOT_SENT]
)
def test_a_known_result_is_not_touched_by_an_answer_that_says_less(
    state: OperationState, kind: ResultKind
) -> None:
    for type_ in STANDING:
        for order_state in STANDING[type_][state]:
            case = standing(type_, state, order_state)
            change = told(case, said(kind))
            assert (change.order, change.operation) == case[:2]
            assert change.outcome == "IGNORED"


def test_a_lost_answer_is_asked_for_at_once_and_then_by_the_schedule_until_a_person_must_look() -> (
    None
):
    """Edge 7: a timer never fails what is unknown."""
    now = NOW
    case = standing(OperationType.TOP_UP, OperationState.SUBMITTED, OrderState.PROCESSING)
    waits = []
    while True:
        change = told(case, said(ResultKind.UNKNOWN), now=now)
        assert change.operation.state is OperationState.UNKNOWN
        assert change.order.state is OrderState.PROCESSING
        case = (change.order, change.operation, change.attempt)
        if change.operation.next_check_at is None:
            break
        assert change.order.needs_attention is None
        waits.append((change.operation.next_check_at - now).total_seconds())
        now = change.operation.next_check_at
    assert tuple(waits) == QUERY_SCHEDULE_SECONDS
    assert change.order.needs_attention == "QUERIES_EXHAUSTED"
    late = told(case, said(ResultKind.SUCCESS), now=now)
    assert late.order.state is OrderState.SUCCEEDED
    assert late.order.needs_attention is None


def test_what_is_pending_is_asked_for_from_the_minutes_step_on() -> None:
    case = standing(OperationType.TOP_UP, OperationState.SUBMITTED, OrderState.PROCESSING)
    change = told(case, said(ResultKind.PENDING, payer_must_act=True, action_url="https://bank/x"))
    assert change.operation.next_check_at == NOW + timedelta(seconds=60)
    assert (change.order.state, change.order.action_url) == (
        OrderState.REQUIRES_ACTION,
        "https://bank/x",
    )


@pytest.mark.parametrize(
    ("age_seconds", "consistent", "state", "due_seconds"),
    [
        (10, True, OperationState.UNKNOWN, 20),  # too early: asked again at 30 s
        (29, True, OperationState.UNKNOWN, 1),
        (30, True, OperationState.SUBMITTED, 15),  # proof: the same number is sent again
        (30, False, OperationState.UNKNOWN, 60),  # no proof at a channel like this
    ],
)
def test_no_such_number_is_proof_only_late_and_of_a_consistent_channel(
    age_seconds: int, consistent: bool, state: OperationState, due_seconds: int
) -> None:
    now = SENT_AT + timedelta(seconds=age_seconds)
    case = standing(OperationType.TOP_UP, OperationState.UNKNOWN, OrderState.PROCESSING)
    change = told(case, Result(kind=ResultKind.NOT_FOUND), now=now, queries_consistent=consistent)
    assert change.operation.state is state
    assert change.operation.next_check_at == now + timedelta(seconds=due_seconds)
    assert change.order.state is OrderState.PROCESSING


def test_an_instruction_that_never_left_is_sent_again_a_few_times_then_fails() -> None:
    order, operation, attempt = standing(
        OperationType.TOP_UP, OperationState.SUBMITTED, OrderState.PROCESSING
    )
    for sends in range(1, bank.CHANNEL.resends_max + 1):
        change = told((order, operation, replace(attempt, sends_count=sends)), said_not_sent())
        assert change.operation.state is OperationState.SUBMITTED
        assert change.attempt.result == "NOT_SENT"
    last = replace(attempt, sends_count=bank.CHANNEL.resends_max + 1)
    change = told((order, operation, last), said_not_sent())
    assert (change.order.state, change.order.failure_reason) == (OrderState.FAILED, "NO_ROUTE")


def said_not_sent() -> Result:
    return Result(kind=ResultKind.NOT_SENT, reason="NO_CONNECTION")


def test_an_instruction_that_never_left_closes_an_order_that_is_being_closed() -> None:
    case = standing(OperationType.TOP_UP, OperationState.SUBMITTED, OrderState.CLOSING)
    change = told(case, said_not_sent())
    assert (change.order.state, change.operation.state) == (
        OrderState.CLOSED,
        OperationState.FAILED,
    )


@pytest.mark.parametrize(
    ("order_state", "expired", "kept", "event"),
    [
        (OrderState.FAILED, False, OrderState.SUCCEEDED, Event.BOOKED),
        (OrderState.FAILED, True, OrderState.LATE_PAID, Event.SUSPENDED),
        (OrderState.CLOSED, False, OrderState.LATE_PAID, Event.SUSPENDED),
    ],
)
def test_a_newer_success_after_the_end(
    order_state: OrderState, expired: bool, kept: OrderState, event: Event
) -> None:
    """Edge 6, and the first half of edge 4."""
    case = standing(
        OperationType.TOP_UP,
        OperationState.FAILED,
        order_state,
        expires_at=NOW - timedelta(seconds=1) if expired else NOW + timedelta(minutes=1),
    )
    change = told(case, said(ResultKind.SUCCESS))
    assert (change.order.state, change.event) == (kept, event)
    assert change.operation.state is OperationState.SUCCEEDED


@pytest.mark.parametrize("type_", [OperationType.TOP_UP, OperationType.PAYOUT])
@pytest.mark.parametrize(
    ("state", "order_state", "kind"),
    [
        (OperationState.SUCCEEDED, OrderState.SUCCEEDED, ResultKind.DECLINED),
        (OperationState.SUCCEEDED, OrderState.SUCCEEDED, ResultKind.CLOSED),
        (OperationState.FAILED, OrderState.FAILED, ResultKind.SUCCESS),
    ],
)
def test_an_answer_that_the_channel_dates_before_its_newer_verdict_is_ignored(
    type_: OperationType, state: OperationState, order_state: OrderState, kind: ResultKind
) -> None:
    """Edge 5, and its mirror: callbacks may arrive in any order."""
    case = standing(type_, state, order_state)
    assert case[2].verdict_at is not None
    change = told(case, said(kind, occurred_at=case[2].verdict_at - timedelta(seconds=1)))
    assert (change.order, change.operation, change.outcome) == (*case[:2], "IGNORED")


def test_success_and_return_of_a_payout_end_alike_in_whatever_order_they_arrive() -> None:
    paid = said(ResultKind.SUCCESS, occurred_at=NOW - timedelta(minutes=2))
    returned = said(ResultKind.DECLINED, reason="RETURNED", occurred_at=NOW - timedelta(minutes=1))
    for arrival in itertools.permutations((paid, returned, said(ResultKind.UNKNOWN), paid)):
        case = standing(OperationType.PAYOUT, OperationState.PENDING, OrderState.PROCESSING)
        events = []
        for answer in arrival:
            change = told(case, answer)
            case = (change.order, change.operation, change.attempt)
            events.append(change.event)
        assert (case[0].state, case[0].captured_minor) == (OrderState.FAILED, 0)
        assert case[1].state is OperationState.FAILED
        assert events.count(Event.PAID) == events.count(Event.RETURNED) <= 1


def test_a_return_that_happened_before_we_heard_of_the_success_is_believed() -> None:
    """Our own clock says nothing about the order of what the channel did."""
    case = standing(OperationType.PAYOUT, OperationState.PENDING, OrderState.PROCESSING)
    paid = told(case, said(ResultKind.SUCCESS, occurred_at=NOW - timedelta(minutes=4)))
    assert paid.order.payout_progress is PayoutProgress.PAID
    returned = told(
        (paid.order, paid.operation, paid.attempt),
        said(ResultKind.DECLINED, reason="RETURNED", occurred_at=NOW - timedelta(minutes=3)),
        now=NOW + timedelta(seconds=1),
    )
    assert returned.order.payout_progress is PayoutProgress.RETURNED
    assert returned.event is Event.RETURNED


@pytest.mark.parametrize("progress", [PayoutProgress.CANCELLED, PayoutProgress.RETURNED])
def test_a_payout_paid_after_the_money_is_back_calls_a_person_and_moves_nothing(
    progress: PayoutProgress,
) -> None:
    order, operation, attempt = standing(
        OperationType.PAYOUT, OperationState.FAILED, OrderState.FAILED
    )
    change = told(
        (replace(order, payout_progress=progress), operation, attempt), said(ResultKind.SUCCESS)
    )
    assert change.order.needs_attention == f"PAID_AFTER_{progress}"
    assert (change.order.state, change.event) == (OrderState.FAILED, None)


def test_a_top_ups_success_is_not_withdrawn_but_calls_a_person() -> None:
    case = standing(OperationType.TOP_UP, OperationState.SUCCEEDED, OrderState.SUCCEEDED)
    change = told(case, said(ResultKind.DECLINED))
    assert change.order.needs_attention == "SUCCESS_CONTRADICTED"
    assert (change.order.state, change.event) == (OrderState.SUCCEEDED, None)


@pytest.mark.parametrize(
    "order_state",
    [OrderState.PROCESSING, OrderState.REQUIRES_ACTION, OrderState.CLOSING, OrderState.CLOSED],
)
@pytest.mark.parametrize("amount_minor", [AMOUNT - 1, AMOUNT + 1, 1])
def test_another_amount_waits_in_suspense(order_state: OrderState, amount_minor: int) -> None:
    """Edge 3."""
    state = OperationState.FAILED if order_state is OrderState.CLOSED else OperationState.PENDING
    case = standing(OperationType.TOP_UP, state, order_state)
    change = told(case, said(ResultKind.SUCCESS, amount_minor=amount_minor))
    assert change.order.state is OrderState.CONFLICTED
    assert (change.order.suspense_minor, change.order.captured_minor) == (amount_minor, 0)
    assert (change.event, change.amount_minor) == (Event.SUSPENDED, amount_minor)
    assert change.order.needs_attention == "CONFLICTED"


@pytest.mark.parametrize("type_", [OperationType.TOP_UP, OperationType.PAYOUT])
def test_another_currency_is_booked_nowhere_and_calls_a_person(type_: OperationType) -> None:
    order_state = STANDING[type_][OperationState.PENDING][0]
    case = standing(type_, OperationState.PENDING, order_state)
    change = told(case, said(ResultKind.SUCCESS, currency="USD"))
    assert (change.order.state, change.event) == (order_state, None)
    assert change.order.needs_attention == "INCORRECT_DETAILS"


@pytest.mark.parametrize("values", [{"amount_minor": AMOUNT + 1}, {"currency": "USD"}])
def test_a_second_success_with_other_details_changes_nothing(values: dict[str, Any]) -> None:
    """Edge 2."""
    case = standing(OperationType.TOP_UP, OperationState.SUCCEEDED, OrderState.SUCCEEDED)
    change = told(case, said(ResultKind.SUCCESS, **values))
    assert (change.order, change.operation) == case[:2]
    assert change.outcome == "INCORRECT_DETAILS"
    assert told(case, said(ResultKind.SUCCESS)).outcome == "ALREADY_PROCESSED"
