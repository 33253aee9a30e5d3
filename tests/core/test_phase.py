"""Phases: one transaction each, honest about what is known, and no connection ever lost."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import asyncpg
import pytest

from core import phase as phases
from core.errors import OutcomeUnknown, ServerBusy
from core.models import AuditRow
from core.phase import execute_many, in_phase, phase, statement
from core.principal import SYSTEM, Principal
from tests.core.conftest import Proxy, through


async def principal_now() -> str | None:
    rows = await statement("SELECT nullif(current_setting('purser.principal', true), '') AS name")
    name: str | None = rows[0]["name"]
    return name


async def noted(database: Any, action: str) -> int:
    rows = await database.fetch("SELECT FROM audit_log WHERE action = $1", action)
    return len(rows)


async def note(action: str) -> None:
    await AuditRow.create(
        audit_id=uuid.uuid4(), actor="system", action=action, subject="", outcome="DONE", facts={}
    )


async def note_once(action: str) -> None:
    async with phase(SYSTEM):
        await note(action)


def free_connections() -> int:
    """How many connections the pool could give out now."""
    pool = phases._client()._pool
    assert pool is not None
    return pool.get_max_size() - pool.get_size() + pool.get_idle_size()


async def test_a_phase_keeps_all_or_nothing(database: Any) -> None:
    async def fail() -> None:
        async with phase(SYSTEM):
            await note("LOST")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with phase(SYSTEM):
        await note("KEPT")
        await execute_many("SELECT set_config('test.x', $1, true)", [["1"], ["2"]])
    assert (await noted(database, "LOST"), await noted(database, "KEPT")) == (0, 1)


async def test_a_pooled_connection_forgets_its_principal(database: Any) -> None:
    one = Principal("customer", uuid.uuid4())
    for _ in range(20):
        async with phase(one):
            assert await principal_now() == str(one)
        assert await principal_now() is None
        with pytest.raises(LookupError):
            async with phase(one):
                raise LookupError
        assert await principal_now() is None


async def test_parallel_phases_never_see_each_others_principal(database: Any) -> None:
    async def look(number: int) -> None:
        one = Principal("merchant", uuid.UUID(int=number))
        async with phase(one):
            for _ in range(3):
                assert await principal_now() == str(one)
                await asyncio.sleep(0)

    await asyncio.gather(*(look(number) for number in range(100)))


async def test_a_phase_inside_a_phase_is_a_bug(database: Any) -> None:
    async with phase(SYSTEM):
        assert in_phase()
        with pytest.raises(RuntimeError, match="inside a phase"):
            async with phase(SYSTEM):
                pass
        assert await statement("SELECT 1") != []
    assert not in_phase()
    with pytest.raises(RuntimeError, match="inside a phase"):
        await execute_many("SELECT $1", [["1"]])


async def test_an_exhausted_pool_answers_busy_within_two_seconds(database: Any) -> None:
    async with asyncio.timeout(20):
        held = asyncio.Event()
        let_go = asyncio.Event()
        entered = []

        async def hold() -> None:
            async with phase(SYSTEM):
                entered.append(None)
                if len(entered) == 10:
                    held.set()
                await let_go.wait()

        holders = [asyncio.create_task(hold()) for _ in range(10)]
        await held.wait()

        async def ask(number: int) -> float:
            started = time.monotonic()
            with pytest.raises(ServerBusy):
                await (statement("SELECT 1") if number % 2 else note_once("REFUSED"))
            return time.monotonic() - started

        waits = await asyncio.gather(*(ask(number) for number in range(50)))
        assert max(waits) < 3.0
        let_go.set()
        await asyncio.gather(*holders)
    assert free_connections() == 10
    assert await statement("SELECT 1") != []


@pytest.mark.parametrize("alone", [False, True], ids=["phases", "statements"])
async def test_two_hundred_cancelled_ones_leak_no_connection(database: Any, alone: bool) -> None:
    async def work() -> None:
        if alone:
            await statement("SELECT pg_sleep(0.02)")
            return
        async with phase(SYSTEM):
            await note("CANCELLED")
            await statement("SELECT pg_sleep(0.02)")

    for round_number in range(10):
        tasks = [asyncio.create_task(work()) for _ in range(20)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.001 * ((round_number + number) % 5))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    deadline = time.monotonic() + 10
    while free_connections() < 10:
        assert time.monotonic() < deadline, "a connection was not given back"
        await asyncio.sleep(0.02)

    async def quick() -> None:
        async with phase(SYSTEM):
            assert await principal_now() == "system"

    await asyncio.gather(*(quick() for _ in range(40)))
    open_now = await database.fetch(
        "SELECT FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle in transaction%'",
        database.name,
    )
    assert open_now == []


@pytest.mark.parametrize("place", ["acquire", "begin", "body", "commit"])
async def test_a_phase_cancelled_anywhere_gives_its_connection_back(
    database: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each await of a phase is cancelled once, by counting the turns of the loop until then."""
    turns = {"acquire": 1, "begin": 3, "body": 6, "commit": 9}[place]

    async def work() -> None:
        async with phase(SYSTEM):
            await note("CANCELLED")

    for extra in range(12):
        task = asyncio.create_task(work())
        for _ in range(turns + extra):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    deadline = time.monotonic() + 5
    while free_connections() < 10:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await statement("SELECT 1") != []


