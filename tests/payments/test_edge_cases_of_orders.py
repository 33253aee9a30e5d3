"""Edge cases of orders, each named by what must happen; the numbers are those of the semantics."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from channels import signed_json
from channels.simulator import SimulatorSettings
from core import clock, ids
from core import phase as phases
from core.errors import IdempotencyInProgress, OutcomeUnknown
from core.principal import SYSTEM, Principal
from payments import callbacks, rounds, sweep
from payments.callbacks import apply_callback
from payments.group import Known, Member, Outcome
from payments.idempotency import idempotency
from payments.pipeline import accept_operation, finish_operation
from payments.settlement import run_settlement
from payments.states import OperationState, OrderState
from payments.sweep import expire_orders
from payments.values import Answer, DecideReview
from tests.channels.conftest import Simulator
from tests.core.conftest import Proxy, postgres_behind, through
from tests.payments.conftest import CURRENCY, World
from tests.payments.test_channel_payments import settled, until
from wallet import ledger
from wallet.chart import AccountKind, account, clearing


def codes(answers: list[Answer]) -> Counter[str]:
    """How often each refusal came; "" for none."""
    return Counter(answer.refusal.code if answer.refusal else "" for answer in answers)


def order_id_of(answer: Answer) -> uuid.UUID:
    assert answer.order is not None
    return answer.order.order_id


def code_of(answer: Answer) -> str | None:
    return answer.refusal.code if answer.refusal else None


async def paid(world: World, amount_minor: int) -> uuid.UUID:
    """The id of a paid order, from a wallet that had just this amount."""
    await world.fund(amount_minor)
    answer = await world.pay(amount_minor)
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED
    return answer.order.order_id


async def customers(world: World, count: int, amount_minor: int) -> list[uuid.UUID]:
    """Customers of their own, each with the amount in the wallet."""
    made = [ids.new_id() for _ in range(count)]
    await world.database.fetch(
        """INSERT INTO customer (customer_id, phone, status, display_name, created_at)
        SELECT id, '+86139' || lpad(number::text, 8, '0'), 'ACTIVE', 'Customer', now()
        FROM unnest($1::uuid[]) WITH ORDINALITY AS each (id, number)""",
        made,
    )
    entries = [
        ledger.Entry(
            entry_id=ids.new_id(),
            kind="FUNDING",
            actions=(
                ledger.Post(
                    clearing("bank", CURRENCY),
                    account(AccountKind.CUSTOMER_WALLET, customer_id, CURRENCY),
                    amount_minor,
                ),
            ),
        )
        for customer_id in made
    ]
    assert {each.outcome for each in await ledger.post(SYSTEM, entries)} == {"POSTED"}
    return made


class Teller:
    """Signs callbacks as the bank would, about one number, at any time it likes to name."""

    def __init__(self, settings: SimulatorSettings, number: str) -> None:
        self.settings, self.number = settings, number

    def message(
        self, status: str, occurred_at: datetime, *, amount_minor: int = 10_000, event: str = ""
    ) -> tuple[dict[str, str], bytes]:
        body = orjson.dumps(
            {
                "client": self.settings.client,
                "number": self.number,
                "kind": "PAY_IN",
                "status": status,
                "reason": None if status == "SUCCESS" else "PAYER_CANCELLED",
                "retryable": False,
                "soft": False,
                "trade_no": "B1",
                "amount_minor": amount_minor,
                "currency": CURRENCY,
                "occurred_at": occurred_at.isoformat(),
                "event_id": event or f"event_{ids.new_id().hex}",
            }
        )
        private_key = self.settings.bank_private_key
        return signed_json.signed_headers(private_key, "POST /callbacks/bank", body), body

    async def tell(self, status: str, occurred_at: datetime, **rest: Any) -> int:
        """The status of our acknowledgement."""
        return (await apply_callback("bank", *self.message(status, occurred_at, **rest))).status


@pytest.fixture
async def waiting(
    world: World, bank: Simulator, bank_settings: SimulatorSettings
) -> tuple[Answer, Teller]:
    """A top-up of 100.00 that waits for its payer, at a bank that says nothing by itself."""
    await bank.fault("PAY_IN", "SILENCE")
    answer = await world.top_up(10_000)
    assert answer.operation is not None
    await world.run_jobs()
    await until(world, answer, "REQUIRES_ACTION")
    return answer, Teller(bank_settings, answer.operation.operation_id.hex)


async def test_the_same_success_told_twice_is_one_event_and_two_acknowledgements(
    world: World, waiting: tuple[Answer, Teller]
) -> None:
    """Edge 1."""
    answer, teller = waiting
    message = teller.message("SUCCESS", clock.now())
    acks = [await apply_callback("bank", *message) for _ in range(2)]
    assert [ack.status for ack in acks] == [200, 200]
    assert await teller.tell("SUCCESS", clock.now()) == 200
    outcomes = await world.database.fetch(
        "SELECT outcome FROM channel_event WHERE kind = 'CALLBACK' ORDER BY received_at"
    )
    assert [row["outcome"] for row in outcomes] == ["APPLIED", "ALREADY_PROCESSED"]
    assert (await world.order(order_id_of(answer)))["version"] == 4
    assert await world.wallet() == 10_000
    await world.assert_books()


async def test_fifty_success_callbacks_at_once_are_one_success(
    world: World, waiting: tuple[Answer, Teller]
) -> None:
    """Edge 1, all at once and each under an id of its own."""
    _, teller = waiting
    now = clock.now()
    acks = await asyncio.gather(*(teller.tell("SUCCESS", now) for _ in range(50)))
    assert set(acks) == {200}
    assert await world.wallet() == 10_000
    told = await world.database.fetch("SELECT 1 FROM outbox WHERE topic = 'order.succeeded'")
    assert len(told) == 1
    await world.assert_books()


async def test_a_success_with_another_amount_after_the_success_is_kept_and_changes_nothing(
    world: World, waiting: tuple[Answer, Teller]
) -> None:
    """Edge 2."""
    answer, teller = waiting
    await teller.tell("SUCCESS", clock.now())
    before = await world.order(order_id_of(answer))
    assert await teller.tell("SUCCESS", clock.now(), amount_minor=10_001) == 200
    assert await world.order(order_id_of(answer)) == before
    kept = await world.database.fetch(
        "SELECT 1 FROM channel_event WHERE outcome = 'INCORRECT_DETAILS'"
    )
    noted = await world.database.fetch(
        "SELECT 1 FROM audit_log WHERE action = 'CALLBACK_CONTRADICTS'"
    )
    assert (len(kept), len(noted)) == (1, 1)


async def test_a_failure_older_than_the_success_is_recorded_and_ignored(
    world: World, waiting: tuple[Answer, Teller]
) -> None:
    """Edge 5."""
    answer, teller = waiting
    await teller.tell("SUCCESS", clock.now())
    assert await teller.tell("DECLINED", clock.now() - timedelta(seconds=30)) == 200
    order = await world.order(order_id_of(answer))
    assert (order["state"], order["needs_attention"]) == ("SUCCEEDED", None)
    assert await world.database.fetch("SELECT 1 FROM channel_event WHERE outcome = 'IGNORED'")


async def test_a_success_newer_than_the_failure_wins(
    world: World, waiting: tuple[Answer, Teller]
) -> None:
    """Edge 6, and the older success that must not win."""
    answer, teller = waiting
    now = clock.now()
    await teller.tell("DECLINED", now)
    await teller.tell("SUCCESS", now - timedelta(seconds=5))
    assert (await world.order(order_id_of(answer)))["state"] == "FAILED"
    await teller.tell("SUCCESS", now + timedelta(seconds=5))
    assert (await world.order(order_id_of(answer)))["state"] == "SUCCEEDED"
    assert await world.wallet() == 10_000
    await world.assert_books()


async def test_an_unknown_outcome_is_never_failed_by_a_timer(world: World, bank: Simulator) -> None:
    """Edges 7 and 8."""
    await bank.fault("PAY_IN", "DROP_AFTER_COMMIT")
    await bank.fault("QUERY", "ERROR_BEFORE_COMMIT", count=None)
    answer = await world.top_up(10_000, merchant_order_no="T1")
    assert answer.operation is not None
    await world.run_jobs()
    for _ in range(3):
        await world.make_due()
        await finish_operation(answer.operation.operation_id)
    rows = await world.database.fetch(
        "SELECT state, next_check_at > purser_now() AS scheduled FROM operation"
    )
    assert [tuple(row) for row in rows] == [("UNKNOWN", True)]
    again = await world.top_up(10_000, merchant_order_no="T1")
    assert again.order is not None
    assert again.order.order_id == order_id_of(answer)
    await world.run_jobs()
    attempts = await world.database.fetch("SELECT sends_count FROM attempt")
    assert [row["sends_count"] for row in attempts] == [1]


async def test_an_order_that_expires_and_was_paid_is_paid(world: World, bank: Simulator) -> None:
    """Edge 11."""
    await bank.fault("PAY_IN", "SILENCE")
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "pay")
    await world.database.fetch("UPDATE payment_order SET expires_at = purser_now()")
    assert await expire_orders() == 1
    assert (await world.order(order_id_of(answer)))["state"] == "CLOSING"
    await world.run_jobs()
    order = await until(world, answer, "SUCCEEDED")
    assert order["closed_by"] is None
    assert await world.wallet() == 10_000
    await world.assert_books()


async def test_an_order_that_cannot_be_closed_keeps_no_other_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.fund(100_000)
    broken, sound = order_id_of(await world.pay(25_000)), order_id_of(await world.pay(25_000))
    await world.database.fetch("UPDATE payment_order SET expires_at = purser_now()")
    real = sweep.expire

    def expire(known: Known) -> Member | None:
        if known.order is not None and known.order.order_id == broken:
            raise ValueError("an order never goes from here to there")
        return real(known)

    monkeypatch.setattr(sweep, "expire", expire)
    assert await expire_orders() == 1
    states = [(await world.order(order_id))["state"] for order_id in (broken, sound)]
    assert states == ["REQUIRES_ACTION", "CLOSED"]


async def test_an_event_that_cannot_be_applied_keeps_no_other_back(
    world: World, waiting: tuple[Answer, Teller], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, teller = waiting
    await world.database.fetch(
        """INSERT INTO channel_event (channel_event_id, channel, event_key, kind,
            channel_request_number, raw_body, parsed, received_at)
        VALUES ($1, 'bank', 'event:broken', 'CALLBACK', $2, '', '{}', now() - interval '1 hour')""",
        ids.new_id(),
        teller.number,
    )

    async def died(event: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(callbacks, "apply_event", died)
    with pytest.raises(ConnectionError):
        await teller.tell("SUCCESS", clock.now())
    monkeypatch.undo()
    monkeypatch.setattr(callbacks, "UNAPPLIED_AFTER_SECONDS", 0)
    assert await callbacks.apply_unapplied() == 1
    assert (await world.order(order_id_of(answer)))["state"] == "SUCCEEDED"


async def test_an_order_that_was_never_sent_is_closed_without_being_sent(
    world: World, bank: Simulator
) -> None:
    bank.stop()
    answer = await world.top_up(10_000)
    assert answer.operation is not None
    await world.run_jobs()
    closing = await world.close(order_id_of(answer))
    assert closing.order is not None
    assert closing.order.state is OrderState.CLOSING
    bank.start()
    await world.make_due()
    await finish_operation(answer.operation.operation_id)
    assert (await world.order(order_id_of(answer)))["state"] == "CLOSED"
    assert await bank.booked(answer.operation.operation_id.hex) == {}
    await world.run_jobs()
    closes = await world.database.fetch("SELECT state FROM operation WHERE type = 'CLOSE'")
    assert [row["state"] for row in closes] == ["SUCCEEDED"]


async def test_of_two_refunds_of_60_at_once_exactly_one_is_accepted(world: World) -> None:
    """Edge 12."""
    order_id = await paid(world, 100)
    answers = await asyncio.gather(*(world.refund(order_id, 60) for _ in range(2)))
    assert codes(answers) == {"": 1, "REFUND_EXCEEDS": 1}
    await world.assert_books()


async def test_refunds_stop_at_what_was_captured(world: World) -> None:
    """Edge 13."""
    order_id = await paid(world, 100)
    answers = [await world.refund(order_id, amount) for amount in (60, 40, 1)]
    assert [code_of(answer) for answer in answers] == [None, None, "REFUND_EXCEEDS"]
    assert answers[2].refusal is not None
    assert answers[2].refusal.data == {"refundable_minor": 0}
    await world.assert_books()


async def test_a_refunds_number_is_one_refund_of_one_order(world: World) -> None:
    """Edges 14 and 15, and the same number for another order."""
    one, other = await paid(world, 100), await paid(world, 100)
    first = await world.refund(one, 40, refund_number="R1")
    again = await world.refund(one, 40, refund_number="R1")
    assert (again.operation, again.refusal) == (first.operation, None)
    for order_id, amount in ((one, 41), (other, 40), (other, None)):
        refused = await world.refund(order_id, amount, refund_number="R1")
        assert code_of(refused) == "OPERATION_PARAM_MISMATCH"
    assert (await world.order(other))["refunded_minor"] == 0


async def test_one_refund_number_for_two_orders_at_once_is_one_refund(world: World) -> None:
    orders = [await paid(world, 100) for _ in range(6)]
    answers = await asyncio.gather(
        *(world.refund(order_id, 40, refund_number="R1") for order_id in orders)
    )
    assert codes(answers) == {"": 1, "OPERATION_PARAM_MISMATCH": 5}
    rows = await world.database.fetch("SELECT 1 FROM payment_order WHERE refunded_minor > 0")
    assert len(rows) == 1
    await world.assert_books()


async def test_what_is_held_cannot_be_spent(world: World) -> None:
    """Edge 27."""
    await world.fund(30_000)
    held = await world.pay(30_000)
    assert held.order is not None
    assert held.order.state is OrderState.REQUIRES_ACTION
    answer = await world.pay(1)
    assert code_of(answer) == "INSUFFICIENT_AVAILABLE"
    await world.assert_books()


async def test_a_key_whose_first_call_still_runs_waits_and_gets_its_answer(world: World) -> None:
    """Edge 53, the first half: the first call is held up by a lock on the wallet."""
    await world.fund(10_000)
    request = world.paying(3_000)
    wallet = account(AccountKind.CUSTOMER_WALLET, world.payer_id, CURRENCY).account_id
    blocker = await asyncpg.connect(world.database.owner_url)
    try:
        blocking = blocker.transaction()
        await blocking.start()
        await blocker.execute("SELECT FROM account WHERE account_id = $1 FOR UPDATE", wallet)
        first = asyncio.create_task(accept_operation(request))
        await asyncio.sleep(0.3)
        rounds._groups._claimed.clear()  # The second call comes to another process.
        second = asyncio.create_task(accept_operation(request))
        await asyncio.sleep(0.3)
        assert not first.done()
        assert not second.done()
        await blocking.rollback()
        answers = await asyncio.gather(first, second)
    finally:
        await blocker.close()
    assert sorted(answer.replay for answer in answers) == [False, True]
    assert answers[0].order == answers[1].order
    assert await world.wallet() == 7_000


async def test_after_two_seconds_a_key_in_use_is_in_progress(world: World) -> None:
    """Edge 53, the second half."""
    await world.fund(10_000)
    request = world.paying(3_000)
    key = idempotency(world.payer, "PAY", request.idempotency_key, {})
    holder = await asyncpg.connect(world.database.owner_url)
    try:
        holding = holder.transaction()
        await holding.start()
        await holder.execute(
            """INSERT INTO idempotency
                (idempotency_id, principal, operation, key, input_hash, result)
            VALUES ($1, $2, 'PAY', $3, '', '{}')""",
            key.idempotency_id,
            str(world.payer),
            request.idempotency_key,
        )
        started = time.monotonic()
        with pytest.raises(IdempotencyInProgress) as busy:
            await accept_operation(request)
        assert 1.5 < time.monotonic() - started < 3.5
        assert busy.value.retryable
        await holding.rollback()
    finally:
        await holder.close()
    answer = await accept_operation(request)
    assert (answer.replay, await world.wallet()) == (False, 7_000)


async def test_a_paid_number_met_again_under_a_new_key_says_so_for_the_same_body(
    world: World,
) -> None:
    """Edge 54, and the answer is kept with its key."""
    await world.fund(10_000)
    first = await world.pay(3_000, merchant_order_no="A1")
    request = world.paying(3_000, merchant_order_no="A1")
    again, replayed = await accept_operation(request), await accept_operation(request)
    for answer in (again, replayed):
        assert code_of(answer) == "ALREADY_PAID"
        assert answer.order == first.order
    assert (again.replay, replayed.replay) == (False, True)


@pytest.mark.parametrize("outcome", ["declined", "lapsed"])
async def test_the_number_of_an_order_that_failed_in_review_is_answered_with_its_end(
    world: World, verdict: Callable[[str], None], outcome: str
) -> None:
    await world.fund(10_000)
    verdict("REVIEW")
    asked = await world.pay(3_000, merchant_order_no="A1")
    if outcome == "declined":
        await accept_operation(
            DecideReview(
                caller=world.operator,
                idempotency_key="verdict-0001",
                order_id=order_id_of(asked),
                accept=False,
                reason="looks stolen",
            )
        )
    else:
        await world.database.fetch("UPDATE payment_order SET expires_at = purser_now()")
        await expire_orders()
    again = await world.pay(3_000, merchant_order_no="A1")
    assert code_of(again) == "ORDER_CLOSED"
    assert again.order is not None
    assert again.order.state is OrderState.FAILED
    assert await world.wallet() == 10_000


async def test_a_frozen_wallet_pays_nothing_but_gets_back_what_was_held(world: World) -> None:
    """Edge 64."""
    await world.fund(30_000)
    held = await world.pay(25_000)
    wallet = account(AccountKind.CUSTOMER_WALLET, world.payer_id, CURRENCY).account_id
    assert await ledger.set_account_terms(world.operator, wallet, frozen=True) == "APPLIED"
    answer = await world.pay(1)
    assert code_of(answer) == "ACCOUNT_FROZEN"
    assert (await world.order(order_id_of(answer)))["failure_reason"] == "ACCOUNT_FROZEN"
    closed = await world.close(order_id_of(held))
    assert closed.order is not None
    assert closed.order.state is OrderState.CLOSED
    assert await world.wallet() == 30_000
    again = await world.pay(1, merchant_order_no=answer.order.merchant_order_no)  # type: ignore[union-attr]
    assert code_of(again) == "ACCOUNT_FROZEN"
    await world.assert_books()


async def test_a_payout_of_unknown_outcome_is_not_sent_again_and_not_cancelled(
    world: World, bank: Simulator
) -> None:
    """Edge 69."""
    await settled(world, 20_000)
    await bank.fault("PAY_OUT", "DROP_AFTER_COMMIT")
    await bank.fault("QUERY", "ERROR_BEFORE_COMMIT", count=None)
    answer = await world.pay_out(10_000, "62220000111105")
    assert answer.operation is not None
    await world.run_jobs()
    rows = await world.database.fetch("SELECT state FROM operation WHERE type = 'PAYOUT'")
    assert [row["state"] for row in rows] == ["UNKNOWN"]
    closed = await world.close(order_id_of(answer), world.shop)
    assert code_of(closed) == "PAYOUT_NOT_CANCELLABLE"
    await world.make_due()
    await finish_operation(answer.operation.operation_id)
    attempts = await world.database.fetch("SELECT sends_count FROM attempt")
    assert [row["sends_count"] for row in attempts] == [1]
    await world.assert_books()


@pytest.mark.parametrize("reason", ["BLOCK", "no money"])
async def test_cancelling_a_payout_that_failed_at_once_says_that_it_has_ended(
    world: World, verdict: Callable[[str], None], reason: str
) -> None:
    await settled(world, 20_000)
    if reason == "BLOCK":
        verdict(reason)
    answer = await world.pay_out(10_000 if reason == "BLOCK" else 90_000)
    assert answer.order is not None
    assert answer.order.state is OrderState.FAILED
    closed = await world.close(order_id_of(answer), world.shop)
    assert code_of(closed) == "ORDER_CLOSED"
    assert await world.available(AccountKind.MERCHANT_AVAILABLE, world.shop_id) == 19_880
    await world.assert_books()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each commit had."""
    sizes: list[int] = []
    real = rounds.commit

    async def commit(members: list[Member]) -> list[Outcome]:
        sizes.append(len(members))
        return await real(members)

    monkeypatch.setattr(rounds, "commit", commit)
    return sizes


