"""Where models are kept: one folder per version, never changed, and a file that names the champion.

A model is loaded from data formats alone (ONNX), and only after the manifest's signature, every
file's hash, the feature schema and the golden scores were found right; whatever is not right is an
`Unavailable` with its reason, and rules decide.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core import clock, ids
from risk_model import manifest as manifests
from risk_model.features import NAMES, SCHEMA, vector
from risk_model.scoring import BUDGET_MS, Reason, Scorer, Unavailable
from risk_model.serving import ServedModel, served_model

log = logging.getLogger(__name__)

CHAMPION = "champion"
GOLDEN_DIFFERENCE_MAX = 1e-5
GOLDEN_AMOUNT = 100.0
"""The amount, in major units, at which the outcomes of the golden rows are compared."""
FILE_BYTES_MAX = 64 << 20
TRUSTED_TYPES = (
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""All that the trainable form may hold beside what skops trusts by itself."""
_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


class _RefusedError(Exception):
    """Ends the checks of one model; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.unavailable = Unavailable(reason, detail)


def save(directory: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Write a new version, signed, and return its name; it is complete or not there at all.

    The name is made of the manifest's own hash, so that a version can never mean two things.
    """
    body = {
        **manifest,
        "format": manifests.FORMAT,
        "files": {name: manifests.digest(data) for name, data in sorted(files.items())},
    }
    version = f"{manifest['family']}-{manifests.digest(manifests.encoded(body))[:12]}"
    data = manifests.encoded({**body, "version": version})
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / f".draft-{ids.new_id()}"
    draft.mkdir()
    for name, content in files.items():
        (draft / name).write_bytes(content)
    (draft / manifests.MANIFEST).write_bytes(data)
    (draft / manifests.SIGNATURE).write_bytes(manifests.signature_of(data))
    if (directory / version).exists():
        shutil.rmtree(draft)
    else:
        draft.rename(directory / version)
    return version


def promote(directory: Path, version: str) -> None:
    """Make `version` the champion that processes load; the change is one rename."""
    draft = directory / f".draft-{ids.new_id()}"
    draft.write_text(version)
    draft.rename(directory / CHAMPION)


def champion_version(directory: Path) -> str | None:
    """The version that the alias names; None where there is none."""
    try:
        version = (directory / CHAMPION).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return version if _VERSION.fullmatch(version) else None


def load_champion(directory: Path) -> Scorer | Unavailable:
    """The scorer of the champion, or why there is none."""
    version = champion_version(directory)
    if version is None:
        return Unavailable(Reason.MISSING, "no champion was named")
    return load(directory, version)


def load(directory: Path, version: str) -> Scorer | Unavailable:
    """The scorer of one version after all checks; `Unavailable` with the first one that failed."""
    try:
        folder = directory / version
        manifest = _verified_manifest(folder, version)
        model = _served(folder, manifest)
        _check_golden(model, manifest)
    except _RefusedError as refusal:
        return refusal.unavailable
    return Scorer(model)


def read_manifest(directory: Path, version: str) -> dict[str, Any]:
    """The manifest of a version; raises `ValueError` where its signature does not hold."""
    try:
        return _verified_manifest(directory / version, version)
    except _RefusedError as refusal:
        raise ValueError(f"{refusal.unavailable.reason}: {refusal}") from None


def _verified_manifest(folder: Path, version: str) -> dict[str, Any]:
    data = _bytes_of(folder / manifests.MANIFEST, Reason.MISSING)
    signature = _bytes_of(folder / manifests.SIGNATURE, Reason.UNSIGNED)
    if not manifests.is_signed(data, signature):
        raise _RefusedError(Reason.UNSIGNED, version)
    try:
        manifest = manifests.decoded(data)
    except ValueError as error:
        raise _RefusedError(Reason.UNREADABLE, str(error)) from None
    if manifest["version"] != version:
        raise _RefusedError(Reason.ALTERED, f"{version} holds {manifest['version']}")
    if manifest["feature_schema"] != SCHEMA or manifest["features"] != list(NAMES):
        raise _RefusedError(Reason.WRONG_FEATURES, version)
    return manifest


def _served(folder: Path, manifest: Mapping[str, Any]) -> ServedModel:
    """The model from the very bytes whose hashes were compared."""
    contents = {}
    for name, expected in manifest["files"].items():
        if Path(name).name != name:
            raise _RefusedError(Reason.ALTERED, name)
        contents[name] = _bytes_of(folder / name, Reason.ALTERED)
        if manifests.digest(contents[name]) != expected:
            raise _RefusedError(Reason.ALTERED, name)
    try:
        return served_model(contents[manifests.MODEL], manifest)
    except Exception as error:  # noqa: BLE001  The runtime raises types of its own.
        raise _RefusedError(Reason.UNREADABLE, type(error).__name__) from None


def _check_golden(model: ServedModel, manifest: Mapping[str, Any]) -> None:
    """The served scores and outcomes must be those that training recorded, and come in time."""
    golden = manifest["golden"]
    rows = vector(golden["rows"])
    expected = np.array(golden["probabilities"])
    found, took_ms = _timed(model, rows)
    difference = float(np.max(np.abs(found - expected), initial=0.0))
    if not difference <= GOLDEN_DIFFERENCE_MAX:
        raise _RefusedError(Reason.WRONG_SCORES, f"differs by {difference:.1e}")
    outcomes = [model.policy.outcome(p, GOLDEN_AMOUNT) for p in found.tolist()]
    if outcomes != golden["outcomes"]:
        raise _RefusedError(Reason.WRONG_SCORES, "a decision differs")
    if took_ms > BUDGET_MS:
        raise _RefusedError(Reason.TOO_SLOW, f"{took_ms:.0f} ms")


def _timed(model: ServedModel, rows: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
    """The scores, and the milliseconds of the quickest of three calls: a machine may be busy."""
    quickest_ms = float("inf")
    for _ in range(3):
        started_ms = clock.monotonic_ms()
        found = model.probabilities(rows)
        quickest_ms = min(quickest_ms, clock.monotonic_ms() - started_ms)
        if quickest_ms <= BUDGET_MS:
            break
    return found, quickest_ms


def _bytes_of(path: Path, reason: Reason) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _RefusedError(Reason.ALTERED, f"{path.name} is too large")
        return path.read_bytes()
    except OSError:
        raise _RefusedError(reason, path.name) from None
