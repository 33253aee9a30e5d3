"""The sweeper: what is past its deadline is moved on; no state waits for a dead process.

What is due is known to the domain; here stand only the intervals. It works without Valkey:
operations are finished in this process, a few at a time, each at most once at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from core import clock, configuration
from core.errors import Busy, PurserError
from identity.cleanup import forget_expired
from payments.callbacks import apply_unapplied
from payments.pipeline import finish_operation
from payments.sweep import drop_old_keys, expire_orders, late_money, overdue
from wallet.ledger import EXPIRIES_MAX, hold_expiry_sweep
from workers.loops import Step, repeat

log = logging.getLogger(__name__)

FINISHING_MAX = 16
BATCH = 100
RESTING_MS = 60_000.0
"""How long an operation that broke is left alone, so that many such keep no others waiting."""
CLEANUP_SECONDS = 60.0
CLEANUP_BATCH = 1_000

FindOperations = Callable[[int], Awaitable[Iterable[UUID]]]


async def sweep(stop: asyncio.Event) -> None:
    """Run every sweep on its own interval until `stop`; one that fails does not stop the others."""
    often = configuration.current().sweep_interval_seconds
    finisher = Finisher()
    steps: tuple[tuple[str, Step, float], ...] = (
        ("overdue operations", finisher.step(overdue), often),
        ("late money", finisher.step(late_money), often),
        ("expired orders", _full(expire_orders, BATCH), often),
        ("expired holds", _expire_holds, often),
        ("unapplied callbacks", _full(apply_unapplied, BATCH), often),
        ("old idempotency keys", _full(drop_old_keys, CLEANUP_BATCH), CLEANUP_SECONDS),
        ("what nobody can use", _full(forget_expired, CLEANUP_BATCH), CLEANUP_SECONDS),
    )
    async with asyncio.TaskGroup() as group:
        for name, step, interval_seconds in steps:
            group.create_task(repeat(name, step, interval_seconds, stop))
    await finisher.finished()


class Finisher:
    """Finishes operations side by side, and never one of them twice at a time in this process."""

    def __init__(self) -> None:
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._resting_until_ms: dict[UUID, float] = {}

    def step(self, find: FindOperations) -> Step:
        """A sweep that starts what `find` finds. It waits for nobody: a channel that hangs delays
        the operations of others only when all places are taken.
        """

        async def start() -> None:
            resting = self._resting()
            for operation_id in await find(BATCH + len(resting)):
                if len(self._running) >= FINISHING_MAX:
                    return
                if operation_id not in self._running and operation_id not in resting:
                    task = asyncio.create_task(self._finish(operation_id))
                    self._running[operation_id] = task

        return start

    async def finished(self) -> None:
        """Wait for those that are running; each ends with its channel's time-out at the latest."""
        await asyncio.gather(*self._running.values())

    def _resting(self) -> dict[UUID, float]:
        """Those that broke lately; whoever has rested long enough is forgotten here."""
        now_ms = clock.monotonic_ms()
        for operation_id, until_ms in list(self._resting_until_ms.items()):
            if until_ms <= now_ms:
                del self._resting_until_ms[operation_id]
        return self._resting_until_ms

    async def _finish(self, operation_id: UUID) -> None:
        try:
            await finish_operation(operation_id)
        except Busy as error:
            log.warning("operation %s not finished: %s", operation_id, error.code)
        except PurserError as error:
            self._resting_until_ms[operation_id] = clock.monotonic_ms() + RESTING_MS
            log.warning("operation %s not finished: %s", operation_id, error.code)
        except Exception:
            self._resting_until_ms[operation_id] = clock.monotonic_ms() + RESTING_MS
            log.exception("finishing operation %s broke", operation_id)
        finally:
            del self._running[operation_id]


async def _expire_holds() -> bool:
    return len(await hold_expiry_sweep(EXPIRIES_MAX)) == EXPIRIES_MAX


def _full(sweep_some: Callable[[int], Awaitable[int]], batch: int) -> Step:
    """A step that is repeated at once while it comes back with a full batch."""

    async def step() -> bool:
        return await sweep_some(batch) >= batch

    return step
