"""What a nested field may ask for: `Load`, implemented for each operation by the resolvers.

Every method answers only what the caller may see, and gathers the calls of one level into one read.
A type never asks for anything else, so that reading this page tells what the graph can reach.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import strawberry

if TYPE_CHECKING:
    from schema.books import MerchantBalance, StatementLine, Wallet
    from schema.connections import Connection, Page
    from schema.enums import BalanceBucket
    from schema.node import Node
    from schema.orders import Attempt, Challenge, Operation, Order
    from schema.parties import Customer, Merchant, MerchantKey
    from schema.risk import Decision, RiskOutcome
    from schema.webhooks import WebhookDelivery, WebhookEndpoint


class Load(Protocol):
    """Reads of one operation. A missing, foreign or forbidden thing is None or an empty list."""

    async def node(self, type_name: str, key: uuid.UUID) -> Node | None: ...

    async def order(self, order_id: uuid.UUID) -> Order | None: ...

    async def operations(self, order_id: uuid.UUID) -> Sequence[Operation]: ...

    async def attempts(self, operation_id: uuid.UUID) -> Sequence[Attempt]: ...

    async def challenge(self, order_id: uuid.UUID) -> Challenge | None: ...

    async def decisions(self, order_id: uuid.UUID) -> Sequence[Decision] | None: ...

    async def risk_outcome(self, order_id: uuid.UUID) -> RiskOutcome | None: ...

    async def customer(self, customer_id: uuid.UUID) -> Customer | None: ...

    async def merchant(self, merchant_id: uuid.UUID) -> Merchant | None: ...

    async def merchant_name(self, merchant_id: uuid.UUID) -> str: ...

    async def merchant_keys(self, merchant_id: uuid.UUID) -> Sequence[MerchantKey] | None: ...

    async def merchant_balances(
        self, merchant_id: uuid.UUID
    ) -> Sequence[MerchantBalance] | None: ...

    async def wallets(self, customer_id: uuid.UUID) -> Sequence[Wallet] | None: ...

    async def statement(
        self, account_id: uuid.UUID, currency: str, page: Page
    ) -> Connection[StatementLine]: ...

    async def bucket_statement(
        self, merchant_id: uuid.UUID, bucket: BalanceBucket, currency: str, page: Page
    ) -> Connection[StatementLine]: ...

    async def webhook_endpoint(self, merchant_id: uuid.UUID) -> WebhookEndpoint | None: ...

    async def deliveries(self, event_id: uuid.UUID) -> Sequence[WebhookDelivery]: ...


class Context(Protocol):
    """What the resolvers put into each operation, as far as a type may know it."""

    load: Load


Info = strawberry.Info[Context, None]
