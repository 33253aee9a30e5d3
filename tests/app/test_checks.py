"""A process refuses a database that could lose a commit or shows too much; the doctor tells all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import checks
from app.checks import UnsafeDatabase
from core import phase


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[None]:
    """Another pool than the fixture's, for as long as it is open."""
    await phase.close()
    await phase.connect(url, pool_size=2, application_name="test-checks")
    yield


async def test_the_database_of_the_tests_is_safe(database: Any) -> None:
    await checks.refuse_unsafe_database()
    held = {check.subject for check in await checks.database_checks() if check.holds}
    assert held >= {*checks.DURABLE, *checks.TIMEOUTS_MS, "role", "migrations", "PostgreSQL"}


async def test_a_role_that_owns_or_may_do_everything_is_refused(database: Any) -> None:
    async with connected(database.owner_url):
        with pytest.raises(UnsafeDatabase, match="must be no superuser, own nothing"):
            await checks.refuse_unsafe_database()


async def test_commits_that_do_not_wait_for_the_disk_are_refused(database: Any) -> None:
    await database.fetch(f'ALTER DATABASE "{database.name}" SET synchronous_commit = off')
    async with connected(database.url):
        with pytest.raises(UnsafeDatabase, match="synchronous_commit: is off"):
            await checks.refuse_unsafe_database()


async def test_the_doctor_says_what_is_missing(database: Any, valkey: str) -> None:
    found = {check.subject: check for check in await checks.doctor()}
    assert found["Valkey"].holds
    assert not found["risk model"].holds
    assert found["risk model"].detail.startswith("rules decide alone")
    assert found["overdue"].holds
