"""Root fields of Mutation that move money: each one call of `accept_operation`.

A refusal that was stored with the key comes back in the payload together with its order.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, TypeVar

from core import clock, configuration, hub, ids
from core.configuration import PLATFORM_MERCHANT_ID
from core.errors import Forbidden, InvalidArgument, PurserError
from identity.permissions import Permission, require
from payments import challenges, pipeline, queries
from payments.states import OperationType, OrderState
from payments.values import (
    Answer,
    AnswerChallenge,
    CloseOrder,
    OpenOrder,
    RefundOrder,
)
from payments.values import Order as OrderValue
from resolvers import views
from resolvers.context import Info
from resolvers.given import optional_text, text
from resolvers.guard import idempotency_key, mutation
from schema import inputs, payloads
from schema.errors import user_error
from schema.node import key_of
from schema.payment_methods import chosen, details_of

ACTION_WAIT_SECONDS = 3.0

P = TypeVar("P", bound=payloads.OrderPayload)


@mutation(
    Permission.TOP_UP,
    payloads.TopUpPayload,
    "Bring money from a bank into the caller's wallet. Waits up to three seconds for the bank's "
    "page (`actionUrl`); otherwise it arrives on the order.",
)
async def top_up(info: Info, input: inputs.TopUpInput) -> payloads.TopUpPayload:
    key = idempotency_key(info, input.idempotency_key)
    answer = await pipeline.accept_operation(
        OpenOrder(
            type=OperationType.TOP_UP,
            caller=info.context.principal,
            idempotency_key=key,
            merchant_id=PLATFORM_MERCHANT_ID,
            merchant_order_no=_own_number(info, OperationType.TOP_UP, key),
            money=input.amount.value(),
            product="account",
            description=text(input.description, "description"),
            return_url=optional_text(input.return_url, "returnUrl"),
        )
    )
    payload = payload_of(payloads.TopUpPayload, info, answer)
    if answer.order is not None and answer.refusal is None:
        # The bank's page is what this answer is for, also where the first answer was lost.
        seen = await _after_the_bank_answered(info, answer.order)
        payload.order = views.order(seen, info.context.asker)
    return payload


@mutation(
    Permission.PAY,
    payloads.PayPayload,
    "Pay a merchant. A large amount, or one that looks strange, asks for a proof: the order is "
    "then REQUIRES_ACTION with a `challenge`.",
)
async def pay(info: Info, input: inputs.PayInput) -> payloads.PayPayload:
    if input.effective_at is not None:
        require(info.context.caller, Permission.EFFECTIVE_AT_SET)
        if not configuration.current().replay_allowed:
            raise Forbidden(field=("effectiveAt",))
        if input.effective_at > clock.now():
            raise InvalidArgument("It has not been yet.", field=("effectiveAt",))
    product, details = chosen(input.method)
    answer = await pipeline.accept_operation(
        OpenOrder(
            type=OperationType.PAY,
            caller=info.context.principal,
            idempotency_key=idempotency_key(info, input.idempotency_key),
            merchant_id=key_of("Merchant", input.merchant_id, "merchantId"),
            merchant_order_no=text(input.merchant_order_no, "merchantOrderNo"),
            money=input.amount.value(),
            product=product,
            unchecked_details=details,
            description=text(input.description, "description"),
            return_url=optional_text(input.return_url, "returnUrl"),
            effective_at=input.effective_at,
        )
    )
    return payload_of(payloads.PayPayload, info, answer)


@mutation(
    Permission.TRANSFER,
    payloads.TransferPayload,
    "Move money from the caller's wallet to another customer's.",
)
async def transfer(info: Info, input: inputs.TransferInput) -> payloads.TransferPayload:
    key = idempotency_key(info, input.idempotency_key)
    answer = await pipeline.accept_operation(
        OpenOrder(
            type=OperationType.TRANSFER,
            caller=info.context.principal,
            idempotency_key=key,
            merchant_id=PLATFORM_MERCHANT_ID,
            merchant_order_no=_own_number(info, OperationType.TRANSFER, key),
            money=input.amount.value(),
            product="account",
            description=text(input.description, "description"),
            payee_customer_id=key_of("Customer", input.payee_id, "payeeId"),
        )
    )
    return payload_of(payloads.TransferPayload, info, answer)


@mutation(
    Permission.CHALLENGE_ANSWER,
    payloads.ChallengeCodeRequestPayload,
    "Send a one-time code for an order that waits for a proof. It replaces an earlier one.",
    sensitive=True,
)
async def challenge_code_request(
    info: Info, input: inputs.ChallengeCodeRequestInput
) -> payloads.ChallengeCodeRequestPayload:
    order_id = key_of("Order", input.order_id, "orderId")
    code = await challenges.request_code(info.context.principal, order_id)
    return payloads.ChallengeCodeRequestPayload(
        destination_masked=code.destination_masked, code_expires_seconds=code.expires_seconds
    )


@mutation(
    Permission.CHALLENGE_ANSWER,
    payloads.ChallengeAnswerPayload,
    "Answer a challenge. The third wrong answer ends the order.",
    sensitive=True,
)
async def challenge_answer(
    info: Info, input: inputs.ChallengeAnswerInput
) -> payloads.ChallengeAnswerPayload:
    proof = input.proof
    password = proof.payment_password.value if proof.payment_password else None
    code = proof.code.value if proof.code else None
    answer = await pipeline.accept_operation(
        AnswerChallenge(
            caller=info.context.principal,
            idempotency_key=idempotency_key(info, input.idempotency_key),
            order_id=key_of("Order", input.order_id, "orderId"),
            unchecked_payment_password=optional_text(password, "proof"),
            unchecked_code=optional_text(code, "proof"),
        )
    )
    return payload_of(payloads.ChallengeAnswerPayload, info, answer)


@mutation(
    Permission.ORDER_CLOSE,
    payloads.OrderClosePayload,
    "End an order that is not paid, or cancel a payout that was not sent.",
)
async def order_close(info: Info, input: inputs.OrderCloseInput) -> payloads.OrderClosePayload:
    answer = await pipeline.accept_operation(
        CloseOrder(
            caller=info.context.principal,
            idempotency_key=idempotency_key(info, input.idempotency_key),
            order_id=key_of("Order", input.order_id, "orderId"),
        )
    )
    return payload_of(payloads.OrderClosePayload, info, answer)


@mutation(
    Permission.REFUND,
    payloads.RefundPayload,
    "Give money back to the payer. The request must be signed with the merchant's key.",
)
async def refund(info: Info, input: inputs.RefundInput) -> payloads.RefundPayload:
    answer = await pipeline.accept_operation(
        RefundOrder(
            caller=info.context.principal,
            idempotency_key=idempotency_key(info, input.idempotency_key),
            order_id=key_of("Order", input.order_id, "orderId"),
            refund_number=text(input.refund_number, "refundNumber"),
            money=input.amount.value() if input.amount else None,
            description=text(input.description, "description"),
        )
    )
    return payload_of(payloads.RefundPayload, info, answer)


@mutation(
    Permission.PAYOUT,
    payloads.PayOutPayload,
    "Send available money to a bank account. The request must be signed with the merchant's key.",
)
async def pay_out(info: Info, input: inputs.PayOutInput) -> payloads.PayOutPayload:
    merchant_id = info.context.asker.merchant_id
    if merchant_id is None:
        raise Forbidden()
    answer = await pipeline.accept_operation(
        OpenOrder(
            type=OperationType.PAYOUT,
            caller=info.context.principal,
            idempotency_key=idempotency_key(info, input.idempotency_key),
            merchant_id=merchant_id,
            merchant_order_no=text(input.payout_number, "payoutNumber"),
            money=input.amount.value(),
            product="payout",
            unchecked_details=details_of("payout", input.destination),
            description=text(input.description, "description"),
        )
    )
    return payload_of(payloads.PayOutPayload, info, answer)


def payload_of(kind: type[P], info: Info, answer: Answer) -> P:
    """What was committed, shown as the caller may see it."""
    asker = info.context.asker
    order, operation = answer.order, answer.operation
    return kind(
        order=views.order(order, asker) if order else None,
        operation=views.operation(operation, asker) if operation else None,
        user_errors=_errors(answer.refusal, order),
        idempotent_replay=answer.replay,
    )


def _errors(refusal: PurserError | None, order: OrderValue | None) -> list[Any]:
    return [user_error(refusal, order.currency if order else None)] if refusal else []


def _own_number(info: Info, type: OperationType, key: str) -> str:
    """The number of an order that no merchant numbers: the same for each retry with one key."""
    name: uuid.UUID = ids.hashed_id(type.value, str(info.context.principal), key)
    return f"{type.value.lower()}-{name.hex}"


async def _after_the_bank_answered(info: Info, accepted: OrderValue) -> OrderValue:
    """The order with the bank's page, or as it stands when three seconds are over.

    Listens before it looks, so that no answer falls between; no transaction is open meanwhile.
    Never raises: the top-up is accepted, whatever hinders looking at it again.
    """
    principal = info.context.principal
    newest = accepted
    async with hub.listen(f"order:{accepted.order_id}") as hints:
        try:
            async with asyncio.timeout(ACTION_WAIT_SECONDS):
                while _is_waiting(newest):
                    found = await queries.read_orders(principal, [accepted.order_id])
                    newest = found.get(accepted.order_id, newest)
                    if _is_waiting(newest):
                        await anext(hints)
        except (TimeoutError, PurserError):
            pass
    return newest


def _is_waiting(order: OrderValue) -> bool:
    waiting = order.state in (OrderState.CREATED, OrderState.PROCESSING)
    return waiting and order.action_url is None
