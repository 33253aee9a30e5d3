"""Claiming what the outbox holds: a claim is a lease, committed before anything is called.

`claims_count` is the token of a claim. Whoever claims a row raises it, so a job that was queued or
started under an older number finds its claim gone and leaves the row alone. A lease that ends,
because its holder died or Valkey forgot the job, makes the row due again; each one is longer than
the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.phase import phase, statement
from core.principal import SYSTEM
from payments.webhooks import DELIVER_JOB

LEASE_SECONDS = 30
"""Longer than a job may run (15 s) and than it may wait in the short queue that is kept."""
LEASE_DOUBLINGS_MAX = 5

_LEASE = (
    "purser_now() + interval '1 second' * "
    f"({LEASE_SECONDS} * power(2, least(claims_count / 2, {LEASE_DOUBLINGS_MAX})))"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A row of the outbox that is ours until its lease ends, or until somebody claims it again."""

    event_id: UUID
    job: str
    resource_id: UUID
    merchant_id: UUID | None
    payload: dict[str, object]
    claims_count: int


_COLUMNS = "event_id, job, resource_id, merchant_id, payload, claims_count"


async def claim_due(limit: int, *, webhooks: bool | None = None) -> list[Claim]:
    """Claim up to `limit` rows that are due, those that have waited longest first.

    With `webhooks` only deliveries to merchants, or only everything else.
    """
    async with phase(SYSTEM):
        rows = await statement(
            f"""UPDATE outbox SET claims_count = claims_count + 1, due_at = {_LEASE}
            WHERE event_id IN (
                SELECT event_id FROM outbox
                WHERE done_at IS NULL AND due_at <= (SELECT purser_now())
                  AND ($2::boolean IS NULL OR (job = '{DELIVER_JOB}') = $2)
                ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
            RETURNING {_COLUMNS}""",  # noqa: S608
            limit,
            webhooks,
        )
    return [Claim(**dict(row)) for row in rows]


async def claim_run(event_id: UUID, claims_count: int) -> Claim | None:
    """Take over the claim under which a job was queued; None when it is done or claimed again.

    Of two workers that were given the same job, one gets the claim.
    """
    async with phase(SYSTEM):
        rows = await statement(
            f"""UPDATE outbox SET claims_count = claims_count + 1, due_at = {_LEASE}
            WHERE event_id = $1 AND claims_count = $2 AND done_at IS NULL
            RETURNING {_COLUMNS}""",  # noqa: S608
            event_id,
            claims_count,
        )
    return Claim(**dict(rows[0])) if rows else None


async def mark_done(claim: Claim) -> None:
    """The job has had its effect. A second call changes nothing."""
    async with phase(SYSTEM):
        await statement(
            "UPDATE outbox SET done_at = purser_now() WHERE event_id = $1 AND done_at IS NULL",
            claim.event_id,
        )


async def postpone(claim: Claim, delay_seconds: float) -> None:
    """Give the row back, due again in `delay_seconds`, unless somebody else has claimed it."""
    async with phase(SYSTEM):
        await statement(
            """UPDATE outbox SET due_at = purser_now() + $3 * interval '1 second'
            WHERE event_id = $1 AND claims_count = $2 AND done_at IS NULL""",
            claim.event_id,
            claim.claims_count,
            delay_seconds,
        )
