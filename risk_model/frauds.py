"""The frauds of the made-up world, each pattern a function that adds payments or spoils some.

Every fraud has an instant and a later one at which it becomes known; some are told only weeks
later, and a few genuine payments are disputed by their own payers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from risk_model.generator import (
    PAY,
    PAYOUT,
    STARTS_AT,
    TOP_UP,
    TRANSFER,
    World,
    bounded,
    earned_a_day,
    history_of,
    usual_amounts,
)
from risk_model.history import Column, History, joined
from risk_model.profiles import DAY

HOUR = 3_600
Random = np.random.Generator

PATTERNS = (
    "genuine",
    "stolen-card burst",
    "stolen card used slowly",
    "compromised terminal",
    "account takeover",
    "payout takeover",
    "card testing",
    "splitting under limits",
    "collusive merchant",
    "mule wallet",
    "friendly fraud",
)


def with_frauds(world: World, genuine: History, random: Random) -> History:
    """The history with about four frauds in a hundred payments."""
    spoiled = _compromised_terminals(world, genuine, random)
    spoiled = _friendly(spoiled, random)
    scale = len(genuine) / 100_000
    wanted: list[tuple[Callable[[World, int, Random], History], int]] = [
        (_stolen_card_bursts, 150),
        (_stolen_cards_used_slowly, 180),
        (_account_takeovers, 180),
        (_payout_takeovers, 80),
        (_card_testing, 60),
        (_splitting, 80),
        (_collusive_merchants, 16),
        (_mule_wallets, 60),
    ]
    parts = [spoiled]
    for pattern, cases in wanted:
        parts.append(pattern(world, max(1, random.poisson(cases * scale)), random))
    return joined(parts)


def _told(part: History, pattern: str, random: Random, days: float = 5.0) -> History:
    """Marked as frauds of one pattern, known some days later."""
    count = len(part)
    delay = np.clip(random.lognormal(np.log(days), 0.6, count), 0.5, 75) * DAY
    return replace(
        part,
        is_fraud=np.ones(count, dtype=np.int8),
        known_at=part.at + delay.astype(np.int64),
        pattern=np.full(count, PATTERNS.index(pattern), dtype=np.int8),
    )


def _victims(world: World, cases: int, random: Random, lived_days: float = 10) -> Column:
    """Customers (numbered from 0) that have been with us for some days at the end."""
    old = np.flatnonzero(world.joined_at < world.ends_at - (lived_days + 3) * DAY)
    return random.choice(old, cases)


def _starts(world: World, customers: Column, random: Random, lived_days: float) -> Column:
    """An instant in each customer's life, at least some days after its beginning."""
    since = np.maximum(world.joined_at[customers], STARTS_AT) + lived_days * DAY
    return (since + random.random(len(customers)) * (world.ends_at - 2 * DAY - since)).astype(
        np.int64
    )


def _spread(starts: Column, counts: Column, seconds: Column, random: Random) -> Column:
    """For each case `counts` instants within `seconds` of its start."""
    later: Column = random.random(counts.sum()) * np.repeat(seconds, counts)
    return np.repeat(starts, counts) + later.astype(np.int64)


def _payments(
    world: World, at: Column, operation: int, customers: Column, party: Column, amounts: Column
) -> History:
    kept = at < world.ends_at
    return history_of(
        at[kept],
        operation,
        world.merchants_count + customers[kept],
        party[kept],
        bounded(amounts[kept]),
    )


def _stolen_card_bursts(world: World, cases: int, random: Random) -> History:
    """A few hours of large payments at shops the owner never went to."""
    victims = _victims(world, cases, random)
    counts = random.integers(3, 10, cases)
    seconds = random.uniform(0.5, 6, cases) * HOUR
    at = _spread(_starts(world, victims, random, 8), counts, seconds, random)
    customers = np.repeat(victims, counts)
    shops = random.integers(0, world.merchants_count, len(at))
    usual = usual_amounts(world, customers, shops, at, random)
    amounts = usual * random.lognormal(1.3, 0.45, len(at))
    return _told(_payments(world, at, PAY, customers, shops, amounts), PATTERNS[1], random)


