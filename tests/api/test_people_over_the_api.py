"""Registration, logins and passwords from outside: what strangers learn, and what ends a login."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from schema.node import key_of
from tests.api.conftest import PASSWORD, Api, Person, Shop, newest_code, paying

TOKENS = "tokens { accessToken accessExpiresAt refreshToken }"
PHONE = {"phone": "+8613812345678"}


async def test_a_customer_registers_signs_in_refreshes_and_signs_out(
    api: Api, database: Any
) -> None:
    given = {"address": PHONE, "password": PASSWORD, "displayName": "Li Xiaoming"}
    waiting = await api.mutate(
        "customerRegister", given, "registrationId destinationMasked codeExpiresSeconds"
    )
    assert waiting["destinationMasked"] == "+86*******5678"
    registration_id = key_of("Registration", waiting["registrationId"], "registrationId")
    wrong = await api.mutate(
        "customerConfirm", {"registrationId": waiting["registrationId"], "code": "000000"}, TOKENS
    )
    assert wrong["userErrors"][0]["code"] == "CREDENTIALS_INVALID"
    code = await newest_code(database, registration_id)
    confirmed = await api.mutate(
        "customerConfirm",
        {"registrationId": waiting["registrationId"], "code": code},
        f"{TOKENS} customer {{ displayName phone wallets {{ currency }} }}",
    )
    assert confirmed["customer"]["phone"] == PHONE["phone"]
    signed_in = await api.mutate("customerLogin", {"address": PHONE, "password": PASSWORD}, TOKENS)
    refresh = signed_in["tokens"]["refreshToken"]
    renewed = await api.mutate("tokenRefresh", {"refreshToken": refresh}, TOKENS)
    token = renewed["tokens"]["accessToken"]
    viewer = await api.data("{ viewer { kind customer { displayName } } }", token=token)
    assert viewer["viewer"] == {"kind": "CUSTOMER", "customer": {"displayName": "Li Xiaoming"}}
    reused = await api.mutate("tokenRefresh", {"refreshToken": refresh}, TOKENS)
    assert reused["userErrors"][0]["code"] == "CREDENTIALS_INVALID"
    ended = await api.ask("{ viewer { kind } }", token=token)
    assert ended["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_forgotten_password_is_replaced_and_ends_all_logins(
    api: Api, person: Person, database: Any
) -> None:
    known = await api.mutate("passwordResetRequest", {"address": PHONE}, "destinationMasked")
    unknown = await api.mutate(
        "passwordResetRequest", {"address": {"phone": "+8613812345000"}}, "destinationMasked"
    )
    assert known["userErrors"] == unknown["userErrors"] == []
    code = await newest_code(database, person.customer_id, "RESET_PASSWORD")
    done = await api.mutate(
        "passwordReset",
        {"address": PHONE, "code": code, "newPassword": "another long password"},
        "__typename",
    )
    assert done["userErrors"] == []
    ended = await api.ask("{ viewer { kind } }", token=person.token)
    assert ended["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    old = await api.mutate("customerLogin", {"address": PHONE, "password": PASSWORD}, TOKENS)
    assert old["userErrors"][0]["code"] == "CREDENTIALS_INVALID"


async def test_an_unknown_and_a_known_address_are_answered_alike(api: Api, person: Person) -> None:
    wrong = {"password": "not the password"}
    known = await api.mutate("customerLogin", {"address": PHONE, **wrong}, TOKENS)
    unknown = await api.mutate(
        "customerLogin", {"address": {"phone": "+8613812345000"}, **wrong}, TOKENS
    )
    assert known == unknown
    taken = {"address": PHONE, "password": PASSWORD}
    free = {"address": {"phone": "+8613812345001"}, "password": PASSWORD}
    answers = [
        await api.mutate("customerRegister", given, "codeExpiresSeconds") for given in (taken, free)
    ]
    assert answers[0] == answers[1]


async def test_a_payment_password_is_changed_only_with_the_present_one(
    api: Api, person: Person, database: Any
) -> None:
    async def change(**given: Any) -> Any:
        return await api.mutate("paymentPasswordSet", given, "__typename", token=person.token)

    easy = await change(newPaymentPassword="123456", loginPassword=PASSWORD)
    assert easy["userErrors"][0]["code"] == "INVALID_ARGUMENT"
    assert (await change(newPaymentPassword="840273", loginPassword=PASSWORD))["userErrors"] == []
    without = await change(newPaymentPassword="840274", loginPassword=PASSWORD)
    assert without["userErrors"][0]["code"] == "INVALID_ARGUMENT"
    wrong = await api.data(
        """mutation($input: PaymentPasswordSetInput!) { paymentPasswordSet(input: $input) {
            userErrors { code ... on CredentialsError { remainingAttempts } } } }""",
        {"input": {"newPaymentPassword": "840274", "currentPaymentPassword": "111112"}},
        token=person.token,
    )
    assert wrong["paymentPasswordSet"]["userErrors"] == [
        {"code": "CREDENTIALS_INVALID", "remainingAttempts": 4}
    ]
    requested = await api.mutate(
        "paymentPasswordResetRequest",
        {"loginPassword": PASSWORD},
        "destinationMasked",
        token=person.token,
    )
    assert requested["userErrors"] == []
    code = await newest_code(database, person.customer_id, "RESET_PAYMENT_PASSWORD")
    reset = await api.mutate(
        "paymentPasswordReset",
        {"code": code, "newPaymentPassword": "950381", "loginPassword": PASSWORD},
        "__typename",
        token=person.token,
    )
    assert reset["userErrors"] == []


async def test_a_code_proves_a_payment_too(
    api: Api, person: Person, shop: Shop, database: Any
) -> None:
    paid = await api.mutate("pay", paying(shop, 500_00), "order { id state }", token=person.token)
    order_id = paid["order"]["id"]
    sent = await api.mutate(
        "challengeCodeRequest", {"orderId": order_id}, "destinationMasked", token=person.token
    )
    assert sent["destinationMasked"] == "+86*******5678"
    code = await newest_code(database, person.customer_id, "CHALLENGE")
    answered = await api.mutate(
        "challengeAnswer",
        {"idempotencyKey": "answer-0001", "orderId": order_id, "proof": {"code": code}},
        "order { state }",
        token=person.token,
    )
    assert answered["order"]["state"] == "SUCCEEDED"


async def test_an_order_that_waits_can_be_closed_by_its_payer_only(
    api: Api, person: Person, shop: Shop, new_person: Callable[..., Awaitable[Person]]
) -> None:
    paid = await api.mutate("pay", paying(shop, 500_00), "order { id }", token=person.token)
    given = {"idempotencyKey": "close-0001", "orderId": paid["order"]["id"]}
    stranger = await new_person("+8613812345670")
    refused = await api.mutate("orderClose", given, "order { state }", token=stranger.token)
    assert refused["userErrors"][0]["code"] == "NOT_FOUND"
    closed = await api.mutate("orderClose", given, "order { state }", token=person.token)
    assert closed["userErrors"] == []
    assert closed["order"]["state"] == "CLOSED"
    wallet = await api.data(
        '{ wallet(currency: "CNY") { available { formatted } held { formatted } } }',
        token=person.token,
    )
    assert wallet["wallet"]["held"]["formatted"] == "0.00"


async def test_nodes_come_in_the_order_of_their_ids_with_null_for_what_is_not_there(
    api: Api, person: Person, shop: Shop
) -> None:
    paid = await api.mutate("pay", paying(shop, 1_00), "order { id }", token=person.token)
    wallet = await api.data('{ wallet(currency: "CNY") { id } }', token=person.token)
    ids = [wallet["wallet"]["id"], "x", paid["order"]["id"], shop.node_id, person.node_id]
    found = await api.data(
        "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }",
        {"ids": ids},
        token=person.token,
    )
    kinds = [each and each["__typename"] for each in found["nodes"]]
    assert kinds == ["Wallet", None, "Order", None, "Customer"]
    assert found["nodes"][0]["id"] == ids[0]
