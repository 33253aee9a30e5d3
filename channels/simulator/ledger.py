"""The bank's books: each instruction once under its number, each movement as a double entry.

Every change of an instruction's status, its booking and its callback are one transaction, so that
what the bank did, says and will call back never differ, whenever this process is killed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from channels.simulator.store import transaction
from core import clock, ids

CLIENT_ACCOUNT = "client"
WORLD_ACCOUNT = "world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The status that an instruction takes, now or `after_seconds` from now."""

    status: str
    reason: str | None = None
    retryable: bool = False
    soft: bool = False
    after_seconds: float = 0.0


PAID = Verdict(status="SUCCESS")
CANCELLED = Verdict(status="DECLINED", reason="PAYER_CANCELLED")
NO_FUNDS = Verdict(status="DECLINED", reason="INSUFFICIENT_FUNDS", retryable=True)
CLOSED = Verdict(status="CLOSED", reason="CLOSED_BY_CLIENT")
EXPIRED = Verdict(status="CLOSED", reason="EXPIRED")
RETURNED = Verdict(status="DECLINED", reason="RETURNED")


def found(connection: sqlite3.Connection, number: str) -> sqlite3.Row | None:
    """The instruction with this number."""
    query = "SELECT * FROM instruction WHERE number = ?"
    row: sqlite3.Row | None = connection.execute(query, (number,)).fetchone()
    return row


def register(
    connection: sqlite3.Connection, fields: Mapping[str, Any], verdict: Verdict
) -> sqlite3.Row:
    """Store a new instruction, with what becomes of it, and return its row.

    A number that is known stays what it is, whatever came with it now: the bank books it once (the
    caller compares); only a soft refusal is considered again. A refusal given at once is in the
    answer and is not called back. `fields["silent"]` keeps all callbacks about the number back.
    """
    with transaction(connection):
        number = fields["number"]
        known = found(connection, number)
        if known is None:
            row = {
                **fields,
                "status": "PENDING",
                "trade_no": f"B{ids.new_id().hex[:24]}",
                "cashier_id": ids.random_token(16) if fields["kind"] == "PAY_IN" else None,
                "occurred_at": clock.now().timestamp(),
            }
            columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(
                f"INSERT INTO instruction ({columns}) VALUES ({places})",  # noqa: S608
                row,
            )
            _take_verdict(connection, number, verdict, quietly=verdict.status == "DECLINED")
        elif known["status"] == "DECLINED" and known["soft"]:
            _take_verdict(connection, number, verdict, quietly=verdict.status == "DECLINED")
        return _present(connection, number)


def decide(
    connection: sqlite3.Connection, number: str, verdict: Verdict, *, only_from: str | None = None
) -> bool:
    """Give a known instruction a verdict, if it stands at `only_from`; tells whether it did."""
    with transaction(connection):
        row = found(connection, number)
        if row is None or (only_from is not None and row["status"] != only_from):
            return False
        _take_verdict(connection, number, verdict)
        return True


def apply_due(connection: sqlite3.Connection) -> None:
    """Do what is due: payouts that end or return, late successes, expired sessions."""
    at = clock.now().timestamp()
    due = connection.execute(
        "SELECT number, due_status, due_reason FROM instruction WHERE due_at <= ?", (at,)
    ).fetchall()
    for row in due:
        decide(
            connection, row["number"], Verdict(status=row["due_status"], reason=row["due_reason"])
        )


def next_due_at(connection: sqlite3.Connection) -> float | None:
    """When `apply_due` has something to do next."""
    at: float | None = connection.execute("SELECT min(due_at) FROM instruction").fetchone()[0]
    return at


def report(connection: sqlite3.Connection, number: str | None = None) -> dict[str, Any]:
    """Per instruction what was booked, per account the balance, and whether the books agree."""
    instructions = connection.execute(
        """
        SELECT number, kind, status, reason, amount_minor, currency,
               (SELECT count(*) FROM posting WHERE posting.number = instruction.number
                AND type <> 'RETURN') AS bookings_count,
               (SELECT count(*) FROM posting WHERE posting.number = instruction.number
                AND type = 'RETURN') AS returns_count,
               (SELECT coalesce(sum(CASE credit_account WHEN 'client' THEN amount_minor
                                    ELSE -amount_minor END), 0)
                FROM posting WHERE posting.number = instruction.number) AS booked_minor
        FROM instruction WHERE ?1 IS NULL OR number = ?1 ORDER BY rowid
        """,
        (number,),
    ).fetchall()
    balances = connection.execute("SELECT * FROM balance ORDER BY account, currency").fetchall()
    return {
        "instructions": [dict(row) for row in instructions],
        "balances": [dict(row) for row in balances],
        "balanced": _balanced(connection),
    }


def bookings(connection: sqlite3.Connection, begin: float, end: float) -> list[sqlite3.Row]:
    """What was booked from `begin` until before `end`; amounts of money out are negative."""
    return connection.execute(
        """
        SELECT posting.booked_at, posting.type, instruction.trade_no, posting.number,
               posting.currency, CASE posting.credit_account WHEN 'client' THEN posting.amount_minor
               ELSE -posting.amount_minor END AS amount_minor
        FROM posting JOIN instruction USING (number)
        WHERE posting.booked_at >= ? AND posting.booked_at < ? ORDER BY posting_id
        """,
        (begin, end),
    ).fetchall()


