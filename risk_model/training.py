"""Trains a model on a history and saves it, signed, as a version of the registry.

What is served is the exported graph. It is compared with scikit-learn's own scores before it is
saved, and loaded once as every process will load it, before anybody may name it champion.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np

from core import clock
from risk_model import manifest as manifests
from risk_model import registry
from risk_model.features import NAMES, SCHEMA
from risk_model.fitting import TREES, Array, Fitted, Progress, fit
from risk_model.generator import generate
from risk_model.history import History
from risk_model.scoring import Unavailable
from risk_model.serving import inference_session

FAMILY = "histogram-trees"
PAYMENTS = 80_000
GOLDEN_ROWS = 256
LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "skops")


class TrainingFailedError(Exception):
    """The exported model does not compute what the trained one does, so it is never champion."""


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
    history = generate(payments, seed=seed)
    data = {"generator_seed": seed}
    manifest = train_on(directory, history, seed=seed, data=data, progress=progress)
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

    `data` says where the history came from. Raises as `train` does.
    """
    fitted = fit(history, seed=seed, progress=progress)
    if progress is not None:
        progress("export", 0.0)
    graph = _exported(fitted.trees)
    golden = _golden_rows(fitted, seed)
    _compare(graph, golden, fitted)
    expected = fitted.probabilities(golden).tolist()
    genuine = fitted.trained[history.is_fraud[fitted.trained] == 0]
    manifest = {
        "family": FAMILY,
        "created_at": clock.now().isoformat(),
        "parent": registry.champion_version(directory),
        "features": list(NAMES),
        "feature_schema": SCHEMA,
        "data": {**data, **_data_of(history, fitted.rows)},
        "trees": TREES,
        "calibration": asdict(fitted.calibration),
        "policy": fitted.policy.to_json(),
        "metrics": fitted.metrics,
        "usual": np.median(fitted.rows[genuine], axis=0).tolist(),
        "golden": {
            "rows": golden.tolist(),
            "probabilities": expected,
            "outcomes": [fitted.policy.outcome(p, registry.GOLDEN_AMOUNT) for p in expected],
        },
        "libraries": {name: installed_version(name) for name in LIBRARIES},
    }
    files = {manifests.MODEL: graph, manifests.TRAINABLE: _kept(fitted.trees)}
    saved = _saved(directory, manifest, files)
    if progress is not None:
        progress("export", 1.0)
    return saved


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
    serialized: bytes = graph.SerializeToString()
    return serialized


def _kept(trees: Any) -> bytes:
    """The trees for later training, in a format that loads no code."""
    import skops.io

    return skops.io.dumps(trees)  # type: ignore[no-any-return]


def _golden_rows(fitted: Fitted, seed: int) -> Array:
    """Rows to compare scores on: some of every rank, half of them moved onto a tree's threshold."""
    random = np.random.default_rng(seed)
    rows = fitted.rows[fitted.held_out]
    ranked = np.argsort(fitted.probabilities(rows), kind="stable")
    golden: Array = rows[ranked[np.linspace(0, len(ranked) - 1, GOLDEN_ROWS).astype(int)]].copy()
    nodes = [predictor.nodes for step in fitted.trees._predictors for predictor in step]
    splits = [node for tree in nodes for node in tree if not node["is_leaf"]]
    for row in range(0, len(golden), 2):
        node = splits[random.integers(len(splits))]
        golden[row, node["feature_idx"]] = np.float32(node["num_threshold"])
    return golden


def _compare(graph: bytes, golden: Array, fitted: Fitted) -> None:
    raw = inference_session(graph).run(["probabilities"], {"features": golden})[0][:, 1]
    served = fitted.calibration.applied(raw.astype(np.float64))
    difference = float(np.max(np.abs(served - fitted.probabilities(golden))))
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
    version = registry.save(directory, manifest, files)
    found = registry.load(directory, version)
    if isinstance(found, Unavailable):
        raise TrainingFailedError(f"{found.reason}: {found.detail}")
    return registry.read_manifest(directory, version)
