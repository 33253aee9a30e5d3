"""The features: what the model sees of a payment, computed from the profiles as they were before
it.

One definition serves training and the path of a payment. Values are rounded once, here, and become
float32 once, in `vector`; what a decision stores is what the model was given. Nothing here reads a
clock: time is the payment's `at` alone. The hour itself is no feature, only the payer's own habit
is: payers live in all time zones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from risk_model.events import OPERATIONS, Event
from risk_model.profiles import (
    DAY,
    NO_HABIT,
    ODD_DEVIATION,
    PERIOD_DAYS,
    State,
    deviation,
    frauds_since,
    is_newcomer,
    window,
)

HOUR = 3_600
NEVER_DAYS = 400.0
AGE_MAX = 30 * DAY
HABIT_COUNT_MAX = 40
"""Ages and lifetime counts end here: a model must not learn the calendar from them."""
PAYER_FEATURES = (
    "amount",  # ln(1 + major units)
    "is_top_up",
    "is_transfer",
    "is_payout",
    "deviation",  # of the amount from the payer's habit for this operation
    "amount_to_mean",  # differences of logarithms: 1.6 is five times
    "amount_to_median",
    "amount_to_largest",
    "amount_rank",  # share of the payer's last amounts of this operation that were smaller
    "habit_count",
    "count_1h",  # counts of one hour and one day end at 12
    "count_1d",
    "count_7d",
    "count_30d",
    "pace",  # payments of the last day against a usual day
    "spending_pace",  # the same for amounts, with this one
    "size_1h",  # mean size of the last hour's payments, with this one, against the habit
    "repeats_1d",  # payments of the last day within 15 % of this amount
    "odd_15d",
    "odd_share_15d",
    "idle_hours",  # logarithms of 1 + hours or days
    "age_days",
    "is_newcomer",  # the payer has not paid this counterparty lately
    "newcomers_1d",
    "newcomers_7d",
    "hour_habit",  # share of the payer's payments in these three hours of the day
    "top_up_hours",  # since the last top-up
    "top_up_drained",  # the amount against the top-ups of the last day
)
SHARED_FEATURES = (
    "shared_count_30d",
    "shared_age_days",
    "shared_deviation",
    "shared_pace",
    "shared_newcomer_share_7d",
    "shared_odd_share_7d",
    "shared_frauds_7d",
    "shared_frauds_30d",
    "shared_fraud_share_30d",
    "shared_fraud_days",  # since the last fraud became known
)
NAMES = PAYER_FEATURES + SHARED_FEATURES
SCHEMA = hashlib.sha256("\n".join(("1", *NAMES)).encode()).hexdigest()[:16]
"""Names the definition: raise the number in front when a value is computed in another way."""


def features(event: Event, payer: State, shared: State) -> list[float]:
    """The values of `NAMES` for one payment; a state is empty where nothing is known."""
    return payer_features(event, payer) + shared_features(event, shared)


def vector(rows: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    """Rows of features as the one float32 array that training and serving see."""
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(NAMES))


def named(values: Sequence[float]) -> dict[str, float]:
    """The values by their names."""
    return dict(zip(NAMES, values, strict=True))


def stored(row: np.ndarray[Any, Any]) -> bytes:
    """A row of `vector` as a decision keeps it: float32, little-endian, in the order of `NAMES`."""
    return row.astype("<f4", copy=False).tobytes()


def snapshot(features: bytes, schema: str = SCHEMA) -> dict[str, float]:
    """What a decision kept, by name; of another schema than the present one, by place."""
    values = np.frombuffer(features, dtype="<f4").tolist()
    if schema == SCHEMA and values:
        return named(values)
    return {f"feature_{place}": value for place, value in enumerate(values, start=1)}


def is_odd(deviation_of_amount: float) -> bool:
    """Whether the amount was odd for its payer, as `profiles.remember` counted it."""
    return deviation_of_amount > ODD_DEVIATION


def payer_features(event: Event, state: State) -> list[float]:
    """What the payer's own past says about this payment."""
    at = max(event.at, state.get("last_at", 0))
    size = event.size
    habit = state.get("habits", {}).get(event.operation, NO_HABIT)
    habit_count, mean, _, largest = habit
    recent = _Recent(state, event, at)
    days, periods = state.get("days", []), state.get("periods", [])
    day, period = at // DAY, at // (DAY * PERIOD_DAYS)
    count_7d, _, newcomers_7d, _ = window(days, day - 6)
    count_30d, hundredths_30d, _, _ = window(periods, period - 6)
    count_15d, _, _, odd_15d = window(periods, period - 3)
    hours = state.get("hours")
    second_of_day = at % DAY
    known = habit_count > 0
    return [
        size,
        float(event.operation == "TOP_UP"),
        float(event.operation == "TRANSFER"),
        float(event.operation == "PAYOUT"),
        round(deviation(habit, size), 4),
        round(size - mean, 4) if known else 0.0,
        round(size - recent.median, 4) if recent.amounts else 0.0,
        round(size - math.log1p(largest / 100), 4) if known else 0.0,
        round(recent.smaller_count / len(recent.amounts), 4) if recent.amounts else 0.5,
        float(min(habit_count, HABIT_COUNT_MAX)),
        float(recent.count_1h),
        float(recent.count_1d),
        float(count_7d),
        float(count_30d),
        round(math.log((recent.count_1d + 1) / (count_30d / 30 + 1)), 4),
        round(
            math.log1p((recent.hundredths_1d + event.hundredths) / 100)
            - math.log1p(hundredths_30d / 3000),
            4,
        ),
        round(recent.size_1h - mean, 4) if known else round(recent.size_1h - size, 4),
        float(recent.repeats_1d),
        float(odd_15d),
        round(odd_15d / (count_15d + 2), 4),
        round(math.log1p((at - state.get("last_at", at)) / HOUR), 4),
        round(math.log1p(min(at - state.get("first_at", at), AGE_MAX) / DAY), 4),
        float(is_newcomer(state, event)),
        float(recent.newcomers_1d),
        float(newcomers_7d),
        round((hours[second_of_day // 10_800] + 1) / (sum(hours) + 8), 4) if hours else 0.125,
        round(math.log1p(recent.top_up_seconds / HOUR), 4),
        round(math.log((event.hundredths + 100) / (recent.topped_up_1d + 100)), 4),
    ]


def shared_features(event: Event, state: State) -> list[float]:
    """What is known of the merchant or payee; all neutral where nothing is."""
    if not state:
        return [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, round(math.log1p(NEVER_DAYS), 4)]
    at = max(event.at, state.get("last_at", 0))
    day, period = at // DAY, at // (DAY * PERIOD_DAYS)
    days, periods = state.get("days", []), state.get("periods", [])
    count_1d = window(days, day - 1)[0]
    count_7d, _, newcomers_7d, odd_7d = window(days, day - 6)
    count_30d = window(periods, period - 6)[0]
    frauds_30d = frauds_since(state, day - 30)
    fraud_known_at = state.get("fraud_known_at")
    fraud_days = max(0, at - fraud_known_at) / DAY if fraud_known_at else NEVER_DAYS
    return [
        round(math.log1p(count_30d), 4),
        round(math.log1p(min(at - state.get("first_at", at), AGE_MAX) / DAY), 4),
        round(deviation(state.get("habit", NO_HABIT), event.size), 4),
        round(math.log((count_1d + 2) / (count_30d / 15 + 2)), 4),
        round(newcomers_7d / (count_7d + 5), 4),
        round(odd_7d / (count_7d + 5), 4),
        float(frauds_since(state, day - 7)),
        float(frauds_30d),
        round(frauds_30d / (count_30d + 5), 4),
        round(math.log1p(min(fraud_days, NEVER_DAYS)), 4),
    ]


class _Recent:
    """What the last payments in full say, in one walk from the latest to the earliest."""

    __slots__ = (
        "amounts",
        "count_1d",
        "count_1h",
        "hundredths_1d",
        "median",
        "newcomers_1d",
        "repeats_1d",
        "size_1h",
        "smaller_count",
        "top_up_seconds",
        "topped_up_1d",
    )

    def __init__(self, state: State, event: Event, at: int) -> None:
        self.amounts: list[int] = []
        self.count_1h = self.count_1d = self.newcomers_1d = self.repeats_1d = 0
        self.hundredths_1d = self.topped_up_1d = self.smaller_count = 0
        self.top_up_seconds: float = NEVER_DAYS * DAY
        self._walk(state, event, at)
        self.median = math.log1p(_middle(self.amounts) / 100) if self.amounts else 0.0

    def _walk(self, state: State, event: Event, at: int) -> None:
        instants, amounts = state.get("at", ()), state.get("amounts", ())
        kinds = state.get("kinds", ())
        same = OPERATIONS.index(event.operation)
        wanted = event.hundredths
        low, high = wanted * 85 // 100, wanted * 115 // 100
        sizes = event.size
        for place in range(len(instants) - 1, -1, -1):
            age, amount = at - instants[place], amounts[place]
            operation, newcomer = divmod(kinds[place], 2)
            if operation == same:
                self.amounts.append(amount)
                self.smaller_count += amount < wanted
            if operation == _TOP_UP:
                self.top_up_seconds = min(self.top_up_seconds, age)
            if age >= DAY:
                continue
            self.newcomers_1d += newcomer
            self.count_1d += 1
            if operation == _TOP_UP:
                self.topped_up_1d += amount
            else:
                self.hundredths_1d += amount
            self.repeats_1d += low <= amount <= high
            if age < HOUR:
                self.count_1h += 1
                sizes += math.log1p(amount / 100)
        self.size_1h = sizes / (self.count_1h + 1)


_TOP_UP = OPERATIONS.index("TOP_UP")


def _middle(values: Sequence[int]) -> int:
    """The upper median: one of the values, so that no rounding is needed."""
    return sorted(values)[len(values) // 2]
