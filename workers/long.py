"""The worker of long jobs, apart from the short ones so that these never wait behind them.

What it does is on a timetable (UTC): each night the books are proved, and whatever is wrong is an
alarm in the log and a row of the audit log.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

from arq import cron
from arq.worker import Worker

from core import audit
from core.phase import phase
from core.principal import SYSTEM
from payments.reconcile_books import verify_orders
from wallet.verify import verify
from workers.queue import LONG_QUEUE, open_queue

log = logging.getLogger(__name__)

JOB_SECONDS_MAX = 3_600
STOP_SECONDS = 5
POLL_SECONDS = 0.5
HEALTH_SECONDS = 10


def long_worker(redis_url: str) -> Worker:
    """The worker of the timetable; to be made inside a running event loop."""
    pool = open_queue(redis_url, LONG_QUEUE)
    return Worker(
        cron_jobs=[cron(prove_books, name="prove_books", hour=3, minute=17, max_tries=1)],
        timezone=dt.UTC,
        queue_name=LONG_QUEUE,
        redis_pool=pool,
        job_serializer=pool.job_serializer,
        job_deserializer=pool.job_deserializer,
        job_timeout=JOB_SECONDS_MAX,
        job_completion_wait=STOP_SECONDS,
        max_tries=1,
        retry_jobs=False,
        keep_result=0,
        allow_abort_jobs=False,
        max_jobs=2,
        poll_delay=POLL_SECONDS,
        health_check_interval=HEALTH_SECONDS,
        handle_signals=False,
        log_results=False,
    )


async def prove_books(_context: dict[str, Any] | None = None) -> bool:
    """Verify ledger, chain and orders; whether all is right. Changes nothing but the audit log."""
    report = await verify(SYSTEM)
    findings = [*report.findings, *await verify_orders()]
    for finding in findings:
        log.error("the books are wrong: %s", finding)
    async with phase(SYSTEM):
        await audit.record(
            SYSTEM,
            "BOOKS_PROVED",
            "ledger",
            "WRONG" if findings else "CLEAN",
            entries_count=report.entries_count,
            blocks_count=report.blocks_count,
            findings_count=len(findings),
        )
    return not findings
