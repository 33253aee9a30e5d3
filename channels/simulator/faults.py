"""The plan of misbehaviour: which operation goes wrong, how, how often, and by which seed.

A draw is a hash of the seed and the number of draws so far, so that the same script gives the same
faults again, also after a restart.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from channels.simulator.store import transaction


class FaultOperation(StrEnum):
    """Where a fault strikes: a call of ours, or a callback of the bank's."""

    PAY_IN = "PAY_IN"
    PAY_OUT = "PAY_OUT"
    QUERY = "QUERY"
    CLOSE = "CLOSE"
    CALLBACK = "CALLBACK"


class Fault(StrEnum):
    """What goes wrong. "Commit" is the moment from which the bank has acted."""

    DELAY_BEFORE_COMMIT = "DELAY_BEFORE_COMMIT"
    DELAY_AFTER_COMMIT = "DELAY_AFTER_COMMIT"
    DROP_BEFORE_COMMIT = "DROP_BEFORE_COMMIT"
    DROP_AFTER_COMMIT = "DROP_AFTER_COMMIT"
    ERROR_BEFORE_COMMIT = "ERROR_BEFORE_COMMIT"
    ERROR_AFTER_COMMIT = "ERROR_AFTER_COMMIT"
    HANG_AFTER_COMMIT = "HANG_AFTER_COMMIT"
    HUGE_ANSWER = "HUGE_ANSWER"
    SLOW_DRIP = "SLOW_DRIP"
    DECLINE = "DECLINE"
    EARLY_CALLBACK = "EARLY_CALLBACK"
    SILENCE = "SILENCE"
    SUCCESS_AFTER_CLOSE = "SUCCESS_AFTER_CLOSE"
    DUPLICATE = "DUPLICATE"
    WRONG_AMOUNT = "WRONG_AMOUNT"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    STALE_TIMESTAMP = "STALE_TIMESTAMP"


INSTRUCTING = frozenset({FaultOperation.PAY_IN, FaultOperation.PAY_OUT})
CALLING = INSTRUCTING | {FaultOperation.QUERY, FaultOperation.CLOSE}
EVERYWHERE = CALLING | {FaultOperation.CALLBACK}

APPLIES_TO: Mapping[Fault, frozenset[FaultOperation]] = {
    Fault.DELAY_BEFORE_COMMIT: EVERYWHERE,
    Fault.DELAY_AFTER_COMMIT: CALLING,
    Fault.DROP_BEFORE_COMMIT: CALLING,
    Fault.DROP_AFTER_COMMIT: CALLING,
    Fault.ERROR_BEFORE_COMMIT: CALLING,
    Fault.ERROR_AFTER_COMMIT: CALLING,
    Fault.HANG_AFTER_COMMIT: CALLING,
    Fault.HUGE_ANSWER: CALLING,
    Fault.SLOW_DRIP: CALLING,
    Fault.DECLINE: INSTRUCTING,
    Fault.EARLY_CALLBACK: INSTRUCTING,
    Fault.SILENCE: INSTRUCTING,
    Fault.SUCCESS_AFTER_CLOSE: frozenset({FaultOperation.CLOSE}),
    Fault.DUPLICATE: frozenset({FaultOperation.CALLBACK}),
    Fault.WRONG_AMOUNT: EVERYWHERE,
    Fault.BAD_SIGNATURE: EVERYWHERE,
    Fault.STALE_TIMESTAMP: EVERYWHERE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One line of the script. `count` absent: for ever; `number` absent: for every instruction.

    `seconds` is for delays and for the success after a close, `amount_minor` is added to a wrong
    amount, `reason`, `retryable` and `soft` are for a decline.
    """

    operation: FaultOperation
    fault: Fault
    number: str | None = None
    count: int | None = 1
    probability: float = 1.0
    seed: int = 0
    seconds: float = 1.0
    amount_minor: int = 1
    reason: str = "DECLINED_BY_SCRIPT"
    retryable: bool = False
    soft: bool = False

    def __post_init__(self) -> None:
        if self.operation not in APPLIES_TO[self.fault]:
            raise ValueError(f"{self.fault} does not apply to {self.operation}")
        if not 0.0 <= self.probability <= 1.0 or self.seconds < 0.0:
            raise ValueError("the probability or the seconds are out of range")


def add(connection: sqlite3.Connection, plan: Plan) -> int:
    """Put a line at the end of the script; returns its id."""
    cursor = connection.execute(
        """
        INSERT INTO fault (operation, fault, number, count_left, probability, seed, seconds,
                           amount_minor, reason, retryable, soft)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            plan.operation,
            plan.fault,
            plan.number,
            plan.count,
            plan.probability,
            plan.seed,
            plan.seconds,
            plan.amount_minor,
            plan.reason,
            plan.retryable,
            plan.soft,
        ),
    )
    return int(cursor.lastrowid or 0)


def clear(connection: sqlite3.Connection) -> None:
    """Behave again."""
    connection.execute("DELETE FROM fault")


def listed(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """The script as it stands, with what is left of each line."""
    return [dict(row) for row in connection.execute("SELECT * FROM fault ORDER BY fault_id")]


def drawn(
    connection: sqlite3.Connection, operation: FaultOperation, number: str
) -> dict[Fault, sqlite3.Row]:
    """The faults that strike now; each one drawn is used up by one."""
    struck: dict[Fault, sqlite3.Row] = {}
    with transaction(connection):
        lines = connection.execute(
            """
            SELECT * FROM fault WHERE operation = ? AND (number IS NULL OR number = ?)
            AND (count_left IS NULL OR count_left > 0) ORDER BY fault_id
            """,
            (operation, number),
        ).fetchall()
        for line in lines:
            strikes = _fraction(line["seed"], line["draws_count"]) < line["probability"]
            connection.execute(
                """
                UPDATE fault SET draws_count = draws_count + 1, count_left = count_left - ?
                WHERE fault_id = ?
                """,
                (int(strikes), line["fault_id"]),
            )
            if strikes:
                struck.setdefault(Fault(line["fault"]), line)
    return struck


def _fraction(seed: int, draws_count: int) -> float:
    digest = hashlib.sha256(f"{seed}:{draws_count}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
