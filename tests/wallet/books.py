"""What the ledger's tests share: owners with accounts, and books to post to and to check."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from core.phase import phase, prepare_connection
from core.principal import SYSTEM
from wallet import ledger, statements
from wallet.chart import AccountKind, AccountSpec, account, clearing
from wallet.ledger import Action, Entry, Post, Posted
from wallet.verify import verify

BANK = clearing("bank", "CNY")


@dataclass(frozen=True)
class Customer:
    customer_id: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def wallet(self) -> AccountSpec:
        return account(AccountKind.CUSTOMER_WALLET, self.customer_id, "CNY")


@dataclass(frozen=True)
class Merchant:
    merchant_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def account(self, kind: AccountKind) -> AccountSpec:
        return account(kind, self.merchant_id, "CNY")

    @property
    def pending(self) -> AccountSpec:
        return self.account(AccountKind.MERCHANT_PENDING)

    @property
    def available(self) -> AccountSpec:
        return self.account(AccountKind.MERCHANT_AVAILABLE)

    @property
    def fees(self) -> AccountSpec:
        return self.account(AccountKind.FEES)


def entry(*actions: Action, **facts: Any) -> Entry:
    """An entry of a test, with an id of its own unless it is given one."""
    return Entry(**{"entry_id": uuid.uuid4(), "kind": "TEST", "actions": actions, **facts})


@dataclass
class Books:
    """The ledger of one test, driven as the system, checked as the owner."""

    database: Any
    bank: AccountSpec = BANK

    async def post(self, *entries: Entry) -> list[Posted]:
        return await ledger.post(SYSTEM, entries)

    async def book(self, *actions: Action, **facts: Any) -> Posted:
        """One entry, which the test needs booked."""
        [posted] = await self.post(entry(*actions, **facts))
        assert posted.outcome == "POSTED", posted
        return posted

    async def refused(self, *actions: Action, **facts: Any) -> str | None:
        """The code with which one entry is refused."""
        [posted] = await self.post(entry(*actions, **facts))
        assert posted.outcome == "REFUSED", posted
        return posted.code

    async def funded_customer(self, amount_minor: int) -> Customer:
        customer = Customer()
        await self.book(Post(self.bank, customer.wallet, amount_minor))
        return customer

    async def available(self, *specs: AccountSpec) -> list[int]:
        async with phase(SYSTEM):
            found = await statements.balances([spec.account_id for spec in specs])
        return [found[spec.account_id].available_minor for spec in specs]

    async def columns(self, spec: AccountSpec) -> tuple[int, int, int]:
        """Debits posted, credits posted and debits pending, as they stand in the row."""
        [row] = await self.database.fetch(
            "SELECT debits_posted, credits_posted, debits_pending FROM account"
            " WHERE account_id = $1",
            spec.account_id,
        )
        return tuple(row)

    async def count(self, table: str) -> int:
        [row] = await self.database.fetch(f"SELECT count(*) FROM {table}")
        return int(row[0])

    async def assert_proven(self) -> None:
        """What every test of money ends with: the proof finds nothing wrong."""
        report = await verify()
        assert report.findings == ()

    async def together(
        self,
        connections_count: int,
        calls: list[Callable[[asyncpg.Connection], Coroutine[Any, Any, Any]]],
    ) -> list[Any]:
        """Run the calls over that many connections of the application at once; results in order."""
        waiting = list(enumerate(calls))
        results: list[Any] = [None] * len(calls)

        async def worker() -> None:
            connection = await connect(self)
            try:
                while waiting:
                    place, call = waiting.pop(0)
                    results[place] = await call(connection)
            finally:
                await connection.close()

        await asyncio.gather(*(worker() for _ in range(connections_count)))
        return results


async def connect(books: Books) -> asyncpg.Connection:
    """A connection of the application of its own, which gives up on a lock instead of hanging."""
    connection = await asyncpg.connect(books.database.url, server_settings={"lock_timeout": "10s"})
    await prepare_connection(connection)
    return connection


def posting_call(*entries: Entry) -> Callable[[asyncpg.Connection], Coroutine[Any, Any, Any]]:
    """A call for `Books.together` that posts entries and returns their outcomes or codes."""

    async def call(connection: asyncpg.Connection) -> list[str]:
        rows = await connection.fetch(
            "SELECT outcome, code FROM post_entries_as('system', $1, $2, $3)",
            *ledger.entry_rows(entries),
        )
        return [row["code"] or row["outcome"] for row in rows]

    return call
