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

from core.errors import Busy, OutcomeUnknown, PurserError, error_of
from core.grouping import Grouping
from core.ids import derived_id
from core.phase import in_phase, phase, statement
from core.principal import SYSTEM, Principal
from wallet.chart import AccountKind, AccountSpec, account

Outcome = Literal["POSTED", "STORED", "REFUSED"]
Document = dict[str, Any]
Row = tuple[Any, ...]

ROLL_UP_ENTRIES_MAX = 10_000
BLOCK_ENTRIES_MAX = 1_000
CHECKPOINT_ENTRIES_MIN = 1_000
EXPIRIES_MAX = 200
APART_MAX = 8
"""How many calls run at once, each by itself, after the statement they shared was undone."""


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

    Callers that wait at the same time are booked by one statement; inside a phase it is a part of
    that. Locks the accounts that can run dry, ascending; a second call with the same entries moves
    nothing and answers STORED. Raises `Busy`, and `OutcomeUnknown` where the database went away
    meanwhile and could not be asked again.
    """
    if not entries:
        return []
    if in_phase():
        return await _post(principal, entries)
    call = _Call(principal, tuple(entries))
    lost = False
    try:
        return await _groups.join(call)
    except OutcomeUnknown:
        lost = True
    except _Undone:
        pass
    try:
        # What a lost connection left unknown is answered by its id: STORED, or booked now.
        return await _singles.join(call)
    except Busy as error:
        if lost:
            raise OutcomeUnknown() from error
        raise


async def _post(principal: Principal, entries: Sequence[Entry]) -> list[Posted]:
    return _posted(await statement(_POST, str(principal), *entry_rows(entries)))


def _posted(rows: Sequence[Sequence[Any]]) -> list[Posted]:
    return [Posted(*row) for row in rows]


_POST = "SELECT * FROM post_entries_as($1, $2, $3, $4)"
# Who waits long for a lock would hold up the others; by itself it may. What is an argument is
# evaluated first.
_POST_TOGETHER = (
    "SELECT * FROM post_entries_as($1 || left(set_config('lock_timeout', '250ms', true), 0),"
    " $2, $3, $4)"
)


class _Undone(Exception):
    """The statement of several calls failed for one of them; each goes on by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    principal: Principal
    entries: tuple[Entry, ...]


async def _post_together(calls: list[_Call]) -> list[list[Posted] | Exception]:
    """The calls of one principal are one statement."""
    results: dict[_Call, list[Posted] | Exception] = {}
    for principal in dict.fromkeys(call.principal for call in calls):
        same = [call for call in calls if call.principal == principal]
        results |= zip(same, await _post_calls(principal, same), strict=True)
    return [results[call] for call in calls]


async def _post_calls(principal: Principal, calls: list[_Call]) -> list[list[Posted] | Exception]:
    entries = [entry for call in calls for entry in call.entries]
    sql = _POST_TOGETHER if len(calls) > 1 else _POST
    try:
        found = iter(_posted(await statement(sql, str(principal), *entry_rows(entries))))
    except Exception as error:  # noqa: BLE001  Told to the call that caused it.
        known = len(calls) > 1 and not isinstance(error, OutcomeUnknown)
        return [_Undone() if known else error for _ in calls]
    return [[next(found) for _ in call.entries] for call in calls]


_groups: Grouping[_Call, list[Posted]] = Grouping(_post_together, groups_max=2)
_singles: Grouping[_Call, list[Posted]] = Grouping(
    _post_together, members_max=1, groups_max=APART_MAX
)


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


async def keep_checkpoints(entries_min: int = CHECKPOINT_ENTRIES_MIN) -> int:
    """Write checkpoints of accounts, once the journal has grown by `entries_min`; returns how many.

    A balance of the past is then near one: see `wallet/sql/balance_as_of.sql`.
    """
    return int((await statement("SELECT keep_checkpoints($1)", entries_min))[0][0])


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


def entry_rows(entries: Sequence[Entry]) -> tuple[list[Row], list[Row], list[Row]]:
    """The arguments of `post_entries`: entries, their legs, and the accounts they may open.

    The columns are those of the types `ledger_entry`, `ledger_leg` and `ledger_account`.
    """
    legs: list[Row] = []
    accounts: dict[uuid.UUID, AccountSpec] = {}
    rows = [_entry_row(place, entry) for place, entry in enumerate(entries, start=1)]
    for place, entry in enumerate(entries, start=1):
        line = 1
        for action in entry.actions:
            for leg in _legs(action, accounts):
                legs.append((place, line, *leg))
                line += 1
    return rows, legs, [_account_row(spec) for spec in accounts.values()]


def _entry_row(place: int, entry: Entry) -> Row:
    return (
        place,
        entry.entry_id,
        entry.kind,
        entry.effective_at,
        entry.order_id,
        entry.operation_id,
        entry.merchant_id,
        entry.description,
        orjson.dumps(entry.facts) if entry.facts else b"{}",
        None,
        None,
    )


def _legs(action: Action, accounts: dict[uuid.UUID, AccountSpec]) -> list[Row]:
    """The legs of one action from its part on; the accounts it names are added to `accounts`."""
    match action:
        case Post(debit, credit, amount_minor):
            accounts[debit.account_id], accounts[credit.account_id] = debit, credit
            return [
                (
                    1,
                    "POST",
                    debit.account_id,
                    credit.account_id,
                    amount_minor,
                    debit.currency,
                    None,
                    None,
                    0,
                )
            ]
        case Hold(hold_id, debit, credit, amount_minor, expires_at):
            accounts[debit.account_id], accounts[credit.account_id] = debit, credit
            return [
                (
                    1,
                    "HOLD",
                    debit.account_id,
                    credit.account_id,
                    amount_minor,
                    debit.currency,
                    hold_id,
                    expires_at,
                    amount_minor,
                )
            ]
        case PostHold(hold_id, credits):
            accounts |= {credit.account_id: credit for credit, _ in credits}
            return [
                (part, "POST_HOLD", None, credit.account_id, amount_minor, None, hold_id, None, 0)
                for part, (credit, amount_minor) in enumerate(credits, start=1)
            ]
        case VoidHold(hold_id):
            return [(1, "VOID_HOLD", None, None, None, None, hold_id, None, 0)]
        case ExpireHold(hold_id):
            return [(1, "EXPIRE_HOLD", None, None, None, None, hold_id, None, 0)]


def _account_row(spec: AccountSpec) -> Row:
    return (spec.account_id, spec.owner_kind, spec.owner_id, spec.kind, spec.currency)


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
