"""Balances of the past: with checkpoints, without them, late commits and clocks that go back, the
same sum.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from tests.wallet.books import BANK, Customer, Merchant, connect, entry, posting_call
from wallet import ledger
from wallet.ledger import Hold, Post, PostHold, VoidHold
from wallet.statements import balance_as_of, statement_page
from wallet.verify import verify

BRUTE_FORCE = """
WITH happened AS (
    SELECT p.debit_account_id, p.credit_account_id, p.amount_minor FROM posting p
    WHERE CASE WHEN $2::text IS NULL THEN p.recorded_at <= $3
               ELSE pg_visible_in_snapshot(p.transaction_id, $2::pg_snapshot) END)
SELECT (CASE a.normal_side WHEN 'credit' THEN 1 ELSE -1 END * (
           coalesce((SELECT sum(amount_minor) FROM happened WHERE credit_account_id = $1), 0)
         - coalesce((SELECT sum(amount_minor) FROM happened WHERE debit_account_id = $1), 0)
       ))::bigint,
       (CASE a.normal_side WHEN 'credit' THEN coalesce((
           SELECT sum(h.amount_minor) FROM hold h JOIN entry e ON e.sequence = h.sequence
           WHERE h.debit_account_id = $1
             AND CASE WHEN $2 IS NULL THEN e.recorded_at <= $3
                      ELSE pg_visible_in_snapshot(h.transaction_id, $2::pg_snapshot) END
             AND NOT coalesce(CASE WHEN $2 IS NULL THEN h.resolved_at <= $3
                      ELSE pg_visible_in_snapshot(h.resolved_transaction_id, $2::pg_snapshot) END,
                      false)), 0) ELSE 0 END)::bigint
FROM account a WHERE a.account_id = $1
"""
SHIFTED_CLOCK = (
    "CREATE TABLE shift AS SELECT interval '0' AS by",
    "GRANT SELECT ON shift TO PUBLIC",
    "CREATE OR REPLACE FUNCTION purser_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
    " $$ SELECT clock_timestamp() + (SELECT by FROM public.shift) $$",
)


async def shift_clock(books):
    """Let the row of the table `shift` say by how much the database's clock is wrong."""
    for sql in SHIFTED_CLOCK:
        await books.database.fetch(sql)


@asynccontextmanager
async def open_transaction(books):
    """A connection of the application inside a transaction, which commits on leaving."""
    connection = await connect(books)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@dataclass
class History:
    """Books that grow at random, and the instants and versions that were met on the way."""

    books: object
    chance: random.Random
    payers: list[Customer] = field(default_factory=list)
    merchant: Merchant = field(default_factory=Merchant)
    versions: list[str] = field(default_factory=list)
    instants: list[dt.datetime] = field(default_factory=list)
    holds: list[uuid.UUID] = field(default_factory=list)
    late: list[AsyncExitStack] = field(default_factory=list)

    async def open(self) -> None:
        self.payers = [await self.books.funded_customer(100_000) for _ in range(8)]

    @property
    def accounts(self) -> list[uuid.UUID]:
        specs = [*(payer.wallet for payer in self.payers[:3]), self.merchant.pending, BANK]
        return [spec.account_id for spec in specs]

    async def step(self) -> None:
        """One thing that may happen to books."""
        choice = self.chance.random()
        # The last payers are those of transactions that stay open, and so locked meanwhile.
        payer = self.chance.choice(self.payers[:4])
        amount_minor = self.chance.randrange(1, 100)
        if choice < 0.45:
            await self.books.book(Post(payer.wallet, self.merchant.pending, amount_minor))
        elif choice < 0.55:
            hold_id = uuid.uuid4()
            await self.books.book(Hold(hold_id, payer.wallet, self.merchant.pending, amount_minor))
            self.holds.append(hold_id)
        elif choice < 0.65 and self.holds:
            hold_id = self.holds.pop(self.chance.randrange(len(self.holds)))
            posted = PostHold(hold_id, ((self.merchant.pending, 1),))
            await self.books.book(posted if choice < 0.6 else VoidHold(hold_id))
        elif choice < 0.72 and len(self.late) < 4:
            stack = AsyncExitStack()
            connection = await stack.enter_async_context(open_transaction(self.books))
            slow = self.payers[4 + len(self.late)]
            await posting_call(entry(Post(slow.wallet, self.merchant.pending, amount_minor)))(
                connection
            )
            self.late.append(stack)
        elif choice < 0.78 and self.late:
            await self.late.pop().aclose()
        elif choice < 0.86:
            await ledger.keep_checkpoints(self.chance.choice((1, 2, 5)))
        elif choice < 0.9:
            await ledger.roll_up()
        else:
            [row] = await self.books.database.fetch(
                "SELECT pg_current_snapshot()::text, purser_now()"
            )
            self.versions.append(row[0])
            self.instants.append(row[1])

    async def end(self) -> None:
        while self.late:
            await self.late.pop().aclose()

    async def compare(self) -> int:
        """Every version and instant that was met, and those of single rows, on each account."""
        rows = await self.books.database.fetch("SELECT recorded_at FROM posting ORDER BY random()")
        moments = [*self.instants, *(row[0] for row in rows[:15])]
        moments += [moment - dt.timedelta(microseconds=1) for moment in moments[-5:]]
        questions = [(version, None) for version in self.versions]
        questions += [(None, moment) for moment in moments]
        connection = await asyncpg.connect(self.books.database.owner_url)
        try:
            for version, instant in questions:
                for account_id in self.accounts:
                    wanted = tuple(
                        await connection.fetchrow(BRUTE_FORCE, account_id, version, instant)
                    )
                    async with phase(SYSTEM):
                        found = await balance_as_of(
                            account_id, ledger_version=version, instant=instant
                        )
                    assert (found.posted_minor, found.pending_minor) == wanted, (version, instant)
        finally:
            await connection.close()
        return len(questions)


