"""A leaky bucket of cost points for each client, in Valkey, so that all processes share it.

Without Valkey there is no limit for those who proved who they are, and those who did not may only
read: what they could guess at is counted in PostgreSQL anyway.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.errors import Throttled

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.25
PREFIX = "cost:"

TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'available', 'at')
local maximum, rate, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local available = tonumber(bucket[1]) or maximum
available = math.min(maximum, available + rate * math.max(0, now - (tonumber(bucket[2]) or now)))
local taken = cost <= available
if taken then available = math.min(maximum, available - cost) end
redis.call('HSET', KEYS[1], 'available', tostring(available), 'at', tostring(now))
redis.call('EXPIRE', KEYS[1], math.ceil(maximum / rate) + 1)
return {taken and 1 or 0, math.floor(available)}
"""
"""The clock is Valkey's own. A negative cost gives points back."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many points fit, and how many come back each second."""

    maximum: int
    restore_rate: int


SIGNED_IN = Bucket(maximum=20_000, restore_rate=1_000)
ANONYMOUS = Bucket(maximum=2_000, restore_rate=100)

_redis: Redis | None = None


def connect(redis_url: str) -> None:
    """Prepare the client of this process."""
    global _redis
    _redis = Redis.from_url(
        redis_url, socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS
    )


async def close() -> None:
    """Close the client of this process."""
    global _redis
    if _redis is not None:
        await _redis.aclose()
        _redis = None


async def take(client: str, bucket: Bucket, cost: int) -> int | None:
    """Take points; how many are left, or None where Valkey is away. Raises `Throttled`."""
    if _redis is None:
        return None
    try:
        taken, available = await _redis.eval(  # type: ignore[misc]
            TAKE, 1, PREFIX + client, bucket.maximum, bucket.restore_rate, cost
        )
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("cost of %s not counted: %s", client, type(error).__name__)
        return None
    if not taken:
        raise Throttled(cost=cost, available=int(available))
    return int(available)
