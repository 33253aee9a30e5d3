"""The rows of decisions, in JSON values, as `write_assessments()` takes them.

A decision is never changed: what an analyst decides later is a row of its own.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from risk_model.features import SCHEMA
from risk_model.values import Assessment, Subject

REVIEW_STAGE = "REVIEW"


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
) -> dict[str, Any]:
    """The row of `write_assessments()`, in JSON values."""
    return {
        **_of_payment(decision_id, order_id, merchant_id, customer_id, subject),
        "stage": stage,
        "attempt": attempt,
        "outcome": assessment.outcome,
        "source": assessment.source,
        "probability": assessment.probability,
        "reason_codes": list(assessment.reason_codes),
        "rules_fired": list(assessment.rules_fired),
        "model_version": assessment.model_version,
        "features": dict(assessment.features),
        "profile_versions": dict(assessment.profile_versions),
        "latency_ms": assessment.latency_ms,
    }


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
) -> dict[str, Any]:
    """An analyst's verdict on a payment in review: ALLOW or BLOCK, with who said so and why.

    It is not assessed and not folded: the first decision was, whatever came of it.
    """
    return {
        **_of_payment(decision_id, order_id, merchant_id, customer_id, subject),
        "stage": REVIEW_STAGE,
        "attempt": attempt,
        "outcome": "ALLOW" if accepted else "BLOCK",
        "source": "ANALYST",
        "reason_codes": [],
        "rules_fired": [],
        "features": {},
        "profile_versions": {},
        "latency_ms": 0.0,
        "decided_by": analyst,
        "override_reason": reason,
    }


def _of_payment(
    decision_id: UUID,
    order_id: UUID,
    merchant_id: UUID,
    customer_id: UUID | None,
    subject: Subject,
) -> dict[str, Any]:
    if subject.effective_at is None:
        raise ValueError("a decision is about an instant")
    payee = subject.payee_customer_id
    return {
        "decision_id": str(decision_id),
        "order_id": str(order_id),
        "merchant_id": str(merchant_id),
        "customer_id": str(customer_id) if customer_id else None,
        "payee_customer_id": str(payee) if payee else None,
        "operation": subject.operation,
        "amount_minor": subject.amount_minor,
        "currency": subject.currency,
        "effective_at": subject.effective_at.isoformat(),
        "feature_schema": SCHEMA,
    }