@pytest.mark.parametrize("seed", range(4))
async def test_a_balance_of_the_past_is_the_sum_of_what_had_happened(books, seed):
    history = History(books, random.Random(seed))
    print("seed", seed)
    await history.open()
    for _ in range(3):
        for _ in range(60):
            await history.step()
        assert await history.compare() > 10
    await history.end()
    await history.compare()
    await ledger.keep_checkpoints(1)
    await ledger.keep_checkpoints(1)
    await history.compare()
    assert await books.count("account_checkpoint") > 20
    await books.assert_proven()


async def test_a_clock_that_goes_back_and_forth_changes_no_sum(books):
    await shift_clock(books)
    history = History(books, random.Random(11))
    await history.open()
    for hours in (0, 3, -2, 5, 0, -1):
        await books.database.fetch(f"UPDATE shift SET by = interval '{hours} hours'")
        for _ in range(30):
            await history.step()
        await ledger.keep_checkpoints(1)
    await history.end()
    await history.compare()
    await books.assert_proven()


async def test_checkpoints_written_while_others_book_lose_nothing(books):
    """Writers, transactions that stay open and the worker all at once."""
    merchant = Merchant()
    payers = [await books.funded_customer(10_000) for _ in range(8)]
    stop = asyncio.Event()
    met = []

    async def book(payer, pause_seconds):
        while not stop.is_set():
            async with open_transaction(books) as connection:
                await posting_call(
                    entry(Post(payer.wallet, merchant.pending, 1)),
                    entry(Post(payer.wallet, merchant.fees, 2)),
                )(connection)
                await asyncio.sleep(pause_seconds)

    async def keep():
        while not stop.is_set():
            await ledger.keep_checkpoints(3)
            [row] = await books.database.fetch("SELECT pg_current_snapshot()::text, purser_now()")
            met.append(tuple(row))

    writers = [book(payer, place * 0.004) for place, payer in enumerate(payers)]
    work = asyncio.gather(keep(), *writers)
    await asyncio.sleep(2)
    stop.set()
    await work
    assert await books.count("account_checkpoint") > 20
    history = History(books, random.Random(0), payers, merchant)
    history.versions = [version for version, _ in met[::5]]
    history.instants = [instant for _, instant in met[::5]]
    await history.compare()
    await books.assert_proven()


async def test_a_worker_that_dies_on_the_way_has_done_nothing_and_the_next_one_goes_on(books):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    for _ in range(5):
        await books.book(Post(payer.wallet, merchant.pending, 7))
    async with AsyncExitStack() as stack:
        connection = await connect(books)
        stack.push_async_callback(connection.close)
        dying = connection.transaction()
        await dying.start()
        assert await connection.fetchval("SELECT keep_checkpoints(1)") > 0
        assert await ledger.keep_checkpoints(1) == 0, "another one waits for nobody"
        await dying.rollback()
    assert await books.count("account_checkpoint") == await books.count("journal_mark") == 0
    assert await ledger.keep_checkpoints(1) == 3
    assert await ledger.keep_checkpoints(1) == 0, "nothing moved"
    await books.assert_proven()


async def test_a_posting_has_a_number_above_every_mark_that_its_transaction_came_after(books):
    """The transaction is numbered first, even where no account is locked."""
    merchant = Merchant()
    await books.book(Post(BANK, merchant.pending, 5))
    await books.database.fetch("""
        CREATE OR REPLACE FUNCTION purser_now() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            IF pg_current_xact_id_if_assigned() IS NULL THEN
                RAISE EXCEPTION 'recorded before the transaction has a number';
            END IF;
            RETURN clock_timestamp();
        END $$
    """)
    await books.book(Post(BANK, merchant.pending, 5))


async def test_a_balance_of_the_past_reads_no_more_than_lies_near_it(books):
    payer, merchant = await books.funded_customer(100_000), Merchant()
    versions, instants = [], []
    for _ in range(20):
        await books.post(*(entry(Post(payer.wallet, merchant.pending, 1)) for _ in range(100)))
        await ledger.keep_checkpoints(50)
        [row] = await books.database.fetch("SELECT pg_current_snapshot()::text, purser_now()")
        versions.append(row[0])
        instants.append(row[1])
    rows_read = (
        "SELECT idx_tup_fetch + seq_tup_read AS rows_read FROM pg_stat_xact_user_tables"
        " WHERE relname = 'posting'"
    )
    async with phase(SYSTEM) as connection:
        for place in (2, 9, 17):
            for spec in (payer.wallet, merchant.pending):
                for where in ({"ledger_version": versions[place]}, {"instant": instants[place]}):
                    before = (await connection.execute_query_dict(rows_read))[0]["rows_read"]
                    await balance_as_of(spec.account_id, **where)
                    after = (await connection.execute_query_dict(rows_read))[0]["rows_read"]
                    assert after - before <= 650, (place, spec.kind, where)


