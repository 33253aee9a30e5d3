"""What the database itself enforces, read from its catalogue: tenants, grants, owners, guards."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.phase import (
    IDLE_IN_TRANSACTION_TIMEOUT_MS,
    LOCK_TIMEOUT_MS,
    STATEMENT_TIMEOUT_MS,
    statement,
)
from tests.payments.conftest import World

ROOT = Path(__file__).resolve().parent.parent.parent
OUR_ROLES = ("purser_app", "purser_poster", "purser_lookup", "purser_sealer", "purser_reader")
APPEND_ONLY = ("audit_log", "channel_event", "entry", "posting", "sealed_block")
"""Rows that nobody deletes; `channel_event` may be noted as applied, the others never change."""
GROUP_FUNCTIONS = {"read_group", "commit_group", "lock_member"}
PARTS_OF_GROUP_FUNCTIONS = {
    "post_entries",
    "post_members",
    "trespassers",
    "undo_members",
    "write_effects",
    "write_rest",
    "write_assessments",
    "read_followed",
    "read_merchants",
    "read_customers",
    "read_profiles",
    "lock_profiles",
}


async def test_every_table_that_names_a_tenant_is_under_forced_row_security(database: Any) -> None:
    rows = await database.fetch(
        """SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND NOT a.attisdropped
          AND (a.attname IN ('merchant_id', 'owner_id', 'principal') OR a.attname LIKE '%customer%')
          AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"""
    )
    assert [row["relname"] for row in rows] == []


async def test_every_table_under_row_security_has_a_policy_for_the_application(
    database: Any,
) -> None:
    rows = await database.fetch(
        """SELECT c.relname FROM pg_class c
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relrowsecurity
          AND has_any_column_privilege('purser_app', c.oid, 'SELECT')
          AND NOT EXISTS (SELECT FROM pg_policies p
                          WHERE p.tablename = c.relname AND 'purser_app' = ANY (p.roles))"""
    )
    assert [row["relname"] for row in rows] == []


async def test_no_policy_opens_a_table_to_the_application_without_a_condition(
    database: Any,
) -> None:
    rows = await database.fetch(
        """SELECT tablename, policyname, cmd, coalesce(qual, with_check) AS condition
        FROM pg_policies WHERE ('purser_app' = ANY (roles) OR 'public' = ANY (roles))
          AND (qual = 'true' OR with_check = 'true')"""
    )
    # Anyone's phase may add to the audit log; only operators and the system read it.
    assert [(row["tablename"], row["cmd"]) for row in rows] in ([], [("audit_log", "INSERT")])


async def test_the_tables_without_row_security_name_no_tenant_and_are_few(database: Any) -> None:
    rows = await database.fetch(
        """SELECT relname FROM pg_class WHERE relkind = 'r'
        AND relnamespace = 'public'::regnamespace AND NOT relrowsecurity ORDER BY relname"""
    )
    assert {row["relname"] for row in rows} <= {
        "follower",
        "limit_counter",
        "limit_use",
        "rate_limit",
        "request_nonce",
        "risk_follower",
        "risk_model_release",
        "sealed_block",
        "signing_key",
        "tortoise_migrations",
    }


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("role", OUR_ROLES)
async def test_nobody_may_change_what_is_append_only(database: Any, table: str, role: str) -> None:
    rows = await database.fetch(
        """SELECT has_table_privilege($1, $2, 'DELETE') OR has_table_privilege($1, $2, 'TRUNCATE')
               OR has_table_privilege($1, $2, 'UPDATE') AS may,
           ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = $2::text::regclass AND attnum > 0 AND NOT attisdropped
                   AND has_column_privilege($1, $2, attname, 'UPDATE')) AS columns""",
        role,
        table,
    )
    noted = {"attempt_id", "order_id", "merchant_id", "outcome", "applied_at"}
    allowed = noted if table == "channel_event" else set()
    assert not rows[0]["may"]
    assert set(rows[0]["columns"]) <= allowed


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_a_trigger_refuses_change_even_to_the_owner(database: Any, table: str) -> None:
    for sql in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        rows = await database.fetch(f"SELECT count(*) FROM {table}")
        if sql.startswith("DELETE") and rows[0][0] == 0 and table in ("audit_log", "channel_event"):
            continue
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.fetch(sql)


async def test_the_application_writes_no_order_and_no_posting_but_by_the_group_functions(
    database: Any,
) -> None:
    tables = ["payment_order", "operation", "attempt", "challenge", "account", "entry", "posting"]
    rows = await database.fetch(
        """SELECT t, p FROM unnest($1::text[]) AS t, unnest('{INSERT,UPDATE,DELETE}'::text[]) AS p
        WHERE has_table_privilege('purser_app', t, p)""",
        [*tables, "hold", "decision", "passwordless_use"],
    )
    assert [tuple(row) for row in rows] == []
    columns = await database.fetch(
        """SELECT attname::text AS name FROM pg_attribute
        WHERE attrelid = 'payment_order'::regclass AND attnum > 0
          AND has_column_privilege('purser_app', 'payment_order', attname, 'UPDATE')"""
    )
    assert {row["name"] for row in columns} == {"settlement_progress", "version", "updated_at"}


async def test_our_roles_can_do_nothing_by_themselves(database: Any) -> None:
    rows = await database.fetch(
        """SELECT r.rolname, rolcanlogin,
            rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication AS mighty,
            EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) AS belongs,
            (SELECT count(*) FROM pg_class c WHERE c.relowner = r.oid) AS owned
        FROM pg_roles r WHERE rolname = ANY ($1)""",
        list(OUR_ROLES),
    )
    assert {row["rolname"] for row in rows} == set(OUR_ROLES)
    assert [row["rolname"] for row in rows if row["rolcanlogin"]] == ["purser_app"]
    assert not any(row["mighty"] or row["belongs"] or row["owned"] for row in rows)


async def test_the_application_may_not_become_another_role_or_make_tables(world: World) -> None:
    for sql in (
        "SET ROLE purser_poster",
        "CREATE TABLE mine (id integer)",
        "CREATE SCHEMA mine",
        "ALTER TABLE payment_order DISABLE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await statement(sql)


async def test_functions_that_run_as_their_owner_have_a_pinned_search_path(database: Any) -> None:
    rows = await database.fetch(
        """SELECT p.proname, p.proconfig, pg_get_userbyid(p.proowner) AS owner
        FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND prosecdef"""
    )
    assert {row["proname"] for row in rows} >= GROUP_FUNCTIONS
    for row in rows:
        assert any(
            re.fullmatch(r"search_path=pg_catalog, public(, pg_temp)?", setting)
            for setting in row["proconfig"] or ()
        ), row["proname"]
        assert row["owner"] in OUR_ROLES, row["proname"]
        assert row["owner"] != "purser_app", row["proname"]


async def test_whoever_is_none_of_our_roles_may_call_nothing_that_runs_as_its_owner(
    database: Any,
) -> None:
    """What runs as its caller shows nothing that the caller may not read anyway."""
    rows = await database.fetch(
        """SELECT p.proname FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
        AND prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')"""
    )
    assert [row["proname"] for row in rows] == []


