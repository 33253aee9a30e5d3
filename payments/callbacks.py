"""Callbacks: what a channel tells us by itself.

Verified over the raw bytes first; stored in a commit of its own; then applied under the order's
version and acknowledged only after that. What a crash left unapplied the channel repeats, or the
sweeper applies.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from channels import breaker
from channels.contract import Acknowledgement, CallbackEvent, Result, ResultKind
from channels.registry import channel as channel_of
from core import audit, configuration, ids
from core.crash import crash_point
from core.errors import (
    Busy,
    IncorrectDetails,
    NotFound,
    OutcomeUnknown,
    PurserError,
    SignatureInvalid,
)
from core.phase import phase, statement
from core.principal import SYSTEM, Principal
from payments.group import Selector
from payments.invoking import update_order
from payments.models import ChannelEventRow

log = logging.getLogger(__name__)
UNKNOWN_NUMBER = "UNKNOWN_NUMBER"
UNAPPLIED_AFTER_SECONDS = 5


async def apply_callback(code: str, headers: Mapping[str, str], body: bytes) -> Acknowledgement:
    """The channel's exact acknowledgement, after everything is committed.

    Raises `NotFound` for an unknown channel, `SignatureInvalid` with one message for every cause
    (nothing was read or changed; a security event tells of it), `IncorrectDetails` for an event id
    that comes again with another content.
    """
    module = channel_of(code)
    if module is None:
        raise NotFound("There is no such channel.")
    try:
        event = module.parse_callback(headers, body)
    except SignatureInvalid:
        await audit.record_security_event("CALLBACK_REFUSED", code, "REFUSED", size=len(body))
        raise
    stored = await _store(event)
    crash_point("callback_stored")
    if stored["applied_at"] is None:
        await apply_event(stored)
    crash_point("callback_applied")
    return module.acknowledge(event)


async def apply_event(event: Mapping[str, Any]) -> None:
    """Apply one stored event. A second call finds it applied and changes nothing."""
    rows = await statement(
        "SELECT * FROM place_of_request($1, $2)",
        event["channel"],
        event["channel_request_number"],
        writes=False,
    )
    if not rows:
        await _note_unknown(event)
        return
    place = rows[0]
    principal = Principal("merchant", place["merchant_id"])
    selector = Selector(principal=principal, order_id=place["order_id"])
    result = await _confirmed(event, _result_of(event["parsed"]["result"]))
    outcome = await update_order(
        selector,
        place["operation_id"],
        result,
        {"channel_event_id": str(event["channel_event_id"])},
    )
    if outcome == "INCORRECT_DETAILS":
        await audit.record_security_event(
            "CALLBACK_CONTRADICTS", event["channel"], outcome, event=event["event_key"]
        )


async def apply_unapplied(limit: int = 50) -> int:
    """Apply what a crash left behind; returns how many events were applied.

    One that breaks is left for the next time and keeps no other waiting.
    """
    async with phase(SYSTEM):
        rows = await statement(
            """SELECT channel_event_id, channel, event_key, channel_request_number, parsed
            FROM channel_event
            WHERE applied_at IS NULL
              AND received_at < purser_now() - $2 * interval '1 second'
            ORDER BY received_at LIMIT $1""",
            limit,
            UNAPPLIED_AFTER_SECONDS,
        )
    applied_count = 0
    for row in rows:
        try:
            await apply_event(row)
            applied_count += 1
        except Busy:
            raise
        except PurserError as error:
            log.warning("event %s not applied: %s", row["event_key"], error.code)
        except Exception:
            log.exception("applying event %s broke", row["event_key"])
    return applied_count


async def _store(event: CallbackEvent) -> Mapping[str, Any]:
    """The event's row; raises `IncorrectDetails` if its id came before with another content."""
    row = {
        "channel_event_id": ids.new_id(),
        "channel": event.channel,
        "event_key": f"event:{event.event_id}"[:160],
        "kind": "CALLBACK",
        "channel_request_number": event.request_number[:64],
        "raw_body": event.raw,
        "parsed": {"type": event.type, "result": _document(event.result)},
    }
    async with phase(SYSTEM):
        await statement(
            """INSERT INTO channel_event
                (channel_event_id, channel, event_key, kind, channel_request_number,
                 raw_body, parsed)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (channel, event_key) DO NOTHING""",
            *row.values(),
        )
        stored = await ChannelEventRow.get(channel=event.channel, event_key=row["event_key"])
    if bytes(stored.raw_body) != event.raw:
        await audit.record_security_event(
            "CALLBACK_CONTRADICTS", event.channel, "INCORRECT_DETAILS", event=event.event_id
        )
        raise IncorrectDetails()
    return {
        "channel_event_id": stored.channel_event_id,
        "channel": stored.channel,
        "event_key": stored.event_key,
        "channel_request_number": stored.channel_request_number,
        "parsed": stored.parsed,
        "applied_at": stored.applied_at,
    }


async def _confirmed(event: Mapping[str, Any], result: Result) -> Result:
    """A large success counts only once the channel says it again when asked.

    Raises `OutcomeUnknown` where the channel cannot be asked now: the event stays unapplied.
    """
    limit = configuration.current().callback_confirm_over_minor
    if result.kind is not ResultKind.SUCCESS or (result.amount_minor or 0) <= limit:
        return result
    module = channel_of(event["channel"])
    assert module is not None
    number = event["channel_request_number"]
    asked = await breaker.guarded(event["channel"], "query", lambda: module.query(number))
    if asked.kind in (ResultKind.UNKNOWN, ResultKind.NOT_SENT):
        raise OutcomeUnknown()
    return replace(asked, event_id=result.event_id)


async def _note_unknown(event: Mapping[str, Any]) -> None:
    """A signed event for a number that is not ours: kept, acknowledged, and raised for a person."""
    log.error("event %s of %s names an unknown number", event["event_key"], event["channel"])
    async with phase(SYSTEM):
        await statement(
            """UPDATE channel_event SET applied_at = purser_now(), outcome = $2
            WHERE channel_event_id = $1 AND applied_at IS NULL""",
            event["channel_event_id"],
            UNKNOWN_NUMBER,
        )


def _document(result: Result) -> dict[str, Any]:
    return {
        "kind": result.kind.value,
        "payer_must_act": result.payer_must_act,
        "action_url": result.action_url,
        "channel_trade_no": result.channel_trade_no,
        "reason": result.reason,
        "retryable": result.retryable,
        "soft": result.soft,
        "amount_minor": result.amount_minor,
        "currency": result.currency,
        "occurred_at": result.occurred_at.isoformat() if result.occurred_at else None,
        "event_id": result.event_id,
    }


def _result_of(document: Mapping[str, Any]) -> Result:
    occurred_at = document["occurred_at"]
    return Result(
        **{
            **document,
            "kind": ResultKind(document["kind"]),
            "occurred_at": datetime.fromisoformat(occurred_at) if occurred_at else None,
        }
    )