def instant(at: float) -> str:
    """A stored time as it stands on the wire."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def _take_verdict(
    connection: sqlite3.Connection, number: str, verdict: Verdict, *, quietly: bool = False
) -> None:
    """Change the status now, or note when to: books the money and adds the callback."""
    at = clock.now().timestamp()
    before = _present(connection, number)
    if verdict.after_seconds > 0:
        connection.execute(
            "UPDATE instruction SET due_at = ?, due_status = ?, due_reason = ? WHERE number = ?",
            (at + verdict.after_seconds, verdict.status, verdict.reason, number),
        )
        if before["soft"]:
            connection.execute(
                "UPDATE instruction SET status='PENDING', reason = NULL, soft = 0 WHERE number = ?",
                (number,),
            )
        return
    connection.execute(
        """
        UPDATE instruction SET status = ?, reason = ?, retryable = ?, soft = ?, occurred_at = ?,
               due_at = NULL, due_status = NULL, due_reason = NULL
        WHERE number = ?
        """,
        (verdict.status, verdict.reason, verdict.retryable, verdict.soft, at, number),
    )
    if verdict.status == before["status"]:
        return
    if verdict.status == "SUCCESS":
        _book(connection, before, before["kind"], at)
    elif before["status"] == "SUCCESS":
        _book(connection, before, "RETURN", at)
    row = _present(connection, number)
    if verdict.status in {"SUCCESS", "DECLINED"} and not row["silent"] and not quietly:
        _add_callback(connection, row)
    if verdict.status == "SUCCESS" and row["return_seconds"] is not None:
        _take_verdict(connection, number, replace(RETURNED, after_seconds=row["return_seconds"]))


def _book(connection: sqlite3.Connection, row: sqlite3.Row, type_: str, at: float) -> None:
    inward = (row["kind"] == "PAY_IN") != (type_ == "RETURN")
    debit, credit = (WORLD_ACCOUNT, CLIENT_ACCOUNT) if inward else (CLIENT_ACCOUNT, WORLD_ACCOUNT)
    amount_minor, currency = row["amount_minor"], row["currency"]
    connection.execute(
        """
        INSERT INTO posting (number, type, debit_account, credit_account, amount_minor, currency,
                             booked_at)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        """,
        (row["number"], type_, debit, credit, amount_minor, currency, at),
    )
    for account, debit_minor, credit_minor in ((debit, amount_minor, 0), (credit, 0, amount_minor)):
        connection.execute(
            """
            INSERT INTO balance (account, currency, debits_minor, credits_minor)
            VALUES (?, ?, ?, ?) ON CONFLICT (account, currency) DO UPDATE
            SET debits_minor = debits_minor + excluded.debits_minor,
                credits_minor = credits_minor + excluded.credits_minor
            """,
            (account, currency, debit_minor, credit_minor),
        )


def _add_callback(connection: sqlite3.Connection, row: sqlite3.Row) -> None:
    event_id = f"event_{ids.new_id().hex}"
    body = orjson.dumps({**state_of(row), "event_id": event_id})
    connection.execute(
        "INSERT INTO callback (event_id, number, url, body, next_at) VALUES (?, ?, ?, ?, ?)",
        (event_id, row["number"], row["notify_url"], body, row["occurred_at"]),
    )


def state_of(row: sqlite3.Row) -> dict[str, Any]:
    """An instruction as the bank reports it, in answers and callbacks alike."""
    return {
        "client": row["client"],
        "number": row["number"],
        "kind": row["kind"],
        "status": row["status"],
        "reason": row["reason"],
        "retryable": bool(row["retryable"]),
        "soft": bool(row["soft"]),
        "trade_no": row["trade_no"],
        "amount_minor": row["amount_minor"],
        "currency": row["currency"],
        "occurred_at": instant(row["occurred_at"]),
    }


def _balanced(connection: sqlite3.Connection) -> bool:
    """Whether balances equal the postings, and the postings equal what the statuses say."""
    from_postings = connection.execute(
        """
        SELECT account, currency, sum(debit), sum(credit) FROM (
            SELECT debit_account AS account, currency, amount_minor AS debit, 0 AS credit
            FROM posting
            UNION ALL SELECT credit_account, currency, 0, amount_minor FROM posting
        ) GROUP BY account, currency ORDER BY account, currency
        """
    ).fetchall()
    kept = connection.execute("SELECT * FROM balance ORDER BY account, currency").fetchall()
    unexplained = connection.execute(
        """
        SELECT count(*) FROM instruction WHERE (status = 'SUCCESS') <> (
            SELECT coalesce(sum(CASE type WHEN 'RETURN' THEN -1 ELSE 1 END), 0) FROM posting
            WHERE posting.number = instruction.number)
        """
    ).fetchone()[0]
    return [tuple(row) for row in from_postings] == [tuple(row) for row in kept] and not unexplained


def _present(connection: sqlite3.Connection, number: str) -> sqlite3.Row:
    row = found(connection, number)
    if row is None:
        raise LookupError(f"no instruction {number}")
    return row
