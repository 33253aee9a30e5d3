"""Real servers for every test: a PostgreSQL and a Valkey of the run's own, or those it is given.

`PURSER_TEST_OWNER_DATABASE_URL` and `PURSER_TEST_REDIS_URL` name running servers (both or neither).
One template database is migrated per run; each test that asks for `database` gets a fresh copy.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis

from core import configuration as installed_configuration
from core.configuration import Configuration

ROOT = Path(__file__).resolve().parent.parent
APPLICATION_ROLE = "purser_app"
APPLICATION_PASSWORD = "application of the tests"
LEASE_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Cluster:
    """A PostgreSQL cluster with a migrated template, and one Valkey database for this run."""

    owner_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    template: str

    def owner_url_of(self, name: str) -> str:
        """The owner's URL of another database of the cluster."""
        return urllib.parse.urlsplit(self.owner_url)._replace(path=f"/{name}").geturl()

    def application_url_of(self, name: str) -> str:
        """The application's URL of a database of the cluster."""
        return application_url(self.owner_url_of(name))


@dataclass(frozen=True, slots=True)
class Database:
    """One test's database: `url` is the application's, `owner_url` the migrator's."""

    name: str
    url: str = field(repr=False)
    owner_url: str = field(repr=False)

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows as the owner, who sees every tenant."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The servers of this run, with a template database that is migrated once."""
    owner_url = os.environ.get("PURSER_TEST_OWNER_DATABASE_URL")
    redis_url = os.environ.get("PURSER_TEST_REDIS_URL")
    if owner_url and redis_url:
        yield from _prepared_cluster(owner_url, redis_url)
        return
    from app.development.throwaway import throwaway_servers

    with throwaway_servers() as servers:
        yield from _prepared_cluster(servers.owner_url, servers.redis_url)


@pytest.fixture
async def database(cluster: Cluster, configuration: Configuration) -> AsyncIterator[Database]:
    """A fresh copy of the template, with `core.phase` connected to it as the application."""
    from core import phase

    name = urllib.parse.urlsplit(configuration.database_url).path.lstrip("/")
    await _administer(cluster, f'CREATE DATABASE "{name}" TEMPLATE "{cluster.template}"')
    try:
        await phase.connect(configuration.database_url, pool_size=10, application_name="test")
        yield Database(name, configuration.database_url, cluster.owner_url_of(name))
    finally:
        await phase.close()
        await _administer(cluster, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
async def valkey(cluster: Cluster) -> str:
    """The URL of an empty Valkey database that nobody else uses."""
    async with Redis.from_url(cluster.redis_url) as redis:
        await redis.flushdb()
    return cluster.redis_url


@pytest.fixture
def configuration(cluster: Cluster, tmp_path: Path) -> Iterator[Configuration]:
    """The installed configuration of one test; its database exists only with `database`."""
    values = configuration_of_a_test(
        cluster.application_url_of(f"purser_test_{uuid.uuid4().hex}"),
        cluster.redis_url,
        risk_model_directory=tmp_path / "risk_models",
    )
    installed_configuration.install(values)
    yield values
    installed_configuration.install(None)


def configuration_of_a_test(database_url: str, redis_url: str, **changes: Any) -> Configuration:
    """A configuration with fresh keys; bank and messages go nowhere unless `changes` says."""
    bank_key = Ed25519PrivateKey.generate()
    values: dict[str, Any] = {
        "environment": "development",
        "public_url": "http://127.0.0.1:8080",
        "database_url": database_url,
        "redis_url": redis_url,
        "master_key": os.urandom(32),
        "token_issuer": "http://127.0.0.1:8080",
        "token_audience": "purser",
        "bank_url": "http://127.0.0.1:1",
        "bank_private_key": private_pem(bank_key),
        "bank_public_key": public_pem(bank_key),
        "sms_url": "http://127.0.0.1:1/messages",
        "sms_key": os.urandom(32),
        "risk_model_directory": Path(),
        "replay_allowed": True,
    }
    return Configuration(**{**values, **changes})


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """An unencrypted PKCS 8 document."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half, as SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def application_url(owner_url: str) -> str:
    """The same database for the application's role."""
    parts = urllib.parse.urlsplit(owner_url)
    place = parts.netloc.rpartition("@")[2]
    password = urllib.parse.quote(APPLICATION_PASSWORD)
    return parts._replace(netloc=f"{APPLICATION_ROLE}:{password}@{place}").geturl()


def shape_of_the_database() -> str:
    """A digest of all that `migrations.apply` reads: runs on the same server share a template."""
    digest = hashlib.sha256()
    patterns = ("migrations/**/*.py", "migrations/**/*.sql", "*/sql/*.sql")
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _prepared_cluster(owner_url: str, redis_url: str) -> Iterator[Cluster]:
    template = f"purser_template_{shape_of_the_database()}"
    lease_url, lease = _outside_a_loop(_lease_valkey_database(redis_url))
    prepared = Cluster(owner_url, lease_url, template)
    try:
        _outside_a_loop(_make_template(prepared))
        yield prepared
    finally:
        _outside_a_loop(_end_lease(redis_url, lease))


async def _make_template(cluster: Cluster) -> None:
    """Migrate the template, unless another run on this server did; one run at a time."""
    from migrations.apply import apply

    connection = await asyncpg.connect(cluster.owner_url)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", cluster.template)
        ready = await connection.fetchval(
            "SELECT datallowconn = false FROM pg_database WHERE datname = $1", cluster.template
        )
        if ready:
            return
        await connection.execute(f'DROP DATABASE IF EXISTS "{cluster.template}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{cluster.template}"')
        await apply(cluster.owner_url_of(cluster.template))
        await connection.execute(f"ALTER ROLE {APPLICATION_ROLE} PASSWORD '{APPLICATION_PASSWORD}'")
        await connection.execute(
            f'ALTER DATABASE "{cluster.template}" WITH ALLOW_CONNECTIONS false IS_TEMPLATE true'
        )
    finally:
        await connection.close()


async def _administer(cluster: Cluster, sql: str) -> None:
    connection = await asyncpg.connect(cluster.owner_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _lease_valkey_database(redis_url: str) -> tuple[str, str]:
    """A numbered database of the server that no other run holds; the leases stand in number 0."""
    async with Redis.from_url(redis_url) as redis:
        for number in range(1, 16):
            lease = f"test-database:{number}"
            if await redis.set(lease, "taken", nx=True, ex=LEASE_SECONDS):
                return _with_database_number(redis_url, number), lease
    pytest.fail("every database of the Valkey server is in use by another run")


async def _end_lease(redis_url: str, lease: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(lease)


def _with_database_number(redis_url: str, number: int) -> str:
    parts = urllib.parse.urlsplit(redis_url)
    if parts.scheme == "unix":
        return parts._replace(query=f"db={number}").geturl()
    return parts._replace(path=f"/{number}").geturl()


def _outside_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work` in a thread: the fixtures of a run must not disturb the loops of its tests."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()
