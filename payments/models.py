"""Rows of orders, what hangs on them, and the webhooks that tell merchants about them.

An order's `version` covers all that hangs on it: each change of an operation, attempt or challenge
raises it by one. Times are the database's; amounts are integer minor units.
"""

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.models import Model


class OrderRow(Model):
    """One request to move money between a payer and a merchant."""

    order_id = fields.UUIDField(primary_key=True)
    version = fields.BigIntField()
    merchant_id = fields.UUIDField()
    merchant_order_no = fields.CharField(max_length=64)
    type = fields.CharField(max_length=16)
    product = fields.CharField(max_length=32)
    state = fields.CharField(max_length=24)
    currency = fields.CharField(max_length=8)
    amount_minor = fields.BigIntField()
    authorized_minor = fields.BigIntField()
    capture_pending_minor = fields.BigIntField()
    captured_minor = fields.BigIntField()
    releasing_minor = fields.BigIntField()
    released_minor = fields.BigIntField()
    reversed_minor = fields.BigIntField()
    refund_pending_minor = fields.BigIntField()
    refunded_minor = fields.BigIntField()
    disputed_open_minor = fields.BigIntField()
    dispute_lost_minor = fields.BigIntField()
    suspense_minor = fields.BigIntField()
    fee_rate_millionths = fields.BigIntField()
    fee_minor = fields.BigIntField()
    fee_refunded_minor = fields.BigIntField()
    refund_progress = fields.CharField(max_length=16)
    payout_progress = fields.CharField(max_length=16, null=True)
    settlement_progress = fields.CharField(max_length=16)
    payer_customer_id = fields.UUIDField(null=True)
    payee_customer_id = fields.UUIDField(null=True)
    description = fields.CharField(max_length=256)
    details: fields.Field[dict[str, Any]] = fields.JSONField()
    action_url = fields.TextField(null=True)
    return_url = fields.TextField(null=True)
    failure_reason = fields.CharField(max_length=64, null=True)
    closed_by = fields.CharField(max_length=16, null=True)
    needs_attention = fields.CharField(max_length=64, null=True)
    effective_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "payment_order"


class OperationRow(Model):
    """One step on an order, with a number of its own."""

    operation_id = fields.UUIDField(primary_key=True)
    order_id = fields.UUIDField()
    merchant_id = fields.UUIDField()
    payer_customer_id = fields.UUIDField(null=True)
    payee_customer_id = fields.UUIDField(null=True)
    type = fields.CharField(max_length=24)
    operation_number = fields.CharField(max_length=64)
    state = fields.CharField(max_length=16)
    amount_minor = fields.BigIntField()
    currency = fields.CharField(max_length=8)
    fee_minor = fields.BigIntField()
    reason = fields.CharField(max_length=64, null=True)
    description = fields.CharField(max_length=256)
    approval = fields.CharField(max_length=16, null=True)
    next_check_at = fields.DatetimeField(null=True)
    checks_count = fields.IntField()
    submitted_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "operation"


class AttemptRow(Model):
    """One call chain of an operation at one channel under one number."""

    attempt_id = fields.UUIDField(primary_key=True)
    operation_id = fields.UUIDField()
    order_id = fields.UUIDField()
    merchant_id = fields.UUIDField()
    channel = fields.CharField(max_length=32)
    channel_request_number = fields.CharField(max_length=64)
    result = fields.CharField(max_length=16)
    channel_trade_no = fields.CharField(max_length=64, null=True)
    reason = fields.CharField(max_length=64, null=True)
    candidates: fields.Field[list[dict[str, Any]]] = fields.JSONField()
    sends_count = fields.IntField()
    verdict_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "attempt"


class ChannelEventRow(Model):
    """One thing a channel told us: raw and parsed. Only `applied_at` and what goes with it may be
    set.
    """

    channel_event_id = fields.UUIDField(primary_key=True)
    channel = fields.CharField(max_length=32)
    event_key = fields.CharField(max_length=160)
    kind = fields.CharField(max_length=16)
    channel_request_number = fields.CharField(max_length=64)
    attempt_id = fields.UUIDField(null=True)
    order_id = fields.UUIDField(null=True)
    merchant_id = fields.UUIDField(null=True)
    raw_body = fields.BinaryField()
    parsed: fields.Field[dict[str, Any]] = fields.JSONField()
    outcome = fields.CharField(max_length=32, null=True)
    received_at = fields.DatetimeField()
    applied_at = fields.DatetimeField(null=True)

    class Meta:
        table = "channel_event"


class IdempotencyRow(Model):
    """A key that was used: the hash of its input and the result as it was committed."""

    idempotency_id = fields.UUIDField(primary_key=True)
    principal = fields.CharField(max_length=64)
    operation = fields.CharField(max_length=32)
    key = fields.CharField(max_length=255)
    input_hash = fields.CharField(max_length=64)
    result = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "idempotency"


class ChallengeRow(Model):
    """The extra proof asked of a payer, bound to order, amount, currency and payee."""

    challenge_id = fields.UUIDField(primary_key=True)
    order_id = fields.UUIDField()
    merchant_id = fields.UUIDField()
    customer_id = fields.UUIDField()
    binding = fields.CharField(max_length=64)
    state = fields.CharField(max_length=16)
    wrong_count = fields.SmallIntField()
    expires_at = fields.DatetimeField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "challenge"


class PasswordlessUseRow(Model):
    """What a customer paid on one day without a proof, in minor units of one currency."""

    passwordless_use_id = fields.UUIDField(primary_key=True)
    customer_id = fields.UUIDField()
    currency = fields.CharField(max_length=8)
    used_on = fields.DateField()
    used_minor = fields.BigIntField()

    class Meta:
        table = "passwordless_use"


class SettlementRow(Model):
    """One run that moved what was pending to available for one merchant and currency."""

    settlement_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    currency = fields.CharField(max_length=8)
    amount_minor = fields.BigIntField()
    entry_id = fields.UUIDField()
    run_by = fields.CharField(max_length=64)
    created_at = fields.DatetimeField()

    class Meta:
        table = "settlement"


class WebhookEndpointRow(Model):
    """Where a merchant wants its events; at most two live secrets, sealed."""

    endpoint_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField(unique=True)
    url = fields.TextField()
    state = fields.CharField(max_length=16)
    secret_sealed = fields.BinaryField()
    previous_secret_sealed = fields.BinaryField(null=True)
    previous_secret_until = fields.DatetimeField(null=True)
    failures_count = fields.IntField()
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "webhook_endpoint"


class WebhookDeliveryRow(Model):
    """One try to deliver one event: the code and the first 2 KB of the reply."""

    delivery_id = fields.UUIDField(primary_key=True)
    event_id = fields.UUIDField()
    endpoint_id = fields.UUIDField()
    merchant_id = fields.UUIDField()
    try_number = fields.IntField()
    outcome = fields.CharField(max_length=16)
    status_code = fields.SmallIntField(null=True)
    reply = fields.TextField()
    duration_ms = fields.IntField()
    delivered_at = fields.DatetimeField()

    class Meta:
        table = "webhook_delivery"
