"""Payments, transfers and refunds that need no channel: booked in the commit that accepts them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from core import configuration, ids
from core.errors import (
    Forbidden,
    IdempotencyKeyReused,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    OperationNotSupported,
    OrderParamMismatch,
    ServerBusy,
)
from core.money import Money
from core.principal import Principal
from payments.pipeline import accept_operation
from payments.states import OperationType, OrderState, RefundProgress
from payments.values import Answer, OpenOrder
from tests.payments.conftest import World
from wallet.chart import AccountKind


def codes(answers: list[Answer]) -> Counter[str]:
    """How often each refusal came; "" for none."""
    return Counter(answer.refusal.code if answer.refusal else "" for answer in answers)


async def test_a_payment_is_booked_net_of_the_merchants_fee(world: World) -> None:
    await world.fund(10_000)
    answer = await world.pay(3_000)
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED
    assert (answer.order.captured_minor, answer.order.fee_minor) == (3_000, 18)
    assert await world.wallet() == 7_000
    assert await world.available(AccountKind.MERCHANT_PENDING, world.shop_id) == 2_982
    assert await world.available(AccountKind.FEES, world.shop_id) == 18
    await world.assert_books()


async def test_the_same_key_brings_the_same_answer_and_books_once(world: World) -> None:
    await world.fund(10_000)
    request = world.paying(3_000)
    first = await accept_operation(request)
    again = await accept_operation(request)
    assert (again.order, again.operation, again.replay) == (first.order, first.operation, True)
    assert await world.wallet() == 7_000


async def test_the_same_key_with_another_input_is_refused(world: World) -> None:
    await world.fund(10_000)
    request = world.paying(3_000, idempotency_key="one-and-the-same")
    await accept_operation(request)
    with pytest.raises(IdempotencyKeyReused):
        await world.pay(3_000, idempotency_key="one-and-the-same")
    assert await world.wallet() == 7_000


async def test_two_hundred_equal_requests_at_once_make_one_order(world: World) -> None:
    await world.fund(10_000)
    request = world.paying(3_000)
    answers = await asyncio.gather(*(accept_operation(request) for _ in range(200)))
    assert len({answer.order.order_id for answer in answers if answer.order}) == 1
    assert sum(not answer.replay for answer in answers) == 1
    assert await world.wallet() == 7_000
    await world.assert_books()


async def test_an_order_number_met_again_is_the_same_order(world: World) -> None:
    await world.fund(10_000)
    first = await world.pay(3_000, merchant_order_no="A1")
    again = await world.pay(3_000, merchant_order_no="A1")
    assert again.refusal is not None
    assert again.refusal.code == "ALREADY_PAID"
    assert again.order == first.order
    with pytest.raises(OrderParamMismatch):
        await world.pay(3_001, merchant_order_no="A1")
    other = Principal("customer", world.payee_id)
    with pytest.raises(OrderParamMismatch):
        await world.pay(3_000, merchant_order_no="A1", caller=other)
    assert await world.wallet() == 7_000


async def test_a_payment_without_funds_is_kept_as_failed_with_what_was_available(
    world: World,
) -> None:
    await world.fund(100)
    answer = await world.pay(3_000)
    assert answer.order is not None
    assert answer.refusal is not None
    assert answer.refusal.code == "INSUFFICIENT_AVAILABLE"
    assert answer.refusal.data == {"available_minor": 100}
    assert answer.order.state is OrderState.FAILED
    assert (await world.order(answer.order.order_id))["failure_reason"] == "INSUFFICIENT_AVAILABLE"
    decisions = await world.database.fetch(
        "SELECT 1 FROM decision WHERE order_id = $1", answer.order.order_id
    )
    assert len(decisions) == 1
    await world.assert_books()


async def until_answered(request: OpenOrder) -> Answer:
    """The answer; who was told that nothing happened tries again with the same key."""
    while True:
        try:
            return await accept_operation(request)
        except ServerBusy:
            await asyncio.sleep(0.1)


async def test_a_wallet_of_one_hundred_pays_one_exactly_one_hundred_times(world: World) -> None:
    """One payer's payments come one after the other: of so many, the last may be turned away."""
    await world.fund(100)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(until_answered(world.paying(1)) for _ in range(200)))
    assert [answer for answer in answers if answer.replay] == []
    assert codes(answers) == {"": 100, "INSUFFICIENT_AVAILABLE": 100}
    assert await world.wallet() == 0
    await world.assert_books()


async def test_transfers_in_both_directions_do_not_deadlock(world: World) -> None:
    await world.fund(1_000)
    await world.fund(1_000, world.payee_id)
    back = {"caller": Principal("customer", world.payee_id), "payee_customer_id": world.payer_id}
    answers = await asyncio.gather(
        *(world.transfer(10, **(back if number % 2 else {})) for number in range(80))
    )
    assert codes(answers) == {"": 80}
    assert await world.wallet() + await world.wallet(world.payee_id) == 2_000
    await world.assert_books()


async def test_above_the_small_amount_the_money_is_held_until_a_proof(world: World) -> None:
    await world.fund(100_000)
    answer = await world.pay(30_000)
    assert answer.order is not None
    assert answer.order.state is OrderState.REQUIRES_ACTION
    assert await world.wallet() == 70_000
    closed = await world.close(answer.order.order_id)
    assert closed.order is not None
    assert closed.order.state is OrderState.CLOSED
    assert await world.wallet() == 100_000
    await world.assert_books()


