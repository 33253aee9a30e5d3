"""Assessments: who wins when model and rules differ, and what if the model cannot score."""

from __future__ import annotations

import json
import logging
import math
import uuid

import orjson
import pytest

from core import clock
from risk_model import profiles, scoring
from risk_model.assessment import Profile, assess, decision_row, profile_keys
from risk_model.features import NAMES, SCHEMA, snapshot
from risk_model.rules import FALLBACK_RULES, KINDS, Facts, Limits, Rule, judge
from risk_model.scoring import Health, Reason, Scorer, Unavailable
from risk_model.thresholds import (
    OUTCOMES,
    STRENGTH,
    Costs,
    Policy,
    expected_losses,
    policy_of,
)
from tests.risk_model.conftest import LIMITS, POLICY, FixedModel, a_subject, later
from tests.risk_model.decided import named

MISSING = Unavailable(Reason.MISSING)


@pytest.fixture(autouse=True)
def _fresh_health(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Health()
    monkeypatch.setattr(scoring, "health", fresh)
    monkeypatch.setattr("risk_model.assessment.health", fresh)


def _scorer(**changes: object) -> Scorer:
    return Scorer(FixedModel(**changes))  # type: ignore[arg-type]


def _assessed(subject, scorer, known=None):  # type: ignore[no-untyped-def]
    return assess([subject], [known or {}], scorer, LIMITS)[0]


def test_a_score_that_the_thresholds_allow_is_allowed_by_the_model() -> None:
    found = _assessed(a_subject(), _scorer(probability=0.01))
    assert (found.outcome, found.source, found.model_version) == ("ALLOW", "MODEL", "fixed-1")
    assert found.probability == 0.01
    assert found.reason_codes == ()


@pytest.mark.parametrize(
    ("probability", "amount_minor", "outcome"),
    [
        (0.2, 30_00, "CHALLENGE"),
        (0.5, 1_000_00, "REVIEW"),
        (0.95, 100_00, "BLOCK"),
        (0.04, 1_000_00, "ALLOW"),
    ],
)
def test_the_outcome_is_the_least_expected_loss_above_the_floors(
    probability: float, amount_minor: int, outcome: str
) -> None:
    merchant_known = a_subject(amount_minor=amount_minor)
    found = _assessed(merchant_known, _scorer(probability=probability))
    assert found.outcome == outcome
    assert bool(found.reason_codes) == (outcome != "ALLOW")


@pytest.mark.parametrize("amount", [0.01, 1.0, 30.0, 200.0, 5_000.0, 1e7])
def test_a_higher_probability_never_brings_a_weaker_outcome(amount: float) -> None:
    outcomes = [POLICY.outcome(step / 2_000, amount) for step in range(2_001)]
    strengths = [STRENGTH[outcome] for outcome in outcomes]
    assert strengths == sorted(strengths)
    assert outcomes[0] == "ALLOW"
    assert outcomes[-1] == "BLOCK"


def test_without_floors_the_outcome_is_the_cheapest_one() -> None:
    policy = Policy(challenge_floor=1e-9, review_floor=1e-9, block_floor=1e-9)
    for step in range(1, 100):
        losses = expected_losses(policy.costs, step / 100, 250.0)
        assert policy.outcome(step / 100, 250.0) == OUTCOMES[losses.index(min(losses))]


@pytest.mark.parametrize(
    "floors", [(0.5, 0.4, 0.9), (0.1, 0.9, 0.8), (0.0, 0.5, 0.9), (0.1, 0.5, 1.2)]
)
def test_a_policy_whose_floors_do_not_ascend_is_refused(floors: tuple[float, ...]) -> None:
    challenge, review, block = floors
    with pytest.raises(ValueError, match="ascend"):
        Policy(challenge_floor=challenge, review_floor=review, block_floor=block)


def test_a_policy_survives_the_manifest() -> None:
    policy = Policy(challenge_floor=0.1, review_floor=0.2, block_floor=0.9, costs=Costs(review=7.0))
    assert policy_of(json.loads(json.dumps(policy.to_json()))) == policy


@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        (MISSING, Reason.MISSING),
        (Unavailable(Reason.UNSIGNED), Reason.UNSIGNED),
        (_scorer(probability=math.nan), Reason.NOT_A_NUMBER),
        (_scorer(probability=math.inf), Reason.NOT_A_NUMBER),
        (_scorer(probability=-0.1), Reason.NOT_A_NUMBER),
        (_scorer(probability=1.1), Reason.NOT_A_NUMBER),
        (_scorer(error=RuntimeError("broken")), Reason.FAILED),
        (_scorer(feature_schema="another"), Reason.WRONG_FEATURES),
        (Scorer(FixedModel(delay_ms=30), budget_ms=10), Reason.TOO_SLOW),
    ],
)
@pytest.mark.parametrize("amount_minor", [1, 30_00, 200_00, 200_01, 9_000_00, 80_000_00])
def test_a_model_that_cannot_score_never_widens_what_is_allowed(
    scorer: Scorer | Unavailable, reason: Reason, amount_minor: int
) -> None:
    for operation in ("PAY", "TOP_UP", "TRANSFER", "PAYOUT"):
        found = _assessed(a_subject(operation=operation, amount_minor=amount_minor), scorer)
        assert found.source == "FALLBACK"
        assert found.probability is None
        assert found.model_version is None
        assert (found.outcome == "ALLOW") == (amount_minor <= 200_00)


