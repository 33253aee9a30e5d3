"""`make bench-ledger`: entries through `wallet.ledger.post` against PostgreSQL's own transactions.

Slices of both alternate on one server and data directory. Spread: transfers between 100,000
customers. Hot: everybody pays one merchant. Lone: one caller, one entry at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import Callable

import uvloop

from app import process
from benchmarks import pgbench
from benchmarks.figures import Figures, Slice, percentile, show, tell
from benchmarks.lag import Lag, caught_up, watched
from benchmarks.parties import CURRENCY, fund
from benchmarks.profiling import count_from_here, profiled, show_counted
from benchmarks.servers import Failed, Stack, started
from core import ids
from core.principal import SYSTEM
from wallet.chart import AccountKind, account
from wallet.ledger import Entry, Post, post
from wallet.verify import verify

CALLERS = 256
ACCOUNTS = 100_000
LONE_SECONDS = 1.0
MERCHANT = uuid.UUID("018f0000-0000-7000-8000-0000000000aa")

Maker = Callable[[], Post]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.ledger", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.5, help="length of a slice")
    parser.add_argument("--rounds", type=int, default=3, help="how often the slices alternate")
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="where the time goes; no ratios")
    return parser


def main() -> int:
    given = arguments().parse_args()
    try:
        with started(counting=given.profile) as stack:
            figures = Figures()
            uvloop.run(measure(stack, figures, given))
            return show(figures)
    except (Failed, KeyboardInterrupt) as failed:
        tell(f"stopped: {failed}")
        return 1


async def measure(stack: Stack, figures: Figures, given: argparse.Namespace) -> None:
    """All three ratios, and the proof that the books are right afterwards."""
    if not given.profile:
        await asyncio.to_thread(pgbench.prepare, stack)
    os.environ.update(stack.variables)
    os.environ.pop("PURSER_OWNER_DATABASE_URL")
    async with process.connected("bench-ledger", long_statements=True):
        makers = await _opened(given)
        stack.start("worker-dispatch", "app.cli", "worker", "dispatch")
        await caught_up(stack.owner_url)
        if given.profile:
            await _profile(stack, makers, given)
        else:
            await _throughput(stack, figures, makers, given)
            await _alone(stack, figures, makers, given)
        tell(f"followers caught up after {await caught_up(stack.owner_url):.1f} s; verifying")
        await _verify(figures)
    stack.check()


async def _opened(given: argparse.Namespace) -> dict[str, Maker]:
    """Open and fund the accounts; what a slice of each kind posts."""
    chance = random.Random(given.seed)
    tell(f"opening {given.accounts:,} funded accounts")
    wallets = [
        account(AccountKind.CUSTOMER_WALLET, uuid.UUID(int=chance.getrandbits(128)), CURRENCY)
        for _ in range(given.accounts)
    ]
    await fund(wallets)
    merchant = account(AccountKind.MERCHANT_PENDING, MERCHANT, CURRENCY)

    def spread() -> Post:
        payer, payee = chance.choice(wallets), chance.choice(wallets)
        while payee is payer:
            payee = chance.choice(wallets)
        return Post(payer, payee, 1 + chance.getrandbits(10))

    def hot() -> Post:
        return Post(chance.choice(wallets), merchant, 1 + chance.getrandbits(10))

    return {"spread": spread, "hot": hot}


async def flood(make: Maker, callers: int, seconds: float) -> Slice:
    """`callers` post one entry after another for `seconds`, each waiting for its own."""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    ends_at = began + seconds

    async def caller() -> None:
        while loop.time() < ends_at:
            entry = Entry(entry_id=ids.new_id(), kind="BENCHMARK", actions=(make(),))
            started_ns = time.perf_counter_ns()
            [posted] = await post(SYSTEM, [entry])
            latencies.append((time.perf_counter_ns() - started_ns) / 1_000)
            if posted.outcome != "POSTED":
                raise Failed(f"an entry was refused: {posted.code}")

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return Slice(len(latencies), loop.time() - began, latencies)


async def _throughput(
    stack: Stack, figures: Figures, makers: dict[str, Maker], given: argparse.Namespace
) -> None:
    """pgbench, spread, hot, and again."""
    lag = Lag()
    theirs: list[Slice] = []
    ours: dict[str, list[Slice]] = {name: [] for name in makers}
    for make in makers.values():
        await flood(make, given.callers, 0.5)
    for number in range(given.rounds):
        theirs.append(await asyncio.to_thread(pgbench.measure, stack, 16, given.seconds))
        for name, make in makers.items():
            async with watched(stack.owner_url, lag):
                ours[name].append(await flood(make, given.callers, given.seconds))
            await caught_up(stack.owner_url)
        each = ", ".join(f"{name} {ours[name][-1].per_second:,.0f}" for name in makers)
        tell(f"round {number + 1}: pgbench {theirs[-1].per_second:,.0f}, {each} a second")
    figures.add("pgbench -c 16", theirs)
    for name in makers:
        figures.add(f"ledger, {name}, {given.callers} callers", ours[name])
        figures.ratio(f"ledger_{name}", ours[name], theirs)
    figures.ratios["ledger_roll_up_lag_s"] = max(lag.roll_up, default=0.0)


async def _alone(
    stack: Stack, figures: Figures, makers: dict[str, Maker], given: argparse.Namespace
) -> None:
    theirs: list[Slice] = []
    ours: list[Slice] = []
    # Short and many: what else the machine does moves the latency of a single commit most of all.
    for _ in range(2 * given.rounds):
        theirs.append(await asyncio.to_thread(pgbench.measure, stack, 1, LONE_SECONDS))
        ours.append(await flood(makers["spread"], 1, LONE_SECONDS))
    figures.add("pgbench -c 1", theirs)
    figures.add("ledger, one caller", ours)
    medians = [
        percentile([each for piece in pieces for each in piece.latencies_us], 0.5)
        for pieces in (ours, theirs)
    ]
    figures.ratios["ledger_lone"] = medians[0] / medians[1]


async def _profile(stack: Stack, makers: dict[str, Maker], given: argparse.Namespace) -> None:
    for name, make in makers.items():
        await count_from_here(stack.owner_url)
        with profiled(name):
            piece = await flood(make, given.callers, given.seconds)
        print(f"{name}: {piece.per_second:,.0f} a second while profiled")
        await show_counted(stack.owner_url, piece.count)


async def _verify(figures: Figures) -> None:
    report = await verify()
    tell(f"{report.entries_count:,} entries verified, {report.blocks_count} sealed blocks")
    figures.broken += [
        f"{found.finding} {found.subject}: {found.detail}" for found in report.findings
    ]


if __name__ == "__main__":
    sys.exit(main())
