"""Trains a model on a history and saves it, signed, as a version of the registry.

Trees are grown on the early part of the history, with the labels that were known by its end;
calibration and thresholds come from the next stretch, the metrics from the last one, which nothing
was chosen on. What is served is the exported graph, compared with scikit-learn's own scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np

from core import clock
from risk_model import calibration, registry
from risk_model import manifest as manifests
from risk_model.features import NAMES, SCHEMA
from risk_model.generator import generate
from risk_model.history import History
from risk_model.profiles import DAY
from risk_model.replay import replay
from risk_model.scoring import Unavailable
from risk_model.serving import inference_session
from risk_model.thresholds import OUTCOMES, Policy, choose_policy

Array = np.ndarray[Any, Any]
Progress = Callable[[str, float], None]

FAMILY = "histogram-trees"
PAYMENTS = 80_000
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
GOLDEN_ROWS = 256
LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "skops")


class TrainingFailedError(Exception):
    """The exported model does not compute what the trained one does, so nothing was saved."""


def train(
    directory: Path,
    *,
    seed: int = 1,
    payments: int = PAYMENTS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on a generated history, save the version, make it champion, and return its manifest.

    `directory` is the registry's; `progress` is told a step and the share of it that is done.
    Raises `TrainingFailedError` where the served form differs from scikit-learn by over 1e-5.
    """
    report = progress or _silent
    report("history", 0.0)
    history = generate(payments, seed=seed)
    report("history", 1.0)
    manifest = train_on(
        directory, history, seed=seed, data={"generator_seed": seed}, progress=report
    )
    registry.promote(directory, manifest["version"])
    return manifest


