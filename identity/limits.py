"""Limits on guesses and on messages, counted in PostgreSQL.

Counting is committed before the thing that is counted happens, so that parallel callers cannot get
more than the limit; where the database is away the caller gets `ServerBusy`, never a free try.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from core import ids
from core.errors import CredentialsLocked, Throttled
from core.phase import statement


@dataclass(frozen=True, slots=True)
class Guesses:
    """`guesses_max` wrong ones in a row lock for `lock_seconds`, over all requests of a subject."""

    name: str
    guesses_max: int
    lock_seconds: int = 1_800


@dataclass(frozen=True, slots=True)
class Permits:
    """`permits_max` in a window of `window_seconds` that begins with the first."""

    name: str
    permits_max: int
    window_seconds: int


async def take_guess(guesses: Guesses, subject: str) -> int:
    """Count one guess before it is looked at; how many are left. Raises `CredentialsLocked`."""
    counter = _counter_id(guesses.name, subject)
    rows = await statement(
        "SELECT take_guess($1, $2, $3)", counter, guesses.guesses_max, guesses.lock_seconds
    )
    left: int | None = rows[0][0]
    if left is None:
        raise CredentialsLocked()
    return left


async def clear_guesses(guesses: Guesses, subject: str) -> None:
    """Forget the guesses after a right one."""
    counter = _counter_id(guesses.name, subject)
    await statement("DELETE FROM limit_counter WHERE counter_id = $1", counter)


async def take_permit(permits: Permits, subject: str) -> None:
    """Use one permit, or raise `Throttled`. Inside a phase it also queues callers with one
    subject.
    """
    counter = _counter_id(permits.name, subject)
    rows = await statement(
        "SELECT take_permit($1, $2, $3)", counter, permits.permits_max, permits.window_seconds
    )
    if rows[0][0] is None:
        raise Throttled()


def _counter_id(name: str, subject: str) -> uuid.UUID:
    return ids.hashed_id(name, subject)