async def test_the_group_functions_belong_to_the_poster_and_serve_the_application(
    database: Any,
) -> None:
    rows = await database.fetch(
        """SELECT p.proname, pg_get_userbyid(p.proowner) AS owner, p.prosecdef,
            has_function_privilege('purser_app', p.oid, 'EXECUTE') AS served,
            has_function_privilege('purser_reader', p.oid, 'EXECUTE') AS read
        FROM pg_proc p WHERE proname = ANY ($1)""",
        list(GROUP_FUNCTIONS),
    )
    assert len(rows) == len(GROUP_FUNCTIONS)
    for row in rows:
        assert (row["owner"], row["prosecdef"]) == ("purser_poster", True)
        assert (row["served"], row["read"]) == (True, False)
    inner = await database.fetch(
        """SELECT p.proname, has_function_privilege('purser_app', p.oid, 'EXECUTE') AS served
        FROM pg_proc p WHERE proname = ANY ($1)""",
        list(PARTS_OF_GROUP_FUNCTIONS),
    )
    assert {row["proname"]: row["served"] for row in inner} == dict.fromkeys(
        PARTS_OF_GROUP_FUNCTIONS, False
    )


async def test_connections_of_the_application_have_their_time_limits(world: World) -> None:
    rows = await statement(
        """SELECT name, setting FROM pg_settings WHERE name IN ('statement_timeout', 'TimeZone',
        'lock_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit')"""
    )
    assert {row["name"]: row["setting"] for row in rows} == {
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        "TimeZone": "UTC",
        "synchronous_commit": "on",
    }


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("captured_minor = authorized_minor + 1", "payment_order_i1"),
        ("capture_pending_minor = 1", "payment_order_i1"),
        ("releasing_minor = 1", "payment_order_i1"),
        ("released_minor = 1", "payment_order_i1"),
        ("refunded_minor = captured_minor + 1", "payment_order_i2"),
        ("refunded_minor = captured_minor, refund_pending_minor = 1", "payment_order_i2"),
        ("refunded_minor = captured_minor, reversed_minor = 1", "payment_order_i2"),
        ("fee_refunded_minor = fee_minor + 1", "payment_order_i10"),
        ("fee_minor = amount_minor + 1", "payment_order_i10"),
        ("refunded_minor = -1", "payment_order_not_negative"),
        ("suspense_minor = -1", "payment_order_not_negative"),
        ("amount_minor = 0", "payment_order_i10"),
        ("version = 0", "payment_order_version"),
    ],
)
async def test_the_ceilings_of_an_order_stand_in_its_table(
    world: World, change: str, constraint: str
) -> None:
    await world.fund(1_000)
    await world.pay(1_000)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await world.database.fetch(f"UPDATE payment_order SET {change}")
    assert refused.value.constraint_name in (constraint, "payment_order_amount")


