"""`make bench-api`: `pay` over HTTP, the whole path, against PostgreSQL's own transactions.

Two API processes, the dispatcher with its followers and the worker of long jobs run as they do in
production; the load comes from a process of its own. Slices of both alternate on one server and
data directory. Then the same payment behind a plain route tells what GraphQL costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import uvloop

from app import process
from benchmarks import pgbench
from benchmarks.cost import seconds_by_process, told
from benchmarks.figures import Figures, Slice, show, tell
from benchmarks.generator import GRAPHQL, PLAIN, Generator
from benchmarks.lag import Lag, caught_up, watched
from benchmarks.parties import make_parties
from benchmarks.profiling import PROFILE_VARIABLE, count_from_here, show_counted
from benchmarks.servers import Failed, Stack, started, train_model
from benchmarks.serving import answers, start_api

CONNECTIONS = 256
PROCESSES = 2
OVERHEAD_CONNECTIONS = 64
OVERHEAD_SECONDS = 0.8

More = Callable[[Generator], Awaitable[None]]

COUNTS = """
SELECT (SELECT count(*) FROM payment_order WHERE type = 'PAY' AND state = 'SUCCEEDED') AS orders,
       (SELECT count(*) FROM entry WHERE kind = 'PAY_BOOKED') AS entries,
       (SELECT count(*) FROM decision) AS decisions,
       (SELECT count(*) FROM decision WHERE source = 'MODEL') AS scored
"""


def arguments(name: str = "benchmarks.api") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.5, help="length of a slice")
    parser.add_argument("--rounds", type=int, default=3, help="how often the slices alternate")
    parser.add_argument("--customers", type=int, default=15_000)
    parser.add_argument("--merchants", type=int, default=1_000)
    parser.add_argument(
        "--form",
        choices=["query", "document", "persisted"],
        default="query",
        help="how a request names its document: its text, a trusted one's id, or its hash",
    )
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


async def measure(
    stack: Stack, figures: Figures, given: argparse.Namespace, more: More | None = None
) -> None:
    """The ratios of the API, the followers' lag, `more`, and the proof of the books."""
    train_model(stack)
    if given.profile:
        await _profile(stack, figures, given)
        return
    await asyncio.to_thread(pgbench.prepare, stack)
    async with running(stack, given) as (ports, generator):
        await _throughput(stack, figures, given, ports, generator)
        await _overhead(stack, figures, given, generator)
        if more is not None:
            await more(generator)
        await _proof(stack, figures, generator)


@asynccontextmanager
async def running(
    stack: Stack, given: argparse.Namespace
) -> AsyncIterator[tuple[list[int], Generator]]:
    """The parties, the processes and the load generator; the ports of the API processes."""
    tell(f"{given.customers:,} customers sign in, {given.merchants:,} merchants")
    os.environ.update(stack.variables)
    os.environ.pop("PURSER_OWNER_DATABASE_URL")
    async with process.connected("bench-api", long_statements=True):
        parties = await make_parties(stack.owner_url, given.customers, given.merchants, given.seed)
    tell(f"starting {PROCESSES} API processes and the workers")
    ports = [start_api(stack, f"api-{number}") for number in range(PROCESSES)]
    for kind in ("dispatch", "long"):
        stack.start(f"worker-{kind}", "app.cli", "worker", kind)
    for port in ports:
        stack.wait_for("the API", answers(port))
    with Generator(stack, parties, given.form, random.Random(given.seed).getrandbits(32)) as made:
        await caught_up(stack.owner_url)
        yield ports, made


