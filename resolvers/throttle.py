"""A leaky bucket of cost points for each client, in Valkey, so that all processes share it.

Without Valkey there is no limit for those who proved who they are, and those who did not may only
read: what they could guess at is counted in PostgreSQL anyway.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.errors import ServerBusy, Throttled
from core.grouping import Grouping
from identity.caller import Caller

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.25
PREFIX = "points:"

TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local answers = {}
for place, key in ipairs(KEYS) do
    local maximum, rate = tonumber(ARGV[3 * place - 2]), tonumber(ARGV[3 * place - 1])
    local cost = tonumber(ARGV[3 * place])
    local available, at = maximum, now
    local stored = redis.call('GET', key)
    if stored then
        local first, second = string.match(stored, '^(%S+) (%S+)$')
        available, at = tonumber(first), tonumber(second)
    end
    available = math.min(maximum, available + rate * math.max(0, now - at))
    local taken = cost <= available
    if taken then available = math.min(maximum, available - cost) end
    local text = string.format('%.6f %.6f', available, now)
    redis.call('SET', key, text, 'EX', math.ceil(maximum / rate) + 1)
    answers[2 * place - 1], answers[2 * place] = taken and 1 or 0, math.floor(available)
end
return answers
"""
"""For all that take at the same time. The clock is Valkey's own. A negative cost gives back."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many points fit, and how many come back each second."""

    maximum: int
    restore_rate: int


SIGNED_IN = Bucket(maximum=20_000, restore_rate=1_000)
ANONYMOUS = Bucket(maximum=2_000, restore_rate=100)

_redis: Redis | None = None


def bucket_of(caller: Caller | None) -> Bucket:
    """Who proved who they are may do more."""
    return ANONYMOUS if caller is None else SIGNED_IN


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
        taken, available = await _takers.join((client, bucket, cost))
    except ServerBusy:
        return None
    if not taken:
        if available is not None:
            raise Throttled(cost=cost, available=available)
        return None
    return available


def give_back(client: str, bucket: Bucket, points: int) -> None:
    """Return points that were taken and not used. Nobody waits for it."""
    if _redis is not None:
        _takers.put((client, bucket, -points))


def settled(
    client: str, bucket: Bucket, requested: int, actual: int, available: int | None
) -> dict[str, Any]:
    """What an operation cost, as its answer tells; what it did not use is given back."""
    if available is None:
        available = bucket.maximum
    elif actual < requested:
        give_back(client, bucket, requested - actual)
        available = min(bucket.maximum, available + requested - actual)
    return {
        "requested": requested,
        "actual": actual,
        "throttle": {
            "maximum": bucket.maximum,
            "available": available,
            "restoreRate": bucket.restore_rate,
        },
    }


async def _take_together(
    takers: list[tuple[str, Bucket, int]],
) -> list[tuple[bool, int | None] | Exception]:
    assert _redis is not None
    arguments = [
        each for _, bucket, cost in takers for each in (bucket.maximum, bucket.restore_rate, cost)
    ]
    keys = [PREFIX + client for client, _, _ in takers]
    try:
        found = await _redis.eval(TAKE, len(keys), *keys, *arguments)  # type: ignore[misc]
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("the cost of %d not counted: %s", len(takers), type(error).__name__)
        return [(False, None)] * len(takers)
    return [(bool(taken), int(left)) for taken, left in zip(found[::2], found[1::2], strict=True)]


_takers: Grouping[tuple[str, Bucket, int], tuple[bool, int | None]] = Grouping(_take_together)
