"""Bring a database to the present shape: roles, numbered migrations, then the SQL functions.

Numbered migrations run once (Tortoise's own). The functions in `<package>/sql/` are repeatable:
they are replaced each time, so that the newest text beside a package is what the database runs. One
applies at a time, under an advisory lock that Tortoise does not take itself.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg
from tortoise import Tortoise
from tortoise.migrations.api.migrate import migrate

from core.phase import orm_config

LOCK_KEY = 0x5075_7273_6572
PACKAGES = ("core", "identity", "wallet", "risk_model", "payments")
ROLES = {
    "purser_app": "LOGIN",
    "purser_poster": "NOLOGIN",
    "purser_lookup": "NOLOGIN",
    "purser_sealer": "NOLOGIN",
    "purser_reader": "NOLOGIN",
}
OWNING_ROLES = tuple(role for role, login in ROLES.items() if login == "NOLOGIN")
"""The roles that own functions; nobody logs in as one of them."""
ROOT = Path(__file__).resolve().parent.parent


async def apply(owner_url: str) -> None:
    """Make the missing roles, run what has not run, replace the functions.

    Raises `PermissionError`, with the SQL to run by hand, where the owner may not make roles.
    """
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        await _make_roles(connection)
        await _join_owning_roles(connection)
        await migrate(config=_config(owner_url))
        await Tortoise.close_connections()
        async with connection.transaction():
            # Who is given a function must be allowed to make one here; for this moment they are.
            owners = ", ".join(OWNING_ROLES)
            await connection.execute(f"GRANT CREATE ON SCHEMA public TO {owners}")
            for path in function_files():
                await connection.execute(path.read_text())
            await connection.execute(f"REVOKE CREATE ON SCHEMA public FROM {owners}")
    finally:
        await connection.close()


def function_files() -> list[Path]:
    """The repeatable SQL of each package, in the order in which one may call another."""
    return [path for package in PACKAGES for path in sorted((ROOT / package / "sql").glob("*.sql"))]


def guard_sql(package: str) -> str:
    """The constraints, grants, triggers and policies of one package's tables."""
    folder = Path(__file__).parent / "sql"
    return "\n".join(path.read_text() for path in sorted(folder.glob(f"{package}*.sql")))


def missing_roles_sql(present: set[str]) -> str:
    """The statements that make the roles that are not there yet."""
    return "\n".join(
        f"CREATE ROLE {role} {login} NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;"
        for role, login in ROLES.items()
        if role not in present
    )


async def _make_roles(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'purser_%'")
    statements = missing_roles_sql({row["rolname"] for row in rows})
    if not statements:
        return
    try:
        await connection.execute(statements)
    except asyncpg.InsufficientPrivilegeError:
        raise PermissionError(f"run this as a role that may make roles:\n{statements}") from None
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        pass  # Another database of the same cluster made them in the meantime.


async def _join_owning_roles(connection: asyncpg.Connection) -> None:
    """An owner that is no superuser may give functions only to roles that it could become."""
    if await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return
    roles = ", ".join(OWNING_ROLES)
    try:
        await connection.execute(f"GRANT {roles} TO CURRENT_USER WITH SET TRUE")
    except asyncpg.InsufficientPrivilegeError:
        raise PermissionError(
            f"grant this owner, as whoever made the roles: GRANT {roles} TO … WITH SET TRUE;"
        ) from None


def _config(owner_url: str) -> dict[str, object]:
    config = orm_config(owner_url, 1, "purser-migrate")
    credentials = config["connections"]["default"]["credentials"]
    credentials["server_settings"] = {"timezone": "UTC"}
    return config


def main() -> None:
    """`python -m migrations.apply OWNER_URL`."""
    asyncio.run(apply(sys.argv[1]))


if __name__ == "__main__":
    main()
