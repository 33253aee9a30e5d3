"""Rows that every package may write: the outbox and the audit log."""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class OutboxRow(Model):
    """One committed event, and the job it causes, if any. Written in the commit that causes it."""

    event_id = fields.UUIDField(primary_key=True)
    topic = fields.CharField(max_length=64)
    resource_kind = fields.CharField(max_length=32)
    resource_id = fields.UUIDField()
    resource_version = fields.BigIntField()
    merchant_id = fields.UUIDField(null=True)
    customer_ids: fields.Field[list[str]] = fields.JSONField()
    payload: fields.Field[dict[str, object]] = fields.JSONField()
    job = fields.CharField(max_length=64, null=True)
    due_at = fields.DatetimeField(null=True)
    claims_count = fields.IntField()
    done_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "outbox"


class AuditRow(Model):
    """What an operator did, or a security event; append-only."""

    audit_id = fields.UUIDField(primary_key=True)
    actor = fields.CharField(max_length=64)
    action = fields.CharField(max_length=64)
    subject = fields.CharField(max_length=128)
    outcome = fields.CharField(max_length=32)
    facts: fields.Field[dict[str, object]] = fields.JSONField()

    class Meta:
        table = "audit_log"
