"""Random schedules of everything that can happen to orders, at a bank that misbehaves.

Each seed is a test of its own, so that a failing one runs again alone. `PURSER_TEST_SCHEDULES`
names other seeds, as a range like `100-400`.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from channels import breaker
from core import ids
from core.configuration import PLATFORM_MERCHANT_ID
from core.errors import (
    Busy,
    ChallengeFailed,
    NotFound,
    OperationNotSupported,
    OrderParamMismatch,
    PurserError,
)
from core.money import Money
from core.principal import Principal
from payments.callbacks import apply_unapplied
from payments.pipeline import accept_operation, finish_operation
from payments.products.payout import Details as PayoutDetails
from payments.settlement import run_settlement
from payments.states import OperationType
from payments.sweep import expire_orders, late_money, overdue
from payments.values import (
    Answer,
    AnswerChallenge,
    CloseOrder,
    DecideReview,
    OpenOrder,
    RefundOrder,
    Request,
)
from tests.channels.conftest import Simulator
from tests.payments.conftest import CURRENCY, World
from wallet import ledger

SCHEDULES = os.environ.get("PURSER_TEST_SCHEDULES", "1-30")
FIRST, LAST = (int(part) for part in SCHEDULES.split("-"))
BATCHES = 6
FUNDED_MINOR = 60_000
RESTING = ("SUCCEEDED", "FAILED", "CLOSED")

FAULTS = {
    "PAY_IN": (
        "DROP_BEFORE_COMMIT",
        "DROP_AFTER_COMMIT",
        "ERROR_BEFORE_COMMIT",
        "ERROR_AFTER_COMMIT",
        "EARLY_CALLBACK",
        "SILENCE",
        "DECLINE",
        "BAD_SIGNATURE",
    ),
    "PAY_OUT": (
        "DROP_BEFORE_COMMIT",
        "DROP_AFTER_COMMIT",
        "ERROR_AFTER_COMMIT",
        "EARLY_CALLBACK",
        "DECLINE",
        "BAD_SIGNATURE",
    ),
    "QUERY": ("DROP_AFTER_COMMIT", "ERROR_BEFORE_COMMIT", "BAD_SIGNATURE", "STALE_TIMESTAMP"),
    "CLOSE": ("DROP_AFTER_COMMIT", "ERROR_AFTER_COMMIT", "SUCCESS_AFTER_CLOSE"),
    "CALLBACK": (
        "DUPLICATE",
        "DELAY_BEFORE_COMMIT",
        "WRONG_AMOUNT",
        "BAD_SIGNATURE",
        "STALE_TIMESTAMP",
    ),
}
ACCOUNTS = {
    "6222000011110000": "paid",
    "6222000011110101": "refused at once",
    "6222000011110102": "the bank is away",
    "6222000011110103": "refused later",
    "6222000011110104": "paid, then returned",
}


@dataclass
class Schedule:
    """One run: what was asked, and what was answered first."""

    world: World
    bank: Simulator
    chance: random.Random
    judge: Callable[[str], None]
    customers: list[uuid.UUID]
    merchants: list[uuid.UUID]
    answered: list[tuple[Request, Answer]] = field(default_factory=list)
    refused: list[PurserError] = field(default_factory=list)

    async def run(self) -> None:
        """Batches of things that happen at once, with workers that come now and then."""
        await self.plan_faults()
        for _ in range(BATCHES):
            self.judge(
                self.chance.choices(("ALLOW", "REVIEW", "CHALLENGE", "BLOCK"), (16, 2, 2, 1))[0]
            )
            acts = self.chance.choices(self.acts(), k=self.chance.randint(4, 8))
            workers = self.chance.choices(self.workers(), k=self.chance.randint(1, 3))
            await asyncio.gather(*(act() for act in (*acts, *workers)))

    def acts(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.pay,
            self.pay,
            self.pay,
            self.transfer,
            self.top_up,
            self.top_up,
            self.refund,
            self.refund,
            self.pay_out,
            self.close,
            self.press,
            self.press,
            self.decide,
            self.prove,
            self.repeat,
            self.settle,
        ]

    def workers(self) -> list[Callable[[], Awaitable[None]]]:
        return [self.world.run_jobs, self.world.run_jobs, self.sweep, self.expire_one, self.follow]

    async def plan_faults(self) -> None:
        for operation, faults in FAULTS.items():
            for fault in self.chance.sample(faults, self.chance.randint(0, 2)):
                await self.bank.fault(
                    operation,
                    fault,
                    count=self.chance.randint(1, 3),
                    probability=self.chance.choice((0.3, 0.6, 1.0)),
                    seed=self.chance.randrange(1_000),
                    seconds=0.05,
                    amount_minor=self.chance.choice((-1, 1)),
                )

    async def ask(self, request: Request) -> None:
        """Ask as a client does: what is busy is asked again, what is refused is over."""
        for _ in range(5):
            try:
                self.answered.append((request, await accept_operation(request)))
            except Busy:
                await asyncio.sleep(0.05)
                continue
            except (ChallengeFailed, NotFound, OperationNotSupported, OrderParamMismatch) as error:
                self.refused.append(error)
            return
        raise AssertionError(f"still busy: {request}")

    def opening(self, type_: OperationType, amount_minor: int, **values: Any) -> OpenOrder:
        number = f"N{self.chance.getrandbits(48):x}"
        return OpenOrder(
            **{
                "type": type_,
                "caller": Principal("customer", self.chance.choice(self.customers)),
                "idempotency_key": f"open-{number}",
                "merchant_id": PLATFORM_MERCHANT_ID,
                "merchant_order_no": number,
                "money": Money(amount_minor, CURRENCY),
                "product": "account",
                **values,
            }
        )

    async def pay(self) -> None:
        amount = self.chance.choice((1, 99, 3_000, 19_999, 25_000))
        merchant_id = self.chance.choice(self.merchants)
        await self.ask(self.opening(OperationType.PAY, amount, merchant_id=merchant_id))

    async def transfer(self) -> None:
        payer, payee = self.chance.sample(self.customers, 2)
        amount = self.chance.choice((1, 500, 21_000))
        await self.ask(
            self.opening(
                OperationType.TRANSFER,
                amount,
                caller=Principal("customer", payer),
                payee_customer_id=payee,
            )
        )

    async def top_up(self) -> None:
        amount = self.chance.randint(1_000, 20_000)
        url = "https://shop.example/back"
        await self.ask(self.opening(OperationType.TOP_UP, amount, return_url=url))

    async def pay_out(self) -> None:
        merchant_id = self.chance.choice(self.merchants)
        details = PayoutDetails(
            account_number=self.chance.choice(list(ACCOUNTS)),
            holder_name="Shop",
            bank_code="BANKCNBJ",
        )
        await self.ask(
            self.opening(
                OperationType.PAYOUT,
                self.chance.choice((1_000, 2_000, 50_000)),
                caller=Principal("merchant", merchant_id),
                merchant_id=merchant_id,
                product="payout",
                unchecked_details=details,
            )
        )

    async def refund(self) -> None:
        order = await self.some_order("state = 'SUCCEEDED' AND type = 'PAY'")
        if order is None:
            return
        number = f"R{self.chance.getrandbits(3):x}"
        part = self.chance.choice((None, 1, order["amount_minor"] // 2 + 1, order["amount_minor"]))
        await self.ask(
            RefundOrder(
                caller=Principal("merchant", order["merchant_id"]),
                idempotency_key=f"refund-{self.chance.getrandbits(48):x}",
                order_id=order["order_id"],
                refund_number=number,
                money=None if part is None else Money(part, CURRENCY),
            )
        )

    async def close(self) -> None:
        order = await self.some_order("state <> 'CREATED'")
        if order is None:
            return
        payer = order["payer_customer_id"]
        caller = ("customer", payer) if payer else ("merchant", order["merchant_id"])
        await self.ask(
            CloseOrder(
                caller=Principal(*caller),
                idempotency_key=f"close-{self.chance.getrandbits(48):x}",
                order_id=order["order_id"],
            )
        )

    async def press(self) -> None:
        """The payer at the cashier page; pages that have ended answer with an error."""
        order = await self.some_order("action_url IS NOT NULL")
        if order is not None:
            await self.bank.press(
                order["action_url"], self.chance.choice(("pay", "pay", "decline"))
            )

    async def decide(self) -> None:
        order = await self.some_order("state = 'IN_REVIEW'")
        if order is not None:
            await self.ask(
                DecideReview(
                    caller=self.world.operator,
                    idempotency_key=f"review-{self.chance.getrandbits(48):x}",
                    order_id=order["order_id"],
                    accept=self.chance.random() < 0.6,
                    reason="looked at it",
                )
            )

    async def prove(self) -> None:
        """A wrong proof: nobody here has a payment password."""
        order = await self.some_order("state = 'REQUIRES_ACTION' AND action_url IS NULL")
        if order is not None:
            await self.ask(
                AnswerChallenge(
                    caller=Principal("customer", order["payer_customer_id"]),
                    idempotency_key=f"proof-{self.chance.getrandbits(48):x}",
                    order_id=order["order_id"],
                    unchecked_code="000000",
                )
            )

    async def settle(self) -> None:
        merchant_id = self.chance.choice(self.merchants)
        key = f"settle-{self.chance.getrandbits(48):x}"
        first = await run_settlement(self.world.operator, key, merchant_id, CURRENCY)
        again = await run_settlement(self.world.operator, key, merchant_id, CURRENCY)
        assert (again.settlement, again.replay) == (first.settlement, True)

    async def repeat(self) -> None:
        """The same request again, a few times at once."""
        if self.answered:
            request, first = self.chance.choice(self.answered)
            for again in await asyncio.gather(*(accept_operation(request) for _ in range(3))):
                assert same(first, again), (request, first, again)

    async def sweep(self) -> None:
        await self.hurry()
        for operation_id in await overdue():
            await finish_operation(operation_id)

    async def expire_one(self) -> None:
        order = await self.some_order("state IN ('REQUIRES_ACTION', 'PROCESSING', 'IN_REVIEW')")
        if order is not None:
            await self.world.database.fetch(
                "UPDATE payment_order SET expires_at = purser_now() WHERE order_id = $1",
                order["order_id"],
            )
            await expire_orders()

    async def follow(self) -> None:
        await ledger.roll_up()
        await ledger.seal()

    async def hurry(self) -> None:
        """What waits for its time is due now, as if a minute had passed since it was sent."""
        await self.world.database.fetch(
            """UPDATE operation SET next_check_at = purser_now(),
                submitted_at = submitted_at - interval '1 minute'
            WHERE next_check_at IS NOT NULL"""
        )

    async def some_order(self, condition: str) -> Any:
        rows = await self.world.database.fetch(
            f"SELECT * FROM payment_order WHERE {condition} ORDER BY merchant_order_no"
        )
        return self.chance.choice(rows) if rows else None

    async def settle_down(self, seconds: float = 15.0) -> list[Any]:
        """The bank behaves again and time goes on: the orders that still do not rest."""
        await self.bank.admin("DELETE", "/admin/faults")
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            breaker.reset()
            await self.world.database.fetch(
                """UPDATE payment_order SET expires_at = purser_now() WHERE state IN
                ('REQUIRES_ACTION', 'PROCESSING', 'IN_REVIEW') AND expires_at > purser_now()"""
            )
            await self.world.run_jobs()
            await self.sweep()
            await expire_orders()
            await apply_unapplied()
            for operation_id in await late_money():
                await finish_operation(operation_id)
            left = await self.world.database.fetch(
                """SELECT * FROM payment_order WHERE NOT state = ANY ($1)
                AND (needs_attention IS NULL OR needs_attention = 'QUERIES_EXHAUSTED')
                UNION ALL
                SELECT o.* FROM payment_order o JOIN operation p USING (order_id)
                WHERE o.state = ANY ($1) AND p.state IN ('CREATED', 'SUBMITTED', 'PENDING')
                UNION ALL
                SELECT * FROM payment_order WHERE state = 'SUCCEEDED' AND needs_attention IS NULL
                AND type = 'PAYOUT' AND details ->> 'account_number_last4' = '0104'""",
                list(RESTING),
            )
            if not left or asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(0.05)


def same(first: Answer, again: Answer) -> bool:
    """Whether a replay says what was said first."""
    codes = [each.refusal.code if each.refusal else None for each in (first, again)]
    return (
        again.replay
        and codes[0] == codes[1]
        and (first.order, first.operation)
        == (
            again.order,
            again.operation,
        )
    )


@pytest.fixture
async def schedule(
    world: World, bank: Simulator, verdict: Callable[[str], None], seed: int
) -> Schedule:
    """Three customers with money, two merchants, and the seed's own chance."""
    third, second_shop = ids.new_id(), ids.new_id()
    await world.database.fetch(
        """INSERT INTO customer (customer_id, phone, status, display_name, created_at)
        VALUES ($1, '+8613800000009', 'ACTIVE', 'Third', now())""",
        third,
    )
    await world.database.fetch(
        """INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
            payment_limit_minor, created_at)
        VALUES ($1, 'Second', 'ACTIVE', 33333, '["CNY"]', 10000000, now())""",
        second_shop,
    )
    customers = [world.payer_id, world.payee_id, third]
    for customer_id in customers:
        await world.fund(FUNDED_MINOR, customer_id)
    return Schedule(
        world, bank, random.Random(seed), verdict, customers, [world.shop_id, second_shop]
    )