async def test_small_payments_ask_for_a_proof_once_the_days_limit_is_used(world: World) -> None:
    await world.fund(1_000_000)
    limit = configuration.current().small_amount_daily_limit_minor
    for _ in range(limit // 20_000):
        answer = await world.pay(20_000)
        assert answer.order is not None
        assert answer.order.state is OrderState.SUCCEEDED
    answers = await asyncio.gather(*(world.pay(20_000) for _ in range(3)))
    assert {each.order.state for each in answers if each.order} == {OrderState.REQUIRES_ACTION}


async def test_of_two_payments_at_once_the_days_limit_lets_one_pass(world: World) -> None:
    await world.fund(1_000_000)
    for _ in range(4):
        await world.pay(20_000)
    await world.pay(10_000)
    answers = await asyncio.gather(world.pay(10_000), world.pay(10_000))
    states = Counter(answer.order.state for answer in answers if answer.order)
    assert states == {OrderState.SUCCEEDED: 1, OrderState.REQUIRES_ACTION: 1}


async def test_a_blocked_payment_is_kept_and_moves_nothing(
    world: World, verdict: Callable[[str], None]
) -> None:
    await world.fund(10_000)
    verdict("BLOCK")
    answer = await world.pay(3_000)
    assert answer.order is not None
    assert answer.refusal is not None
    assert (answer.order.state, answer.refusal.code) == (OrderState.FAILED, "RISK_BLOCKED")
    assert await world.wallet() == 10_000
    assert await world.database.fetch("SELECT 1 FROM attempt") == []


async def test_partial_refunds_give_back_their_share_of_the_fee(world: World) -> None:
    await world.fund(10_000)
    paid = await world.pay(1_000)
    assert paid.order is not None
    for _ in range(3):
        answer = await world.refund(paid.order.order_id, 333)
        assert answer.refusal is None
    assert answer.order is not None
    assert answer.order.refund_progress is RefundProgress.PARTIAL
    last = await world.refund(paid.order.order_id, None)
    assert last.order is not None
    assert last.order.refund_progress is RefundProgress.FULL
    assert last.order.fee_refunded_minor == last.order.fee_minor == 6
    assert await world.wallet() == 10_000
    too_much = await world.refund(paid.order.order_id, 1)
    assert too_much.refusal is not None
    assert too_much.refusal.code == "REFUND_EXCEEDS"
    await world.assert_books()


async def test_of_a_hundred_refunds_at_once_exactly_the_captured_amount_goes_back(
    world: World,
) -> None:
    await world.fund(10_000)
    paid = await world.pay(500)
    assert paid.order is not None
    answers = await asyncio.gather(*(world.refund(paid.order.order_id, 10) for _ in range(100)))
    assert codes(answers) == {"": 50, "REFUND_EXCEEDS": 50}
    await world.assert_books()


async def test_a_refund_number_met_again_is_the_same_refund(world: World) -> None:
    await world.fund(10_000)
    paid = await world.pay(500)
    assert paid.order is not None
    first = await world.refund(paid.order.order_id, 100, refund_number="R1")
    again = await world.refund(paid.order.order_id, 100, refund_number="R1")
    assert again.operation == first.operation
    other = await world.refund(paid.order.order_id, 101, refund_number="R1")
    assert other.refusal is not None
    assert other.refusal.code == "OPERATION_PARAM_MISMATCH"
    assert (await world.order(paid.order.order_id))["refunded_minor"] == 100


async def test_only_the_orders_merchant_refunds_it(world: World) -> None:
    await world.fund(10_000)
    paid = await world.pay(500)
    assert paid.order is not None
    with pytest.raises(Forbidden):
        await world.refund(paid.order.order_id, 100, caller=world.payer)
    with pytest.raises(NotFound):
        await world.refund(paid.order.order_id, 100, caller=Principal("merchant", ids.new_id()))
    assert await world.wallet() == 9_500


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"money": Money(0, "CNY")}, InvalidArgument),
        ({"money": Money(-1, "CNY")}, InvalidArgument),
        ({"money": Money(2**63, "CNY")}, InvalidArgument),
        ({"money": Money(10_000_001, "CNY")}, LimitExceeded),
        ({"money": Money(100, "USD")}, InvalidArgument),
        ({"money": Money(100, "ZZZ")}, InvalidArgument),
        ({"product": "nothing"}, InvalidArgument),
        ({"type": OperationType.REFUND}, OperationNotSupported),
        ({"merchant_id": configuration.PLATFORM_MERCHANT_ID}, NotFound),
        ({"merchant_order_no": ""}, InvalidArgument),
        ({"merchant_order_no": "x" * 65}, InvalidArgument),
        ({"description": "a\x00b"}, InvalidArgument),
        ({"description": "\ud800"}, InvalidArgument),
        ({"return_url": "javascript:alert(1)"}, InvalidArgument),
        ({"idempotency_key": "short"}, InvalidArgument),
        ({"idempotency_key": "with a space in it"}, InvalidArgument),
        ({"caller": Principal("customer", ids.new_id())}, Forbidden),
    ],
)
async def test_bad_input_is_a_typed_error_and_changes_nothing(
    world: World, changes: dict[str, object], error: type[Exception]
) -> None:
    await world.fund(10_000)
    with pytest.raises(error):
        await world.pay(100, **changes)
    assert await world.wallet() == 10_000
    assert await world.database.fetch("SELECT 1 FROM payment_order") == []
    assert await world.database.fetch("SELECT 1 FROM idempotency") == []


async def test_a_replayed_payment_keeps_its_recorded_instant(world: World) -> None:
    await world.fund(10_000)
    now = (await world.database.fetch("SELECT purser_now() AS now"))[0]["now"]
    recorded = now - timedelta(days=300)
    answer = await world.pay(100, effective_at=recorded)
    assert answer.order is not None
    assert answer.order.effective_at == recorded
    assert answer.order.expires_at > now
