"""`pay` over HTTP at full load, while PostgreSQL or API processes are killed again and again.

What was acknowledged is in the books once; what was said to have not happened is not; and what
nobody knows is settled by the same key.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core import configuration as installed
from core import ids
from core.principal import Principal
from identity import tokens
from identity.caller import CUSTOMER_SCOPE
from schema.node import node_id
from tests.channels.conftest import free_port
from tests.payments import test_faults_of_postgresql as faults
from tests.payments.conftest import CURRENCY, World
from tests.payments.crash_child import packed
from wallet import ledger
from wallet.chart import AccountKind

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = 3
ACKNOWLEDGED_BETWEEN_KILLS = 80
CONNECTIONS = 32
CUSTOMERS = 24
FUNDED_MINOR = 1_000_000
PAY = """mutation($input: PayInput!) { pay(input: $input) {
    order { id state } userErrors { code outcomeKnown } } }"""

server = faults.server
configuration = faults.configuration
database = faults.database


@dataclass
class ApiProcess:
    """An API process on a port of its own, which can be killed and started again."""

    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.payments.api_child", str(self.port)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert self.process.stdin is not None
        with self.process.stdin as pipe:
            pipe.write(json.dumps(packed(installed.current())).encode())

    async def start(self) -> None:
        self.launch()
        assert self.process is not None
        async with asyncio.timeout(20), httpx2.AsyncClient() as http:
            while True:
                assert self.process.poll() is None, self.log.read_text()[-2_000:]
                try:
                    if (await http.get(f"{self.url}/health/live")).status_code == 200:
                        return
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
async def apis(database: Any, tmp_path: Path) -> AsyncIterator[list[ApiProcess]]:
    """Two API processes on the test's database."""
    await tokens.ensure_signing_key()
    started = [ApiProcess(tmp_path / f"api-{number}.log") for number in range(2)]
    try:
        await asyncio.gather(*(each.start() for each in started))
        yield started
    finally:
        for each in started:
            each.kill()


@dataclass
class Payer:
    customer_id: uuid.UUID
    token: str


