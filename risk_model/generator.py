"""A made-up world of payers, merchants and payments, for a first model and for tests.

Customers have habits, places and friends; merchants a category and a place; there are days, weeks,
growth and drift. Seeded: the same arguments give the same history, byte for byte. Nothing in it
stands for a real person or business, and no figure measured on it is one about the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from risk_model.events import HUNDREDTHS_MAX, OPERATIONS
from risk_model.history import NEVER, Column, History, joined
from risk_model.profiles import DAY

STARTS_AT = 1_704_067_200
DAYS = 150
FRIENDS = 6
PAY, TOP_UP, TRANSFER, PAYOUT = range(len(OPERATIONS))
GENUINE = 0

CATEGORIES = np.array(
    [
        # ln of the usual amount in major units, its spread, share of the merchants
        (3.3, 0.45, 0.30),  # food
        (2.2, 0.40, 0.20),  # transport
        (4.2, 0.60, 0.20),  # clothes and household
        (1.6, 0.50, 0.12),  # games and media
        (5.4, 0.55, 0.08),  # electronics
        (4.8, 0.35, 0.06),  # bills
        (6.0, 0.50, 0.04),  # travel
    ]
)
WEEKDAY_WEIGHTS = np.array([0.92, 0.94, 0.97, 1.0, 1.14, 1.2, 1.0])
TOP_UPS = np.array([20, 50, 100, 100, 200, 300, 500, 1000]) * 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """How one place differs from another, so that a model does not take one town for the world.

    `wandering` is the mean share of payments at merchants that are not the payer's favourites.
    """

    share: float
    customers_a_merchant: float
    payments_a_day: float
    favourites: int
    wandering: float
    top_up_share: float


TOWNS = (
    Town(
        share=0.4,
        customers_a_merchant=5,
        payments_a_day=0.5,
        favourites=12,
        wandering=0.15,
        top_up_share=0.14,
    ),
    Town(
        share=0.3,
        customers_a_merchant=2,
        payments_a_day=1.0,
        favourites=30,
        wandering=0.35,
        top_up_share=0.06,
    ),
    Town(
        share=0.3,
        customers_a_merchant=0.6,
        payments_a_day=1.6,
        favourites=60,
        wandering=0.5,
        top_up_share=0.0,
    ),
)


@dataclass(frozen=True, slots=True)
class World:
    """Who pays and who is paid. Customers are numbered from `merchants_count` on."""

    town: Town

    days: int
    category: Column
    merchant_place: Column
    popularity: Column
    opened_at: Column
    joined_at: Column
    rate: Column
    level: Column
    spread: Column
    waking_hour: Column
    favourites: Column
    friends: Column
    wandering: Column
    evenly: Column

    @property
    def merchants_count(self) -> int:
        return len(self.category)

    @property
    def customers_count(self) -> int:
        return len(self.joined_at)

    @property
    def ends_at(self) -> int:
        return STARTS_AT + self.days * DAY


def generate(payments: int, *, seed: int, days: int = DAYS) -> History:
    """A history of about `payments` payments over `days` days, frauds among them."""
    from risk_model.frauds import with_frauds

    random = np.random.default_rng(seed)
    parts: list[History] = []
    parties_count = 0
    for town in TOWNS:
        world = make_world(town, payments, random, days)
        payments_of_a_day = _of_customers(world, random)
        sprees = _sprees(world, payments_of_a_day, random)
        genuine = joined([payments_of_a_day, sprees, _of_merchants(world, random)])
        parts.append(with_frauds(world, genuine, random).renumbered(parties_count))
        parties_count += world.merchants_count + world.customers_count
    return joined(parts)


def make_world(town: Town, payments: int, random: np.random.Generator, days: int = DAYS) -> World:
    """A town's parties with their habits; as many as make its share of the payments, about."""
    customers = max(30, round(payments * town.share / (town.payments_a_day * days * 0.9)))
    merchants = max(town.favourites, 20, round(customers / town.customers_a_merchant))
    shares = CATEGORIES[:, 2] / CATEGORIES[:, 2].sum()
    place = random.random((merchants, 2))
    popularity = 1 / (1 + random.permutation(merchants)) ** 0.6
    # A third were there before; the others join faster and faster.
    grown = random.random(customers) ** 0.7
    before = random.random(customers) < 0.35
    joined_at = STARTS_AT + np.where(before, -30 * random.random(customers), grown * days) * DAY
    opened = np.where(random.random(merchants) < 0.8, 0.0, random.random(merchants) * days)
    home = random.random((customers, 2))
    return World(
        town=town,
        days=days,
        category=random.choice(len(CATEGORIES), merchants, p=shares),
        merchant_place=place,
        popularity=popularity / popularity.sum(),
        opened_at=(STARTS_AT + opened * DAY).astype(np.int64),
        joined_at=joined_at.astype(np.int64),
        rate=np.clip(random.lognormal(-0.25, 0.7, customers), 0.08, 5) * town.payments_a_day,
        level=random.normal(0, 0.5, customers),
        spread=random.uniform(0.35, 0.75, customers),
        # In hours of UTC: payers live in all time zones.
        waking_hour=random.uniform(0, 24, customers),
        favourites=_favourites(town, home, place, popularity, random),
        friends=merchants + random.integers(0, customers, (customers, FRIENDS)),
        wandering=random.beta(4 * town.wandering, 4 * (1 - town.wandering), customers),
        evenly=random.random(customers) < 0.4,
    )


