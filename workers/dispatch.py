"""The dispatcher: it finds what is due in the outbox, claims it and puts it into arq's queue.

PostgreSQL is the memory, Valkey the alarm clock. A claim is committed before its job is queued, so
a row whose job was lost is due again when the lease ends. The queue is kept short, so that leases
do not end while jobs wait in line. Valkey's absence is waited out; this process never exits for it.
"""

from __future__ import annotations

import asyncio
import logging

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from core import configuration, hub
from core.crash import crash_point
from core.errors import PurserError
from workers.claims import LEASE_SECONDS, Claim, claim_due, postpone
from workers.loops import wait
from workers.queue import SHORT_QUEUE, WEBHOOK_QUEUE, close_queue, open_queue

log = logging.getLogger(__name__)

QUEUED_MAX = 80
"""Running and waiting in one queue: twice what a worker runs at once, so the last one begins within
one job's time."""
IDLE_SECONDS_MAX = 1.0
VALKEY_SECONDS_MAX = 2.0


async def dispatch(stop: asyncio.Event) -> None:
    """Dispatch until `stop`: at once when a hint comes, else at a pace that slows when idle."""
    interval_seconds = configuration.current().dispatch_interval_seconds
    queue = open_queue(configuration.current().redis_url, SHORT_QUEUE)
    woken = asyncio.Event()
    listener = asyncio.create_task(_listen(woken))
    pause_seconds = interval_seconds
    busy: bool | None = False
    try:
        while not stop.is_set():
            woken.clear()
            busy = await _round(queue, failing=busy is None)
            pause_seconds = interval_seconds if busy else min(2 * pause_seconds, IDLE_SECONDS_MAX)
            await wait(pause_seconds, stop, *(() if busy is None else (woken,)))
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await close_queue(queue)


async def dispatch_once(queue: ArqRedis) -> bool:
    """Claim and queue what is due; whether there was any work, or no room for more of it.

    Webhooks have a queue of their own: a merchant's slow server delays no payment.
    """
    busy = [await _fill(queue, SHORT_QUEUE), await _fill(queue, WEBHOOK_QUEUE)]
    return any(busy)


async def _round(queue: ArqRedis, *, failing: bool) -> bool | None:
    """`dispatch_once`, or None when what it needs is away. The log tells when that changes."""
    try:
        busy = await dispatch_once(queue)
    except (PurserError, RedisError, OSError, TimeoutError) as error:
        if not failing:
            log.warning("dispatching waits: %s", type(error).__name__)
        return None
    except Exception:
        log.exception("a round of the dispatcher broke")
        return None
    if failing:
        log.warning("dispatching again")
    return busy


async def _fill(queue: ArqRedis, queue_name: str) -> bool:
    """Asks Valkey first: while it is away nothing is claimed and no lease is wasted."""
    async with asyncio.timeout(VALKEY_SECONDS_MAX):
        room = QUEUED_MAX - int(await queue.zcard(queue_name))
    if room <= 0:
        return True
    claims = await claim_due(room, webhooks=queue_name == WEBHOOK_QUEUE)
    if not claims:
        return False
    crash_point("outbox_leased")
    results = await asyncio.gather(
        *(_enqueue(queue, queue_name, claim) for claim in claims), return_exceptions=True
    )
    crash_point("outbox_queued")
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return True


async def _enqueue(queue: ArqRedis, queue_name: str, claim: Claim) -> None:
    """Queue the job of one claim. Its id holds the claim's number: queued twice it runs once."""
    try:
        async with asyncio.timeout(VALKEY_SECONDS_MAX):
            await queue.enqueue_job(
                claim.job,
                str(claim.event_id),
                claim.claims_count,
                _job_id=f"{claim.event_id}:{claim.claims_count}",
                _queue_name=queue_name,
                _expires=10 * LEASE_SECONDS,
            )
    except (RedisError, OSError, TimeoutError):
        await postpone(claim, IDLE_SECONDS_MAX)
        raise


async def _listen(woken: asyncio.Event) -> None:
    """Set `woken` for each hint. Without hints the dispatcher polls, a little later."""
    async with hub.listen(hub.WAKE_DISPATCH) as hints:
        async for _ in hints:
            woken.set()