def test_many_small_payments_are_not_allowed_by_the_fallback_rules() -> None:
    subject = a_subject(amount_minor=9_00)
    known: dict[str, Profile] = {}
    outcomes = []
    for step in range(12):
        found = assess([later(subject, step * 60)], [known], MISSING, LIMITS)[0]
        row = found.profiles[0]
        known = {row.key: Profile(row.version, orjson.loads(row.state))}
        outcomes.append(found.outcome)
    assert outcomes[0] == "ALLOW"
    assert outcomes[-1] == "CHALLENGE"


def test_a_fallback_is_counted_and_logged_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for scorer in (_scorer(), _scorer(), MISSING, MISSING, MISSING, _scorer()):
        _assessed(a_subject(), scorer)
    assert scoring.health.scored_count == 3
    assert scoring.health.fallback_counts == {"MISSING": 3}
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1


def test_after_three_slow_calls_the_model_rests_and_nobody_waits_for_it() -> None:
    model = FixedModel(delay_ms=30)
    scorer = Scorer(model, budget_ms=10)
    started_ms = clock.monotonic_ms()
    for _ in range(20):
        assert _assessed(a_subject(), scorer).source == "FALLBACK"
    assert model.calls_count == 3
    assert clock.monotonic_ms() - started_ms < 1_500
    scorer.rests_until_ms = 0.0
    model.delay_ms = 0.0
    assert _assessed(a_subject(), scorer).source == "MODEL"


def test_one_slow_call_costs_that_payment_alone_its_score() -> None:
    model = FixedModel(delay_ms=30)
    scorer = Scorer(model, budget_ms=20)
    for _ in range(6):
        model.delay_ms = 30
        assert _assessed(a_subject(), scorer).source == "FALLBACK"
        model.delay_ms = 0
        assert _assessed(a_subject(), scorer).source == "MODEL"


def test_after_a_stall_the_model_rests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "STALL_MS", 20.0)
    model = FixedModel(delay_ms=30)
    scorer = Scorer(model, budget_ms=10)
    for _ in range(5):
        assert _assessed(a_subject(), scorer).source == "FALLBACK"
    assert model.calls_count == 1


def test_a_rule_that_blocks_fires_before_the_model_is_asked() -> None:
    model = FixedModel(probability=0.0)
    found = _assessed(a_subject(amount_minor=2_000_000_00), Scorer(model))
    assert (found.outcome, found.source) == ("BLOCK", "RULES")
    assert "amount-over-ceiling@1" in found.rules_fired
    assert model.calls_count == 0


def test_the_strongest_of_rules_and_model_wins() -> None:
    large = a_subject(amount_minor=60_000_00)
    assert _assessed(large, _scorer(probability=0.0)).outcome == "REVIEW"
    assert _assessed(large, _scorer(probability=0.99)).outcome == "BLOCK"
    first = a_subject(amount_minor=6_000_00)
    found = _assessed(first, _scorer(probability=0.0))
    assert (found.outcome, found.source) == ("CHALLENGE", "MODEL")
    assert found.rules_fired == ("large-amount-to-a-newcomer@1",)


def test_rules_run_in_their_order_and_the_allow_list_ends_block_and_review() -> None:
    facts = Facts(operation="PAY", amount_minor=1, hundredths=1, features={}, limits=LIMITS)
    rules = tuple(Rule(kind.lower(), kind, kind, lambda _: True) for kind in reversed(KINDS))
    verdict = judge(facts, rules)
    assert verdict.fired == ("challenge", "allow_list")
    assert verdict.outcome == "CHALLENGE"
    without_list = tuple(rule for rule in rules if rule.kind != "ALLOW_LIST")
    assert judge(facts, without_list).fired == ("challenge", "block", "review")
    assert judge(facts, without_list).outcome == "BLOCK"


