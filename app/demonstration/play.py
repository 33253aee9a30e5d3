"""The movements of the demonstration, in the order in which they happen.

A customer tops up through the simulated bank and pays a merchant, who refunds a part, is settled
and is paid out; the simulated merchant gets the webhooks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.client import Api, MerchantKey
from app.demonstration.parties import (
    CURRENCY,
    PAYMENT_PASSWORD,
    Parties,
    customer_token,
    operator_token,
    register_parties,
)
from app.demonstration.stage import DemonstrationFailed, Stage, Step, wait_for
from core import ids
from core.money import Money

TOP_UP_MINOR = 100_00
PAY_MINOR = 30_00
REFUND_MINOR = 10_00
DONE = {"SUCCEEDED", "FAILED", "CLOSED"}
WEBHOOKS_COUNT_MIN = 2

ORDER = """
fragment Shown on Order { id state failureReason actionUrl payoutProgress
  amount { amountMinor currency formatted } challenge { state } operations { type state } }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that the demonstration shows."""

    parties: Parties
    steps: list[Step]
    wallet: dict[str, Any]
    merchant_balance: dict[str, Any]
    integrity: dict[str, Any]
    webhooks_count: int


async def play(stage: Stage) -> Outcome:
    """Play everything.

    Raises `DemonstrationFailed` or `ApiRefused` at the first step that is not as it must be.
    """
    api, parties = stage.api, await register_parties(stage)
    operator = await operator_token(api, parties.operator_email, parties.operator_password)
    customer = await customer_token(api, parties.phone, parties.password)
    key, merchant_id = parties.merchant_key, parties.merchant_id

    await _step(stage, operator, "top up from the bank", _top_up(stage, customer))
    paid = await _step(stage, operator, "pay the merchant", _pay(stage, customer, merchant_id))
    await _step(stage, operator, "refund a part", _refund(stage, key, paid["id"]))
    settled_minor = await _settle(stage, operator, merchant_id)
    await _step(stage, operator, "pay the merchant out", _pay_out(stage, key, settled_minor))
    return Outcome(
        parties=parties,
        steps=stage.steps,
        wallet=await _wallet(api, customer),
        merchant_balance=await _merchant_balance(api, key),
        integrity=await _integrity(api, operator),
        webhooks_count=await _webhooks_count(stage),
    )


async def _top_up(stage: Stage, customer: str) -> dict[str, Any]:
    """Pay at the bank's cashier page; the bank then calls back."""
    data = await stage.api.ask(
        ORDER
        + """mutation($input: TopUpInput!) { topUp(input: $input) {
            order { ...Shown } userErrors { code message } } }""",
        {"input": {"idempotencyKey": _key(), "amount": _money(TOP_UP_MINOR)}},
        token=customer,
    )
    order = await _proved(stage, customer, data["topUp"]["order"])
    opened = await _until(
        stage, order["id"], lambda found: bool(found["actionUrl"]), token=customer
    )
    paid = await stage.api.http.post(opened["actionUrl"], data={"action": "pay"})
    if paid.status_code >= 400:
        raise DemonstrationFailed(f"the bank's page answered {paid.status_code}")
    return await _until(stage, order["id"], _is_done, token=customer)


async def _pay(stage: Stage, customer: str, merchant_id: str) -> dict[str, Any]:
    data = await stage.api.ask(
        ORDER
        + """mutation($input: PayInput!) { pay(input: $input) {
            order { ...Shown } userErrors { code message } } }""",
        {
            "input": {
                "idempotencyKey": _key(),
                "merchantId": merchant_id,
                "merchantOrderNo": f"tea-{ids.random_digits(10)}",
                "amount": _money(PAY_MINOR),
                "method": {"account": {}},
                "description": "Two pots of Longjing",
            }
        },
        token=customer,
    )
    order = await _proved(stage, customer, data["pay"]["order"])
    return await _until(stage, order["id"], _is_done, token=customer)


async def _proved(stage: Stage, customer: str, order: dict[str, Any]) -> dict[str, Any]:
    """The order after its challenge, where the risk assessment or its size asks for a proof."""
    if order["state"] != "REQUIRES_ACTION" or not order["challenge"]:
        return order
    data = await stage.api.ask(
        ORDER
        + """mutation($input: ChallengeAnswerInput!) { challengeAnswer(input: $input) {
            order { ...Shown } userErrors { code message } } }""",
        {
            "input": {
                "idempotencyKey": _key(),
                "orderId": order["id"],
                "proof": {"paymentPassword": PAYMENT_PASSWORD},
            }
        },
        token=customer,
    )
    proved: dict[str, Any] = data["challengeAnswer"]["order"]
    return proved


async def _refund(stage: Stage, key: MerchantKey, order_id: str) -> dict[str, Any]:
    await stage.api.ask(
        """mutation($input: RefundInput!) { refund(input: $input) {
            order { id } userErrors { code message } } }""",
        {
            "input": {
                "idempotencyKey": _key(),
                "orderId": order_id,
                "refundNumber": f"refund-{ids.random_digits(10)}",
                "amount": _money(REFUND_MINOR),
                "description": "One pot came cold",
            }
        },
        key=key,
    )

    def refunded(order: dict[str, Any]) -> bool:
        return any(
            operation["type"] == "REFUND" and operation["state"] == "SUCCEEDED"
            for operation in order["operations"]
        )

    order = await _until(stage, order_id, refunded, key=key)
    return {**order, "amount": {"amountMinor": REFUND_MINOR, "currency": CURRENCY}, "risk": False}


