"""The state machines of the profiles: what is remembered of a payer, and of whom many pay.

A state is a small JSON document (under 2 kB) that only these functions read or change; training
replays a history through the very same functions, so both worlds get the same values bit for bit.
Each function returns a new state and never changes the one it was given.

Windows are sums over buckets of one day (the last 7) and of five days (the last 7), next to the
last 12 payments in full; all arithmetic in them is on integers. Each bucket is five numbers in one
flat list: period, count, hundredths, newcomers, odd amounts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from risk_model.events import BETWEEN_PARTIES, OPERATIONS, Event

State = Mapping[str, Any]

DAY = 86_400
RECENT_MAX = 12
SEEN_MAX = 20
DAYS_MAX = 7
PERIODS_MAX = 7
PERIOD_DAYS = 5
FRAUD_DAYS_MAX = 31
HABIT_MEMORY = 100
"""A habit forgets: from the hundredth payment on, each one weighs a hundredth."""
HABIT_PRIOR_COUNT = 3
HABIT_PRIOR_VARIANCE = 0.35
ODD_DEVIATION = 2.5
HOURS_MAX = 200
WIDTH = 5

NO_HABIT = (0, 0.0, 0.0, 0)


def remember(state: State, event: Event, *, teaches: bool = True) -> dict[str, Any]:
    """The payer's state after `event`. What was blocked counts but teaches no habit (`teaches`)."""
    at = max(event.at, state.get("last_at", 0))
    newcomer = is_newcomer(state, event)
    habit = state.get("habits", {}).get(event.operation, NO_HABIT)
    odd = deviation(habit, event.size) > ODD_DEVIATION
    kind = OPERATIONS.index(event.operation) * 2 + newcomer
    fact = (event.hundredths, int(newcomer), int(odd))
    return {
        "first_at": state.get("first_at", at),
        "last_at": at,
        "count": state.get("count", 0) + 1,
        "habits": _taught(state, event, habit) if teaches else state.get("habits", {}),
        "hours": _hours(state.get("hours"), at) if teaches else state.get("hours", [0] * 8),
        "at": _appended(state.get("at", ()), at, RECENT_MAX),
        "amounts": _appended(state.get("amounts", ()), event.hundredths, RECENT_MAX),
        "kinds": _appended(state.get("kinds", ()), kind, RECENT_MAX),
        "seen": _seen(state.get("seen", ()), event),
        "days": _bucketed(state.get("days", ()), at // DAY, fact, DAYS_MAX),
        "periods": _bucketed(
            state.get("periods", ()), at // (DAY * PERIOD_DAYS), fact, PERIODS_MAX
        ),
    }


def fold(
    state: State, event: Event, *, newcomer: bool, odd: bool, teaches: bool = True
) -> dict[str, Any]:
    """The state of a merchant or payee after a payment to it.

    `newcomer`: its payer had not paid it lately; `odd`: the amount was odd for its payer. Both were
    found when the payment was assessed. What was blocked counts but teaches no habit (`teaches`).
    """
    habit = state.get("habit", NO_HABIT)
    at = max(event.at, state.get("last_at", 0))
    fact = (event.hundredths, int(newcomer), int(odd))
    return {
        **state,
        "first_at": state.get("first_at", at),
        "last_at": at,
        "count": state.get("count", 0) + 1,
        "habit": _learned(habit, event) if teaches else list(habit),
        "days": _bucketed(state.get("days", ()), at // DAY, fact, DAYS_MAX),
        "periods": _bucketed(
            state.get("periods", ()), at // (DAY * PERIOD_DAYS), fact, PERIODS_MAX
        ),
    }


def fold_fraud(state: State, known_at: int) -> dict[str, Any]:
    """The state of a merchant or payee after one of its payments became known as a fraud."""
    day = known_at // DAY
    frauds = list(state.get("frauds", ()))
    if frauds and frauds[-2] == day:
        frauds[-1] += 1
    else:
        frauds += (day, 1)
    last = max(known_at, state.get("fraud_known_at", 0))
    return {**state, "frauds": frauds[-2 * FRAUD_DAYS_MAX :], "fraud_known_at": last}


def is_newcomer(state: State, event: Event) -> bool:
    """Whether the payer has not paid this counterparty lately."""
    return event.operation in BETWEEN_PARTIES and event.counterparty not in state.get("seen", ())


def deviation(habit: tuple[Any, ...] | list[Any], size: float) -> float:
    """How many of its own deviations `size` lies above the habit's mean; 0 without a habit.

    The spread is drawn towards a common one while there are few payments.
    """
    count, mean, variance, _ = habit
    if count == 0:
        return 0.0
    spread = (count * variance + HABIT_PRIOR_COUNT * HABIT_PRIOR_VARIANCE) / (
        count + HABIT_PRIOR_COUNT
    )
    return (size - mean) / math.sqrt(spread)  # type: ignore[no-any-return]


def window(buckets: list[int], since: int) -> tuple[int, int, int, int]:
    """Count, hundredths, newcomers and odd amounts of the buckets from period `since` on."""
    count = hundredths = newcomers = odd = 0
    for start in range(len(buckets) - WIDTH, -1, -WIDTH):
        if buckets[start] < since:
            break
        count += buckets[start + 1]
        hundredths += buckets[start + 2]
        newcomers += buckets[start + 3]
        odd += buckets[start + 4]
    return count, hundredths, newcomers, odd


def frauds_since(state: State, day: int) -> int:
    """Frauds among the payments to this merchant or payee that became known on `day` or later."""
    frauds = state.get("frauds", ())
    return sum(frauds[at + 1] for at in range(0, len(frauds), 2) if frauds[at] >= day)


def _taught(state: State, event: Event, habit: Any) -> dict[str, Any]:
    return {**state.get("habits", {}), event.operation: _learned(habit, event)}


def _learned(habit: Any, event: Event) -> list[Any]:
    """Count, mean and variance of ln(1 + amount), and the largest amount: forgetting, see above."""
    count, mean, variance, largest = habit
    weight = 1 / min(count + 1, HABIT_MEMORY)
    step = event.size - mean
    mean += weight * step
    variance = (1 - weight) * (variance + weight * step * step)
    return [count + 1, round(mean, 6), round(variance, 6), max(largest, event.hundredths)]


def _hours(hours: list[int] | None, at: int) -> list[int]:
    """Payments by three hours of the day; all are halved when one is full, so that habits may
    change.
    """
    counts = list(hours) if hours else [0] * 8
    counts[at % DAY // 10_800] += 1
    return [count // 2 for count in counts] if max(counts) > HOURS_MAX else counts


def _appended(values: Any, value: int, size_max: int) -> list[int]:
    return [*values[-(size_max - 1) :], value]


def _seen(tokens: Any, event: Event) -> list[int]:
    """The counterparties paid lately, the latest last."""
    if event.operation not in BETWEEN_PARTIES:
        return list(tokens)
    others = [token for token in tokens if token != event.counterparty]
    return [*others[-(SEEN_MAX - 1) :], event.counterparty]


def _bucketed(buckets: Any, period: int, fact: tuple[int, int, int], buckets_max: int) -> list[int]:
    hundredths, newcomers, odd = fact
    kept = list(buckets[-WIDTH * buckets_max :])
    if not kept or kept[-WIDTH] != period:
        kept = [*kept[-WIDTH * (buckets_max - 1) :], period, 0, 0, 0, 0]
    kept[-4] += 1
    kept[-3] += hundredths
    kept[-2] += newcomers
    kept[-1] += odd
    return kept
