"""The circuit breaker: a channel's operation that keeps failing is left alone, then probed.

One per channel and operation, in this process only. It opens when at least half of the last calls
(at most 20, with at least 5 failures) ended without an answer; a decline is an answer. After a
pause one call at a time probes; two good ones in a row close it, a bad one starts the pause again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from channels.contract import Result, ResultKind
from core import clock

WINDOW_CALLS = 20
FAILURES_MIN = 5
PAUSE_MS = 5_000.0
GOOD_PROBES_NEEDED = 2

logger = logging.getLogger(__name__)

BreakerState = Literal["CLOSED", "OPEN", "HALF_OPEN"]


@dataclass(slots=True)
class Breaker:
    """What one channel's operation did lately. Times are `clock.monotonic_ms()`."""

    failed_calls: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW_CALLS))
    state: BreakerState = "CLOSED"
    paused_until_ms: float = 0.0
    good_probes: int = 0
    probing: bool = False


_breakers: dict[tuple[str, str], Breaker] = {}


async def guarded(channel: str, operation: str, call: Callable[[], Awaitable[Result]]) -> Result:
    """The result of `call()`, or at once `BREAKER_OPEN` without calling it.

    `operation` is `invoke`, `query` or `close`. Only an instruction that was not sent is
    `NOT_SENT`; a query or close that was not sent says nothing of its instruction and is `UNKNOWN`.
    Never raises, except when it is cancelled.
    """
    breaker = _breakers.setdefault((channel, operation), Breaker())
    if not _admits(breaker):
        kind = ResultKind.NOT_SENT if operation == "invoke" else ResultKind.UNKNOWN
        return Result(kind=kind, reason="BREAKER_OPEN")
    probing = breaker.probing = breaker.state == "HALF_OPEN"
    try:
        result = await call()
    except asyncio.CancelledError:
        # Nobody waited for the end of the call: it tells nothing, only the probe's place is freed.
        breaker.probing = breaker.probing and not probing
        raise
    except Exception:
        # The edge of the channel call: a bug in an adapter must not lose an outcome.
        logger.exception("the channel %s broke in %s", channel, operation)
        result = Result(kind=ResultKind.UNKNOWN, reason="CALL_BROKE")
    _observe(breaker, result, probing=probing)
    return result


def state(channel: str, operation: str) -> BreakerState:
    """Where the breaker stands now; `HALF_OPEN` from the end of its pause on."""
    breaker = _breakers.get((channel, operation))
    if breaker is None:
        return "CLOSED"
    if breaker.state == "OPEN" and clock.monotonic_ms() >= breaker.paused_until_ms:
        return "HALF_OPEN"
    return breaker.state


def reset() -> None:
    """Forget everything seen so far, as a new process would."""
    _breakers.clear()


def _admits(breaker: Breaker) -> bool:
    if breaker.state == "OPEN" and clock.monotonic_ms() >= breaker.paused_until_ms:
        breaker.state, breaker.good_probes, breaker.probing = "HALF_OPEN", 0, False
    if breaker.state == "HALF_OPEN":
        return not breaker.probing
    return breaker.state == "CLOSED"


def _observe(breaker: Breaker, result: Result, *, probing: bool) -> None:
    """Count one finished call. A call that began before the breaker opened no longer counts."""
    failed = result.kind in {ResultKind.UNKNOWN, ResultKind.NOT_SENT}
    if probing:
        breaker.probing = False
        breaker.good_probes = 0 if failed else breaker.good_probes + 1
        if failed:
            _open(breaker)
        elif breaker.good_probes >= GOOD_PROBES_NEEDED:
            breaker.state = "CLOSED"
            breaker.failed_calls.clear()
    elif breaker.state == "CLOSED":
        breaker.failed_calls.append(failed)
        failures_count = sum(breaker.failed_calls)
        if failures_count >= FAILURES_MIN and failures_count * 2 >= len(breaker.failed_calls):
            _open(breaker)


def _open(breaker: Breaker) -> None:
    breaker.state = "OPEN"
    breaker.paused_until_ms = clock.monotonic_ms() + PAUSE_MS
    breaker.failed_calls.clear()
