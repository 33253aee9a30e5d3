"""Root fields of Mutation for operators: merchants, settlement and the verdicts on orders."""

from __future__ import annotations

from core.errors import InvalidArgument
from identity import merchants, operators
from identity.permissions import Permission, require
from payments import pipeline, settlement
from payments.values import DecideReview
from resolvers import views
from resolvers.context import Info
from resolvers.given import text
from resolvers.guard import PUBLIC, idempotency_key, mutation
from resolvers.paying import payload_of
from schema import inputs, payloads
from schema.node import key_of


@mutation(
    PUBLIC,
    payloads.OperatorLoginPayload,
    "Sign an operator in. Ten wrong passwords in a row lock the address for half an hour.",
    sensitive=True,
)
async def operator_login(
    info: Info, input: inputs.OperatorLoginInput
) -> payloads.OperatorLoginPayload:
    tokens = await operators.login(text(input.email, "email"), text(input.password, "password"))
    return payloads.OperatorLoginPayload(tokens=views.tokens(tokens))


@mutation(Permission.MERCHANT_REGISTER, payloads.MerchantRegisterPayload, "Register a merchant.")
async def merchant_register(
    info: Info, input: inputs.MerchantRegisterInput
) -> payloads.MerchantRegisterPayload:
    found = await merchants.register_merchant(
        text(input.name, "name"),
        currencies=input.currencies,
        fee_rate_millionths=input.fee_rate_millionths,
        payment_limit_minor=int(input.payment_limit_minor),
        by=info.context.asker,
    )
    return payloads.MerchantRegisterPayload(merchant=views.merchant(found))


@mutation(
    Permission.MERCHANT_SUSPEND,
    payloads.MerchantUpdatePayload,
    "Stop a merchant's trade or take that back; an administrator may change its fee too.",
)
async def merchant_update(
    info: Info, input: inputs.MerchantUpdateInput
) -> payloads.MerchantUpdatePayload:
    asker = info.context.asker
    merchant_id = key_of("Merchant", input.merchant_id, "merchantId")
    found = await merchants.read_merchant(asker, merchant_id)
    if input.fee_rate_millionths is not None:
        require(asker, Permission.MERCHANT_REGISTER)
        found = await merchants.set_fee_rate(merchant_id, input.fee_rate_millionths, by=asker)
    if input.status is not None:
        found = await merchants.set_merchant_status(merchant_id, input.status.value, by=asker)
    return payloads.MerchantUpdatePayload(merchant=views.merchant(found))


@mutation(
    Permission.REVIEW_DECIDE,
    payloads.ReviewDecidePayload,
    "Decide on an order in review.",
)
async def review_decide(
    info: Info, input: inputs.ReviewDecideInput
) -> payloads.ReviewDecidePayload:
    reason = text(input.reason, "reason", 256)
    if not reason.strip():
        raise InvalidArgument("A verdict needs a reason.", field=("reason",))
    answer = await pipeline.accept_operation(
        DecideReview(
            caller=info.context.principal,
            idempotency_key=idempotency_key(info, input.idempotency_key),
            order_id=key_of("Order", input.order_id, "orderId"),
            accept=bool(input.verdict.value),
            reason=reason,
        )
    )
    return payload_of(payloads.ReviewDecidePayload, info, answer)


@mutation(
    Permission.SETTLEMENT_RUN,
    payloads.SettlementRunPayload,
    "Make all that is pending for a merchant available.",
)
async def settlement_run(
    info: Info, input: inputs.SettlementRunInput
) -> payloads.SettlementRunPayload:
    answer = await settlement.run_settlement(
        info.context.principal,
        idempotency_key(info, input.idempotency_key),
        key_of("Merchant", input.merchant_id, "merchantId"),
        input.currency,
    )
    return payloads.SettlementRunPayload(
        settlement=views.settlement(answer.settlement), idempotent_replay=answer.replay
    )
