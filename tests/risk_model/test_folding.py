"""The fold: it follows commits in any order, once each, and its record gives the profiles again."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import timedelta

import asyncpg
import numpy as np
import orjson
import pytest

from core import principal
from core.phase import phase, statement
from risk_model.features import NAMES
from risk_model.folding import fold_shared, folded
from risk_model.models import DecisionFold, RiskProfile
from tests.conftest import Database
from tests.risk_model.conftest import SOMETIME, a_subject, later
from tests.risk_model.decided import connected, decide, frauds_seen_by, pay, profiles_of, tell


async def test_only_the_system_folds(database: Database) -> None:
    for who in (principal.customer(uuid.uuid4()), principal.operator(uuid.uuid4())):
        async with phase(who):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await statement("SELECT * FROM take_unfolded(1)")


async def test_a_payment_committed_late_is_folded_late_and_never_lost(
    owner: asyncpg.Connection, database: Database
) -> None:
    merchant_id = uuid.uuid4()
    early = await connected(database)
    transaction = early.transaction()
    await transaction.start()
    slow = await decide(early, a_subject(merchant_id=merchant_id))
    quick = await decide(owner, a_subject(merchant_id=merchant_id))
    assert await fold_shared() == 1
    assert await fold_shared() == 0
    await transaction.commit()
    assert await fold_shared() == 1
    assert await fold_shared() == 0
    async with phase(principal.SYSTEM):
        folds = await DecisionFold.all().order_by("fold_id")
    assert [(fold.decision_id, fold.version) for fold in folds] == [(quick, 1), (slow, 2)]
    await early.close()


async def test_what_was_rolled_back_is_never_folded(owner: asyncpg.Connection) -> None:
    transaction = owner.transaction()
    await transaction.start()
    await decide(owner, a_subject())
    await transaction.rollback()
    await decide(owner, a_subject())
    assert await fold_shared() == 1
    assert await fold_shared() == 0


async def test_a_backlog_is_folded_in_steps_each_payment_once(owner: asyncpg.Connection) -> None:
    merchants = [uuid.uuid4() for _ in range(3)]
    decided = [
        await decide(owner, a_subject(merchant_id=merchants[number % 3])) for number in range(20)
    ]
    steps = []
    while count := await fold_shared(6):
        steps.append(count)
    assert sum(steps) == 20
    assert max(steps) <= 6
    async with phase(principal.SYSTEM):
        folds = await DecisionFold.all().order_by("fold_id")
        versions = {row.key: row.version for row in await RiskProfile.all()}
    assert [fold.decision_id for fold in folds] == decided
    assert sorted(versions[f"merchant:{merchant}"] for merchant in merchants) == [6, 7, 7]


async def test_two_workers_fold_nothing_twice(owner: asyncpg.Connection) -> None:
    for _ in range(30):
        await decide(owner, a_subject())

    async def work() -> int:
        total = 0
        for _ in range(20):
            total += await fold_shared(4)
            await asyncio.sleep(0)
        return total

    assert sum(await asyncio.gather(work(), work(), work())) == 30
    assert await owner.fetchval("SELECT count(*) FROM decision_fold") == 30


async def test_while_payments_commit_the_fold_misses_none(database: Database) -> None:
    chance = random.Random(8)
    merchants = [uuid.uuid4() for _ in range(4)]
    done = asyncio.Event()

    async def payer() -> None:
        connection = await connected(database)
        for _ in range(25):
            transaction = connection.transaction()
            await transaction.start()
            await decide(connection, a_subject(merchant_id=chance.choice(merchants)))
            await asyncio.sleep(chance.random() * 0.01)
            await transaction.commit()
        await connection.close()

    async def worker() -> None:
        while not done.is_set():
            await fold_shared(7)
            await asyncio.sleep(0.002)

    folding = asyncio.create_task(worker())
    await asyncio.gather(*(payer() for _ in range(5)))
    done.set()
    await folding
    while await fold_shared(50):
        pass
    found = await database.fetch(
        "SELECT (SELECT count(*) FROM decision) AS decided, count(*) AS folded, "
        "count(DISTINCT decision_id) AS distinct_folded FROM decision_fold"
    )
    assert tuple(found[0]) == (125, 125, 125)


async def test_the_recorded_order_gives_the_profile_again_bit_for_bit(
    owner: asyncpg.Connection,
) -> None:
    merchant_id = uuid.uuid4()
    subjects = [a_subject(merchant_id=merchant_id, amount_minor=n * 7_13) for n in range(1, 9)]
    for subject in subjects:
        await decide(owner, subject)
    while await fold_shared(3):
        pass
    rows = await owner.fetch(
        "SELECT d.*, f.label_id FROM decision_fold f JOIN decision d USING (decision_id) "
        "ORDER BY f.version"
    )
    key = f"merchant:{merchant_id}"
    again = folded([(key, row) for row in rows], {})[1][0]
    stored = (await profiles_of(owner, (key,)))[key]
    assert (again.version, orjson.loads(again.state)) == (stored.version, stored.state)


async def test_a_fraud_reaches_the_merchant_once_it_is_known(owner: asyncpg.Connection) -> None:
    subject = a_subject(amount_minor=50_00)
    decision_id = await decide(owner, subject)
    await fold_shared()
    assert await frauds_seen_by(owner, later(subject, 60)) == 0
    for source in ("REPORT", "CHARGEBACK"):
        await tell(decision_id, subject, source)
    await fold_shared()
    assert await frauds_seen_by(owner, later(subject, 86_400 * 3)) == 1
    await tell(decision_id, subject, "ANALYST")
    await fold_shared()
    assert await frauds_seen_by(owner, later(subject, 86_400 * 3)) == 1


async def test_what_is_never_folded_holds_up_nothing(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    decision_id = await decide(owner, subject)
    await fold_shared()
    for days in range(1, 7):
        await tell(decision_id, subject, "REPORT", days=days, is_fraud=False)
    await decide(owner, later(subject, 60))
    assert await fold_shared(2) == 1
    assert await fold_shared(2) == 0


async def test_a_label_from_the_future_is_refused(owner: asyncpg.Connection) -> None:
    subject = a_subject()
    decision_id = await decide(owner, subject)
    with pytest.raises(Exception, match="label_known"):
        await tell(decision_id, subject, "REPORT", days=36_500)


async def test_a_history_through_the_database_gives_stored_features_that_replay_bit_for_bit(
    owner: asyncpg.Connection,
) -> None:
    chance = random.Random(21)
    payers = [uuid.uuid4() for _ in range(4)]
    merchants = [uuid.uuid4() for _ in range(3)]
    given = []
    for step in range(80):
        subject = a_subject(
            customer_id=chance.choice(payers),
            merchant_id=chance.choice(merchants),
            amount_minor=chance.randrange(1, 400_00),
            operation=chance.choice(("PAY", "PAY", "TOP_UP")),
            effective_at=SOMETIME + timedelta(seconds=step * 7_777.5),
        )
        given.append((await pay(owner, subject)).features)
        if step % 3 == 0:
            await fold_shared()
    rows = await owner.fetch("SELECT features FROM decision ORDER BY sequence")
    assert [row["features"] for row in rows] == given
    stored = np.frombuffer(b"".join(given), dtype="<f4").reshape(len(given), len(NAMES))
    assert np.isfinite(stored).all()
    assert stored[:, :].std(axis=0).max() > 0
