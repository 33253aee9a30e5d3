"""A merchant's server refunds a part of its newest paid order, by a signed call.

    make run                                     # in one terminal
    .venv/bin/python examples/merchant_refund.py # in another

Nothing of Purser is imported: `sign` works in any server that has `http-message-signatures`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver, algorithms
from running import arguments, running

PAID = """{ orders(first: 1, filter: { types: [PAY], states: [SUCCEEDED] }) {
  nodes { id merchantOrderNo refundable { amountMinor currency formatted } } } }"""
REFUND = """mutation($input: RefundInput!) { refund(input: $input) {
  idempotentReplay
  order { refundProgress refundable { formatted } }
  operation { operationNumber state amount { formatted currency } fee { formatted } }
  userErrors { code message field retryable outcomeKnown } } }"""


@dataclass
class Message:
    """A request in the form that the signing library reads."""

    method: str
    url: str
    headers: dict[str, str]


def sign(url: str, body: bytes, key_id: str, key: Ed25519PrivateKey) -> dict[str, str]:
    """The headers of a signed POST: RFC 9421 with a digest of the body (RFC 9530).

    `url` is the public URL of the API, exactly as it is called. Each call needs a fresh nonce, and
    is good for five minutes at most.
    """
    message = Message("POST", url, {"content-type": "application/json"})
    keys = MappingKeyResolver(public_keys={}, private_keys={key_id: key})
    now = datetime.now(UTC)
    HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=keys).sign(
        message,
        key_id=key_id,
        created=now,
        expires=now + timedelta(seconds=60),
        nonce=secrets.token_urlsafe(16),
        label="merchant",
        tag="purser-merchant-v1",
        covered_component_ids=("@method", "@target-uri", "content-type"),
        body=body,  # The library adds the digest, and covers it.
    )
    return message.headers


def call(
    url: str, key_id: str, key: Ed25519PrivateKey, document: str, variables: Mapping[str, Any]
) -> Any:
    """One signed call; the field that was asked for."""
    body = json.dumps({"query": document, "variables": variables}).encode()
    endpoint = f"{url}/graphql"
    answer = httpx2.post(endpoint, content=body, headers=sign(endpoint, body, key_id, key)).json()
    if "errors" in answer:
        raise SystemExit(f"refused: {answer['errors']}")
    (field,) = answer["data"].values()
    return field


def main() -> None:
    run = running(arguments(__doc__.splitlines()[0]).parse_args().home)
    paid = call(run.url, run.key_id, run.merchant_key, PAID, {})["nodes"]
    if not paid:
        raise SystemExit("no paid order yet: run examples/pay.py first")
    order = paid[0]
    left = order["refundable"]
    print(f"order {order['merchantOrderNo']}: {left['formatted']} {left['currency']} refundable")

    wanted = {
        # Kept with the refund in the merchant's own database, before the call: whatever happens to
        # the connection, the same key brings the same answer.
        "idempotencyKey": f"refund-{secrets.token_hex(8)}",
        "orderId": order["id"],
        "refundNumber": f"refund-{secrets.token_hex(6)}",
        "amount": {"amountMinor": 5_00, "currency": left["currency"]},
        "description": "One cup was chipped",
    }
    refunded = call(run.url, run.key_id, run.merchant_key, REFUND, {"input": wanted})
    for error in refunded["userErrors"]:
        again = "the same key tells" if not error["outcomeKnown"] else "nothing happened"
        print(f"refused: {error['code']} ({error['message']}) {again}")
    if operation := refunded["operation"]:
        amount, fee = operation["amount"], operation["fee"]["formatted"]
        print(f"refunded {amount['formatted']} {amount['currency']}: {operation['state']},")
        print(f"  of which {fee} is the fee given back, {refunded['order']['refundProgress']}")


if __name__ == "__main__":
    main()
