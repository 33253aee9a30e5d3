"""Webhooks as a merchant sees them: one endpoint, its secrets, and asking for events again.

A secret is shown once and stored sealed. While it is being replaced two are live, so that a
receiver can change over without losing an event. Delivery itself is in
`payments/webhook_delivery.py`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from core import audit, egress, hub, ids
from core.errors import Forbidden, InvalidArgument, NotFound
from core.phase import phase, statement
from core.principal import Principal
from core.secretbox import seal

SECRET_BYTES = 32
SECRET_PURPOSE = "webhook secret"
ROTATION_SECONDS = 24 * 3_600
REPLAY_EVENTS_MAX = 10_000
DELIVER_JOB = "deliver_webhook"

PUBLIC_TOPICS = ("order.", "refund.", "payout.", "settlement.", "webhook.")
"""What topics a merchant's event may have; everything else in the outbox is ours alone."""


class EndpointState(StrEnum):
    """FAILED was disabled after failures, GONE by the receiver's own 410; both need a new start."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    FAILED = "FAILED"
    GONE = "GONE"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a merchant's events go. `failures_count` events in a row found no way there."""

    endpoint_id: UUID
    merchant_id: UUID
    url: str
    state: EndpointState
    failures_count: int
    previous_secret_until: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EndpointWithSecret:
    """An endpoint, and its secret in the one answer that may show it."""

    endpoint: Endpoint
    secret: str | None = field(default=None, repr=False)


_COLUMNS = "endpoint_id, merchant_id, url, state, failures_count, previous_secret_until, updated_at"


async def set_endpoint(
    caller: Principal, unchecked_url: str, *, enabled: bool = True
) -> EndpointWithSecret:
    """Send the merchant's events to this URL from now on, also after they had been disabled.

    With `enabled=False` the URL is only kept, and what happens meanwhile can be replayed.
    The secret comes with the first call alone; another URL keeps it. Raises `InvalidArgument` for a
    URL that could never be called.
    """
    merchant_id = _merchant_id(caller)
    egress.check_url(unchecked_url)
    state = EndpointState.ENABLED if enabled else EndpointState.DISABLED
    secret = ids.random_bytes(SECRET_BYTES)
    async with phase(caller):
        rows = await statement(
            f"""INSERT INTO webhook_endpoint (endpoint_id, merchant_id, url, state, secret_sealed)
            VALUES ($1, $2, $3, $5, $4)
            ON CONFLICT (merchant_id) DO UPDATE SET
                url = excluded.url, state = excluded.state, failures_count = 0,
                updated_at = purser_now()
            RETURNING {_COLUMNS}, secret_sealed = $4 AS is_new""",  # noqa: S608
            ids.new_id(),
            merchant_id,
            unchecked_url,
            seal(secret, SECRET_PURPOSE),
            state.value,
        )
        await audit.record(
            caller, "WEBHOOK_ENDPOINT_SET", str(rows[0]["endpoint_id"]), state=state.value
        )
    return EndpointWithSecret(_endpoint(rows[0]), _shown(secret) if rows[0]["is_new"] else None)


async def rotate_secret(caller: Principal) -> EndpointWithSecret:
    """A new secret. For 24 h events carry a signature of each of the two; then the old one ends.

    A second rotation meanwhile ends the oldest at once. Raises `NotFound` without an endpoint.
    """
    secret = ids.random_bytes(SECRET_BYTES)
    async with phase(caller):
        rows = await statement(
            f"""UPDATE webhook_endpoint SET
                previous_secret_sealed = secret_sealed,
                previous_secret_until = purser_now() + $2 * interval '1 second',
                secret_sealed = $3, updated_at = purser_now()
            WHERE merchant_id = $1 RETURNING {_COLUMNS}""",  # noqa: S608
            _merchant_id(caller),
            ROTATION_SECONDS,
            seal(secret, SECRET_PURPOSE),
        )
        endpoint = _only(rows)
        await audit.record(caller, "WEBHOOK_SECRET_ROTATED", str(endpoint.endpoint_id))
    return EndpointWithSecret(endpoint, _shown(secret))


