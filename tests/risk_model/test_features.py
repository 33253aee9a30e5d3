"""Features: the same online and offline, bit for bit, and blind to what comes later."""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest

from risk_model import profiles
from risk_model.assessment import Profile, Subject, assess, profile_keys
from risk_model.events import OPERATIONS, TOKEN_MAX, event_of, hundredths_of
from risk_model.features import NAMES, SCHEMA, features, snapshot, stored, vector
from risk_model.folding import folded
from risk_model.generator import generate
from risk_model.history import NEVER, History
from risk_model.replay import replay
from risk_model.scoring import Reason, Unavailable
from tests.risk_model.conftest import LIMITS

DAY = 86_400


@pytest.fixture(scope="module")
def history() -> History:
    """A small generated history."""
    return generate(6_000, seed=11, days=60)


def test_the_path_of_a_payment_sees_what_training_sees_bit_for_bit(history: History) -> None:
    unlabelled = _without_labels(history)
    offline = replay(unlabelled)
    online = _through_assessments(unlabelled)
    assert online.tobytes() == offline.tobytes()


def test_labels_are_folded_online_as_offline() -> None:
    history = generate(3_000, seed=12, days=60)
    struck = history.is_fraud == 1
    offline = replay(history)
    assert struck.any()
    online = _through_assessments(history)
    assert online.tobytes() == offline.tobytes()


def test_flipping_all_labels_after_an_instant_changes_no_earlier_feature(history: History) -> None:
    instant = int(history.at[len(history) // 2])
    delay = 7 * DAY
    known_late = np.where(history.is_fraud == 1, history.at + delay, NEVER)
    honest = replace(history, known_at=known_late)
    after = history.at > instant
    flipped = np.where(after, 1 - history.is_fraud, history.is_fraud).astype(np.int8)
    lying = replace(
        history,
        is_fraud=flipped,
        known_at=np.where(flipped == 1, history.at + delay, NEVER),
    )
    unaffected = history.at <= instant + delay
    before, then = replay(honest), replay(lying)
    assert before[unaffected].tobytes() == then[unaffected].tobytes()
    assert before[~unaffected].tobytes() != then[~unaffected].tobytes()


def test_a_later_payment_changes_no_earlier_feature(history: History) -> None:
    half = len(history) // 2
    whole, first = replay(history), replay(history.taken(np.arange(half)))
    assert whole[:half].tobytes() == first.tobytes()


def test_a_state_that_went_through_the_database_gives_the_same_values() -> None:
    chance = random.Random(5)
    state: dict[str, Any] = {}
    for step in range(300):
        event = event_of(
            chance.choice(OPERATIONS),
            chance.randrange(1, 10**9),
            1_700_000_000 + step * chance.randrange(1, 90_000),
            chance.randrange(TOKEN_MAX),
        )
        stored = json.loads(json.dumps(state))
        assert features(event, stored, {}) == features(event, state, {})
        state = profiles.remember(state, event)


@pytest.mark.parametrize("step_seconds", [1, 600, 40_000, 500_000])
def test_a_profile_stays_small_however_long_it_lives(step_seconds: int) -> None:
    payer: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for step in range(3_000):
        at = 1_700_000_000 + step * step_seconds
        event = event_of(OPERATIONS[step % 4], 10**9 - step, at, TOKEN_MAX - 1 - step % 500)
        payer = profiles.remember(payer, event)
        shared = profiles.fold(shared, event, newcomer=True, odd=True)
        shared = profiles.fold_fraud(shared, at)
    assert len(json.dumps(payer)) < 2_048
    assert len(json.dumps(shared)) < 2_048


def test_features_are_float32_once(history: History) -> None:
    rows = replay(history.taken(np.arange(500)))
    assert rows.dtype == np.float32
    assert rows.shape == (500, len(NAMES))
    again = vector([list(snapshot(stored(row)).values()) for row in rows])
    assert again.tobytes() == rows.tobytes()


def test_an_unknown_payer_and_merchant_have_neutral_features() -> None:
    values = features(event_of("PAY", 30_00, 1_700_000_000, 7), {}, {})
    assert all(np.isfinite(values))
    named = dict(zip(NAMES, values, strict=True))
    assert named["deviation"] == 0
    assert named["is_newcomer"] == 1
    assert named["shared_frauds_30d"] == 0


def test_five_times_the_usual_amount_is_odd() -> None:
    state: dict[str, Any] = {}
    for day in range(30):
        state = profiles.remember(state, event_of("PAY", 20_00, 1_700_000_000 + day * DAY, 7))
    usual = features(event_of("PAY", 22_00, 1_700_000_000 + 31 * DAY, 7), state, {})
    odd = features(event_of("PAY", 100_00, 1_700_000_000 + 31 * DAY, 7), state, {})
    place = NAMES.index("deviation")
    assert usual[place] < 1 < profiles.ODD_DEVIATION < odd[place]


def test_what_was_blocked_counts_but_teaches_no_habit() -> None:
    first = profiles.remember({}, event_of("PAY", 20_00, 1_700_000_000, 7))
    blocked = profiles.remember(first, event_of("PAY", 9_000_00, 1_700_000_100, 7), teaches=False)
    assert blocked["count"] == 2
    assert blocked["habits"] == first["habits"]


def test_a_clock_that_runs_back_never_makes_a_negative_age() -> None:
    state = profiles.remember({}, event_of("PAY", 20_00, 1_700_000_000, 7))
    earlier = event_of("PAY", 20_00, 1_600_000_000, 7)
    assert features(earlier, state, {})[NAMES.index("idle_hours")] == 0
    assert profiles.remember(state, earlier)["last_at"] == 1_700_000_000


@pytest.mark.parametrize(
    ("amount_minor", "currency", "hundredths"),
    [
        (30_00, "CNY", 30_00),
        (3_000, "JPY", 3_000_00),
        (3_000, "BHD", 300),
        (1, "BHD", 1),
        (2**62, "CNY", 10**9),
        (500, "POINTS", 500),
    ],
)
def test_amounts_of_all_currencies_are_brought_to_hundredths_and_bounded(
    amount_minor: int, currency: str, hundredths: int
) -> None:
    assert hundredths_of(amount_minor, currency) == hundredths


def _without_labels(history: History) -> History:
    return replace(
        history,
        is_fraud=np.zeros_like(history.is_fraud),
        known_at=np.full_like(history.known_at, NEVER),
    )


def _through_assessments(history: History) -> np.ndarray[Any, Any]:
    """The same history as payments: JSON profiles, `assess` one by one, `folded` behind each."""
    parties = [_party(number) for number in range(int(history.payer.max()) + 1)]
    known: dict[str, tuple[int, Any]] = {}
    labels = sorted(
        (int(history.known_at[place]), place)
        for place in np.flatnonzero(history.is_fraud == 1).tolist()
    )
    decided: dict[int, dict[str, Any]] = {}
    rows = []
    for place in range(len(history)):
        while labels and labels[0][0] <= history.at[place]:
            known_at, struck = labels.pop(0)
            if struck in decided:
                told = datetime.fromtimestamp(known_at, UTC)
                label = {**decided[struck], "label_id": "told", "known_at": told}
                _fold(known, label)
        subject = _subject(history, place, parties)
        keys = profile_keys(subject)
        read = {key: Profile(*known[key]) for key in keys if key in known}
        assessed = assess([subject], [read], Unavailable(Reason.MISSING), LIMITS)[0]
        # A history that nobody judged has no blocks, and what is blocked would teach nothing.
        assert assessed.outcome != "BLOCK"
        row = assessed.profiles[0]
        known[row.key] = (row.version, orjson.loads(row.state))
        rows.append(assessed.features)
        event = _decision(subject, assessed.features, place)
        if len(keys) > 1:
            decided[place] = event
            _fold(known, event)
    return np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), len(NAMES))


