"""Statements and balances: exact running balances over pages, and the books as they were."""

from __future__ import annotations

import uuid

import pytest

from core.phase import phase
from core.principal import SYSTEM
from tests.wallet.books import Merchant, entry
from wallet import ledger
from wallet.chart import AccountKind
from wallet.ledger import Hold, PendingSettlement, Post, PostHold, VoidHold
from wallet.statements import (
    balance_as_of,
    balances,
    merchant_balances,
    statement_page,
)


async def page_of(spec, **where):
    async with phase(SYSTEM):
        return await statement_page(spec.account_id, **where)


async def test_a_payment_of_two_postings_is_one_line(books):
    payer, merchant, order_id = await books.funded_customer(100), Merchant(), uuid.uuid4()
    await books.book(
        Post(payer.wallet, merchant.pending, 29),
        Post(payer.wallet, merchant.fees, 1),
        order_id=order_id,
        kind="PAYMENT",
        description="Tea",
        facts={"cups": 2},
    )
    page = await page_of(payer.wallet)
    assert [(line.amount_minor, line.balance_after_minor) for line in page.lines] == [
        (-30, 70),
        (100, 100),
    ]
    newest = page.lines[0]
    assert (newest.kind, newest.order_id, newest.description) == ("PAYMENT", order_id, "Tea")
    assert newest.facts == {"cups": 2}
    assert newest.effective_at == newest.recorded_at
    assert not page.has_more


async def test_pages_in_both_directions_carry_the_balance_exactly(books):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    for amount_minor in range(1, 25):
        await books.book(Post(payer.wallet, merchant.pending, amount_minor))
    whole = (await page_of(payer.wallet, limit=100)).lines
    assert whole[0].balance_after_minor == 700
    pages = [await page_of(payer.wallet, limit=7)]
    while pages[-1].has_more:
        last = pages[-1]
        pages.append(await page_of(payer.wallet, after=last.cursor(last.lines[-1]), limit=7))
    assert [line for page in pages for line in page.lines] == list(whole)
    assert [len(page.lines) for page in pages] == [7, 7, 7, 4]
    back = [pages[-1]]
    while back[-1].has_more or back[-1] is pages[-1]:
        last = back[-1]
        back.append(await page_of(payer.wallet, before=last.cursor(last.lines[0]), limit=7))
    assert [line for page in reversed(back) for line in page.lines] == list(whole)


async def test_a_reading_shows_one_instant_whatever_is_booked_meanwhile(books):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    for _ in range(5):
        await books.book(Post(payer.wallet, merchant.pending, 10))
    first = await page_of(merchant.pending, limit=2)
    await books.book(Post(payer.wallet, merchant.pending, 500))
    await ledger.roll_up()
    await books.book(Post(merchant.pending, payer.wallet, 3))
    second = await page_of(merchant.pending, after=first.cursor(first.lines[-1]), limit=10)
    balances_after = [line.balance_after_minor for line in first.lines + second.lines]
    assert balances_after == [50, 40, 30, 20, 10]
    newer = await page_of(merchant.pending, before=first.cursor(first.lines[0]))
    assert newer.lines == ()
    fresh = await page_of(merchant.pending, limit=2)
    assert [line.balance_after_minor for line in fresh.lines] == [547, 550]


async def test_a_debit_normal_account_shows_what_it_is_owed_as_positive(books):
    await books.funded_customer(100)
    page = await page_of(books.bank)
    assert [(line.amount_minor, line.balance_after_minor) for line in page.lines] == [(100, 100)]


async def test_an_account_without_postings_has_an_empty_statement(books):
    page = await page_of(Merchant().pending)
    assert (page.lines, page.has_more) == ((), False)
    with pytest.raises(ValueError, match="lines"):
        await page_of(books.bank, limit=0)