def _stolen_cards_used_slowly(world: World, cases: int, random: Random) -> History:
    """One or two weeks of payments several times the usual, between the owner's own."""
    victims = _victims(world, cases, random, 20)
    counts = random.integers(3, 12, cases)
    seconds = random.uniform(6, 15, cases) * DAY
    at = _spread(_starts(world, victims, random, 10), counts, seconds, random)
    customers = np.repeat(victims, counts)
    favourite = world.favourites[customers, random.integers(0, world.town.favourites, len(at))]
    elsewhere = random.integers(0, world.merchants_count, len(at))
    shops = np.where(random.random(len(at)) < 0.5, favourite, elsewhere)
    amounts = usual_amounts(world, customers, shops, at, random) * random.lognormal(
        1.55, 0.25, len(at)
    )
    return _told(_payments(world, at, PAY, customers, shops, amounts), PATTERNS[2], random)


def _compromised_terminals(world: World, history: History, random: Random) -> History:
    """For two to four weeks, much of what is paid at a merchant's terminal is fraud."""
    is_fraud, known_at = history.is_fraud.copy(), history.known_at.copy()
    pattern = history.pattern.copy()
    cases = max(1, round(len(history) / 4_000))
    for merchant in random.choice(world.merchants_count, cases, replace=False):
        start = STARTS_AT + random.uniform(0.05, 0.95) * world.days * DAY
        end = start + random.uniform(14, 28) * DAY
        struck = (history.operation == PAY) & (history.counterparty == merchant)
        struck &= (history.at >= start) & (history.at < end)
        struck &= random.random(len(history)) < 0.7
        delay = np.clip(random.lognormal(np.log(6), 0.4, struck.sum()), 1, 30) * DAY
        is_fraud[struck] = 1
        known_at[struck] = history.at[struck] + delay.astype(np.int64)
        pattern[struck] = PATTERNS.index("compromised terminal")
    return replace(history, is_fraud=is_fraud, known_at=known_at, pattern=pattern)


def _account_takeovers(world: World, cases: int, random: Random) -> History:
    """In a short while, mostly while the owner sleeps, a wallet goes to payees nobody knew."""
    victims = _victims(world, cases, random)
    counts = random.integers(1, 5, cases)
    starts = _starts(world, victims, random, 8) // DAY * DAY
    asleep = world.waking_hour[victims] + random.normal(-4, 3, cases)
    starts += (asleep % 24 * HOUR).astype(np.int64)
    at = _spread(starts, counts, np.full(cases, 1.5 * HOUR), random)
    customers = np.repeat(victims, counts)
    mules = world.merchants_count + random.integers(0, world.customers_count, cases)
    level = np.exp(world.level[customers])
    amounts = random.lognormal(6.3, 0.7, len(at)) * level * 100
    stolen = _payments(world, at, TRANSFER, customers, np.repeat(mules, counts), amounts)
    filled = random.random(cases) < 0.4
    brought = random.lognormal(6.5, 0.6, filled.sum()) * np.exp(world.level[victims[filled]]) * 100
    top_ups = _payments(
        world,
        starts[filled] - 600,
        TOP_UP,
        victims[filled],
        np.zeros(filled.sum()),
        np.rint(brought / 1_000) * 1_000,
    )
    return _told(joined([stolen, top_ups]), "account takeover", random, 2.0)


def _payout_takeovers(world: World, cases: int, random: Random) -> History:
    """Somebody else pays out a merchant's balance, at an hour of their own."""
    merchants = random.integers(0, world.merchants_count, cases)
    since = world.opened_at[merchants] + 20 * DAY
    at = (since + random.random(cases) * np.maximum(DAY, world.ends_at - since)).astype(np.int64)
    at = at // DAY * DAY + random.integers(0, DAY, cases)
    taken = 7 * earned_a_day(world, merchants) * random.lognormal(1.5, 0.4, cases)
    amounts = bounded(taken * 100)
    kept = at < world.ends_at
    part = history_of(at[kept], PAYOUT, merchants[kept], np.zeros(kept.sum()), amounts[kept])
    return _told(part, "payout takeover", random, 1.5)