def _fold(known: dict[str, tuple[int, Any]], event: dict[str, Any]) -> None:
    key = event["key"]
    _, states = folded([(key, event)], {key: known[key]} if key in known else {})
    known[key] = (states[0].version, orjson.loads(states[0].state))


def _decision(subject: Subject, values: bytes, place: int) -> dict[str, Any]:
    assert subject.effective_at is not None
    return {
        "key": profile_keys(subject)[-1],
        "decision_id": place,
        "label_id": None,
        "operation": subject.operation,
        "amount_minor": subject.amount_minor,
        "currency": subject.currency,
        "effective_at": subject.effective_at,
        "merchant_id": subject.merchant_id,
        "payee_customer_id": subject.payee_customer_id,
        "features": values,
        "feature_schema": SCHEMA,
        "outcome": "ALLOW",
    }


def _subject(history: History, place: int, parties: list[uuid.UUID]) -> Subject:
    operation = OPERATIONS[history.operation[place]]
    payer, party = int(history.payer[place]), int(history.counterparty[place])
    of_merchant = operation == "PAYOUT"
    return Subject(
        operation=operation,
        amount_minor=int(history.hundredths[place]),
        currency="CNY",
        customer_id=None if of_merchant else parties[payer],
        merchant_id=parties[payer] if of_merchant else parties[party],
        payee_customer_id=parties[party] if operation == "TRANSFER" else None,
        effective_at=datetime.fromtimestamp(int(history.at[place]), UTC),
    )


def _party(number: int) -> uuid.UUID:
    """A party whose token is its number, as in a generated history."""
    return uuid.UUID(int=(0xFEED << 64) + number)