async def test_an_old_reading_that_goes_up_stops_at_its_own_end(books):
    payer, merchant = await books.funded_customer(100_000), Merchant()
    for _ in range(3):
        await books.book(Post(payer.wallet, merchant.pending, 1))
    async with phase(SYSTEM):
        page = await statement_page(merchant.pending.account_id, limit=1)
    top = page.cursor(page.lines[0])
    for _ in range(10):
        await books.post(*(entry(Post(payer.wallet, merchant.pending, 1)) for _ in range(100)))
        await ledger.keep_checkpoints(50)
        await ledger.roll_up()
    rows_read = (
        "SELECT idx_tup_fetch + seq_tup_read AS rows_read FROM pg_stat_xact_user_tables"
        " WHERE relname = 'posting'"
    )
    async with phase(SYSTEM) as connection:
        before = (await connection.execute_query_dict(rows_read))[0]["rows_read"]
        newer = await statement_page(merchant.pending.account_id, before=top, limit=10)
        after = (await connection.execute_query_dict(rows_read))[0]["rows_read"]
    assert newer.lines == ()
    assert after - before < 400


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("credits_posted = credits_posted + 1", "CHECKPOINT_DIFFERS"),
        ("debits_pending = debits_pending + 1", "CHECKPOINT_DIFFERS"),
        ("last_sequence = last_sequence - 1", "CHECKPOINT_DIFFERS"),
        ("recorded_max_at = recorded_max_at - interval '1 hour'", "CHECKPOINT_DIFFERS"),
        ("snapshot = '3:3:'", "CHECKPOINT_DIFFERS"),
        ("snapshot = '900000000000:900000000000:'", "SNAPSHOT_FROM_THE_FUTURE"),
    ],
)
async def test_the_proof_finds_a_checkpoint_that_was_changed(books, change, finding):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    for _ in range(6):
        await books.book(Post(payer.wallet, merchant.pending, 7))
        await ledger.keep_checkpoints(1)
    await books.assert_proven()
    await books.database.fetch(
        f"UPDATE account_checkpoint SET {change} WHERE account_id = $1 AND number = 2",
        payer.wallet.account_id,
    )
    assert finding in {each.finding for each in (await verify()).findings}


async def test_the_proof_finds_a_ceiling_that_was_lowered(books):
    await shift_clock(books)
    payer, merchant = await books.funded_customer(1_000), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 7))
    await ledger.keep_checkpoints(1)
    await books.database.fetch("UPDATE shift SET by = interval '-1 hour'")
    await books.book(Post(payer.wallet, merchant.pending, 7))
    await ledger.keep_checkpoints(1)
    await books.assert_proven()
    lowered = await books.database.fetch(
        "UPDATE account_checkpoint SET ceiling_sequence = last_sequence"
        " WHERE ceiling_sequence > last_sequence RETURNING account_id"
    )
    assert len(lowered) == 2
    assert {each.finding for each in (await verify()).findings} == {"CHECKPOINT_PASSED_OVER"}


async def test_the_proof_finds_a_mark_that_was_raised(books):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 7))
    await ledger.keep_checkpoints(1)
    connection = await asyncpg.connect(books.database.owner_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("UPDATE journal_mark SET sequence = sequence + 1_000_000")
    finally:
        await connection.close()
    await books.book(Post(payer.wallet, merchant.pending, 7))
    assert {each.finding for each in (await verify()).findings} == {"ENTRY_BELOW_MARK"}


async def test_nobody_sees_the_past_of_another_and_nobody_reads_the_checkpoints(books):
    payer, merchant = await books.funded_customer(1_000), Merchant()
    await books.book(Post(payer.wallet, merchant.pending, 7))
    await ledger.keep_checkpoints(1)
    [row] = await books.database.fetch("SELECT pg_current_snapshot()::text")
    account_id = payer.wallet.account_id
    for principal, seen_minor in (
        (Principal("customer", payer.customer_id), 993),
        (Principal("customer", uuid.uuid4()), 0),
        (Principal("merchant", merchant.merchant_id), 0),
    ):
        async with phase(principal):
            balance = await balance_as_of(account_id, ledger_version=row[0])
            assert balance.posted_minor == seen_minor
    for sql in (
        "SELECT FROM account_checkpoint",
        "SELECT FROM journal_mark",
        "SELECT FROM account_events($1, 0, 100)",
        "SELECT write_checkpoints(ARRAY[$1::uuid])",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await statement(sql, *([account_id] if "$1" in sql else []))
    for sql in ("DELETE FROM account_checkpoint", "UPDATE journal_mark SET sequence = 1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await books.database.fetch(sql)
