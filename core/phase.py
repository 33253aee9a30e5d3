"""The only place where transactions begin: one phase is one READ COMMITTED transaction of one
principal.

A phase never contains a network call other than to PostgreSQL. Every failure of the database
becomes an honest answer here: `ServerBusy` where certainly nothing was written, `OutcomeUnknown`
where only a look-up can tell. Tortoise's own `in_transaction()` is not used: it leaks its pooled
connection when it is cancelled during BEGIN, and takes no principal.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import orjson
from tortoise import Tortoise
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.connection import get_connection, get_connections
from tortoise.exceptions import IntegrityError, OperationalError

from core.errors import OutcomeUnknown, PurserError, ServerBusy
from core.principal import Principal

MODEL_MODULES = (
    "core.models",
    "identity.models",
    "wallet.models",
    "risk_model.models",
    "payments.models",
)
APP = "purser"
POOL_WAIT_SECONDS = 2.0
STATEMENT_TIMEOUT_MS = 5_000
COMMAND_TIMEOUT_SECONDS = 7.0
RELEASE_TIMEOUT_SECONDS = 2.0
LOCK_TIMEOUT_MS = 2_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 5_000

PROVEN_ROLLBACK_CLASSES = frozenset({"22", "23", "40", "42", "P0"})
PROVEN_ROLLBACK_STATES = frozenset({"55P03", "57014"})
"""SQLSTATEs whose receipt proves that the transaction did not commit (40003 does not)."""


def orm_config(database_url: str, pool_size: int, application_name: str) -> dict[str, Any]:
    """Tortoise's configuration for one pool; migrations use it too."""
    parts = urllib.parse.urlsplit(database_url)
    query = dict(urllib.parse.parse_qsl(parts.query))
    credentials: dict[str, Any] = {
        "host": query.pop("host", None) or parts.hostname,
        "port": parts.port or 5432,
        "user": urllib.parse.unquote(parts.username or ""),
        "password": urllib.parse.unquote(parts.password or "") or None,
        "database": parts.path.lstrip("/"),
        "minsize": 1,
        "maxsize": pool_size,
        "timeout": POOL_WAIT_SECONDS,
        "application_name": application_name,
        "init": prepare_connection,
        "reset": _nothing_to_reset,
        "server_settings": {
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
            "timezone": "UTC",
        },
        **query,
    }
    return {
        "connections": {
            "default": {"engine": "tortoise.backends.asyncpg", "credentials": credentials}
        },
        "apps": {
            APP: {
                "models": list(MODEL_MODULES),
                "default_connection": "default",
                "migrations": "migrations.versions",
            }
        },
        "use_tz": True,
        "timezone": "UTC",
    }


async def connect(
    database_url: str, *, pool_size: int, application_name: str, long_statements: bool = False
) -> None:
    """Open the pool of this process; raises `ServerBusy` when the database cannot be reached.

    A statement is given up a little after the server's own limit, because a server that hangs keeps
    no limit; `long_statements` is for processes whose statements set themselves a higher one.
    """
    config = orm_config(database_url, pool_size, application_name)
    if not long_statements:
        credentials = config["connections"]["default"]["credentials"]
        credentials["command_timeout"] = COMMAND_TIMEOUT_SECONDS
    await Tortoise.init(config=config, _enable_global_fallback=True)
    try:
        await _client().create_connection(with_db=True)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        await close()
        raise ServerBusy("The database cannot be reached.") from error


async def close() -> None:
    """Close the pool; in-flight phases are ended."""
    await Tortoise.close_connections()


@asynccontextmanager
async def phase(principal: Principal) -> AsyncIterator[TransactionWrapper]:
    """One transaction as `principal`; Tortoise models used inside it take part by themselves.

    Commits on leaving, rolls back on any exception. Raises `ServerBusy` when no connection is free
    in two seconds or the database went away before the commit was asked for, `OutcomeUnknown` when
    it went away during the commit. Phases do not nest: a second one inside the first is a bug.
    """
    client = _client()
    if isinstance(client, TransactionWrapper):
        raise RuntimeError("a phase inside a phase")
    connection = await _acquire(client)
    try:
        transaction = connection.transaction()
        try:
            await transaction.start()
            await connection.execute(
                "SELECT set_config('purser.principal', $1, true)", str(principal)
            )
        except Exception as error:
            raise _nothing_written(error) from error
        wrapper = TransactionWrapper(client)
        wrapper._connection = connection
        token = get_connections().set("default", wrapper)
        try:
            yield wrapper
        except BaseException as error:
            await _roll_back(connection, transaction, hangs=isinstance(error, TimeoutError))
            if isinstance(error, PurserError) or not isinstance(error, Exception):
                raise
            if (known := _database_failure(error)) is not None:
                raise known from error
            raise
        finally:
            get_connections().reset(token)
        await _commit(transaction)
    finally:
        await asyncio.shield(_release(client, connection))


