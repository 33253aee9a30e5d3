"""Writing the books: journal entries as values, and the calls that book, settle and follow them.

Everything here ends in `wallet/sql/post_entries.sql`, the one function that writes postings. A
refusal is a value, never an exception. Nothing here may span a network call: the locks are rows.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import orjson

from core.errors import PurserError, error_of
from core.ids import derived_id
from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from wallet.chart import AccountKind, AccountSpec, account

Outcome = Literal["POSTED", "STORED", "REFUSED"]
Document = dict[str, Any]

ROLL_UP_ENTRIES_MAX = 10_000
BLOCK_ENTRIES_MAX = 1_000
EXPIRIES_MAX = 200


@dataclass(frozen=True, slots=True)
class Post:
    """Moves `amount_minor` (positive) from one account to another of the same currency."""

    debit: AccountSpec
    credit: AccountSpec
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Reserves `amount_minor` on `debit`, meant for `credit`; without `expires_at` for good."""

    hold_id: uuid.UUID
    debit: AccountSpec
    credit: AccountSpec
    amount_minor: int
    expires_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class PostHold:
    """Moves what was held, or less, to one or several accounts; the remainder is released."""

    hold_id: uuid.UUID
    credits: tuple[tuple[AccountSpec, int], ...]


@dataclass(frozen=True, slots=True)
class VoidHold:
    """Releases what was held."""

    hold_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class ExpireHold:
    """Releases what was held, because its time has passed on the database's clock."""

    hold_id: uuid.UUID


Action = Post | Hold | PostHold | VoidHold | ExpireHold


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One business event. An id is booked once: again with other content, it is refused."""

    entry_id: uuid.UUID
    kind: str
    actions: tuple[Action, ...]
    order_id: uuid.UUID | None = None
    operation_id: uuid.UUID | None = None
    merchant_id: uuid.UUID | None = None
    effective_at: dt.datetime | None = None
    description: str = ""
    facts: Document = field(default_factory=dict)

    def to_json(self) -> Document:
        """The entry as the group functions take it: JSON values, with the accounts it may open."""
        accounts: dict[str, Document] = {}
        return {
            "entry_id": str(self.entry_id),
            "kind": self.kind,
            "effective_at": _instant(self.effective_at),
            "order_id": _text(self.order_id),
            "operation_id": _text(self.operation_id),
            "merchant_id": _text(self.merchant_id),
            "description": self.description,
            "facts": self.facts,
            "actions": [_action(action, accounts) for action in self.actions],
            "accounts": list(accounts.values()),
        }


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of an entry. A refusal names the account and what it had available."""

    entry_id: uuid.UUID
    outcome: Outcome
    code: str | None
    account_id: uuid.UUID | None
    available_minor: int | None
    sequence: int | None

    @property
    def refusal(self) -> PurserError | None:
        """The error that this refusal stands for; None where the entry is in the books."""
        return error_of(self.code) if self.code else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSettlement:
    """Asks that all a merchant has pending in `currency` becomes available, as one entry."""

    entry_id: uuid.UUID
    merchant_id: uuid.UUID
    currency: str
    description: str = ""
    facts: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """`settled_minor` left pending; of it `offset_minor` paid what the merchant owed us."""

    entry_id: uuid.UUID
    outcome: Literal["POSTED", "STORED", "EMPTY", "REFUSED"]
    code: str | None
    settled_minor: int
    offset_minor: int
    sequence: int | None


async def post(principal: Principal, entries: Sequence[Entry]) -> list[Posted]:
    """Book entries in their order of arrival, each all or nothing; operators and the system only.

    Inside a phase it is a part of it, else one statement of its own. Locks the accounts that can
    run dry, ascending; a second call with the same entries moves nothing and answers STORED.
    """
    if not entries:
        return []
    rows = await statement(
        "SELECT * FROM post_entries_as($1, $2)", str(principal), entries_text(entries)
    )
    return [Posted(*row) for row in rows]


def entries_text(entries: Sequence[Entry]) -> str:
    """The argument of `post_entries`: a JSON array."""
    return orjson.dumps([entry.to_json() for entry in entries]).decode()


async def settle_pending(
    principal: Principal, settlements: Sequence[PendingSettlement]
) -> list[Settled]:
    """Make available all that is pending, one entry for each merchant and currency.

    What a merchant owes us is taken first. The amounts are decided under the locks of the accounts,
    so a refund comes wholly before or after.
    A second call with the same ids moves nothing and tells what the first one moved.
    """
    if not settlements:
        return []
    document = orjson.dumps([_settlement(settlement) for settlement in settlements]).decode()
    rows = await statement("SELECT * FROM settle_pending_as($1, $2)", str(principal), document)
    return [Settled(*row) for row in rows]


