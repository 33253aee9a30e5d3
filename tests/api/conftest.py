"""The whole application in this process, asked over real HTTP semantics, and people who ask it."""

from __future__ import annotations

import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import pytest

from app.asgi import make_application
from core import configuration, hub, ids
from core.principal import SYSTEM
from identity import codes, customers, logins, merchant_keys, merchants, operators
from identity.addresses import parse_address
from identity.caller import OPERATOR_SCOPE, Caller
from identity.signing_client import SigningKey, sign_request
from payments.pipeline import finish_operation
from resolvers import guard, throttle
from resolvers.plans import Plans
from schema.node import node_id
from wallet import ledger
from wallet.chart import AccountKind, account, clearing

PUBLIC_URL = "http://127.0.0.1:8080"
PASSWORD = "correct horse battery"
OPERATOR_PASSWORD = "one very long password"
CURRENCY = "CNY"


@dataclass
class Api:
    """A client of the application; each answer is the parsed body, and must be no server error."""

    http: httpx2.AsyncClient

    async def post(self, content: bytes, headers: dict[str, str]) -> httpx2.Response:
        return await self.http.post("/graphql", content=content, headers=headers)

    async def ask(
        self, query: str, variables: Any = None, *, token: str | None = None, **members: Any
    ) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        body = orjson.dumps({"query": query, "variables": variables or {}, **members})
        response = await self.post(body, headers)
        assert response.status_code < 500, response.text
        return response.json()  # type: ignore[no-any-return]

    async def data(self, query: str, variables: Any = None, *, token: str | None = None) -> Any:
        """The data of an answer that must have no error."""
        answer = await self.ask(query, variables, token=token)
        assert "errors" not in answer, answer
        return answer["data"]

    async def mutate(self, name: str, given: Any, fields: str, *, token: str | None = None) -> Any:
        """The payload of one mutation."""
        return (await self.data(_mutation(name, fields), {"input": given}, token=token))[name]

    async def signed(self, shop: Shop, name: str, given: Any, fields: str) -> Any:
        """The payload of one mutation that the merchant signs."""
        body = orjson.dumps({"query": _mutation(name, fields), "variables": {"input": given}})
        answer = (await self.post(body, shop.sign(body))).json()
        assert "errors" not in answer, answer
        return answer["data"][name]


@dataclass
class Person:
    """A customer who is signed in."""

    customer_id: uuid.UUID
    token: str
    phone: str

    @property
    def node_id(self) -> str:
        return node_id("Customer", self.customer_id)


@dataclass
class Shop:
    """A merchant with a shared secret."""

    merchant_id: uuid.UUID
    key_id: str
    key: SigningKey = field(repr=False)

    @property
    def node_id(self) -> str:
        return node_id("Merchant", self.merchant_id)

    def sign(self, body: bytes, **changes: Any) -> dict[str, str]:
        """The headers of a signed request."""
        values: dict[str, Any] = {"key_id": self.key_id, "key": self.key, **changes}
        return sign_request("POST", f"{configuration.current().public_url}/graphql", body, **values)


