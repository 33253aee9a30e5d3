"""Row-level security of the books: everybody sees what touches an account of theirs."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from core.phase import phase, statement
from core.principal import SYSTEM, customer, merchant, operator
from tests.wallet.books import Merchant
from wallet.ledger import Hold, Post, VoidHold
from wallet.models import Account, Entry, Posting
from wallet.models import Hold as HoldRow
from wallet.statements import balance_as_of, balances, merchant_balances, statement_page
from wallet.verify import verify


@pytest.fixture
async def town(books):
    """Two payers, two merchants, a payment for each pair, a hold for the first."""
    payers = [await books.funded_customer(100) for _ in range(2)]
    merchants = [Merchant() for _ in range(2)]
    for payer, shop in zip(payers, merchants, strict=True):
        await books.book(Post(payer.wallet, shop.pending, 10), merchant_id=shop.merchant_id)
    hold_id = uuid.uuid4()
    await books.book(Hold(hold_id, payers[0].wallet, merchants[0].pending, 5))
    await books.book(VoidHold(hold_id))
    return payers, merchants


async def seen_by(principal):
    async with phase(principal):
        return (
            await Account.all().count(),
            await Entry.all().count(),
            await Posting.all().count(),
            await HoldRow.all().count(),
        )


async def test_each_sees_the_rows_that_touch_them(town):
    payers, merchants = town
    assert await seen_by(customer(payers[0].customer_id)) == (1, 4, 2, 1)
    assert await seen_by(customer(payers[1].customer_id)) == (1, 2, 2, 0)
    assert await seen_by(merchant(merchants[0].merchant_id)) == (1, 3, 1, 1)
    assert await seen_by(merchant(merchants[1].merchant_id)) == (1, 1, 1, 0)
    assert await seen_by(merchant(uuid.uuid4())) == (0, 0, 0, 0)
    assert await seen_by(SYSTEM) == await seen_by(operator(uuid.uuid4())) == (5, 6, 4, 1)


async def test_without_a_principal_nobody_sees_anything(town, books):
    connection = await asyncpg.connect(books.database.url)
    try:
        for table in ("account", "entry", "posting", "hold"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
        account_ids = [town[0][0].wallet.account_id]
        assert await connection.fetch("SELECT * FROM balances($1)", account_ids) == []
    finally:
        await connection.close()


async def test_readings_of_other_peoples_accounts_are_empty(town):
    payers, merchants = town
    own, other = payers[0].wallet.account_id, payers[1].wallet.account_id
    async with phase(customer(payers[0].customer_id)):
        found = await balances([own, other])
        assert (found[own].available_minor, found[other].available_minor) == (90, 0)
        assert (await statement_page(other)).lines == ()
        assert len((await statement_page(own)).lines) == 2
        assert (
            await balance_as_of(other, ledger_version=found[own].ledger_version)
        ).posted_minor == 0
        assert await merchant_balances(merchants[0].merchant_id) == []
    async with phase(merchant(merchants[0].merchant_id)):
        assert len(await merchant_balances(merchants[0].merchant_id)) == 1
        assert await merchant_balances(merchants[1].merchant_id) == []


@pytest.mark.parametrize(
    "call",
    [
        "read_accounts('{}')",
        "post_entries('[]')",
        "roll_up_accounts('{}')",
        "judge_entries('{}', '{}', '{}', '{}', now())",
        "open_accounts('{}', '{}')",
        "post_entries('{}', '{}', '{}')",
        "stored_content('{}')",
        "block_hash('', '{}')",
        "unfollowed('3:3:', 1)",
    ],
)
async def test_the_application_cannot_call_the_ledgers_inner_functions(books, call):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with phase(SYSTEM):
            await statement(f"SELECT * FROM {call}")


async def test_only_who_sees_everything_may_say_that_nothing_is_wrong(town):
    payers, _ = town
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await verify(customer(payers[0].customer_id))
