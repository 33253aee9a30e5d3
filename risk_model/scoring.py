"""Scores in the path of a payment: one call of the served model for a whole group, inline, one
thread.

A model that is missing, late or wrong is a value (`Unavailable`), never an exception: the caller
decides by rules. Each change between scoring and not scoring is logged once and counted, so that an
alarm can stand on it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from core import clock
from risk_model.thresholds import Policy

log = logging.getLogger(__name__)

BUDGET_MS = 100.0
"""What one call may take. The payer waits 200 ms at most, and reading and committing need the rest.
"""
STALL_MS = 1_000.0
SLOW_CALLS_MAX = 3
PAUSE_MS = 30_000.0


class Reason(StrEnum):
    """Why no score could be used."""

    MISSING = "MISSING"
    UNSIGNED = "UNSIGNED"
    ALTERED = "ALTERED"
    WRONG_FEATURES = "WRONG_FEATURES"
    WRONG_SCORES = "WRONG_SCORES"
    UNREADABLE = "UNREADABLE"
    TOO_SLOW = "TOO_SLOW"
    NOT_A_NUMBER = "NOT_A_NUMBER"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No score, and why. `detail` is for the operator's log."""

    reason: Reason
    detail: str = ""


class Model(Protocol):
    """What can score: the served artefact, or one made for a test."""

    @property
    def version(self) -> str: ...
    @property
    def feature_schema(self) -> str: ...
    @property
    def policy(self) -> Policy: ...
    def probabilities(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...
    def reasons(self, row: np.ndarray[Any, Any]) -> tuple[str, ...]: ...


@dataclass(slots=True)
class Health:
    """What this process has counted since it started. `state` is "MODEL" or why it is not."""

    state: str = ""
    scored_count: int = 0
    fallback_counts: Counter[str] = field(default_factory=Counter)

    @property
    def fallback_count(self) -> int:
        """Payments that the model should have scored and did not."""
        return self.fallback_counts.total()

    def note_scored(self, count: int) -> None:
        """These payments were scored."""
        self.scored_count += count
        self._enter("MODEL", "")

    def note_fallback(self, missing: Unavailable, count: int) -> None:
        """These payments were decided by the fallback rules."""
        self.fallback_counts[missing.reason] += count
        self._enter(missing.reason, missing.detail)

    def _enter(self, state: str, detail: str) -> None:
        if state == self.state:
            return
        self.state = state
        if state == "MODEL":
            log.info("the risk model scores")
        else:
            log.warning("the risk model does not score, rules decide: %s %s", state, detail)


health = Health()


@dataclass(slots=True)
class Scorer:
    """A model and its time budget.

    A busy machine may make one call late, which costs that one its score. After `SLOW_CALLS_MAX` in
    a row, or one that took `STALL_MS`, the model rests for `PAUSE_MS` and nobody waits for it.
    """

    model: Model
    budget_ms: float = BUDGET_MS
    slow_calls_count: int = 0
    rests_until_ms: float = -math.inf

    def score(self, rows: np.ndarray[Any, Any]) -> list[float] | Unavailable:
        """A probability for each row; `Unavailable` where one is none, or they came late."""
        started_ms = clock.monotonic_ms()
        if started_ms < self.rests_until_ms:
            return Unavailable(Reason.TOO_SLOW, "it rests after a slow call")
        try:
            found = self.model.probabilities(rows)
        except Exception as error:  # noqa: BLE001  A broken model must not stop a payment.
            return Unavailable(Reason.FAILED, type(error).__name__)
        took_ms = clock.monotonic_ms() - started_ms
        if took_ms > self.budget_ms:
            self._was_slow(took_ms, started_ms)
            return Unavailable(Reason.TOO_SLOW, f"{took_ms:.0f} ms")
        self.slow_calls_count = 0
        scores: list[float] = np.asarray(found, dtype=np.float64).tolist()
        if len(scores) != len(rows) or not all(0.0 <= score <= 1.0 for score in scores):
            return Unavailable(Reason.NOT_A_NUMBER)
        return scores

    def _was_slow(self, took_ms: float, started_ms: float) -> None:
        self.slow_calls_count += 1
        if self.slow_calls_count >= SLOW_CALLS_MAX or took_ms > STALL_MS:
            self.slow_calls_count = 0
            self.rests_until_ms = started_ms + took_ms + PAUSE_MS
