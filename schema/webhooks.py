"""Webhooks: where a merchant wants its events, the events, and each try to deliver one."""

from __future__ import annotations

import uuid
from enum import Enum

import strawberry

from schema.context import Info
from schema.node import Node
from schema.scalars import BigInt, DateTime


@strawberry.enum(description="Whether events are sent.")
class WebhookState(Enum):
    ENABLED = strawberry.enum_value("ENABLED", description="Events are sent.")
    DISABLED = strawberry.enum_value(
        "DISABLED", description="Nothing is sent, because the merchant said so."
    )
    FAILED = strawberry.enum_value(
        "FAILED", description="Nothing is sent, because too many events in a row found no way."
    )
    GONE = strawberry.enum_value(
        "GONE", description="Nothing is sent, because the receiver answered 410."
    )


@strawberry.type(description="Where a merchant wants its events.")
class WebhookEndpoint(Node):
    url: str = strawberry.field(description="The address that events are posted to.")
    state: WebhookState = strawberry.field(description="Whether events are sent.")
    failures_count: int = strawberry.field(
        description="How many events in a row found no way there."
    )
    previous_secret_until: DateTime | None = strawberry.field(
        description="Until when the secret before the present one signs too; null if it does not."
    )
    updated_at: DateTime = strawberry.field(description="When it last changed.")


@strawberry.type(description="One try to deliver one event.")
class WebhookDelivery(Node):
    try_number: int = strawberry.field(description="Counts from 1.")
    outcome: str = strawberry.field(description="DELIVERED, or what went wrong.")
    status_code: int | None = strawberry.field(
        description="HTTP status of the reply; null where there was none."
    )
    reply: str = strawberry.field(description="The first 2 KB of the reply.")
    duration_ms: int = strawberry.field(description="How long it took, in milliseconds.")
    delivered_at: DateTime = strawberry.field(description="When it was tried.")


@strawberry.type(description="Something that happened, as merchants are told.")
class WebhookEvent(Node):
    key: strawberry.Private[uuid.UUID]
    event_id: str = strawberry.field(description="What the header `webhook-id` carries.")
    type: str = strawberry.field(description="Such as `order.succeeded`.")
    resource_version: BigInt = strawberry.field(
        description="Version of the resource that this is about."
    )
    created_at: DateTime = strawberry.field(description="When it happened.")

    @strawberry.field(description="The tries to deliver it, oldest first, at most 100.")
    async def deliveries(self, info: Info) -> list[WebhookDelivery]:
        return list(await info.context.load.deliveries(self.key))
