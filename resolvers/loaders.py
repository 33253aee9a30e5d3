"""What nested fields ask for: read in batches, as the one who asks, once for each operation.

Nothing here raises for what the caller may not see: it is None or empty, as if it did not exist.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from strawberry.dataloader import DataLoader

from core.errors import InvalidArgument, NotFound
from core.phase import phase
from core.principal import Principal
from identity import customers, merchant_keys, merchants
from identity.caller import Caller
from identity.permissions import Permission, allows
from payments import queries
from payments.values import Attempt, Challenge, Operation, Order
from resolvers import views
from schema import books, orders, parties, risk, webhooks
from schema.connections import Connection, Page, connection_of
from schema.context import Load
from schema.cursors import make_cursor, read_cursor
from schema.enums import BalanceBucket
from schema.node import Node
from wallet import chart, statements
from wallet.models import Account

T = TypeVar("T")

WALLET = chart.AccountKind.CUSTOMER_WALLET


class Loaders:
    """Implements `schema.context.Load` for one operation of one caller."""

    def __init__(self, caller: Caller | None) -> None:
        self.caller = caller

    def forget(self) -> None:
        """Read everything anew from here on: a stream shows what is, not what was."""
        for name, value in list(vars(self).items()):
            if isinstance(value, DataLoader):
                del vars(self)[name]

    async def node(self, type_name: str, key: uuid.UUID) -> Node | None:
        """Any object by type and key; None for an unknown type too."""
        match type_name:
            case "Order":
                return await self.order(key)
            case "Customer":
                return await self.customer(key)
            case "Merchant":
                return await self.merchant(key)
            case "Wallet":
                return await self._own_wallet(key)
            case "WebhookEvent":
                return await self._event(key)
            case _:
                return None

    async def order(self, order_id: uuid.UUID) -> orders.Order | None:
        if not self._may(Permission.ORDER_READ):
            return None
        found = await self._orders.load(order_id)
        return None if found is None else views.order(found, self._asker)

    async def operations(self, order_id: uuid.UUID) -> Sequence[orders.Operation]:
        if not self._may(Permission.ORDER_READ):
            return ()
        found = await self._operations.load(order_id)
        return [views.operation(each, self._asker) for each in found]

    async def attempts(self, operation_id: uuid.UUID) -> Sequence[orders.Attempt]:
        if not self._may(Permission.ORDER_READ) or self._asker.customer_id is not None:
            return ()
        return [views.attempt(each) for each in await self._attempts.load(operation_id)]

    async def challenge(self, order_id: uuid.UUID) -> orders.Challenge | None:
        if not self._may(Permission.ORDER_READ) or self._asker.merchant_id is not None:
            return None
        found = await self._challenges.load(order_id)
        return views.challenge(found[-1]) if found else None

    async def decisions(self, order_id: uuid.UUID) -> Sequence[risk.Decision] | None:
        if not self._may(Permission.DECISION_READ):
            return None
        return [views.decision(row) for row in await self._decisions.load(order_id)]

    async def risk_outcome(self, order_id: uuid.UUID) -> risk.RiskOutcome | None:
        if not self._may(Permission.ORDER_READ):
            return None
        found = await self._decisions.load(order_id)
        return risk.RiskOutcome(found[-1].outcome) if found else None

    async def customer(self, customer_id: uuid.UUID) -> parties.Customer | None:
        own = self.caller is not None and self.caller.customer_id == customer_id
        if not own and not self._may(Permission.CUSTOMER_READ):
            return None
        found = await self._customers.load(customer_id)
        return None if found is None else views.customer(found)

    async def merchant(self, merchant_id: uuid.UUID) -> parties.Merchant | None:
        if not self._may(Permission.MERCHANT_READ):
            return None
        found = await self._merchants.load(merchant_id)
        return None if found is None else views.merchant(found)

    async def merchant_name(self, merchant_id: uuid.UUID) -> str:
        return await self._merchant_names.load(merchant_id)

    async def merchant_keys(self, merchant_id: uuid.UUID) -> Sequence[parties.MerchantKey] | None:
        if not self._may(Permission.MERCHANT_KEY_READ):
            return None
        found = await merchant_keys.list_keys(merchant_id, by=self._asker)
        return [views.merchant_key(key) for key in found]

    async def merchant_balances(
        self, merchant_id: uuid.UUID
    ) -> Sequence[books.MerchantBalance] | None:
        if not self._may(Permission.MERCHANT_BALANCE_READ):
            return None
        async with phase(self._principal):
            found = await statements.merchant_balances(merchant_id)
        return [views.merchant_balance(merchant_id, each) for each in found]

    async def wallets(self, customer_id: uuid.UUID) -> Sequence[books.Wallet] | None:
        if not self._may(Permission.WALLET_READ) or self._asker.customer_id != customer_id:
            return None
        async with phase(self._principal):
            found = await Account.filter(owner_kind="customer", owner_id=customer_id, kind=WALLET)
            balances = await statements.balances([account.account_id for account in found])
        return [
            views.wallet(account.account_id, account.currency, balances[account.account_id])
            for account in sorted(found, key=lambda account: account.currency)
        ]

    async def wallet(self, customer_id: uuid.UUID, currency: str) -> books.Wallet:
        """The caller's wallet in a currency; one that was never used has a balance of 0."""
        account_id = chart.account_id("customer", customer_id, WALLET, currency)
        async with phase(self._principal):
            found = await statements.balances([account_id])
        return views.wallet(account_id, currency, found[account_id])

    async def statement(
        self, account_id: uuid.UUID, currency: str, page: Page
    ) -> Connection[books.StatementLine]:
        if not self._may(Permission.STATEMENT_READ):
            raise NotFound()
        if page.backwards and page.cursor is None:
            raise InvalidArgument("`last` needs `before` here.", field=("before",))
        name = f"statement:{account_id}"
        cursor = _statement_cursor(name, page)
        async with phase(self._principal):
            found = await statements.statement_page(
                account_id,
                after=None if page.backwards else cursor,
                before=cursor if page.backwards else None,
                limit=page.size,
            )
        return connection_of(
            found.lines,
            page,
            has_more=found.has_more,
            cursor=lambda line: _made_cursor(name, found.cursor(line)),
            view=lambda line: views.line(line, currency),
        )

    async def bucket_statement(
        self, merchant_id: uuid.UUID, bucket: BalanceBucket, currency: str, page: Page
    ) -> Connection[books.StatementLine]:
        kind = chart.AccountKind(bucket.value)
        account_id = chart.account_id("merchant", merchant_id, kind, currency)
        return await self.statement(account_id, currency, page)

    async def webhook_endpoint(self, merchant_id: uuid.UUID) -> webhooks.WebhookEndpoint | None:
        if not self._may(Permission.WEBHOOK_READ):
            return None
        found = await queries.read_endpoint(self._principal, merchant_id)
        return None if found is None else views.webhook_endpoint(found)

    async def deliveries(self, event_id: uuid.UUID) -> Sequence[webhooks.WebhookDelivery]:
        if not self._may(Permission.WEBHOOK_READ):
            return ()
        return [views.webhook_delivery(row) for row in await self._deliveries.load(event_id)]

    async def _event(self, event_id: uuid.UUID) -> webhooks.WebhookEvent | None:
        if not self._may(Permission.WEBHOOK_READ):
            return None
        found = await queries.read_event(self._principal, event_id)
        return None if found is None else views.webhook_event(found)

    async def _own_wallet(self, account_id: uuid.UUID) -> books.Wallet | None:
        customer_id = self.caller.customer_id if self.caller else None
        found = await self.wallets(customer_id) if customer_id else None
        return next((each for each in found or () if each.account_key == account_id), None)

    @property
    def _asker(self) -> Caller:
        if self.caller is None:
            raise NotFound()
        return self.caller

    @property
    def _principal(self) -> Principal:
        return self._asker.principal

    def _may(self, permission: Permission) -> bool:
        return allows(self.caller, permission)

    @cached_property
    def _orders(self) -> DataLoader[uuid.UUID, Order | None]:
        return DataLoader(_one(lambda keys: queries.read_orders(self._principal, keys)))

    @cached_property
    def _operations(self) -> DataLoader[uuid.UUID, list[Operation]]:
        return DataLoader(_many(lambda keys: queries.read_operations(self._principal, keys)))

    @cached_property
    def _attempts(self) -> DataLoader[uuid.UUID, list[Attempt]]:
        return DataLoader(_many(lambda keys: queries.read_attempts(self._principal, keys)))

    @cached_property
    def _challenges(self) -> DataLoader[uuid.UUID, list[Challenge]]:
        return DataLoader(_many(lambda keys: queries.read_challenges(self._principal, keys)))

    @cached_property
    def _decisions(self) -> DataLoader[uuid.UUID, list[Any]]:
        return DataLoader(_many(lambda keys: queries.read_decisions(self._principal, keys)))

    @cached_property
    def _deliveries(self) -> DataLoader[uuid.UUID, list[Any]]:
        return DataLoader(_many(lambda keys: queries.read_deliveries(self._principal, keys)))

    @cached_property
    def _customers(self) -> DataLoader[uuid.UUID, Any]:
        return DataLoader(_each(lambda key: customers.read_customer(key, by=self._principal)))

    @cached_property
    def _merchants(self) -> DataLoader[uuid.UUID, Any]:
        return DataLoader(_each(lambda key: merchants.read_merchant(self._asker, key)))

    @cached_property
    def _merchant_names(self) -> DataLoader[uuid.UUID, str]:
        async def load(keys: list[uuid.UUID]) -> list[str]:
            found = await merchants.merchant_names(keys)
            return [found.get(key, "") for key in keys]

        return DataLoader(load)


