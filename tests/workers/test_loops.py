"""Loops outlive what they run, and sweeps neither repeat themselves nor wait for each other."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.errors import ServerBusy
from tests.workers.conftest import until
from workers import loops, sweep
from workers.followers import follow
from workers.loops import Step, repeat
from workers.sweep import Finisher


@asynccontextmanager
async def repeating(step: Step, interval_seconds: float) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(repeat("a test", step, interval_seconds, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


async def test_a_step_that_raises_is_tried_again_ever_more_slowly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[Exception] = [ServerBusy(), ValueError("a bug"), ConnectionResetError()]
    runs: list[float] = []

    async def step() -> None:
        runs.append(asyncio.get_running_loop().time())
        if errors:
            raise errors.pop(0)

    async with repeating(step, 0.05):
        await until(lambda: len(runs) >= 5)
    pauses = [later - earlier for earlier, later in itertools.pairwise(runs)]
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2
    assert pauses[2] >= 0.4
    assert pauses[3] < pauses[2]
    assert "BUSY" in caplog.text
    assert "a bug" in caplog.text


async def test_the_pause_after_failures_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "PAUSE_SECONDS_MAX", 0.02)
    runs = 0

    async def step() -> None:
        nonlocal runs
        runs += 1
        raise ServerBusy()

    async with repeating(step, 0.01):
        await until(lambda: runs > 20, seconds=5)


async def test_a_step_that_says_there_is_more_is_repeated_at_once() -> None:
    runs = 0

    async def step() -> bool:
        nonlocal runs
        runs += 1
        return runs < 100

    async with repeating(step, 60.0):
        await until(lambda: runs == 100, seconds=2)
        await asyncio.sleep(0.1)
    assert runs == 100


async def test_an_operation_is_not_finished_twice_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [uuid.uuid4() for _ in range(3)]
    begun: list[uuid.UUID] = []
    release = asyncio.Event()

    async def finish(operation_id: uuid.UUID) -> None:
        begun.append(operation_id)
        await release.wait()
        if operation_id == found[0]:
            raise ValueError("broken")

    async def find(_limit: int) -> list[uuid.UUID]:
        return found

    monkeypatch.setattr(sweep, "finish_operation", finish)
    finisher = Finisher()
    step = finisher.step(find)
    for _ in range(5):
        await step()
        await asyncio.sleep(0)
    assert begun == found
    release.set()
    await finisher.finished()
    await step()
    await finisher.finished()
    assert begun == [*found, *found[1:]]  # the broken one rests


async def test_a_hanging_channel_takes_a_bounded_number_of_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = 0

    async def finish(_operation_id: uuid.UUID) -> None:
        nonlocal running
        running += 1
        await asyncio.Event().wait()

    async def find(_limit: int) -> list[uuid.UUID]:
        return [uuid.uuid4() for _ in range(100)]

    monkeypatch.setattr(sweep, "finish_operation", finish)
    finisher = Finisher()
    step = finisher.step(find)
    for _ in range(5):
        await step()
        await asyncio.sleep(0)
    assert running == sweep.FINISHING_MAX
    for task in finisher._running.values():
        task.cancel()
    await asyncio.gather(*finisher._running.values(), return_exceptions=True)


async def test_every_sweep_and_follower_runs_on_an_empty_database(
    database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(run(stop)) for run in (sweep.sweep, follow)]
    await asyncio.sleep(1.5)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert [each for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []
