"""Rules beside the model, and those that decide when it cannot.

Rules run in the order challenge, allow-list, block, review; a hit on the allow-list ends the last
two. The strongest outcome of all that fired and of the model wins. The fallback rules never allow
an amount above the small-amount limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.configuration import Configuration
from risk_model.thresholds import strongest

ALLOW_LIST = "ALLOW_LIST"
KINDS = ("CHALLENGE", ALLOW_LIST, "BLOCK", "REVIEW")
"""The order in which rules run."""

CHALLENGE_OVER = 5_000_00
REVIEW_OVER = 50_000_00
BLOCK_OVER = 1_000_000_00
FALLBACK_PAYMENTS_A_DAY = 8
FALLBACK_NEWCOMERS_A_DAY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`small_amount_minor` is in minor units of the payment: above it no fallback rule allows.

    The others are in hundredths of the major unit, as `events.hundredths_of` makes them.
    """

    small_amount_minor: int
    challenge_over: int = CHALLENGE_OVER
    review_over: int = REVIEW_OVER
    block_over: int = BLOCK_OVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a rule may ask: the payment, its features by name, and the limits."""

    operation: str
    amount_minor: int
    hundredths: int
    features: Mapping[str, float]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Rule:
    """`name` carries the version: a changed condition is a new version."""

    name: str
    kind: str
    reason: str
    applies: Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules came to; `fired` names them in the order in which they ran."""

    outcome: str
    fired: tuple[str, ...]
    reasons: tuple[str, ...]


def limits_of(configuration: Configuration) -> Limits:
    """The limits that the settings give."""
    return Limits(small_amount_minor=configuration.small_amount_limit_minor)


def judge(facts: Facts, rules: tuple[Rule, ...]) -> Verdict:
    """The strongest outcome of the rules that apply, in their order; ALLOW if none does."""
    fired: list[Rule] = []
    for kind in KINDS:
        if kind in ("BLOCK", "REVIEW") and any(rule.kind == ALLOW_LIST for rule in fired):
            break
        fired += [rule for rule in rules if rule.kind == kind and rule.applies(facts)]
    outcomes = (rule.kind for rule in fired if rule.kind != ALLOW_LIST)
    return Verdict(
        outcome=strongest("ALLOW", *outcomes),
        fired=tuple(rule.name for rule in fired),
        reasons=tuple(rule.reason for rule in fired if rule.kind != ALLOW_LIST),
    )


def _by_customer(facts: Facts) -> bool:
    """A merchant pays out what it has earned: its amounts are left to the model."""
    return facts.operation != "PAYOUT"


def _over(limit: str) -> Callable[[Facts], bool]:
    return lambda facts: _by_customer(facts) and facts.hundredths > getattr(facts.limits, limit)


def _large_and_new(facts: Facts) -> bool:
    return _over("challenge_over")(facts) and (
        facts.features["habit_count"] == 0 or facts.features["is_newcomer"] > 0
    )


RULES = (
    Rule("large-amount-to-a-newcomer@1", "CHALLENGE", "AMOUNT_OVER_LIMIT", _large_and_new),
    Rule("amount-over-ceiling@1", "BLOCK", "AMOUNT_OVER_LIMIT", _over("block_over")),
    Rule("amount-over-review-limit@1", "REVIEW", "AMOUNT_OVER_LIMIT", _over("review_over")),
)


def _not_small(facts: Facts) -> bool:
    return facts.amount_minor > facts.limits.small_amount_minor


def _small_adds_up(facts: Facts) -> bool:
    """So many payments or newcomers in a day that the limit on one of them protects nobody."""
    features = facts.features
    return (
        features["count_1d"] >= FALLBACK_PAYMENTS_A_DAY
        or features["newcomers_1d"] >= FALLBACK_NEWCOMERS_A_DAY
    )


def _large(facts: Facts) -> bool:
    return facts.hundredths > facts.limits.challenge_over


FALLBACK_RULES = (
    Rule("fallback-not-a-small-amount@1", "CHALLENGE", "MODEL_UNAVAILABLE", _not_small),
    Rule("fallback-small-amounts-add-up@1", "CHALLENGE", "MODEL_UNAVAILABLE", _small_adds_up),
    Rule("fallback-large-amount@1", "REVIEW", "MODEL_UNAVAILABLE", _large),
)
