"""Wallets, merchants' balances, statements, settlements, and the proof that the books are right."""

from __future__ import annotations

import uuid
from typing import Annotated

import strawberry

from schema.connections import After, Before, Connection, First, Last, page_of
from schema.context import Info
from schema.enums import BalanceBucket
from schema.money import Money
from schema.node import Node
from schema.orders import Order
from schema.scalars import BigInt, CurrencyCode, DateTime


@strawberry.type(description="What one journal entry did to an account.")
class StatementLine:
    order_key: strawberry.Private[uuid.UUID | None]
    sequence: BigInt = strawberry.field(description="Place of the entry in the journal.")
    amount: Money = strawberry.field(
        description="What it added to the balance; negative where it took."
    )
    balance_after: Money = strawberry.field(description="The balance right after it.")
    kind: str = strawberry.field(description="The business event, such as PAY_BOOKED.")
    description: str = strawberry.field(description="What the caller wrote about it.")
    recorded_at: DateTime = strawberry.field(description="When it was recorded.")
    effective_at: DateTime = strawberry.field(description="The business time.")

    @strawberry.field(description="The order it belongs to; null if none, or not the caller's.")
    async def order(self, info: Info) -> Order | None:
        return await info.context.load.order(self.order_key) if self.order_key else None


@strawberry.type(description="A customer's money in one currency.")
class Wallet(Node):
    account_key: strawberry.Private[uuid.UUID]
    resource_version: BigInt = strawberry.field(
        description="Grows with each change of the balance."
    )
    currency: CurrencyCode = strawberry.field(description="The currency of the wallet.")
    balance: Money = strawberry.field(description="All that is booked, held parts included.")
    held: Money = strawberry.field(description="What is set aside for payments that are not done.")
    available: Money = strawberry.field(description="What can be spent now: balance less held.")
    frozen: bool = strawberry.field(description="Whether nothing may be taken out at present.")
    ledger_version: str = strawberry.field(
        description="Opaque; names the instant of the books that this was read at."
    )

    @strawberry.field(
        description="Its lines, newest first. All pages of one reading show the same instant."
    )
    async def statement(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[StatementLine]:
        page = page_of(first, after, last, before)
        return await info.context.load.statement(self.account_key, self.currency, page)


@strawberry.type(description="A change of a wallet, as a hint.")
class WalletUpdate:
    resource_version: BigInt = strawberry.field(
        description="Version of the wallet; a smaller one than was seen before is old news."
    )
    wallet: Wallet = strawberry.field(description="The wallet as committed.")


@strawberry.type(description="A merchant's money in one currency, by where it is.")
class MerchantBalance:
    merchant_key: strawberry.Private[uuid.UUID]
    currency: CurrencyCode = strawberry.field(description="The currency of all buckets.")
    available: Money = strawberry.field(description="Settled and free to be paid out.")
    pending_settlement: Money = strawberry.field(description="Earned, not settled yet.")
    frozen: Money = strawberry.field(description="Kept back for disputes or by risk.")
    reserved_payout: Money = strawberry.field(description="Held for payouts not yet sent.")
    in_transit: Money = strawberry.field(description="Payouts on their way to a bank.")
    debt: Money = strawberry.field(description="What the merchant owes the platform.")
    as_of: DateTime = strawberry.field(description="When this was read.")
    ledger_version: str = strawberry.field(
        description="Opaque; names the instant of the books that this was read at."
    )

    @strawberry.field(description="The lines of one bucket, newest first.")
    async def statement(
        self,
        info: Info,
        bucket: Annotated[
            BalanceBucket, strawberry.argument(description="Which account.")
        ] = BalanceBucket.AVAILABLE,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[StatementLine]:
        page = page_of(first, after, last, before)
        return await info.context.load.bucket_statement(
            self.merchant_key, bucket, self.currency, page
        )


@strawberry.type(description="One run that made a merchant's pending money available.")
class Settlement(Node):
    merchant_id: strawberry.ID = strawberry.field(description="Whose money it was.")
    amount: Money = strawberry.field(description="What was moved from pending to available.")
    created_at: DateTime = strawberry.field(description="When it ran.")


@strawberry.type(description="Something in the books that is wrong.")
class LedgerFinding:
    finding: str = strawberry.field(description="What kind of fault.")
    subject: str = strawberry.field(description="Where it is.")
    detail: str = strawberry.field(description="The figures that differ.")


@strawberry.type(description="The result of a full check of the books.")
class LedgerIntegrity:
    clean: bool = strawberry.field(description="Whether nothing was found.")
    entries_count: BigInt = strawberry.field(description="How many journal entries were checked.")
    blocks_count: BigInt = strawberry.field(description="How many links of the chain were checked.")
    unsealed_count: BigInt = strawberry.field(
        description="How many entries are newer than the chain's head."
    )
    head_block_number: BigInt | None = strawberry.field(description="Number of the chain's head.")
    head_block_hash: str | None = strawberry.field(
        description="Hash of the chain's head. Kept elsewhere, it shows later that nothing was cut."
    )
    findings: list[LedgerFinding] = strawberry.field(description="What is wrong, at most 100.")
