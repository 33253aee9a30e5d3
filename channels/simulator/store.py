"""The simulator's own memory: one SQLite file that survives restarts and shares nothing with us.

Statements take far less than a millisecond, so they run on the event loop; no transaction is ever
open across an `await`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS instruction (
    number TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('PAY_IN', 'PAY_OUT')),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    notify_url TEXT NOT NULL,
    return_url TEXT,
    expires_at REAL NOT NULL,
    account_number TEXT,
    holder_name TEXT,
    bank_code TEXT,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'SUCCESS', 'DECLINED', 'CLOSED')),
    reason TEXT,
    retryable INTEGER NOT NULL DEFAULT 0,
    soft INTEGER NOT NULL DEFAULT 0,
    trade_no TEXT NOT NULL UNIQUE,
    cashier_id TEXT UNIQUE,
    occurred_at REAL NOT NULL,
    due_at REAL,
    due_status TEXT,
    due_reason TEXT,
    return_seconds REAL,
    silent INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS instruction_due ON instruction (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS posting (
    posting_id INTEGER PRIMARY KEY,
    number TEXT NOT NULL REFERENCES instruction (number),
    type TEXT NOT NULL CHECK (type IN ('PAY_IN', 'PAY_OUT', 'RETURN')),
    debit_account TEXT NOT NULL,
    credit_account TEXT NOT NULL CHECK (credit_account <> debit_account),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    booked_at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS posting_number ON posting (number);
CREATE INDEX IF NOT EXISTS posting_booked ON posting (booked_at);
CREATE TABLE IF NOT EXISTS balance (
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    debits_minor INTEGER NOT NULL DEFAULT 0,
    credits_minor INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, currency)
) STRICT;
CREATE TABLE IF NOT EXISTS callback (
    event_id TEXT PRIMARY KEY,
    number TEXT NOT NULL,
    url TEXT NOT NULL,
    body BLOB NOT NULL,
    tries_count INTEGER NOT NULL DEFAULT 0,
    next_at REAL,
    last_answer TEXT,
    acknowledged_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS callback_next ON callback (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS callback_number ON callback (number);
CREATE TABLE IF NOT EXISTS nonce (nonce TEXT PRIMARY KEY, seen_at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS nonce_seen ON nonce (seen_at);
CREATE TABLE IF NOT EXISTS fault (
    fault_id INTEGER PRIMARY KEY,
    operation TEXT NOT NULL,
    fault TEXT NOT NULL,
    number TEXT,
    count_left INTEGER,
    probability REAL NOT NULL,
    seed INTEGER NOT NULL,
    draws_count INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL,
    amount_minor INTEGER NOT NULL,
    reason TEXT NOT NULL,
    retryable INTEGER NOT NULL,
    soft INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS message (
    message_id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    text TEXT NOT NULL,
    received_at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS message_destination ON message (destination, message_id);
CREATE TABLE IF NOT EXISTS webhook (
    webhook_id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    verified INTEGER,
    body TEXT NOT NULL,
    received_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS webhook_secret (secret TEXT PRIMARY KEY) STRICT;
"""


def connect(path: Path) -> sqlite3.Connection:
    """The file at `path`, made if there is none."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(SCHEMA)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
