"""The fold: payments and known frauds are carried into the profiles that many payers share.

A worker calls it every fifth of a second. It follows the commits, one at a time, and records which
decision made which version of a profile, so that a replay finds the state each later decision read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from core.phase import phase, statement
from core.principal import SYSTEM
from risk_model import profiles
from risk_model.assessment import event_of_payment, shared_key
from risk_model.events import seconds_of
from risk_model.features import is_odd, snapshot
from risk_model.values import Written

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
        keyed = [(key, row) for row in rows if (key := _key_of(row)) is not None]
        known = await _read({key for key, _ in keyed})
        folds, states = folded(keyed, known)
        await statement(
            "SELECT write_folds($1, $2, $3, $4, $5, $6)",
            [fold.key for fold in folds],
            [fold.version for fold in folds],
            [fold.decision_id for fold in folds],
            [fold.label_id for fold in folds],
            [(None, *state) for state in states],
            rows[0]["consumed"],
        )
        return len(rows)


class Fold(NamedTuple):
    """One step: the version of the profile `key` that a decision, or a label of it, made."""

    key: str
    version: int
    decision_id: UUID
    label_id: UUID | None


def folded(
    keyed: list[tuple[str, Mapping[str, Any]]], known: Mapping[str, tuple[int, State]]
) -> tuple[list[Fold], list[Written]]:
    """The steps and the last states of folding `keyed` events, in order, onto `known` profiles."""
    present = dict(known)
    told: set[UUID] = set()
    folds: list[Fold] = []
    for key, event in keyed:
        version, state = present.get(key, (0, {}))
        decision_id, label_id = event["decision_id"], event["label_id"]
        if label_id is None:
            state = _with_payment(state, event)
        elif decision_id in told:
            continue
        else:
            told.add(decision_id)
            state = profiles.fold_fraud(state, seconds_of(event["known_at"]))
        present[key] = (version + 1, state)
        folds.append(Fold(key, version + 1, decision_id, label_id))
    changed = dict.fromkeys(fold.key for fold in folds)
    states = [
        Written(key, present[key][0], orjson.dumps(present[key][1]).decode()) for key in changed
    ]
    return folds, states


def _key_of(event: Mapping[str, Any]) -> str | None:
    return shared_key(event["operation"], event["merchant_id"], event["payee_customer_id"])


def _with_payment(state: State, event: Mapping[str, Any]) -> State:
    payment = event_of_payment(
        event["operation"],
        event["amount_minor"],
        event["currency"],
        event["effective_at"],
        event["merchant_id"],
        event["payee_customer_id"],
    )
    known = snapshot(event["features"], event["feature_schema"])
    return profiles.fold(
        state,
        payment,
        newcomer=known.get("is_newcomer", 0) > 0,
        odd=is_odd(known.get("deviation", 0.0)),
        teaches=event["outcome"] != "BLOCK",
    )


async def _read(keys: set[str]) -> dict[str, tuple[int, State]]:
    rows = await statement("SELECT * FROM read_shared_profiles($1)", sorted(keys))
    return {row["key"]: (row["version"], orjson.loads(row["state"])) for row in rows}