def test_no_fallback_rule_set_allows_above_the_limit_that_is_set() -> None:
    tight = Limits(small_amount_minor=10_00)
    found = assess([a_subject(amount_minor=10_01)], [{}], MISSING, tight)[0]
    assert found.outcome == "CHALLENGE"
    assert all(rule.kind in KINDS for rule in FALLBACK_RULES)


def test_each_member_of_a_group_gets_its_own_decision() -> None:
    subjects = [a_subject(amount_minor=amount) for amount in (30_00, 2_000_000_00, 40_00)]
    found = assess(subjects, [{}, {}, {}], _scorer(probability=0.2), LIMITS)
    assert [each.outcome for each in found] == ["CHALLENGE", "BLOCK", "CHALLENGE"]
    assert [each.source for each in found] == ["MODEL", "RULES", "MODEL"]
    keys = [each.profiles[0].key for each in found]
    assert keys == [f"customer:{subject.customer_id}" for subject in subjects]


def test_a_group_is_scored_by_one_call_of_the_model() -> None:
    model = FixedModel()
    assess([a_subject() for _ in range(64)], [{}] * 64, Scorer(model), LIMITS)
    assert model.calls_count == 1


def test_an_own_profile_is_written_at_the_next_version_and_its_input_is_untouched() -> None:
    subject = a_subject()
    key = f"customer:{subject.customer_id}"
    state = profiles.remember({}, _event(subject))
    kept = json.dumps(state)
    found = assess([later(subject, 60)], [{key: Profile(4, state)}], _scorer(), LIMITS)[0]
    assert found.profiles[0].version == 5
    assert orjson.loads(found.profiles[0].state)["count"] == 2
    assert json.dumps(state) == kept
    assert found.profile_versions == {key: 4, f"merchant:{subject.merchant_id}": 0}


@pytest.mark.parametrize(
    ("operation", "kinds"),
    [
        ("PAY", ("customer", "merchant")),
        ("TOP_UP", ("customer",)),
        ("TRANSFER", ("customer", "payee")),
        ("PAYOUT", ("payouts",)),
    ],
)
def test_profiles_that_many_share_are_never_own(operation: str, kinds: tuple[str, ...]) -> None:
    payee = uuid.uuid4() if operation == "TRANSFER" else None
    payer = None if operation == "PAYOUT" else uuid.uuid4()
    subject = a_subject(operation=operation, payee_customer_id=payee, customer_id=payer)
    assert tuple(key.split(":")[0] for key in profile_keys(subject)) == kinds
    found = _assessed(subject, _scorer())
    assert [row.key for row in found.profiles] == [profile_keys(subject)[0]]


def test_a_decision_row_holds_all_that_the_decision_was_based_on() -> None:
    subject = a_subject()
    found = _assessed(subject, _scorer(probability=0.2))
    row = decision_row(
        found,
        decision_id=uuid.uuid4(),
        order_id=uuid.uuid4(),
        stage="PRE_AUTH",
        attempt=1,
        merchant_id=subject.merchant_id,
        customer_id=subject.customer_id,
        subject=subject,
    )
    kept = named(row)
    assert snapshot(kept["features"]) == snapshot(found.features)
    assert set(snapshot(kept["features"])) == set(NAMES)
    assert kept["feature_schema"] == SCHEMA
    assert orjson.loads(kept["profile_versions"]) == found.profile_versions
    assert (kept["outcome"], kept["probability"]) == ("CHALLENGE", 0.2)
    assert orjson.loads(kept["reason_codes"]) == ["AMOUNT_UNUSUAL"]
    assert (kept["customer_id"], kept["amount_minor"]) == (subject.customer_id, 30_00)
    assert kept["latency_ms"] >= 0


def test_a_payment_without_an_instant_is_not_assessed() -> None:
    with pytest.raises(ValueError, match="instant"):
        _assessed(a_subject(effective_at=None), _scorer())


def _event(subject):  # type: ignore[no-untyped-def]
    from risk_model.assessment import event_of_payment

    return event_of_payment(
        subject.operation,
        subject.amount_minor,
        subject.currency,
        subject.effective_at,
        subject.merchant_id,
        None,
    )