IMPLEMENTS: type[Load] = Loaders
"""Keeps the two in step: a type checker refuses a method that is missing or differs."""


def _one(
    read: Callable[[list[uuid.UUID]], Awaitable[Mapping[uuid.UUID, T]]],
) -> Callable[[list[uuid.UUID]], Awaitable[list[T | None]]]:
    async def load(keys: list[uuid.UUID]) -> list[T | None]:
        found = await read(keys)
        return [found.get(key) for key in keys]

    return load


def _many(
    read: Callable[[list[uuid.UUID]], Awaitable[Mapping[uuid.UUID, list[T]]]],
) -> Callable[[list[uuid.UUID]], Awaitable[list[list[T]]]]:
    async def load(keys: list[uuid.UUID]) -> list[list[T]]:
        found = await read(keys)
        return [found.get(key, []) for key in keys]

    return load


def _each(
    read: Callable[[uuid.UUID], Awaitable[T]],
) -> Callable[[list[uuid.UUID]], Awaitable[list[T | None]]]:
    """One by one, for what is never many: the parties of one answer."""

    async def one(key: uuid.UUID) -> T | None:
        try:
            return await read(key)
        except NotFound:
            return None

    async def load(keys: list[uuid.UUID]) -> list[T | None]:
        return [await one(key) for key in keys]

    return load


def _statement_cursor(name: str, page: Page) -> statements.Cursor | None:
    if page.cursor is None:
        return None
    field = "before" if page.backwards else "after"
    sequence, before_minor, after_minor, version = read_cursor(name, page.cursor, field)
    return statements.Cursor(int(sequence), int(before_minor), int(after_minor), str(version))


def _made_cursor(name: str, cursor: statements.Cursor) -> str:
    return make_cursor(
        name,
        cursor.sequence,
        cursor.balance_before_minor,
        cursor.balance_after_minor,
        cursor.ledger_version,
    )