@pytest.fixture(params=["compiled", "ordinary"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test of the API runs twice: by the plans of its documents, and as if none had one."""
    chosen: str = request.param
    if chosen == "ordinary":
        monkeypatch.setattr(Plans, "find", lambda *_: None)
    return chosen


@pytest.fixture
async def api(engine: str, database: Any, valkey: str) -> AsyncIterator[Api]:
    """The application on this test's database and Valkey."""
    hub.connect(valkey)
    throttle.connect(valkey)
    application = make_application(connects=False)
    transport = httpx2.ASGITransport(app=application)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL) as http:
            yield Api(http)
    finally:
        await guard.finish_running()
        await application.state.probe.close()
        await throttle.close()
        await hub.close()


@pytest.fixture
def new_person(api: Api, database: Any) -> Callable[..., Awaitable[Person]]:
    """Registers a customer, with the money that came from outside before the test."""

    async def make(phone: str = "+8613812345678", funds_minor: int = 0) -> Person:
        address = parse_address(phone, None)
        waiting = await customers.register(address, PASSWORD, "Li Xiaoming")
        code = await newest_code(database, waiting.registration_id)
        tokens = await customers.confirm_registration(waiting.registration_id, code)
        person = Person(waiting.registration_id, tokens.access_token, phone)
        if funds_minor:
            await fund(person.customer_id, funds_minor)
        return person

    return make


@pytest.fixture
async def person(new_person: Callable[..., Awaitable[Person]]) -> Person:
    """A customer with 1,000.00 CNY."""
    return await new_person(funds_minor=1_000_00)


@pytest.fixture
async def operator(api: Api) -> Caller:
    """An operator with every role."""
    roles = frozenset({"ADMINISTRATOR", "SETTLEMENT", "RISK_ANALYST", "SUPPORT", "AUDITOR"})
    operator_id = await operators.create_operator("ops@example.com", OPERATOR_PASSWORD, roles)
    return Caller(
        principal=operators.operator(operator_id), scopes=frozenset({OPERATOR_SCOPE}), roles=roles
    )


@pytest.fixture
async def operator_token(operator: Caller) -> str:
    tokens = await logins.open_login(
        operator.principal, scopes=operator.scopes, roles=operator.roles
    )
    return tokens.access_token


@pytest.fixture
def new_shop(operator: Caller) -> Callable[..., Awaitable[Shop]]:
    """Registers a merchant with a fee of 0.6 %."""

    async def make(name: str = "Noodle Bar") -> Shop:
        view = await merchants.register_merchant(
            name,
            currencies=[CURRENCY, "JPY"],
            fee_rate_millionths=6_000,
            payment_limit_minor=100_000_00,
            by=operator,
        )
        key, secret = await merchant_keys.make_secret(view.merchant_id, by=operator)
        return Shop(view.merchant_id, str(key.key_id), base64.b64decode(secret))

    return make


@pytest.fixture
async def shop(new_shop: Callable[..., Awaitable[Shop]]) -> Shop:
    return await new_shop()


async def newest_code(database: Any, customer_id: uuid.UUID, purpose: str = "REGISTER") -> str:
    """The digits of the newest code, as the message would carry them."""
    rows = await database.fetch(
        """SELECT code_id FROM one_time_code WHERE customer_id = $1 AND purpose = $2
        ORDER BY requested_at DESC LIMIT 1""",
        customer_id,
        purpose,
    )
    issued = await codes.issue(rows[0]["code_id"])
    assert issued is not None
    return issued.code


async def fund(customer_id: uuid.UUID, amount_minor: int, currency: str = CURRENCY) -> None:
    """Money that came from outside before the test."""
    wallet = account(AccountKind.CUSTOMER_WALLET, customer_id, currency)
    action = ledger.Post(clearing("bank", currency), wallet, amount_minor)
    entry = ledger.Entry(entry_id=ids.new_id(), kind="FUNDING", actions=(action,))
    assert (await ledger.post(SYSTEM, [entry]))[0].outcome == "POSTED"


async def finish_all(database: Any) -> None:
    """What the workers would do now: finish every unresolved operation once."""
    rows = await database.fetch(
        """SELECT operation_id FROM operation
        WHERE state IN ('CREATED', 'SUBMITTED', 'PENDING', 'UNKNOWN')"""
    )
    for row in rows:
        await finish_operation(row["operation_id"])


def paying(shop: Shop, amount_minor: Any, **changes: Any) -> dict[str, Any]:
    """The input of a payment under a number and key of its own."""
    number = ids.random_token(8)
    return {
        "idempotencyKey": f"pay-{number}",
        "merchantId": shop.node_id,
        "merchantOrderNo": number,
        "amount": {"amountMinor": amount_minor, "currency": CURRENCY},
        "method": {"account": {}},
        **changes,
    }


def _mutation(name: str, fields: str) -> str:
    kind = name[0].upper() + name[1:]
    return (
        f"mutation($input: {kind}Input!) {{ {name}(input: $input) {{ {fields} "
        "userErrors { __typename code message field retryable outcomeKnown } } }"
    )
