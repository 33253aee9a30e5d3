"""Runs what is due here and now, without Valkey: for tests and for the examples in the documents.

It claims and runs by the same code as the worker, so what it does is what a worker would do.
"""

from __future__ import annotations

from collections.abc import Mapping

from workers.claims import claim_due
from workers.jobs import JOBS, Job, run


async def run_due(limit: int = 100, jobs: Mapping[str, Job] = JOBS) -> int:
    """Run due jobs, and those they cause, one after another; returns how many, at most `limit`."""
    count = 0
    while count < limit and (claims := await claim_due(1)):
        await run(claims[0], jobs)
        count += 1
    return count
