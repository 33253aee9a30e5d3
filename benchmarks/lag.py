"""How far the followers are behind: the age of the oldest commit that one has not followed yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

SAMPLE_SECONDS = 0.25
CAUGHT_UP_SECONDS_MAX = 60.0

UNFOLLOWED = """
SELECT coalesce((
    SELECT extract(epoch FROM clock_timestamp() - e.{at})::float8
    FROM {rows} e, {follower} f
    WHERE f.name = '{name}' AND e.transaction_id >= pg_snapshot_xmin(f.consumed)
      AND NOT pg_visible_in_snapshot(e.transaction_id, f.consumed){only}
    ORDER BY e.transaction_id LIMIT 1), 0)
"""
ROLL_UP = UNFOLLOWED.format(
    at="recorded_at", rows="entry", follower="follower", name="roll_up", only=""
)
SEAL = UNFOLLOWED.format(at="recorded_at", rows="entry", follower="follower", name="seal", only="")
FOLDING = UNFOLLOWED.format(
    at="decided_at",
    rows="decision",
    follower="risk_follower",
    name="fold_shared",
    only=" AND e.source <> 'ANALYST'",
)


@dataclass
class Lag:
    """The largest ages seen, in seconds."""

    roll_up: list[float] = field(default_factory=list)
    seal: list[float] = field(default_factory=list)
    folding: list[float] = field(default_factory=list)


@asynccontextmanager
async def watched(owner_url: str, lag: Lag) -> AsyncIterator[None]:
    """Sample the followers' lag into `lag` while the block runs."""
    task = asyncio.create_task(_watch(owner_url, lag))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def caught_up(owner_url: str) -> float:
    """Wait until every follower has followed everything; how many seconds it took."""
    connection = await asyncpg.connect(owner_url)
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        while loop.time() - began < CAUGHT_UP_SECONDS_MAX:
            ages = [await connection.fetchval(sql) for sql in (ROLL_UP, SEAL, FOLDING)]
            if not any(ages):
                break
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    return loop.time() - began


async def _watch(owner_url: str, lag: Lag) -> None:
    connection = await asyncpg.connect(owner_url)
    try:
        while True:
            lag.roll_up.append(await connection.fetchval(ROLL_UP))
            lag.seal.append(await connection.fetchval(SEAL))
            lag.folding.append(await connection.fetchval(FOLDING))
            await asyncio.sleep(SAMPLE_SECONDS)
    finally:
        connection.terminate()
