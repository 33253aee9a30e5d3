"""The chart of accounts: which kinds there are, what each is for, and the ids of their accounts.

An account's id follows from its owner, kind and currency, so nobody looks one up to find it, and
two processes that open the same account open one. `wallet/sql/chart.sql` repeats the table for the
database.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from core.ids import derived_id

Side = Literal["debit", "credit"]
OwnerKind = Literal["customer", "merchant", "channel", "platform"]

LEDGER_NAMESPACE = uuid.UUID("6f2b4f6e-52f5-5d0c-8d3a-3f8f6c0f7a11")
"""Base of the ids of owners that are no customer and no merchant, such as channels."""


class AccountKind(StrEnum):
    """Every kind of account. The owner of each stands beside it."""

    CUSTOMER_WALLET = "CUSTOMER_WALLET"  # customer: money he can spend
    MERCHANT_PENDING = "MERCHANT_PENDING"  # merchant: earned, not settled
    MERCHANT_AVAILABLE = "MERCHANT_AVAILABLE"  # merchant: settled, can be paid out
    MERCHANT_FROZEN = "MERCHANT_FROZEN"  # merchant: kept back by risk
    MERCHANT_DEBT = "MERCHANT_DEBT"  # merchant: what we advanced and he owes
    FEES = "FEES"  # merchant: our fees of his payments
    DISPUTES = "DISPUTES"  # merchant: kept back while a dispute is open
    DISPUTE_FEES = "DISPUTE_FEES"  # merchant: what disputes cost him
    DISPUTE_LOSS = "DISPUTE_LOSS"  # platform: what disputes cost us
    REFUNDS_IN_FLIGHT = "REFUNDS_IN_FLIGHT"  # merchant: refunds that a channel is sending back
    PAYOUTS_IN_FLIGHT = "PAYOUTS_IN_FLIGHT"  # merchant: payouts that a channel is sending
    SUSPENSE = "SUSPENSE"  # merchant: money that no order may keep
    CHANNEL_CLEARING = "CHANNEL_CLEARING"  # channel: what it owes us


@dataclass(frozen=True, slots=True)
class Terms:
    """What a kind of account is like.

    With a floor, what it has available may not fall below zero. Buffered means that postings reach
    the balance columns by the roll-up; one with both is locked and rolled up when something drains
    it. One with neither is locked and written in place, but may go below zero.
    """

    owner_kind: OwnerKind
    normal_side: Side
    has_floor: bool
    buffered: bool


CHART: dict[AccountKind, Terms] = {
    AccountKind.CUSTOMER_WALLET: Terms("customer", "credit", has_floor=True, buffered=False),
    AccountKind.MERCHANT_PENDING: Terms("merchant", "credit", has_floor=True, buffered=True),
    AccountKind.MERCHANT_AVAILABLE: Terms("merchant", "credit", has_floor=True, buffered=False),
    AccountKind.MERCHANT_FROZEN: Terms("merchant", "credit", has_floor=True, buffered=False),
    AccountKind.MERCHANT_DEBT: Terms("merchant", "debit", has_floor=False, buffered=False),
    AccountKind.FEES: Terms("merchant", "credit", has_floor=True, buffered=True),
    AccountKind.DISPUTES: Terms("merchant", "credit", has_floor=True, buffered=False),
    AccountKind.DISPUTE_FEES: Terms("merchant", "credit", has_floor=True, buffered=True),
    AccountKind.DISPUTE_LOSS: Terms("platform", "debit", has_floor=False, buffered=True),
    AccountKind.REFUNDS_IN_FLIGHT: Terms("merchant", "credit", has_floor=True, buffered=False),
    AccountKind.PAYOUTS_IN_FLIGHT: Terms("merchant", "credit", has_floor=True, buffered=False),
    AccountKind.SUSPENSE: Terms("merchant", "credit", has_floor=True, buffered=True),
    AccountKind.CHANNEL_CLEARING: Terms("channel", "debit", has_floor=False, buffered=True),
}


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """Names one account, and says enough to open it with the first entry that touches it."""

    account_id: uuid.UUID
    owner_kind: OwnerKind
    owner_id: uuid.UUID
    kind: AccountKind
    currency: str


@lru_cache(maxsize=65_536)
def account(kind: AccountKind, owner_id: uuid.UUID, currency: str) -> AccountSpec:
    """The account of `kind` that `owner_id` has in `currency` (ISO 4217 or a virtual one)."""
    owner_kind = CHART[kind].owner_kind
    return AccountSpec(
        account_id(owner_kind, owner_id, kind, currency), owner_kind, owner_id, kind, currency
    )


def account_id(
    owner_kind: OwnerKind, owner_id: uuid.UUID, kind: AccountKind, currency: str
) -> uuid.UUID:
    """The id of an account: the same one each time, in each process."""
    return derived_id(owner_id, f"{owner_kind}:{kind}:{currency}")


def clearing(channel: str, currency: str) -> AccountSpec:
    """What a channel owes us: debited by money that came in through it, credited by what left."""
    owner_id = derived_id(LEDGER_NAMESPACE, f"channel:{channel}")
    return account(AccountKind.CHANNEL_CLEARING, owner_id, currency)
