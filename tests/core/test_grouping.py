"""Group commit without a database: who runs with whom, when, and what each one is told."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import pytest

from core import grouping
from core.errors import ServerBusy
from core.grouping import Grouping


@dataclass
class Batches:
    """A batch function that tells what it was given, and ends when it is let go.

    An item is a word; those that begin with `bad` get an error of their own.
    """

    held: bool = False
    begun: list[list[str]] = field(default_factory=list)
    running: list[list[str]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def run(self, items: list[str]) -> list[str | Exception]:
        self.begun.append(items)
        self.running.append(items)
        try:
            if self.held:
                gate = self.gates.setdefault(items[0], asyncio.Event())
                await gate.wait()
            else:
                await asyncio.sleep(0)
        finally:
            self.running.remove(items)
        return [LookupError(item) if item.startswith("bad") else item.upper() for item in items]

    def let_go(self, first: str) -> None:
        """End the group that begins with this item."""
        self.gates[first].set()


def of_words(item: str) -> frozenset[Hashable]:
    """An item claims what stands behind its colon, letter by letter."""
    return frozenset(item.partition(":")[2])


def of_name(item: str) -> str | None:
    """Items with the same name before the colon are the same request."""
    name = item.partition(":")[0]
    return name if name.startswith("same") else None


@pytest.fixture
def batches() -> Batches:
    return Batches()


@pytest.fixture
def held() -> Batches:
    return Batches(held=True)


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def joined(group: Grouping[str, str], *items: str) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(group.join(item)) for item in items]


async def test_a_lone_call_runs_at_once_and_by_itself(batches: Batches) -> None:
    group = Grouping(batches.run)
    call = asyncio.create_task(group.join("one"))
    await turns()
    assert batches.begun == [["one"]]
    assert await call == "ONE"
    assert group.waiting_count == 0


async def test_a_lone_call_waits_for_no_timer(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that never fires a timer answers it all the same."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []

    def call_at(when: float, callback: Callable[..., Any], *rest: Any, **more: Any) -> Any:
        timers.append(when)
        return asyncio.TimerHandle(when, callback, rest, loop, **more)

    monkeypatch.setattr(loop, "call_at", call_at)
    assert await Grouping(batches.run).join("one") == "ONE"


async def test_calls_of_one_turn_of_the_loop_are_one_group(batches: Batches) -> None:
    group = Grouping(batches.run)
    assert await asyncio.gather(*joined(group, "a", "b", "c")) == ["A", "B", "C"]
    assert batches.begun == [["a", "b", "c"]]


async def test_those_that_wait_while_a_group_runs_are_the_next_one(held: Batches) -> None:
    group = Grouping(held.run)
    first = joined(group, "first")
    await turns()
    rest = [call for item in ("a", "b", "c") for call in joined(group, item)]
    await turns()
    assert held.begun == [["first"]]
    assert group.waiting_count == 3
    held.let_go("first")
    await asyncio.gather(*first)
    await turns()
    assert held.begun == [["first"], ["a", "b", "c"]]
    held.let_go("a")
    assert await asyncio.gather(*rest) == ["A", "B", "C"]


async def test_a_group_has_no_more_members_than_it_may_and_the_oldest_come_first(
    batches: Batches,
) -> None:
    group = Grouping(batches.run, members_max=2)
    await asyncio.gather(*joined(group, "a", "b", "c", "d", "e"))
    assert batches.begun == [["a", "b"], ["c", "d"], ["e"]]


async def test_two_that_claim_the_same_are_never_in_one_group(batches: Batches) -> None:
    group = Grouping(batches.run, claims=of_words)
    calls = joined(group, "one:x", "two:xy", "three:y", "four:z")
    await asyncio.gather(*calls)
    assert batches.begun == [["one:x", "three:y", "four:z"], ["two:xy"]]


async def test_two_that_claim_the_same_never_run_at_once_in_two_groups(held: Batches) -> None:
    group = Grouping(held.run, claims=of_words, groups_max=3)
    calls = joined(group, "one:x")
    await turns()
    calls += joined(group, "two:x", "three:y")
    await turns()
    calls += joined(group, "four:xy", "five:z")
    await turns()
    assert held.running == [["one:x"], ["three:y"], ["five:z"]]
    held.let_go("one:x")
    await turns()
    assert held.running == [["three:y"], ["five:z"], ["two:x"]]
    held.let_go("two:x")
    held.let_go("three:y")
    await turns()
    held.let_go("four:xy")
    held.let_go("five:z")
    assert len(await asyncio.gather(*calls)) == 5


async def test_a_claim_ends_with_its_group_even_where_the_group_failed() -> None:
    async def fail(items: list[str]) -> list[str | Exception]:
        raise OSError("the wire")

    group: Grouping[str, str] = Grouping(fail, claims=of_words)
    for _ in range(2):
        with pytest.raises(OSError, match="the wire"):
            await group.join("one:x")


async def test_random_claims_never_overlap_and_everybody_is_answered() -> None:
    import random

    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    taken: set[Hashable] = set()

    async def run(items: list[str]) -> list[str | Exception]:
        claims = [claim for item in items for claim in of_words(item)]
        assert len(claims) == len(set(claims))
        assert taken.isdisjoint(claims)
        taken.update(claims)
        await asyncio.sleep(chance.random() / 500)
        taken.difference_update(claims)
        return list(items)

    group: Grouping[str, str] = Grouping(run, claims=of_words, groups_max=3, members_max=7)

    async def call(number: int) -> str:
        await asyncio.sleep(chance.random() / 5)
        return await group.join(f"{number}:{''.join(chance.sample('abcdefghij', 2))}")

    answers = await asyncio.gather(*(call(number) for number in range(300)))
    assert [int(answer.partition(":")[0]) for answer in answers] == list(range(300))
    assert group.waiting_count == 0


async def test_the_same_request_again_shares_the_group_in_spite_of_its_claims(
    batches: Batches,
) -> None:
    group = Grouping(batches.run, claims=of_words, fellow=of_name)
    calls = joined(group, "same:x", "same:x", "other:x", "same:x")
    assert await asyncio.gather(*calls) == ["SAME:X", "SAME:X", "OTHER:X", "SAME:X"]
    assert batches.begun == [["same:x", "same:x", "same:x"], ["other:x"]]


async def test_the_same_request_while_the_first_one_runs_waits_for_its_end(held: Batches) -> None:
    group = Grouping(held.run, claims=of_words, fellow=of_name, groups_max=2)
    calls = joined(group, "same:x")
    await turns()
    calls += joined(group, "same:x")
    await turns()
    assert held.running == [["same:x"]]
    held.let_go("same:x")
    assert await asyncio.gather(*calls) == ["SAME:X", "SAME:X"]
    assert held.begun == [["same:x"], ["same:x"]]


async def test_a_queue_that_is_full_turns_the_next_one_away_and_nobody_else(held: Batches) -> None:
    group = Grouping(held.run, waiting_max=3)
    calls = joined(group, "first")
    await turns()
    calls += joined(group, "a", "b", "c")
    await turns()
    with pytest.raises(ServerBusy):
        await group.join("d")
    held.let_go("first")
    await turns()
    held.let_go("a")
    assert await asyncio.gather(*calls) == ["FIRST", "A", "B", "C"]
    assert held.begun == [["first"], ["a", "b", "c"]]


async def test_whose_turn_does_not_come_in_time_is_turned_away_and_never_run(
    held: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "WAIT_SECONDS_MAX", 0.2)
    monkeypatch.setattr(grouping, "STALLED_MAX", 0)
    group = Grouping(held.run)
    first = joined(group, "first")
    await turns()
    started = time.monotonic()
    early = joined(group, "early")
    await asyncio.sleep(0.1)
    late = joined(group, "late")
    with pytest.raises(ServerBusy):
        await early[0]
    assert 0.15 < time.monotonic() - started < 1.0
    assert not late[0].done()
    held.let_go("first")
    await turns()
    held.let_go("late")
    assert await asyncio.gather(*first, *late) == ["FIRST", "LATE"]
    assert held.begun == [["first"], ["late"]]


async def test_a_group_that_is_held_up_lets_those_behind_it_pass(held: Batches) -> None:
    group = Grouping(held.run, claims=of_words)
    slow = joined(group, "slow:x")
    await turns()
    same, others = joined(group, "same:x"), joined(group, "a:y", "b:z")
    await turns()
    assert held.running == [["slow:x"]]
    await asyncio.sleep(grouping.STALL_SECONDS + 0.1)
    assert held.running == [["slow:x"], ["a:y", "b:z"]]
    held.let_go("a:y")
    assert await asyncio.gather(*others) == ["A:Y", "B:Z"]
    assert not slow[0].done()
    held.let_go("slow:x")
    await asyncio.gather(*slow)
    await turns()
    held.let_go("same:x")
    await asyncio.gather(*same)


async def test_only_so_many_groups_run_beside_those_that_are_held_up(
    held: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that hangs gets a few groups, not one every moment."""
    monkeypatch.setattr(grouping, "STALL_SECONDS", 0.02)
    group = Grouping(held.run)
    calls = []
    for number in range(grouping.STALLED_MAX + 4):
        calls += joined(group, str(number))
        await asyncio.sleep(0.04)
    assert len(held.running) == grouping.STALLED_MAX + 1
    held.held = False
    for items in list(held.running):
        held.let_go(items[0])
    assert len(await asyncio.gather(*calls)) == grouping.STALLED_MAX + 4
    assert group._stalled_count == 0


