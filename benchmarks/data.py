"""`make bench-data`: a merchant with 5 million orders and one with 50,000, with their books; once.

The rows are what the pipeline and the ledger would have left, made in set-based SQL, a thousand
orders in each transaction, with the checkpoints that the worker writes meanwhile. They are kept in
`.purser-bench/data`, or where PURSER_BENCH_DATA says, until the tables change. The entries are not
sealed; the proof of the books goes over all that is made here.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from benchmarks.figures import tell
from benchmarks.servers import KEPT, ROOT, Failed, remove, started
from wallet.chart import AccountKind, AccountSpec, account, clearing

CURRENCY = "CNY"
PAYERS = 1_000
CHUNK = 1_000
"""Orders in a transaction. After each the merchant is settled, so its account is debited too."""
VERSION = 1
"""Raised with any change of the rows that are made here."""
SYSTEM = "SET purser.principal = 'system'"


@dataclass(frozen=True)
class Shop:
    """One merchant's rows: all their ids, numbers and instants follow from these.

    `first_sequence` is the last one before its orders; its payers' money came right before them.
    """

    place: int
    orders_count: int
    first_sequence: int
    begins_at: datetime
    seconds_between: float

    @property
    def merchant_id(self) -> uuid.UUID:
        return uuid.UUID(f"018f0000-0000-7000-8000-0000000000{self.place:02x}")

    @property
    def order_ids(self) -> str:
        """What all ids of its orders begin with; the rest is the order's number in hexadecimal."""
        return f"018f{self.place:04x}-0000-7000-8000-"

    @property
    def customer_ids(self) -> list[uuid.UUID]:
        return [
            uuid.UUID(f"018e{self.place:04x}-0000-7000-8000-{number:012x}")
            for number in range(PAYERS)
        ]

    @property
    def pending(self) -> AccountSpec:
        return account(AccountKind.MERCHANT_PENDING, self.merchant_id, CURRENCY)

    @property
    def available(self) -> AccountSpec:
        return account(AccountKind.MERCHANT_AVAILABLE, self.merchant_id, CURRENCY)

    @property
    def wallets(self) -> list[AccountSpec]:
        return [
            account(AccountKind.CUSTOMER_WALLET, customer_id, CURRENCY)
            for customer_id in self.customer_ids
        ]

    def at(self, number: float) -> datetime:
        """When order `number` was made."""
        return self.begins_at + timedelta(seconds=number * self.seconds_between)

    def sequence(self, number: int) -> int:
        """The entry of order `number`; after each thousand stands the one of a settlement."""
        return self.first_sequence + number + (number - 1) // CHUNK


# One after the other in the journal, so that a page lies as densely for one as for the other.
SMALL = Shop(1, 50_000, PAYERS, datetime(2025, 1, 1, tzinfo=UTC), 6.0)
LARGE = Shop(2, 5_000_000, 2 * PAYERS + 50_050, datetime(2025, 2, 1, tzinfo=UTC), 6.0)
BANK = clearing("bank", CURRENCY)

