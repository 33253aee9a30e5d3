"""What the tests of risk share: payments to assess, a small model, and models that misbehave."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from core import configuration as installed_configuration
from core.configuration import Configuration
from risk_model import training
from risk_model.assessment import Subject
from risk_model.features import SCHEMA
from risk_model.rules import Limits
from risk_model.thresholds import Policy
from tests.conftest import Database

SOMETIME = datetime(2025, 3, 4, 12, 0, tzinfo=UTC)
LIMITS = Limits(small_amount_minor=200_00)
POLICY = Policy(challenge_floor=0.05, review_floor=0.3, block_floor=0.7)


def a_subject(**changes: Any) -> Subject:
    """A first payment of 30.00 CNY."""
    subject = Subject(
        operation="PAY",
        amount_minor=30_00,
        currency="CNY",
        customer_id=uuid.uuid4(),
        merchant_id=uuid.uuid4(),
        effective_at=SOMETIME,
    )
    return replace(subject, **changes)


def later(subject: Subject, seconds: float, **changes: Any) -> Subject:
    """The same payment some seconds later."""
    assert subject.effective_at is not None
    at = subject.effective_at + timedelta(seconds=seconds)
    return replace(subject, effective_at=at, **changes)


@dataclass
class FixedModel:
    """Scores every row alike; `delay_ms` and `error` make it misbehave."""

    probability: float = 0.01
    version: str = "fixed-1"
    feature_schema: str = SCHEMA
    policy: Policy = POLICY
    delay_ms: float = 0.0
    error: Exception | None = None
    calls_count: int = 0

    def probabilities(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """One probability for each row."""
        import time

        self.calls_count += 1
        if self.error is not None:
            raise self.error
        time.sleep(self.delay_ms / 1_000)
        return np.full(len(rows), self.probability)

    def reasons(self, row: np.ndarray[Any, Any]) -> tuple[str, ...]:
        """Always the same reason."""
        return ("AMOUNT_UNUSUAL",)


@dataclass(frozen=True)
class Trained:
    """A registry with one small model, and the configuration whose key signed it."""

    directory: Path
    manifest: dict[str, Any]
    configuration: Configuration


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model trained once for all tests of risk, on few payments."""
    directory = tmp_path_factory.mktemp("registry")
    values = Configuration(
        environment="development",
        public_url="http://127.0.0.1:8080",
        database_url="postgresql://nobody@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
        master_key=b"the master key of the risk tests",
        token_issuer="http://127.0.0.1:8080",
        token_audience="purser",
        bank_url="http://127.0.0.1:1",
        bank_private_key=b"",
        bank_public_key=b"",
        sms_url="http://127.0.0.1:1/messages",
        sms_key=b"",
        risk_model_directory=directory,
    )
    before = installed_configuration._installed
    installed_configuration.install(values)
    try:
        manifest = training.train(directory, seed=3, payments=15_000)
    finally:
        installed_configuration.install(before)
    return Trained(directory, manifest, values)


@pytest.fixture
def signed_here(trained: Trained) -> Iterator[Trained]:
    """The trained model in a process that has the key which signed it."""
    before = installed_configuration._installed
    installed_configuration.install(trained.configuration)
    yield trained
    installed_configuration.install(before)


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may call what only the group functions may call."""
    from tests.risk_model.decided import connected

    connection = await connected(database)
    yield connection
    await connection.close()
