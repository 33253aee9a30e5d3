"""`make bench`: everything, in at most ten minutes, with one table and all ratios at the end.

Ledger and API each get servers of their own; the reading part keeps its data and runs as its own
command does. The exit code says whether what was measured was right, not whether it was fast.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from benchmarks import api, ledger, memory, stages
from benchmarks.figures import Figures, show, tell
from benchmarks.generator import Generator
from benchmarks.servers import ROOT, Failed, Stack, started

SECONDS_MAX = 600.0
PROOF_SECONDS = 60.0
"""Kept for the proof of the books at the end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--seconds-max", type=float, default=SECONDS_MAX, help="for everything")
    ends_at = time.monotonic() + parser.parse_args().seconds_max
    figures = Figures()
    try:
        with started() as stack:
            uvloop.run(ledger.measure(stack, figures, ledger.arguments().parse_args([])))
        _reading(figures)
        with started() as stack:
            uvloop.run(_api(stack, figures, ends_at))
    except (Failed, KeyboardInterrupt) as failed:
        tell(f"stopped: {failed}")
        return 1
    return show(figures)


async def _api(stack: Stack, figures: Figures, ends_at: float) -> None:
    given = api.arguments().parse_args([])

    async def more(generator: Generator) -> None:
        await stages.measure(stack, figures, generator, seconds=2.0)
        await memory.measure(stack, figures, given, generator, ends_at - PROOF_SECONDS)

    await api.measure(stack, figures, given, more)


def _reading(figures: Figures) -> None:
    """The reading part prints its own table; its ratios stand among the others."""
    if not Path(ROOT / "benchmarks" / "reading.py").exists():
        return
    command = [sys.executable, "-m", "benchmarks.reading"]
    ended = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    for line in ended.stdout.splitlines():
        if line.startswith("RATIO "):
            _, name, value = line.split()
            figures.ratios[name] = float(value)
        elif line.startswith("BROKEN "):
            figures.broken.append(line.removeprefix("BROKEN "))
        else:
            figures.notes.append(line)
    if ended.returncode != 0:
        figures.broken.append("the reading part failed")


if __name__ == "__main__":
    sys.exit(main())
