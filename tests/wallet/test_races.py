"""Many connections at once: no overdraft, no deadlock, one winner."""

from __future__ import annotations

import itertools
import random
import uuid

import pytest

from tests.wallet.books import Customer, Merchant, entry, posting_call
from wallet.ledger import Hold, Post, VoidHold


async def spend_a_hundred_twice(books):
    """200 payments of 1 from a wallet that has 100; the number that was booked."""
    payer, merchants = await books.funded_customer(100), [Merchant() for _ in range(4)]
    calls = [
        posting_call(entry(Post(payer.wallet, merchants[number % 4].pending, 1)))
        for number in range(200)
    ]
    results = await books.together(20, calls)
    assert {codes[0] for codes in results} == {"POSTED", "INSUFFICIENT_AVAILABLE"}
    return [codes[0] for codes in results].count("POSTED")


async def test_of_200_payments_at_once_the_wallet_covers_exactly_100(books):
    assert await spend_a_hundred_twice(books) == 100
    await books.assert_proven()


async def test_without_the_lock_the_same_payments_would_overdraw(books):
    """The control run of the test above."""
    for statement in (
        "ALTER TABLE account DROP CONSTRAINT account_floor",
        """DO $$ BEGIN EXECUTE replace(pg_get_functiondef(
           'post_entries(ledger_entry[], ledger_leg[], ledger_account[])'::regprocedure),
           'FOR NO KEY UPDATE', ''); END $$""",
    ):
        await books.database.fetch(statement)
    assert await spend_a_hundred_twice(books) > 100


async def test_groups_of_payments_overdraw_no_more_than_single_ones(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    calls = [
        posting_call(*(entry(Post(payer.wallet, merchant.pending, 1)) for _ in range(8)))
        for _ in range(25)
    ]
    results = await books.together(10, calls)
    assert [code for codes in results for code in codes].count("POSTED") == 100
    await books.assert_proven()


async def test_a_storm_of_transfers_in_both_directions_never_deadlocks(books):
    payers = [await books.funded_customer(1_000) for _ in range(6)]
    chance = random.Random(3)
    calls = []
    for _ in range(300):
        entries = []
        for _ in range(chance.randint(1, 4)):
            owners = chance.sample(payers, chance.randint(2, 4))
            entries.append(
                entry(
                    *(
                        Post(giver.wallet, taker.wallet, chance.randint(1, 9))
                        for giver, taker in itertools.pairwise(owners)
                    )
                )
            )
        calls.append(posting_call(*entries))
    results = await books.together(16, calls)
    assert {code for codes in results for code in codes} == {"POSTED"}
    assert await deadlocks(books) == 0
    assert sum(await books.available(*(payer.wallet for payer in payers))) == 6_000
    await books.assert_proven()


async def test_new_accounts_opened_by_many_at_once_are_opened_once(books):
    payers = [await books.funded_customer(100) for _ in range(4)]
    merchants, payees = [Merchant() for _ in range(5)], [Customer() for _ in range(5)]
    chance = random.Random(5)
    calls = []
    for _ in range(60):
        takers = [merchant.pending for merchant in merchants] + [each.wallet for each in payees]
        chance.shuffle(takers)
        giver = chance.choice(payers).wallet
        calls.append(posting_call(*(entry(Post(giver, taker, 1)) for taker in takers[:3])))
    results = await books.together(12, calls)
    assert {code for codes in results for code in codes} == {"POSTED"}
    assert await deadlocks(books) == 0
    await books.assert_proven()


@pytest.mark.parametrize("locked", [True, False], ids=["from a wallet", "through buffers alone"])
@pytest.mark.parametrize("drained", [False, True], ids=["alone", "beside refunds and holds"])
async def test_one_entry_sent_by_fifty_at_once_is_booked_once(books, locked, drained):
    payer, merchant = await books.funded_customer(100), Merchant()
    debit = payer.wallet if locked else books.bank
    entries = [
        entry(Post(debit, merchant.pending, 1), Post(debit, merchant.fees, 1)) for _ in range(3)
    ]
    chance = random.Random(9)
    calls = []
    for number in range(50):
        beside = []
        if drained and number % 2:
            beside = [entry(Post(merchant.pending, payer.wallet, 1)), entry(VoidHold(uuid.uuid4()))]
        calls.append(posting_call(*chance.sample(entries, 3), *beside))
    results = [code for codes in await books.together(10, calls) for code in codes[:3]]
    assert (results.count("POSTED"), results.count("STORED")) == (3, 147)
    assert await books.available(merchant.fees) == [3]
    assert await deadlocks(books) == 0
    await books.assert_proven()


async def test_one_id_with_two_contents_at_once_is_booked_once_and_refused_otherwise(books):
    merchant, entry_id = Merchant(), uuid.uuid4()
    calls = [
        posting_call(entry(Post(books.bank, merchant.pending, number % 2 + 1), entry_id=entry_id))
        for number in range(20)
    ]
    results = [codes[0] for codes in await books.together(10, calls)]
    assert results.count("POSTED") == 1
    assert results.count("STORED") == 9
    assert results.count("ENTRY_CONFLICT") == 10
    await books.assert_proven()


async def test_spending_and_voiding_at_once_never_frees_more_than_was_held(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    holds = [uuid.uuid4() for _ in range(10)]
    for hold_id in holds:
        await books.book(Hold(hold_id, payer.wallet, merchant.pending, 10))
    calls = [posting_call(entry(VoidHold(hold_id))) for hold_id in holds * 2]
    calls += [posting_call(entry(Post(payer.wallet, merchant.pending, 5))) for _ in range(40)]
    random.Random(13).shuffle(calls)
    await books.together(12, calls)
    [available_minor, _] = await books.available(payer.wallet, merchant.pending)
    assert 0 <= available_minor <= 100
    await books.assert_proven()


async def deadlocks(books):
    [row] = await books.database.fetch(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return row["deadlocks"]
