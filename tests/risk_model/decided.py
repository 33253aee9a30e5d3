"""Payments as the group functions read and commit them, for the tests of risk in the database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import asyncpg

from core import principal
from core.phase import phase, statement
from risk_model.assessment import Assessment, Profile, Subject, assess, decision_row, profile_keys
from risk_model.models import Label
from risk_model.scoring import Scorer
from tests.conftest import Database
from tests.risk_model.conftest import LIMITS, FixedModel

SCORER = Scorer(FixedModel())


async def connected(database: Database) -> asyncpg.Connection:
    connection = await asyncpg.connect(database.owner_url)
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )
    return connection


def assessment_of(subject: Subject, known: dict[str, Profile]) -> Assessment:
    return assess([subject], [known], SCORER, LIMITS)[0]


def row_of(assessed: Assessment, subject: Subject) -> dict[str, Any]:
    return decision_row(
        assessed,
        decision_id=uuid.uuid4(),
        order_id=uuid.uuid4(),
        stage="PRE_AUTH",
        attempt=1,
        merchant_id=subject.merchant_id,
        customer_id=subject.customer_id,
        subject=subject,
    )


async def profiles_of(connection: asyncpg.Connection, keys: Iterable[str]) -> dict[str, Profile]:
    rows = await connection.fetch("SELECT read_profiles($1) AS profile", list(keys))
    found = [row["profile"] for row in rows]
    return {each["key"]: Profile(each["version"], each["state"]) for each in found}


async def locked(connection: asyncpg.Connection, rows: Iterable[Any]) -> dict[str, bool]:
    found = await connection.fetch("SELECT * FROM lock_profiles($1)", list(rows))
    return {row["key"]: row["fresh"] for row in found}


async def write(
    connection: asyncpg.Connection, decisions: list[dict[str, Any]], rows: Iterable[Any]
) -> None:
    await connection.execute("SELECT write_assessments($1, $2)", decisions, list(rows))


async def pay(connection: asyncpg.Connection, subject: Subject) -> Assessment:
    """A payment as the group functions commit it."""
    assessed = assessment_of(subject, await profiles_of(connection, profile_keys(subject)))
    async with connection.transaction():
        assert all((await locked(connection, assessed.profiles)).values())
        await write(connection, [row_of(assessed, subject)], assessed.profiles)
    return assessed


async def decide(connection: asyncpg.Connection, subject: Subject) -> uuid.UUID:
    """A decision alone, in the connection's transaction; returns its id."""
    row = row_of(assessment_of(subject, {}), subject)
    await write(connection, [row], ())
    return uuid.UUID(row["decision_id"])


async def tell(
    decision_id: uuid.UUID, subject: Subject, source: str, days: int = 2, *, is_fraud: bool = True
) -> None:
    assert subject.effective_at is not None
    async with phase(principal.SYSTEM):
        await statement(
            "INSERT INTO label (label_id, decision_id, order_id, merchant_id, customer_id,"
            " is_fraud, source, event_at, known_at) VALUES ($1, $2, $3, $4, $5, $9, $6, $7, $8)",
            uuid.uuid4(),
            decision_id,
            uuid.uuid4(),
            subject.merchant_id,
            subject.customer_id,
            source,
            subject.effective_at,
            subject.effective_at + timedelta(days=days),
            is_fraud,
        )
        assert await Label.filter(decision_id=decision_id).exists()


async def frauds_seen_by(connection: asyncpg.Connection, subject: Subject) -> float:
    known = await profiles_of(connection, profile_keys(subject))
    return assessment_of(subject, known).features["shared_frauds_30d"]
