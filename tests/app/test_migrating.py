"""Migrating on a server that gives nobody a superuser, as managed ones do."""

from __future__ import annotations

import asyncio
import urllib.parse

import asyncpg
import pytest

from app.development.throwaway import throwaway_servers
from migrations.apply import OWNING_ROLES, apply


async def _as_a_plain_owner(superuser_url: str) -> list[str]:
    connection = await asyncpg.connect(superuser_url)
    try:
        await connection.execute("CREATE ROLE plain LOGIN CREATEROLE PASSWORD 'plain'")
        await connection.execute("CREATE ROLE powerless LOGIN PASSWORD 'powerless'")
        await connection.execute("CREATE DATABASE purser_plain OWNER plain")
        await connection.execute("CREATE DATABASE purser_powerless OWNER powerless")
    finally:
        await connection.close()
    query = urllib.parse.urlsplit(superuser_url).query
    with pytest.raises(PermissionError, match="CREATE ROLE purser_app"):
        await apply(f"postgresql://powerless:powerless@/purser_powerless?{query}")
    url = f"postgresql://plain:plain@/purser_plain?{query}"
    await apply(url)
    await apply(url)
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            """SELECT DISTINCT r.rolname FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
            WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"""
        )
        creators = await connection.fetch(
            "SELECT role FROM unnest($1::text[]) AS role"
            " WHERE has_schema_privilege(role, 'public', 'CREATE')",
            list(OWNING_ROLES),
        )
    finally:
        await connection.close()
    assert creators == []
    return [row["rolname"] for row in rows]


def test_an_owner_who_may_make_roles_migrates_and_keeps_no_function_of_the_tenants() -> None:
    with throwaway_servers() as servers:
        owners = asyncio.run(_as_a_plain_owner(servers.owner_url))
    assert set(owners) <= {*OWNING_ROLES}
