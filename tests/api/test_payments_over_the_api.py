"""Payments as their callers see them: what is answered, what is stored, what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from core.configuration import PLATFORM_MERCHANT_ID
from schema.node import node_id
from tests.api.conftest import Api, Person, Shop, finish_all, paying

ORDER = """order { id state amount { amountMinor currency exponent formatted }
    captured { amountMinor } resourceVersion merchantName riskOutcome fee { amountMinor }
    operations { type state fee { amountMinor } } }
    idempotentReplay"""


async def test_a_payment_moves_money_once_and_its_answer_is_kept(
    api: Api, person: Person, shop: Shop
) -> None:
    given = paying(shop, 30_00)
    first = await api.mutate("pay", given, ORDER, token=person.token)
    assert first["userErrors"] == []
    assert first["order"]["state"] == "SUCCEEDED"
    assert first["order"]["amount"] == {
        "amountMinor": "3000",
        "currency": "CNY",
        "exponent": 2,
        "formatted": "30.00",
    }
    assert first["order"]["fee"] is None, "a payer does not see the merchant's fee"
    again = await api.mutate("pay", given, ORDER, token=person.token)
    assert again["idempotentReplay"] is True
    assert {**again, "idempotentReplay": False} == first
    wallet = await api.data(
        """{ wallet(currency: "CNY") { available { amountMinor }
        statement(first: 10) { nodes { kind amount { formatted } balanceAfter { formatted }
            order { id } } } } }""",
        token=person.token,
    )
    assert wallet["wallet"]["available"]["amountMinor"] == "97000"
    lines = wallet["wallet"]["statement"]["nodes"]
    assert [line["amount"]["formatted"] for line in lines] == ["-30.00", "1000.00"]
    assert lines[0]["order"]["id"] == first["order"]["id"]


async def test_a_used_key_with_another_input_is_refused(
    api: Api, person: Person, shop: Shop
) -> None:
    given = paying(shop, 30_00)
    await api.mutate("pay", given, ORDER, token=person.token)
    other = {**given, "amount": {"amountMinor": 31_00, "currency": "CNY"}}
    refused = await api.mutate("pay", other, ORDER, token=person.token)
    assert [error["code"] for error in refused["userErrors"]] == ["IDEMPOTENCY_KEY_REUSED"]


async def test_the_key_may_come_as_a_directive(api: Api, person: Person, shop: Shop) -> None:
    given = paying(shop, 5_00)
    key = given.pop("idempotencyKey")
    document = """mutation($input: PayInput!, $key: String!) {
        pay(input: $input) @idempotent(key: $key) { order { id } idempotentReplay
            userErrors { code field } } }"""
    first = (await api.data(document, {"input": given, "key": key}, token=person.token))["pay"]
    again = (await api.data(document, {"input": given, "key": key}, token=person.token))["pay"]
    assert first["userErrors"] == []
    assert again["idempotentReplay"] is True
    none = await api.mutate("pay", given, ORDER, token=person.token)
    assert none["userErrors"][0]["code"] == "INVALID_ARGUMENT"
    both = {"input": {**given, "idempotencyKey": "another key"}, "key": key}
    differing = (await api.data(document, both, token=person.token))["pay"]
    assert differing["userErrors"][0]["field"] == ["idempotencyKey"]


async def test_too_little_money_is_a_typed_refusal_that_carries_what_there_is(
    api: Api, person: Person, shop: Shop
) -> None:
    payload = (
        await api.data(
            """mutation($input: PayInput!) { pay(input: $input) { order { state failureReason }
            userErrors { __typename code retryable outcomeKnown
                ... on InsufficientAvailableError { available { formatted } } } } }""",
            {"input": paying(shop, 1_500_00)},
            token=person.token,
        )
    )["pay"]
    error = payload["userErrors"][0]
    assert error["__typename"] == "InsufficientAvailableError"
    assert error["available"] == {"formatted": "1000.00"}
    assert error["outcomeKnown"] is True
    assert payload["order"]["state"] == "FAILED"


async def test_a_merchant_refunds_settles_and_pays_out_by_signed_calls(
    api: Api, person: Person, shop: Shop, operator_token: str, database: Any
) -> None:
    paid = await api.mutate("pay", paying(shop, 100_00), ORDER, token=person.token)
    refund = {
        "idempotencyKey": "refund-0001",
        "orderId": paid["order"]["id"],
        "refundNumber": "R-1",
        "amount": {"amountMinor": "1000", "currency": "CNY"},
    }
    refunded = await api.signed(shop, "refund", refund, ORDER)
    assert refunded["userErrors"] == []
    assert refunded["order"]["fee"] == {"amountMinor": "60"}, "a merchant sees its fee"
    settled = await api.mutate(
        "settlementRun",
        {"idempotencyKey": "settle-0001", "merchantId": shop.node_id, "currency": "CNY"},
        "settlement { amount { formatted } } idempotentReplay",
        token=operator_token,
    )
    assert settled["settlement"]["amount"]["formatted"] == "89.46"
    payout = await api.signed(
        shop,
        "payOut",
        {
            "idempotencyKey": "payout-0001",
            "payoutNumber": "P-1",
            "amount": {"amountMinor": 50_00, "currency": "CNY"},
            "destination": {
                "accountNumber": "6222000011110000",
                "holderName": "Noodle Bar Ltd",
                "bankCode": "BANKCNBJ",
            },
        },
        "order { id state payoutProgress }",
    )
    assert payout["userErrors"] == []
    token = await api.signed(shop, "merchantTokenIssue", {}, "tokens { accessToken }")
    balance = await api.data(
        """{ merchantBalance(currency: "CNY") { available { formatted } reservedPayout { formatted }
            pendingSettlement { formatted } statement(first: 5) { nodes { kind } } } }""",
        token=token["tokens"]["accessToken"],
    )
    assert balance["merchantBalance"]["reservedPayout"]["formatted"] == "50.00"
    assert balance["merchantBalance"]["available"]["formatted"] == "39.46"


async def test_an_unsigned_merchant_moves_no_money(
    api: Api, person: Person, shop: Shop, database: Any
) -> None:
    paid = await api.mutate("pay", paying(shop, 100_00), ORDER, token=person.token)
    issued = await api.signed(shop, "merchantTokenIssue", {}, "tokens { accessToken }")
    given = {
        "idempotencyKey": "refund-0001",
        "orderId": paid["order"]["id"],
        "refundNumber": "R-1",
    }
    answer = await api.ask(
        "mutation($input: RefundInput!) { refund(input: $input) { order { id } } }",
        {"input": given},
        token=issued["tokens"]["accessToken"],
    )
    assert answer["errors"][0]["extensions"]["code"] == "SIGNATURE_INVALID"
    assert answer["data"] == {"refund": None}
    assert not await database.fetch("SELECT 1 FROM operation WHERE type = 'REFUND'")


async def test_a_transfer_goes_to_the_payee_that_was_looked_up(
    api: Api, person: Person, new_person: Callable[..., Awaitable[Person]]
) -> None:
    friend = await new_person("+8613812345679")
    found = await api.data(
        """query($address: AddressInput!) { payee(address: $address) {
            payeeId displayNameMasked } }""",
        {"address": {"phone": friend.phone}},
        token=person.token,
    )
    payload = await api.mutate(
        "transfer",
        {
            "idempotencyKey": "transfer-1",
            "payeeId": found["payee"]["payeeId"],
            "amount": {"amountMinor": "1234", "currency": "CNY"},
        },
        ORDER,
        token=person.token,
    )
    assert payload["order"]["state"] == "SUCCEEDED"
    wallet = await api.data(
        '{ wallet(currency: "CNY") { available { amountMinor } } }', token=friend.token
    )
    assert wallet["wallet"]["available"]["amountMinor"] == "1234"


async def test_a_large_payment_asks_for_a_proof_and_goes_on_with_it(
    api: Api, person: Person, shop: Shop
) -> None:
    set_one = await api.mutate(
        "paymentPasswordSet",
        {"newPaymentPassword": "840273", "loginPassword": "correct horse battery"},
        "",
        token=person.token,
    )
    assert set_one["userErrors"] == []
    paid = await api.mutate(
        "pay",
        paying(shop, 500_00),
        "order { id state challenge { state remainingAttempts } }",
        token=person.token,
    )
    assert paid["order"]["state"] == "REQUIRES_ACTION"
    wrong = await api.mutate(
        "challengeAnswer",
        {
            "idempotencyKey": "answer-0001",
            "orderId": paid["order"]["id"],
            "proof": {"paymentPassword": "840274"},
        },
        "order { state challenge { remainingAttempts } }",
        token=person.token,
    )
    assert wrong["userErrors"][0]["code"] == "CHALLENGE_FAILED"
    right = await api.mutate(
        "challengeAnswer",
        {
            "idempotencyKey": "answer-0002",
            "orderId": paid["order"]["id"],
            "proof": {"paymentPassword": "840273"},
        },
        "order { state }",
        token=person.token,
    )
    assert right["userErrors"] == []
    assert right["order"]["state"] == "SUCCEEDED"


WRONG = [
    ({"amount": {"amountMinor": 0, "currency": "CNY"}}, "INVALID_ARGUMENT"),
    ({"amount": {"amountMinor": -1, "currency": "CNY"}}, "INVALID_ARGUMENT"),
    ({"amount": {"amountMinor": "9223372036854775807", "currency": "CNY"}}, "LIMIT_EXCEEDED"),
    ({"amount": {"amountMinor": 1, "currency": "USD"}}, "INVALID_ARGUMENT"),
    ({"amount": {"amountMinor": 1, "currency": "QQQ"}}, "INVALID_ARGUMENT"),
    ({"merchantId": "nonsense"}, "NOT_FOUND"),
    ({"merchantId": node_id("Merchant", uuid.uuid4())}, "NOT_FOUND"),
    ({"merchantId": node_id("Merchant", PLATFORM_MERCHANT_ID)}, "NOT_FOUND"),
    ({"merchantOrderNo": ""}, "INVALID_ARGUMENT"),
    ({"merchantOrderNo": "x" * 65}, "INVALID_ARGUMENT"),
    ({"merchantOrderNo": "a\x00b"}, "INVALID_ARGUMENT"),
    ({"description": "x" * 257}, "INVALID_ARGUMENT"),
    ({"description": "a\x00b"}, "INVALID_ARGUMENT"),
    ({"idempotencyKey": "short"}, "INVALID_ARGUMENT"),
    ({"idempotencyKey": "x" * 256}, "INVALID_ARGUMENT"),
    ({"idempotencyKey": "späße im key"}, "INVALID_ARGUMENT"),
    ({"returnUrl": "javascript:alert(1)"}, "INVALID_ARGUMENT"),
    ({"method": {"account": {"walletCurrency": "JPY"}}}, "INVALID_ARGUMENT"),
    ({"effectiveAt": "2020-01-01T00:00:00Z"}, "FORBIDDEN"),
]
NO_AMOUNTS = [1.5, True, "1.5", "0x10", "9" * 20, "1e3", "", None, "０１", [1], {}]


async def test_wrong_input_is_a_typed_error_and_changes_nothing(
    api: Api, person: Person, shop: Shop, database: Any
) -> None:
    for changes, code in WRONG:
        payload = await api.mutate("pay", paying(shop, 1_00, **changes), ORDER, token=person.token)
        assert payload["order"] is None, changes
        assert [error["code"] for error in payload["userErrors"]] == [code], changes
    assert not await database.fetch("SELECT 1 FROM payment_order")


async def test_an_amount_that_is_no_integer_never_reaches_the_domain(
    api: Api, person: Person, shop: Shop
) -> None:
    for amount in NO_AMOUNTS:
        answer = await api.ask(
            "mutation($input: PayInput!) { pay(input: $input) { order { id } } }",
            {"input": paying(shop, amount)},
            token=person.token,
        )
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"BAD_USER_INPUT"}


async def test_orders_are_paged_newest_first_in_both_directions(
    api: Api, person: Person, shop: Shop, database: Any
) -> None:
    for amount in (1_00, 2_00, 3_00, 4_00, 5_00):
        await api.mutate("pay", paying(shop, amount), ORDER, token=person.token)
    document = """query($first: Int, $after: String, $last: Int, $before: String) {
        orders(first: $first, after: $after, last: $last, before: $before) {
            nodes { amount { amountMinor } }
            pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""

    async def page(**variables: Any) -> tuple[list[str], dict[str, Any]]:
        found = (await api.data(document, variables, token=person.token))["orders"]
        return [node["amount"]["amountMinor"] for node in found["nodes"]], found["pageInfo"]

    newest, info = await page(first=2)
    assert newest == ["500", "400"]
    assert info["hasNextPage"]
    assert not info["hasPreviousPage"]
    second, info = await page(first=2, after=info["endCursor"])
    assert second == ["300", "200"]
    assert info["hasNextPage"]
    assert info["hasPreviousPage"]
    back, info = await page(last=1, before=info["startCursor"])
    assert back == ["400"]
    assert info["hasPreviousPage"]
    assert info["hasNextPage"]
    oldest, info = await page(last=2)
    assert oldest == ["200", "100"]
    assert not info["hasNextPage"]
    assert info["hasPreviousPage"]
    refused = await api.ask(document, {"first": 2, "after": "forged"}, token=person.token)
    assert refused["errors"][0]["extensions"]["code"] == "INVALID_ARGUMENT"
    for wrong in ({}, {"first": 0}, {"first": 101}, {"first": 1, "last": 1}):
        refused = await api.ask(document, wrong, token=person.token)
        assert refused["errors"][0]["extensions"]["code"] == "INVALID_ARGUMENT"
    await finish_all(database)
