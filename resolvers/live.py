"""Root fields of Subscription: the state as committed, at once and after each change.

A hint only says "look again"; what is sent is always read from PostgreSQL, as the one who asks.
The token is checked again every few seconds, so that a logout, a suspension or its expiry ends the
stream.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

import strawberry

from core import clock, hub
from core.errors import NotFound, Throttled, Unauthenticated
from core.money import exponent
from identity import tokens
from identity.permissions import Permission
from resolvers.context import Info, RequestContext
from resolvers.guard import subscription
from schema.books import WalletUpdate
from schema.node import key_of
from schema.orders import OrderUpdate
from schema.scalars import CurrencyCode

LOOK_AGAIN_SECONDS = 5.0
"""A lost hint is made up for, and the token looked at, at least this often."""

SIGNED_STREAM_MS = 600_000
"""A stream that a signature opened lasts as long as a token would."""

STREAMS_MAX = 40
"""How many streams one client may have open in one process."""

_streams: Counter[str] = Counter()


@subscription(
    Permission.ORDER_READ,
    "An order: first as it stands, then after each change. Changes that come close together may be "
    "told as one.",
)
async def order_updated(
    info: Info,
    order_id: Annotated[strawberry.ID, strawberry.argument(description="The order's id.")],
) -> AsyncGenerator[OrderUpdate, None]:
    key = key_of("Order", order_id, "orderId")
    sent = -1
    async for context in looks(info.context, f"order:{key}"):
        found = await context.load.order(key)
        if found is None:
            raise NotFound(field=("orderId",))
        if int(found.resource_version) > sent:
            sent = int(found.resource_version)
            yield OrderUpdate(resource_version=found.resource_version, order=found)


@subscription(
    Permission.WALLET_READ,
    "The caller's wallet in one currency: first as it stands, then after each change.",
)
async def wallet_updated(
    info: Info,
    currency: Annotated[CurrencyCode, strawberry.argument(description="ISO 4217 code.")],
) -> AsyncGenerator[WalletUpdate, None]:
    exponent(currency)
    customer_id = info.context.customer_id
    sent = None
    async for context in looks(info.context, f"customer:{customer_id}"):
        found = await context.load.wallet(customer_id, currency)
        state = (found.balance, found.held)
        if state != sent:
            sent = state
            yield WalletUpdate(resource_version=found.resource_version, wallet=found)


async def looks(context: RequestContext, channel: str) -> AsyncGenerator[RequestContext, None]:
    """A moment to look: at once, after each hint on `channel`, and every few seconds.

    Listens before the first look, so that no change falls between. Raises `Unauthenticated` once
    the caller's proof no longer holds.
    """
    began_ms = clock.monotonic_ms()
    changed = asyncio.Event()
    async with _counted(context.client), hub.listen(channel) as hints:

        async def watch() -> None:
            async for _ in hints:
                changed.set()

        watcher = asyncio.create_task(watch())
        try:
            while True:
                changed.clear()
                # The nested fields of an event are read through the same operation's loaders.
                context.load.forget()
                yield context
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                        await changed.wait()
                await _check_again(context, began_ms)
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


@asynccontextmanager
async def _counted(client: str) -> AsyncGenerator[None, None]:
    """One of the client's streams: each costs a connection to Valkey, so they have an end."""
    if _streams[client] >= STREAMS_MAX:
        raise Throttled("Too many streams at once.")
    _streams[client] += 1
    try:
        yield
    finally:
        _streams[client] -= 1
        if not _streams[client]:
            del _streams[client]


async def _check_again(context: RequestContext, began_ms: float) -> None:
    if context.token is not None:
        await tokens.verify_access(context.token)
    elif clock.monotonic_ms() - began_ms > SIGNED_STREAM_MS:
        raise Unauthenticated()
