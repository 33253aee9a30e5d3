"""Fits a model to a history: trees, calibration, thresholds, and what they would have caught.

Trees are grown on the early part of the history, with the labels that were known by its end;
calibration and thresholds come from the next stretch, the metrics from the last one, which nothing
was chosen on. Nothing is written here, and no key is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from risk_model import calibration
from risk_model.calibration import Calibration
from risk_model.history import History
from risk_model.profiles import DAY
from risk_model.replay import replay
from risk_model.thresholds import OUTCOMES, Policy, choose_policy

Array = np.ndarray[Any, Any]
Progress = Callable[[str, float], None]

TRAINED, CALIBRATED = 0.65, 0.82
"""Shares of the history's time where training ends, and where calibration does.

The history begins with empty profiles and so does training: the model must know a platform's
first day.
"""
DELAY_SECONDS = 10 * DAY
"""Payments this young are left out of training: too few of their frauds are known."""
TREES: dict[str, Any] = {
    "max_iter": 120,
    "max_leaf_nodes": 15,
    "learning_rate": 0.05,
    "min_samples_leaf": 60,
    "l2_regularization": 5.0,
    "max_features": 0.3,
    "early_stopping": False,
}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model and what it was judged on. `rows` are the features of the whole history.

    `trained`, `calibrated` and `held_out` are the places of each stretch in it.
    """

    rows: Array
    trained: Array
    calibrated: Array
    held_out: Array
    trees: Any
    calibration: Calibration
    policy: Policy
    metrics: dict[str, float]

    def probabilities(self, rows: Array) -> Array:
        """Calibrated probabilities of float32 rows, as scikit-learn computes them."""
        return self.calibration.applied(_scores(self.trees, rows))


def fit(history: History, *, seed: int, progress: Progress | None = None) -> Fitted:
    """Replay the history and fit a model to it; the same arguments give the same model.

    `progress` is told a step and the share of it that is done.
    """
    report = progress or _silent
    rows = replay(history, report)
    trained, calibrated, held_out = _stretches(history)
    report("trees", 0.0)
    trees = _grown(rows[trained], _labels_known(history, trained), seed)
    report("trees", 1.0)
    labels = history.is_fraud.astype(np.int64)
    scores = _scores(trees, rows[calibrated])
    line = calibration.fitted(scores, labels[calibrated])
    policy = choose_policy(line.applied(scores), labels[calibrated])
    judged = metrics(
        line.applied(_scores(trees, rows[held_out])),
        labels[held_out],
        history.hundredths[held_out] / 100,
        policy,
    )
    return Fitted(rows, trained, calibrated, held_out, trees, line, policy, judged)


def metrics(
    probabilities: Array, labels: Array, amounts: Array, policy: Policy
) -> dict[str, float]:
    """How a model would have done on these payments; `amounts` in major units.

    `caught_…` is the share of frauds that got this outcome or a stronger one, `genuine_…` the same
    for genuine payments.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    strength = strengths(probabilities, amounts, policy)
    found = {
        "payments_count": len(labels),
        "frauds_count": labels.sum(),
        "auc": roc_auc_score(labels, probabilities),
        "average_precision": average_precision_score(labels, probabilities),
        "brier": brier_score_loss(labels, probabilities),
    }
    for place, outcome in enumerate(OUTCOMES[1:], start=1):
        found[f"caught_{outcome.lower()}"] = np.mean(strength[labels == 1] >= place)
        found[f"genuine_{outcome.lower()}"] = np.mean(strength[labels == 0] >= place)
    return {name: round(float(value), 6) for name, value in found.items()}


def strengths(probabilities: Array, amounts: Array, policy: Policy) -> Array:
    """The place in `OUTCOMES` of each payment's outcome; `amounts` in major units."""
    pairs = zip(probabilities.tolist(), amounts.tolist(), strict=True)
    return np.array([OUTCOMES.index(policy.outcome(p, amount)) for p, amount in pairs])


def _stretches(history: History) -> tuple[Array, Array, Array]:
    seconds = max(1, history.at[-1] - history.at[0])
    share = (history.at - history.at[0]) / seconds
    return (
        np.flatnonzero(share < TRAINED - DELAY_SECONDS / seconds),
        np.flatnonzero((share >= TRAINED) & (share < CALIBRATED)),
        np.flatnonzero(share >= CALIBRATED),
    )


def _labels_known(history: History, places: Array) -> Array:
    """The frauds known when training would have begun: a later one still looks genuine."""
    begins_at = history.at[places[-1]] + DELAY_SECONDS
    known: Array = (history.is_fraud[places] == 1) & (history.known_at[places] <= begins_at)
    return known


def _grown(rows: Array, labels: Array, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    # Two threads on two busy cores wait for each other longer than one computes.
    with threadpool_limits(1):
        trees = HistGradientBoostingClassifier(random_state=seed, **TREES).fit(rows, labels)
    _thresholds_as_float32(trees)
    return trees


def _thresholds_as_float32(trees: Any) -> None:
    """Round each threshold down to a float32: no float32 feature then falls on another side.

    The exported graph holds float32 thresholds; rounded to the nearest instead, a row on one would
    be scored by another leaf than scikit-learn's.
    """
    for tree in (predictor.nodes for step in trees._predictors for predictor in step):
        nearest = tree["num_threshold"].astype(np.float32)
        above = nearest.astype(np.float64) > tree["num_threshold"]
        lower = np.nextafter(nearest, np.float32(-np.inf))
        tree["num_threshold"] = np.where(above, lower, nearest).astype(np.float64)


def _scores(trees: Any, rows: Array) -> Array:
    return trees.predict_proba(rows)[:, 1]  # type: ignore[no-any-return]


def _silent(step: str, share: float) -> None:
    """Progress that nobody watches."""