@pytest.mark.parametrize("analyzed", [False, True], ids=["fresh tables", "analyzed tables"])
async def test_a_page_reads_no_more_rows_than_it_shows(books, analyzed):
    """Both sides must be read in index order and no further, however long the history is.

    The merchant was never debited and the payer was credited once, long ago.
    """
    payer, merchant = await books.funded_customer(100_000), Merchant()
    for _ in range(4):
        await books.post(
            *(entry(Post(payer.wallet, merchant.pending, 1)) for _ in range(250)),
        )
    await ledger.roll_up()
    if analyzed:
        await books.database.fetch("ANALYZE")
    rows_read = (
        "SELECT idx_tup_fetch + seq_tup_read AS rows_read FROM pg_stat_xact_user_tables"
        " WHERE relname = 'posting'"
    )
    async with phase(SYSTEM) as connection:
        for spec in (merchant.pending, payer.wallet, books.bank):
            before = (await connection.execute_query_dict(rows_read))[0]["rows_read"]
            page = await statement_page(spec.account_id, limit=10)
            middle = page.cursor(page.lines[-1])
            await statement_page(spec.account_id, after=middle, limit=10)
            await statement_page(spec.account_id, before=middle, limit=10)
            after = (await connection.execute_query_dict(rows_read))[0]["rows_read"]
            assert after - before < 150, spec.kind


async def test_the_balance_of_a_version_stays_what_it_was(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    hold_id, other_id = uuid.uuid4(), uuid.uuid4()
    steps = (
        Post(payer.wallet, merchant.pending, 10),
        Hold(hold_id, payer.wallet, merchant.pending, 20),
        Post(merchant.pending, payer.wallet, 5),
        Hold(other_id, payer.wallet, merchant.pending, 7),
        PostHold(hold_id, ((merchant.pending, 15),)),
        VoidHold(other_id),
    )
    accounts = [payer.wallet.account_id, merchant.pending.account_id]
    seen = []
    for step in steps:
        await books.book(step)
        async with phase(SYSTEM):
            seen.append(await balances(accounts))
        await ledger.roll_up()
    async with phase(SYSTEM):
        for answer in seen:
            for account_id in accounts:
                live = answer[account_id]
                then = await balance_as_of(account_id, ledger_version=live.ledger_version)
                assert (then.posted_minor, then.pending_minor, then.available_minor) == (
                    live.posted_minor,
                    live.pending_minor,
                    live.available_minor,
                )


async def test_the_balance_at_an_instant_counts_what_was_recorded_by_then(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    [row] = await books.database.fetch("SELECT purser_now()")
    await books.book(Post(payer.wallet, merchant.pending, 10))
    async with phase(SYSTEM):
        assert (await balance_as_of(payer.wallet.account_id, instant=row[0])).posted_minor == 100
        with pytest.raises(ValueError, match="or an instant"):
            await balance_as_of(payer.wallet.account_id)


async def test_an_account_that_nobody_opened_has_nothing(books):
    async with phase(SYSTEM):
        [balance] = (await balances([uuid.uuid4()])).values()
    assert (balance.posted_minor, balance.available_minor) == (0, 0)
    assert balance.ledger_version


async def test_a_merchants_buckets_equal_the_accounts_they_name(books):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    in_flight = merchant.account(AccountKind.PAYOUTS_IN_FLIGHT)
    await books.book(Post(payer.wallet, merchant.pending, 500))
    await ledger.settle_pending(
        SYSTEM,
        [
            PendingSettlement(
                entry_id=uuid.uuid4(), merchant_id=merchant.merchant_id, currency="CNY"
            )
        ],
    )
    paid_id, reserved_id = uuid.uuid4(), uuid.uuid4()
    await books.book(Hold(paid_id, merchant.available, in_flight, 100))
    await books.book(PostHold(paid_id, ((in_flight, 100),)))
    await books.book(Hold(reserved_id, merchant.available, in_flight, 50))
    await books.book(Post(merchant.available, merchant.account(AccountKind.DISPUTES), 30))
    await books.book(Post(merchant.account(AccountKind.MERCHANT_DEBT), books.bank, 9))
    await books.book(Post(payer.wallet, merchant.pending, 40))
    async with phase(SYSTEM):
        [bucket] = await merchant_balances(merchant.merchant_id)
    assert (bucket.currency, bucket.available_minor, bucket.pending_settlement_minor) == (
        "CNY",
        320,
        40,
    )
    assert (bucket.reserved_payout_minor, bucket.in_transit_minor) == (50, 100)
    assert (bucket.frozen_minor, bucket.debt_minor) == (30, 9)
    await books.assert_proven()