async def disable_endpoint(caller: Principal) -> Endpoint:
    """Send no more events. What happens meanwhile can be replayed. Raises `NotFound`."""
    async with phase(caller):
        rows = await statement(
            f"""UPDATE webhook_endpoint SET state = 'DISABLED', updated_at = purser_now()
            WHERE merchant_id = $1 RETURNING {_COLUMNS}""",  # noqa: S608
            _merchant_id(caller),
        )
        endpoint = _only(rows)
        await audit.record(caller, "WEBHOOK_ENDPOINT_DISABLED", str(endpoint.endpoint_id))
    return endpoint


async def endpoint_of(caller: Principal) -> Endpoint | None:
    """The merchant's endpoint, or None where it never set one."""
    async with phase(caller):
        rows = await statement(
            f"SELECT {_COLUMNS} FROM webhook_endpoint WHERE merchant_id = $1",  # noqa: S608
            _merchant_id(caller),
        )
    return _endpoint(rows[0]) if rows else None


async def replay_event(caller: Principal, event_id: UUID) -> int:
    """Deliver one event again, with its old id and a new schedule. Raises `NotFound`."""
    count = await _rearm(caller, "event_id = $3", event_id)
    if not count:
        raise NotFound("There is no such event.", field=("eventId",))
    return count


async def replay_between(caller: Principal, since: datetime, until: datetime) -> int:
    """Deliver the events of a time range again, those that were skipped too; returns how many.

    `since` belongs to the range, `until` does not. At most 10,000 at a time, the oldest first.
    """
    if since >= until:
        raise InvalidArgument("The range must end after it begins.", field=("until",))
    return await _rearm(caller, "created_at >= $3 AND created_at < $4", since, until)


async def _rearm(caller: Principal, condition: str, *values: object) -> int:
    """Make events due now. One that is just being delivered comes again after that."""
    merchant_id = _merchant_id(caller)
    async with phase(caller):
        rows = await statement(
            "SELECT state FROM webhook_endpoint WHERE merchant_id = $1", merchant_id
        )
        if not rows or rows[0]["state"] != EndpointState.ENABLED:
            raise NotFound("There is no enabled endpoint to deliver to.")
        rearmed = await statement(
            f"""UPDATE outbox SET job = '{DELIVER_JOB}', due_at = purser_now(), done_at = NULL,
                tries_count = 0, claims_count = claims_count + 1
            WHERE event_id IN (
                SELECT event_id FROM outbox
                WHERE merchant_id = $1 AND {condition} AND topic LIKE ANY ($2)
                  AND (job IS NULL OR job = '{DELIVER_JOB}')
                ORDER BY sequence LIMIT {REPLAY_EVENTS_MAX})
            RETURNING event_id""",  # noqa: S608
            merchant_id,
            [f"{topic}%" for topic in PUBLIC_TOPICS],
            *values,
        )
        await audit.record(caller, "WEBHOOKS_REPLAYED", str(merchant_id), count=len(rearmed))
    await hub.announce(hub.WAKE_DISPATCH)
    return len(rearmed)


def _merchant_id(caller: Principal) -> UUID:
    if caller.kind != "merchant" or caller.id is None:
        raise Forbidden("Only a merchant has a webhook endpoint.")
    return caller.id


def _only(rows: list[object]) -> Endpoint:
    if not rows:
        raise NotFound("There is no endpoint yet.")
    return _endpoint(rows[0])


def _endpoint(row: object) -> Endpoint:
    values = dict(row)  # type: ignore[call-overload]
    values.pop("is_new", None)
    return Endpoint(**{**values, "state": EndpointState(values["state"])})


def _shown(secret: bytes) -> str:
    """The form that Standard Webhooks gives a symmetric secret."""
    return "whsec_" + base64.b64encode(secret).decode()
