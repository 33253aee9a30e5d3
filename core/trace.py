"""Where the time of a payment goes, for a measurement that asks; silent in every other process.

While nobody listens a span is one shared object that does nothing. Sums are kept by name: a span
around an `await` counts the waiting too, one for a group counts its members.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from core import clock


@dataclass(slots=True)
class Total:
    """What the spans of one name came to: `members` is what they were done for."""

    calls: int = 0
    members: int = 0
    total_ms: float = 0.0


class _Silence:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class _Span:
    __slots__ = ("_members", "_name", "_started_ms")

    def __init__(self, name: str, members: int) -> None:
        self._name = name
        self._members = members

    def __enter__(self) -> None:
        self._started_ms = clock.monotonic_ms()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _totals is None:
            return
        total = _totals.setdefault(self._name, Total())
        total.calls += 1
        total.members += self._members
        total.total_ms += clock.monotonic_ms() - self._started_ms


_SILENCE = _Silence()
_totals: dict[str, Total] | None = None


def span(name: str, members: int = 1) -> _Span | _Silence:
    """A context that adds its duration to the sum of `name`, for a group of `members`."""
    return _SILENCE if _totals is None else _Span(name, members)


def listen() -> None:
    """Begin to count in this process, from zero."""
    global _totals
    _totals = {}


def taken() -> dict[str, Total]:
    """The sums since the last call or `listen`; empty where nobody listens."""
    global _totals
    if _totals is None:
        return {}
    found, _totals = _totals, {}
    return found
