"""Risk assessment: the model's decision, and the proof that the product itself asks for."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from dataclasses import dataclass, replace
from types import ModuleType

from core import configuration, ids
from payments.group import Known, PasswordlessUse
from payments.product import Interaction
from payments.values import DecideReview, OpenOrder, Order
from risk_model import assessment as risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """The risk decision, and whether the product asks for a proof of its own."""

    assessment: risk.Assessment
    subject: risk.Subject
    asks_proof: bool
    passwordless_use: PasswordlessUse | None


def subject_of(request: OpenOrder, known: Known | None = None) -> risk.Subject:
    """What the risk model is asked about; a replayed payment is judged at its recorded instant."""
    at = request.effective_at or (known.now if known else None)
    return risk.Subject(
        operation=request.type.value,
        amount_minor=request.money.amount_minor,
        currency=request.money.currency,
        customer_id=request.caller.id if request.caller.kind == "customer" else None,
        merchant_id=request.merchant_id,
        payee_customer_id=request.payee_customer_id,
        effective_at=at,
    )


def verdict_row(request: DecideReview, order: Order) -> risk.DecisionRow:
    """The analyst's decision beside the model's: a label of its own, which changes neither."""
    subject = risk.Subject(
        operation=order.type.value,
        amount_minor=order.amount_minor,
        currency=order.currency,
        customer_id=order.payer_customer_id,
        merchant_id=order.merchant_id,
        payee_customer_id=order.payee_customer_id,
        effective_at=order.effective_at,
    )
    return risk.override_row(
        decision_id=ids.new_id(),
        order_id=order.order_id,
        attempt=1,
        merchant_id=order.merchant_id,
        customer_id=order.payer_customer_id,
        subject=subject,
        accepted=request.accept,
        analyst=str(request.caller),
        reason=request.reason,
    )


def assess_risk(
    request: OpenOrder, known: Known, module: ModuleType
) -> Generator[risk.Question, risk.Assessment, Assessed]:
    """Have the payment scored on the profiles that were read; add the proof that the product wants.

    It yields its question, which is answered together with those of all who wait. A payer pays
    small amounts without a proof, up to a limit a day; a merchant's own request is signed and is
    never challenged: what would be a challenge goes to review.
    """
    settings = configuration.current()
    subject = subject_of(request, known)
    found = yield risk.Question(subject, known.profiles)
    if found.outcome == "CHALLENGE" and request.caller.kind == "merchant":
        found = replace(found, outcome="REVIEW")
    asks, use = False, None
    if module.PRODUCT.interactions[request.type] is Interaction.PROOF_OVER_SMALL_AMOUNT:
        amount = request.money.amount_minor
        used = known.passwordless_used_minor + amount
        asks = (
            amount > settings.small_amount_limit_minor
            or used > settings.small_amount_daily_limit_minor
        )
        if not asks and request.effective_at is None:
            use = _passwordless_use(request, known)
    return Assessed(
        assessment=found,
        subject=subject,
        asks_proof=asks and found.outcome == "ALLOW",
        passwordless_use=use if found.outcome == "ALLOW" else None,
    )


def _passwordless_use(request: OpenOrder, known: Known) -> PasswordlessUse:
    customer_id = request.caller.id
    assert isinstance(customer_id, uuid.UUID)
    used_on = known.now.date()
    return PasswordlessUse(
        passwordless_use_id=passwordless_use_id(
            customer_id, request.money.currency, used_on.isoformat()
        ),
        customer_id=customer_id,
        currency=request.money.currency,
        used_on=used_on,
        amount_minor=request.money.amount_minor,
    )


def passwordless_use_id(customer_id: uuid.UUID, currency: str, used_on: str) -> uuid.UUID:
    """One row per customer, currency and UTC day."""
    return ids.derived_id(customer_id, f"passwordless:{currency}:{used_on}")
