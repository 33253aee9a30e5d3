"""A PostgreSQL of the test's own, killed again and again under transfers that run at once.

What was acknowledged is never lost; what is unknown is settled by the same key, exactly once.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.development import postgres, processes
from app.development.home import socket_folder
from core import configuration as installed
from core import hub, ids, phase
from core.configuration import PLATFORM_MERCHANT_ID, Configuration
from core.errors import Busy, OutcomeUnknown, ServerBusy
from core.money import Money
from core.phase import statement
from core.principal import SYSTEM, Principal
from migrations.apply import apply
from payments.pipeline import accept_operation
from payments.states import OperationType, OrderState
from payments.values import Answer, OpenOrder
from tests.conftest import (
    APPLICATION_PASSWORD,
    APPLICATION_ROLE,
    Database,
    configuration_of_a_test,
)
from tests.payments.conftest import CURRENCY, World
from wallet import ledger
from wallet.chart import AccountKind, account

KILLS = 5
ACKNOWLEDGED_BETWEEN_KILLS = 60
CALLERS = 24
FUNDED_MINOR = 100_000
NAME = "purser_killed"
PASSWORD = "owner of the tests"


@dataclass
class Server:
    """An embedded PostgreSQL that can be killed as `kill -9` does, and started again."""

    folder: Path
    sockets: Path
    running: list[tuple[processes.Service, subprocess.Popen[bytes]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = postgres.cluster_at(self.folder / "postgres", self.folder / "elsewhere")
        postgres.initialise(self.cluster, PASSWORD)

    def owner_url(self, name: str) -> str:
        return postgres.url(postgres.OWNER, PASSWORD, self.sockets, name)

    def application_url(self, name: str) -> str:
        return postgres.url(APPLICATION_ROLE, APPLICATION_PASSWORD, self.sockets, name)

    async def start(self) -> None:
        service = postgres.service(self.cluster, self.sockets, self.folder / "postgres.log")
        self.running = [(service, processes.start(service))]
        deadline = time.monotonic() + 30
        while not await asyncio.to_thread(postgres.ready, self.cluster, self.sockets):
            assert time.monotonic() < deadline, (self.folder / "postgres.log").read_text()[-2_000:]
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the server and each of its processes, so that nothing is written after it."""
        for _, process in self.running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop(self) -> None:
        processes.stop(self.running)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="purser-killed-"))
    if postgres.server_account():
        folder.chmod(0o711)
    return folder


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    folder, sockets = _folder(), socket_folder()
    server = Server(folder, sockets)
    try:
        await server.start()
        yield server
    finally:
        server.stop()
        elsewhere = folder / "elsewhere"
        if elsewhere.exists():
            shutil.rmtree(elsewhere.read_text().strip(), ignore_errors=True)
        for left in (folder, sockets):
            shutil.rmtree(left, ignore_errors=True)


@pytest.fixture
def configuration(server: Server, tmp_path: Path) -> Any:
    """Our own server's; Valkey is away, and nobody minds."""
    values = configuration_of_a_test(
        server.application_url(NAME), "redis://127.0.0.1:1", risk_model_directory=tmp_path
    )
    installed.install(values)
    yield values
    installed.install(None)


@pytest.fixture
async def database(server: Server, configuration: Configuration) -> AsyncIterator[Database]:
    administration = server.owner_url("postgres")
    await Database("postgres", "", administration).fetch(f"CREATE DATABASE {NAME}")
    await apply(server.owner_url(NAME))
    await postgres.set_password(administration, APPLICATION_ROLE, APPLICATION_PASSWORD)
    hub.connect(configuration.redis_url)
    await phase.connect(configuration.database_url, pool_size=10, application_name="test")
    yield Database(NAME, configuration.database_url, server.owner_url(NAME))
    await phase.close()
    await hub.close()


@dataclass
class Traffic:
    """Transfers between customers, and what their callers were told."""

    customers: list[Principal]
    chance: random.Random
    acknowledged: dict[str, Answer] = field(default_factory=dict)
    unknown: dict[str, OpenOrder] = field(default_factory=dict)
    busy: dict[str, OpenOrder] = field(default_factory=dict)
    surprises: list[BaseException] = field(default_factory=list)
    asked: list[OpenOrder] = field(default_factory=list)
    ended: bool = False

    def request(self) -> OpenOrder:
        payer, payee = self.chance.sample(self.customers, 2)
        number = ids.random_token(8)
        request = OpenOrder(
            type=OperationType.TRANSFER,
            caller=payer,
            idempotency_key=f"transfer-{number}",
            merchant_id=PLATFORM_MERCHANT_ID,
            merchant_order_no=number,
            money=Money(self.chance.randint(1, 20), CURRENCY),
            product="account",
            payee_customer_id=payee.id,
        )
        self.asked.append(request)
        return request

    async def until(self, count: int) -> None:
        """Until so many transfers are acknowledged."""
        async with asyncio.timeout(20):
            while len(self.acknowledged) < count:
                assert self.surprises == []
                await asyncio.sleep(0.01)

    async def call(self) -> None:
        """One caller after the other; nobody tries again by itself."""
        while not self.ended:
            request = self.request()
            try:
                self.acknowledged[request.idempotency_key] = await accept_operation(request)
            except OutcomeUnknown:
                self.unknown[request.idempotency_key] = request
            except Busy:
                self.busy[request.idempotency_key] = request
                await asyncio.sleep(0.5)
            except BaseException as error:
                self.surprises.append(error)
                raise


