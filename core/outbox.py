"""The outbox: an event is a row in the commit that causes it; workers deliver it afterwards.

`job` names the arq function that must run because of the event. A row with neither a job nor a
subscriber stays for replay and costs nothing. What has happened here is never in Valkey alone.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson

from core import ids
from core.phase import statement
from core.records import dumps


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`resource_version` orders the events of one resource; there is no order across resources."""

    topic: str
    resource_kind: str
    resource_id: uuid.UUID
    resource_version: int = 1
    merchant_id: uuid.UUID | None = None
    customer_ids: tuple[uuid.UUID, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict)
    job: str | None = None
    delay_seconds: float = 0.0
    event_id: uuid.UUID = field(default_factory=ids.new_id)


def row_of(event: Event, member: int | None = None, *, public: bool = False) -> tuple[Any, ...]:
    """The event as a row of `outbox_input`; in a group with the place of its member."""
    return (
        member,
        public,
        event.event_id,
        event.topic,
        event.resource_kind,
        event.resource_id,
        event.resource_version,
        event.merchant_id,
        dumps(event.customer_ids),
        orjson.dumps(event.payload),
        event.job,
        event.delay_seconds,
    )


async def add(*events: Event) -> None:
    """Write events in the phase that is open. A second call with the same `event_id` writes
    nothing.
    """
    await statement("SELECT write_outbox($1)", [row_of(event) for event in events])
