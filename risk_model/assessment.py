"""Risk in the path of a payment: profiles as they were read in, a decision and the next profiles
out.

Nothing here waits or writes. A group is scored by one call of the model; rules stand beside it and
decide alone where it cannot score. A profile counts what was decided, whatever the books answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from core import clock, configuration
from risk_model import champion, profiles
from risk_model.decisions import DecisionRow, decision_row, override_row
from risk_model.events import Event, event_of, hundredths_of, seconds_of, token_of
from risk_model.features import SCHEMA, features, named, stored, vector
from risk_model.rules import (
    FALLBACK_RULES,
    RULES,
    Facts,
    Limits,
    Verdict,
    judge,
    limits_of,
)
from risk_model.scoring import Model, Reason, Scorer, Unavailable, health
from risk_model.thresholds import strongest
from risk_model.values import (
    NO_PROFILE,
    Assessment,
    Profile,
    Question,
    Subject,
    Written,
)

__all__ = [
    "Assessment",
    "DecisionRow",
    "Profile",
    "Question",
    "Subject",
    "Written",
    "assess",
    "decision_row",
    "override_row",
    "profile_keys",
]


@dataclass(frozen=True, slots=True)
class _Case:
    """One subject with all that was read for it."""

    subject: Subject
    event: Event
    own_key: str
    own: Profile
    versions: dict[str, int]
    values: list[float]
    facts: Facts
    verdict: Verdict

    @property
    def scored(self) -> bool:
        """A rule that blocks fires first: then nobody asks the model."""
        return self.verdict.outcome != "BLOCK"


def profile_keys(subject: Subject) -> tuple[str, ...]:
    """The profiles to read: the payer's own first, then the merchant's or payee's shared one."""
    shared = shared_key(subject.operation, subject.merchant_id, subject.payee_customer_id)
    return (_own_key(subject), shared) if shared else (_own_key(subject),)


def shared_key(operation: str, merchant_id: UUID, payee_customer_id: UUID | None) -> str | None:
    """The profile of whom many pay; money that stays with its owner has none."""
    if operation == "PAY":
        return f"merchant:{merchant_id}"
    if operation == "TRANSFER" and payee_customer_id is not None:
        return f"payee:{payee_customer_id}"
    return None


def event_of_payment(
    operation: str,
    amount_minor: int,
    currency: str,
    effective_at: datetime,
    merchant_id: UUID,
    payee_customer_id: UUID | None,
) -> Event:
    """The event of a payment or of a stored decision."""
    party = payee_customer_id if operation == "TRANSFER" and payee_customer_id else merchant_id
    hundredths = hundredths_of(amount_minor, currency)
    return event_of(operation, hundredths, seconds_of(effective_at), token_of(party))


def assess(
    subjects: Sequence[Subject],
    read: Sequence[Mapping[str, Profile]],
    scorer: Scorer | Unavailable | None = None,
    limits: Limits | None = None,
) -> list[Assessment]:
    """Decide on each subject by the profiles that were read for it; the present champion by
    default.

    At most one subject per own profile, as in any group. Raises nothing that a model does.
    """
    started_ms = clock.monotonic_ms()
    scorer = champion.current() if scorer is None else scorer
    limits = limits_of(configuration.current()) if limits is None else limits
    cases = [_case(subject, known, limits) for subject, known in zip(subjects, read, strict=True)]
    rows = vector([case.values for case in cases])
    scores = _scores(scorer, rows[[case.scored for case in cases]])
    latency_ms = round(clock.monotonic_ms() - started_ms, 3)
    found: list[Assessment] = []
    next_score = iter(() if isinstance(scores, Unavailable) else scores)
    for case, row in zip(cases, rows, strict=True):
        verdict, probability, version, source = case.verdict, None, None, "RULES"
        if case.scored and (isinstance(scores, Unavailable) or isinstance(scorer, Unavailable)):
            verdict, source = _fallback(case), "FALLBACK"
        elif case.scored and isinstance(scorer, Scorer):
            probability = next(next_score)
            verdict, source = _by_model(case, scorer.model, probability, row), "MODEL"
            version = scorer.model.version
        found.append(
            Assessment(
                outcome=verdict.outcome,
                probability=probability,
                reason_codes=tuple(dict.fromkeys(verdict.reasons)),
                rules_fired=verdict.fired,
                model_version=version,
                features=stored(row),
                source=source,
                latency_ms=latency_ms,
                profiles=(_written(case, verdict),),
                profile_versions=case.versions,
            )
        )
    return found


def _own_key(subject: Subject) -> str:
    if subject.customer_id is not None:
        return f"customer:{subject.customer_id}"
    return f"payouts:{subject.merchant_id}"


def _case(subject: Subject, known: Mapping[str, Profile], limits: Limits) -> _Case:
    if subject.effective_at is None:
        raise ValueError("a payment is assessed as of an instant")
    event = event_of_payment(
        subject.operation,
        subject.amount_minor,
        subject.currency,
        subject.effective_at,
        subject.merchant_id,
        subject.payee_customer_id,
    )
    keys = profile_keys(subject)
    own = known.get(keys[0], NO_PROFILE)
    shared = known.get(keys[1], NO_PROFILE) if len(keys) > 1 else NO_PROFILE
    values = features(event, own.state, shared.state)
    facts = Facts(
        operation=subject.operation,
        amount_minor=subject.amount_minor,
        hundredths=event.hundredths,
        features=named(values),
        limits=limits,
    )
    versions = dict(zip(keys, (own.version, shared.version), strict=False))
    return _Case(subject, event, keys[0], own, versions, values, facts, judge(facts, RULES))


def _scores(scorer: Scorer | Unavailable, rows: Any) -> list[float] | Unavailable:
    if len(rows) == 0:
        return []
    found = scorer if isinstance(scorer, Unavailable) else _of_our_features(scorer, rows)
    if isinstance(found, Unavailable):
        health.note_fallback(found, len(rows))
    else:
        health.note_scored(len(rows))
    return found


def _of_our_features(scorer: Scorer, rows: Any) -> list[float] | Unavailable:
    if scorer.model.feature_schema != SCHEMA:
        return Unavailable(Reason.WRONG_FEATURES)
    return scorer.score(rows)


def _by_model(case: _Case, model: Model, probability: float, row: Any) -> Verdict:
    by_model = model.policy.outcome(probability, case.event.hundredths / 100)
    outcome = strongest(by_model, case.verdict.outcome)
    reasons = model.reasons(row) if by_model != "ALLOW" else ()
    return Verdict(outcome, case.verdict.fired, (*case.verdict.reasons, *reasons))


def _fallback(case: _Case) -> Verdict:
    fallback = judge(case.facts, FALLBACK_RULES)
    return Verdict(
        outcome=strongest(fallback.outcome, case.verdict.outcome),
        fired=(*case.verdict.fired, *fallback.fired),
        reasons=(*case.verdict.reasons, *fallback.reasons),
    )


def _written(case: _Case, verdict: Verdict) -> Written:
    teaches = verdict.outcome != "BLOCK"
    state = profiles.remember(case.own.state, case.event, teaches=teaches)
    return Written(case.own_key, case.own.version + 1, orjson.dumps(state).decode())
