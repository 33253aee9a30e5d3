"""Payments as the group functions read and commit them, for the tests of risk in the database."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import orjson

from core import principal
from core.phase import phase, prepare_connection, statement
from risk_model.assessment import (
    Assessment,
    DecisionRow,
    Profile,
    Subject,
    Written,
    assess,
    decision_row,
    profile_keys,
)
from risk_model.features import snapshot
from risk_model.models import Label
from risk_model.scoring import Scorer
from tests.conftest import Database
from tests.risk_model.conftest import LIMITS, FixedModel

SCORER = Scorer(FixedModel())


COLUMNS = (
    "decision_id",
    "order_id",
    "stage",
    "attempt",
    "merchant_id",
    "customer_id",
    "payee_customer_id",
    "operation",
    "amount_minor",
    "currency",
    "effective_at",
    "outcome",
    "source",
    "probability",
    "reason_codes",
    "rules_fired",
    "model_version",
    "features",
    "feature_schema",
    "profile_versions",
    "latency_ms",
    "decided_by",
    "override_reason",
)
"""What stands where in a `DecisionRow`."""


async def connected(database: Database) -> asyncpg.Connection:
    connection = await asyncpg.connect(database.owner_url)
    await prepare_connection(connection)
    return connection


def assessment_of(subject: Subject, known: dict[str, Profile]) -> Assessment:
    return assess([subject], [known], SCORER, LIMITS)[0]


def row_of(assessed: Assessment, subject: Subject) -> DecisionRow:
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


def changed(row: DecisionRow, **values: Any) -> DecisionRow:
    """The row with other values in these columns."""
    return tuple({**named(row), **values}.values())


def named(row: DecisionRow) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


async def profiles_of(connection: asyncpg.Connection, keys: Iterable[str]) -> dict[str, Profile]:
    rows = await connection.fetch("SELECT * FROM read_profiles($1)", list(keys))
    return {row["key"]: Profile(row["version"], orjson.loads(row["state"])) for row in rows}


async def locked(connection: asyncpg.Connection, rows: Sequence[Written]) -> dict[str, bool]:
    """Whether each profile is still what was read, under its lock; each is a member's own."""
    stale = await connection.fetchval("SELECT lock_profiles($1, $2)", *_of_members(rows))
    return {row.key: place not in stale for place, row in enumerate(rows, start=1)}


async def write(
    connection: asyncpg.Connection, decisions: Sequence[DecisionRow], rows: Sequence[Written]
) -> None:
    placed, _ = _of_members(decisions)
    alive = [True] * max(len(decisions), len(rows))
    await connection.execute(
        "SELECT write_assessments($1, $2, $3)", placed, _of_members(rows)[0], alive
    )


def _of_members(rows: Sequence[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], list[bool]]:
    """Each row with its place as its member, and that they are all alive."""
    return [(place, *row) for place, row in enumerate(rows, start=1)], [True] * len(rows)


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
    decision_id: uuid.UUID = named(row)["decision_id"]
    return decision_id


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
    return snapshot(assessment_of(subject, known).features)["shared_frauds_30d"]