def usual_amounts(
    world: World, customers: Column, merchants: Column, at: Column, random: np.random.Generator
) -> Column:
    """Amounts in hundredths as these customers (numbered from 0) spend at these merchants."""
    category = CATEGORIES[world.category[merchants]]
    drift = 0.10 * (at - STARTS_AT) / (world.days * DAY)
    # A payer's own level shows more than the shop's price: people choose by it.
    centre = 0.55 * category[:, 0] + 0.45 * 3.4 + world.level[customers] + drift
    spread = np.sqrt((0.7 * world.spread[customers]) ** 2 + (0.5 * category[:, 1]) ** 2)
    amounts = np.exp(random.normal(centre, spread))
    # Some spend by whim rather than by errand: around one mean, and often next to nothing.
    even = np.exp(3.4 + world.level[customers] + drift) * random.normal(1.1, 0.5, len(at))
    even = np.where(even > 0, even, np.exp(3.4) * random.random(len(at)))
    amounts = np.where(world.evenly[customers], even, amounts)
    # Once in a while everybody buys something large.
    large = random.random(len(at)) < 0.005
    amounts *= np.where(large, np.exp(random.uniform(0.9, 2.0, len(at))), 1)
    return bounded(amounts * 100)


def earned_a_day(world: World, merchants: Column) -> Column:
    """What these merchants earn on a day, about, in major units."""
    price = np.exp(CATEGORIES[world.category[merchants], 0])
    earned: Column = 5 * price * world.popularity[merchants] * world.merchants_count
    return earned


def bounded(hundredths: Column) -> Column:
    """Whole hundredths within the bounds of an event."""
    return np.clip(np.rint(hundredths), 1, HUNDREDTHS_MAX).astype(np.int64)


def history_of(
    at: Column, operation: Column | int, payer: Column, counterparty: Column, hundredths: Column
) -> History:
    """A history of genuine payments; one operation stands for all where it is a number."""
    count = len(at)
    return History(
        at=at.astype(np.int64),
        operation=np.broadcast_to(operation, count).astype(np.int8),
        payer=payer.astype(np.int64),
        counterparty=counterparty.astype(np.int64),
        hundredths=hundredths.astype(np.int64),
        is_fraud=np.zeros(count, dtype=np.int8),
        known_at=np.full(count, NEVER),
        pattern=np.zeros(count, dtype=np.int8),
    )


def _favourites(
    town: Town, home: Column, place: Column, popularity: Column, random: np.random.Generator
) -> Column:
    """For each customer the merchants it goes to: near and well known ones, by chance."""
    near = np.exp(-6 * np.linalg.norm(home[:, None, :] - place[None, :, :], axis=2))
    chance = random.gumbel(size=near.shape) + np.log(near * popularity)
    return np.argsort(-chance, axis=1)[:, : town.favourites]


