"""Rows of risk: decisions, the profiles that features are read from, labels, and the order of
folding.

Columns that PostgreSQL alone understands (transaction ids, snapshots) are added in
`migrations/sql/risk_model.sql`. Decisions, labels and folds are never changed.
"""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class Decision(Model):
    """One assessment of one payment, or an analyst's override of it, with all it was based on.

    `features` holds the model's input as float32 (see `features.stored`), `profile_versions` the
    version of each profile that was read (0: there was none), so that a replay of the history gives
    the same values.
    """

    decision_id = fields.UUIDField(primary_key=True)
    order_id = fields.UUIDField()
    stage = fields.CharField(max_length=16)
    attempt = fields.SmallIntField()
    merchant_id = fields.UUIDField()
    customer_id = fields.UUIDField(null=True)
    payee_customer_id = fields.UUIDField(null=True)
    operation = fields.CharField(max_length=16)
    amount_minor = fields.BigIntField()
    currency = fields.CharField(max_length=16)
    effective_at = fields.DatetimeField()
    outcome = fields.CharField(max_length=16)
    source = fields.CharField(max_length=16)
    probability = fields.FloatField(null=True)
    reason_codes: fields.Field[list[str]] = fields.JSONField()
    rules_fired: fields.Field[list[str]] = fields.JSONField()
    model_version = fields.CharField(max_length=64, null=True)
    features = fields.BinaryField()
    feature_schema = fields.CharField(max_length=64)
    profile_versions: fields.Field[dict[str, int]] = fields.JSONField()
    latency_ms = fields.FloatField()
    decided_by = fields.CharField(max_length=64, null=True)
    override_reason = fields.CharField(max_length=256, null=True)
    decided_at = fields.DatetimeField()

    class Meta:
        table = "decision"


class RiskProfile(Model):
    """What is remembered of a payer (own), or of a merchant or payee that many pay (shared).

    `state` is bounded and belongs to `profiles.py`; each change raises `version` by one.
    """

    key = fields.CharField(max_length=64, primary_key=True)
    customer_id = fields.UUIDField(null=True)
    version = fields.BigIntField()
    state = fields.TextField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "risk_profile"


class Label(Model):
    """What was learned about a payment later: `event_at` is the payment's instant, `known_at` ours.

    A feature may read a label only from `known_at` on.
    """

    label_id = fields.UUIDField(primary_key=True)
    decision_id = fields.UUIDField()
    order_id = fields.UUIDField()
    merchant_id = fields.UUIDField()
    customer_id = fields.UUIDField(null=True)
    is_fraud = fields.BooleanField()
    source: fields.Field[str] = fields.CharField(max_length=16)
    event_at = fields.DatetimeField()
    known_at = fields.DatetimeField()
    recorded_at = fields.DatetimeField()

    class Meta:
        table = "label"


class DecisionFold(Model):
    """A step of a shared profile: which decision or label made which version of it."""

    fold_id = fields.BigIntField(primary_key=True, generated=False)
    key = fields.CharField(max_length=64)
    version = fields.BigIntField()
    decision_id = fields.UUIDField()
    label_id = fields.UUIDField(null=True)

    class Meta:
        table = "decision_fold"


class RiskFollower(Model):
    """Who folds behind the decisions; the snapshot it has consumed is beside this row."""

    name = fields.CharField(max_length=32, primary_key=True)
    advanced_at = fields.DatetimeField(null=True)

    class Meta:
        table = "risk_follower"
