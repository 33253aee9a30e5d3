"""The queues in Valkey, through arq: an alarm clock that may forget everything.

A queued job is the name of a job, an event's id and the number of its claim, as JSON: whoever can
write to Valkey can wake work that is due, and nothing else.
"""

from __future__ import annotations

import orjson
from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool, Redis

SHORT_QUEUE = "purser:short"
WEBHOOK_QUEUE = "purser:webhooks"
LONG_QUEUE = "purser:long"

CONNECT_SECONDS = 1.0
CONNECTIONS_MAX = 20


def serialize(document: dict[str, object]) -> bytes:
    """A job as JSON; an exception inside a result becomes its name."""
    return orjson.dumps(document, default=lambda value: type(value).__name__)


def open_queue(redis_url: str, queue_name: str) -> ArqRedis:
    """A client for one queue; connections are made when they are needed and again after a loss."""
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=CONNECTIONS_MAX,
        socket_connect_timeout=CONNECT_SECONDS,
        timeout=CONNECT_SECONDS,
    )
    return ArqRedis(
        pool_or_conn=pool,
        job_serializer=serialize,
        job_deserializer=orjson.loads,
        default_queue_name=queue_name,
    )


async def close_queue(queue: Redis) -> None:
    """Close the client and its connections."""
    await queue.aclose(close_connection_pool=True)
