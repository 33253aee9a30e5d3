"""What PostgreSQL itself lets the application's role see, with all of Python taken out."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

TENANTS = ("customer", "merchant", "merchant_key", "operator", "credential", "login")
TENANTS += ("refresh_token", "one_time_code")
OTHERS = ("signing_key", "request_nonce", "limit_counter")
LOOK_UPS = {
    "find_customer_id",
    "find_operator_id",
    "find_merchant_key",
    "live_logins",
    "find_refresh_login",
    "find_payee",
    "merchant_names",
}


@pytest.fixture
async def application(database: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.url)
    yield connection
    await connection.close()


async def rows_seen(connection: asyncpg.Connection, principal: str | None) -> dict[str, int]:
    seen = {}
    async with connection.transaction():
        if principal is not None:
            await connection.execute("SELECT set_config('purser.principal', $1, true)", principal)
        for table in TENANTS:
            seen[table] = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return seen


async def test_who_is_nobody_sees_nothing(
    application: asyncpg.Connection, person: Any, shop: Any
) -> None:
    nothing = dict.fromkeys(TENANTS, 0)
    assert await rows_seen(application, None) == nothing
    assert await rows_seen(application, "") == nothing
    assert await rows_seen(application, f"customer:{uuid.uuid4()}") == nothing
    assert await rows_seen(application, f"merchant:{uuid.uuid4()}") == nothing
    assert await rows_seen(application, f"stranger:{person.customer_id}") == nothing
    everything = await rows_seen(application, "system")
    assert all(everything.values()), "the control: there is something to see in each table"
    assert await rows_seen(application, None) == nothing, "a used connection forgets its principal"


async def test_each_sees_what_is_theirs(
    application: asyncpg.Connection, person: Any, shop: Any, new_customer: Any, new_shop: Any
) -> None:
    await new_customer("+8613912345678")
    await new_shop("Tea")
    seen = await rows_seen(application, f"customer:{person.customer_id}")
    mine = {"customer": 1, "credential": 1, "login": 1, "refresh_token": 1, "one_time_code": 1}
    assert seen == dict.fromkeys(TENANTS, 0) | mine
    seen = await rows_seen(application, f"merchant:{shop.merchant_id}")
    assert seen == dict.fromkeys(TENANTS, 0) | {"merchant": 1, "merchant_key": 3}


async def test_an_operator_sees_no_password_and_no_code(
    application: asyncpg.Connection, person: Any, administrator: Any
) -> None:
    seen = await rows_seen(application, str(administrator.principal))
    assert seen["customer"] == 1
    assert seen["credential"] == 1, "their own"
    assert seen["one_time_code"] == 0


FORBIDDEN = [
    "UPDATE customer SET customer_id = gen_random_uuid()",
    "UPDATE customer SET created_at = now()",
    "DELETE FROM merchant",
    "UPDATE merchant_key SET sealed_key = ''",
    "DELETE FROM merchant_key",
    "UPDATE operator SET email = 'x'",
    "UPDATE one_time_code SET tries_max = 1000",
    "UPDATE one_time_code SET binding = ''",
    "UPDATE login SET scopes = '[]'",
    "UPDATE login SET expires_at = now() + interval '1 year'",
    "UPDATE refresh_token SET expires_at = now()",
    "UPDATE signing_key SET sealed_private_key = ''",
    "UPDATE request_nonce SET expires_at = now()",
    "TRUNCATE limit_counter",
    "DROP TABLE customer",
    "SELECT read_customers('{}')",
    "SELECT read_merchants('{}')",
    "SET ROLE purser_lookup",
    "SET ROLE purser_poster",
    "ALTER TABLE customer DISABLE ROW LEVEL SECURITY",
]


async def test_the_application_holds_no_right_it_does_not_need(
    application: asyncpg.Connection, person: Any, shop: Any
) -> None:
    await application.execute("SELECT set_config('purser.principal', 'system', false)")
    done = []
    for sql in FORBIDDEN:
        try:
            await application.execute(sql)
        except asyncpg.InsufficientPrivilegeError:
            continue
        done.append(sql)
    assert done == []


async def test_nobody_writes_rows_of_another(
    application: asyncpg.Connection, person: Any, new_customer: Any
) -> None:
    other = await new_customer("+8613912345678")
    insert = """INSERT INTO login
        (login_id, principal_kind, principal_id, scopes, roles, expires_at)
        VALUES (gen_random_uuid(), 'customer', $1, '[]', '[]', now() + interval '1 day')"""
    principal = f"customer:{other.customer_id}"
    await application.execute("SELECT set_config('purser.principal', $1, false)", principal)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await application.execute(insert, person.customer_id)


async def test_a_proved_customer_is_never_deleted(
    application: asyncpg.Connection, person: Any
) -> None:
    async with application.transaction():
        await application.execute("SELECT set_config('purser.principal', 'system', true)")
        assert await application.execute("DELETE FROM customer") == "DELETE 0"


async def test_the_catalogue_says_the_same(database: Any) -> None:
    tables = await database.fetch(
        """SELECT relname, relrowsecurity AND relforcerowsecurity AS guarded
        FROM pg_class WHERE relname = ANY ($1)""",
        [*TENANTS, *OTHERS],
    )
    assert {row["relname"] for row in tables if row["guarded"]} == set(TENANTS)
    functions = await database.fetch(
        """SELECT proname, prosecdef, pg_get_userbyid(proowner) AS owner, proconfig, proacl::text
        FROM pg_proc WHERE proname = ANY ($1)""",
        list(LOOK_UPS),
    )
    assert {row["proname"] for row in functions} == LOOK_UPS
    for row in functions:
        assert row["prosecdef"]
        assert row["owner"] == "purser_lookup"
        assert row["proconfig"][0] == "search_path=pg_catalog, public"
        grantees = {entry.split("=")[0] for entry in row["proacl"].strip("{}").split(",")}
        assert grantees == {"purser_lookup", "purser_app"}
    role = await database.fetch("SELECT * FROM pg_roles WHERE rolname = 'purser_lookup'")
    assert not any(
        role[0][power] for power in ("rolcanlogin", "rolsuper", "rolbypassrls", "rolcreaterole")
    )


async def test_the_parties_of_a_group_are_read_by_its_poster_with_no_secret(
    database: Any, person: Any, shop: Any
) -> None:
    connection = await asyncpg.connect(database.owner_url)
    try:
        await connection.execute("SET ROLE purser_poster")
        merchants = await connection.fetch("SELECT * FROM read_merchants($1)", [shop.merchant_id])
        customers = await connection.fetch("SELECT * FROM read_customers($1)", [person.customer_id])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT password_hash FROM credential")
    finally:
        await connection.close()
    merchant_id, party = merchants[0]
    assert merchant_id == shop.merchant_id
    assert json.loads(party) == {
        "merchant_id": str(shop.merchant_id),
        "status": "ACTIVE",
        "name": "Noodles",
        "fee_rate_millionths": 6_000,
        "currencies": ["CNY"],
        "payment_limit_minor": 10_000_00,
    }
    assert [dict(each) for each in customers] == [
        {"customer_id": person.customer_id, "status": "ACTIVE"}
    ]
