"""A payer, a payee, a shop and an operator on real books; a simulated bank that calls us back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from channels import breaker, outgoing
from channels.simulator import SimulatorSettings
from core import configuration as installed
from core import ids
from core.configuration import PLATFORM_MERCHANT_ID, Configuration
from core.errors import PurserError
from core.money import Money
from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from payments import assessing
from payments.callbacks import apply_callback
from payments.pipeline import accept_operation, finish_operation
from payments.products.payout import Details as PayoutDetails
from payments.reconcile_books import verify_orders
from payments.states import OperationType
from payments.values import Answer, CloseOrder, OpenOrder, RefundOrder
from risk_model.assessment import Assessment
from tests.channels.conftest import ADMIN_TOKEN, SMS_KEY, Simulator, free_port, key_pair
from wallet import ledger, verify
from wallet.chart import AccountKind, account, clearing

CURRENCY = "CNY"


@dataclass
class World:
    """Ids and shorthands; amounts in minor units of one currency."""

    database: Any
    payer_id: uuid.UUID = field(default_factory=ids.new_id)
    payee_id: uuid.UUID = field(default_factory=ids.new_id)
    shop_id: uuid.UUID = field(default_factory=ids.new_id)
    operator_id: uuid.UUID = field(default_factory=ids.new_id)

    @property
    def payer(self) -> Principal:
        return Principal("customer", self.payer_id)

    @property
    def shop(self) -> Principal:
        return Principal("merchant", self.shop_id)

    @property
    def operator(self) -> Principal:
        return Principal("operator", self.operator_id)

    async def fund(self, amount_minor: int, customer_id: uuid.UUID | None = None) -> None:
        """Money that came from outside before the test."""
        wallet = account(AccountKind.CUSTOMER_WALLET, customer_id or self.payer_id, CURRENCY)
        action = ledger.Post(clearing("bank", CURRENCY), wallet, amount_minor)
        entry = ledger.Entry(entry_id=ids.new_id(), kind="FUNDING", actions=(action,))
        assert (await ledger.post(SYSTEM, [entry]))[0].outcome == "POSTED"

    def paying(self, amount_minor: int, **changes: Any) -> OpenOrder:
        """A payment to the shop under a number and key of its own."""
        number = ids.random_token(8)
        values: dict[str, Any] = {
            "type": OperationType.PAY,
            "caller": self.payer,
            "idempotency_key": f"pay-{number}",
            "merchant_id": self.shop_id,
            "merchant_order_no": number,
            "money": Money(amount_minor, CURRENCY),
            "product": "account",
        }
        return OpenOrder(**{**values, **changes})

    async def pay(self, amount_minor: int, **changes: Any) -> Answer:
        return await accept_operation(self.paying(amount_minor, **changes))

    async def transfer(self, amount_minor: int, **changes: Any) -> Answer:
        return await self.pay(
            amount_minor,
            **{
                "type": OperationType.TRANSFER,
                "merchant_id": PLATFORM_MERCHANT_ID,
                "payee_customer_id": self.payee_id,
                **changes,
            },
        )

    async def top_up(self, amount_minor: int, **changes: Any) -> Answer:
        return await self.pay(
            amount_minor,
            **{
                "type": OperationType.TOP_UP,
                "merchant_id": PLATFORM_MERCHANT_ID,
                "return_url": "https://shop.example/back",
                **changes,
            },
        )

    async def pay_out(self, amount_minor: int, number: str = "6222000011110000") -> Answer:
        details = PayoutDetails(account_number=number, holder_name="Shop Ltd", bank_code="BANKCNBJ")
        return await self.pay(
            amount_minor,
            type=OperationType.PAYOUT,
            caller=self.shop,
            product="payout",
            unchecked_details=details,
        )

    async def refund(self, order_id: uuid.UUID, amount_minor: int | None, **changes: Any) -> Answer:
        number = ids.random_token(8)
        values: dict[str, Any] = {
            "caller": self.shop,
            "idempotency_key": f"refund-{number}",
            "order_id": order_id,
            "refund_number": number,
            "money": None if amount_minor is None else Money(amount_minor, CURRENCY),
        }
        return await accept_operation(RefundOrder(**{**values, **changes}))

    async def close(self, order_id: uuid.UUID, caller: Principal | None = None) -> Answer:
        request = CloseOrder(
            caller=caller or self.payer,
            idempotency_key=f"close-{ids.random_token(8)}",
            order_id=order_id,
        )
        return await accept_operation(request)

    async def available(self, kind: AccountKind, owner_id: uuid.UUID) -> int:
        """What an account has available, with what is not rolled up yet; 0 if never opened."""
        account_id = account(kind, owner_id, CURRENCY).account_id
        async with phase(SYSTEM):
            rows = await statement("SELECT available_minor FROM balances($1)", [account_id])
        return int(rows[0][0]) if rows else 0

    async def wallet(self, customer_id: uuid.UUID | None = None) -> int:
        return await self.available(AccountKind.CUSTOMER_WALLET, customer_id or self.payer_id)

    async def order(self, order_id: uuid.UUID) -> dict[str, Any]:
        """The order's row as it stands."""
        rows = await self.database.fetch(
            "SELECT * FROM payment_order WHERE order_id = $1", order_id
        )
        return dict(rows[0])

    async def run_jobs(self) -> None:
        """Finish what the outbox asks for, as the workers would."""
        rows = await self.database.fetch(
            """UPDATE outbox SET done_at = now()
            WHERE job = 'finish_operation' AND done_at IS NULL RETURNING payload"""
        )
        for row in rows:
            await finish_operation(uuid.UUID(_json(row["payload"])["operation_id"]))

    async def make_due(self) -> None:
        """Let every waiting check be due now."""
        await self.database.fetch(
            "UPDATE operation SET next_check_at = purser_now() WHERE next_check_at IS NOT NULL"
        )

    async def assert_books(self) -> None:
        """The books balance, and each order's amounts are its postings."""
        assert (await verify.verify()).findings == ()
        assert await verify_orders() == []