async def hold_expiry_sweep(limit: int = EXPIRIES_MAX) -> tuple[uuid.UUID, ...]:
    """Expire holds whose time has passed, and return those this call expired.

    A hold that is posted or voided at the same moment is left to whoever was first.
    """
    async with phase(SYSTEM):
        due = await statement(
            "SELECT hold_id FROM hold WHERE state = 'PENDING'"
            " AND expires_at <= (SELECT purser_now()) ORDER BY expires_at LIMIT $1",
            limit,
        )
    entries = [
        Entry(
            entry_id=derived_id(row["hold_id"], "expired"),
            kind="HOLD_EXPIRED",
            actions=(ExpireHold(row["hold_id"]),),
        )
        for row in due
    ]
    results = await post(SYSTEM, entries)
    return tuple(
        row["hold_id"]
        for row, result in zip(due, results, strict=True)
        if result.outcome == "POSTED"
    )


async def roll_up(entries_max: int = ROLL_UP_ENTRIES_MAX) -> int:
    """Carry the next entries' buffered postings into the balances; returns how many entries."""
    return int((await statement("SELECT roll_up($1)", entries_max))[0][0])


async def seal(blocks_max: int = 100) -> int:
    """Seal what is not sealed yet, block by block; returns how many entries were sealed."""
    sealed_count = 0
    for _ in range(blocks_max):
        block_count = int((await statement("SELECT seal_entries($1)", BLOCK_ENTRIES_MAX))[0][0])
        sealed_count += block_count
        if block_count < BLOCK_ENTRIES_MAX:
            break
    return sealed_count


async def set_account_terms(
    principal: Principal,
    account_id: uuid.UUID,
    *,
    frozen: bool | None = None,
    credits_frozen: bool | None = None,
    credit_limit_minor: int | None = None,
) -> str:
    """Freeze or thaw an account, or change its credit limit; what is None stays as it is.

    Returns APPLIED, NOT_FOUND, or INSUFFICIENT_AVAILABLE where the new limit is used up already.
    """
    rows = await statement(
        "SELECT set_account_terms_as($1, $2, $3, $4, $5)",
        str(principal),
        account_id,
        frozen,
        credits_frozen,
        credit_limit_minor,
    )
    return str(rows[0][0])


def _action(action: Action, accounts: dict[str, Document]) -> Document:
    """One action as JSON; the accounts it names are added to `accounts`."""
    match action:
        case Post(debit, credit, amount_minor):
            return {"do": "POST", **_movement(debit, credit, amount_minor, accounts)}
        case Hold(hold_id, debit, credit, amount_minor, expires_at):
            return {
                "do": "HOLD",
                "hold_id": str(hold_id),
                "expires_at": _instant(expires_at),
                **_movement(debit, credit, amount_minor, accounts),
            }
        case PostHold(hold_id, credits):
            return {
                "do": "POST_HOLD",
                "hold_id": str(hold_id),
                "credits": [
                    {"credit_account_id": _named(credit, accounts), "amount_minor": amount_minor}
                    for credit, amount_minor in credits
                ],
            }
        case VoidHold(hold_id):
            return {"do": "VOID_HOLD", "hold_id": str(hold_id)}
        case ExpireHold(hold_id):
            return {"do": "EXPIRE_HOLD", "hold_id": str(hold_id)}


def _movement(
    debit: AccountSpec, credit: AccountSpec, amount_minor: int, accounts: dict[str, Document]
) -> Document:
    return {
        "debit_account_id": _named(debit, accounts),
        "credit_account_id": _named(credit, accounts),
        "amount_minor": amount_minor,
        "currency": debit.currency,
    }


def _named(spec: AccountSpec, accounts: dict[str, Document]) -> str:
    document = _account_document(spec)
    account_id: str = document["account_id"]
    accounts[account_id] = document
    return account_id


@lru_cache(maxsize=65_536)
def _account_document(spec: AccountSpec) -> Document:
    return {
        "account_id": str(spec.account_id),
        "owner_kind": spec.owner_kind,
        "owner_id": str(spec.owner_id),
        "kind": spec.kind,
        "currency": spec.currency,
    }


def _settlement(settlement: PendingSettlement) -> Document:
    merchant_id, currency = settlement.merchant_id, settlement.currency
    accounts: dict[str, Document] = {}
    return {
        "entry_id": str(settlement.entry_id),
        "kind": "SETTLEMENT",
        "merchant_id": str(merchant_id),
        "currency": currency,
        "description": settlement.description,
        "facts": settlement.facts,
        "pending_account_id": _named(
            account(AccountKind.MERCHANT_PENDING, merchant_id, currency), accounts
        ),
        "available_account_id": _named(
            account(AccountKind.MERCHANT_AVAILABLE, merchant_id, currency), accounts
        ),
        "debt_account_id": _named(
            account(AccountKind.MERCHANT_DEBT, merchant_id, currency), accounts
        ),
        "accounts": list(accounts.values()),
    }


def _text(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)


def _instant(value: dt.datetime | None) -> str | None:
    return None if value is None else value.isoformat()