async def _throughput(
    stack: Stack,
    figures: Figures,
    given: argparse.Namespace,
    ports: list[int],
    generator: Generator,
) -> None:
    """Payments and `pgbench` in turn, at full load; then with fewer connections."""
    tell("warming up")
    await generator.slice(ports, CONNECTIONS, seconds=2.0)
    await caught_up(stack.owner_url)
    lag = Lag()
    theirs: list[Slice] = []
    costs: dict[str, str] = {}
    ours: dict[str, list[Slice]] = {"many merchants": [], "one merchant": []}
    for number in range(given.rounds):
        theirs.append(await asyncio.to_thread(pgbench.measure, stack, 16, given.seconds))
        for name, slices in ours.items():
            before = seconds_by_process(stack, {"load": generator.process_id})
            async with watched(stack.owner_url, lag):
                slices.append(
                    await generator.slice(
                        ports, CONNECTIONS, seconds=given.seconds, hot=name == "one merchant"
                    )
                )
            after = seconds_by_process(stack, {"load": generator.process_id})
            costs[name] = told(before, after, slices[-1].count)
            behind = await caught_up(stack.owner_url)
            tell(
                f"round {number + 1}: pgbench {theirs[-1].per_second:,.0f}, {name} "
                f"{slices[-1].per_second:,.0f} a second; followers {behind:.1f} s later"
            )
        stack.check()
    figures.add("pgbench -c 16", theirs)
    for name, slices in ours.items():
        figures.add(f"pay, {CONNECTIONS} connections, {name}", slices)
        figures.notes.append(f"pay, {name}: {costs[name]}")
    for connections in (64, 1):
        piece = await generator.slice(ports, connections, seconds=given.seconds / 2)
        figures.add(f"pay, {connections} connections", [piece])
    figures.ratio("api_pay", ours["many merchants"], theirs)
    figures.ratio("api_pay_hot", ours["one merchant"], theirs)
    figures.ratios["roll_up_lag_s"] = max(lag.roll_up, default=0.0)
    figures.ratios["folding_lag_s"] = max(lag.folding, default=0.0)
    figures.notes.append(f"sealing was {max(lag.seal, default=0.0):.2f} s behind at most")


async def _overhead(
    stack: Stack, figures: Figures, given: argparse.Namespace, generator: Generator
) -> None:
    """GraphQL and a plain route of one process, in turn."""
    port = start_api(stack, "api-plain", module="benchmarks.instrumented")
    stack.wait_for("the API", answers(port))
    slices: dict[str, list[Slice]] = {GRAPHQL: [], PLAIN: []}
    for target in slices:
        await generator.slice([port], OVERHEAD_CONNECTIONS, target=target, seconds=0.5)
    for _ in range(2 * given.rounds):
        for target, pieces in slices.items():
            pieces.append(
                await generator.slice(
                    [port], OVERHEAD_CONNECTIONS, target=target, seconds=OVERHEAD_SECONDS
                )
            )
    stack.end("api-plain")
    figures.add(f"GraphQL, one process, {OVERHEAD_CONNECTIONS} connections", slices[GRAPHQL])
    figures.add(f"plain JSON, one process, {OVERHEAD_CONNECTIONS} connections", slices[PLAIN])
    figures.ratio("api_overhead", slices[GRAPHQL], slices[PLAIN])


async def _proof(stack: Stack, figures: Figures, generator: Generator) -> None:
    """What was acknowledged is what is in the orders and in the books, and the books are right."""
    generator.report(figures)
    await caught_up(stack.owner_url)
    connection = await asyncpg.connect(stack.owner_url)
    try:
        counted = dict(await connection.fetchrow(COUNTS))
    finally:
        await connection.close()
    if not generator.acknowledged == counted["orders"] == counted["entries"]:
        figures.broken.append(
            f"{generator.acknowledged} payments were acknowledged, {counted['orders']} orders "
            f"succeeded, {counted['entries']} entries are in the books"
        )
    if counted["scored"] < counted["decisions"]:
        figures.broken.append(
            f"the model scored {counted['scored']} of {counted['decisions']} payments"
        )
    tell("verifying the books")
    try:
        print(stack.run("ledger verify", "app.cli", "ledger", "verify").strip())
    except Failed as failed:
        figures.broken.append(str(failed))


async def _profile(stack: Stack, figures: Figures, given: argparse.Namespace) -> None:
    """One API process under `cProfile`, and the time of PostgreSQL's functions."""
    async with running(stack, given) as (_, generator):
        written = stack.home.folder / "profile.txt"
        port = start_api(
            stack,
            "api-profiled",
            module="benchmarks.instrumented",
            **{PROFILE_VARIABLE: str(written)},
        )
        stack.wait_for("the API", answers(port))
        await generator.slice([port], CONNECTIONS, seconds=1.0)
        await count_from_here(stack.owner_url)
        piece = await generator.slice([port], CONNECTIONS, seconds=given.seconds)
        stack.end("api-profiled")
        print(written.read_text())
        await show_counted(stack.owner_url, piece.count)
        figures.add("pay while profiled, one process", [piece])
        generator.report(figures)


if __name__ == "__main__":
    sys.exit(main())
