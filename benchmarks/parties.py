"""Who pays and who is paid in a measurement: customers with wallets and tokens, and merchants.

Made in set-based SQL, as if they had been customers for long; the money goes through the ledger.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from benchmarks.servers import Failed
from core import ids
from core.principal import SYSTEM, Principal
from identity.caller import CUSTOMER_SCOPE
from identity.tokens import issue_access
from wallet.chart import AccountKind, AccountSpec, account, clearing
from wallet.ledger import Entry, Post, post

CURRENCY = "CNY"
FUNDS_MINOR = 10_000_00
FUNDED_AT_ONCE = 1_000
AT_ONCE = 2

CUSTOMERS = """
INSERT INTO customer (customer_id, phone, display_name, status, created_at)
SELECT id, '+8613' || to_char($2::integer + place, 'FM000000000'), 'Li Xiaoming', 'ACTIVE',
       now() - interval '1 year'
FROM unnest($1::uuid[]) WITH ORDINALITY AS made (id, place)
"""
LOGINS = """
INSERT INTO login (login_id, principal_kind, principal_id, scopes, roles, expires_at)
SELECT login_id, 'customer', customer_id, to_jsonb($3::text[]), '[]', now() + interval '90 days'
FROM unnest($1::uuid[], $2::uuid[]) AS made (login_id, customer_id)
"""
MERCHANTS = """
INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
                      payment_limit_minor, created_at)
SELECT id, 'Noodle Bar ' || place, 'ACTIVE', 6000, to_jsonb(ARRAY[$2::text]), 10000000,
       now() - interval '1 year'
FROM unnest($1::uuid[]) WITH ORDINALITY AS made (id, place)
"""


@dataclass(frozen=True)
class Parties:
    """Customers by their tokens, and the merchants, in a fixed order."""

    customer_ids: list[uuid.UUID]
    tokens: list[str] = field(repr=False)
    merchant_ids: list[uuid.UUID]


async def make_parties(
    owner_url: str, customers: int, merchants: int, seed: int, phones_after: int = 0
) -> Parties:
    """Customers who are signed in and have money, and merchants with a fee of 0.6 %.

    Those of another call on the same database need another `seed` and other phone numbers.
    """
    chance = random.Random(seed)
    customer_ids = _ids(chance, customers)
    login_ids = _ids(chance, customers)
    merchant_ids = _ids(chance, merchants)
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute("SELECT set_config('purser.principal', 'system', false)")
        await connection.execute(CUSTOMERS, customer_ids, phones_after)
        await connection.execute(LOGINS, login_ids, customer_ids, [CUSTOMER_SCOPE])
        await connection.execute(MERCHANTS, merchant_ids, CURRENCY)
    finally:
        await connection.close()
    await fund([account(AccountKind.CUSTOMER_WALLET, each, CURRENCY) for each in customer_ids])
    earned = (AccountKind.MERCHANT_PENDING, AccountKind.FEES)
    await fund([account(kind, each, CURRENCY) for each in merchant_ids for kind in earned], 1)
    tokens = await sign_in(customer_ids, login_ids)
    return Parties(customer_ids, tokens, merchant_ids)


async def sign_in(customer_ids: Sequence[uuid.UUID], login_ids: Sequence[uuid.UUID]) -> list[str]:
    """An access token for each login; good for ten minutes, like every one."""
    scopes = frozenset({CUSTOMER_SCOPE})
    return [
        (await issue_access(Principal("customer", customer), login_id=login, scopes=scopes))[0]
        for customer, login in zip(customer_ids, login_ids, strict=True)
    ]


async def fund(wallets: Sequence[AccountSpec], amount_minor: int = FUNDS_MINOR) -> None:
    """Money from the bank into each wallet, many in a statement, which opens what is missing."""
    parts = [
        wallets[place : place + FUNDED_AT_ONCE] for place in range(0, len(wallets), FUNDED_AT_ONCE)
    ]

    async def work() -> None:
        while parts:
            await _fund(parts.pop(), amount_minor)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def _fund(wallets: Sequence[AccountSpec], amount_minor: int) -> None:
    bank = clearing("bank", CURRENCY)
    entry = Entry(
        entry_id=ids.new_id(),
        kind="FUNDING",
        actions=tuple(Post(bank, wallet, amount_minor) for wallet in wallets),
    )
    [posted] = await post(SYSTEM, [entry])
    if posted.outcome != "POSTED":
        raise Failed(f"the funding was refused: {posted.code}")


def _ids(chance: random.Random, count: int) -> list[uuid.UUID]:
    return [uuid.UUID(int=chance.getrandbits(128), version=4) for _ in range(count)]