@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
async def test_whatever_happens_orders_come_to_rest_and_the_books_are_right(
    schedule: Schedule, seed: int
) -> None:
    print(f"seed {seed}")
    world = schedule.world
    await schedule.run()
    left = await schedule.settle_down()
    assert [dict(order) for order in left] == []
    broken = await world.database.fetch(
        """SELECT * FROM payment_order
        WHERE captured_minor + capture_pending_minor + releasing_minor + released_minor
              > authorized_minor
           OR refunded_minor + refund_pending_minor + reversed_minor > captured_minor
           OR fee_refunded_minor > fee_minor
           OR refund_progress = 'FULL' AND fee_refunded_minor <> fee_minor"""
    )
    assert [dict(order) for order in broken] == []
    for request, first in schedule.answered:
        assert same(first, await accept_operation(request)), request
    await world.assert_books()
    await ledger.roll_up()
    await ledger.seal()
    await world.assert_books()
    await assert_the_bank_agrees(schedule)


async def assert_the_bank_agrees(schedule: Schedule) -> None:
    """Each instruction was booked at most once, and for what our order says."""
    report = await schedule.bank.admin("GET", "/admin/ledger")
    assert report["balanced"]
    booked = {row["number"]: row for row in report["instructions"]}
    assert all(row["bookings_count"] <= 1 for row in booked.values())
    rows = await schedule.world.database.fetch(
        """SELECT o.*, p.operation_id FROM payment_order o JOIN operation p
        ON p.order_id = o.order_id AND p.type = o.type WHERE o.type IN ('TOP_UP', 'PAYOUT')"""
    )
    ours = {row["operation_id"].hex: row for row in rows}
    assert booked.keys() <= ours.keys()
    for number, order in ours.items():
        theirs = booked[number]["booked_minor"] if number in booked else 0
        if order["type"] == "PAYOUT":
            theirs = -theirs
        received = order["captured_minor"] + order["suspense_minor"]
        explained = order["needs_attention"] in ("CONFLICTED", "SUCCESS_CONTRADICTED")
        assert explained or received == theirs, dict(order)


@pytest.mark.parametrize("seed", [0])
async def test_the_checks_notice_an_order_that_says_more_or_less_than_was_moved(
    schedule: Schedule,
) -> None:
    """The control: one top-up that says one unit too little, as if booked wrongly."""
    while not (topped_up := await schedule.some_order("type = 'TOP_UP' AND state = 'SUCCEEDED'")):
        await schedule.top_up()
        await schedule.world.run_jobs()
        await schedule.press()
        await schedule.settle_down()
    await schedule.world.assert_books()
    await assert_the_bank_agrees(schedule)
    await schedule.world.database.fetch(
        "UPDATE payment_order SET captured_minor = captured_minor - 1 WHERE order_id = $1",
        topped_up["order_id"],
    )
    with pytest.raises(AssertionError):
        await schedule.world.assert_books()
    with pytest.raises(AssertionError):
        await assert_the_bank_agrees(schedule)
