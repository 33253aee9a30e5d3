"""Whether an API process grows: its resident memory after 10,000 payments and after 200,000."""

from __future__ import annotations

import time

import psutil

from benchmarks.figures import Figures, Row, tell
from benchmarks.generator import Generator
from benchmarks.servers import Stack
from benchmarks.serving import answers, start_api

CONNECTIONS = 256
FEW, MANY = 10_000, 200_000
PIECE = 5_000


async def measure(stack: Stack, figures: Figures, generator: Generator, seconds_max: float) -> None:
    """One process takes them all; as many as fit into `seconds_max` where that is too few."""
    tell(f"memory over {MANY:,} payments, at most {seconds_max:.0f} s")
    port = start_api(stack, "api-memory")
    stack.wait_for("the API", answers(port))
    process = psutil.Process(stack.process("api-memory").pid)
    ends_at = time.monotonic() + seconds_max
    paid = 0
    few = last = 0
    while paid < MANY and (time.monotonic() < ends_at or not few):
        piece = await generator.slice([port], CONNECTIONS, payments=PIECE)
        paid += piece.count
        last = process.memory_info().rss
        if not few and paid >= FEW - PIECE // 100:
            few = last
            tell(f"{few / 1e6:.1f} MB after {paid:,} payments")
    stack.end("api-memory")
    note = f"{few / 1e6:.1f} MB after {FEW:,} payments"
    if paid > FEW:
        note += f", {last / 1e6:.1f} MB after {paid:,}"
        figures.ratios["memory"] = last / few
    if paid < MANY - PIECE:
        note += f"; the time was over before {MANY:,}"
    figures.rows.append(Row("resident memory of an API process", note=note))
