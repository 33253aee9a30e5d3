"""Live hints between processes over Valkey: a woken dispatcher, a subscription that looks again.

A hint may be lost or come twice; whoever gets one reads the truth from PostgreSQL. Announcing never
raises and never waits long, so that no payment depends on Valkey. Hints that are announced together
travel in one message; each process that listens has one connection and sorts them by topic.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core import clock
from core.records import dumps

log = logging.getLogger(__name__)
ANNOUNCE_TIMEOUT_SECONDS = 0.5
LISTEN_POLL_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
SILENCE_MS = 1_000.0
WAITING_MAX = 64
"""Hints that a slow listener may have waiting; it looks again anyway, so the oldest are dropped."""

WAKE_DISPATCH = "wake:dispatch"
_HINTS = "hints"
"""The channel of all topics but those that wake a worker, which have one of their own."""

Hint = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Reader:
    """One channel of Valkey, read for all listeners of this process."""

    queues: dict[str, set[asyncio.Queue[Hint]]] = field(default_factory=dict)
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def tell(self, topic: str, hint: Hint) -> None:
        for queue in self.queues.get(topic, ()):
            _put(queue, hint)

    def tell_all(self) -> None:
        """Whatever was missed: look again."""
        for queue in {each for queues in self.queues.values() for each in queues}:
            _put(queue, {})


@dataclass(slots=True, eq=False)
class _Hub:
    redis: Redis
    silent_until_ms: float = 0.0
    pending: dict[str, Hint] = field(default_factory=dict)
    flushing: asyncio.Task[None] | None = None
    readers: dict[str, _Reader] = field(default_factory=dict)


_hub: _Hub | None = None


def connect(redis_url: str) -> None:
    """Prepare the client of this process; connections are made when they are needed."""
    global _hub
    _hub = _Hub(Redis.from_url(redis_url, socket_connect_timeout=ANNOUNCE_TIMEOUT_SECONDS))


async def close() -> None:
    """Close the client of this process; what is still to be announced goes first."""
    global _hub
    hub, _hub = _hub, None
    if hub is None:
        return
    if hub.flushing is not None:
        await asyncio.wait({hub.flushing})
    for reader in hub.readers.values():
        await _stop(reader)
    await hub.redis.aclose()


def announce_soon(topic: str, hint: Hint) -> None:
    """Publish a hint together with those that come while the last ones are on their way.

    Of several on one topic the newest is sent. Nobody waits for it.
    """
    hub = _hub
    if hub is None or clock.monotonic_ms() < hub.silent_until_ms:
        return
    hub.pending[topic] = hint
    if hub.flushing is None or hub.flushing.done():
        # The caller's context may hold an open phase.
        loop = asyncio.get_running_loop()
        hub.flushing = loop.create_task(_flush(hub), context=contextvars.Context())


async def announce(topic: str, hint: Hint | None = None) -> None:
    """Publish one hint; one that cannot be sent is dropped with a line in the log."""
    await announce_all({topic: hint or {}})


async def announce_all(hints: Mapping[str, Hint]) -> None:
    """Publish hints in one round trip. After a failure nothing is tried for a second, so that a
    Valkey that hangs costs next to nothing.
    """
    if _hub is not None:
        await _send(_hub, hints)


async def _send(hub: _Hub, hints: Mapping[str, Hint]) -> None:
    if clock.monotonic_ms() < hub.silent_until_ms:
        return
    messages: dict[str, list[tuple[str, Hint]]] = {}
    for topic, hint in hints.items():
        messages.setdefault(_channel_of(topic), []).append((topic, hint))
    try:
        async with asyncio.timeout(ANNOUNCE_TIMEOUT_SECONDS):
            for channel, message in messages.items():
                await hub.redis.publish(channel, dumps(message))
    except (RedisError, OSError, TimeoutError) as error:
        hub.silent_until_ms = clock.monotonic_ms() + SILENCE_MS
        log.warning("hints dropped: %s", type(error).__name__)


@asynccontextmanager
async def listen(*topics: str) -> AsyncIterator[AsyncIterator[Hint]]:
    """Hints on these topics. After a lost connection an empty one says: look again."""
    hub = _hub
    if hub is None:
        raise RuntimeError("this process has not connected to Valkey")
    queue: asyncio.Queue[Hint] = asyncio.Queue()
    for topic in topics:
        reader = hub.readers.setdefault(_channel_of(topic), _Reader())
        reader.queues.setdefault(topic, set()).add(queue)
        if reader.task is None:
            loop = asyncio.get_running_loop()
            reader.task = loop.create_task(
                _read(hub, _channel_of(topic), reader), context=contextvars.Context()
            )
        await reader.tried.wait()
    try:
        yield _hints(queue)
    finally:
        for topic in topics:
            await _leave(hub, topic, queue)


async def _hints(queue: asyncio.Queue[Hint]) -> AsyncIterator[Hint]:
    while True:
        yield await queue.get()


async def _leave(hub: _Hub, topic: str, queue: asyncio.Queue[Hint]) -> None:
    channel = _channel_of(topic)
    reader = hub.readers.get(channel)
    if reader is None or topic not in reader.queues:
        return
    reader.queues[topic].discard(queue)
    if not reader.queues[topic]:
        del reader.queues[topic]
    if not reader.queues:
        del hub.readers[channel]
        await _stop(reader)


async def _stop(reader: _Reader) -> None:
    if reader.task is not None:
        reader.task.cancel()
        await asyncio.wait({reader.task})


async def _flush(hub: _Hub) -> None:
    while hub.pending:
        hints, hub.pending = hub.pending, {}
        await _send(hub, hints)


async def _read(hub: _Hub, channel: str, reader: _Reader) -> None:
    """Sort what comes on one channel to its listeners, over as many connections as it takes."""
    pubsub = hub.redis.pubsub(ignore_subscribe_messages=True)
    missed = False
    try:
        while True:
            try:
                if not pubsub.subscribed:
                    await pubsub.subscribe(channel)
                    if missed:
                        reader.tell_all()
                    missed = True
                    reader.tried.set()
                message = await pubsub.get_message(timeout=LISTEN_POLL_SECONDS)
            except (RedisError, OSError):
                missed = True
                reader.tried.set()
                await asyncio.sleep(RECONNECT_SECONDS)
                await pubsub.aclose()  # type: ignore[no-untyped-call]
                continue
            if message is not None and message["type"] == "message":
                for topic, hint in orjson.loads(message["data"]):
                    reader.tell(topic, hint)
    finally:
        reader.tried.set()
        with suppress(RedisError, OSError):
            await pubsub.aclose()  # type: ignore[no-untyped-call]


def _channel_of(topic: str) -> str:
    return topic if topic.startswith("wake:") else _HINTS


def _put(queue: asyncio.Queue[Hint], hint: Hint) -> None:
    if queue.qsize() >= WAITING_MAX:
        queue.get_nowait()
    queue.put_nowait(hint)
