"""What one operation reads before it decides, and what it wants committed; both as arrays.

A group is two statements: `read` (no locks) and `commit` (one call, its own commit). One operation
alone is a group of one: there is no second path. Neither decides anything; `commit_group.sql`
trusts nothing that was read and checks it again under locks.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import asyncpg
import orjson

from core import configuration
from core.errors import PurserError, error_of
from core.outbox import Event, row_of
from core.phase import statement
from core.principal import Principal
from core.records import dumps, from_json, row_maker, to_json
from core.trace import span
from payments.idempotency import Key
from payments.values import Answer, Attempt, Challenge, Operation, Order
from risk_model.assessment import DecisionRow, Profile, Written
from wallet import ledger
from wallet.ledger import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """What to read for one member: by the order's id for what follows on it, by its number to open
    one.
    """

    principal: Principal
    idempotency_id: uuid.UUID | None = None
    order_id: uuid.UUID | None = None
    merchant_id: uuid.UUID | None = None
    merchant_order_no: str | None = None
    refund_number: str | None = None
    payee_customer_id: uuid.UUID | None = None
    profile_keys: tuple[str, ...] = ()
    passwordless_currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What `read` brought: each part may have moved by the time of the commit.

    `now` is the database's clock. `refund_of_number` is the merchant's refund under the number that
    is asked for, whichever order it belongs to. `pending_minor` and `available_minor` are the
    merchant's balances in the order's currency, `passwordless_used_minor` what the payer paid today
    without a proof. `refused` is the books' answer to the member of the round before.
    """

    now: datetime
    stored: tuple[str, str] | None
    merchant: Mapping[str, Any] | None
    payer_status: str | None
    payee_status: str | None
    order: Order | None
    operations: tuple[Operation, ...]
    refund_of_number: Operation | None
    attempts: tuple[Attempt, ...]
    challenge: Challenge | None
    profiles: Mapping[str, Profile]
    pending_minor: int
    available_minor: int
    fees_minor: int
    passwordless_used_minor: int
    refused: PurserError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordlessUse:
    """What this payment consumes of the payer's limit without a proof, per day of the database's
    clock. The limit is the configuration's.
    """

    passwordless_use_id: uuid.UUID
    customer_id: uuid.UUID
    currency: str
    used_on: date
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Everything a member writes. `operation` is the one the answer shows.

    `operations` are all that are written, the shown one first. Orders are written whole, at the
    next version.
    """

    order: Order | None = None
    operation: Operation | None = None
    operations: tuple[Operation, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    challenges: tuple[Challenge, ...] = ()
    decisions: tuple[DecisionRow, ...] = ()
    profiles: tuple[Written, ...] = ()
    channel_events: tuple[Mapping[str, Any], ...] = ()
    applied_events: tuple[Mapping[str, Any], ...] = ()
    passwordless_use: PasswordlessUse | None = None
    entry: Entry | None = None
    audits: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Event, ...] = ()
    public_events: tuple[Event, ...] = ()
    refusal: PurserError | None = None
    writes_order: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One operation's wish.

    `expected_version` is the order's version that the wish is based on; absent for a new order.
    Where the books refuse it nothing is kept: with `stale_when_refused` a balance moved since it
    was read, with `answers_refusal` the plan is asked again and told so, else its caller is.
    """

    principal: Principal
    order_id: uuid.UUID
    expected_version: int | None
    done: Effects
    idempotency: Key | None = None
    stale_when_refused: bool = False
    answers_refusal: bool = False


class Ending(StrEnum):
    """How a member ended; see `commit_group.sql`."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    STORED = "STORED"
    KEY_REUSED = "KEY_REUSED"
    FORBIDDEN = "FORBIDDEN"
    STALE = "STALE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The ending of one member: the books' code, or the answer that was stored before."""

    ending: Ending
    code: str | None = None
    available_minor: int | None = None
    result: str | None = None


DONE = Outcome(ending=Ending.DONE)

_READ = "SELECT * FROM read_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_COMMIT = (
    "SELECT * FROM commit_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
)


async def read(selectors: Sequence[Selector]) -> list[Known]:
    """What each member needs to decide, in one statement without locks, in the members' order."""
    columns = zip(*(_selector_row(selector) for selector in selectors), strict=True)
    rows = await statement(_READ, *columns, writes=False)
    with span("decode", len(selectors)):
        return [_known(row, selector) for row, selector in zip(rows, selectors, strict=True)]


async def commit(members: Sequence[Member]) -> list[Outcome]:
    """Commit the members together; each has its own outcome, in the members' order.

    Raises `OutcomeUnknown` when the connection is lost meanwhile, `ServerBusy` when it certainly
    did not commit. Locks and their order: `commit_group.sql`.
    """
    with span("encode", len(members)):
        arguments = _arguments(members)
    try:
        rows = await statement(_COMMIT, *arguments)
    except asyncpg.UniqueViolationError as error:
        if len(members) > 1 or error.constraint_name != "operation_number":
            raise
        # It was taken meanwhile. Nothing was kept, and a fresh read will show it.
        return [Outcome(ending=Ending.STALE)]
    outcomes = [DONE] * len(members)
    for place, ending, code, available_minor, result in rows:
        outcomes[place - 1] = Outcome(
            ending=Ending(ending), code=code, available_minor=available_minor, result=result
        )
    return outcomes


def answer_of(result: str, *, replay: bool) -> Answer:
    """The answer that a stored result stands for."""
    document = orjson.loads(result)
    order, operation = document.get("order"), document.get("operation")
    refusal = document.get("refusal")
    return Answer(
        order=from_json(Order, order) if order else None,
        operation=from_json(Operation, operation) if operation else None,
        refusal=error_of(refusal["code"], refusal["message"], refusal["data"]) if refusal else None,
        replay=replay,
    )


