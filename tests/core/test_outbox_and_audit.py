"""The outbox and the audit log: written in the commit that causes them, once, and never changed."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest

from core import audit, ids, outbox
from core.outbox import Event
from core.phase import phase, statement
from core.principal import SYSTEM, Principal


def event(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "topic": "order.succeeded",
        "resource_kind": "order",
        "resource_id": ids.new_id(),
    }
    return Event(**{**values, **changes})


async def test_an_event_added_twice_is_one_row(database: Any) -> None:
    one = event(job="finish_operation", payload={"n": 1})
    async with phase(SYSTEM):
        await outbox.add(one, one)
        await outbox.add(one)
    async with phase(SYSTEM):
        await outbox.add(one)
    rows = await database.fetch("SELECT * FROM outbox")
    assert len(rows) == 1
    assert rows[0]["due_at"] is not None
    assert (rows[0]["claims_count"], rows[0]["done_at"]) == (0, None)


async def test_an_event_goes_with_the_phase_that_causes_it(database: Any) -> None:
    async def fail() -> None:
        async with phase(SYSTEM):
            await outbox.add(event())
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await database.fetch("SELECT FROM outbox") == []


async def test_an_event_without_a_job_is_never_due(database: Any) -> None:
    async with phase(SYSTEM):
        await outbox.add(event(), event(job="finish_operation", delay_seconds=60.0))
    rows = await database.fetch(
        "SELECT job, due_at - created_at AS delay FROM outbox ORDER BY sequence"
    )
    assert rows[0]["delay"] is None
    assert 59.0 < rows[1]["delay"].total_seconds() < 61.0


async def test_events_are_seen_by_their_parties_alone(database: Any) -> None:
    merchant, payer, stranger = ids.new_id(), ids.new_id(), ids.new_id()
    async with phase(SYSTEM):
        await outbox.add(event(merchant_id=merchant, customer_ids=(payer,)))
    seen = {
        who: len(await _seen(who))
        for who in (
            Principal("merchant", merchant),
            Principal("customer", payer),
            Principal("merchant", stranger),
            Principal("customer", stranger),
            Principal("customer", merchant),
            SYSTEM,
        )
    }
    assert list(seen.values()) == [1, 1, 0, 0, 0, 1]


async def _seen(who: Principal) -> list[Any]:
    async with phase(who):
        return await statement("SELECT event_id FROM outbox")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_log SET outcome = 'OTHER'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ],
)
async def test_the_audit_log_is_never_changed_not_by_its_owner_either(
    database: Any, sql: str
) -> None:
    async with phase(SYSTEM):
        await audit.record(SYSTEM, "TESTED", "order:1", amount_minor=7)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with phase(SYSTEM):
            await statement(sql)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed or deleted"):
        await database.fetch(sql)
    rows = await database.fetch("SELECT outcome FROM audit_log")
    assert [row["outcome"] for row in rows] == ["DONE"]


async def test_an_act_and_its_record_commit_together(database: Any) -> None:
    operator = Principal("operator", uuid.uuid4())

    async def fail() -> None:
        async with phase(operator):
            await audit.record(operator, "UNDONE", "order:1")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await database.fetch("SELECT FROM audit_log") == []


async def test_a_security_event_survives_the_refusal_it_belongs_to(database: Any) -> None:
    await audit.record_security_event("CALLBACK_REFUSED", "bank", "REFUSED", size=3)
    async with phase(SYSTEM):
        with pytest.raises(RuntimeError, match="undone"):
            await audit.record_security_event("CALLBACK_REFUSED", "bank", "REFUSED")
    rows = await database.fetch("SELECT actor, action, facts FROM audit_log")
    assert [(row["actor"], row["action"]) for row in rows] == [("anonymous", "CALLBACK_REFUSED")]


async def test_only_operators_and_the_system_read_the_audit_log(database: Any) -> None:
    await audit.record_security_event("LOGIN_REFUSED", "x" * 500, "REFUSED")
    for kind, seen in (("customer", 0), ("merchant", 0), ("operator", 1)):
        async with phase(Principal(kind, ids.new_id())):  # type: ignore[arg-type]
            assert len(await statement("SELECT FROM audit_log")) == seen
