"""Loops that never end by themselves: a step, a pause, and a longer pause after a failure.

Whatever a step raises is logged and tried again, because a process that follows the books must not
die of a database that was away for a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.errors import PurserError

log = logging.getLogger(__name__)

PAUSE_SECONDS_MAX = 30.0

Step = Callable[[], Awaitable[object]]


async def repeat(name: str, step: Step, interval_seconds: float, stop: asyncio.Event) -> None:
    """Run `step` every `interval_seconds` until `stop`; at once again while it returns True.

    A step that returns True says that there is more to do. After failures the pause doubles, to
    half a minute at most.
    """
    failures_count = 0
    while not stop.is_set():
        try:
            more = await step() is True
            failures_count = 0
        except PurserError as error:
            failures_count, more = failures_count + 1, False
            log.warning("%s: %s", name, error.code)
        except Exception:
            failures_count, more = failures_count + 1, False
            log.exception("%s broke", name)
        if not more:
            pause = min(interval_seconds * 2 ** min(failures_count, 10), PAUSE_SECONDS_MAX)
            await wait(max(pause, interval_seconds), stop)


async def wait(seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of the events is set, but no longer than `seconds`."""
    waiters = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
