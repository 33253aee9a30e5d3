"""Nothing in the outbox is lost, whatever Valkey or a worker does; nothing runs twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from core import configuration as installed
from core import hub
from tests.workers.conftest import (
    Counter,
    OwnValkey,
    Process,
    Receiver,
    add_event,
    dispatching,
    end_leases,
    undone,
    until,
    working,
)
from workers import claims, dispatch
from workers.claims import claim_due, claim_run
from workers.jobs import run_queued
from workers.queue import SHORT_QUEUE, close_queue, open_queue


async def test_an_event_with_a_job_is_run_and_one_without_is_left_alone(
    database: Any, valkey: str
) -> None:
    counter = Counter()
    wanted = await add_event("count")
    await add_event(None)
    async with dispatching(), working(valkey, counter.jobs):
        await until(lambda: counter.runs)
        await asyncio.sleep(0.2)
    assert counter.runs == {wanted: 1}
    rows = await database.fetch("SELECT job, done_at FROM outbox ORDER BY sequence")
    assert rows[0]["done_at"] is not None
    assert (rows[1]["job"], rows[1]["done_at"]) == (None, None)


async def test_a_hint_wakes_the_dispatcher_at_once(
    database: Any, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.install(replace(installed.current(), dispatch_interval_seconds=30.0))
    monkeypatch.setattr(dispatch, "IDLE_SECONDS_MAX", 30.0)
    counter = Counter()
    async with dispatching(), working(valkey, counter.jobs):
        await asyncio.sleep(0.5)
        await add_event("count")
        await hub.announce(hub.WAKE_DISPATCH)
        await until(lambda: counter.runs, seconds=5)


async def test_a_delayed_event_waits_for_its_time(database: Any, valkey: str) -> None:
    counter = Counter()
    await add_event("count", delay_seconds=1.0)
    async with dispatching(), working(valkey, counter.jobs):
        await asyncio.sleep(0.5)
        assert not counter.runs
        await until(lambda: counter.runs, seconds=5)


async def test_flushing_valkey_between_queueing_and_running_loses_nothing(
    database: Any, valkey: str
) -> None:
    counter = Counter()
    events = [await add_event("count") for _ in range(30)]
    queue = open_queue(valkey, SHORT_QUEUE)
    await dispatch.dispatch_once(queue)
    assert await queue.zcard(SHORT_QUEUE) == 30
    await queue.flushdb()
    await close_queue(queue)
    async with dispatching(), working(valkey, counter.jobs):
        await asyncio.sleep(0.3)
        assert not counter.runs, "the leases still last"
        await end_leases(database)
        await until(lambda: len(counter.runs) == 30)
    assert counter.runs == dict.fromkeys(events, 1)


async def test_flushing_valkey_again_and_again_loses_nothing(database: Any, valkey: str) -> None:
    counter = Counter()
    async with dispatching(), working(valkey, counter.jobs), Redis.from_url(valkey) as redis:
        for _ in range(5):
            for _ in range(30):
                await add_event("count")
            await redis.flushdb()
        for _ in range(20):
            if not await undone(database):
                break
            await asyncio.sleep(0.3)
            await end_leases(database)
        assert await undone(database) == 0
    assert len(counter.runs) == 150


async def test_a_dead_valkey_is_waited_out(
    database: Any, own_valkey: OwnValkey, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter()
    async with dispatching() as dispatcher:
        own_valkey.kill()
        await asyncio.sleep(0.3)
        for _ in range(10):
            await add_event("count")
        await asyncio.sleep(1.0)
        rows = await database.fetch("SELECT max(claims_count) FROM outbox")
        assert rows[0][0] == 0, "no lease is spent on a Valkey that is away"
        assert not dispatcher.done()
        await own_valkey.start()
        async with working(own_valkey.url, counter.jobs):
            await until(lambda: len(counter.runs) == 10)
    assert set(counter.runs.values()) == {1}
    warnings = [each for each in caplog.records if each.name == "workers.dispatch"]
    assert len(warnings) <= 4, "alarms come with a change, not with each failure"


async def test_a_job_that_is_queued_twice_runs_once(database: Any, valkey: str) -> None:
    counter = Counter()
    event_id = await add_event("count")
    (claim,) = await claim_due(10)
    queue = open_queue(valkey, SHORT_QUEUE)
    for job_id in ("one", "two", None):
        await queue.enqueue_job("count", str(event_id), claim.claims_count, _job_id=job_id)
    async with working(valkey, counter.jobs):
        await until(lambda: not_queued(valkey))
    await close_queue(queue)
    assert counter.runs == {event_id: 1}


async def not_queued(valkey: str) -> bool:
    async with Redis.from_url(valkey) as redis:
        return not await redis.zcard(SHORT_QUEUE)


async def test_of_many_who_hold_one_claim_one_runs_it(database: Any) -> None:
    counter = Counter()
    event_id = await add_event("count")
    (claim,) = await claim_due(10)
    await asyncio.gather(
        *(run_queued(event_id, claim.claims_count, counter.jobs) for _ in range(20))
    )
    assert counter.runs == {event_id: 1}


async def test_without_the_claims_number_it_would_run_many_times(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control run: the guard taken out, the same race runs the job again and again."""
    counter = Counter()
    event_id = await add_event("count")
    (claim,) = await claim_due(10)

    async def unguarded(_event_id: Any, _claims_count: int) -> claims.Claim:
        return claim

    monkeypatch.setattr("workers.jobs.claim_run", unguarded)
    await asyncio.gather(
        *(run_queued(event_id, claim.claims_count, counter.jobs) for _ in range(20))
    )
    assert counter.runs[event_id] == 20


