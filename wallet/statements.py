"""Reading the books: balances as of now or then, and statements with a running balance.

Everything is read as the phase's principal: accounts of others are as if they did not exist. A
ledger version is opaque text; what was read at one can be read again, exactly, whatever came since.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.phase import statement

LINES_MAX = 200


@dataclass(frozen=True, slots=True)
class Balance:
    """In minor units; `pending_minor` is on hold, `available_minor` includes a credit limit."""

    posted_minor: int
    pending_minor: int
    available_minor: int
    ledger_version: str
    frozen: bool = False
    account_version: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """What one entry did to the account: a signed amount, and the balance right after it."""

    sequence: int
    amount_minor: int
    balance_after_minor: int
    entry_id: uuid.UUID
    kind: str
    order_id: uuid.UUID | None
    operation_id: uuid.UUID | None
    description: str
    facts: dict[str, Any]
    recorded_at: dt.datetime
    effective_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one reading of a statement. Its balances let the next page go on from here."""

    sequence: int
    balance_before_minor: int
    balance_after_minor: int
    ledger_version: str


@dataclass(frozen=True, slots=True)
class Page:
    """Lines newest first; `has_more` tells of further ones in the direction that was asked for."""

    lines: tuple[Line, ...]
    has_more: bool
    ledger_version: str

    def cursor(self, line: Line) -> Cursor:
        """The cursor of one of this page's lines."""
        before_minor = line.balance_after_minor - line.amount_minor
        return Cursor(line.sequence, before_minor, line.balance_after_minor, self.ledger_version)


@dataclass(frozen=True, slots=True)
class MerchantBalance:
    """A merchant's money in one currency by bucket, each equal to the ledger accounts it names."""

    currency: str
    available_minor: int
    pending_settlement_minor: int
    frozen_minor: int
    reserved_payout_minor: int
    in_transit_minor: int
    debt_minor: int
    as_of: dt.datetime
    ledger_version: str


async def statement_page(
    account_id: uuid.UUID,
    *,
    after: Cursor | None = None,
    before: Cursor | None = None,
    limit: int = 50,
) -> Page:
    """A page of lines: the newest, or those older than `after`, or those newer than `before`.

    All pages of one reading show the books at the instant of its first page. Raises `ValueError`
    for a limit outside 1 to 200 or for two cursors at once.
    """
    if not 1 <= limit <= LINES_MAX or (after is not None and before is not None):
        raise ValueError(f"between 1 and {LINES_MAX} lines, and at most one cursor")
    start = after or before
    rows = await statement(
        "SELECT * FROM read_statement($1, $2, $3, $4, $5)",
        account_id,
        limit,
        start.sequence if start else None,
        before is not None,
        start.ledger_version if start else None,
        writes=False,
    )
    version = rows[0]["ledger_version"] if rows else (start.ledger_version if start else "")
    shown = rows[:limit]
    if before is not None:
        lines = _upwards(shown, before.balance_after_minor)
    else:
        head_minor = shown[0]["balance_minor"] if shown else 0
        lines = _downwards(shown, after.balance_before_minor if after else head_minor)
    return Page(tuple(lines), len(rows) > limit, version)


async def balances(account_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Balance]:
    """The balance of each account, all at one instant; 0 for one that has not been opened yet."""
    rows = await statement(
        "SELECT asked.account_id, coalesce(posted_minor, 0), coalesce(pending_minor, 0),"
        " coalesce(available_minor, 0), pg_current_snapshot()::text, coalesce(frozen, false),"
        " coalesce(account_version, 0)"
        " FROM unnest($1::uuid[]) AS asked (account_id) LEFT JOIN balances($1) USING (account_id)",
        list(account_ids),
        writes=False,
    )
    return {row[0]: Balance(*list(row)[1:]) for row in rows}


async def balance_as_of(
    account_id: uuid.UUID,
    *,
    ledger_version: str | None = None,
    instant: dt.datetime | None = None,
) -> Balance:
    """The balance at a ledger version (exact) or at an instant (but for entries in flight then).

    The credit limit is today's. Raises `ValueError` unless exactly one of the two is given.
    """
    if (ledger_version is None) == (instant is None):
        raise ValueError("a ledger version or an instant")
    rows = await statement(
        "SELECT * FROM read_balance_as_of($1, $2, $3)",
        account_id,
        ledger_version,
        instant,
        writes=False,
    )
    posted_minor, pending_minor, limit_minor = rows[0] if rows else (0, 0, 0)
    available_minor = posted_minor - pending_minor + limit_minor
    return Balance(posted_minor, pending_minor, available_minor, ledger_version or "")


async def merchant_balances(merchant_id: uuid.UUID) -> list[MerchantBalance]:
    """The buckets of a merchant, one row for each currency in which it has any account."""
    rows = await statement("SELECT * FROM merchant_balance($1)", merchant_id, writes=False)
    return [MerchantBalance(*row) for row in rows]


def _downwards(rows: Sequence[Any], balance_minor: int) -> list[Line]:
    """Rows newest first, the first of which left `balance_minor`."""
    lines = []
    for row in rows:
        lines.append(_line(row, balance_minor))
        balance_minor -= row["amount_minor"]
    return lines


def _upwards(rows: Sequence[Any], balance_minor: int) -> list[Line]:
    """Rows oldest first, before which the balance was `balance_minor`; lines newest first."""
    lines = []
    for row in rows:
        balance_minor += row["amount_minor"]
        lines.append(_line(row, balance_minor))
    return lines[::-1]


def _line(row: Any, balance_after_minor: int) -> Line:
    return Line(
        row["sequence"],
        row["amount_minor"],
        balance_after_minor,
        row["entry_id"],
        row["kind"],
        row["order_id"],
        row["operation_id"],
        row["description"],
        row["facts"],
        row["recorded_at"],
        row["effective_at"],
    )