def _result(effects: Effects) -> str:
    """The answer as it is kept with the key; what is empty is left out."""
    document: dict[str, Any] = {}
    if effects.order is not None:
        document["order"] = to_json(effects.order, sparse=True)
    if effects.operation is not None:
        document["operation"] = to_json(effects.operation, sparse=True)
    error = effects.refusal
    if error is not None:
        document["refusal"] = {"code": error.code, "message": error.message, "data": error.data}
    return dumps(document).decode()


def _selector_row(selector: Selector) -> tuple[Any, ...]:
    keys = selector.profile_keys
    return (
        str(selector.principal),
        selector.idempotency_id,
        selector.order_id,
        selector.merchant_id,
        selector.merchant_order_no,
        selector.refund_number,
        selector.payee_customer_id,
        keys[0] if keys else None,
        keys[1] if len(keys) > 1 else None,
        selector.passwordless_currency,
    )


_ORDER = row_maker(Order, "details")
_OPERATION = row_maker(Operation)


def _arguments(members: Sequence[Member]) -> tuple[Any, ...]:
    """The arrays of `commit_group`; a row's member is its place, counted from 1."""
    rows: list[tuple[Any, ...]] = []
    orders: list[Any] = []
    order_members: list[int] = []
    operations: list[Any] = []
    operation_members: list[int] = []
    decisions: list[Any] = []
    profiles: list[Any] = []
    uses: list[Any] = []
    entries: list[Entry] = []
    entry_members: list[int] = []
    events: list[Any] = []
    rest: list[dict[str, Any]] = []
    for place, member in enumerate(members, start=1):
        done = member.done
        rows.append(_member_row(member))
        if done.order is not None and done.writes_order:
            orders.append(_ORDER(done.order))
            order_members.append(place)
        for operation in done.operations:
            operations.append(_OPERATION(operation))
            operation_members.append(place)
        decisions.extend((place, *row) for row in done.decisions)
        profiles.extend((place, *row) for row in done.profiles)
        if done.passwordless_use is not None:
            uses.append((place, *_use_row(done.passwordless_use)))
        if done.entry is not None:
            entries.append(done.entry)
            entry_members.append(place)
        events.extend(row_of(event, place) for event in done.events)
        events.extend(row_of(event, place, public=True) for event in done.public_events)
        if _has_rest(done):
            rest.append(_rest(place, done))
    entry_rows, legs, accounts = ledger.entry_rows(entries)
    return (
        rows,
        orders,
        order_members,
        operations,
        operation_members,
        decisions,
        profiles,
        uses,
        configuration.current().small_amount_daily_limit_minor,
        entry_rows,
        entry_members,
        legs,
        accounts,
        events,
        orjson.dumps(rest),
    )


def _member_row(member: Member) -> tuple[Any, ...]:
    key = member.idempotency
    return (
        str(member.principal),
        member.order_id,
        member.expected_version,
        member.stale_when_refused,
        *(
            (key.idempotency_id, key.operation, key.key, key.input_hash, _result(member.done))
            if key
            else (None, None, None, None, None)
        ),
    )


def _use_row(use: PasswordlessUse) -> tuple[Any, ...]:
    return (
        use.passwordless_use_id,
        use.customer_id,
        use.currency,
        use.used_on,
        use.amount_minor,
    )


def _has_rest(done: Effects) -> bool:
    return bool(
        done.attempts
        or done.challenges
        or done.channel_events
        or done.applied_events
        or done.audits
    )


def _rest(place: int, done: Effects) -> dict[str, Any]:
    return {
        "member": place,
        "attempts": [to_json(each) for each in done.attempts],
        "challenges": [to_json(each) for each in done.challenges],
        "channel_events": list(done.channel_events),
        "applied_events": list(done.applied_events),
        "audits": list(done.audits),
    }


def _known(row: asyncpg.Record, selector: Selector) -> Known:
    merchant, stored_hash = row["merchant"], row["stored_hash"]
    followed = orjson.loads(row["followed"]) if row["followed"] else _NOTHING
    order, refund = followed["order"], followed["refund_of_number"]
    challenge, balances = followed["challenge"], followed["balances"] or _NO_BALANCES
    return Known(
        now=row["now"],
        stored=(stored_hash, row["stored_result"]) if stored_hash else None,
        merchant=orjson.loads(merchant) if merchant else None,
        payer_status=row["payer_status"],
        payee_status=row["payee_status"],
        order=from_json(Order, order) if order else None,
        operations=tuple(from_json(Operation, each) for each in followed["operations"] or ()),
        refund_of_number=from_json(Operation, refund) if refund else None,
        attempts=tuple(from_json(Attempt, each) for each in followed["attempts"] or ()),
        challenge=from_json(Challenge, challenge) if challenge else None,
        profiles=_profiles(row, selector.profile_keys),
        pending_minor=balances.get("MERCHANT_PENDING", 0),
        available_minor=balances.get("MERCHANT_AVAILABLE", 0),
        fees_minor=balances.get("FEES", 0),
        passwordless_used_minor=row["passwordless_used_minor"],
    )


_NO_BALANCES: dict[str, int] = {}
_NOTHING: dict[str, Any] = dict.fromkeys(
    ("order", "operations", "refund_of_number", "attempts", "challenge", "balances")
)


def _profiles(row: asyncpg.Record, keys: tuple[str, ...]) -> dict[str, Profile]:
    found: dict[str, Profile] = {}
    for key, kind in zip(keys, ("own", "shared"), strict=False):
        version = row[f"{kind}_version"]
        if version is not None:
            found[key] = Profile(version, orjson.loads(row[f"{kind}_state"]))
    return found