async def test_a_caller_that_is_cancelled_leaves_the_queue(held: Batches) -> None:
    group = Grouping(held.run, claims=of_words)
    first = joined(group, "first:x")
    await turns()
    left, right = joined(group, "left:y", "right:y")
    await turns()
    left.cancel()
    held.let_go("first:x")
    await asyncio.gather(*first)
    await turns()
    assert held.begun == [["first:x"], ["right:y"]]
    held.let_go("right:y")
    assert await right == "RIGHT:Y"


async def test_what_runs_runs_on_when_its_caller_is_cancelled(held: Batches) -> None:
    group = Grouping(held.run, claims=of_words)
    gone, other = joined(group, "gone:x", "other:y")
    await turns()
    gone.cancel()
    await turns()
    assert held.running == [["gone:x", "other:y"]]
    after = joined(group, "after:x")
    await turns()
    assert len(held.running) == 1
    held.let_go("gone:x")
    assert await other == "OTHER:Y"
    await turns()
    held.let_go("after:x")
    assert await asyncio.gather(*after) == ["AFTER:X"]
    assert gone.cancelled()


async def test_each_member_has_its_own_error(batches: Batches) -> None:
    group = Grouping(batches.run)
    calls = joined(group, "good", "bad one", "fine", "bad two")
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(each) for each in found] == ["GOOD", "bad one", "FINE", "bad two"]
    assert [type(each) for each in found] == [str, LookupError, str, LookupError]