@pytest.fixture
async def by_proxy(database: Any, postgres_proxy: Proxy) -> Proxy:
    """The pool of the test, connected again by way of the proxy."""
    await phases.close()
    url = through(postgres_proxy, database.url)
    await phases.connect(url, pool_size=2, application_name="test")
    return postgres_proxy


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_connection_lost_at_the_commit_leaves_the_outcome_unknown(
    database: Any, by_proxy: Proxy, arrived: bool
) -> None:
    by_proxy.cut_at, by_proxy.after_reply = b"COMMIT", arrived
    with pytest.raises(OutcomeUnknown):
        async with phase(SYSTEM):
            await note("PERHAPS")
    assert by_proxy.cuts_count == 1
    await asyncio.sleep(0.1)
    assert await noted(database, "PERHAPS") == (1 if arrived else 0)
    async with phase(SYSTEM):
        await note("AFTERWARDS")
    assert await noted(database, "AFTERWARDS") == 1


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_connection_lost_before_the_commit_means_that_nothing_happened(
    database: Any, by_proxy: Proxy, arrived: bool
) -> None:
    by_proxy.cut_at, by_proxy.after_reply = b"audit_log", arrived
    with pytest.raises(ServerBusy):
        async with phase(SYSTEM):
            await note("NEVER")
    await asyncio.sleep(0.1)
    assert await noted(database, "NEVER") == 0
    async with phase(SYSTEM):
        await note("AFTERWARDS")


async def test_a_single_statement_that_writes_is_unknown_when_its_answer_is_lost(
    database: Any, by_proxy: Proxy
) -> None:
    by_proxy.cut_at, by_proxy.after_reply = b"write_outbox", True
    with pytest.raises(OutcomeUnknown):
        await statement("SELECT write_outbox($1::jsonb)", [])
    by_proxy.cut_at = b"SELECT 7"
    with pytest.raises(ServerBusy):
        await statement("SELECT 7", writes=False)
    assert await statement("SELECT 1") != []


async def test_a_database_that_is_away_is_busy_at_once_and_needs_no_step_afterwards(
    database: Any, by_proxy: Proxy
) -> None:
    async with phase(SYSTEM):
        pass
    await by_proxy.stop()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(ServerBusy):
            async with phase(SYSTEM):
                await note("AWAY")
    with pytest.raises(ServerBusy):
        await statement("SELECT 1", writes=False)
    assert time.monotonic() - started < 2.5
    await by_proxy.start()
    async with phase(SYSTEM):
        await note("BACK")
    assert await noted(database, "AWAY") == 0


async def test_a_server_that_ends_the_session_is_busy_and_no_stack_trace(database: Any) -> None:
    async def ended() -> None:
        async with phase(SYSTEM):
            await note("ENDED")
            process_id = (await statement("SELECT pg_backend_pid() AS id"))[0]["id"]
            await database.fetch("SELECT pg_terminate_backend($1)", process_id)
            await asyncio.sleep(0.05)
            await note("ENDED")

    with pytest.raises(ServerBusy):
        await ended()
    assert await noted(database, "ENDED") == 0


async def test_locks_and_statements_that_take_too_long_are_busy(database: Any) -> None:
    async def long() -> None:
        async with phase(SYSTEM):
            await statement("SELECT pg_sleep(6)")

    async def blocked() -> None:
        async with phase(SYSTEM):
            await statement("SELECT pg_advisory_xact_lock(7)")

    holder = await asyncpg.connect(database.owner_url)
    try:
        await holder.execute("SELECT pg_advisory_lock(7)")
        started = time.monotonic()
        results = await asyncio.gather(long(), blocked(), return_exceptions=True)
        assert [type(each) for each in results] == [ServerBusy, ServerBusy]
        assert time.monotonic() - started < 6.0
    finally:
        await holder.close()


async def test_our_own_mistakes_stay_what_they_are(database: Any) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        await statement("SELECT * FROM no_such_table")
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with phase(SYSTEM):
            await statement("SELECT 1 / 0")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with phase(SYSTEM):
            await statement("DELETE FROM audit_log")


async def test_the_first_connection_to_a_database_that_is_away_says_so(database: Any) -> None:
    await phases.close()
    with pytest.raises(ServerBusy):
        await phases.connect("postgresql://x@127.0.0.1:1/x", pool_size=1, application_name="test")
    with pytest.raises(Exception, match=r"."):
        async with phase(SYSTEM):
            pass


async def test_a_database_that_hangs_is_given_up_and_the_pool_goes_on(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read is busy, a write unknown, an uncommitted phase busy; none keeps its place."""
    await phases.close()
    monkeypatch.setattr(phases, "COMMAND_TIMEOUT_SECONDS", 0.3)
    await phases.connect(database.url, pool_size=2, application_name="impatient")
    for _ in range(3):
        with pytest.raises(ServerBusy):
            await statement("SELECT pg_sleep(3)", writes=False)
        with pytest.raises(OutcomeUnknown):
            await statement("SELECT pg_sleep(3)")
        with pytest.raises(ServerBusy):
            async with phase(SYSTEM):
                await statement("SELECT pg_sleep(3)")
    assert (await statement("SELECT 1 AS one", writes=False))[0]["one"] == 1
