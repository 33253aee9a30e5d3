"""Delivering one event to one merchant, in the form of Standard Webhooks.

At least once: a receiver drops doubles by the event's id. Per resource in order of its version: an
event waits while an earlier one of the same resource is not delivered. No transaction is open while
the merchant's server is called; what it answered and what becomes of the event commit together.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from standardwebhooks.webhooks import Webhook

from core import audit, clock, egress, hub, ids, outbox
from core.crash import crash_point
from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from core.secretbox import open_sealed
from payments.webhooks import DELIVER_JOB, SECRET_PURPOSE, EndpointState

log = logging.getLogger(__name__)

API_VERSION = "1"
FAILURES_MAX = 10
"""Events in a row whose whole schedule was tried in vain. Single tries do not count: a short outage
of the receiver fails many at once."""
LEASE_SECONDS = 30.0
"""Longer than a delivery may last (15 s)."""
REPLY_KEPT_BYTES = 2_048
HTTP_GONE = 410

RETRY_SECONDS = (
    *(15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600),
    *(10_800, 10_800, 10_800, 21_600, 21_600),
)
"""24 hours and 4 minutes in all."""
JITTER = 0.2
"""A pause is up to a fifth longer, so that what failed together does not come back together."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try, decided and signed: everything that the call needs."""

    event_id: UUID
    resource_id: UUID
    resource_version: int
    endpoint_id: UUID
    merchant_id: UUID
    url: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    tries_count: int
    claims_count: int


async def deliver(event_id: UUID, merchant_id: UUID, claims_count: int) -> None:
    """One try to deliver an event that the caller has claimed, and what follows from it.

    Writes the outbox row itself: done, due again by the schedule, or waiting for an earlier event.
    An event whose endpoint is gone or disabled is done without a try and stays replayable; one
    that has been claimed again (its `claims_count` moved on) is left to its new holder.
    """
    principal = Principal("merchant", merchant_id)
    delivery = await _prepare(principal, event_id, claims_count)
    if delivery is None:
        return
    reply = await egress.post(delivery.url, delivery.headers, delivery.body)
    crash_point("webhook_sent")
    await _record(principal, delivery, reply)
    if reply.succeeded:
        await hub.announce(hub.WAKE_DISPATCH)


async def _prepare(principal: Principal, event_id: UUID, claims_count: int) -> Delivery | None:
    """The try to make now; None when there is none to make, which is then written already."""
    async with phase(principal):
        rows = await statement(
            """SELECT o.*, w.endpoint_id, w.url, w.state, w.secret_sealed,
                CASE WHEN w.previous_secret_until > purser_now()
                     THEN w.previous_secret_sealed END AS previous_secret_sealed
            FROM outbox o LEFT JOIN webhook_endpoint w ON w.merchant_id = o.merchant_id
            WHERE o.event_id = $1 AND o.job = $2 AND o.claims_count = $3 AND o.done_at IS NULL""",
            event_id,
            DELIVER_JOB,
            claims_count,
        )
        if not rows:
            return None
        row = rows[0]
        if row["state"] != EndpointState.ENABLED:
            await statement(
                "UPDATE outbox SET done_at = purser_now() WHERE event_id = $1", event_id
            )
            return None
        if await _waits(row) or not await _held(event_id, claims_count):
            return None
    return _signed(row)


async def _held(event_id: UUID, claims_count: int) -> bool:
    """Renew the lease. The event before this one, when it ends, makes this one due at once, and may
    do so after the claim and before the look for earlier ones: a second worker would be sent too.
    """
    rows = await statement(
        """UPDATE outbox SET due_at = greatest(due_at, purser_now() + $3 * interval '1 second')
        WHERE event_id = $1 AND claims_count = $2 AND done_at IS NULL RETURNING event_id""",
        event_id,
        claims_count,
        LEASE_SECONDS,
    )
    return bool(rows)


async def _waits(row: Any) -> bool:
    """Put the event behind the earliest undelivered one of its resource, if there is one."""
    waiting = await statement(
        """UPDATE outbox o SET due_at = greatest(earlier.due_at, purser_now())
                + interval '100 milliseconds'
        FROM (SELECT due_at FROM outbox
              WHERE job = $1 AND done_at IS NULL AND resource_id = $2 AND resource_version < $3
              ORDER BY resource_version LIMIT 1) AS earlier
        WHERE o.event_id = $4 RETURNING o.event_id""",
        DELIVER_JOB,
        row["resource_id"],
        row["resource_version"],
        row["event_id"],
    )
    return bool(waiting)