async def entries(world: World) -> Counter[str]:
    """How many journal entries the order of each key has."""
    rows = await world.database.fetch(
        """SELECT i.key, count(e.entry_id) FROM idempotency i
        LEFT JOIN entry e ON e.order_id = (i.result::jsonb #>> '{order,order_id}')::uuid
        GROUP BY i.key"""
    )
    return Counter(dict(map(tuple, rows)))


@pytest.fixture
async def traffic(world: World) -> Traffic:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    others = [ids.new_id() for _ in range(10)]
    await world.database.fetch(
        """INSERT INTO customer (customer_id, phone, status, display_name, created_at)
        SELECT id, '+86139' || lpad(number::text, 8, '0'), 'ACTIVE', 'Customer', now()
        FROM unnest($1::uuid[]) WITH ORDINALITY AS each (id, number)""",
        others,
    )
    customers = [world.payer_id, world.payee_id, *others]
    for customer_id in customers:
        await world.fund(FUNDED_MINOR, customer_id)
    return Traffic([Principal("customer", each) for each in customers], random.Random(seed))


async def total(world: World, traffic: Traffic) -> int:
    """What all customers have together."""
    wallets = [
        account(AccountKind.CUSTOMER_WALLET, each.id, CURRENCY).account_id
        for each in traffic.customers
        if each.id
    ]
    rows = await world.database.fetch(
        "SELECT sum(credits_posted - debits_posted) FROM account WHERE account_id = ANY ($1)",
        wallets,
    )
    return int(rows[0][0])


async def test_a_killed_postgresql_loses_nothing_that_was_acknowledged(
    server: Server, world: World, traffic: Traffic, verdict: Callable[[str], None]
) -> None:
    callers = [asyncio.create_task(traffic.call()) for _ in range(CALLERS)]
    first_answers_ms = []
    for _ in range(KILLS):
        await traffic.until(len(traffic.acknowledged) + ACKNOWLEDGED_BETWEEN_KILLS)
        await asyncio.sleep(traffic.chance.random() / 10)
        server.kill()
        told = len(traffic.acknowledged)
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await server.start()
        await traffic.until(told + 1)
        first_answers_ms.append(round((time.monotonic() - started) * 1000))
    traffic.ended = True
    await asyncio.gather(*callers)
    assert traffic.surprises == []
    assert max(first_answers_ms) < 5_000
    told_apart = Counter(
        acknowledged=len(traffic.acknowledged),
        unknown=len(traffic.unknown),
        busy=len(traffic.busy),
    )
    print(dict(told_apart), first_answers_ms)
    assert told_apart["busy"] + told_apart["unknown"] > 0

    booked = await entries(world)
    assert not booked.keys() & traffic.busy.keys(), "busy said that nothing happened"
    assert booked.keys() >= traffic.acknowledged.keys()
    happened = len(booked.keys() & traffic.unknown.keys())
    print(f"{happened} of {len(traffic.unknown)} unknown ones had happened")
    asked = {request.idempotency_key: request for request in traffic.asked}
    for key, first in list(traffic.acknowledged.items())[::5]:
        again = await accept_operation(asked[key])
        assert again.replay
        assert again.order == first.order
    left = [*traffic.unknown, *list(traffic.busy)[:50]]
    for key in left:
        answer = await accept_operation(asked[key])
        assert answer.order is not None
        assert answer.order.state is OrderState.SUCCEEDED
    booked = await entries(world)
    assert booked.keys() == {*traffic.acknowledged, *left}
    assert set(booked.values()) == {1}
    assert await total(world, traffic) == FUNDED_MINOR * len(traffic.customers)
    await ledger.roll_up()
    await ledger.seal()
    await world.assert_books()


async def test_while_postgresql_is_away_callers_are_busy_within_two_seconds_and_nothing_is_kept(
    server: Server, world: World, traffic: Traffic
) -> None:
    request = traffic.request()
    await accept_operation(request)
    server.kill()
    started = time.monotonic()
    results = await asyncio.gather(
        *(accept_operation(traffic.request()) for _ in range(100)), return_exceptions=True
    )
    assert {type(each) for each in results} == {ServerBusy}
    assert time.monotonic() - started < 3.0
    with pytest.raises(ServerBusy):
        await ledger.post(SYSTEM, []) or await statement("SELECT 1", writes=False)
    await server.start()
    again = await accept_operation(request)
    assert again.replay
    assert len(await world.database.fetch("SELECT 1 FROM idempotency")) == 1
    fresh = await accept_operation(traffic.request())
    assert not fresh.replay
    await world.assert_books()