async def _settle(stage: Stage, operator: str, merchant_id: str) -> int:
    """Move all that is pending to available; the amount in minor units."""
    began = time.perf_counter()
    data = await stage.api.ask(
        """mutation($input: SettlementRunInput!) { settlementRun(input: $input) {
            settlement { amount { amountMinor } } userErrors { code message } } }""",
        {
            "input": {
                "idempotencyKey": _key(),
                "merchantId": merchant_id,
                "currency": CURRENCY,
            }
        },
        token=operator,
    )
    amount_minor = int(data["settlementRun"]["settlement"]["amount"]["amountMinor"])
    took_ms = (time.perf_counter() - began) * 1_000
    stage.steps.append(
        Step("settle the merchant", Money(amount_minor, CURRENCY), "SUCCEEDED", "", took_ms)
    )
    return amount_minor


async def _pay_out(stage: Stage, key: MerchantKey, amount_minor: int) -> dict[str, Any]:
    data = await stage.api.ask(
        ORDER
        + """mutation($input: PayOutInput!) { payOut(input: $input) {
            order { ...Shown } userErrors { code message } } }""",
        {
            "input": {
                "idempotencyKey": _key(),
                "payoutNumber": f"payout-{ids.random_digits(10)}",
                "amount": _money(amount_minor),
                "destination": {
                    "accountNumber": "6222020200112233",
                    "holderName": "Corner Tea House",
                    "bankCode": "ICBKCNBJ",
                },
            }
        },
        key=key,
    )
    return await _until(stage, data["payOut"]["order"]["id"], _is_done, key=key)


async def _step(
    stage: Stage, operator: str, what: str, doing: Awaitable[dict[str, Any]]
) -> dict[str, Any]:
    """Do it, time it, and note how it ended and what risk had decided."""
    began = time.perf_counter()
    order = await doing
    took_ms = (time.perf_counter() - began) * 1_000
    if order["state"] != "SUCCEEDED":
        raise DemonstrationFailed(f"{what}: {order['state']} {order['failureReason'] or ''}")
    amount = Money(int(order["amount"]["amountMinor"]), order["amount"]["currency"])
    risk = await _risk(stage, operator, order["id"]) if order.get("risk", True) else ""
    stage.steps.append(Step(what, amount, order["state"], risk, took_ms))
    return order


async def _risk(stage: Stage, operator: str, order_id: str) -> str:
    data = await stage.api.ask(
        """query($id: ID!) { order(id: $id) {
            riskDecisions { outcome probability source } } }""",
        {"id": order_id},
        token=operator,
    )
    decisions = data["order"]["riskDecisions"] or []
    return ", ".join(_decision(decision) for decision in decisions)


def _decision(decision: dict[str, Any]) -> str:
    if decision["probability"] is None:
        return f"{decision['outcome']} by {decision['source'].lower()}"
    return f"{decision['outcome']} {decision['probability']:.4f} by {decision['source'].lower()}"


async def _wallet(api: Api, customer: str) -> dict[str, Any]:
    data = await api.ask(
        """query($currency: CurrencyCode!) { wallet(currency: $currency) {
            available { formatted currency }
            statement(first: 20) { nodes { kind description
                amount { formatted } balanceAfter { formatted } } } } }""",
        {"currency": CURRENCY},
        token=customer,
    )
    wallet: dict[str, Any] = data["wallet"]
    return wallet


async def _merchant_balance(api: Api, key: MerchantKey) -> dict[str, Any]:
    data = await api.ask(
        """query($currency: CurrencyCode!) { merchantBalance(currency: $currency) {
            available { formatted currency } pendingSettlement { formatted }
            statement(bucket: AVAILABLE, first: 20) { nodes { kind description
                amount { formatted } balanceAfter { formatted } } } } }""",
        {"currency": CURRENCY},
        key=key,
    )
    balance: dict[str, Any] = data["merchantBalance"]
    return balance


async def _integrity(api: Api, operator: str) -> dict[str, Any]:
    data = await api.ask(
        "{ ledgerIntegrity { clean entriesCount blocksCount findings { finding subject } } }",
        token=operator,
    )
    integrity: dict[str, Any] = data["ledgerIntegrity"]
    if not integrity["clean"]:
        raise DemonstrationFailed(f"the books are wrong: {integrity['findings']}")
    return integrity


async def _webhooks_count(stage: Stage) -> int:
    """How many events reached the merchant's server with a valid signature."""

    async def look() -> int | None:
        shown = await stage.api.http.get(f"{stage.simulator_url}/merchant/webhooks")
        verified = {event["event_id"] for event in shown.json() if event["verified"]}
        return len(verified) if len(verified) >= WEBHOOKS_COUNT_MIN else None

    return await wait_for("the merchant's webhooks", look)


async def _until(
    stage: Stage,
    order_id: str,
    reached: Callable[[dict[str, Any]], bool],
    *,
    token: str | None = None,
    key: MerchantKey | None = None,
) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        data = await stage.api.ask(
            ORDER + "query($id: ID!) { order(id: $id) { ...Shown } }",
            {"id": order_id},
            token=token,
            key=key,
        )
        order: dict[str, Any] = data["order"]
        return order if reached(order) or order["state"] in ("FAILED", "CLOSED") else None

    return await wait_for(f"order {order_id}", look)


def _is_done(order: dict[str, Any]) -> bool:
    return order["state"] in DONE


def _key() -> str:
    return ids.random_token(16)


def _money(amount_minor: int) -> dict[str, Any]:
    return {"amountMinor": amount_minor, "currency": CURRENCY}
