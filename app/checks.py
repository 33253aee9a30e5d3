"""What must hold outside of the code: the database's settings and roles, Valkey's policy, a model.

A process refuses to start on a database that could lose what it acknowledged; `purser doctor` shows
all of it, and what in the data is past its deadline.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core import configuration
from core.phase import statement

POSTGRES_VERSION_MIN = 160_000
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
TIMEOUTS_MS = {
    "statement_timeout": 5_000,
    "lock_timeout": 2_000,
    "idle_in_transaction_session_timeout": 5_000,
}
OVERDUE_SHOWN_MAX = 20


class UnsafeDatabase(Exception):
    """The database could lose an acknowledged commit, or shows the application too much."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `purser doctor`."""

    subject: str
    holds: bool
    detail: str


async def refuse_unsafe_database() -> None:
    """Raises `UnsafeDatabase` with one line when a check of the database does not hold."""
    wrong = [check for check in await database_checks() if not check.holds]
    if wrong:
        raise UnsafeDatabase("; ".join(f"{check.subject}: {check.detail}" for check in wrong))


async def database_checks() -> list[Check]:
    """The settings of the running server and the rights of the role we are."""
    rows = await statement(
        "SELECT name, setting FROM pg_settings WHERE name = ANY($1)",
        ["server_version_num", "server_version", *DURABLE, *TIMEOUTS_MS],
        writes=False,
    )
    found = {row["name"]: row["setting"] for row in rows}
    version = int(found["server_version_num"])
    checks = [
        Check("PostgreSQL", version >= POSTGRES_VERSION_MIN, f"version {found['server_version']}")
    ]
    checks += [Check(name, found[name] == "on", f"is {found[name]}") for name in DURABLE]
    checks += [
        Check(name, 0 < int(found[name]) <= most, f"is {found[name]} ms, at most {most}")
        for name, most in TIMEOUTS_MS.items()
    ]
    return [*checks, *await _role_checks()]


async def doctor() -> list[Check]:
    """Everything: the database, Valkey, the risk model, and what is past its deadline."""
    return [
        *await database_checks(),
        await _valkey_check(),
        await asyncio.to_thread(_risk_model_check),
        *await _overdue_check(),
    ]


async def _role_checks() -> list[Check]:
    rows = await statement(
        """SELECT current_user AS name, rolsuper, rolbypassrls,
            (SELECT count(*) FROM pg_class WHERE relowner = r.oid) AS owned,
            to_regprocedure('purser_now()') IS NOT NULL AS migrated
        FROM pg_roles r WHERE rolname = current_user""",
        writes=False,
    )
    role = rows[0]
    harmless = not (role["rolsuper"] or role["rolbypassrls"] or role["owned"])
    return [
        Check(
            "role", harmless, f"{role['name']} must be no superuser, own nothing, bypass nothing"
        ),
        Check(
            "migrations",
            role["migrated"],
            "applied" if role["migrated"] else "the database is empty: run `purser migrate`",
        ),
    ]


async def _valkey_check() -> Check:
    try:
        async with Redis.from_url(
            configuration.current().redis_url, socket_connect_timeout=2.0, socket_timeout=2.0
        ) as redis:
            policy = (await redis.info("memory")).get("maxmemory_policy", "not shown")
    except (RedisError, OSError) as error:
        return Check("Valkey", False, f"cannot be reached ({type(error).__name__})")
    return Check("Valkey", policy == "noeviction", f"maxmemory-policy is {policy}")


def _risk_model_check() -> Check:
    from risk_model import champion
    from risk_model.scoring import Unavailable

    model = champion.current()
    if isinstance(model, Unavailable):
        return Check("risk model", False, f"rules decide alone: {model.reason} {model.detail}")
    return Check("risk model", True, f"version {model.model.version}")


async def _overdue_check() -> list[Check]:
    from payments.sweep import attention

    waiting = await attention(OVERDUE_SHOWN_MAX)
    return [
        Check(
            "overdue", False, f"order {row.order_id} in {row.state} since {row.since}: {row.reason}"
        )
        for row in waiting
    ] or [Check("overdue", True, "nothing is past its deadline")]