async def test_of_64_payments_in_one_commit_the_one_without_funds_is_refused_alone(
    world: World, commits: list[int]
) -> None:
    """Edge 78: they arrive together; the refused one is committed again as FAILED, by itself."""
    payers = await customers(world, 63, 1_000)
    callers = [Principal("customer", payer) for payer in (*payers, world.payer_id)]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(world.pay(1_000, caller=caller) for caller in callers))
    assert commits == [64, 1]
    assert codes(answers) == {"": 63, "INSUFFICIENT_AVAILABLE": 1}
    assert answers[-1].order is not None
    assert answers[-1].order.state is OrderState.FAILED
    booked = await world.database.fetch(
        "SELECT DISTINCT transaction_id::text FROM entry WHERE kind = 'PAY_BOOKED'"
    )
    assert len(booked) == 1
    kept = await world.database.fetch("SELECT state, count(*) FROM payment_order GROUP BY state")
    assert dict(map(tuple, kept)) == {"SUCCEEDED": 63, "FAILED": 1}
    assert await world.available(AccountKind.MERCHANT_PENDING, world.shop_id) == 63 * 994
    await world.assert_books()


async def test_refunds_of_many_orders_and_a_stale_one_commit_together(
    world: World, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edge 78, for what follows on an order: only the stale one reads again."""
    orders = [await paid(world, 100) for _ in range(8)]
    commits.clear()
    real = rounds.commit

    async def commit(members: list[Member]) -> list[Outcome]:
        if not commits:
            await world.database.fetch(
                "UPDATE payment_order SET version = version + 1 WHERE order_id = $1", orders[0]
            )
        return await real(members)

    monkeypatch.setattr(rounds, "commit", commit)
    answers = await asyncio.gather(*(world.refund(order_id, 100) for order_id in orders))
    assert codes(answers) == {"": 8}
    assert commits == [8, 1]
    assert await world.available(AccountKind.MERCHANT_PENDING, world.shop_id) == 0
    await world.assert_books()


@pytest.mark.parametrize("what", ["refund", "settlement"])
async def test_what_is_not_rolled_up_yet_is_seen_by_who_takes_it(world: World, what: str) -> None:
    """Edge 80."""
    orders = [await paid(world, 1_000) for _ in range(3)]
    pending = account(AccountKind.MERCHANT_PENDING, world.shop_id, CURRENCY).account_id
    rows = await world.database.fetch(
        "SELECT credits_posted FROM account WHERE account_id = $1", pending
    )
    assert rows[0]["credits_posted"] == 0
    if what == "refund":
        answers = [await world.refund(order_id, None) for order_id in orders]
        assert codes(answers) == {"": 3}
    else:
        done = await run_settlement(world.operator, "settle-0001", world.shop_id, CURRENCY)
        assert done.settlement.amount_minor == 3 * 994
    assert await world.available(AccountKind.MERCHANT_PENDING, world.shop_id) == 0
    await ledger.roll_up()
    await world.assert_books()


@pytest.fixture
async def by_proxy(world: World) -> AsyncIterator[Proxy]:
    """The pool of the test, connected again by way of a network that can be cut."""
    proxy = postgres_behind(world.database.url)
    await proxy.start()
    await world.fund(10_000)
    await phases.close()
    url = through(proxy, world.database.url)
    await phases.connect(url, pool_size=3, application_name="test")
    yield proxy
    await proxy.stop()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_commit_whose_answer_was_lost_is_settled_by_reading(
    world: World, by_proxy: Proxy, arrived: bool
) -> None:
    """Edge 79, for one: the key tells whether the commit happened."""
    request = world.paying(3_000)
    by_proxy.cut_at, by_proxy.after_reply = request.idempotency_key.encode(), arrived
    answer = await accept_operation(request)
    assert by_proxy.cuts_count == 1
    assert answer.operation is not None
    assert (answer.operation.state, answer.replay) == (OperationState.SUCCEEDED, arrived)
    assert await world.wallet() == 7_000
    await world.assert_books()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_commit_that_nobody_can_ask_about_is_unknown_and_never_busy(
    world: World, by_proxy: Proxy, arrived: bool
) -> None:
    """Busy would say that nothing happened, and a client might pay again under another key."""
    request = world.paying(3_000)
    by_proxy.cut_at, by_proxy.after_reply = request.idempotency_key.encode(), arrived
    by_proxy.stays_away = True
    with pytest.raises(OutcomeUnknown):
        await accept_operation(request)
    by_proxy.stays_away = False
    await asyncio.sleep(0.1)
    answer = await accept_operation(request)
    assert answer.replay is arrived
    assert await world.wallet() == 7_000
    await world.assert_books()
