"""The rows of decisions, as the type `decision_input` takes them, without their member.

A decision is never changed: what an analyst decides later is a row of its own.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from risk_model.features import SCHEMA
from risk_model.values import Assessment, Subject

REVIEW_STAGE = "REVIEW"

DecisionRow = tuple[Any, ...]


def decision_row(
    assessment: Assessment,
    *,
    decision_id: UUID,
    order_id: UUID,
    stage: str,
    attempt: int,
    merchant_id: UUID,
    customer_id: UUID | None,
    subject: Subject,
) -> DecisionRow:
    """The row of what was decided by model or rules."""
    return (
        decision_id,
        order_id,
        stage,
        attempt,
        merchant_id,
        customer_id,
        *_of_payment(subject),
        assessment.outcome,
        assessment.source,
        assessment.probability,
        _text(assessment.reason_codes),
        _text(assessment.rules_fired),
        assessment.model_version,
        assessment.features,
        SCHEMA,
        orjson.dumps(assessment.profile_versions),
        assessment.latency_ms,
        None,
        None,
    )


def override_row(
    *,
    decision_id: UUID,
    order_id: UUID,
    attempt: int,
    merchant_id: UUID,
    customer_id: UUID | None,
    subject: Subject,
    accepted: bool,
    analyst: str,
    reason: str,
) -> DecisionRow:
    """An analyst's verdict on a payment in review: ALLOW or BLOCK, with who said so and why.

    It is not assessed and not folded: the first decision was, whatever came of it.
    """
    return (
        decision_id,
        order_id,
        REVIEW_STAGE,
        attempt,
        merchant_id,
        customer_id,
        *_of_payment(subject),
        "ALLOW" if accepted else "BLOCK",
        "ANALYST",
        None,
        b"[]",
        b"[]",
        None,
        b"",
        SCHEMA,
        b"{}",
        0.0,
        analyst,
        reason,
    )


def _of_payment(subject: Subject) -> tuple[Any, ...]:
    if subject.effective_at is None:
        raise ValueError("a decision is about an instant")
    return (
        subject.payee_customer_id,
        subject.operation,
        subject.amount_minor,
        subject.currency,
        subject.effective_at,
    )


def _text(codes: tuple[str, ...]) -> bytes:
    return orjson.dumps(codes) if codes else b"[]"
