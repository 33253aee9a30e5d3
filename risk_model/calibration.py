"""Calibration: from a model's score to a probability that can be multiplied with money.

A straight line through the log-odds (Platt). It keeps the ranking, unlike steps, which make ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

EDGE = 1e-7


@dataclass(frozen=True, slots=True)
class Calibration:
    """log-odds = intercept + slope × the score's log-odds; 1 and 0 change nothing."""

    slope: float = 1.0
    intercept: float = 0.0

    def applied(self, scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The calibrated probabilities. What is not a number stays so, for the caller to refuse."""
        odds = _log_odds(scores) * self.slope + self.intercept
        return 1.0 / (1.0 + np.exp(-odds))


def fitted(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Calibration:
    """The calibration that fits payments the model was not trained on.

    scikit-learn is imported here, so that serving does without it.
    """
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(C=1e6).fit(_log_odds(scores).reshape(-1, 1), labels)
    return Calibration(
        slope=round(float(line.coef_[0, 0]), 6), intercept=round(float(line.intercept_[0]), 6)
    )


def _log_odds(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bounded = np.clip(scores, EDGE, 1 - EDGE)
    odds: np.ndarray[Any, Any] = np.log(bounded / (1 - bounded))
    return odds
