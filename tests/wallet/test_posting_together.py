"""Entries of many callers are booked by one statement; each caller gets what became of its own."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from core import phase as phases
from core.errors import OutcomeUnknown, PurserError, ServerBusy
from core.phase import phase
from core.principal import SYSTEM, customer
from tests.core.conftest import Proxy, postgres_behind, through
from tests.wallet.books import Customer, Merchant, entry
from wallet import ledger
from wallet.ledger import Hold, Post, PostHold, VoidHold


@pytest.fixture
def statements(monkeypatch):
    """How many entries each statement booked."""
    counts = []
    real = ledger.statement

    async def counted(sql, *arguments):
        if "post_entries_as" in sql:
            counts.append(len(arguments[1]))
        return await real(sql, *arguments)

    monkeypatch.setattr(ledger, "statement", counted)
    return counts


async def one(call):
    """The outcome of a caller with one entry."""
    [posted] = await ledger.post(SYSTEM, [call])
    return posted


async def journal_of(books, calls):
    """How often each of these entries stands in the journal."""
    ids = [call.entry_id for call in calls]
    rows = await books.database.fetch("SELECT entry_id FROM entry WHERE entry_id = ANY ($1)", ids)
    return Counter(row["entry_id"] for row in rows)


async def test_256_callers_at_once_with_repeats_and_refusals_each_get_their_own(books, statements):
    rich, poor, merchant = await books.funded_customer(10_000), Customer(), Merchant()
    statements.clear()
    good = [entry(Post(rich.wallet, merchant.pending, 10)) for _ in range(96)]
    repeats = good[:64]
    refused = [entry(Post(poor.wallet, merchant.pending, 10)) for _ in range(64)]
    conflicts = [
        entry(Post(rich.wallet, merchant.pending, 11), entry_id=each.entry_id)
        for each in good[64:96]
    ]
    calls = [*good, *repeats, *refused, *conflicts]
    found = await asyncio.gather(*map(one, calls))
    assert [each.entry_id for each in found] == [each.entry_id for each in calls]
    assert [each.outcome for each in found] == (
        ["POSTED"] * 96 + ["STORED"] * 64 + ["REFUSED"] * 96
    )
    assert Counter(each.code for each in found[160:]) == {
        "INSUFFICIENT_AVAILABLE": 64,
        "ENTRY_CONFLICT": 32,
    }
    assert sum(statements) == 256
    assert len(statements) <= 3
    assert await books.available(rich.wallet, merchant.pending) == [10_000 - 960, 960]
    assert len({each.sequence for each in found if each.outcome == "POSTED"}) == 96
    await books.assert_proven()


async def test_a_lone_caller_is_one_statement(books, statements):
    payer, merchant = await books.funded_customer(100), Merchant()
    statements.clear()
    assert (await one(entry(Post(payer.wallet, merchant.pending, 10)))).outcome == "POSTED"
    assert statements == [1]


async def test_a_caller_with_several_entries_gets_them_in_their_order(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    groups = [[entry(Post(payer.wallet, merchant.pending, 30)) for _ in range(2)] for _ in range(3)]
    found = await asyncio.gather(*(ledger.post(SYSTEM, group) for group in groups))
    assert [[each.entry_id for each in group] for group in found] == [
        [each.entry_id for each in group] for group in groups
    ]
    assert [each.outcome for group in found for each in group] == (["POSTED"] * 3 + ["REFUSED"] * 3)


async def test_a_wallet_that_many_debit_at_once_never_runs_dry(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    found = await asyncio.gather(
        *(one(entry(Post(payer.wallet, merchant.pending, 1))) for _ in range(256))
    )
    assert Counter(each.outcome for each in found) == {"POSTED": 100, "REFUSED": 156}
    assert await books.available(payer.wallet, merchant.pending) == [0, 100]
    await books.assert_proven()


async def test_a_hold_is_resolved_once_by_callers_that_come_together(books):
    payer, merchant, hold_id = await books.funded_customer(100), Merchant(), uuid.uuid4()
    calls = [
        entry(Hold(hold_id, payer.wallet, merchant.pending, 60)),
        *(entry(PostHold(hold_id, ((merchant.pending, 20),))) for _ in range(3)),
        *(entry(VoidHold(hold_id)) for _ in range(3)),
    ]
    found = await asyncio.gather(*map(one, calls))
    assert [each.code for each in found] == [None, None, *["HOLD_NOT_PENDING"] * 5]
    assert await books.available(payer.wallet, merchant.pending) == [80, 20]
    await books.assert_proven()


async def test_who_may_not_post_spoils_nothing_for_those_who_may(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    stranger = customer(payer.customer_id)

    async def steal():
        return await ledger.post(stranger, [entry(Post(payer.wallet, merchant.pending, 50))])

    good = [one(entry(Post(payer.wallet, merchant.pending, 10))) for _ in range(4)]
    found = await asyncio.gather(steal(), *good, return_exceptions=True)
    assert isinstance(found[0], asyncpg.InsufficientPrivilegeError)
    assert [each.outcome for each in found[1:]] == ["POSTED"] * 4
    assert await books.available(payer.wallet) == [60]


async def test_an_entry_that_breaks_a_rule_of_the_tables_spoils_none_of_its_neighbours(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    broken = entry(Post(payer.wallet, merchant.pending, -5))
    good = [entry(Post(payer.wallet, merchant.pending, 10)) for _ in range(4)]
    found = await asyncio.gather(*map(one, [good[0], broken, *good[1:]]), return_exceptions=True)
    failed = found.pop(1)
    assert isinstance(failed, Exception) or failed.outcome == "REFUSED"
    assert [each.outcome for each in found] == ["POSTED"] * 4
    assert await journal_of(books, [broken, *good]) == {each.entry_id: 1 for each in good}
    await books.assert_proven()


async def test_inside_a_phase_entries_go_with_it(books, statements):
    payer, merchant = await books.funded_customer(100), Merchant()
    call = entry(Post(payer.wallet, merchant.pending, 10))

    async def undone():
        async with phase(SYSTEM):
            assert (await one(call)).outcome == "POSTED"
            raise LookupError

    with pytest.raises(LookupError):
        await undone()
    assert await journal_of(books, [call]) == {}
    async with phase(SYSTEM):
        assert (await one(call)).outcome == "POSTED"
    assert (await one(call)).outcome == "STORED"


async def test_a_lock_of_others_delays_those_who_do_not_need_it_less_than_a_second(books):
    payer, other, merchant = (
        await books.funded_customer(100),
        await books.funded_customer(100),
        Merchant(),
    )
    await books.book(Post(other.wallet, merchant.pending, 1))
    blocker = await asyncpg.connect(books.database.owner_url)
    try:
        await blocker.execute("BEGIN")
        await blocker.execute(
            "SELECT FROM account WHERE account_id = $1 FOR UPDATE", payer.wallet.account_id
        )
        blocked = asyncio.create_task(one(entry(Post(payer.wallet, merchant.pending, 10))))
        started = time.monotonic()
        found = await asyncio.gather(
            *(one(entry(Post(other.wallet, merchant.pending, 1))) for _ in range(8))
        )
        assert time.monotonic() - started < 1.0
        assert not blocked.done()
        await blocker.execute("ROLLBACK")
    finally:
        await blocker.close()
    assert {each.outcome for each in found} == {"POSTED"}
    assert (await blocked).outcome == "POSTED"


# Lost connections.


@pytest.fixture
async def by_proxy(books) -> AsyncIterator[Proxy]:
    """The pool of the test, connected again by way of a network that can be cut."""
    proxy = postgres_behind(books.database.url)
    await proxy.start()
    await phases.close()
    url = through(proxy, books.database.url)
    await phases.connect(url, pool_size=4, application_name="test")
    yield proxy
    await proxy.stop()


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("callers_count", [1, 40])
async def test_a_call_whose_connection_was_lost_is_looked_up_by_itself(
    books, by_proxy, arrived, callers_count
):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    calls = [
        entry(Post(payer.wallet, merchant.pending, 10), description="to be cut here")
        for _ in range(callers_count)
    ]
    by_proxy.cut_at, by_proxy.after_reply = b"to be cut here", arrived
    found = await asyncio.gather(*map(one, calls))
    assert by_proxy.cuts_count == 1
    assert {each.outcome for each in found} == {"STORED" if arrived else "POSTED"}
    assert await journal_of(books, calls) == {each.entry_id: 1 for each in calls}
    assert await books.available(payer.wallet) == [1_000 - 10 * callers_count]
    await books.assert_proven()


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("callers_count", [1, 8])
async def test_what_nobody_can_be_asked_about_is_unknown_and_never_busy(
    books, by_proxy, arrived, callers_count
):
    """Busy would say that nothing was booked."""
    payer, merchant = await books.funded_customer(1_000), Merchant()
    calls = [
        entry(Post(payer.wallet, merchant.pending, 10), description="to be cut here")
        for _ in range(callers_count)
    ]
    by_proxy.cut_at, by_proxy.after_reply = b"to be cut here", arrived
    by_proxy.stays_away = True
    found = await asyncio.gather(*map(one, calls), return_exceptions=True)
    assert {type(each) for each in found} == {OutcomeUnknown}
    by_proxy.stays_away = False
    await asyncio.sleep(0.1)
    again = await asyncio.gather(*map(one, calls))
    assert {each.outcome for each in again} == {"STORED" if arrived else "POSTED"}
    assert await books.available(payer.wallet) == [1_000 - 10 * callers_count]


async def test_while_the_database_is_away_callers_are_busy_at_once_or_nearly(books, by_proxy):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    await by_proxy.stop()
    calls = [entry(Post(payer.wallet, merchant.pending, 10)) for _ in range(64)]
    started = time.monotonic()
    found = await asyncio.gather(*map(one, calls), return_exceptions=True)
    assert all(isinstance(each, PurserError) for each in found)
    assert {type(each) for each in found} <= {ServerBusy, OutcomeUnknown}
    assert time.monotonic() - started < 4.0
    await by_proxy.start()
    again = await asyncio.gather(*map(one, calls))
    assert {each.outcome for each in again} == {"POSTED"}