ACCOUNTS = """
INSERT INTO account (account_id, owner_kind, owner_id, kind, currency, normal_side, has_floor,
                     buffered, rolled_up_to, opened_at)
SELECT made.account_id, made.owner_kind, made.owner_id, made.kind, $5, chart.normal_side,
       chart.has_floor, chart.buffered, CASE WHEN chart.buffered THEN '3:3:'::pg_snapshot END, $6
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[])
    AS made (account_id, owner_kind, owner_id, kind)
JOIN chart() ON chart.kind = made.kind
ON CONFLICT DO NOTHING
"""
PARTIES = """
INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
                      payment_limit_minor, created_at)
VALUES ($1, 'Noodle Bar', 'ACTIVE', 0, to_jsonb(ARRAY[$2::text]), 10000000, $3)
"""
# $1 the account that pays into each of the accounts $2, $3 the sequence before, $4 when.
FUNDING = """
WITH made AS MATERIALIZED (
    SELECT $3 + number AS sequence, wallet, md5('funding' || wallet)::uuid AS entry_id
    FROM unnest($2::uuid[]) WITH ORDINALITY AS wallets (wallet, number)
), entries AS (
    INSERT INTO entry (entry_id, sequence, kind, recorded_at, description, facts, content_hash)
    SELECT entry_id, sequence, 'TOP_UP', $4, '', '{}', sha256(convert_to(entry_content(
        entry_id, 'TOP_UP', NULL, NULL, NULL, NULL, leg_content(
            'POST', NULL, $1, wallet, 100000000000, 'CNY', NULL), '{}', ''), 'UTF8'))
    FROM made
)
INSERT INTO posting (sequence, line, debit_account_id, credit_account_id, amount_minor, currency,
                     debit_buffered, credit_buffered, recorded_at)
SELECT sequence, 1, $1, wallet, 100000000000, 'CNY', true, false, $4 FROM made
"""
# Orders $1 to $2 of the shop, whose entry of order 0 would be $3; what was paid is settled then.
PAYMENTS = f"""
WITH made AS MATERIALIZED (
    SELECT $3 + number + (number - 1) / {CHUNK} AS sequence, 'PAYMENT' AS kind,
           md5('entry' || $4 || number)::uuid AS entry_id,
           ($4 || lpad(to_hex(number), 12, '0'))::uuid AS order_id, $5::uuid AS merchant_id,
           ($6::uuid[])[1 + number * 7919 % {PAYERS}] AS debit_account_id,
           $7::uuid AS credit_account_id, 100 + number * 37 % 9901 AS amount_minor,
           $9::timestamptz + number * $10::interval AS recorded_at, false AS debit_buffered,
           true AS credit_buffered
    FROM generate_series($1::bigint, $2::bigint) AS number
), booked AS MATERIALIZED (
    SELECT * FROM made
    UNION ALL
    SELECT max(sequence) + 1, 'SETTLEMENT', md5('settlement' || $4 || $1)::uuid, NULL, $5, $7,
           $8, sum(amount_minor)::bigint, max(recorded_at), false, false
    FROM made
), entries AS (
    INSERT INTO entry (entry_id, sequence, kind, recorded_at, order_id, merchant_id, description,
                       facts, content_hash)
    SELECT entry_id, sequence, kind, recorded_at, order_id, merchant_id, '', '{{}}',
           sha256(convert_to(entry_content(
               entry_id, kind, NULL, order_id, NULL, merchant_id, leg_content(
                   'POST', NULL, debit_account_id, credit_account_id, amount_minor, 'CNY', NULL),
               '{{}}', ''), 'UTF8'))
    FROM booked
)
INSERT INTO posting (sequence, line, debit_account_id, credit_account_id, amount_minor, currency,
                     debit_buffered, credit_buffered, recorded_at)
SELECT sequence, 1, debit_account_id, credit_account_id, amount_minor, 'CNY', debit_buffered,
       credit_buffered, recorded_at
FROM booked
"""
# Beside each twentieth order stands one that came to nothing, or waits, or was of another kind.
ORDERS = f"""
INSERT INTO payment_order (
    order_id, version, merchant_id, merchant_order_no, type, product, state, currency, amount_minor,
    authorized_minor, capture_pending_minor, captured_minor, releasing_minor, released_minor,
    reversed_minor, refund_pending_minor, refunded_minor, disputed_open_minor, dispute_lost_minor,
    suspense_minor, fee_rate_millionths, fee_minor, fee_refunded_minor, refund_progress,
    settlement_progress, payer_customer_id, description, details, failure_reason, effective_at,
    expires_at, created_at, updated_at)
SELECT ($3 || lpad(to_hex(number + CASE WHEN other THEN 1099511627776 ELSE 0 END), 12, '0'))::uuid,
       2, $4, CASE WHEN other THEN 'X' ELSE 'N' END || number, type,
       CASE type WHEN 'PAY' THEN 'account_pay' ELSE 'top_up' END, state, currency, amount_minor,
       moved_minor, 0, moved_minor, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'NONE',
       CASE WHEN other THEN 'NONE' ELSE 'SETTLED' END, ($5::uuid[])[1 + number * 7919 % {PAYERS}],
       'Noodles', '{{}}', CASE state WHEN 'FAILED' THEN 'DECLINED' END, created_at,
       created_at + interval '30 minutes', created_at, created_at
FROM (
    SELECT number, false AS other, 'PAY' AS type, 'SUCCEEDED' AS state, 'CNY' AS currency,
           100 + number * 37 % 9901 AS amount_minor, 100 + number * 37 % 9901 AS moved_minor,
           $6::timestamptz + number * $7::interval AS created_at
    FROM generate_series($1::bigint, $2::bigint) AS number
    UNION ALL
    SELECT number, true, CASE number / 20 % 50 WHEN 1 THEN 'TOP_UP' ELSE 'PAY' END,
           CASE number / 20 % 50 WHEN 0 THEN 'IN_REVIEW' WHEN 1 THEN 'FAILED' WHEN 3 THEN 'CLOSED'
                                 ELSE 'FAILED' END,
           CASE number / 20 % 50 WHEN 2 THEN 'USD' ELSE 'CNY' END, 500, 0,
           $6::timestamptz + number * $7::interval
    FROM generate_series($1::bigint, $2::bigint) AS number WHERE number % 20 = 0
) AS made
"""
# What the roll-up, and the postings themselves, would have left in the rows of the accounts.
BALANCES = """
UPDATE account a
SET debits_posted = moved.debits, credits_posted = moved.credits, account_version = 1,
    rolled_up_to = CASE WHEN a.buffered THEN pg_current_snapshot() END
FROM (SELECT side.account_id, sum(side.debit)::bigint AS debits, sum(side.credit)::bigint AS credits
      FROM (SELECT debit_account_id, amount_minor, 0 FROM posting
            UNION ALL SELECT credit_account_id, 0, amount_minor FROM posting)
          AS side (account_id, debit, credit)
      GROUP BY side.account_id) AS moved
WHERE a.account_id = moved.account_id
"""
TABLES = "account, entry, posting, hold, payment_order, account_checkpoint, journal_mark"
PROOFS = ("accounts", "holds", "postings", "snapshots", "checkpoints", "marks")