async def test_two_dispatchers_never_claim_one_row_at_once(database: Any) -> None:
    for _ in range(40):
        await add_event("count")
    taken = await asyncio.gather(*(claim_due(10) for _ in range(8)))
    events = [claim.event_id for each in taken for claim in each]
    assert len(events) == len(set(events)) == 40


async def test_each_lease_is_longer_than_the_last(database: Any) -> None:
    event_id = await add_event("count")
    leases: list[float] = []
    for _ in range(3):
        (claim,) = await claim_due(1)
        await claim_run(event_id, claim.claims_count)
        rows = await database.fetch("SELECT extract(epoch FROM due_at - now())::float FROM outbox")
        leases.append(rows[0][0])
        await end_leases(database)
    assert leases == pytest.approx([30, 60, 120], abs=2)


async def test_a_full_queue_takes_no_more(
    database: Any, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUEUED_MAX", 5)
    for _ in range(12):
        await add_event("count")
    queue = open_queue(valkey, SHORT_QUEUE)
    assert await dispatch.dispatch_once(queue)
    assert await dispatch.dispatch_once(queue)
    assert await queue.zcard(SHORT_QUEUE) == 5
    await close_queue(queue)
    counter = Counter()
    async with dispatching(), working(valkey, counter.jobs):
        await until(lambda: len(counter.runs) == 12)


async def test_a_job_that_breaks_is_tried_again_when_its_lease_ends(
    database: Any, valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs = 0

    async def breaks_once(_claim: claims.Claim) -> Any:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("broken")
        from workers.jobs import Ending

        return Ending.DONE

    await add_event("breaks")
    async with dispatching(), working(valkey, {"breaks": breaks_once}):
        await until(lambda: runs == 1)
        await asyncio.sleep(0.2)
        assert await undone(database) == 1
        await end_leases(database)
        await until(lambda: runs == 2)
    assert await undone(database) == 0
    assert "broke" in caplog.text


@pytest.mark.parametrize(
    ("kind", "crash_point", "sent_before"),
    [
        ("dispatch", "outbox_leased", 0),
        ("dispatch", "outbox_queued", 0),
        ("short", "job_claimed", 0),
        ("short", "webhook_sent", 1),
        ("short", "job_run", 1),
    ],
)
async def test_a_process_killed_anywhere_leaves_work_that_is_done_when_the_lease_ends(
    database: Any,
    valkey: str,
    shop: Any,
    receiver: Receiver,
    start: Callable[..., Process],
    kind: str,
    crash_point: str,
    sent_before: int,
) -> None:
    from payments.webhooks import set_endpoint
    from workers.jobs import JOBS

    await set_endpoint(shop, receiver.url)
    event_id = await add_event("deliver_webhook", merchant_id=shop.id)
    victim = start(kind, crash_point=crash_point)
    if kind == "short":
        queue = open_queue(valkey, SHORT_QUEUE)
        await dispatch.dispatch_once(queue)
        await close_queue(queue)
    assert await victim.ended() == -9
    assert len(receiver.received) == sent_before
    await end_leases(database)
    async with dispatching(), working(valkey, JOBS):
        await until(lambda: done(database))
    again = 0 if crash_point == "job_run" else 1
    assert receiver.event_ids == [str(event_id)] * (sent_before + again)
    rows = await database.fetch("SELECT outcome FROM webhook_delivery")
    assert [row["outcome"] for row in rows] == ["DELIVERED"]


async def done(database: Any) -> bool:
    return await undone(database) == 0
