"""A customer's whole journey: register, top up, pay, prove a large payment, read the statement.

    make run                                # in one terminal
    .venv/bin/python examples/pay.py        # in another

An application needs nothing but an HTTP client. The code of the registration and the bank's page
are the customer's own business; here a script reads the simulated phone and presses the button.
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from typing import Any

import httpx2
from running import arguments, running

PASSWORD = "a long way to the tea house"
PAYMENT_PASSWORD = "294817"

REGISTER = """mutation($input: CustomerRegisterInput!) {
  customerRegister(input: $input) { registrationId userErrors { code message } } }"""
CONFIRM = """mutation($input: CustomerConfirmInput!) {
  customerConfirm(input: $input) { tokens { accessToken } userErrors { code message } } }"""
SET_PAYMENT_PASSWORD = """mutation($input: PaymentPasswordSetInput!) {
  paymentPasswordSet(input: $input) { userErrors { code message } } }"""
TOP_UP = """mutation($input: TopUpInput!) {
  topUp(input: $input) { order { id state actionUrl challenge { state } }
    userErrors { code message } } }"""
PAY = """mutation($input: PayInput!) {
  pay(input: $input) { idempotentReplay order { id state challenge { state expiresAt } }
    userErrors { code message retryable outcomeKnown } } }"""
ANSWER = """mutation($input: ChallengeAnswerInput!) {
  challengeAnswer(input: $input) { order { id state }
    userErrors { code message ... on CredentialsError { remainingAttempts } } } }"""
ORDER = "query($id: ID!) { order(id: $id) { state actionUrl failureReason } }"
STATEMENT = """{ wallet(currency: "CNY") { available { formatted currency }
  statement(first: 10) { nodes { kind amount { formatted } balanceAfter { formatted } } } } }"""


class Purser:
    """The API, as one caller: anonymous until `token` is set."""

    def __init__(self, http: httpx2.Client, url: str) -> None:
        self.http, self.url, self.token = http, url, ""

    def ask(self, document: str, **variables: Any) -> Any:
        """The one field of the answer. A refusal, in `errors` or `userErrors`, ends the program."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        body = {"query": document, "variables": variables}
        answer = self.http.post(f"{self.url}/graphql", json=body, headers=headers).json()
        if "errors" in answer:
            raise SystemExit(f"refused: {answer['errors']}")
        (field,) = answer["data"].values()
        if field.get("userErrors"):
            raise SystemExit(f"refused: {field['userErrors']}")
        return field


def main() -> None:
    run = running(arguments(__doc__.splitlines()[0]).parse_args().home)
    with httpx2.Client(timeout=15.0) as http:
        purser = Purser(http, run.url)
        register(purser, run.simulator_url)
        top_up(purser, amount_minor=500_00)
        pay(purser, run.merchant_id, amount_minor=210_00)  # More than the limit without a proof.
        pay(purser, run.merchant_id, amount_minor=30_00)
        wallet = purser.ask(STATEMENT)
        print(f"available {wallet['available']['formatted']} {wallet['available']['currency']}")
        for line in wallet["statement"]["nodes"]:
            amount, balance = line["amount"]["formatted"], line["balanceAfter"]["formatted"]
            print(f"  {line['kind']:<16} {amount:>8}   balance {balance:>8}")


def register(purser: Purser, phone_url: str) -> None:
    """Register by a phone number; the code proves it, and signs in."""
    phone = f"+86139{secrets.randbelow(10**8):08}"
    asked = purser.ask(REGISTER, input={"address": {"phone": phone}, "password": PASSWORD})
    code = until(lambda: code_on_the_phone(purser.http, f"{phone_url}/phone/{phone}"))
    confirmed = purser.ask(CONFIRM, input={"registrationId": asked["registrationId"], "code": code})
    purser.token = confirmed["tokens"]["accessToken"]
    purser.ask(
        SET_PAYMENT_PASSWORD,
        input={"newPaymentPassword": PAYMENT_PASSWORD, "loginPassword": PASSWORD},
    )
    print(f"registered {phone}")


def top_up(purser: Purser, amount_minor: int) -> None:
    """Bring money from the bank: pay on its page, then wait until the bank has called Purser."""
    amount = {"amountMinor": amount_minor, "currency": "CNY"}
    wanted = {"idempotencyKey": str(uuid.uuid4()), "amount": amount}
    order = proved(purser, purser.ask(TOP_UP, input=wanted)["order"])
    page = until(lambda: purser.ask(ORDER, id=order["id"])["actionUrl"])
    purser.http.post(page, data={"action": "pay"})
    until(lambda: purser.ask(ORDER, id=order["id"])["state"] == "SUCCEEDED")
    print(f"topped up {amount_minor / 100:.2f} CNY")


def pay(purser: Purser, merchant_id: str, amount_minor: int) -> None:
    """Pay the merchant. The key names this wish: sent again, it brings the same answer."""
    wanted = {
        "idempotencyKey": str(uuid.uuid4()),
        "merchantId": merchant_id,
        "merchantOrderNo": f"tea-{uuid.uuid4().hex[:12]}",
        "amount": {"amountMinor": amount_minor, "currency": "CNY"},
        "method": {"account": {}},
        "description": "Longjing",
    }
    paid = purser.ask(PAY, input=wanted)
    again = purser.ask(PAY, input=wanted)
    assert again["idempotentReplay"]
    assert again["order"]["id"] == paid["order"]["id"]
    order = proved(purser, paid["order"])
    print(f"paid {amount_minor / 100:.2f} CNY: {order['state']}")


def proved(purser: Purser, order: dict[str, Any]) -> dict[str, Any]:
    """The order after the payer's proof, where one was asked for."""
    if order["state"] != "REQUIRES_ACTION" or not order["challenge"]:
        return order
    print(f"the order asks for a proof ({order['challenge']['state']})")
    answer = {
        "idempotencyKey": str(uuid.uuid4()),
        "orderId": order["id"],
        "proof": {"paymentPassword": PAYMENT_PASSWORD},
    }
    proven: dict[str, Any] = purser.ask(ANSWER, input=answer)["order"]
    return proven


def code_on_the_phone(http: httpx2.Client, url: str) -> str | None:
    """The six digits of the newest message."""
    messages = http.get(url).json()
    found = re.search(r"\b\d{6}\b", messages[0]["text"]) if messages else None
    return found[0] if found else None


def until(look: Any) -> Any:
    """What `look` finds, within ten seconds."""
    for _ in range(100):
        if found := look():
            return found
        time.sleep(0.1)
    raise SystemExit("it did not happen in ten seconds")


if __name__ == "__main__":
    main()