def folder() -> Path:
    """Where the data stand."""
    return Path(os.environ.get("PURSER_BENCH_DATA") or KEPT / "data").absolute()


def shape() -> str:
    """What the tables look like and what is in them: other data would measure another Purser."""
    digest = hashlib.sha256(f"{VERSION}:{SMALL}:{LARGE}".encode())
    for path in sorted((ROOT / "migrations").rglob("*")):
        if path.suffix in (".py", ".sql"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def made() -> bool:
    """Whether the data are there and of the present shape."""
    mark = folder() / "made"
    return mark.exists() and mark.read_text() == shape()


def main() -> int:
    argparse.ArgumentParser(prog="benchmarks.data", description=__doc__).parse_args()
    if made():
        tell(f"the data are there: {folder()}")
        return 0
    if folder().exists():
        tell("the tables have changed since the data were made; they are made again")
        remove(folder())
    folder().mkdir(parents=True, mode=0o711)
    began = time.monotonic()
    try:
        with started(kept=folder()) as stack:
            asyncio.run(_fill(stack.owner_url))
    except (Failed, KeyboardInterrupt) as failed:
        tell(f"stopped: {failed}")
        return 1
    (folder() / "made").write_text(shape())
    tell(f"made in {time.monotonic() - began:.0f} s: {folder()}")
    return 0


async def _fill(owner_url: str) -> None:
    """Ledger and orders at once, each in its order; then what stands behind both."""
    progress = {"entries": 0, "orders": 0}
    for place, shop in enumerate((SMALL, LARGE)):
        await _open(owner_url, shop)
        async with asyncio.TaskGroup() as group:
            shown = group.create_task(_show(progress))
            loaders = [
                group.create_task(_load_ledger(owner_url, shop, progress)),
                group.create_task(_load_orders(owner_url, shop, progress)),
            ]
            await asyncio.wait(loaders)
            shown.cancel()
        tell(f"shop {place + 1} of 2 is there: {shop.orders_count:,} orders")
    await _finish(owner_url)


async def _open(owner_url: str, shop: Shop) -> None:
    specs = [BANK, shop.pending, shop.available, *shop.wallets]
    connection = await _loader(owner_url)
    try:
        await connection.execute(
            ACCOUNTS,
            [spec.account_id for spec in specs],
            [spec.owner_kind for spec in specs],
            [spec.owner_id for spec in specs],
            [spec.kind.value for spec in specs],
            CURRENCY,
            shop.begins_at,
        )
        await connection.execute(PARTIES, shop.merchant_id, CURRENCY, shop.begins_at)
        wallet_ids = [spec.account_id for spec in shop.wallets]
        before = shop.first_sequence - len(wallet_ids)
        await connection.execute(FUNDING, BANK.account_id, wallet_ids, before, shop.at(-1))
    finally:
        await connection.close()


async def _load_ledger(owner_url: str, shop: Shop, progress: dict[str, int]) -> None:
    connection = await _loader(owner_url)
    try:
        book = await connection.prepare(PAYMENTS)
        keep = await connection.prepare("SELECT keep_checkpoints(1000)")
        wallet_ids = [spec.account_id for spec in shop.wallets]
        for first in range(1, shop.orders_count + 1, CHUNK):
            await book.fetch(
                first,
                first + CHUNK - 1,
                shop.first_sequence,
                shop.order_ids,
                shop.merchant_id,
                wallet_ids,
                shop.pending.account_id,
                shop.available.account_id,
                shop.begins_at,
                timedelta(seconds=shop.seconds_between),
            )
            await keep.fetch()
            progress["entries"] += CHUNK
    finally:
        await connection.close()


async def _load_orders(owner_url: str, shop: Shop, progress: dict[str, int]) -> None:
    connection = await _loader(owner_url)
    try:
        accept = await connection.prepare(ORDERS)
        for first in range(1, shop.orders_count + 1, CHUNK):
            await accept.fetch(
                first,
                first + CHUNK - 1,
                shop.order_ids,
                shop.merchant_id,
                shop.customer_ids,
                shop.begins_at,
                timedelta(seconds=shop.seconds_between),
            )
            progress["orders"] += CHUNK
    finally:
        await connection.close()


async def _finish(owner_url: str) -> None:
    """Balances, statistics, and the proof that all of it is right."""
    connection = await asyncpg.connect(owner_url, server_settings={"timezone": "UTC"})
    try:
        tell("balances")
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute(BALANCES)
        await connection.execute(
            "UPDATE follower SET consumed = pg_current_snapshot() WHERE name = 'roll_up'"
        )
        await connection.execute(
            "SELECT setval('entry_sequence', (SELECT max(sequence) FROM entry))"
        )
        tell("vacuum and statistics")
        await connection.execute(f"VACUUM (ANALYZE) {TABLES}")
        await connection.execute(SYSTEM)
        for proof in PROOFS:
            tell(f"proof of the {proof}")
            wrong = await connection.fetch(f"SELECT * FROM verify_{proof}(10)")
            if wrong:
                raise Failed(f"the rows are not right: {[tuple(row) for row in wrong]}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _loader(owner_url: str) -> asyncpg.Connection:
    """Foreign keys are not looked up row by row: the proof at the end does it for all."""
    connection = await asyncpg.connect(owner_url, server_settings={"timezone": "UTC"})
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("SET synchronous_commit = off")
    return connection


async def _show(progress: dict[str, int]) -> None:
    while True:
        await asyncio.sleep(10)
        tell(f"{progress['entries']:>9,} entries, {progress['orders']:>9,} orders")


if __name__ == "__main__":
    sys.exit(main())
