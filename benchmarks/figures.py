"""What a measurement tells: progress on the standard error, then one table and `RATIO` lines."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

GOALS = {
    "ledger_spread": (">=", 10.0),
    "ledger_hot": (">=", 10.0),
    "ledger_lone": ("<=", 1.0),
    "api_pay": (">=", 2.0),
    "api_pay_hot": (">=", 2.0),
    "api_overhead": (">=", 0.9),
    "read_statement": ("<=", 2.0),
    "memory": ("<=", 1.1),
    "roll_up_lag_s": ("<=", 5.0),
    "ledger_roll_up_lag_s": ("<=", 5.0),
    "folding_lag_s": ("<=", 1.0),
}
_began = time.monotonic()


@dataclass
class Slice:
    """One uninterrupted measurement: `latencies_us` are those of its calls, or a sample of them."""

    count: int
    seconds: float
    latencies_us: Sequence[float] = field(repr=False)
    failures: int = 0

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""


@dataclass
class Figures:
    """All that one run has found; `broken` says what makes it worth nothing, `notes` the rest."""

    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, slices: Sequence[Slice], note: str = "") -> None:
        """A row over several slices of the same thing."""
        latencies = [each for piece in slices for each in piece.latencies_us]
        self.rows.append(
            Row(
                what,
                rate(slices),
                percentile(latencies, 0.50) / 1_000,
                percentile(latencies, 0.99) / 1_000,
                note,
            )
        )

    def ratio(self, name: str, ours: Sequence[Slice], theirs: Sequence[Slice]) -> None:
        """Ours a second by theirs a second."""
        self.ratios[name] = rate(ours) / rate(theirs)


def rate(slices: Sequence[Slice]) -> float:
    """Calls a second over slices of the same thing: the median of them, which one stall of a
    shared machine does not move.
    """
    return statistics.median(piece.per_second for piece in slices)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the values lie; 0 where there is none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def tell(text: str) -> None:
    """Progress, with the seconds since the start and the machine's load."""
    load = os.getloadavg()[0]
    print(
        f"[{time.monotonic() - _began:5.1f} s, load {load:4.1f}] {text}",
        file=sys.stderr,
        flush=True,
    )


def show(figures: Figures) -> int:
    """Print everything; the exit code: 1 where what was measured was not right."""
    width = max([len(row.what) for row in figures.rows], default=0)
    print(f"{'what':<{width}}  {'a second':>10}  {'p50 ms':>9}  {'p99 ms':>9}")
    for row in figures.rows:
        cells = (_cell(row.per_second, 10, 0), _cell(row.p50_ms, 9, 2), _cell(row.p99_ms, 9, 2))
        print(f"{row.what:<{width}}  {'  '.join(cells)}  {row.note}".rstrip())
    print("\n".join(["", *figures.notes, ""] if figures.notes else [""]))
    for name, value in figures.ratios.items():
        sign, goal = GOALS.get(name, ("", 0.0))
        print(f"{name:<20} {value:8.2f}  {_verdict(value, sign, goal)}".rstrip())
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"\nload average {load} on {os.cpu_count()} cores\n")
    for name, value in figures.ratios.items():
        print(f"RATIO {name} {value:.3f}")
    for problem in figures.broken:
        print(f"BROKEN {problem}")
    sys.stdout.flush()
    return 1 if figures.broken else 0


def _verdict(value: float, sign: str, goal: float) -> str:
    if not sign:
        return ""
    reached = value >= goal if sign == ">=" else value <= goal
    return f"goal {sign} {goal:g}{'' if reached else ', missed'}"


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'' if value is None else format(value, f',.{digits}f'):>{width}}"
