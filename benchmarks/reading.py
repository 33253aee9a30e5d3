"""`make bench-read`: statements, searches of orders and balances of the past, at 5,000,000 rows and
at 50,000.

Slices of both sizes alternate on one server, one caller, one question after another. What is asked
is drawn at random over the whole history. The data are those of `make bench-data`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import uvloop

from app import process
from benchmarks import data
from benchmarks.data import LARGE, SMALL, Shop
from benchmarks.figures import Figures, Slice, percentile, show, tell
from benchmarks.servers import Failed, Stack, started
from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from payments.queries import Keyset, OrderFilter, read_orders_page
from payments.states import OperationType, OrderState
from wallet.statements import Cursor, balance_as_of, balances, statement_page

LINES = 50
Question = Callable[[], Awaitable[object]]
Maker = Callable[[Shop, random.Random], Question]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.reading", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a slice")
    parser.add_argument("--rounds", type=int, default=8, help="how often the slices alternate")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not data.made():
        tell(
            f"no data in {data.folder()}, or the tables have changed since they were made:"
            " `make bench-data` makes them, once, in some minutes"
        )
        return 1
    try:
        with started(kept=data.folder()) as stack:
            figures = Figures()
            uvloop.run(_measure(stack, figures, given))
            return show(figures)
    except (Failed, KeyboardInterrupt) as failed:
        tell(f"stopped: {failed}")
        return 1


async def _measure(stack: Stack, figures: Figures, given: argparse.Namespace) -> None:
    os.environ.update(stack.variables)
    os.environ.pop("PURSER_OWNER_DATABASE_URL")
    questions: dict[str, Maker] = {
        "read_statement": _a_page_of_the_statement,
        "read_orders": _a_search_of_orders,
        "read_as_of": _a_balance_of_the_past,
    }
    await asyncio.to_thread(_warm, stack.cluster.data)
    async with process.connected("bench-read", long_statements=True):
        await _agree(figures)
        for name, maker in questions.items():
            await _compare(figures, name, maker, given)
    stack.check()


async def _compare(figures: Figures, name: str, maker: Maker, given: argparse.Namespace) -> None:
    """The same questions of both shops, in slices that alternate; the ratio of the slow ones."""
    chance = random.Random(given.seed)
    slices: dict[int, list[Slice]] = {SMALL.place: [], LARGE.place: []}
    for shop in (SMALL, LARGE):
        await _slice(maker, shop, chance, 0.3)
    for number in range(given.rounds):
        tell(f"{name} {number + 1} of {given.rounds}")
        for shop in (SMALL, LARGE):
            slices[shop.place].append(await _slice(maker, shop, chance, given.seconds))
    for shop in (SMALL, LARGE):
        figures.add(f"{name} at {shop.orders_count:,}", slices[shop.place])
    figures.ratios[name] = _slow(slices[LARGE.place]) / _slow(slices[SMALL.place])


def _slow(slices: list[Slice]) -> float:
    """The p99: the median of those of the slices, which one stall of a shared machine does not
    move.
    """
    return statistics.median(percentile(piece.latencies_us, 0.99) for piece in slices)


async def _slice(maker: Maker, shop: Shop, chance: random.Random, seconds: float) -> Slice:
    latencies_us = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        ask = maker(shop, chance)
        asked = time.perf_counter()
        await ask()
        latencies_us.append((time.perf_counter() - asked) * 1e6)
    return Slice(len(latencies_us), time.perf_counter() - began, latencies_us)


def _a_page_of_the_statement(shop: Shop, chance: random.Random) -> Question:
    """The newest page, the oldest one, or one anywhere, upwards or downwards."""
    account_id = shop.pending.account_id
    number = chance.randrange(1, shop.orders_count)
    cursor = Cursor(shop.sequence(number), 0, 0, _now[0])
    last = replace(cursor, sequence=shop.sequence(LINES))
    where: dict[str, Cursor] = chance.choice(
        ({}, {"after": last}, {"after": cursor}, {"after": cursor}, {"before": cursor})
    )

    async def ask() -> None:
        async with phase(Principal("merchant", shop.merchant_id)):
            page = await statement_page(account_id, limit=LINES, **where)
        assert page.lines

    return ask


def _a_search_of_orders(shop: Shop, chance: random.Random) -> Question:
    """Everything, or what is rare or common in some way, from anywhere in either direction."""
    since, until = sorted(shop.at(chance.randrange(shop.orders_count)) for _ in range(2))
    conditions = chance.choice(
        (
            OrderFilter(),
            OrderFilter(states=(OrderState.SUCCEEDED,)),
            OrderFilter(states=(OrderState.FAILED, OrderState.CLOSED)),
            OrderFilter(states=(OrderState.IN_REVIEW,)),
            OrderFilter(types=(OperationType.TOP_UP,)),
            OrderFilter(currency="USD"),
            OrderFilter(created_from=since, created_before=until),
            OrderFilter(states=(OrderState.FAILED,), created_from=since, created_before=until),
        )
    )
    place = chance.choice((None, shop.at(chance.randrange(shop.orders_count))))
    page = Keyset(
        size=LINES,
        newest_first=chance.random() < 0.5,
        instant=place,
        key=None if place is None else shop.merchant_id,
    )

    async def ask() -> None:
        await read_orders_page(Principal("merchant", shop.merchant_id), conditions, page)

    return ask


def _a_balance_of_the_past(shop: Shop, chance: random.Random) -> Question:
    """At any instant of the history."""
    account_id = shop.pending.account_id
    instant = shop.at(chance.uniform(0, shop.orders_count))

    async def ask() -> None:
        async with phase(Principal("merchant", shop.merchant_id)):
            await balance_as_of(account_id, instant=instant)

    return ask


_now = [""]
"""The ledger version that all pages of this run are read at."""


async def _agree(figures: Figures) -> None:
    """The balance of this moment, found from the past, is the balance."""
    for shop in (SMALL, LARGE):
        account_id = shop.pending.account_id
        async with phase(SYSTEM):
            live = (await balances([account_id]))[account_id]
            instant = (await statement("SELECT purser_now()"))[0][0]
            for found in (
                await balance_as_of(account_id, ledger_version=live.ledger_version),
                await balance_as_of(account_id, instant=instant),
            ):
                if found.posted_minor != live.posted_minor:
                    figures.broken.append(f"{found.posted_minor} is not {live.posted_minor}")
        _now[0] = live.ledger_version


def _warm(folder: Path) -> None:
    """Read the files once: whether they are in memory is the machine's doing, not ours."""
    for path in (folder / "base").rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 22):
                    pass


if __name__ == "__main__":
    sys.exit(main())
