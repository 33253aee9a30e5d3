"""The fold: payments and known frauds are carried into the profiles that many payers share.

A worker calls it every fifth of a second. It follows the commits, one at a time, and records which
decision made which version of a profile, so that a replay finds the state each later decision read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from core.phase import phase, statement
from core.principal import SYSTEM
from risk_model import profiles
from risk_model.assessment import event_of_payment, shared_key
from risk_model.events import seconds_of
from risk_model.features import is_odd

State = Mapping[str, Any]


async def fold_shared(events_max: int = 500) -> int:
    """Fold about `events_max` of the oldest decisions and labels not folded yet; returns how many.

    0 means that all are folded, or that another worker folds. Takes the follower's lock, then
    writes shared profiles and the steps; a second call goes on where the last commit ended. A
    backlog is worked off by calling it again at once.
    """
    async with phase(SYSTEM):
        rows = await statement("SELECT * FROM take_unfolded($1)", events_max)
        if not rows:
            return 0
        events = [row["event"] for row in rows]
        keyed = [(key, event) for event in events if (key := _key_of(event)) is not None]
        known = await _read({key for key, _ in keyed})
        folds, states = folded(keyed, known)
        await statement(
            "SELECT write_folds($1::jsonb, $2::jsonb, $3)",
            orjson.dumps(folds).decode(),
            orjson.dumps(states).decode(),
            rows[0]["consumed"],
        )
        return len(rows)


def folded(
    keyed: list[tuple[str, Mapping[str, Any]]], known: Mapping[str, tuple[int, State]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps and the last states of folding `keyed` events, in order, onto `known` profiles."""
    present = dict(known)
    told: set[str] = set()
    folds: list[dict[str, Any]] = []
    for key, event in keyed:
        version, state = present.get(key, (0, {}))
        label_id = event.get("label_id")
        if label_id is None:
            state = _with_payment(state, event)
        elif event["decision_id"] in told:
            continue
        else:
            told.add(event["decision_id"])
            known_at = seconds_of(datetime.fromisoformat(event["known_at"]))
            state = profiles.fold_fraud(state, known_at)
        present[key] = (version + 1, state)
        folds.append(
            {
                "key": key,
                "version": version + 1,
                "decision_id": event["decision_id"],
                "label_id": label_id,
            }
        )
    changed = dict.fromkeys(fold["key"] for fold in folds)
    states = [{"key": key, "version": present[key][0], "state": present[key][1]} for key in changed]
    return folds, states


def _key_of(event: Mapping[str, Any]) -> str | None:
    payee = event["payee_customer_id"]
    merchant_id = UUID(event["merchant_id"])
    return shared_key(event["operation"], merchant_id, UUID(payee) if payee else None)


def _with_payment(state: State, event: Mapping[str, Any]) -> State:
    payee = event["payee_customer_id"]
    payment = event_of_payment(
        event["operation"],
        event["amount_minor"],
        event["currency"],
        datetime.fromisoformat(event["effective_at"]),
        UUID(event["merchant_id"]),
        UUID(payee) if payee else None,
    )
    return profiles.fold(
        state,
        payment,
        newcomer=event["features"].get("is_newcomer", 0) > 0,
        odd=is_odd(event["features"]),
        teaches=event["outcome"] != "BLOCK",
    )


async def _read(keys: set[str]) -> dict[str, tuple[int, State]]:
    rows = await statement("SELECT read_shared_profiles($1) AS profile", sorted(keys))
    return {
        row["profile"]["key"]: (row["profile"]["version"], row["profile"]["state"]) for row in rows
    }
