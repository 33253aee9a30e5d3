"""Where the time of one payment goes, stage by stage, from the spans of `core/trace.py`.

In a process of its own: spans are off wherever throughput is measured. A stage around an `await`
includes the waiting; a stage of a group is divided by its members.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from benchmarks.figures import Figures, Slice, tell
from benchmarks.generator import Generator
from benchmarks.profiling import SPANS_PATH, SPANS_VARIABLE
from benchmarks.servers import HOST, Stack
from benchmarks.serving import answers, start_api

CONNECTIONS = (1, 64)


async def measure(stack: Stack, figures: Figures, generator: Generator, seconds: float) -> None:
    """The stages of a payment that comes alone, and of one among 64, in microseconds."""
    tell("stages of one payment")
    port = start_api(stack, "api-spans", module="benchmarks.instrumented", **{SPANS_VARIABLE: "1"})
    stack.wait_for("the API", answers(port))
    columns: list[tuple[dict[str, Any], Slice]] = []
    for connections in CONNECTIONS:
        await generator.slice([port], connections, seconds=0.5)
        _spans(port)
        piece = await generator.slice([port], connections, seconds=seconds)
        columns.append((_spans(port), piece))
    stack.end("api-spans")
    figures.notes += _table(columns)


def _spans(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{HOST}:{port}{SPANS_PATH}", timeout=5) as answer:
        return dict(json.loads(answer.read()))


def _table(columns: list[tuple[dict[str, Any], Slice]]) -> list[str]:
    """A line for each stage: microseconds for one payment, and how many share a span."""
    names = list(dict.fromkeys(name for found, _ in columns for name in found))
    head = "".join(f"{f'{count} connections':>18}{'a group':>9}" for count in CONNECTIONS)
    lines = [f"{'microseconds of one payment':<28}{head}"]
    for name in names:
        cells = ""
        for found, _ in columns:
            calls, members, total_ms = found.get(name, (0, 0, 0.0))
            each, group = 1_000 * total_ms / max(members, 1), members / max(calls, 1)
            cells += f"{each:>18,.0f}{group:>9.1f}"
        lines.append(f"{name:<28}{cells}")
    cells = "".join(
        f"{1e6 * piece.seconds / max(piece.count, 1):>18,.0f}{'':>9}" for _, piece in columns
    )
    return ["", *lines, f"{'a payment each':<28}{cells}".rstrip()]
