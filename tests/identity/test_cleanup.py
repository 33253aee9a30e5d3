"""Cleaning up: what can still be used stays, what nobody can use goes."""

from __future__ import annotations

from typing import Any

from identity import cleanup, customers, logins, tokens
from identity.addresses import Address

TABLES = ("request_nonce", "limit_counter", "one_time_code", "customer", "login", "signing_key")


async def counted(database: Any) -> dict[str, int]:
    return {
        table: (await database.fetch(f"SELECT count(*) FROM {table}"))[0][0] for table in TABLES
    }


async def test_what_is_in_use_stays(database: Any, person: Any, shop: Any) -> None:
    await customers.register(Address("PHONE", "+8613900000000"), "correct horse battery")
    before = await counted(database)
    await cleanup.forget_expired()
    assert await counted(database) == before
    assert await tokens.verify_access(person.tokens.access_token)
    assert await logins.refresh(person.tokens.refresh_token)


async def test_what_is_over_goes_and_customers_stay(database: Any, person: Any) -> None:
    await customers.register(Address("PHONE", "+8613900000000"), "correct horse battery")
    await tokens.rotate_signing_key()
    old = "now() - interval '60 days'"
    await database.fetch(f"UPDATE customer SET created_at = {old}")
    await database.fetch(f"UPDATE one_time_code SET expires_at = {old}")
    await database.fetch(f"UPDATE limit_counter SET window_ends_at = {old}")
    await database.fetch(f"UPDATE login SET expires_at = {old}")
    await database.fetch(f"UPDATE signing_key SET retires_at = {old} WHERE retires_at IS NOT NULL")
    await database.fetch(f"INSERT INTO request_nonce VALUES (gen_random_uuid(), {old})")
    assert await cleanup.forget_expired() > 0
    after = await counted(database)
    assert after == dict.fromkeys(TABLES, 0) | {"customer": 1, "signing_key": 1}
    assert (await customers.read_customer(person.customer_id)).status == "ACTIVE"
    credentials = await database.fetch("SELECT owner_id FROM credential")
    assert [row["owner_id"] for row in credentials] == [person.customer_id]
