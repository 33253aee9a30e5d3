"""What merchants manage by signed calls, and what operators see and decide."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.api.conftest import OPERATOR_PASSWORD, Api, Person, Shop, paying
from tests.payments.conftest import verdict

__all__ = ["verdict"]

KEY = "merchantKey { id keyId algorithm expiresAt } secret"


async def test_an_operator_signs_in_registers_a_merchant_and_gives_it_a_key(
    api: Api, operator: Any, person: Person
) -> None:
    given = {"email": "ops@example.com", "password": OPERATOR_PASSWORD}
    signed_in = await api.mutate("operatorLogin", given, "tokens { accessToken }")
    token = signed_in["tokens"]["accessToken"]
    registered = await api.mutate(
        "merchantRegister",
        {
            "name": "Tea House",
            "currencies": ["CNY"],
            "feeRateMillionths": 6_000,
            "paymentLimitMinor": "500000",
        },
        "merchant { id name feeRateMillionths keys { id } balances { currency } }",
        token=token,
    )
    merchant = registered["merchant"]
    assert merchant["keys"] == []
    made = await api.mutate("merchantKeyCreate", {"merchantId": merchant["id"]}, KEY, token=token)
    assert made["merchantKey"]["algorithm"] == "HMAC_SHA256"
    shop = Shop(
        merchant_id=_uuid(merchant["id"]),
        key_id=made["merchantKey"]["keyId"],
        key=base64.b64decode(made["secret"]),
    )
    paid = await api.mutate("pay", paying(shop, 2_00), "order { id }", token=person.token)
    refund = {"idempotencyKey": "refund-0001", "orderId": paid["order"]["id"], "refundNumber": "R"}
    assert (await api.signed(shop, "refund", refund, "order { state }"))["userErrors"] == []


async def test_a_key_is_rotated_and_the_old_one_ends(api: Api, shop: Shop) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    first = await api.signed(shop, "merchantKeyCreate", {"publicKey": pem.decode()}, KEY)
    assert first["secret"] is None
    newer = Shop(shop.merchant_id, first["merchantKey"]["keyId"], private)
    rotated = await api.signed(
        newer,
        "merchantKeyRotate",
        {"keyId": first["merchantKey"]["id"], "overlapSeconds": 60},
        f"{KEY} endingKey {{ expiresAt }}",
    )
    assert rotated["endingKey"]["expiresAt"] is not None
    newest = Shop(
        shop.merchant_id, rotated["merchantKey"]["keyId"], base64.b64decode(rotated["secret"])
    )
    for each in (newer, newest):
        assert (await api.signed(each, "merchantTokenIssue", {}, "__typename"))["userErrors"] == []
    given = {"keyId": first["merchantKey"]["id"]}
    assert (await api.signed(newest, "merchantKeyRevoke", given, "__typename"))["userErrors"] == []
    body = b'{"query":"{ viewer { kind } }"}'
    assert (await api.post(body, newer.sign(body))).status_code == 401
    wrong = await api.signed(newest, "merchantKeyCreate", {"publicKey": "no key"}, KEY)
    assert wrong["userErrors"][0]["code"] == "INVALID_ARGUMENT"


async def test_a_merchant_sets_its_webhook_and_asks_for_events_again(
    api: Api, shop: Shop, person: Person
) -> None:
    fields = "webhookEndpoint { id url state } secret"
    missing = await api.signed(shop, "webhookEventReplay", {"range": _range()}, "eventsCount")
    assert missing["userErrors"][0]["code"] == "NOT_FOUND"
    made = await api.signed(
        shop, "webhookEndpointSet", {"url": "https://shop.example/hook"}, fields
    )
    assert made["secret"].startswith("whsec_")
    for url in ("http://169.254.169.254/", "https://localhost/", "ftp://x.example", "x" * 3_000):
        refused = await api.signed(shop, "webhookEndpointSet", {"url": url}, fields)
        assert refused["userErrors"][0]["code"] == "INVALID_ARGUMENT"
    await api.mutate("pay", paying(shop, 1_00), "order { id }", token=person.token)
    issued = await api.signed(shop, "merchantTokenIssue", {}, "tokens { accessToken }")
    token = issued["tokens"]["accessToken"]
    found = await api.data(
        """{ webhookEndpoint { url state } webhookEvents(first: 10) {
            nodes { id eventId type deliveries { outcome } } } }""",
        token=token,
    )
    assert found["webhookEndpoint"]["url"] == "https://shop.example/hook"
    types = [event["type"] for event in found["webhookEvents"]["nodes"]]
    assert types == ["order.succeeded"]
    event_id = found["webhookEvents"]["nodes"][0]["id"]
    again = await api.signed(shop, "webhookEventReplay", {"eventId": event_id}, "eventsCount")
    assert again["eventsCount"] == 1
    every = await api.signed(shop, "webhookEventReplay", {"range": _range()}, "eventsCount")
    assert every["eventsCount"] == 1
    rotated = await api.signed(
        shop, "webhookSecretRotate", {"endpointId": made["webhookEndpoint"]["id"]}, fields
    )
    assert rotated["secret"] not in (None, made["secret"])


async def test_an_order_in_review_waits_for_an_analyst(
    api: Api, person: Person, shop: Shop, operator_token: str, verdict: Callable[[str], None]
) -> None:
    verdict("REVIEW")
    paid = await api.mutate(
        "pay", paying(shop, 10_00), "order { id state riskOutcome }", token=person.token
    )
    assert paid["order"]["state"] == "IN_REVIEW"
    assert paid["order"]["riskOutcome"] == "REVIEW"
    queue = await api.data(
        """{ reviewQueue(first: 10) { nodes { id payer { phone } riskDecisions {
            outcome source features { name value } reasonCodes } } } }""",
        token=operator_token,
    )
    assert [each["id"] for each in queue["reviewQueue"]["nodes"]] == [paid["order"]["id"]]
    assert queue["reviewQueue"]["nodes"][0]["riskDecisions"][0]["outcome"] == "REVIEW"
    hidden = await api.data(
        "query($id: ID!) { order(id: $id) { riskDecisions { outcome } } }",
        {"id": paid["order"]["id"]},
        token=person.token,
    )
    assert hidden["order"]["riskDecisions"] is None
    given = {
        "idempotencyKey": "verdict-0001",
        "orderId": paid["order"]["id"],
        "verdict": "ACCEPT",
        "reason": "Known customer.",
    }
    decided = await api.mutate("reviewDecide", given, "order { state }", token=operator_token)
    assert decided["userErrors"] == []
    assert decided["order"]["state"] == "SUCCEEDED"
    empty = await api.mutate(
        "reviewDecide",
        {**given, "idempotencyKey": "verdict-0002", "reason": " "},
        "order { state }",
        token=operator_token,
    )
    assert empty["userErrors"][0]["field"] == ["reason"]


async def test_a_suspended_merchant_is_paid_no_more(
    api: Api, person: Person, shop: Shop, operator_token: str
) -> None:
    changed = await api.mutate(
        "merchantUpdate",
        {"merchantId": shop.node_id, "status": "SUSPENDED", "feeRateMillionths": 7_000},
        "merchant { status feeRateMillionths }",
        token=operator_token,
    )
    assert changed["merchant"] == {"status": "SUSPENDED", "feeRateMillionths": 7_000}
    refused = await api.mutate("pay", paying(shop, 1_00), "order { id }", token=person.token)
    assert refused["userErrors"][0]["code"] == "FORBIDDEN"
    assert refused["order"] is None


async def test_a_settlement_runs_once_for_each_key(
    api: Api, person: Person, shop: Shop, operator_token: str
) -> None:
    await api.mutate("pay", paying(shop, 100_00), "order { id }", token=person.token)
    given = {"idempotencyKey": "settle-0001", "merchantId": shop.node_id, "currency": "CNY"}
    fields = "settlement { id amount { formatted } } idempotentReplay"
    first = await api.mutate("settlementRun", given, fields, token=operator_token)
    again = await api.mutate("settlementRun", given, fields, token=operator_token)
    assert first["settlement"] == again["settlement"]
    assert again["idempotentReplay"] is True
    other = await api.mutate(
        "settlementRun", {**given, "currency": "JPY"}, fields, token=operator_token
    )
    assert other["userErrors"][0]["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_an_auditor_sees_that_the_books_are_right(
    api: Api, person: Person, shop: Shop, operator_token: str
) -> None:
    await api.mutate("pay", paying(shop, 1_00), "order { id }", token=person.token)
    found = await api.data(
        "{ ledgerIntegrity { clean entriesCount findings { finding } } }", token=operator_token
    )
    assert found["ledgerIntegrity"] == {"clean": True, "entriesCount": "2", "findings": []}


async def test_a_merchant_finds_its_order_by_its_own_number(
    api: Api, person: Person, shop: Shop, new_shop: Callable[..., Awaitable[Shop]]
) -> None:
    given = paying(shop, 1_00)
    await api.mutate("pay", given, "order { id }", token=person.token)
    document = """query($no: String!) { orderByMerchantNumber(merchantOrderNo: $no) {
        state fee { formatted } payer { phone } operations { attempts { channel } } } }"""
    for each, expected in ((shop, "SUCCEEDED"), (await new_shop("Another"), None)):
        issued = await api.signed(each, "merchantTokenIssue", {}, "tokens { accessToken }")
        token = issued["tokens"]["accessToken"]
        answer = await api.ask(document, {"no": given["merchantOrderNo"]}, token=token)
        found = answer["data"]["orderByMerchantNumber"]
        assert (found and found["state"]) == expected
        if found:
            assert found["payer"] is None, "a merchant does not learn who paid"


@pytest.mark.parametrize("name", ["refund", "payOut", "settlementRun", "merchantRegister"])
async def test_a_customer_may_not_do_what_others_may(api: Api, person: Person, name: str) -> None:
    kind = name[0].upper() + name[1:]
    answer = await api.ask(
        f"mutation($input: {kind}Input!) {{ {name}(input: $input) {{ __typename }} }}",
        {"input": _inputs()[name]},
        token=person.token,
    )
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


def _inputs() -> dict[str, Any]:
    amount = {"amountMinor": 1, "currency": "CNY"}
    destination = {"accountNumber": "62220000", "holderName": "x", "bankCode": "x"}
    return {
        "refund": {"idempotencyKey": "k" * 8, "orderId": "x", "refundNumber": "x"},
        "payOut": {"payoutNumber": "x", "amount": amount, "destination": destination},
        "settlementRun": {"merchantId": "x", "currency": "CNY"},
        "merchantRegister": {
            "name": "x",
            "currencies": ["CNY"],
            "feeRateMillionths": 0,
            "paymentLimitMinor": 1,
        },
    }


def _range() -> dict[str, str]:
    return {"beginsAt": "2000-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z"}


def _uuid(unchecked_id: str) -> Any:
    from schema.node import parse_node_id

    return parse_node_id(unchecked_id)[1]
