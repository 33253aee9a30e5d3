"""Rows of the ledger, for reading. Only the SQL functions in `wallet/sql/` ever write them.

Columns that PostgreSQL alone understands (transaction ids, snapshots) are added in
`migrations/sql/wallet.sql` and stay there: no code above SQL has a use for them.
"""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class Account(Model):
    """A ledger account. Its balance is a difference of columns, plus what is not yet rolled up.

    The posted columns only ever grow. The pending ones grow with a hold and shrink when it is
    resolved, so that `available` is always a plain difference. `has_floor` and `buffered` come from
    the chart: together they say which columns a posting writes in place (see `post_entries.sql`).
    """

    account_id = fields.UUIDField(primary_key=True)
    owner_kind = fields.CharField(max_length=16)
    owner_id = fields.UUIDField()
    kind = fields.CharField(max_length=32)
    currency = fields.CharField(max_length=16)
    normal_side = fields.CharField(max_length=6)
    has_floor = fields.BooleanField()
    buffered = fields.BooleanField()
    debits_posted = fields.BigIntField(default=0)
    credits_posted = fields.BigIntField(default=0)
    debits_pending = fields.BigIntField(default=0)
    credits_pending = fields.BigIntField(default=0)
    credit_limit_minor = fields.BigIntField(default=0)
    frozen = fields.BooleanField(default=False)
    credits_frozen = fields.BooleanField(default=False)
    account_version = fields.BigIntField(default=0)
    opened_at = fields.DatetimeField()

    class Meta:
        table = "account"


class Entry(Model):
    """A journal entry: one business event, never changed. `sequence` is its place in the journal.

    `effective_at` is empty where the business time is the time of recording.
    """

    entry_id = fields.UUIDField(primary_key=True)
    sequence = fields.BigIntField(unique=True)
    kind = fields.CharField(max_length=48)
    recorded_at = fields.DatetimeField()
    effective_at = fields.DatetimeField(null=True)
    order_id = fields.UUIDField(null=True)
    operation_id = fields.UUIDField(null=True)
    merchant_id = fields.UUIDField(null=True)
    description = fields.TextField()
    facts: fields.Field[dict[str, object]] = fields.JSONField()
    content_hash = fields.BinaryField()

    class Meta:
        table = "entry"


class Posting(Model):
    """One positive amount from a debit account to a credit account; never changed.

    The key of the table is `(sequence, line)`. A buffered side reaches its account by the roll-up,
    the other side was written with the posting.
    """

    sequence = fields.BigIntField(primary_key=True, generated=False)
    line = fields.SmallIntField()
    debit_account_id = fields.UUIDField()
    credit_account_id = fields.UUIDField()
    amount_minor = fields.BigIntField()
    currency = fields.CharField(max_length=16)
    debit_buffered = fields.BooleanField()
    credit_buffered = fields.BooleanField()
    hold_id = fields.UUIDField(null=True)
    recorded_at = fields.DatetimeField()

    class Meta:
        table = "posting"


class Hold(Model):
    """A pending posting: made by one entry, resolved exactly once by another."""

    hold_id = fields.UUIDField(primary_key=True)
    sequence = fields.BigIntField()
    line = fields.SmallIntField()
    debit_account_id = fields.UUIDField()
    credit_account_id = fields.UUIDField()
    amount_minor = fields.BigIntField()
    currency = fields.CharField(max_length=16)
    expires_at = fields.DatetimeField(null=True)
    state = fields.CharField(max_length=8)
    posted_minor = fields.BigIntField(default=0)
    resolved_sequence = fields.BigIntField(null=True)
    resolved_line = fields.SmallIntField(null=True)
    resolved_at = fields.DatetimeField(null=True)

    class Meta:
        table = "hold"


class SealedBlock(Model):
    """A link of the hash chain: a hash over the entries it covers and over the last link."""

    block_number = fields.BigIntField(primary_key=True, generated=False)
    entries_count = fields.IntField()
    previous_hash = fields.BinaryField()
    block_hash = fields.BinaryField()
    sealed_at = fields.DatetimeField()

    class Meta:
        table = "sealed_block"


class Follower(Model):
    """Who reads the journal behind its writers; the snapshot it has consumed is beside this row."""

    name = fields.CharField(max_length=32, primary_key=True)
    advanced_at = fields.DatetimeField(null=True)

    class Meta:
        table = "follower"


class JournalMark(Model):
    """A mark in the journal: whatever a later transaction than the mark's books is above it.

    The mark's transaction is beside this row.
    """

    sequence = fields.BigIntField(primary_key=True, generated=False)

    class Meta:
        table = "journal_mark"


class AccountCheckpoint(Model):
    """The sums of an account's history up to a snapshot, so that a balance of the past is near one.

    The key of the table is `(account_id, number)`; the snapshot is beside this row. What was
    recorded before `recorded_max_at`, as far as any checkpoint has seen it, is not above
    `ceiling_sequence`.
    """

    account_id = fields.UUIDField(primary_key=True)
    number = fields.BigIntField()
    debits_posted = fields.BigIntField()
    credits_posted = fields.BigIntField()
    debits_pending = fields.BigIntField()
    last_sequence = fields.BigIntField()
    ceiling_sequence = fields.BigIntField()
    recorded_max_at = fields.DatetimeField()

    class Meta:
        table = "account_checkpoint"
