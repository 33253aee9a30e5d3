"""The workers of short jobs: channel calls and codes, and beside them webhooks; each within 15 s.

They are arq's workers. They exit when Valkey goes away, and a process manager starts them again
(see `workers/serve.py`); what they held is due again when the leases end. They never retry by
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from arq.worker import Function, Worker, func

from workers.jobs import JOBS, Job, run_queued
from workers.queue import SHORT_QUEUE, WEBHOOK_QUEUE, open_queue

JOB_SECONDS_MAX = 15
"""A channel call ends after 10 s, so that the job itself can still write that nothing is known."""
JOBS_MAX = 40
POLL_SECONDS = 0.02
WEBHOOK_POLL_SECONDS = 0.05
HEALTH_SECONDS = 10


def short_worker(redis_url: str, jobs: Mapping[str, Job] = JOBS) -> Worker:
    """The worker of everything but webhooks; to be made inside a running event loop."""
    return _worker(redis_url, SHORT_QUEUE, jobs, POLL_SECONDS)


def webhook_worker(redis_url: str, jobs: Mapping[str, Job] = JOBS) -> Worker:
    """The worker of webhooks, with places of its own; to be made inside a running event loop."""
    return _worker(redis_url, WEBHOOK_QUEUE, jobs, WEBHOOK_POLL_SECONDS)


def _worker(
    redis_url: str, queue_name: str, jobs: Mapping[str, Job], poll_seconds: float
) -> Worker:
    pool = open_queue(redis_url, queue_name)
    return Worker(
        functions=[_function(name, jobs) for name in jobs],
        queue_name=queue_name,
        redis_pool=pool,
        job_serializer=pool.job_serializer,
        job_deserializer=pool.job_deserializer,
        job_timeout=JOB_SECONDS_MAX,
        job_completion_wait=JOB_SECONDS_MAX,
        max_tries=1,
        retry_jobs=False,
        keep_result=0,
        allow_abort_jobs=False,
        max_jobs=JOBS_MAX,
        poll_delay=poll_seconds,
        health_check_interval=HEALTH_SECONDS,
        handle_signals=False,
        log_results=False,
    )


def _function(name: str, jobs: Mapping[str, Job]) -> Function:
    async def run_one(_context: dict[str, Any], event_id: str, claims_count: int) -> None:
        await run_queued(UUID(event_id), claims_count, jobs)

    return func(run_one, name=name)