async def statement(sql: str, *arguments: Any, writes: bool = True) -> list[asyncpg.Record]:
    """One statement as its own transaction, in one round trip: for the functions that check
    tenants.

    Raises `ServerBusy` or `OutcomeUnknown` as `phase` does; with `writes=False` nothing can be
    unknown. Inside a phase it runs as a part of it.
    """
    client = _client()
    if isinstance(client, TransactionWrapper):
        return list(await client._connection.fetch(sql, *arguments))
    connection = await _acquire(client)
    try:
        return list(await connection.fetch(sql, *arguments))
    except Exception as error:
        if isinstance(error, TimeoutError):
            _drop(connection)
        if not writes or _proves_rollback(error):
            raise _nothing_written(error) from error
        raise OutcomeUnknown() from error
    finally:
        await asyncio.shield(_release(client, connection))


async def execute_many(sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """One statement for many rows, inside the phase that is open."""
    client = _client()
    if not isinstance(client, TransactionWrapper):
        raise RuntimeError("execute_many belongs inside a phase")
    await client._connection.executemany(sql, rows)


def in_phase() -> bool:
    """Whether the caller stands inside a phase."""
    return isinstance(_client(), TransactionWrapper)


async def prepare_connection(connection: asyncpg.Connection) -> None:
    """Documents travel in binary form, so that they may stand inside of rows and arrays; one that
    its caller has encoded already goes as it is.
    """
    await connection.set_type_codec(
        "jsonb", encoder=_jsonb, decoder=_from_jsonb, schema="pg_catalog", format="binary"
    )


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """A phase sets what it sets for its transaction alone; the pool ends one that was left open. So
    giving a connection back costs no round trip.
    """


JSONB_VERSION = b"\x01"


def _jsonb(value: Any) -> bytes:
    if isinstance(value, bytes):
        return JSONB_VERSION + value
    return JSONB_VERSION + (value.encode() if isinstance(value, str) else orjson.dumps(value))


def _from_jsonb(value: bytes) -> Any:
    return orjson.loads(memoryview(value)[1:])


def _client() -> AsyncpgDBClient:
    client = get_connection("default")
    assert isinstance(client, AsyncpgDBClient)
    return client


async def _acquire(client: AsyncpgDBClient) -> asyncpg.Connection:
    pool = client._pool
    if pool is None:
        raise RuntimeError("this process has not connected to the database")
    try:
        return await pool.acquire(timeout=POOL_WAIT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ServerBusy() from error


async def _release(client: AsyncpgDBClient, connection: asyncpg.Connection) -> None:
    """Give the connection back; a broken one is dropped, and must not hide the first error."""
    try:
        if client._pool is not None:
            await client._pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        _drop(connection)


async def _roll_back(
    connection: asyncpg.Connection, transaction: Any, *, hangs: bool = False
) -> None:
    if hangs:
        _drop(connection)
        return
    try:
        await asyncio.shield(transaction.rollback())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        # The server rolls back what a lost connection left open.
        _drop(connection)


def _drop(connection: asyncpg.Connection) -> None:
    """End a broken connection. One that the pool has dropped by itself must not be touched."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _commit(transaction: Any) -> None:
    try:
        await asyncio.shield(transaction.commit())
    except Exception as error:
        if _proves_rollback(error):
            raise _nothing_written(error) from error
        raise OutcomeUnknown() from error


def _database_failure(error: Exception) -> PurserError | None:
    """Before COMMIT is sent nothing can have been kept, so a lost connection means `ServerBusy`."""
    cause = error.__cause__ if isinstance(error, (OperationalError, IntegrityError)) else error
    lost = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    if isinstance(cause, lost) or getattr(cause, "sqlstate", "")[:2] in ("08", "40", "53", "57"):
        return ServerBusy()
    return ServerBusy() if getattr(cause, "sqlstate", "") == "55P03" else None


def _nothing_written(error: Exception) -> Exception:
    """`ServerBusy` for a database that was away or overloaded; our own bugs stay what they are."""
    return _database_failure(error) or error


def _proves_rollback(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None) or ""
    if state == "40003":
        return False
    return state[:2] in PROVEN_ROLLBACK_CLASSES or state in PROVEN_ROLLBACK_STATES
