"""Root fields of Mutation about webhooks: a merchant's endpoint, its secret, events again."""

from __future__ import annotations

from core.errors import NotFound
from identity.permissions import Permission
from payments import webhooks
from resolvers import views
from resolvers.context import Info
from resolvers.given import text
from resolvers.guard import mutation
from schema import inputs, payloads
from schema.node import key_of

URL_LENGTH_MAX = 2_048


@mutation(
    Permission.WEBHOOK_MANAGE,
    payloads.WebhookEndpointSetPayload,
    "Say where the calling merchant wants its events, or that it wants none.",
)
async def webhook_endpoint_set(
    info: Info, input: inputs.WebhookEndpointSetInput
) -> payloads.WebhookEndpointSetPayload:
    found = await webhooks.set_endpoint(
        info.context.principal, text(input.url, "url", URL_LENGTH_MAX), enabled=input.enabled
    )
    return payloads.WebhookEndpointSetPayload(
        webhook_endpoint=views.webhook_endpoint(found.endpoint), secret=found.secret
    )


@mutation(
    Permission.WEBHOOK_MANAGE,
    payloads.WebhookSecretRotatePayload,
    "A new secret for webhooks. For 24 hours each event is signed with the old one too.",
)
async def webhook_secret_rotate(
    info: Info, input: inputs.WebhookSecretRotateInput
) -> payloads.WebhookSecretRotatePayload:
    principal = info.context.principal
    endpoint_id = key_of("WebhookEndpoint", input.endpoint_id, "endpointId")
    present = await webhooks.endpoint_of(principal)
    if present is None or present.endpoint_id != endpoint_id:
        raise NotFound(field=("endpointId",))
    found = await webhooks.rotate_secret(principal)
    return payloads.WebhookSecretRotatePayload(
        webhook_endpoint=views.webhook_endpoint(found.endpoint), secret=found.secret
    )


@mutation(
    Permission.WEBHOOK_REPLAY,
    payloads.WebhookEventReplayPayload,
    "Send events again, with their old ids; those that were skipped too.",
)
async def webhook_event_replay(
    info: Info, input: inputs.WebhookEventReplayInput
) -> payloads.WebhookEventReplayPayload:
    principal = info.context.principal
    if input.event_id:
        event_id = key_of("WebhookEvent", input.event_id.value, "eventId")
        count = await webhooks.replay_event(principal, event_id)
    else:
        assert input.range
        span = input.range.value
        count = await webhooks.replay_between(principal, span.begins_at, span.ends_at)
    return payloads.WebhookEventReplayPayload(events_count=count)