def _json(value: Any) -> dict[str, Any]:
    import orjson

    document: dict[str, Any] = orjson.loads(value) if isinstance(value, str) else value
    return document


@pytest.fixture
async def world(database: Any) -> World:
    """Two customers with empty wallets, a shop that pays 0.6 % fees, and an operator."""
    here = World(database)
    for number, customer_id in enumerate((here.payer_id, here.payee_id)):
        await database.fetch(
            """INSERT INTO customer (customer_id, phone, status, display_name, created_at)
            VALUES ($1, $2, 'ACTIVE', 'Customer', now() - interval '1 year')""",
            customer_id,
            f"+861380000000{number}",
        )
    await database.fetch(
        """INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
            payment_limit_minor, created_at)
        VALUES ($1, 'Shop', 'ACTIVE', 6000, '["CNY"]', 10000000, now())""",
        here.shop_id,
    )
    return here


@pytest.fixture(autouse=True)
def verdict(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What risk says of the next payments; ALLOW until the test says otherwise."""
    chosen = ["ALLOW"]
    real = assessing.risk.assess

    def assess(subjects: Any, *rest: Any) -> list[Assessment]:
        return [replace(each, outcome=chosen[0]) for each in real(subjects, *rest)]

    monkeypatch.setattr(assessing.risk, "assess", assess)
    return lambda outcome: chosen.__setitem__(0, outcome)


@pytest.fixture
def bank_settings(configuration: Configuration, tmp_path: Path) -> SimulatorSettings:
    """A bank that is quick, with keys that our configuration knows."""
    our_private, our_public = key_pair()
    bank_private, bank_public = key_pair()
    bank_port, our_port = free_port(), free_port()
    installed.install(
        replace(
            configuration,
            public_url=f"http://127.0.0.1:{our_port}",
            bank_url=f"http://127.0.0.1:{bank_port}",
            bank_private_key=our_private,
            bank_public_key=bank_public,
            sms_url=f"http://127.0.0.1:{bank_port}/sms",
            sms_key=SMS_KEY,
        )
    )
    return SimulatorSettings(
        database_path=tmp_path / "simulator.sqlite",
        public_url=f"http://127.0.0.1:{bank_port}",
        bank_private_key=bank_private,
        client_public_key=our_public,
        sms_key=SMS_KEY,
        admin_token=ADMIN_TOKEN,
        time_factor=0.01,
        payout_seconds=1.0,
        return_seconds=100.0,
    )


@pytest.fixture
async def bank(database: Any, bank_settings: SimulatorSettings) -> AsyncIterator[Simulator]:
    """The simulated bank, and our own address for its callbacks."""
    simulator = Simulator(bank_settings)
    simulator.start()
    port = int(installed.current().public_url.rsplit(":", 1)[1])
    app = Starlette(routes=[Route("/callbacks/{channel}", _take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield simulator
    server.should_exit = True
    await serving
    simulator.stop()
    await outgoing.close()
    breaker.reset()


async def _take(request: Request) -> Response:
    try:
        done = await apply_callback(
            request.path_params["channel"], request.headers, await request.body()
        )
    except PurserError as error:
        return Response(error.code, 401)
    return Response(done.body, done.status, dict(done.headers))
