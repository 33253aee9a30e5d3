"""Profiles and decisions in the database: versions, locks, tenants, and no change."""

from __future__ import annotations

import asyncio
import random
import uuid

import asyncpg
import orjson
import pytest

from core import principal
from core.phase import phase, statement
from risk_model.assessment import Profile, Written, override_row, profile_keys
from risk_model.features import snapshot
from risk_model.folding import fold_shared
from risk_model.models import Decision, RiskProfile
from tests.conftest import Database
from tests.risk_model.conftest import a_subject, later
from tests.risk_model.decided import (
    COLUMNS,
    assessment_of,
    changed,
    connected,
    locked,
    named,
    pay,
    profiles_of,
    row_of,
    write,
)


async def test_a_profile_is_read_as_it_was_written(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    first = await pay(owner, subject)
    read = await profiles_of(owner, profile_keys(subject))
    row = first.profiles[0]
    assert read[row.key] == Profile(1, orjson.loads(row.state))
    second = await pay(owner, later(subject, 60))
    assert second.profiles[0].version == 2
    assert snapshot(second.features)["count_1h"] == 1


async def test_a_profile_that_moved_is_not_fresh(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    first = assessment_of(subject, {})
    await pay(owner, subject)
    async with owner.transaction():
        assert await locked(owner, first.profiles) == {first.profiles[0].key: False}


async def test_writing_a_profile_that_moved_undoes_everything(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    stale = assessment_of(subject, {})
    await pay(owner, subject)
    with pytest.raises(asyncpg.SerializationError):
        await write(owner, [row_of(stale, subject)], stale.profiles)
    assert await owner.fetchval("SELECT count(*) FROM decision") == 1


async def test_who_comes_second_waits_and_finds_the_profile_moved(
    owner: asyncpg.Connection, database: Database
) -> None:
    subject = a_subject()
    assessed = assessment_of(subject, {})
    other = await connected(database)
    transaction = owner.transaction()
    await transaction.start()
    assert set((await locked(owner, assessed.profiles)).values()) == {True}
    second = asyncio.create_task(locked(other, assessed.profiles))
    await asyncio.sleep(0.1)
    assert not second.done()
    await write(owner, [row_of(assessed, subject)], assessed.profiles)
    await transaction.commit()
    assert set((await second).values()) == {False}
    await other.close()


async def test_a_profile_that_was_only_locked_reads_as_none(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    await locked(owner, assessment_of(subject, {}).profiles)
    read = await profiles_of(owner, profile_keys(subject))
    assert read == {profile_keys(subject)[0]: Profile(0, {})}
    assert assessment_of(subject, read).profiles[0].version == 1


async def test_groups_that_lock_the_same_profiles_in_any_order_never_deadlock(
    database: Database,
) -> None:
    chance = random.Random(3)
    keys = [f"customer:{uuid.uuid4()}" for _ in range(12)]

    async def group() -> None:
        connection = await connected(database)
        for _ in range(15):
            wanted = [Written(key, 1, "{}") for key in chance.sample(keys, 8)]
            async with connection.transaction():
                await locked(connection, wanted)
        await connection.close()

    await asyncio.gather(*(group() for _ in range(6)))


async def test_a_decision_is_kept_as_it_was_made(owner: asyncpg.Connection) -> None:
    """Each value in its own column: rows are typed by place."""
    subject = a_subject(payee_customer_id=uuid.uuid4(), operation="TRANSFER")
    row = row_of(assessment_of(subject, {}), subject)
    await write(owner, [row], ())
    kept = (await owner.fetch(f"SELECT {', '.join(COLUMNS)} FROM decision"))[0]
    documents = ("reason_codes", "rules_fired", "profile_versions")
    expected = {
        name: orjson.loads(value) if name in documents else value
        for name, value in named(row).items()
    }
    assert dict(kept) == expected


async def test_a_decision_is_made_once_for_an_order_a_stage_and_an_attempt(
    owner: asyncpg.Connection,
) -> None:
    subject = a_subject()
    row = row_of(assessment_of(subject, {}), subject)
    await write(owner, [row], ())
    with pytest.raises(asyncpg.UniqueViolationError):
        await write(owner, [changed(row, decision_id=uuid.uuid4())], ())
    await write(owner, [changed(row, decision_id=uuid.uuid4(), attempt=2)], ())


async def test_an_analyst_overrides_by_a_row_of_their_own(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    first = row_of(assessment_of(subject, {}), subject)
    assert subject.customer_id is not None
    override = override_row(
        decision_id=uuid.uuid4(),
        order_id=named(first)["order_id"],
        attempt=1,
        merchant_id=subject.merchant_id,
        customer_id=subject.customer_id,
        subject=subject,
        accepted=False,
        analyst="operator:somebody",
        reason="the payer says it was not them",
    )
    await write(owner, [first, override], ())
    async with phase(principal.SYSTEM):
        rows = await Decision.all().order_by("stage")
    assert [(row.stage, row.source, row.outcome) for row in rows] == [
        ("PRE_AUTH", "MODEL", "ALLOW"),
        ("REVIEW", "ANALYST", "BLOCK"),
    ]
    assert await fold_shared() == 1
    anonymous = changed(override, decision_id=uuid.uuid4(), attempt=2, decided_by=None)
    with pytest.raises(asyncpg.CheckViolationError):
        await write(owner, [anonymous], ())


@pytest.mark.parametrize("table", ["decision", "label", "decision_fold"])
@pytest.mark.parametrize("change", ["UPDATE {} SET decision_id = decision_id", "DELETE FROM {}"])
async def test_nobody_changes_what_was_decided(
    owner: asyncpg.Connection, table: str, change: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute(change.format(table))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT write_assessments('{}', '{}', '{}')",
        "SELECT lock_profiles('{}', '{}')",
        "SELECT * FROM read_profiles('{}')",
        "INSERT INTO decision_fold (key, version, decision_id) VALUES ('a', 1, gen_random_uuid())",
        "UPDATE risk_profile SET version = version",
        "UPDATE risk_follower SET consumed = '3:3:'",
    ],
)
async def test_the_application_itself_writes_no_decision_and_no_profile(
    database: Database, sql: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await statement(sql)


async def test_decisions_are_seen_by_payer_and_merchant_and_profiles_by_neither(
    owner: asyncpg.Connection,
) -> None:
    subject = a_subject()
    await pay(owner, subject)
    assert subject.customer_id is not None
    everyone = {
        principal.customer(subject.customer_id): (1, 0),
        principal.merchant(subject.merchant_id): (1, 0),
        principal.customer(uuid.uuid4()): (0, 0),
        principal.merchant(uuid.uuid4()): (0, 0),
        principal.operator(uuid.uuid4()): (1, 1),
        principal.SYSTEM: (1, 1),
    }
    for who, expected in everyone.items():
        async with phase(who):
            assert (await Decision.all().count(), await RiskProfile.all().count()) == expected
