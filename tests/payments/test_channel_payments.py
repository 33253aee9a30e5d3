"""Top-ups and payouts through the simulated bank: callbacks, lost answers, closing, late money."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from core import configuration
from core.phase import phase
from core.principal import SYSTEM
from payments.callbacks import apply_unapplied
from payments.pipeline import finish_operation
from payments.settlement import run_settlement
from payments.states import OrderState, PayoutProgress
from payments.sweep import expire_orders, late_money, overdue
from payments.values import Answer
from tests.channels.conftest import Simulator
from tests.payments.conftest import World
from wallet import ledger
from wallet.chart import AccountKind, account


async def until(
    world: World, answer: Answer, state: str, seconds: float = 8.0
) -> dict[str, object]:
    """The order's row once it is in that state."""
    assert answer.order is not None
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        order = await world.order(answer.order.order_id)
        if order["state"] == state:
            return order
        assert asyncio.get_running_loop().time() < deadline, order
        await asyncio.sleep(0.02)


async def number_of(world: World, answer: Answer) -> str:
    assert answer.operation is not None
    return answer.operation.operation_id.hex


async def test_a_top_up_is_credited_when_the_bank_calls_back(world: World, bank: Simulator) -> None:
    answer = await world.top_up(10_000)
    assert answer.order is not None
    assert answer.order.state is OrderState.CREATED
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    assert str(order["action_url"]).startswith(bank.url)
    assert await world.wallet() == 0
    await bank.press(str(order["action_url"]), "pay")
    await until(world, answer, "SUCCEEDED")
    assert await world.wallet() == 10_000
    assert (await bank.booked(await number_of(world, answer)))["bookings_count"] == 1
    await world.assert_books()


async def test_a_callback_many_times_at_once_changes_the_order_once(
    world: World, bank: Simulator
) -> None:
    await bank.fault("CALLBACK", "DUPLICATE")
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "pay")
    await until(world, answer, "SUCCEEDED")
    await asyncio.sleep(0.3)
    assert await world.wallet() == 10_000
    events = await world.database.fetch("SELECT 1 FROM outbox WHERE topic = 'order.succeeded'")
    assert len(events) == 1
    await world.assert_books()


async def test_a_lost_answer_stays_unknown_until_the_bank_is_asked(
    world: World, bank: Simulator
) -> None:
    await bank.fault("PAY_IN", "DROP_AFTER_COMMIT")
    await bank.fault("QUERY", "ERROR_BEFORE_COMMIT", count=1)
    answer = await world.top_up(10_000)
    assert answer.operation is not None
    await world.run_jobs()
    row = await world.database.fetch(
        "SELECT state FROM operation WHERE operation_id = $1", answer.operation.operation_id
    )
    assert row[0]["state"] == "UNKNOWN"
    assert (await world.order(answer.order.order_id))["state"] == "PROCESSING"  # type: ignore[union-attr]
    await world.make_due()
    assert await overdue() == [answer.operation.operation_id]
    await finish_operation(answer.operation.operation_id)
    order = await until(world, answer, "REQUIRES_ACTION")
    assert order["failure_reason"] is None
    assert (await bank.booked(await number_of(world, answer)))["bookings_count"] == 0


async def test_finishing_twice_at_once_sends_once(world: World, bank: Simulator) -> None:
    answer = await world.top_up(10_000)
    assert answer.operation is not None
    operation_id = answer.operation.operation_id
    await asyncio.gather(*(finish_operation(operation_id) for _ in range(8)))
    attempts = await world.database.fetch("SELECT sends_count FROM attempt")
    assert [row["sends_count"] for row in attempts] == [1]


async def test_a_bank_that_cannot_be_reached_gets_the_same_number_again(
    world: World, bank: Simulator
) -> None:
    bank.stop()
    answer = await world.top_up(10_000)
    assert answer.operation is not None
    await world.run_jobs()
    attempts = await world.database.fetch("SELECT result, channel_request_number FROM attempt")
    assert attempts[0]["result"] == "NOT_SENT"
    bank.start()
    await world.make_due()
    await finish_operation(answer.operation.operation_id)
    await until(world, answer, "REQUIRES_ACTION")
    again = await world.database.fetch("SELECT sends_count, channel_request_number FROM attempt")
    assert again[0]["sends_count"] == 2
    assert again[0]["channel_request_number"] == attempts[0]["channel_request_number"]


async def test_a_declined_top_up_fails_and_says_so(world: World, bank: Simulator) -> None:
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "decline")
    order = await until(world, answer, "FAILED")
    assert order["failure_reason"] == "CHANNEL_DECLINED"
    assert await world.wallet() == 0
    await world.assert_books()


async def test_a_success_with_another_amount_goes_to_suspense(
    world: World, bank: Simulator
) -> None:
    await bank.fault("CALLBACK", "WRONG_AMOUNT", amount_minor=-1)
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "pay")
    order = await until(world, answer, "CONFLICTED")
    assert (order["suspense_minor"], order["needs_attention"]) == (9_999, "CONFLICTED")
    assert await world.wallet() == 0
    await world.assert_books()


