"""Orders and what hangs on them, as payers, merchants and operators see them."""

from __future__ import annotations

import uuid

import strawberry

from payments.states import (
    ChallengeState,
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
    RefundProgress,
    SettlementProgress,
)
from schema.context import Info
from schema.money import Money
from schema.node import Node, node_id
from schema.parties import Customer
from schema.risk import Decision, RiskOutcome
from schema.scalars import BigInt, DateTime


@strawberry.type(description="One call chain of an operation at one channel, under one number.")
class Attempt(Node):
    channel: str = strawberry.field(description="Code of the channel.")
    channel_request_number: str = strawberry.field(
        description="The number under which the channel knows this attempt."
    )
    channel_trade_no: str | None = strawberry.field(
        description="The channel's own number; null until it told one."
    )
    result: str = strawberry.field(
        description="SUBMITTED, SUCCESS, PENDING, DECLINED, NOT_SENT or UNKNOWN."
    )
    reason: str | None = strawberry.field(description="Why it was declined or not sent.")
    sends_count: int = strawberry.field(description="How often the request was sent.")
    created_at: DateTime = strawberry.field(description="When the attempt was begun.")
    updated_at: DateTime = strawberry.field(description="When its result was last recorded.")


@strawberry.type(description="One step on an order, with a number and a state of its own.")
class Operation(Node):
    key: strawberry.Private[uuid.UUID]
    type: OperationType = strawberry.field(description="What the step does.")
    operation_number: str = strawberry.field(
        description="The merchant's number of this step, unique by merchant and type."
    )
    state: OperationState = strawberry.field(description="Where it stands.")
    amount: Money = strawberry.field(description="The amount of this step.")
    fee: Money | None = strawberry.field(
        description="The merchant's fee of this step, or of a refund the fee given back. "
        "Null for a payer."
    )
    reason: str | None = strawberry.field(description="Why it failed; null unless it did.")
    description: str = strawberry.field(description="What the caller wrote about it.")
    created_at: DateTime = strawberry.field(description="When it was accepted.")
    updated_at: DateTime = strawberry.field(description="When it last changed.")

    @strawberry.field(
        description="Its tries at channels, oldest first, at most 100. Empty for a payer."
    )
    async def attempts(self, info: Info) -> list[Attempt]:
        return list(await info.context.load.attempts(self.key))


@strawberry.type(description="The extra proof that is asked of the payer.")
class Challenge(Node):
    state: ChallengeState = strawberry.field(description="Where it stands.")
    remaining_attempts: int = strawberry.field(description="How many wrong answers are left.")
    expires_at: DateTime = strawberry.field(
        description="Until when it can be answered; a new code begins anew."
    )


@strawberry.type(description="One request to move money between a payer and a merchant.")
class Order(Node):
    key: strawberry.Private[uuid.UUID]
    merchant_key: strawberry.Private[uuid.UUID]
    payer_key: strawberry.Private[uuid.UUID | None]
    resource_version: BigInt = strawberry.field(
        description="Grows by one with each change of the order or of anything on it."
    )
    merchant_order_no: str = strawberry.field(
        description="The merchant's number, unique for ever by merchant."
    )
    type: OperationType = strawberry.field(description="The operation that opened the order.")
    product: str = strawberry.field(description="Code of the product that carries it.")
    state: OrderState = strawberry.field(description="Where it stands.")
    amount: Money = strawberry.field(description="What was asked for.")
    captured: Money = strawberry.field(description="What was taken.")
    refunded: Money = strawberry.field(description="What has gone back.")
    refund_pending: Money = strawberry.field(description="What is on its way back.")
    refundable: Money = strawberry.field(description="What a new refund may be at most.")
    fee: Money | None = strawberry.field(description="The merchant's fee. Null for a payer.")
    fee_refunded: Money | None = strawberry.field(
        description="The part of the fee that refunds have given back. Null for a payer."
    )
    fee_rate_millionths: int | None = strawberry.field(
        description="The fee's rate in millionths of the amount: 6000 is 0.6 %. Null for a payer."
    )
    suspense: Money | None = strawberry.field(
        description="Money received that the order may not keep. Null for a payer."
    )
    refund_progress: RefundProgress = strawberry.field(description="How much has gone back.")
    payout_progress: PayoutProgress | None = strawberry.field(
        description="Where a payout's money is; null for every other order."
    )
    settlement_progress: SettlementProgress = strawberry.field(
        description="Whether it has been settled to the merchant."
    )
    description: str = strawberry.field(description="What the caller wrote about it.")
    action_url: str | None = strawberry.field(
        description="Page the payer must visit, while the order is REQUIRES_ACTION."
    )
    return_url: str | None = strawberry.field(
        description="Where the channel sends the payer afterwards. Arriving there proves nothing."
    )
    failure_reason: str | None = strawberry.field(description="Why it failed, as a code.")
    closed_by: str | None = strawberry.field(description="Who or what ended it.")
    needs_attention: str | None = strawberry.field(
        description="Why an operator must look at it; null if none must."
    )
    effective_at: DateTime = strawberry.field(
        description="The business time: when the payment took place."
    )
    expires_at: DateTime = strawberry.field(description="When it ends, if it is not paid.")
    created_at: DateTime = strawberry.field(description="When it was accepted.")
    updated_at: DateTime = strawberry.field(description="When it last changed.")

    @strawberry.field(description="The merchant's id, for `pay`.")
    def merchant_id(self) -> strawberry.ID:
        return node_id("Merchant", self.merchant_key)

    @strawberry.field(description="The merchant's public name.")
    async def merchant_name(self, info: Info) -> str:
        return await info.context.load.merchant_name(self.merchant_key)

    @strawberry.field(
        description="The payer. Null where the caller is neither the payer nor an operator."
    )
    async def payer(self, info: Info) -> Customer | None:
        return await info.context.load.customer(self.payer_key) if self.payer_key else None

    @strawberry.field(description="The steps on it, oldest first; of more than 100 the newest.")
    async def operations(self, info: Info) -> list[Operation]:
        return list(await info.context.load.operations(self.key))

    @strawberry.field(
        description="The proof that the payer is asked for; null if none is, and for others."
    )
    async def challenge(self, info: Info) -> Challenge | None:
        return await info.context.load.challenge(self.key)

    @strawberry.field(description="What the risk assessment came to; null where it is not told.")
    async def risk_outcome(self, info: Info) -> RiskOutcome | None:
        return await info.context.load.risk_outcome(self.key)

    @strawberry.field(
        description="The risk decisions with all they were based on, oldest first. "
        "Null for all but risk analysts and auditors."
    )
    async def risk_decisions(self, info: Info) -> list[Decision] | None:
        found = await info.context.load.decisions(self.key)
        return None if found is None else list(found)


@strawberry.type(description="A change of an order, as a hint: webhooks are the durable channel.")
class OrderUpdate:
    resource_version: BigInt = strawberry.field(
        description="Version of the order; a smaller one than was seen before is old news."
    )
    order: Order = strawberry.field(description="The order as committed.")
