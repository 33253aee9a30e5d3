"""Where the time goes: Python by `cProfile`, PostgreSQL by its own counters of each statement."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

LINES = 35
STATEMENT_LENGTH = 110
PROFILE_VARIABLE = "BENCH_PROFILE"
"""Names the file that a profiled process writes when it ends."""
SPANS_VARIABLE = "BENCH_SPANS"
SPANS_PATH = "/bench/spans"

COUNTING = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "pg_stat_statements.track_planning": "on",
    "track_functions": "all",
}
"""What the server needs to count; never set where a ratio is measured."""

STATEMENTS = """
SELECT calls, plans, total_plan_time AS planning, total_exec_time AS execution, toplevel,
       regexp_replace(query, '\\s+', ' ', 'g') AS query
FROM pg_stat_statements
ORDER BY total_plan_time + CASE WHEN toplevel THEN 0 ELSE total_exec_time END DESC LIMIT 40
"""
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


async def count_from_here(owner_url: str) -> None:
    """Count functions and statements from zero."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        await connection.execute("SELECT pg_stat_statements_reset(), pg_stat_reset()")
    finally:
        await connection.close()


async def show_counted(owner_url: str, members: int) -> None:
    """Print what was counted, in microseconds for each of `members` entries or payments.

    The execution of a statement inside a function is counted in the function's own too.
    """
    connection = await asyncpg.connect(owner_url)
    try:
        functions = await connection.fetch(FUNCTIONS)
        statements = await connection.fetch(STATEMENTS)
    finally:
        await connection.close()
    print(f"--- PostgreSQL, microseconds for each of {members:,}: functions")
    for row in functions:
        own, total = (1_000 * row[name] / max(members, 1) for name in ("self_time", "total_time"))
        print(f"{row['funcname']:<28} {row['calls']:>9,} times {own:9.1f} own {total:9.1f} in all")
    print("--- PostgreSQL: statements, also those inside functions")
    print(f"{'times':>9} {'planned':>9} {'planning':>9} {'execution':>9}")
    for row in statements:
        planning, execution = (
            1_000 * row[name] / max(members, 1) for name in ("planning", "execution")
        )
        print(
            f"{row['calls']:>9,} {row['plans']:>9,} {planning:>9.1f} {execution:>9.1f}  "
            f"{'' if row['toplevel'] else '  '}{row['query'][:STATEMENT_LENGTH]}"
        )