async def test_a_forged_callback_changes_nothing_and_is_noted(
    world: World, bank: Simulator
) -> None:
    await bank.fault("CALLBACK", "BAD_SIGNATURE", count=1)
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "pay")
    await until(world, answer, "SUCCEEDED")
    assert await world.wallet() == 10_000
    noted = await world.database.fetch("SELECT 1 FROM audit_log WHERE action = 'CALLBACK_REFUSED'")
    assert len(noted) == 1


async def test_an_unpaid_top_up_is_closed_at_the_bank_first(world: World, bank: Simulator) -> None:
    answer = await world.top_up(10_000)
    assert answer.order is not None
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    closing = await world.close(answer.order.order_id)
    assert closing.order is not None
    assert closing.order.state is OrderState.CLOSING
    await world.run_jobs()
    await until(world, answer, "CLOSED")
    response = await bank.press(str(order["action_url"]), "pay")
    assert response.status_code >= 400
    await world.assert_books()


async def test_a_top_up_paid_while_it_was_being_closed_is_kept(
    world: World, bank: Simulator
) -> None:
    await bank.fault("PAY_IN", "SILENCE")
    answer = await world.top_up(10_000)
    assert answer.order is not None
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "pay")
    await world.close(answer.order.order_id)
    await world.run_jobs()
    await until(world, answer, "SUCCEEDED")
    closes = await world.database.fetch("SELECT state, reason FROM operation WHERE type = 'CLOSE'")
    assert dict(closes[0]) == {"state": "FAILED", "reason": "ALREADY_PAID"}
    assert await world.wallet() == 10_000
    await world.assert_books()


async def test_late_money_of_a_top_up_reaches_the_wallet_after_all(
    world: World, bank: Simulator
) -> None:
    await bank.fault("CLOSE", "SUCCESS_AFTER_CLOSE")
    answer = await world.top_up(10_000)
    assert answer.order is not None
    assert answer.operation is not None
    await world.run_jobs()
    await until(world, answer, "REQUIRES_ACTION")
    await world.close(answer.order.order_id)
    await world.run_jobs()
    await until(world, answer, "LATE_PAID")
    assert await world.wallet() == 0
    assert await world.available(AccountKind.SUSPENSE, answer.order.merchant_id) == 10_000
    await world.run_jobs()
    order = await until(world, answer, "SUCCEEDED")
    assert order["suspense_minor"] == 0
    assert await world.wallet() == 10_000
    assert await late_money() == []
    await world.assert_books()


async def test_an_order_whose_time_is_over_is_closed_by_the_sweeper(
    world: World, bank: Simulator
) -> None:
    answer = await world.top_up(10_000)
    await world.run_jobs()
    await until(world, answer, "REQUIRES_ACTION")
    await world.database.fetch("UPDATE payment_order SET expires_at = purser_now()")
    assert await expire_orders() == 1
    await world.run_jobs()
    order = await until(world, answer, "CLOSED")
    assert order["closed_by"] == "EXPIRY"