def _signed(row: Any) -> Delivery:
    """The same body at every try, a fresh timestamp, and a signature for each live secret."""
    body = orjson.dumps(envelope(row))
    now = clock.now()
    sealed = [each for each in (row["secret_sealed"], row["previous_secret_sealed"]) if each]
    signatures = [
        Webhook(open_sealed(bytes(secret), SECRET_PURPOSE)).sign(
            str(row["event_id"]), now, body.decode()
        )
        for secret in sealed
    ]
    headers = {
        "content-type": "application/json",
        "user-agent": "Purser-Webhooks/1",
        "webhook-id": str(row["event_id"]),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
    names = (
        *("event_id", "resource_id", "resource_version", "endpoint_id", "merchant_id", "url"),
        *("tries_count", "claims_count"),
    )
    return Delivery(body=body, headers=headers, **{name: row[name] for name in names})


def _type_name(resource_kind: str) -> str:
    """`webhook_endpoint` → `WebhookEndpoint`, as the API names its types."""
    return "".join(word.title() for word in resource_kind.split("_"))


def envelope(row: Any) -> dict[str, Any]:
    """A public event as the outside sees it, made of an outbox row: webhooks and subscriptions."""
    return {
        "id": str(row["event_id"]),
        "type": row["topic"],
        "created": _instant(row["created_at"]),
        "resource": {
            "kind": row["resource_kind"],
            "id": ids.node_id(_type_name(row["resource_kind"]), row["resource_id"]),
        },
        "resource_version": row["resource_version"],
        "data": row["payload"],
        "api_version": API_VERSION,
    }


async def _record(principal: Principal, delivery: Delivery, reply: egress.Reply) -> None:
    """Write the try and what becomes of event and endpoint, in one commit."""
    disabled: EndpointState | None = None
    async with phase(principal):
        # One row lock for all endings of this endpoint: failures are counted one after another.
        endpoint = await statement(
            "SELECT state, failures_count FROM webhook_endpoint WHERE endpoint_id = $1 FOR UPDATE",
            delivery.endpoint_id,
        )
        await _add_delivery(delivery, reply)
        if reply.succeeded:
            await _finish_event(delivery)
            await _count_failures(delivery, 0)
        elif reply.status == HTTP_GONE:
            await _finish_event(delivery)
            disabled = EndpointState.GONE
        elif delivery.tries_count < len(RETRY_SECONDS):
            await _try_again(delivery)
        else:
            await _finish_event(delivery)
            failures_count = endpoint[0]["failures_count"] + 1
            await _count_failures(delivery, failures_count)
            disabled = EndpointState.FAILED if failures_count >= FAILURES_MAX else None
        if disabled and endpoint[0]["state"] == EndpointState.ENABLED:
            await _disable(delivery, disabled)


async def _add_delivery(delivery: Delivery, reply: egress.Reply) -> None:
    text = reply.body[:REPLY_KEPT_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd")
    await statement(
        """INSERT INTO webhook_delivery (delivery_id, event_id, endpoint_id, merchant_id,
            try_number, outcome, status_code, reply, duration_ms)
        SELECT $1, $2, $3, $4, count(*) + 1, $5, $6, $7, $8
        FROM webhook_delivery WHERE event_id = $2""",
        ids.new_id(),
        delivery.event_id,
        delivery.endpoint_id,
        delivery.merchant_id,
        "DELIVERED" if reply.succeeded else "FAILED",
        reply.status,
        reply.failure or text,
        reply.duration_ms,
    )


async def _finish_event(delivery: Delivery) -> None:
    """This event is over, unless it was claimed or replayed meanwhile; the next one may go now."""
    await statement(
        """UPDATE outbox SET done_at = purser_now(), tries_count = tries_count + 1
        WHERE event_id = $1 AND claims_count = $2""",
        delivery.event_id,
        delivery.claims_count,
    )
    await statement(
        """UPDATE outbox SET due_at = purser_now() WHERE event_id = (
            SELECT event_id FROM outbox
            WHERE job = $1 AND done_at IS NULL AND resource_id = $2 AND resource_version > $3
            ORDER BY resource_version LIMIT 1)""",
        DELIVER_JOB,
        delivery.resource_id,
        delivery.resource_version,
    )


async def _try_again(delivery: Delivery) -> None:
    pause_seconds = RETRY_SECONDS[delivery.tries_count] * (1 + JITTER * ids.random_fraction())
    await statement(
        """UPDATE outbox SET tries_count = tries_count + 1,
            due_at = purser_now() + $3 * interval '1 second'
        WHERE event_id = $1 AND claims_count = $2""",
        delivery.event_id,
        delivery.claims_count,
        pause_seconds,
    )


async def _count_failures(delivery: Delivery, failures_count: int) -> None:
    await statement(
        """UPDATE webhook_endpoint SET failures_count = $2, updated_at = purser_now()
        WHERE endpoint_id = $1 AND failures_count <> $2""",
        delivery.endpoint_id,
        failures_count,
    )


async def _disable(delivery: Delivery, state: EndpointState) -> None:
    """Stop sending, and say so once: in the log, in the audit log and as an event for replay."""
    await statement(
        "UPDATE webhook_endpoint SET state = $2, updated_at = purser_now() WHERE endpoint_id = $1",
        delivery.endpoint_id,
        state.value,
    )
    await outbox.add(
        outbox.Event(
            topic="webhook.disabled",
            resource_kind="webhook_endpoint",
            resource_id=delivery.endpoint_id,
            merchant_id=delivery.merchant_id,
            payload={"endpoint_id": str(delivery.endpoint_id), "reason": state.value},
        )
    )
    await audit.record(
        SYSTEM, "WEBHOOK_ENDPOINT_DISABLED", str(delivery.endpoint_id), reason=state.value
    )
    log.warning("webhook endpoint %s disabled: %s", delivery.endpoint_id, state.value)


def _instant(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
