"""Buffered accounts: postings at once, columns by the roll-up, nothing lost or counted twice."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from core.phase import phase
from core.principal import SYSTEM
from tests.wallet.books import Merchant, connect, entry, posting_call
from wallet import ledger
from wallet.ledger import Hold, PendingSettlement, Post


@asynccontextmanager
async def transaction(books):
    """A connection of the application inside an open transaction; commits on leaving."""
    connection = await connect(books)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def pay(connection, payer, merchant, amount_minor):
    [outcome] = await posting_call(entry(Post(payer.wallet, merchant.pending, amount_minor)))(
        connection
    )
    assert outcome == "POSTED"


async def caught_up():
    while await ledger.roll_up():
        pass


async def test_a_credit_is_in_the_balance_at_once_and_in_the_column_after_the_roll_up(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 30))
    assert await books.columns(merchant.pending) == (0, 0, 0)
    assert await books.available(merchant.pending) == [30]
    assert await ledger.roll_up() == 2
    assert await books.columns(merchant.pending) == (0, 30, 0)
    assert await books.columns(books.bank) == (100, 0, 0)
    assert await ledger.roll_up() == 0
    assert await books.available(merchant.pending) == [30]
    await books.assert_proven()


async def test_a_debit_rolls_up_first_and_then_writes_in_place(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 30))
    assert await books.refused(Post(merchant.pending, payer.wallet, 31)) == "INSUFFICIENT_AVAILABLE"
    await books.book(Post(merchant.pending, payer.wallet, 10))
    assert await books.columns(merchant.pending) == (10, 30, 0)
    await caught_up()
    assert await books.columns(merchant.pending) == (10, 30, 0)
    await books.assert_proven()


async def test_what_a_call_credits_to_an_account_that_it_drains_is_written_in_place(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await books.post(
        entry(Post(payer.wallet, merchant.pending, 30)),
        entry(Post(merchant.pending, payer.wallet, 20)),
        entry(Post(payer.wallet, merchant.pending, 5)),
    )
    assert await books.columns(merchant.pending) == (20, 35, 0)
    await caught_up()
    assert await books.columns(merchant.pending) == (20, 35, 0)
    await books.assert_proven()


async def test_a_transaction_that_posted_to_an_account_may_drain_it_afterwards(books):
    """Its own postings count, though a roll-up inside it leaves them for the next one."""
    payer, merchant = await books.funded_customer(100), Merchant()
    async with phase(SYSTEM):
        await books.post(entry(Post(payer.wallet, merchant.pending, 30)))
        [drained] = await books.post(entry(Post(merchant.pending, payer.wallet, 25)))
        await books.post(entry(Post(payer.wallet, merchant.pending, 7)))
        assert drained.outcome == "POSTED"
    assert await books.available(merchant.pending) == [12]
    await caught_up()
    assert await books.columns(merchant.pending) == (25, 37, 0)
    await books.assert_proven()


async def test_a_roll_up_leaves_the_postings_of_its_own_transaction_for_the_next(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    async with transaction(books) as other, transaction(books) as own:
        await other.execute("SELECT pg_current_xact_id()")
        await pay(own, payer, merchant, 10)
        await own.fetchval("SELECT roll_up(1000)")
        await pay(own, payer, merchant, 20)
        await own.fetchval("SELECT roll_up(1000)")
    await caught_up()
    assert await books.columns(merchant.pending) == (0, 30, 0)
    await books.assert_proven()


async def test_transactions_that_end_out_of_order_are_all_rolled_up(books):
    """The lowest transaction ends last, long after roll-ups have consumed higher ones."""
    merchant = Merchant()
    payers = [await books.funded_customer(100) for _ in range(8)]
    await books.book(Post(books.bank, merchant.pending, 5))
    async with AsyncExitStack() as oldest:
        slow = await oldest.enter_async_context(transaction(books))
        await pay(slow, payers[0], merchant, 1)
        stacks = []
        for payer in payers[1:]:
            stack = AsyncExitStack()
            connection = await stack.enter_async_context(transaction(books))
            await pay(connection, payer, merchant, 10)
            stacks.append(stack)
        random.Random(7).shuffle(stacks)
        for stack in stacks:
            await stack.aclose()
            await ledger.roll_up(1)
            await ledger.roll_up(1)
        await caught_up()
        assert await books.columns(merchant.pending) == (0, 75, 0)
        assert await books.available(merchant.pending) == [75]
        await books.book(Post(merchant.pending, payers[1].wallet, 75))
        assert (
            await books.refused(Post(merchant.pending, payers[1].wallet, 1))
            == "INSUFFICIENT_AVAILABLE"
        )
    assert await books.available(merchant.pending) == [1]
    await caught_up()
    assert await books.columns(merchant.pending) == (75, 76, 0)
    await books.assert_proven()


async def test_a_follower_that_went_by_the_last_number_would_lose_a_late_transaction(books):
    """The control run of the test above: without the list of those in progress, money is lost."""
    await books.database.fetch("""
        CREATE OR REPLACE FUNCTION snapshot_without(snapshot pg_snapshot, own xid8)
        RETURNS pg_snapshot LANGUAGE sql IMMUTABLE AS
        $$ SELECT format('%s:%s:', last, last)::pg_snapshot
           FROM (SELECT pg_snapshot_xmax(snapshot)) AS s (last) $$
    """)
    with pytest.raises(AssertionError):
        await test_transactions_that_end_out_of_order_are_all_rolled_up(books)


async def test_a_roll_up_takes_a_backlog_in_bites(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    for _ in range(9):
        await books.book(Post(payer.wallet, merchant.pending, 10))
    bites = []
    while bite := await ledger.roll_up(4):
        bites.append(bite)
    assert bites == [4, 4, 2]
    assert await books.columns(merchant.pending) == (0, 90, 0)
    await books.assert_proven()


async def test_a_second_roll_up_at_the_same_time_steps_aside(books):
    await books.funded_customer(100)
    async with transaction(books) as connection:
        assert await connection.fetchval("SELECT roll_up(1000)") == 1
        assert await ledger.roll_up() == 0
    assert await ledger.roll_up() == 0


async def test_a_hot_merchant_is_refunded_and_rolled_up_while_everybody_pays(books):
    merchant = Merchant()
    payers = [await books.funded_customer(1000) for _ in range(8)]
    chance = random.Random(11)
    calls = []
    for number in range(400):
        payer = chance.choice(payers)
        amount_minor = chance.randint(1, 20)
        payment = Post(payer.wallet, merchant.pending, amount_minor)
        refund = Post(merchant.pending, payer.wallet, amount_minor)
        calls.append(posting_call(entry(refund if number % 5 == 4 else payment)))
    done = asyncio.Event()

    async def rolling():
        while not done.is_set():
            await ledger.roll_up(50)
            await asyncio.sleep(0)

    async def paying():
        try:
            return await books.together(12, calls)
        finally:
            done.set()

    _, results = await asyncio.gather(rolling(), paying())
    outcomes = {codes[0] for codes in results}
    assert "POSTED" in outcomes
    assert outcomes <= {"POSTED", "INSUFFICIENT_AVAILABLE"}
    before = await books.available(merchant.pending)
    await caught_up()
    debits_minor, credits_minor, _ = await books.columns(merchant.pending)
    assert [credits_minor - debits_minor] == before
    await books.assert_proven()


async def test_settlement_moves_exactly_what_refunds_leave(books):
    merchant = Merchant()
    payer = await books.funded_customer(1000)
    for _ in range(10):
        await books.book(Post(payer.wallet, merchant.pending, 100))

    def settlement():
        return PendingSettlement(
            entry_id=uuid.uuid4(), merchant_id=merchant.merchant_id, currency="CNY"
        )

    async def settle(connection):
        rows = await connection.fetch(
            "SELECT outcome FROM settle_pending_as('system', $1)",
            f"[{ledger.orjson.dumps(ledger._settlement(settlement())).decode()}]",
        )
        return [row["outcome"] for row in rows]

    refund = posting_call
    calls = [
        settle if number % 4 == 3 else refund(entry(Post(merchant.pending, payer.wallet, 10)))
        for number in range(60)
    ]
    results = await books.together(10, calls)
    refunded = sum(
        10 for number, codes in enumerate(results) if number % 4 != 3 and codes == ["POSTED"]
    )
    assert {code for codes in results for code in codes} <= {
        "POSTED",
        "EMPTY",
        "INSUFFICIENT_AVAILABLE",
    }
    assert await books.available(merchant.pending, merchant.available) == [0, 1000 - refunded]
    await books.assert_proven()


async def test_a_settlement_is_booked_once_and_takes_what_is_owed_first(books):
    merchant = Merchant()
    payer = await books.funded_customer(500)
    debt = merchant.account(ledger.AccountKind.MERCHANT_DEBT)
    refunds = merchant.account(ledger.AccountKind.REFUNDS_IN_FLIGHT)
    await books.book(Post(debt, books.bank, 30))
    await books.book(Post(payer.wallet, merchant.pending, 100))
    await books.book(Hold(uuid.uuid4(), merchant.pending, refunds, 20))
    run = PendingSettlement(entry_id=uuid.uuid4(), merchant_id=merchant.merchant_id, currency="CNY")
    [first] = await ledger.settle_pending(SYSTEM, [run])
    assert (first.outcome, first.settled_minor, first.offset_minor) == ("POSTED", 80, 30)
    await books.book(Post(payer.wallet, merchant.pending, 7))
    [again] = await ledger.settle_pending(SYSTEM, [run])
    assert (again.outcome, again.settled_minor, again.offset_minor) == ("STORED", 80, 30)
    assert again.sequence == first.sequence
    assert await books.available(merchant.pending, merchant.available, debt) == [7, 50, 0]
    nothing = PendingSettlement(entry_id=uuid.uuid4(), merchant_id=uuid.uuid4(), currency="CNY")
    [empty] = await ledger.settle_pending(SYSTEM, [nothing])
    assert (empty.outcome, empty.settled_minor) == ("EMPTY", 0)
    await books.assert_proven()


async def test_a_frozen_merchant_is_not_settled(books):
    merchant, payer = Merchant(), await books.funded_customer(500)
    await books.book(Post(payer.wallet, merchant.pending, 100))
    await ledger.set_account_terms(SYSTEM, merchant.pending.account_id, frozen=True)
    run = PendingSettlement(entry_id=uuid.uuid4(), merchant_id=merchant.merchant_id, currency="CNY")
    [settled] = await ledger.settle_pending(SYSTEM, [run])
    assert (settled.outcome, settled.code, settled.settled_minor) == (
        "REFUSED",
        "ACCOUNT_FROZEN",
        0,
    )
    assert await books.available(merchant.pending, merchant.available) == [100, 0]
    await books.assert_proven()
