"""Live hints between processes over Valkey: a woken dispatcher, a subscription that looks again.

A hint may be lost or come twice; whoever gets one reads the truth from PostgreSQL. Announcing never
raises and never waits long, so that no payment depends on Valkey.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core import clock

log = logging.getLogger(__name__)
ANNOUNCE_TIMEOUT_SECONDS = 0.5
LISTEN_POLL_SECONDS = 1.0
RECONNECT_SECONDS = 0.5

WAKE_DISPATCH = "wake:dispatch"

SILENCE_MS = 1_000.0

_redis: Redis | None = None
_silent_until_ms = 0.0


def connect(redis_url: str) -> None:
    """Prepare the client of this process; connections are made when they are needed."""
    global _redis, _silent_until_ms
    _silent_until_ms = 0.0
    _redis = Redis.from_url(redis_url, socket_connect_timeout=ANNOUNCE_TIMEOUT_SECONDS)


async def close() -> None:
    """Close the client of this process."""
    global _redis
    if _redis is not None:
        await _redis.aclose()
        _redis = None


async def announce(channel: str, payload: dict[str, Any] | None = None) -> None:
    """Publish one hint; one that cannot be sent is dropped with a line in the log."""
    await announce_all({channel: payload or {}})


async def announce_all(hints: Mapping[str, dict[str, Any]]) -> None:
    """Publish a hint on each channel, in one round trip. After a failure nothing is tried for a
    second, so that a Valkey that hangs costs a payment next to nothing.
    """
    global _silent_until_ms
    if _redis is None or clock.monotonic_ms() < _silent_until_ms:
        return
    try:
        async with asyncio.timeout(ANNOUNCE_TIMEOUT_SECONDS), _redis.pipeline(False) as pipeline:
            for channel, payload in hints.items():
                pipeline.publish(channel, orjson.dumps(payload))
            await pipeline.execute()
    except (RedisError, OSError, TimeoutError) as error:
        _silent_until_ms = clock.monotonic_ms() + SILENCE_MS
        log.warning("hints dropped: %s", type(error).__name__)


@asynccontextmanager
async def listen(*channels: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Hints on these channels. After a lost connection an empty one says: look again."""
    if _redis is None:
        raise RuntimeError("this process has not connected to Valkey")
    pubsub = _redis.pubsub(ignore_subscribe_messages=True)
    try:
        with suppress(RedisError, OSError):
            await pubsub.subscribe(*channels)
        yield _messages(pubsub, channels)
    finally:
        with suppress(RedisError, OSError):
            await pubsub.aclose()  # type: ignore[no-untyped-call]


async def _messages(pubsub: Any, channels: tuple[str, ...]) -> AsyncIterator[dict[str, Any]]:
    while True:
        try:
            if not pubsub.subscribed:
                await pubsub.subscribe(*channels)
                yield {}
            message = await pubsub.get_message(timeout=LISTEN_POLL_SECONDS)
        except (RedisError, OSError):
            await asyncio.sleep(RECONNECT_SECONDS)
            await pubsub.aclose()
            continue
        if message is not None and message["type"] == "message":
            yield orjson.loads(message["data"])
