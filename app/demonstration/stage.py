"""What every step of the demonstration stands on: the API, the simulator, and patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from app.client import Api
from core.money import Money

WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05


class DemonstrationFailed(Exception):
    """A step did not come to its end; the text says which."""


@dataclass(frozen=True, slots=True)
class Step:
    """One movement, as it is shown: `risk` is empty where nothing was assessed."""

    what: str
    amount: Money
    state: str
    risk: str
    took_ms: float


@dataclass(slots=True)
class Stage:
    """The API, the simulator and its admin token, and the steps so far."""

    api: Api
    simulator_url: str
    admin_token: str
    steps: list[Step] = field(default_factory=list)


async def wait_for(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """What `look` finds, as soon as it finds it. Raises `DemonstrationFailed` when it is late."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (found := await look()) is None:
        if time.monotonic() > deadline:
            raise DemonstrationFailed(f"{what} did not come in {WAIT_SECONDS_MAX:.0f} seconds")
        await asyncio.sleep(POLL_SECONDS)
    return found
