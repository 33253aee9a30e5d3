"""What is due and nobody has done: operations past their deadline, orders past their time.

The sweeper asks here and hands each piece to `finish_operation`. Every state that is not final has
a deadline, so no order waits for the restart of the process that began it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.errors import Busy, PurserError
from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from payments.closing import expire
from payments.group import Selector
from payments.rounds import decide_and_commit

log = logging.getLogger(__name__)

KEYS_KEPT_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """Something that should have moved by now, for `purser doctor`."""

    order_id: UUID
    state: str
    reason: str
    since: datetime


async def overdue(limit: int = 100) -> list[UUID]:
    """Operations whose next step is due; the oldest first."""
    async with phase(SYSTEM):
        rows = await statement(
            """SELECT operation_id FROM operation
            WHERE state IN ('CREATED', 'SUBMITTED', 'PENDING', 'UNKNOWN')
              AND next_check_at <= purser_now()
            ORDER BY next_check_at LIMIT $1""",
            limit,
        )
    return [row["operation_id"] for row in rows]


async def late_money(limit: int = 100) -> list[UUID]:
    """Operations whose order holds late money that has not gone where it belongs."""
    async with phase(SYSTEM):
        rows = await statement(
            """SELECT p.operation_id FROM payment_order o
            JOIN operation p ON p.order_id = o.order_id AND p.type = o.type
            WHERE o.state = 'LATE_PAID' AND o.needs_attention IS NULL
              AND o.updated_at < purser_now() - interval '5 seconds'
            LIMIT $1""",
            limit,
        )
    return [row["operation_id"] for row in rows]


async def expire_orders(limit: int = 100) -> int:
    """Close the orders whose time is over; returns how many were dealt with.

    One that breaks is left for the next time and keeps no other waiting.
    """
    async with phase(SYSTEM):
        rows = await statement(
            """SELECT order_id, merchant_id FROM payment_order
            WHERE state IN ('CREATED', 'REQUIRES_ACTION', 'PROCESSING', 'IN_REVIEW')
              AND expires_at <= purser_now()
              AND (payout_progress IS NULL OR state = 'IN_REVIEW')
            ORDER BY expires_at LIMIT $1""",
            limit,
        )
    expired_count = 0
    for row in rows:
        principal = Principal("merchant", row["merchant_id"])
        selector = Selector(principal=principal, order_id=row["order_id"])
        try:
            expired_count += await decide_and_commit(selector, expire) is not None
        except Busy:
            raise
        except PurserError as error:
            log.warning("order %s not closed: %s", row["order_id"], error.code)
        except Exception:
            log.exception("closing order %s broke", row["order_id"])
    return expired_count


async def drop_old_keys(limit: int = 1_000) -> int:
    """Forget idempotency keys after their time; returns how many were dropped."""
    async with phase(SYSTEM):
        rows = await statement(
            """DELETE FROM idempotency WHERE idempotency_id IN (
                SELECT idempotency_id FROM idempotency
                WHERE created_at < (SELECT purser_now()) - $2 * interval '1 day' LIMIT $1)
            RETURNING idempotency_id""",
            limit,
            KEYS_KEPT_DAYS,
        )
    return len(rows)


async def attention(limit: int = 100) -> list[Overdue]:
    """Orders that a person must look at, and operations a minute past their deadline."""
    async with phase(SYSTEM):
        rows = await statement(
            """SELECT order_id, state, needs_attention AS reason, updated_at AS since
            FROM payment_order WHERE needs_attention IS NOT NULL
            UNION ALL
            SELECT o.order_id, o.state, 'OVERDUE_' || p.type, p.next_check_at
            FROM operation p JOIN payment_order o ON o.order_id = p.order_id
            WHERE p.state IN ('CREATED', 'SUBMITTED', 'PENDING', 'UNKNOWN')
              AND p.next_check_at < purser_now() - interval '1 minute'
            ORDER BY since LIMIT $1""",
            limit,
        )
    return [Overdue(**dict(row)) for row in rows]
