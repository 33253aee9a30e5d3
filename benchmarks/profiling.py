"""Where the time goes: Python by `cProfile`, PostgreSQL by its counters of functions."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

LINES = 35
PROFILE_VARIABLE = "BENCH_PROFILE"
"""Names the file that a profiled process writes when it ends."""
SPANS_VARIABLE = "BENCH_SPANS"
SPANS_PATH = "/bench/spans"

FUNCTIONS = """
SELECT funcname, calls, total_time, self_time FROM pg_stat_user_functions
ORDER BY self_time DESC LIMIT 25
"""


@contextmanager
def profiled(name: str) -> Iterator[None]:
    """Print the functions of this process that took most time of their own inside the block."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        print(f"--- {name}: Python, by own time")
        pstats.Stats(profile).sort_stats("tottime").print_stats(LINES)


async def track_functions(owner_url: str) -> None:
    """Count calls and time of SQL functions, from the next connections on; from zero."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute("ALTER SYSTEM SET track_functions = 'all'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("SELECT pg_stat_reset()")
    finally:
        await connection.close()


async def show_functions(owner_url: str, calls: int) -> None:
    """Print the functions of the database, with microseconds for each of `calls`."""
    connection = await asyncpg.connect(owner_url)
    try:
        rows = await connection.fetch(FUNCTIONS)
    finally:
        await connection.close()
    print(f"--- PostgreSQL, microseconds for each of {calls:,} calls")
    for row in rows:
        own, total = (1_000 * row[name] / max(calls, 1) for name in ("self_time", "total_time"))
        print(f"{row['funcname']:<28} {row['calls']:>9,} times {own:9.1f} own {total:9.1f} in all")
