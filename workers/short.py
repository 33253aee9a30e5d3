"""The worker of short jobs: channel calls, codes and webhooks, each over within 15 seconds.

It is arq's worker. It exits when Valkey goes away, and its process manager starts it again (see
`workers/serve.py`); what it held is due again when the leases end. It never retries by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from arq.worker import Function, Worker, func

from workers.jobs import JOBS, Job, run_queued
from workers.queue import SHORT_QUEUE, open_queue

JOB_SECONDS_MAX = 15
"""A channel call ends after 10 s, so that the job itself can still write that nothing is known."""
JOBS_MAX = 40
POLL_SECONDS = 0.02
HEALTH_SECONDS = 10


def short_worker(redis_url: str, jobs: Mapping[str, Job] = JOBS, **changes: Any) -> Worker:
    """The worker that runs `jobs`; to be made inside a running event loop."""
    settings: dict[str, Any] = {
        "functions": [_function(name, jobs) for name in jobs],
        "redis_pool": open_queue(redis_url, SHORT_QUEUE),
        "job_timeout": JOB_SECONDS_MAX,
        "max_tries": 1,
        "retry_jobs": False,
        "keep_result": 0,
        "allow_abort_jobs": False,
        "max_jobs": JOBS_MAX,
        "poll_delay": POLL_SECONDS,
        "health_check_interval": HEALTH_SECONDS,
        "job_completion_wait": JOB_SECONDS_MAX,
        "log_results": False,
    }
    pool = settings["redis_pool"]
    return Worker(
        queue_name=SHORT_QUEUE,
        job_serializer=pool.job_serializer,
        job_deserializer=pool.job_deserializer,
        **{**settings, **changes},
    )


def _function(name: str, jobs: Mapping[str, Job]) -> Function:
    async def run_one(_context: dict[str, Any], event_id: str, claims_count: int) -> None:
        await run_queued(UUID(event_id), claims_count, jobs)

    return func(run_one, name=name)
