"""The guards of the first release's tables: constraints, indexes, triggers, grants and policies."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from migrations.apply import PACKAGES, guard_sql


class Migration(migrations.Migration):
    dependencies = [("purser", "0001_tables")]

    operations = [ops.RunSQL(list(filter(None, map(guard_sql, PACKAGES))))]
