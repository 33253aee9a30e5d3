"""Replays a history through the profiles, in order: the rows of features that training sees.

The functions are those of the path of a payment, so a row here is what the path would have stored,
bit for bit. A label reaches a shared profile when it is known and never before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from risk_model import profiles
from risk_model.events import BETWEEN_PARTIES, OPERATIONS, TOKEN_MAX, event_of
from risk_model.features import NAMES, features, vector
from risk_model.history import History

DEVIATION = NAMES.index("deviation")
IS_NEWCOMER = NAMES.index("is_newcomer")
CHUNK = 2_000

Progress = Callable[[str, float], None]


def replay(history: History, progress: Progress | None = None) -> np.ndarray[Any, Any]:
    """The float32 features of each row, computed from the rows before it alone.

    `progress` is told "features" and the share that is done.
    """
    payers: dict[int, Any] = defaultdict(dict)
    shared: dict[int, Any] = defaultdict(dict)
    labels = _known_frauds(history)
    next_label = 0
    chunks: list[np.ndarray[Any, Any]] = []
    rows: list[list[float]] = []
    columns = (history.at, history.operation, history.payer, history.counterparty)
    events = zip(*(column.tolist() for column in (*columns, history.hundredths)), strict=True)
    for number, (at, kind, payer, party, hundredths) in enumerate(events):
        while next_label < len(labels) and labels[next_label][0] <= at:
            known_at, struck = labels[next_label]
            shared[struck] = profiles.fold_fraud(shared[struck], known_at)
            next_label += 1
        operation = OPERATIONS[kind]
        event = event_of(operation, hundredths, at, party % TOKEN_MAX)
        known = shared[party] if operation in BETWEEN_PARTIES else {}
        row = features(event, payers[payer], known)
        rows.append(row)
        payers[payer] = profiles.remember(payers[payer], event)
        if operation in BETWEEN_PARTIES:
            shared[party] = profiles.fold(
                known,
                event,
                newcomer=row[IS_NEWCOMER] > 0,
                odd=row[DEVIATION] > profiles.ODD_DEVIATION,
            )
        if len(rows) == CHUNK:
            chunks.append(vector(rows))
            rows = []
            if progress is not None:
                progress("features", (number + 1) / len(history))
    return np.concatenate([*chunks, vector(rows)])


def _known_frauds(history: History) -> list[tuple[int, int]]:
    """(known at, counterparty) of every fraud between parties, in the order of becoming known."""
    between = np.isin(history.operation, [OPERATIONS.index(each) for each in BETWEEN_PARTIES])
    struck = np.flatnonzero((history.is_fraud == 1) & between)
    struck = struck[np.argsort(history.known_at[struck], kind="stable")]
    known_at, party = history.known_at[struck], history.counterparty[struck]
    return list(zip(known_at.tolist(), party.tolist(), strict=True))