async def test_a_foreign_key_to_rows_that_may_be_deleted_has_an_index(database: Any) -> None:
    """Each deletion would read the whole table; to rows that stay for ever none is needed."""
    rows = await database.fetch(
        """SELECT c.conrelid::regclass::text AS of_table, c.conname FROM pg_constraint c
        WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace
          AND EXISTS (SELECT FROM unnest($1::text[]) AS role
                      WHERE has_table_privilege(role, c.confrelid, 'DELETE'))
          AND NOT EXISTS (
            SELECT FROM pg_index i
            WHERE i.indrelid = c.conrelid AND i.indpred IS NULL AND i.indkey[0] = c.conkey[1])""",
        list(OUR_ROLES),
    )
    assert [tuple(row) for row in rows] == []


async def test_every_index_and_constraint_is_valid(database: Any) -> None:
    assert await database.fetch("SELECT FROM pg_index WHERE NOT indisvalid") == []
    assert await database.fetch("SELECT FROM pg_constraint WHERE NOT convalidated") == []


async def test_the_tables_are_those_of_the_models(database: Any) -> None:
    """Nothing is missing from the migrations: the models ask for no further change."""
    from tortoise import Tortoise

    columns = await database.fetch(
        """SELECT table_name || '.' || column_name AS name, is_nullable = 'YES' AS nullable
        FROM information_schema.columns WHERE table_schema = 'public'"""
    )
    present = {row["name"]: row["nullable"] for row in columns}
    assert Tortoise.apps is not None
    for model in Tortoise.apps["purser"].values():
        for name, wanted in model._meta.fields_map.items():
            column = f"{model._meta.db_table}.{wanted.source_field or name}"
            assert column in present, column
            assert present[column] is bool(wanted.null), column


async def test_the_models_ask_for_no_further_migration(tmp_path: Path) -> None:
    """On a copy of our code, because the tool writes what it finds missing."""
    for package in (
        "channels",
        "core",
        "identity",
        "migrations",
        "payments",
        "risk_model",
        "wallet",
    ):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc"))
    versions = tmp_path / "migrations" / "versions"
    before = sorted(path.name for path in versions.glob("*.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tortoise",
        "-c",
        "migrations.settings.TORTOISE_ORM",
        "makemigrations",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    after = sorted(path.name for path in versions.glob("*.py"))
    assert after == before, [(versions / name).read_text() for name in set(after) - set(before)]
