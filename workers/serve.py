"""What each worker process does between its start and SIGTERM.

The configuration is installed before. `dispatch` ends only when it is told to. `short` and `long`
are arq's workers and exit with `EXIT_RESTART` when Valkey goes away: their process manager starts
them again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from arq.worker import Worker
from redis.exceptions import RedisError

from channels import outgoing
from core import configuration, hub, phase
from core.errors import ServerBusy
from workers.dispatch import dispatch
from workers.followers import follow
from workers.long import long_worker
from workers.queue import close_queue
from workers.short import short_worker, webhook_worker
from workers.sweep import sweep

log = logging.getLogger(__name__)

Kind = Literal["dispatch", "short", "long"]

EXIT_RESTART = 75
"""`EX_TEMPFAIL`: the process is fine, what it needs was away."""


def serve(kind: Kind) -> int:
    """Run one worker process until SIGTERM or SIGINT; returns its exit code."""
    return asyncio.run(_serve(kind))


async def _serve(kind: Kind) -> int:
    settings = configuration.current()
    try:
        await phase.connect(
            settings.database_url,
            pool_size=settings.pool_size,
            application_name=f"purser-worker-{kind}",
            long_statements=kind == "long",
        )
    except ServerBusy:
        log.warning("the database is away: this worker exits to be started again")
        return EXIT_RESTART
    hub.connect(settings.redis_url)
    try:
        match kind:
            case "dispatch":
                return await _serve_loops()
            case "short":
                return await _serve_arq(short_worker, webhook_worker)
            case "long":
                return await _serve_arq(long_worker)
    finally:
        await outgoing.close()
        await hub.close()
        await phase.close()


async def _serve_loops() -> int:
    """Dispatcher, sweeper and followers side by side. A broken one ends the process, loudly."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        for run in (dispatch, sweep, follow):
            group.create_task(run(stop))
    return 0


async def _serve_arq(*makers: Callable[[str], Worker]) -> int:
    """Arq's workers side by side. When one ends, all do; running jobs first come to their end."""
    workers = [make(configuration.current().redis_url) for make in makers]
    tasks = [asyncio.create_task(worker.async_run()) for worker in workers]

    def stop(number: signal.Signals) -> None:
        for worker in workers:
            worker.handle_sig_wait_for_completion(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    _, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if running:
        stop(signal.SIGTERM)
    endings = await asyncio.gather(*tasks, return_exceptions=True)
    for worker in workers:
        await close_worker(worker)
    return _exit_code(endings)


def _exit_code(endings: Sequence[BaseException | None]) -> int:
    """0 after a signal, `EXIT_RESTART` without Valkey; raises what else ended a worker."""
    for ending in endings:
        if isinstance(ending, (RedisError, OSError)):
            log.warning("Valkey is away (%s): this worker exits to be started again", ending)
            return EXIT_RESTART
        if isinstance(ending, Exception):
            raise ending
    return 0


async def close_worker(worker: Worker) -> None:
    """Wait for jobs that are being cancelled, then close the worker's connections."""
    await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
    with suppress(RedisError, OSError):
        await close_queue(worker.pool)
