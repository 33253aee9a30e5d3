"""What makes reading as fast at five million rows as at fifty thousand: checkpoints and indexes."""

from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from migrations.apply import guard_sql


class Migration(migrations.Migration):
    dependencies = [("purser", "0002_guards")]

    initial = False

    operations = [
        ops.CreateModel(
            name='AccountCheckpoint',
            fields=[
                ('account_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('number', fields.BigIntField()),
                ('debits_posted', fields.BigIntField()),
                ('credits_posted', fields.BigIntField()),
                ('debits_pending', fields.BigIntField()),
                ('last_sequence', fields.BigIntField()),
                ('ceiling_sequence', fields.BigIntField()),
                ('recorded_max_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'account_checkpoint', 'app': 'purser', 'pk_attr': 'account_id', 'table_description': "The sums of an account's history up to a snapshot, so that a balance of the past is near one."},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='JournalMark',
            fields=[
                ('sequence', fields.BigIntField(generated=False, primary_key=True, unique=True, db_index=True)),
            ],
            options={'table': 'journal_mark', 'app': 'purser', 'pk_attr': 'sequence', 'table_description': "A mark in the journal: whatever a later transaction than the mark's books is above it."},
            bases=['Model'],
        ),
        ops.RunSQL([guard_sql("reading")]),
    ]