async def test_an_event_that_a_crash_left_unapplied_is_applied_later(
    world: World, bank: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")

    async def died(event: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("payments.callbacks.apply_event", died)
    await bank.press(str(order["action_url"]), "pay")
    seen = "SELECT 1 FROM channel_event WHERE kind = 'CALLBACK'"
    while not await world.database.fetch(seen):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    bank.stop()
    assert (await world.order(answer.order.order_id))["state"] == "REQUIRES_ACTION"  # type: ignore[union-attr]
    monkeypatch.undo()
    await world.database.fetch("ALTER TABLE channel_event DISABLE TRIGGER refuse_change")
    await world.database.fetch(
        "UPDATE channel_event SET received_at = received_at - interval '1 minute'"
    )
    await apply_unapplied()
    await until(world, answer, "SUCCEEDED")
    await world.assert_books()


async def settled(world: World, amount_minor: int) -> None:
    """The shop has earned and settled an amount (before its fee)."""
    await world.fund(amount_minor)
    paid = await world.pay(amount_minor)
    assert paid.order is not None
    assert paid.order.state is OrderState.SUCCEEDED
    await run_settlement(world.operator, f"settle-{paid.order.order_id}", world.shop_id, "CNY")


async def test_settlement_makes_what_is_pending_available_once(world: World) -> None:
    await world.fund(10_000)
    await world.pay(10_000)
    first = await run_settlement(world.operator, "settle-0001", world.shop_id, "CNY")
    again = await run_settlement(world.operator, "settle-0001", world.shop_id, "CNY")
    assert (first.settlement.amount_minor, first.replay) == (9_940, False)
    assert again.settlement == first.settlement
    assert again.replay
    nothing = await run_settlement(world.operator, "settle-0002", world.shop_id, "CNY")
    assert nothing.settlement.amount_minor == 0
    assert await world.available(AccountKind.MERCHANT_AVAILABLE, world.shop_id) == 9_940
    await world.assert_books()


async def test_a_payout_leaves_the_merchants_balance_and_is_paid(
    world: World, bank: Simulator
) -> None:
    await settled(world, 20_000)
    answer = await world.pay_out(10_000)
    assert answer.order is not None
    assert answer.order.payout_progress is PayoutProgress.RESERVED
    assert await world.available(AccountKind.MERCHANT_AVAILABLE, world.shop_id) == 9_880
    await world.run_jobs()
    order = await until(world, answer, "SUCCEEDED")
    assert order["payout_progress"] == "PAID"
    assert await world.available(AccountKind.PAYOUTS_IN_FLIGHT, world.shop_id) == 0
    assert "6222000011110000" not in str(order)
    await world.assert_books()


async def test_a_payout_cannot_take_more_than_is_available(world: World) -> None:
    await settled(world, 10_000)
    answers = await asyncio.gather(*(world.pay_out(4_000) for _ in range(5)))
    refused = [answer for answer in answers if answer.refusal]
    assert len(refused) == 3
    assert {answer.refusal.code for answer in refused if answer.refusal} == {
        "INSUFFICIENT_AVAILABLE"
    }
    await world.assert_books()


async def test_a_refused_payout_gives_the_money_back_when_it_is_cancelled(
    world: World, bank: Simulator
) -> None:
    await settled(world, 20_000)
    answer = await world.pay_out(10_000, "62220000111101")
    assert answer.order is not None
    await world.run_jobs()
    order = await until(world, answer, "FAILED")
    assert order["payout_progress"] == "FAILED"
    assert await world.available(AccountKind.MERCHANT_AVAILABLE, world.shop_id) == 9_880
    closed = await world.close(answer.order.order_id, world.shop)
    assert closed.order is not None
    assert closed.order.payout_progress is PayoutProgress.CANCELLED
    assert await world.available(AccountKind.MERCHANT_AVAILABLE, world.shop_id) == 19_880
    await world.assert_books()


async def test_a_payout_on_its_way_cannot_be_cancelled(world: World, bank: Simulator) -> None:
    await settled(world, 20_000)
    answer = await world.pay_out(10_000, "62220000111105")
    assert answer.order is not None
    await world.run_jobs()
    await until(world, answer, "PROCESSING")
    closed = await world.close(answer.order.order_id, world.shop)
    assert closed.refusal is not None
    assert closed.refusal.code == "PAYOUT_NOT_CANCELLABLE"


async def test_a_returned_payout_is_credited_again(world: World, bank: Simulator) -> None:
    await settled(world, 20_000)
    answer = await world.pay_out(10_000, "62220000111104")
    await world.run_jobs()
    await until(world, answer, "SUCCEEDED")
    order = await until(world, answer, "FAILED")
    assert (order["payout_progress"], order["failure_reason"]) == ("RETURNED", "RETURNED")
    assert await world.available(AccountKind.MERCHANT_AVAILABLE, world.shop_id) == 19_880
    await world.assert_books()


async def test_a_payout_in_review_holds_the_money_and_is_sent_after_the_verdict(
    world: World, bank: Simulator, verdict: Callable[[str], None]
) -> None:
    from payments.pipeline import accept_operation
    from payments.values import DecideReview

    await settled(world, 20_000)
    verdict("REVIEW")
    answer = await world.pay_out(10_000)
    assert answer.order is not None
    assert answer.order.payout_progress is PayoutProgress.HELD
    await world.run_jobs()
    assert await world.database.fetch("SELECT 1 FROM attempt") == []
    await accept_operation(
        DecideReview(
            caller=world.operator,
            idempotency_key="verdict-0001",
            order_id=answer.order.order_id,
            accept=True,
            reason="known merchant",
        )
    )
    await world.run_jobs()
    await until(world, answer, "SUCCEEDED")
    await world.assert_books()


async def test_a_callback_to_an_unknown_channel_or_without_a_signature_is_refused(
    world: World, bank: Simulator
) -> None:
    base = configuration.current().public_url
    async with httpx2.AsyncClient(trust_env=False) as client:
        unknown = await client.post(f"{base}/callbacks/nobody", content=b"{}")
        unsigned = await client.post(f"{base}/callbacks/bank", content=b"{}")
    assert (unknown.status_code, unsigned.status_code) == (401, 401)
    async with phase(SYSTEM):
        pass
    assert await world.database.fetch("SELECT 1 FROM channel_event") == []


async def test_a_top_up_to_a_wallet_that_takes_no_money_waits_and_books_nothing(
    world: World, bank: Simulator
) -> None:
    """Nothing is lost: once the wallet takes money again, the sweeper finds the answer."""
    await world.fund(100)
    wallet = account(AccountKind.CUSTOMER_WALLET, world.payer_id, "CNY").account_id
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    async with phase(SYSTEM):
        await ledger.set_account_terms(SYSTEM, wallet, credits_frozen=True)
    await bank.press(str(order["action_url"]), "pay")
    await asyncio.sleep(0.3)
    assert await world.wallet() == 100
    async with phase(SYSTEM):
        await ledger.set_account_terms(SYSTEM, wallet, credits_frozen=False)
    await world.make_due()
    assert answer.operation is not None
    await finish_operation(answer.operation.operation_id)
    await until(world, answer, "SUCCEEDED")
    assert await world.wallet() == 10_100
    await world.assert_books()
