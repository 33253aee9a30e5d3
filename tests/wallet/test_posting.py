"""Journal entries: all or nothing, once, in order of arrival, never changed."""

from __future__ import annotations

import datetime as dt
import uuid

import asyncpg
import pytest

from core.errors import InsufficientAvailable, PurserError
from core.phase import phase
from core.principal import SYSTEM, customer, operator
from tests.wallet.books import Customer, Merchant, entry
from wallet import ledger
from wallet.chart import AccountKind, AccountSpec, account
from wallet.ledger import Post


async def test_a_payment_moves_its_whole_amount_in_two_postings(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 29), Post(payer.wallet, merchant.fees, 1))
    assert await books.available(payer.wallet, merchant.pending, merchant.fees) == [70, 29, 1]
    await books.assert_proven()


async def test_a_refused_entry_leaves_nothing_behind(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    [posted] = await books.post(
        entry(Post(payer.wallet, merchant.pending, 60), Post(payer.wallet, merchant.fees, 41))
    )
    assert (posted.outcome, posted.code) == ("REFUSED", "INSUFFICIENT_AVAILABLE")
    assert (posted.account_id, posted.available_minor) == (payer.wallet.account_id, 100)
    assert isinstance(posted.refusal, InsufficientAvailable)
    assert await books.available(payer.wallet, merchant.pending) == [100, 0]
    assert (await books.count("entry"), await books.count("posting")) == (1, 1)
    await books.assert_proven()


async def test_the_same_entry_again_is_stored_and_moves_nothing(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    once = entry(Post(payer.wallet, merchant.pending, 30), facts={"b": 1, "a": [2, None]})
    [first] = await books.post(once)
    [second] = await books.post(once)
    assert (second.outcome, second.sequence) == ("STORED", first.sequence)
    assert await books.available(payer.wallet) == [70]


async def test_the_business_time_is_kept_beside_the_time_of_recording(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    then = dt.datetime(2018, 4, 1, 8, 30, 0, 123_456, tzinfo=dt.timezone(dt.timedelta(hours=8)))
    once = entry(Post(payer.wallet, merchant.pending, 30), effective_at=then)
    assert [each.outcome for each in await books.post(once, once)] == ["POSTED", "STORED"]
    [row] = await books.database.fetch(
        "SELECT effective_at, recorded_at > now() - interval '1 minute' AS recorded_now FROM entry"
        " WHERE entry_id = $1",
        once.entry_id,
    )
    assert tuple(row) == (then, True)
    await books.assert_proven()


@pytest.mark.parametrize("change", ["amount", "kind", "facts", "description", "order"])
async def test_the_same_id_with_other_content_is_a_conflict(books, change):
    payer, merchant, entry_id = await books.funded_customer(100), Merchant(), uuid.uuid4()
    await books.book(Post(payer.wallet, merchant.pending, 30), entry_id=entry_id)
    other = {
        "kind": {"kind": "OTHER"},
        "facts": {"facts": {"rate": 1}},
        "description": {"description": "other"},
        "order": {"order_id": uuid.uuid4()},
    }.get(change, {})
    amount_minor = 31 if change == "amount" else 30
    code = await books.refused(
        Post(payer.wallet, merchant.pending, amount_minor), entry_id=entry_id, **other
    )
    assert code == "ENTRY_CONFLICT"
    assert await books.available(payer.wallet) == [70]


async def test_a_repeated_id_inside_one_call_is_booked_once(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    once = entry(Post(payer.wallet, merchant.pending, 30))
    other = entry(Post(payer.wallet, merchant.pending, 1), entry_id=once.entry_id)
    outcomes = await books.post(once, once, other)
    assert [each.code or each.outcome for each in outcomes] == [
        "POSTED",
        "STORED",
        "ENTRY_CONFLICT",
    ]
    assert await books.available(payer.wallet) == [70]
    await books.assert_proven()


async def test_an_id_that_was_refused_may_be_booked_later_in_the_same_call(books):
    payer, merchant = await books.funded_customer(10), Merchant()
    payment = entry(Post(payer.wallet, merchant.pending, 30))
    outcomes = await books.post(payment, entry(Post(books.bank, payer.wallet, 20)), payment)
    assert [each.outcome for each in outcomes] == ["REFUSED", "POSTED", "POSTED"]
    await books.assert_proven()


async def test_entries_of_one_call_are_judged_one_after_another(books):
    payer, payee, merchant = await books.funded_customer(100), Customer(), Merchant()
    outcomes = await books.post(
        entry(Post(payee.wallet, merchant.pending, 1)),
        entry(Post(payer.wallet, payee.wallet, 80)),
        entry(Post(payer.wallet, merchant.pending, 30)),
        entry(Post(payee.wallet, merchant.pending, 80)),
        entry(Post(payer.wallet, merchant.pending, 20)),
    )
    assert [each.outcome for each in outcomes] == [
        "REFUSED",
        "POSTED",
        "REFUSED",
        "POSTED",
        "POSTED",
    ]
    sequences = [each.sequence for each in outcomes if each.sequence]
    assert sequences == sorted(sequences)
    assert await books.available(payer.wallet, payee.wallet, merchant.pending) == [0, 0, 100]
    await books.assert_proven()


async def test_of_64_payments_only_the_one_without_funds_is_refused(books):
    payers = [await books.funded_customer(10) for _ in range(64)]
    merchant = Merchant()
    payments = [
        entry(Post(payer.wallet, merchant.pending, 11 if place == 40 else 10))
        for place, payer in enumerate(payers)
    ]
    outcomes = await books.post(*payments)
    assert [place for place, each in enumerate(outcomes) if each.outcome == "REFUSED"] == [40]
    assert await books.available(merchant.pending) == [630]
    await books.assert_proven()


async def test_an_entry_is_judged_by_where_it_leaves_an_account_not_by_its_steps(books):
    payer, middle, payee = await books.funded_customer(10), Customer(), Customer()
    await books.book(
        Post(middle.wallet, payee.wallet, 10),
        Post(payer.wallet, middle.wallet, 10),
    )
    assert await books.available(payer.wallet, middle.wallet, payee.wallet) == [0, 0, 10]


async def test_a_frozen_account_gives_nothing_but_takes(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await ledger.set_account_terms(SYSTEM, payer.wallet.account_id, frozen=True)
    assert await books.refused(Post(payer.wallet, merchant.pending, 1)) == "ACCOUNT_FROZEN"
    await books.book(Post(books.bank, payer.wallet, 5))
    await ledger.set_account_terms(SYSTEM, payer.wallet.account_id, credits_frozen=True)
    assert await books.refused(Post(books.bank, payer.wallet, 5)) == "ACCOUNT_FROZEN"
    await ledger.set_account_terms(
        SYSTEM, payer.wallet.account_id, frozen=False, credits_frozen=False
    )
    await books.book(Post(payer.wallet, merchant.pending, 105))
    await books.assert_proven()


async def test_a_buffered_account_can_be_frozen_too(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 10))
    await ledger.set_account_terms(SYSTEM, merchant.pending.account_id, credits_frozen=True)
    assert await books.refused(Post(payer.wallet, merchant.pending, 1)) == "ACCOUNT_FROZEN"


async def test_a_credit_limit_may_be_spent_and_not_be_taken_away_then(books):
    payer, merchant = await books.funded_customer(10), Merchant()
    wallet_id = payer.wallet.account_id
    assert await ledger.set_account_terms(SYSTEM, wallet_id, credit_limit_minor=50) == "APPLIED"
    await books.book(Post(payer.wallet, merchant.pending, 60))
    assert await books.refused(Post(payer.wallet, merchant.pending, 1)) == "INSUFFICIENT_AVAILABLE"
    changed = await ledger.set_account_terms(SYSTEM, wallet_id, credit_limit_minor=49)
    assert changed == "INSUFFICIENT_AVAILABLE"
    assert await ledger.set_account_terms(SYSTEM, uuid.uuid4(), frozen=True) == "NOT_FOUND"
    await books.assert_proven()


@pytest.mark.parametrize("amount_minor", [0, -1, 2**63])
async def test_an_impossible_amount_is_our_bug_and_books_nothing(books, amount_minor):
    payer, merchant = await books.funded_customer(100), Merchant()
    with pytest.raises((asyncpg.PostgresError, PurserError)):
        await books.post(entry(Post(payer.wallet, merchant.pending, amount_minor)))
    assert await books.count("entry") == 1
    await books.assert_proven()


async def test_a_posting_cannot_mix_currencies_or_stay_in_one_account(books):
    payer = await books.funded_customer(100)
    dollars = account(AccountKind.MERCHANT_PENDING, uuid.uuid4(), "USD")
    with pytest.raises(asyncpg.PostgresError):
        await books.post(entry(Post(payer.wallet, dollars, 1)))
    with pytest.raises(asyncpg.PostgresError):
        await books.post(entry(Post(payer.wallet, payer.wallet, 1)))


async def test_nobody_opens_an_account_of_a_kind_that_is_not_in_the_chart(books):
    payer = await books.funded_customer(100)
    own = AccountSpec(uuid.uuid4(), "customer", uuid.uuid4(), "SECRET", "CNY")  # type: ignore[arg-type]
    with pytest.raises(asyncpg.PostgresError, match="neither exists nor is described"):
        await books.post(entry(Post(payer.wallet, own, 1)))


async def test_an_empty_call_books_nothing(books):
    assert await books.post() == []
    with pytest.raises(asyncpg.PostgresError, match="without an action"):
        await books.post(entry())


async def test_only_operators_and_the_system_post_by_themselves(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    payment = entry(Post(payer.wallet, merchant.pending, 1))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ledger.post(customer(payer.customer_id), [payment])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with phase(customer(payer.customer_id)):
            await ledger.post(SYSTEM, [payment])
    async with phase(operator(uuid.uuid4())) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection._connection.fetch(
                "SELECT * FROM post_entries($1, $2, $3)", *ledger.entry_rows([payment])
            )
    [posted] = await ledger.post(operator(uuid.uuid4()), [payment])
    assert posted.outcome == "POSTED"


@pytest.mark.parametrize("table", ["account", "entry", "posting", "hold", "sealed_block"])
async def test_the_application_cannot_write_the_ledgers_tables(books, table):
    await books.funded_customer(100)
    connection = await asyncpg.connect(books.database.url)
    try:
        for sql in (
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entry SET kind = 'OTHER'",
        "UPDATE posting SET amount_minor = 1",
        "UPDATE sealed_block SET block_hash = ''",
        "DELETE FROM entry",
        "DELETE FROM posting",
        "DELETE FROM sealed_block",
        "DELETE FROM account",
        "DELETE FROM hold",
        "TRUNCATE entry",
        "TRUNCATE posting",
        "TRUNCATE sealed_block",
    ],
)
async def test_not_even_the_owner_changes_what_was_booked(books, sql):
    await books.funded_customer(100)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
        await books.database.fetch(sql)


async def test_an_overdraft_that_escaped_the_judge_meets_the_tables_own_check(books):
    payer = await books.funded_customer(100)
    with pytest.raises(asyncpg.CheckViolationError):
        await books.database.fetch(
            "UPDATE account SET debits_posted = 101 WHERE account_id = $1", payer.wallet.account_id
        )


async def test_a_posting_is_in_the_currency_of_both_its_accounts(books):
    """No foreign key says so: the one function that writes postings does."""
    payer, merchant = await books.funded_customer(100), Merchant()
    dollars = account(AccountKind.MERCHANT_PENDING, uuid.uuid4(), "USD")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await books.post(entry(Post(payer.wallet, dollars, 1)))
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await books.post(entry(Post(dollars, merchant.pending, 1)))
    await books.assert_proven()
