"""Customers, merchants, operators: who takes part, and who is asking."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated

import strawberry

from schema.context import Info
from schema.enums import CallerKind, CustomerStatus, MerchantStatus, SignatureAlgorithm
from schema.node import Node
from schema.scalars import BigInt, CurrencyCode, DateTime

if TYPE_CHECKING:
    from schema.books import MerchantBalance, Wallet
    from schema.webhooks import WebhookEndpoint


@strawberry.type(description="A person with a wallet.")
class Customer(Node):
    key: strawberry.Private[uuid.UUID]
    status: CustomerStatus = strawberry.field(description="Whether they may sign in and pay.")
    phone: str | None = strawberry.field(description="Phone number in E.164 form.")
    email: str | None = strawberry.field(description="E-mail address.")
    display_name: str = strawberry.field(description="The name that payers see, masked.")
    has_payment_password: bool = strawberry.field(description="Whether a payment password is set.")
    created_at: DateTime = strawberry.field(description="When they registered.")

    @strawberry.field(
        description="Their wallets, one for each currency used. Null for all but themselves."
    )
    async def wallets(
        self, info: Info
    ) -> list[Annotated[Wallet, strawberry.lazy("schema.books")]] | None:
        found = await info.context.load.wallets(self.key)
        return None if found is None else list(found)


@strawberry.type(description="A key that verifies a merchant's signed calls, without the key.")
class MerchantKey(Node):
    key_id: str = strawberry.field(description="What a signature carries as `keyid`.")
    algorithm: SignatureAlgorithm = strawberry.field(description="What the key signs with.")
    created_at: DateTime = strawberry.field(description="When it was added.")
    expires_at: DateTime | None = strawberry.field(
        description="When it ends or ended; null while it has no end."
    )


@strawberry.type(description="One that is paid.")
class Merchant(Node):
    key: strawberry.Private[uuid.UUID]
    name: str = strawberry.field(description="The public name.")
    status: MerchantStatus = strawberry.field(description="Whether it may trade.")
    fee_rate_millionths: int = strawberry.field(
        description="The fee of a payment in millionths of its amount: 6000 is 0.6 %."
    )
    currencies: list[CurrencyCode] = strawberry.field(description="What it may be paid in.")
    payment_limit_minor: BigInt = strawberry.field(
        description="The most that one payment may be, in minor units of its currency."
    )
    created_at: DateTime = strawberry.field(description="When it was registered.")

    @strawberry.field(
        description="Its keys, newest first, ended ones too. Null for who may not see them."
    )
    async def keys(self, info: Info) -> list[MerchantKey] | None:
        found = await info.context.load.merchant_keys(self.key)
        return None if found is None else list(found)

    @strawberry.field(
        description="Its money, one row for each currency. Null for who may not see it."
    )
    async def balances(
        self, info: Info
    ) -> list[Annotated[MerchantBalance, strawberry.lazy("schema.books")]] | None:
        found = await info.context.load.merchant_balances(self.key)
        return None if found is None else list(found)

    @strawberry.field(description="Where it wants its events; null if nowhere.")
    async def webhook_endpoint(
        self, info: Info
    ) -> Annotated[WebhookEndpoint, strawberry.lazy("schema.webhooks")] | None:
        return await info.context.load.webhook_endpoint(self.key)


@strawberry.type(description="One who runs this platform.")
class Operator(Node):
    roles: list[str] = strawberry.field(
        description="What they are trusted with: ADMINISTRATOR, SETTLEMENT, RISK_ANALYST, "
        "SUPPORT, AUDITOR."
    )


@strawberry.type(description="Who is asking.")
class Viewer:
    kind: CallerKind = strawberry.field(description="What kind of caller.")
    scopes: list[str] = strawberry.field(description="What the token is for; empty if signed.")
    signed: bool = strawberry.field(
        description="Whether this request was signed with a merchant's key."
    )
    customer: Customer | None = strawberry.field(description="The customer who asks.")
    merchant: Merchant | None = strawberry.field(description="The merchant that asks.")
    operator: Operator | None = strawberry.field(description="The operator who asks.")


@strawberry.type(description="Somebody who can be paid by a transfer.")
class Payee:
    payee_id: strawberry.ID = strawberry.field(description="For `transfer`.")
    display_name_masked: str = strawberry.field(
        description="Enough of the name to recognise a friend by."
    )


@strawberry.type(description="What a client keeps of a login. Nobody else ever sees these.")
class Tokens:
    access_token: str = strawberry.field(
        description="For the header `Authorization: Bearer …`, good for ten minutes."
    )
    access_expires_at: DateTime = strawberry.field(description="When the access token ends.")
    refresh_token: str | None = strawberry.field(
        description="For `tokenRefresh`, once: each use brings another. Null where none is given."
    )