@dataclass
class Load:
    """Callers who pay one after the other, and what each of them was told."""

    apis: list[ApiProcess]
    shop_id: uuid.UUID
    payers: list[Payer]
    chance: random.Random
    asked: dict[str, tuple[Payer, dict[str, Any]]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    not_happened: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    surprises: list[Any] = field(default_factory=list)
    ended: bool = False

    def request(self) -> str:
        """The key of a new payment, which is its order's number too."""
        key = f"pay-{ids.random_token(8)}"
        body = {
            "idempotencyKey": key,
            "merchantId": node_id("Merchant", self.shop_id),
            "merchantOrderNo": key,
            "amount": {"amountMinor": self.chance.randint(1, 50), "currency": CURRENCY},
            "method": {"account": {}},
        }
        self.asked[key] = (self.chance.choice(self.payers), body)
        return key

    async def ask(self, http: httpx2.AsyncClient, api: ApiProcess, key: str) -> None:
        """Ask for the payment of this key, and note what was answered."""
        payer, body = self.asked[key]
        try:
            response = await http.post(
                f"{api.url}/graphql",
                json={"query": PAY, "variables": {"input": body}},
                headers={"authorization": f"Bearer {payer.token}"},
            )
            answer = response.json()
        except (httpx2.TransportError, ValueError):
            self.unknown.add(key)
            return
        paid = (answer.get("data") or {}).get("pay") or {}
        if (paid.get("order") or {}).get("state") == "SUCCEEDED":
            self.acknowledged[key] = paid["order"]["id"]
            return
        told = paid.get("userErrors") or [
            error.get("extensions", {}) for error in answer.get("errors", ())
        ]
        if told and all(each.get("outcomeKnown") for each in told):
            self.not_happened.add(key)
        elif told and told[0].get("code") == "OUTCOME_UNKNOWN":
            self.unknown.add(key)
        else:
            self.surprises.append(answer)

    async def call(self, number: int) -> None:
        api = self.apis[number % len(self.apis)]
        async with httpx2.AsyncClient(timeout=15.0) as http:
            while not self.ended:
                key = self.request()
                await self.ask(http, api, key)
                if key not in self.acknowledged:
                    await asyncio.sleep(0.5)

    async def until(self, count: int) -> None:
        """Until so many payments are acknowledged."""
        async with asyncio.timeout(25):
            while len(self.acknowledged) < count:
                assert self.surprises == []
                await asyncio.sleep(0.01)

    async def insist(self, keys: list[str]) -> dict[str, str]:
        """The orders of these keys, asked for until each is acknowledged (again)."""
        before = {key: self.acknowledged.pop(key) for key in keys if key in self.acknowledged}
        async with asyncio.timeout(25), httpx2.AsyncClient(timeout=15.0) as http:
            while left := [key for key in keys if key not in self.acknowledged]:
                for place in range(0, len(left), CONNECTIONS):
                    some = left[place : place + CONNECTIONS]
                    await asyncio.gather(*(self.ask(http, self.apis[0], key) for key in some))
                assert self.surprises == []
        found = {key: self.acknowledged[key] for key in keys}
        self.acknowledged |= before
        return found


@pytest.fixture
async def load(world: World, apis: list[ApiProcess]) -> Load:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    made = [(ids.new_id(), ids.new_id()) for _ in range(CUSTOMERS)]
    customer_ids, login_ids = map(list, zip(*made, strict=True))
    await world.database.fetch(
        """INSERT INTO customer (customer_id, phone, status, display_name, created_at)
        SELECT id, '+86139' || lpad(number::text, 8, '0'), 'ACTIVE', 'Customer', now()
        FROM unnest($1::uuid[]) WITH ORDINALITY AS each (id, number)""",
        customer_ids,
    )
    await world.database.fetch(
        """INSERT INTO login (login_id, principal_kind, principal_id, scopes, roles, expires_at)
        SELECT login_id, 'customer', customer_id, to_jsonb($3::text[]), '[]',
            now() + interval '1 day'
        FROM unnest($1::uuid[], $2::uuid[]) AS made (login_id, customer_id)""",
        login_ids,
        customer_ids,
        [CUSTOMER_SCOPE],
    )
    payers = []
    for customer_id, login_id in made:
        await world.fund(FUNDED_MINOR, customer_id)
        token = await tokens.issue_access(
            Principal("customer", customer_id),
            login_id=login_id,
            scopes=frozenset({CUSTOMER_SCOPE}),
        )
        payers.append(Payer(customer_id, token[0]))
    return Load(apis, world.shop_id, payers, random.Random(seed))


async def booked(world: World) -> Counter[str]:
    """How many journal entries the succeeded order of each number has."""
    rows = await world.database.fetch(
        """SELECT o.merchant_order_no, count(e.entry_id) FROM payment_order o
        JOIN entry e USING (order_id) WHERE o.state = 'SUCCEEDED' GROUP BY o.order_id"""
    )
    return Counter(dict(map(tuple, rows)))


async def prove(world: World, load: Load) -> None:
    """Compare what was told with the books, then settle what nobody knows by its key."""
    print(
        f"{len(load.acknowledged)} acknowledged, {len(load.unknown)} unknown,"
        f" {len(load.not_happened)} did not happen"
    )
    assert load.surprises == []
    found = await booked(world)
    assert found.keys() >= load.acknowledged.keys()
    assert not found.keys() & load.not_happened
    happened = len(found.keys() & load.unknown)
    print(f"{happened} of {len(load.unknown)} unknown ones had happened")
    again = list(load.acknowledged)[:: max(1, len(load.acknowledged) // 40)]
    told_first = {key: load.acknowledged[key] for key in again}
    assert await load.insist(again) == told_first
    left = [*load.unknown, *list(load.not_happened)[:40]]
    await load.insist(left)
    found = await booked(world)
    assert found.keys() == {*load.acknowledged, *left}
    assert set(found.values()) == {1}
    paid_minor = sum(load.asked[key][1]["amount"]["amountMinor"] for key in found)
    wallets = [await world.wallet(payer.customer_id) for payer in load.payers]
    assert sum(wallets) == CUSTOMERS * FUNDED_MINOR - paid_minor
    earned = [
        await world.available(kind, world.shop_id)
        for kind in (AccountKind.MERCHANT_PENDING, AccountKind.FEES)
    ]
    assert sum(earned) == paid_minor
    await ledger.roll_up()
    await ledger.seal()
    await world.assert_books()


async def test_postgresql_killed_in_the_middle_of_pay_loses_no_acknowledged_payment(
    server: faults.Server, world: World, load: Load
) -> None:
    callers = [asyncio.create_task(load.call(number)) for number in range(CONNECTIONS)]
    for _ in range(KILLS):
        await load.until(len(load.acknowledged) + ACKNOWLEDGED_BETWEEN_KILLS)
        await asyncio.sleep(load.chance.random() / 10)
        server.kill()
        await asyncio.sleep(0.2)
        await server.start()
    await load.until(len(load.acknowledged) + ACKNOWLEDGED_BETWEEN_KILLS)
    load.ended = True
    await asyncio.gather(*callers)
    assert load.unknown | load.not_happened
    await prove(world, load)


async def test_api_processes_killed_in_the_middle_of_pay_lose_no_acknowledged_payment(
    world: World, load: Load, apis: list[ApiProcess]
) -> None:
    callers = [asyncio.create_task(load.call(number)) for number in range(CONNECTIONS)]
    for number in range(len(apis)):
        await load.until(len(load.acknowledged) + ACKNOWLEDGED_BETWEEN_KILLS)
        await asyncio.sleep(load.chance.random() / 10)
        killed = apis[number % len(apis)]
        killed.kill()
        await killed.start()
    await load.until(len(load.acknowledged) + ACKNOWLEDGED_BETWEEN_KILLS)
    load.ended = True
    await asyncio.gather(*callers)
    assert load.unknown, "requests were on their way"
    await prove(world, load)


async def test_without_synchronous_commits_the_same_kill_loses_what_was_acknowledged(
    server: faults.Server, world: World, load: Load, apis: list[ApiProcess]
) -> None:
    """The control run: were commits not on disk when they are acknowledged, it would be noticed."""
    for sql in (
        f"ALTER DATABASE {faults.NAME} SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "SELECT pg_reload_conf()",
    ):
        await world.database.fetch(sql)
    for each in apis:
        each.kill()
    await asyncio.gather(*(each.start() for each in apis))
    callers = [asyncio.create_task(load.call(number)) for number in range(CONNECTIONS)]
    await load.until(ACKNOWLEDGED_BETWEEN_KILLS)
    server.kill()
    load.ended = True
    await asyncio.gather(*callers)
    await server.start()
    assert load.acknowledged.keys() - (await booked(world)).keys()
