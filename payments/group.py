"""What one operation reads before it decides, and what it wants committed; both as arrays.

A group is two statements: `read` (no locks) and `commit` (one call, its own commit). One operation
alone is a group of one: there is no second path. Neither decides anything; `commit_group.sql`
trusts nothing that was read and checks it again under locks.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import asyncpg
import orjson

from core.errors import PurserError, error_of
from core.outbox import Event, row_of
from core.phase import statement
from core.principal import Principal
from core.records import from_json, to_json
from payments.values import Answer, Attempt, Challenge, Operation, Order
from risk_model.assessment import Profile
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
    without a proof.
    """

    now: datetime
    stored: tuple[str, Mapping[str, Any]] | None
    merchant: Mapping[str, Any] | None
    payer: Mapping[str, Any] | None
    payee: Mapping[str, Any] | None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordlessUse:
    """What this payment consumes of the payer's limit without a proof, per day of the database's
    clock.
    """

    passwordless_use_id: uuid.UUID
    customer_id: uuid.UUID
    currency: str
    used_on: str
    amount_minor: int
    limit_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Everything one ending of a member writes. `operation` is the one the answer shows.

    `operations` are all that are written, the shown one first. Orders are written whole, at the
    next version.
    """

    order: Order | None = None
    operation: Operation | None = None
    operations: tuple[Operation, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    challenges: tuple[Challenge, ...] = ()
    decisions: tuple[Mapping[str, Any], ...] = ()
    profiles: tuple[Mapping[str, Any], ...] = ()
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
    """One operation's wish: `done` if the books agree, `refused` if not.

    `expected_version` is the order's version that the wish is based on; absent for a new order.
    `stale_when_refused`: a refusal of the books means that a balance moved since it was read.
    """

    principal: Principal
    order_id: uuid.UUID | None
    expected_version: int | None
    done: Effects
    refused: Effects | None = None
    idempotency: Mapping[str, str] | None = None
    stale_when_refused: bool = False


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
    """The ending of one member, and its result as committed."""

    ending: Ending
    code: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


async def read(selectors: Sequence[Selector]) -> list[Known]:
    """What each member needs to decide, in one statement without locks, in the members' order."""
    wanted = [{**to_json(selector), "member": number} for number, selector in enumerate(selectors)]
    for document, selector in zip(wanted, selectors, strict=True):
        document["principal"] = str(selector.principal)
    rows = await statement("SELECT * FROM read_group($1::jsonb)", _text(wanted), writes=False)
    return [_known(row["document"]) for row in rows]


async def commit(members: Sequence[Member]) -> list[Outcome]:
    """Commit the members together; each has its own outcome, in the members' order.

    Raises `OutcomeUnknown` when the connection is lost meanwhile, `ServerBusy` when it certainly
    did not commit. Locks and their order: `commit_group.sql`.
    """
    documents = [_document(number, member) for number, member in enumerate(members)]
    try:
        rows = await statement("SELECT * FROM commit_group($1::jsonb)", _text(documents))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "operation_number":
            raise
        # It was taken meanwhile. Nothing was kept, and a fresh read will show it.
        return [Outcome(ending=Ending.STALE) for _ in members]
    return [
        Outcome(ending=Ending(row["outcome"]), code=row["code"], result=row["result"] or {})
        for row in rows
    ]


def answer_of(result: Mapping[str, Any], *, replay: bool) -> Answer:
    """The answer that a committed or stored result stands for."""
    order, operation, refusal = result["order"], result["operation"], result["refusal"]
    return Answer(
        order=from_json(Order, order) if order else None,
        operation=from_json(Operation, operation) if operation else None,
        refusal=error_of(refusal["code"], refusal["message"], refusal["data"]) if refusal else None,
        replay=replay,
    )


def _text(documents: list[dict[str, Any]]) -> str:
    return orjson.dumps(documents).decode()


def _document(number: int, member: Member) -> dict[str, Any]:
    return {
        "member": number,
        "principal": str(member.principal),
        "idempotency": member.idempotency,
        "order_id": str(member.order_id) if member.order_id else None,
        "expected_version": member.expected_version,
        "stale_when_refused": member.stale_when_refused,
        "done": _effects(member.done),
        "refused": _effects(member.refused) if member.refused else None,
    }


def _effects(effects: Effects) -> dict[str, Any]:
    order = to_json(effects.order) if effects.order else None
    operation = to_json(effects.operation) if effects.operation else None
    outbox = [row_of(event) for event in effects.events]
    outbox += [{**row_of(event), "public": True} for event in effects.public_events]
    use = effects.passwordless_use
    return {
        "orders": [order] if order and effects.writes_order else [],
        "operations": [to_json(each) for each in effects.operations],
        "attempts": [to_json(each) for each in effects.attempts],
        "challenges": [to_json(each) for each in effects.challenges],
        "decisions": list(effects.decisions),
        "profiles": list(effects.profiles),
        "channel_events": list(effects.channel_events),
        "applied_events": list(effects.applied_events),
        "passwordless_use": to_json(use) if use else {},
        "entry": effects.entry.to_json() if effects.entry else None,
        "audits": list(effects.audits),
        "outbox": outbox,
        "result": {"order": order, "operation": operation, "refusal": _refusal(effects.refusal)},
    }


def _refusal(error: PurserError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "data": error.data}


def _known(document: Mapping[str, Any]) -> Known:
    stored, order, challenge = document["stored"], document["order"], document["challenge"]
    refund = document["refund_of_number"]
    return Known(
        now=datetime.fromisoformat(document["now"]),
        stored=(stored["input_hash"], stored["result"]) if stored else None,
        merchant=document["merchant"],
        payer=document["payer"],
        payee=document["payee"],
        order=from_json(Order, order) if order else None,
        operations=tuple(from_json(Operation, row) for row in document["operations"]),
        refund_of_number=from_json(Operation, refund) if refund else None,
        attempts=tuple(from_json(Attempt, row) for row in document["attempts"]),
        challenge=from_json(Challenge, challenge) if challenge else None,
        profiles={
            row["key"]: Profile(version=row["version"], state=row["state"])
            for row in document["profiles"]
        },
        pending_minor=document["pending_minor"],
        available_minor=document["available_minor"],
        fees_minor=document["fees_minor"],
        passwordless_used_minor=document["passwordless_used_minor"],
    )
