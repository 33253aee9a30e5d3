"""Calls that wait together run together: the next group forms while the last one runs.

There is no timer: a call that comes alone runs at once, as a group of one. It knows no payment;
whoever uses it hands it a batch function. Waiting is bounded in number and in time, and a group
that is held up (by a lock, by a database that hangs) does not hold up those behind it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from core.errors import ServerBusy

Item = TypeVar("Item")
Result = TypeVar("Result")

MEMBERS_MAX = 128
WAITING_MAX = 2_048
WAIT_SECONDS_MAX = 2.0
STALL_SECONDS = 0.1
"""After this long a group counts as held up, and one more may run beside it."""
STALLED_MAX = 6
SCAN_MAX = 512
"""How far back a group looks for members that may run beside those it has."""

NOTHING: frozenset[Hashable] = frozenset()


@dataclass(slots=True, eq=False)
class _Call(Generic[Item, Result]):
    item: Item
    claims: frozenset[Hashable]
    fellow: Hashable | None
    expires_at: float
    future: asyncio.Future[Result]


@dataclass(slots=True, eq=False)
class Grouping(Generic[Item, Result]):
    """Gathers calls and runs them by `batch`, which answers each member or gives its error.

    `claims` names what a member wants for itself: two that name the same never run at once, in no
    group; the later one waits for the next. `fellow`: members with the same one (a repeated
    request) share a group in spite of their claims. `groups_max` run at once, and more only beside
    those that are held up.
    """

    batch: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]]
    claims: Callable[[Item], frozenset[Hashable]] | None = None
    fellow: Callable[[Item], Hashable | None] | None = None
    members_max: int = MEMBERS_MAX
    waiting_max: int = WAITING_MAX
    groups_max: int = 1
    _waiting: deque[_Call[Item, Result]] = field(default_factory=deque)
    _claimed: set[Hashable] = field(default_factory=set)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _stalled_count: int = 0
    _starting: bool = False
    _expiry: asyncio.TimerHandle | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def join(self, item: Item) -> Result:
        """The result of `item`, run with whoever waits at the same time.

        Raises `ServerBusy` when too many wait already or its turn did not come in two seconds:
        then nothing has happened. A caller that is cancelled leaves the queue; what runs, runs on.
        """
        return await self._added(item)

    def put(self, item: Item) -> None:
        """The same for whom nobody waits; what becomes of it is not told."""
        try:
            self._added(item).add_done_callback(_forgotten)
        except ServerBusy:
            return

    def _added(self, item: Item) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin(loop)
        if len(self._waiting) >= self.waiting_max:
            raise ServerBusy()
        call: _Call[Item, Result] = _Call(
            item=item,
            claims=self.claims(item) if self.claims else NOTHING,
            fellow=self.fellow(item) if self.fellow else None,
            expires_at=loop.time() + WAIT_SECONDS_MAX,
            future=loop.create_future(),
        )
        self._waiting.append(call)
        self._start_soon()
        return call.future

    @property
    def waiting_count(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """A new event loop: what an ended one left behind is nobody's."""
        self._loop, self._stalled_count = loop, 0
        self._starting, self._expiry = False, None
        self._waiting.clear()
        self._claimed.clear()
        self._running.clear()

    def _start_soon(self) -> None:
        """Start a group at the end of this turn of the loop, with all that arrive in it."""
        if self._starting:
            return
        if not self._may_start():
            self._expire_later()
            return
        assert self._loop is not None
        self._starting = True
        # A caller's context may hold an open phase; no group runs inside of one.
        self._loop.call_soon(self._start, context=contextvars.Context())

    def _may_start(self) -> bool:
        return len(self._running) - self._stalled_count < self.groups_max

    def _start(self) -> None:
        self._starting = False
        assert self._loop is not None
        while self._waiting and self._may_start():
            group = self._gathered()
            if not group:
                break
            task = self._loop.create_task(self._run(group), context=contextvars.Context())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._expire_later()

    def _gathered(self) -> list[_Call[Item, Result]]:
        """The next members in order of arrival; whose claims are taken keeps its place."""
        group: list[_Call[Item, Result]] = []
        passed: list[_Call[Item, Result]] = []
        fellows: set[Hashable] = set()
        while self._waiting and len(group) < self.members_max and len(passed) < SCAN_MAX:
            call = self._waiting.popleft()
            if call.future.done():
                continue
            if call.fellow in fellows:
                call.claims = NOTHING
            else:
                if not self._claimed.isdisjoint(call.claims):
                    passed.append(call)
                    continue
                self._claimed |= call.claims
                if call.fellow is not None:
                    fellows.add(call.fellow)
            group.append(call)
        self._waiting.extendleft(reversed(passed))
        return group

    async def _run(self, group: list[_Call[Item, Result]]) -> None:
        assert self._loop is not None
        stalled = [False]
        timer = self._loop.call_later(STALL_SECONDS, self._stall, stalled)
        results: Sequence[Result | BaseException]
        try:
            results = await self.batch([call.item for call in group])
            if len(results) != len(group):
                raise RuntimeError("a batch answers each of its members")
        except BaseException as error:
            results = [error] * len(group)
            if not isinstance(error, Exception):
                raise
        finally:
            timer.cancel()
            self._stalled_count -= stalled[0]
            for call in group:
                self._claimed -= call.claims
            _answer(group, results)
            task = asyncio.current_task()
            if task is not None:
                self._running.discard(task)
            self._start()

    def _stall(self, stalled: list[bool]) -> None:
        if self._stalled_count < STALLED_MAX:
            stalled[0] = True
            self._stalled_count += 1
            self._start()

    def _expire_later(self) -> None:
        if self._waiting and self._expiry is None:
            assert self._loop is not None
            self._expiry = self._loop.call_at(self._waiting[0].expires_at, self._expire)

    def _expire(self) -> None:
        """Turn away those whose turn did not come; the oldest stand in front."""
        self._expiry = None
        assert self._loop is not None
        now = self._loop.time()
        while self._waiting and self._waiting[0].expires_at <= now:
            call = self._waiting.popleft()
            if not call.future.done():
                call.future.set_exception(ServerBusy())
        self._expire_later()


def _answer(group: list[_Call[Item, Result]], results: Sequence[Result | BaseException]) -> None:
    for call, result in zip(group, results, strict=True):
        if call.future.done():
            continue
        if isinstance(result, Exception):
            call.future.set_exception(result)
        elif isinstance(result, BaseException):
            call.future.cancel()
        else:
            call.future.set_result(result)


def _forgotten(future: asyncio.Future[Result]) -> None:
    if not future.cancelled():
        future.exception()