async def test_a_fault_of_the_batch_reaches_all_its_members_and_nobody_else() -> None:
    async def run(items: list[str]) -> list[str | Exception]:
        if "spoils" in items:
            raise OSError("the wire")
        return list(items)

    group: Grouping[str, str] = Grouping(run, members_max=2)
    calls = joined(group, "a", "spoils", "b", "c")
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in found] == [OSError, OSError, str, str]


async def test_a_batch_that_answers_too_few_leaves_nobody_waiting() -> None:
    async def run(items: list[str]) -> list[str | Exception]:
        return list(items[:-1])

    group: Grouping[str, str] = Grouping(run)
    async with asyncio.timeout(1):
        found = await asyncio.gather(*joined(group, "a", "b"), return_exceptions=True)
    assert [type(each) for each in found] == [RuntimeError, RuntimeError]


async def test_a_group_that_is_cancelled_cancels_its_members_and_the_next_one_runs(
    held: Batches,
) -> None:
    group = Grouping(held.run)
    calls = joined(group, "a", "b")
    await turns()
    (task,) = group._running
    after = joined(group, "after")
    task.cancel()
    await asyncio.wait(calls)
    assert [call.cancelled() for call in calls] == [True, True]
    await turns()
    held.let_go("after")
    assert await after[0] == "AFTER"


def test_a_new_event_loop_begins_anew() -> None:
    """What an ended loop left behind, running or waiting, holds nobody up."""
    batches = Batches(held=True)
    group = Grouping(batches.run, claims=of_words)

    async def leave() -> None:
        calls = joined(group, "left:x")
        await turns()
        calls += joined(group, "waiting:x")
        await turns()

    async def come() -> str:
        async with asyncio.timeout(1):
            return await group.join("new:x")

    asyncio.run(leave())
    batches.held = False
    assert asyncio.run(come()) == "NEW:X"


async def test_the_context_of_a_caller_is_not_inherited() -> None:
    """It may hold an open phase, whose transaction is the caller's alone."""
    open_phase = contextvars.ContextVar("open_phase", default="none")
    seen = []

    async def run(items: list[str]) -> list[str | Exception]:
        seen.append(open_phase.get())
        await asyncio.sleep(0)
        return list(items)

    group: Grouping[str, str] = Grouping(run)

    async def call(item: str) -> str:
        open_phase.set("of " + item)
        return await group.join(item)

    await call("alone")
    await asyncio.gather(call("a"), call("b"))
    assert seen == ["none", "none"]
    assert open_phase.get() == "of alone"


async def test_the_context_of_a_group_is_not_inherited_by_the_next_one(held: Batches) -> None:
    inside = contextvars.ContextVar("inside", default="none")
    seen = []

    async def run(items: list[str]) -> list[str | Exception]:
        seen.append(inside.get())
        inside.set(items[0])
        return await held.run(items)

    group: Grouping[str, str] = Grouping(run)
    calls = joined(group, "a")
    await turns()
    calls += joined(group, "b")
    held.let_go("a")
    await turns(10)
    held.let_go("b")
    await asyncio.gather(*calls)
    assert seen == ["none", "none"]


async def test_what_is_put_runs_with_the_others_and_its_error_is_nobodys(
    batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    group = Grouping(batches.run)
    group.put("bad luck")
    group.put("good")
    assert await group.join("mine") == "MINE"
    assert batches.begun == [["bad luck", "good", "mine"]]
    gc.collect()
    assert caplog.records == []


async def test_what_is_put_before_a_full_queue_is_dropped(held: Batches) -> None:
    group = Grouping(held.run, waiting_max=1)
    calls = joined(group, "first")
    await turns()
    calls += joined(group, "waiting")
    await turns()
    group.put("too many")
    held.let_go("first")
    await turns()
    held.let_go("waiting")
    await asyncio.gather(*calls)
    assert held.begun == [["first"], ["waiting"]]
