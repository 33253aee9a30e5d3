"""The proof finds what was changed behind the ledger's back, and nothing where nothing was."""

from __future__ import annotations

import random
import uuid

import asyncpg
import pytest

from tests.wallet.books import Merchant, connect, entry
from wallet import ledger
from wallet.ledger import Hold, Post, PostHold, VoidHold
from wallet.verify import ChainHead, chain_head, verify


async def tamper(books, *statements):
    """Change rows as a superuser with every trigger and foreign key off."""
    connection = await asyncpg.connect(books.database.owner_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        for sql in statements:
            await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
async def sealed(books):
    """Books with payments and every kind of hold, sealed in several blocks."""
    payer, merchant = await books.funded_customer(10_000), Merchant()
    for number in range(6):
        hold_id = uuid.uuid4()
        await books.book(
            Post(payer.wallet, merchant.pending, 29),
            Post(payer.wallet, merchant.fees, 1),
            description=f"payment {number}",
        )
        await books.book(Hold(hold_id, payer.wallet, merchant.pending, 40))
        if number % 3:
            await books.book(PostHold(hold_id, ((merchant.pending, 25), (merchant.fees, 5))))
        else:
            await books.book(VoidHold(hold_id))
        await ledger.seal()
    await ledger.roll_up()
    report = await verify()
    assert report.findings == ()
    assert (report.entries_count, report.blocks_count, report.unsealed_count) == (19, 6, 0)
    return books


async def kinds_found(**expected):
    return {finding.finding for finding in (await verify(**expected)).findings}


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        (
            "UPDATE posting SET amount_minor = amount_minor + 1 WHERE sequence = 2 AND line = 1",
            {"BALANCE_DIFFERS", "CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "UPDATE posting SET credit_account_id = (SELECT account_id FROM account"
            " WHERE kind = 'FEES') WHERE sequence = 2 AND line = 1",
            {"BALANCE_DIFFERS", "CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "UPDATE posting SET currency = 'USD' WHERE sequence = 2 AND line = 1",
            {"ACCOUNT_DIFFERS", "CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "UPDATE posting SET debit_account_id = gen_random_uuid()"
            " WHERE sequence = 2 AND line = 1",
            {
                "ACCOUNT_DIFFERS",
                "BALANCE_DIFFERS",
                "CURRENCY_UNBALANCED",
                "CONTENT_DIFFERS",
                "BLOCK_DIFFERS",
            },
        ),
        (
            "UPDATE entry SET kind = 'OTHER' WHERE sequence = 3",
            {"CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "UPDATE entry SET description = 'gift' WHERE sequence = 2",
            {"CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        ("UPDATE entry SET recorded_at = recorded_at - interval '1 day'", {"BLOCK_DIFFERS"}),
        (
            "UPDATE entry SET content_hash = sha256('') WHERE sequence = 2",
            {"CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "DELETE FROM entry WHERE sequence = 2",
            {"ENTRY_MISSING", "SEALED_ENTRY_MISSING", "BLOCK_DIFFERS"},
        ),
        (
            "DELETE FROM posting WHERE sequence = 2 AND line = 2",
            {"BALANCE_DIFFERS", "CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "INSERT INTO entry (entry_id, sequence, kind, recorded_at, description, facts,"
            " content_hash, transaction_id) SELECT gen_random_uuid(), 1000000, kind, recorded_at,"
            " description, facts, content_hash, transaction_id FROM entry WHERE sequence = 2",
            {"ENTRY_NOT_SEALED", "CONTENT_DIFFERS"},
        ),
        (
            "UPDATE account SET credits_posted = credits_posted + 1 WHERE kind = 'CUSTOMER_WALLET'",
            {"BALANCE_DIFFERS"},
        ),
        (
            "UPDATE account SET debits_pending = 1 WHERE kind = 'CUSTOMER_WALLET'",
            {"PENDING_DIFFERS"},
        ),
        (
            "UPDATE hold SET amount_minor = 41 WHERE sequence = 3",
            {"CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        (
            "UPDATE hold SET state = 'EXPIRED' WHERE state = 'VOIDED' AND sequence = 3",
            {"CONTENT_DIFFERS", "BLOCK_DIFFERS"},
        ),
        ("UPDATE hold SET posted_minor = 29 WHERE state = 'POSTED'", {"HOLD_DIFFERS"}),
        (
            "UPDATE sealed_block SET block_hash = sha256('') WHERE block_number = 3",
            {"CHAIN_BROKEN", "BLOCK_DIFFERS"},
        ),
        (
            "DELETE FROM sealed_block WHERE block_number = 3",
            {"CHAIN_BROKEN", "ENTRY_NOT_SEALED"},
        ),
        (
            "UPDATE account SET rolled_up_to = '900000000:900000000:' WHERE kind = 'FEES'",
            {"SNAPSHOT_FROM_THE_FUTURE"},
        ),
    ],
)
async def test_each_kind_of_tampering_is_found(sealed, sql, kinds):
    await tamper(sealed, sql)
    found = await kinds_found()
    assert kinds <= found


async def test_two_entries_that_changed_places_are_found(sealed):
    await tamper(
        sealed,
        "UPDATE entry SET sequence = -1 WHERE sequence = 2",
        "UPDATE entry SET sequence = 5 WHERE sequence = 5",
        "UPDATE entry SET sequence = 2 WHERE sequence = 5",
        "UPDATE entry SET sequence = 5 WHERE sequence = -1",
    )
    assert "BLOCK_DIFFERS" in await kinds_found()


async def test_a_random_flip_in_the_sealed_part_is_always_found(sealed):
    """One of many; the seed is printed with a failure."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    columns = {
        "posting": (
            "amount_minor = amount_minor + 1",
            "line = line + 50",
            "hold_id = gen_random_uuid()",
            "credit_buffered = NOT credit_buffered",
            "recorded_at = recorded_at + interval '1 second'",
            "transaction_id = '5'",
        ),
        "entry": (
            "order_id = gen_random_uuid()",
            "merchant_id = gen_random_uuid()",
            "effective_at = now()",
            "facts = '{\"x\": 1}'",
            "entry_id = gen_random_uuid()",
        ),
        "hold": (
            "credit_account_id = debit_account_id",
            "expires_at = now()",
            "currency = 'USD'",
            "transaction_id = '5'",
        ),
    }
    for _ in range(10):
        table = chance.choice(sorted(columns))
        change = chance.choice(columns[table])
        sequence = chance.choice(
            [row[0] for row in await sealed.database.fetch(f"SELECT sequence FROM {table}")]
        )
        await tamper(
            sealed,
            f"CREATE TABLE kept AS SELECT * FROM {table}",
            f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS hold_sides",
            f"UPDATE {table} SET {change} WHERE sequence = {sequence}",
        )
        assert "BLOCK_DIFFERS" in await kinds_found(), (seed, table, change, sequence)
        await tamper(
            sealed,
            f"DELETE FROM {table}",
            f"INSERT INTO {table} SELECT * FROM kept",
            "DROP TABLE kept",
        )
    assert await kinds_found() == set()


async def test_a_cut_tail_is_found_against_the_exported_head(sealed):
    head = await chain_head()
    assert head is not None
    assert await kinds_found(exported_head=head) == set()
    await tamper(
        sealed,
        "DELETE FROM sealed_block WHERE block_number = 6",
        "UPDATE follower SET consumed = '3:3:' WHERE name = 'seal'",
    )
    assert "CHAIN_CUT" in await kinds_found(exported_head=head)
    other = ChainHead(head.block_number - 1, head.block_hash)
    assert "CHAIN_CUT" in await kinds_found(exported_head=other)


async def test_an_entry_whose_transaction_ended_late_is_sealed_in_a_later_block(books):
    payer, merchant = await books.funded_customer(100), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 1))
    slow = await connect(books)
    try:
        async with slow.transaction():
            await slow.fetch(
                "SELECT * FROM post_entries_as('system', $1, $2, $3)",
                *ledger.entry_rows([entry(Post(books.bank, merchant.pending, 5))]),
            )
            await books.book(Post(payer.wallet, merchant.pending, 2))
            assert await ledger.seal() == 3
    finally:
        await slow.close()
    assert await ledger.seal() == 1
    assert await ledger.seal() == 0
    report = await verify()
    assert (report.findings, report.blocks_count, report.unsealed_count) == ((), 2, 0)


async def test_what_is_not_sealed_yet_is_counted_and_still_checked(books):
    payer = await books.funded_customer(100)
    report = await verify()
    assert (report.unsealed_count, report.head) == (1, None)
    await tamper(books, "UPDATE posting SET amount_minor = 99")
    assert {"CONTENT_DIFFERS", "BALANCE_DIFFERS"} <= await kinds_found()
    assert payer