def _instants(
    world: World, customers: Column, random: np.random.Generator, since: Column
) -> Column:
    """Instants after `since`, more on some weekdays, in each customer's waking hours."""
    count = len(customers)
    span = world.ends_at - since
    first, second = (since + random.random((2, count)) * span).astype(np.int64)
    # Of two days the busier one is taken more often.
    weight = WEEKDAY_WEIGHTS[(np.stack([first, second]) // DAY + 3) % 7]
    first_wins = random.random(count) < weight[0] / weight.sum(axis=0)
    day = np.where(first_wins, first, second) // DAY
    awake = np.where(
        random.random(count) < 0.45, random.normal(11.5, 1.8, count), random.normal(4.5, 2.4, count)
    )
    # Nobody keeps to the hours entirely.
    awake = np.where(random.random(count) < 0.12, random.uniform(0, 24, count), awake)
    hour = (world.waking_hour[customers] + awake) % 24
    at = day * DAY + (hour * 3_600).astype(np.int64)
    within: Column = np.clip(np.maximum(at, since), STARTS_AT, world.ends_at - 1)
    return within


def _of_customers(world: World, random: np.random.Generator) -> History:
    since = np.maximum(world.joined_at, STARTS_AT)
    expected = world.rate * (world.ends_at - since) / DAY
    counts = random.poisson(expected)
    customers = np.repeat(np.arange(world.customers_count), counts)
    at = _instants(world, customers, random, since[customers])
    order = np.lexsort((at, customers))
    customers, at = customers[order], at[order]
    top_ups = world.town.top_up_share
    transfers = 0.02 + top_ups / 2
    shares = [1 - top_ups - transfers, top_ups, transfers]
    operation = random.choice([PAY, TOP_UP, TRANSFER], len(at), p=shares)
    # Who is new brings money first, where people have wallets.
    starts = np.flatnonzero(np.diff(customers, prepend=-1))
    brings = random.random(len(starts)) < 6 * top_ups
    operation[starts] = np.where(brings, TOP_UP, operation[starts])
    counterparty = _counterparties(world, customers, at, operation, random)
    hundredths = _amounts(world, customers, counterparty, at, operation, random)
    payer = world.merchants_count + customers
    return history_of(at, operation, payer, counterparty, hundredths)


def _sprees(world: World, history: History, random: np.random.Generator) -> History:
    """Now and then a payer makes several payments within an hour, often alike, and all genuine.

    Those who are new do so more often: they try what they have got.
    """
    first_at = np.full(world.merchants_count + world.customers_count, NEVER)
    np.minimum.at(first_at, history.payer, history.at)
    is_new = history.at - first_at[history.payer] < DAY
    chance = np.where(is_new, 0.25, 0.05) * (history.operation == PAY)
    starts = np.flatnonzero(random.random(len(history)) < chance)
    counts = np.minimum(random.geometric(0.3, len(starts)), 14)
    begun = np.repeat(starts, counts)
    seconds = np.repeat(random.lognormal(6.8, 1.0, len(starts)), counts)
    at = history.at[begun] + 15 + (random.random(len(begun)) * seconds).astype(np.int64)
    customers = history.payer[begun] - world.merchants_count
    elsewhere = world.favourites[customers, random.integers(0, world.town.favourites, len(begun))]
    stays = random.random(len(begun)) < 0.6
    merchants = np.where(stays, history.counterparty[begun], elsewhere)
    alike = np.repeat(random.random(len(starts)) < 0.4, counts)
    fresh = usual_amounts(world, customers, merchants, at, random)
    hundredths = np.where(alike, history.hundredths[begun], fresh)
    kept = at < world.ends_at
    return history_of(at[kept], PAY, history.payer[begun][kept], merchants[kept], hundredths[kept])


def _counterparties(
    world: World, customers: Column, at: Column, operation: Column, random: np.random.Generator
) -> Column:
    count = len(customers)
    rank = (random.random(count) ** 1.6 * world.town.favourites).astype(int)
    chosen = world.favourites[customers, rank]
    anywhere = random.choice(world.merchants_count, count, p=world.popularity)
    merchants = np.where(random.random(count) < world.wandering[customers], anywhere, chosen)
    # A shop that has not opened yet is replaced by one that was always there.
    always = np.flatnonzero(world.opened_at <= STARTS_AT)
    closed = world.opened_at[merchants] > at
    merchants = np.where(closed, always[merchants % len(always)], merchants)
    friends = world.friends[customers, random.integers(0, FRIENDS, count)]
    return np.where(operation == TRANSFER, friends, np.where(operation == PAY, merchants, 0))


def _amounts(
    world: World,
    customers: Column,
    counterparty: Column,
    at: Column,
    operation: Column,
    random: np.random.Generator,
) -> Column:
    count = len(customers)
    merchants = np.where(operation == PAY, counterparty, 0)
    spent = usual_amounts(world, customers, merchants, at, random)
    level = np.exp(world.level[customers])
    wanted = random.choice(TOP_UPS, count) * np.exp(random.normal(0, 0.2, count)) * level
    brought = np.maximum(1_000, np.rint(wanted / 1_000) * 1_000)
    given = np.maximum(500, np.rint(random.lognormal(4.0, 1.0, count) * level * 20) * 5)
    return bounded(np.where(operation == PAY, spent, np.where(operation == TOP_UP, brought, given)))


def _of_merchants(world: World, random: np.random.Generator) -> History:
    """Merchants pay out what they earned, each in a rhythm of its own, in the morning."""
    rhythm = random.choice([3, 7, 14], world.merchants_count)
    counts = ((world.ends_at - world.opened_at) // DAY // rhythm).astype(int)
    merchants = np.repeat(np.arange(world.merchants_count), counts)
    number = np.arange(len(merchants)) - np.repeat(np.cumsum(counts) - counts, counts)
    day = world.opened_at[merchants] // DAY + (number + 1) * rhythm[merchants]
    at = day * DAY + random.normal(9 * 3_600, 2_400, len(day)).astype(np.int64)
    earned = earned_a_day(world, merchants) * rhythm[merchants]
    hundredths = bounded(earned * random.lognormal(0, 0.35, len(day)) * 100)
    kept = at < world.ends_at
    return history_of(at[kept], PAYOUT, merchants[kept], np.zeros(kept.sum()), hundredths[kept])
