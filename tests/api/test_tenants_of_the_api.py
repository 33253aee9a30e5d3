"""Nobody reaches what belongs to others: every field and mutation of the SDL with foreign ids.

The same again with the application's own guards taken out: then PostgreSQL's policies alone stand.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    build_schema,
)

from core import ids
from identity.caller import Caller
from payments import webhooks
from schema.export import SNAPSHOT
from schema.node import node_id
from tests.api.conftest import Api, Person, Shop, finish_all, paying
from wallet.chart import AccountKind, account

SCHEMA = build_schema(SNAPSHOT.read_text())
SECRET_NUMBER = "FOREIGN-ORDER-NUMBER"
SECRET_TEXT = "foreign description"


@dataclass
class Others:
    """A customer and a merchant with an order, a refund, keys and webhooks of their own."""

    person: Person
    shop: Shop
    node_ids: dict[str, str]
    secrets: set[str]


@pytest.fixture
async def others(
    api: Api,
    new_person: Callable[..., Awaitable[Person]],
    new_shop: Callable[..., Awaitable[Shop]],
    operator_token: str,
    database: Any,
) -> Others:
    person = await new_person("+8613999999999", funds_minor=777_77)
    shop = await new_shop("Foreign Merchant Name")
    given = paying(shop, 183_47, merchantOrderNo=SECRET_NUMBER, description=SECRET_TEXT)
    fields = "order { id operations { id } }"
    paid = await api.mutate("pay", given, fields, token=person.token)
    order_id = paid["order"]["id"]
    body = {"idempotencyKey": "refund-0001", "orderId": order_id, "refundNumber": "R-FOREIGN"}
    amount = {"amountMinor": 100, "currency": "CNY"}
    await api.signed(shop, "refund", {**body, "amount": amount}, "order { id }")
    given = {"idempotencyKey": "settle-0001", "merchantId": shop.node_id, "currency": "CNY"}
    await api.mutate("settlementRun", given, "__typename", token=operator_token)
    endpoint = await api.signed(
        shop,
        "webhookEndpointSet",
        {"url": "https://foreign.example/hook"},
        "webhookEndpoint { id }",
    )
    await finish_all(database)
    event = await database.fetch(
        "SELECT event_id FROM outbox WHERE merchant_id = $1 AND topic LIKE 'order.%'",
        shop.merchant_id,
    )
    wallet = account(AccountKind.CUSTOMER_WALLET, person.customer_id, "CNY").account_id
    return Others(
        person,
        shop,
        {
            "Order": order_id,
            "Operation": paid["order"]["operations"][0]["id"],
            "Customer": person.node_id,
            "Merchant": shop.node_id,
            "MerchantKey": node_id("MerchantKey", uuid.UUID(shop.key_id)),
            "Wallet": node_id("Wallet", wallet),
            "WebhookEndpoint": endpoint["webhookEndpoint"]["id"],
            "WebhookEvent": node_id("WebhookEvent", event[0]["event_id"]),
        },
        {
            SECRET_NUMBER,
            SECRET_TEXT,
            "Foreign Merchant Name",
            "R-FOREIGN",
            "foreign.example",
            person.phone,
            "183.47",
            "18347",
            "777.77",
        },
    )


@pytest.fixture(params=["guards in place", "guards taken out"])
def guards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "guards taken out":
        monkeypatch.setattr("resolvers.guard.require", lambda caller, permission: caller)
        monkeypatch.setattr("resolvers.loaders.allows", lambda caller, permission: True)
        monkeypatch.setattr("resolvers.operators.require", lambda caller, permission: caller)
        monkeypatch.setattr("resolvers.paying.require", lambda caller, permission: caller)
    return str(request.param)


async def test_a_customer_reaches_nothing_of_another(
    api: Api, others: Others, person: Person, guards: str, database: Any
) -> None:
    before = await _state(database)

    async def send(document: str) -> Any:
        return await api.ask(document, token=person.token)

    await _try_everything(send, others, faults=guards != "guards in place")
    assert await _state(database) == before


async def test_a_merchant_reaches_nothing_of_another(
    api: Api, others: Others, shop: Shop, guards: str, database: Any
) -> None:
    before = await _state(database)

    async def send(document: str) -> Any:
        body = orjson.dumps({"query": document})
        response = await api.post(body, shop.sign(body))
        assert response.status_code < 500, response.text
        return response.json()

    await _try_everything(send, others, faults=guards != "guards in place")
    assert await _state(database) == before


async def test_nobody_reaches_anything(api: Api, others: Others, database: Any) -> None:
    before = await _state(database)

    async def send(document: str) -> Any:
        return await api.ask(document)

    await _try_everything(send, others)
    assert await _state(database) == before


async def test_the_control_sees_what_the_others_may_not(api: Api, others: Others) -> None:
    found = []
    for name, field in SCHEMA.query_type.fields.items():  # type: ignore[union-attr]
        for kind in others.node_ids:
            document = f"{{ {_call(name, field, others, kind)} }}"
            found.append(str(await api.ask(document, token=others.person.token)))
    text = " ".join(found)
    assert {SECRET_NUMBER, SECRET_TEXT, "777.77"} - {s for s in others.secrets if s in text} <= {
        "777.77"
    }, "the hunt must be able to find something"


async def test_webhooks_and_keys_of_another_merchant_are_not_found(
    api: Api, others: Others, shop: Shop, operator: Caller
) -> None:
    await webhooks.set_endpoint(_principal(shop), "https://own.example/hook")
    for name, given in (
        ("webhookSecretRotate", {"endpointId": others.node_ids["WebhookEndpoint"]}),
        ("webhookEventReplay", {"eventId": others.node_ids["WebhookEvent"]}),
        ("merchantKeyRevoke", {"keyId": others.node_ids["MerchantKey"]}),
        ("merchantKeyRotate", {"keyId": others.node_ids["MerchantKey"]}),
        ("merchantKeyCreate", {"merchantId": others.node_ids["Merchant"]}),
        ("merchantTokenIssue", {"merchantId": others.node_ids["Merchant"]}),
    ):
        payload = await api.signed(shop, name, given, "__typename")
        assert [error["code"] for error in payload["userErrors"]] == ["NOT_FOUND"], name


async def _try_everything(
    send: Callable[[str], Awaitable[Any]], others: Others, *, faults: bool = False
) -> None:
    """Each root field, with each of the foreign ids wherever an id fits.

    Where a guard is taken out, PostgreSQL's refusal may show as a masked fault (`faults`).
    """
    assert SCHEMA.query_type is not None
    assert SCHEMA.mutation_type is not None
    for root, fields in (
        ("query", SCHEMA.query_type.fields),
        ("mutation", SCHEMA.mutation_type.fields),
    ):
        for name, field in fields.items():
            if name == "customerLogout":
                continue
            for kind in _kinds(field, others):
                document = f"{root} {{ {_call(name, field, others, kind)} }}"
                answer = await send(document)
                shown = orjson.dumps(answer).decode()
                for secret in others.secrets:
                    assert secret not in shown, (document, shown)
                for error in answer.get("errors", []):
                    code = error["extensions"]["code"]
                    assert faults or code != "INTERNAL", (document, answer)


def _kinds(field: Any, others: Others) -> list[str]:
    takes_id = any("ID" in str(each.type) for each in field.args.values())
    named = [each.type for each in field.args.values()]
    while named and isinstance(named[0], GraphQLNonNull):
        named[0] = named[0].of_type
    inputs = getattr(named[0], "fields", {}) if named else {}
    deep = any("ID" in str(each.type) for each in inputs.values())
    return list(others.node_ids) if takes_id or deep else ["Order"]


def _call(name: str, field: Any, others: Others, kind: str) -> str:
    given = [
        f"{key}: {_value(key, argument.type, others, kind)}"
        for key, argument in field.args.items()
        if key not in ("after", "before", "last", "filter", "orderBy")
    ]
    arguments = f"({', '.join(given)})" if given else ""
    return f"{name}{arguments} {_selection(field.type, 3)}"


def _selection(kind: Any, depth: int) -> str:
    while isinstance(kind, GraphQLNonNull | GraphQLList):
        kind = kind.of_type
    if isinstance(kind, GraphQLObjectType):
        return "{ " + _fields(kind, depth) + " }"
    if hasattr(kind, "fields") and kind.name == "Node":
        wanted = ("Order", "Customer", "Merchant", "Wallet", "WebhookEvent")
        parts = (f"... on {name} {{ {_fields(SCHEMA.type_map[name], 2)} }}" for name in wanted)
        return "{ __typename " + " ".join(parts) + " }"
    return "{ __typename }" if hasattr(kind, "fields") else ""


def _fields(kind: Any, depth: int) -> str:
    parts = ["__typename"]
    for name, field in kind.fields.items():
        inner = field.type
        while isinstance(inner, GraphQLNonNull | GraphQLList):
            inner = inner.of_type
        if not hasattr(inner, "fields"):
            parts.append(name)
        elif depth > 1 and name != "userErrors":
            arguments = "(first: 5)" if "first" in field.args else ""
            parts.append(f"{name}{arguments} {_selection(inner, depth - 1)}")
    return " ".join(parts)


def _value(key: str, kind: Any, others: Others, wanted: str) -> str:
    if isinstance(kind, GraphQLNonNull):
        return _value(key, kind.of_type, others, wanted)
    if isinstance(kind, GraphQLList):
        return f"[{_value(key, kind.of_type, others, wanted)}]"
    if isinstance(kind, GraphQLInputObjectType):
        keys = sorted(kind.fields)
        chosen = keys[:1] if kind.is_one_of else keys
        skipped = ("effectiveAt", "returnUrl", "publicKey")
        parts = [
            f"{each}: {_value(each, kind.fields[each].type, others, wanted)}"
            for each in chosen
            if each not in skipped
        ]
        return "{" + ", ".join(parts) + "}"
    if isinstance(kind, GraphQLEnumType):
        return min(kind.values)
    if kind.name == "ID":
        return f'"{others.node_ids[wanted]}"'
    fixed = {
        "Int": "5",
        "Boolean": "true",
        "BigInt": "100",
        "CurrencyCode": '"CNY"',
        "DateTime": '"2026-01-01T00:00:00Z"',
    }
    texts = {
        "merchantOrderNo": SECRET_NUMBER,
        "refundNumber": f"R-{ids.random_token(6)}",
        "payoutNumber": f"P-{ids.random_token(6)}",
        "idempotencyKey": f"key-{ids.random_token(8)}",
        "url": "https://mine.example/hook",
        "phone": others.person.phone,
    }
    return fixed.get(kind.name, f'"{texts.get(key, "some text")}"')


def _principal(shop: Shop) -> Any:
    from core.principal import Principal

    return Principal("merchant", shop.merchant_id)


async def _state(database: Any) -> list[Any]:
    """Everything of the others that a call could have changed; money given to them is no harm."""
    return [
        list(await database.fetch(sql))
        for sql in (
            f"""SELECT order_id, version, state FROM payment_order
            WHERE merchant_order_no = '{SECRET_NUMBER}'""",
            """SELECT name, status, fee_rate_millionths FROM merchant
            WHERE name = 'Foreign Merchant Name'""",
            "SELECT key_id, expires_at FROM merchant_key ORDER BY key_id",
            """SELECT url, state, secret_sealed FROM webhook_endpoint
            WHERE url LIKE '%foreign%'""",
            """SELECT account_id, debits_posted, debits_pending FROM account
            WHERE owner_id IN (
                SELECT payer_customer_id FROM payment_order
                WHERE description = 'foreign description'
                UNION SELECT merchant_id FROM merchant WHERE name = 'Foreign Merchant Name')
            ORDER BY account_id""",
        )
    ]
