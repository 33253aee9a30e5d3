"""Risk decisions: one word for those concerned, everything for analysts and auditors."""

from __future__ import annotations

from enum import Enum

import strawberry

from schema.node import Node
from schema.scalars import DateTime


@strawberry.enum(description="What a risk assessment came to.")
class RiskOutcome(Enum):
    ALLOW = strawberry.enum_value("ALLOW", description="The payment goes on.")
    CHALLENGE = strawberry.enum_value("CHALLENGE", description="The payer must give a proof.")
    REVIEW = strawberry.enum_value("REVIEW", description="An analyst must look at it.")
    BLOCK = strawberry.enum_value("BLOCK", description="The payment is refused.")


@strawberry.enum(description="Who decided.")
class DecisionSource(Enum):
    MODEL = strawberry.enum_value("MODEL", description="The model scored in its time budget.")
    RULES = strawberry.enum_value("RULES", description="Rules alone decided, as configured.")
    FALLBACK = strawberry.enum_value(
        "FALLBACK", description="The model should have scored and did not, so rules decided."
    )
    ANALYST = strawberry.enum_value(
        "ANALYST", description="An analyst's verdict on an order in review."
    )


@strawberry.type(description="One input of a risk decision.")
class RiskFeature:
    name: str = strawberry.field(description="Name of the feature.")
    value: float | None = strawberry.field(
        description="Its value when the decision was made; never an amount that is charged."
    )


@strawberry.type(description="One risk decision with all it was based on. It never changes.")
class Decision(Node):
    outcome: RiskOutcome = strawberry.field(description="What it came to.")
    stage: str = strawberry.field(description="At which point of the payment it was made.")
    probability: float | None = strawberry.field(
        description="The calibrated probability of fraud, 0 to 1; null where no model scored."
    )
    reason_codes: list[str] = strawberry.field(
        description="What spoke for it, the strongest first."
    )
    rules_fired: list[str] = strawberry.field(description="The rules that fired, with versions.")
    model_version: str | None = strawberry.field(
        description="The model that scored; null where none did."
    )
    source: DecisionSource = strawberry.field(description="Who decided.")
    features: list[RiskFeature] = strawberry.field(description="What was known at the time.")
    latency_ms: float | None = strawberry.field(description="How long it took, in milliseconds.")
    decided_at: DateTime = strawberry.field(description="When it was recorded.")