def _card_testing(world: World, cases: int, random: Random) -> History:
    """Many tiny payments in minutes, to learn which cards live; then one that counts."""
    victims = _victims(world, cases, random, 3)
    counts = random.integers(6, 18, cases)
    starts = _starts(world, victims, random, 1)
    at = _spread(starts, counts, np.full(cases, 0.7 * HOUR), random)
    customers = np.repeat(victims, counts)
    shops = np.repeat(random.integers(0, world.merchants_count, cases), counts)
    tests = _payments(world, at, PAY, customers, shops, random.uniform(50, 400, len(at)))
    where = random.integers(0, world.merchants_count, cases)
    large = random.lognormal(5.8, 0.5, cases) * 100
    blow = _payments(world, starts + HOUR, PAY, victims, where, large)
    return _told(joined([tests, blow]), "card testing", random)


def _splitting(world: World, cases: int, random: Random) -> History:
    """A large sum in nearly equal pieces, each just under a limit."""
    victims = _victims(world, cases, random)
    counts = random.integers(4, 10, cases)
    at = _spread(
        _starts(world, victims, random, 5), counts, random.uniform(1, 14, cases) * HOUR, random
    )
    customers = np.repeat(victims, counts)
    to_payee = np.repeat(random.random(cases) < 0.5, counts)
    payees = np.repeat(
        world.merchants_count + random.integers(0, world.customers_count, cases), counts
    )
    shops = np.repeat(random.integers(0, world.merchants_count, cases), counts)
    limit = np.repeat(random.choice([200, 500, 1000], cases, p=[0.6, 0.25, 0.15]), counts)
    amounts = limit * random.uniform(0.9, 0.999, len(at)) * 100
    transfers, pays = to_payee, ~to_payee
    parts = [
        _payments(world, at[mask], kind, customers[mask], party[mask], amounts[mask])
        for mask, kind, party in ((transfers, TRANSFER, payees), (pays, PAY, shops))
    ]
    return _told(joined(parts), "splitting under limits", random)


def _collusive_merchants(world: World, cases: int, random: Random) -> History:
    """A young merchant charges many stolen accounts for a fortnight and is gone."""
    merchants = random.integers(0, world.merchants_count, cases)
    counts = random.integers(15, 45, cases)
    start = STARTS_AT + random.uniform(0.1, 0.9, cases) * world.days * DAY
    at = _spread(start.astype(np.int64), counts, np.full(cases, 12 * DAY), random)
    customers = _victims(world, len(at), random, 0)
    lives = np.maximum(world.joined_at[customers], STARTS_AT) < at
    shops = np.repeat(merchants, counts)
    amounts = random.lognormal(5.6, 0.5, len(at)) * 100
    part = _payments(world, at[lives], PAY, customers[lives], shops[lives], amounts[lives])
    return _told(part, "collusive merchant", random, 12.0)


def _mule_wallets(world: World, cases: int, random: Random) -> History:
    """A wallet that is hardly a day old moves large sums on to one payee."""
    young = random.integers(0, world.customers_count, cases)
    counts = random.integers(2, 7, cases)
    starts = np.maximum(world.joined_at[young], STARTS_AT) + random.integers(HOUR, 2 * DAY, cases)
    at = _spread(starts, counts, np.full(cases, DAY), random)
    payees = np.repeat(
        world.merchants_count + random.integers(0, world.customers_count, cases), counts
    )
    amounts = random.lognormal(6.6, 0.5, len(at)) * 100
    part = _payments(world, at, TRANSFER, np.repeat(young, counts), payees, amounts)
    return _told(part, "mule wallet", random, 8.0)


def _friendly(history: History, random: Random) -> History:
    """Payers dispute what they bought themselves, after a month or two."""
    struck = (history.operation == PAY) & (history.is_fraud == 0)
    struck &= random.random(len(history)) < 0.0012
    is_fraud, known_at = history.is_fraud.copy(), history.known_at.copy()
    pattern = history.pattern.copy()
    is_fraud[struck] = 1
    known_at[struck] = history.at[struck] + random.integers(25 * DAY, 60 * DAY, struck.sum())
    pattern[struck] = PATTERNS.index("friendly fraud")
    return replace(history, is_fraud=is_fraud, known_at=known_at, pattern=pattern)
