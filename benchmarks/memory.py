"""Whether an API process grows: its resident memory after 10,000 payments and after 200,000.

The payers are others than those of the throughput, and more: who pays a hundred times in a few
minutes is asked for a proof.
"""

from __future__ import annotations

import argparse
import time

import psutil

from app import process
from benchmarks.figures import Figures, Row, tell
from benchmarks.generator import Generator
from benchmarks.parties import make_parties
from benchmarks.servers import Stack
from benchmarks.serving import answers, start_api

CONNECTIONS = 256
FEW, MANY = 10_000, 200_000
PIECE = 5_000
CUSTOMERS, MERCHANTS = 20_000, 1_000
PHONES_AFTER = 10_000_000


async def measure(
    stack: Stack, figures: Figures, given: argparse.Namespace, counted: Generator, ends_at: float
) -> None:
    """One process takes them all; as many as fit until `ends_at` where that is too few.

    What was sent and acknowledged is added to what `counted` knows of.
    """
    tell(f"{CUSTOMERS:,} more customers sign in")
    seed = given.seed + 1
    async with process.connected("bench-memory", long_statements=True):
        parties = await make_parties(stack.owner_url, CUSTOMERS, MERCHANTS, seed, PHONES_AFTER)
    with Generator(stack, parties, given.form, seed) as generator:
        try:
            await _measure(stack, figures, generator, max(ends_at - time.monotonic(), 10.0))
        finally:
            counted.add(generator)


async def _measure(
    stack: Stack, figures: Figures, generator: Generator, seconds_max: float
) -> None:
    tell(f"memory over {MANY:,} payments, at most {seconds_max:.0f} s")
    port = start_api(stack, "api-memory")
    stack.wait_for("the API", answers(port))
    api = psutil.Process(stack.process("api-memory").pid)
    ends_at = time.monotonic() + seconds_max
    paid = 0
    few = last = 0
    while paid < MANY and (time.monotonic() < ends_at or not few):
        piece = await generator.slice([port], CONNECTIONS, payments=PIECE)
        paid += piece.count
        last = api.memory_info().rss
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