def train_on(
    directory: Path,
    history: History,
    *,
    seed: int,
    data: Mapping[str, Any],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on `history`, save the version and return its manifest; nothing is promoted.

    `data` says where the history came from.
    """
    report = progress or _silent
    rows = replay(history, report)
    train_rows, calibrate_rows, holdout_rows = _stretches(history)
    report("trees", 0.0)
    trees = _grown(rows[train_rows], _labels_known(history, train_rows), seed)
    report("trees", 1.0)
    labels = history.is_fraud.astype(np.int64)
    line = calibration.fitted(_scores(trees, rows[calibrate_rows]), labels[calibrate_rows])
    calibrated = line.applied(_scores(trees, rows[calibrate_rows]))
    policy = choose_policy(calibrated, labels[calibrate_rows])
    report("export", 0.0)
    graph = _exported(trees)
    report("export", 1.0)
    golden = _golden_rows(trees, rows[holdout_rows], seed)
    expected = line.applied(_scores(trees, golden))
    _compare(graph, golden, line, expected)
    genuine = rows[train_rows][labels[train_rows] == 0]
    holdout = line.applied(_scores(trees, rows[holdout_rows]))
    manifest = {
        "family": FAMILY,
        "created_at": clock.now().isoformat(),
        "parent": registry.champion_version(directory),
        "features": list(NAMES),
        "feature_schema": SCHEMA,
        "data": {**data, **_data_of(history, rows)},
        "trees": TREES,
        "calibration": asdict(line),
        "policy": policy.to_json(),
        "metrics": metrics(
            holdout, labels[holdout_rows], history.hundredths[holdout_rows] / 100, policy
        ),
        "usual": np.median(genuine, axis=0).tolist(),
        "golden": {
            "rows": golden.tolist(),
            "probabilities": expected.tolist(),
            "outcomes": [policy.outcome(p, 100.0) for p in expected.tolist()],
        },
        "libraries": {name: installed_version(name) for name in LIBRARIES},
    }
    return _saved(directory, manifest, {manifests.MODEL: graph, manifests.TRAINABLE: _kept(trees)})


def metrics(
    probabilities: Array, labels: Array, amounts: Array, policy: Policy
) -> dict[str, float]:
    """How a model would have done on these payments; `amounts` in major units.

    `caught_…` is the share of frauds that got this outcome or a stronger one, `genuine_…` the same
    for genuine payments.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    pairs = zip(probabilities.tolist(), amounts.tolist(), strict=True)
    strength = np.array([OUTCOMES.index(policy.outcome(p, amount)) for p, amount in pairs])
    found = {
        "payments_count": float(len(labels)),
        "frauds_count": float(labels.sum()),
        "auc": roc_auc_score(labels, probabilities),
        "average_precision": average_precision_score(labels, probabilities),
        "brier": brier_score_loss(labels, probabilities),
    }
    for place, outcome in enumerate(OUTCOMES[1:], start=1):
        found[f"caught_{outcome.lower()}"] = np.mean(strength[labels == 1] >= place)
        found[f"genuine_{outcome.lower()}"] = np.mean(strength[labels == 0] >= place)
    return {name: round(float(value), 6) for name, value in found.items()}


def _stretches(history: History) -> tuple[Array, Array, Array]:
    seconds = max(1, history.at[-1] - history.at[0])
    share = (history.at - history.at[0]) / seconds
    old_enough = share < TRAINED - DELAY_SECONDS / seconds
    return (
        np.flatnonzero(old_enough),
        np.flatnonzero((share >= TRAINED) & (share < CALIBRATED)),
        np.flatnonzero(share >= CALIBRATED),
    )


def _labels_known(history: History, places: Array) -> Array:
    """The frauds known when training would have begun: a later one still looks genuine."""
    begins_at = history.at[places[-1]] + DELAY_SECONDS
    return (history.is_fraud[places] == 1) & (history.known_at[places] <= begins_at)


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

    The graph holds float32 thresholds; rounded to the nearest instead, a row on one would be
    scored by another leaf than scikit-learn's.
    """
    for tree in (predictor.nodes for step in trees._predictors for predictor in step):
        nearest = tree["num_threshold"].astype(np.float32)
        above = nearest.astype(np.float64) > tree["num_threshold"]
        lower = np.nextafter(nearest, np.float32(-np.inf))
        tree["num_threshold"] = np.where(above, lower, nearest).astype(np.float64)


def _scores(trees: Any, rows: Array) -> Array:
    return trees.predict_proba(rows)[:, 1]  # type: ignore[no-any-return]


def _exported(trees: Any) -> bytes:
    """The trees as an ONNX graph from float32 features to float32 probabilities."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        # The exporter hands numpy integers to protobuf, which is about to stop taking them.
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = to_onnx(
            trees,
            initial_types=[("features", FloatTensorType([None, len(NAMES)]))],
            options={id(trees): {"zipmap": False, "output_class_labels": False}},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
    return graph.SerializeToString()  # type: ignore[no-any-return]


def _kept(trees: Any) -> bytes:
    """The trees for later training, in a format that loads no code."""
    import skops.io

    return skops.io.dumps(trees)  # type: ignore[no-any-return]


def _golden_rows(trees: Any, rows: Array, seed: int) -> Array:
    """Rows to compare scores on: some of every rank, and copies that stand on the trees'
    thresholds.
    """
    random = np.random.default_rng(seed)
    ranked = np.argsort(_scores(trees, rows))
    golden = rows[ranked[np.linspace(0, len(ranked) - 1, GOLDEN_ROWS).astype(int)]].copy()
    nodes = [predictor.nodes for step in trees._predictors for predictor in step]
    splits = [node for tree in nodes for node in tree if not node["is_leaf"]]
    for row in range(0, len(golden), 2):
        node = splits[random.integers(len(splits))]
        golden[row, node["feature_idx"]] = np.float32(node["num_threshold"])
    return golden


def _compare(graph: bytes, golden: Array, line: calibration.Calibration, expected: Array) -> None:
    raw = inference_session(graph).run(["probabilities"], {"features": golden})[0][:, 1]
    difference = float(np.max(np.abs(line.applied(raw.astype(np.float64)) - expected)))
    if not difference <= registry.GOLDEN_DIFFERENCE_MAX:
        raise TrainingFailedError(f"the exported model differs by {difference:.1e}")


def _data_of(history: History, rows: Array) -> dict[str, Any]:
    """What the manifest says of the data: its size, its window, and a hash of all features."""
    return {
        "payments_count": len(history),
        "frauds_count": int(history.is_fraud.sum()),
        "first_at": int(history.at[0]),
        "last_at": int(history.at[-1]),
        "features_sha256": manifests.digest(rows.tobytes()),
    }


def _saved(
    directory: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Saved, and loaded once as every process will load it."""
    version = registry.save(directory, manifest, files)
    found = registry.load(directory, version)
    if isinstance(found, Unavailable):
        raise TrainingFailedError(f"{found.reason}: {found.detail}")
    return registry.read_manifest(directory, version)


def _silent(step: str, share: float) -> None:
    """Progress that nobody watches."""
