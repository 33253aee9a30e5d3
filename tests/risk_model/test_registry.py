"""The registry: a model is served only when signature, hashes, features and scores are right."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from core import configuration as installed_configuration
from risk_model import champion, manifest, registry
from risk_model.assessment import Profile, assess
from risk_model.features import NAMES, SCHEMA, vector
from risk_model.generator import generate
from risk_model.history import History
from risk_model.replay import replay
from risk_model.scoring import Reason, Scorer, Unavailable
from risk_model.serving import REASONS
from tests.risk_model.conftest import LIMITS, SOMETIME, Trained, a_subject, later


@pytest.fixture
def copied(signed_here: Trained, tmp_path: Path) -> Path:
    """A registry of the test's own, to be spoiled."""
    directory = tmp_path / "registry"
    shutil.copytree(signed_here.directory, directory)
    return directory


@pytest.fixture
def folder(copied: Path, trained: Trained) -> Path:
    """The champion's folder in it."""
    return copied / str(trained.manifest["version"])


def test_a_trained_model_is_champion_and_loads(signed_here: Trained) -> None:
    found = registry.load_champion(signed_here.directory)
    assert isinstance(found, Scorer)
    assert found.model.version == signed_here.manifest["version"]
    assert found.model.feature_schema == SCHEMA


def test_no_model_is_pickled(signed_here: Trained) -> None:
    kept = {path.name for path in signed_here.directory.rglob("*") if path.is_file()}
    assert kept == {"champion", "manifest.json", "manifest.sig", "model.onnx", "model.skops"}


def test_the_trainable_model_needs_no_untrusted_type_but_its_trees(signed_here: Trained) -> None:
    import skops.io

    path = signed_here.directory / signed_here.manifest["version"] / "model.skops"
    untrusted = skops.io.get_untrusted_types(file=path)
    assert set(untrusted) <= set(registry.TRUSTED_TYPES)
    trees = skops.io.load(path, trusted=registry.TRUSTED_TYPES)
    rows = np.array(signed_here.manifest["golden"]["rows"], dtype=np.float32)
    assert trees.predict_proba(rows).shape == (len(rows), 2)


def test_nothing_there_is_missing(tmp_path: Path, signed_here: Trained) -> None:
    assert _reason(registry.load_champion(tmp_path)) is Reason.MISSING
    (tmp_path / "champion").write_text("never-made")
    assert _reason(registry.load_champion(tmp_path)) is Reason.MISSING


@pytest.mark.parametrize("name", ["../elsewhere", "", "/etc", "a/b", "..", "\udcff"])
def test_a_champion_that_is_no_version_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "champion").write_text(name, errors="surrogateescape")
    assert _reason(registry.load_champion(tmp_path)) is Reason.MISSING


@pytest.mark.parametrize("name", ["model.onnx", "model.skops"])
def test_an_altered_file_is_refused(copied: Path, folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert _reason(registry.load_champion(copied)) is Reason.ALTERED


def test_a_file_that_is_gone_is_refused(copied: Path, folder: Path) -> None:
    (folder / "model.onnx").unlink()
    assert _reason(registry.load_champion(copied)) is Reason.ALTERED


def test_an_unsigned_model_is_refused(copied: Path, folder: Path) -> None:
    (folder / "manifest.sig").unlink()
    assert _reason(registry.load_champion(copied)) is Reason.UNSIGNED


def test_an_altered_manifest_is_refused_before_it_is_parsed(copied: Path, folder: Path) -> None:
    document = orjson.loads((folder / "manifest.json").read_bytes())
    document["policy"]["challenge_floor"] = 0.99
    (folder / "manifest.json").write_bytes(manifest.encoded(document))
    assert _reason(registry.load_champion(copied)) is Reason.UNSIGNED
    (folder / "manifest.json").write_bytes(b"{ not json")
    assert _reason(registry.load_champion(copied)) is Reason.UNSIGNED


def test_a_model_signed_with_another_key_is_refused(signed_here: Trained) -> None:
    other = replace(signed_here.configuration, master_key=b"a key that never signed anything")
    installed_configuration.install(other)
    assert _reason(registry.load_champion(signed_here.directory)) is Reason.UNSIGNED


def test_a_model_of_other_features_is_refused(copied: Path, folder: Path) -> None:
    _signed_anew(folder, feature_schema="0123456789abcdef")
    assert _reason(registry.load_champion(copied)) is Reason.WRONG_FEATURES
    _signed_anew(folder, feature_schema=SCHEMA, features=list(reversed(NAMES)))
    assert _reason(registry.load_champion(copied)) is Reason.WRONG_FEATURES


def test_a_version_under_another_name_is_refused(copied: Path, folder: Path) -> None:
    folder.rename(copied / "another")
    registry.promote(copied, "another")
    assert _reason(registry.load_champion(copied)) is Reason.ALTERED


def test_a_model_that_scores_otherwise_than_recorded_is_refused(copied: Path, folder: Path) -> None:
    golden = orjson.loads((folder / "manifest.json").read_bytes())["golden"]
    golden["probabilities"][0] += 1e-4
    _signed_anew(folder, golden=golden)
    assert _reason(registry.load_champion(copied)) is Reason.WRONG_SCORES


def test_a_model_that_decides_otherwise_than_recorded_is_refused(
    copied: Path, folder: Path
) -> None:
    golden = orjson.loads((folder / "manifest.json").read_bytes())["golden"]
    golden["outcomes"][0] = "BLOCK" if golden["outcomes"][0] != "BLOCK" else "ALLOW"
    _signed_anew(folder, golden=golden)
    assert _reason(registry.load_champion(copied)) is Reason.WRONG_SCORES


def test_a_graph_that_is_none_is_refused(copied: Path, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    document = orjson.loads((folder / "manifest.json").read_bytes())
    document["files"]["model.onnx"] = manifest.digest(b"no graph")
    _signed_anew(folder, **document)
    assert _reason(registry.load_champion(copied)) is Reason.UNREADABLE


def test_a_manifest_that_names_a_file_elsewhere_is_refused(copied: Path, folder: Path) -> None:
    document = orjson.loads((folder / "manifest.json").read_bytes())
    _signed_anew(folder, files={**document["files"], "../champion": "00"})
    assert _reason(registry.load_champion(copied)) is Reason.ALTERED


def test_a_spoiled_champion_leaves_payments_to_the_rules(
    copied: Path, folder: Path, signed_here: Trained
) -> None:
    installed_configuration.install(replace(signed_here.configuration, risk_model_directory=copied))
    assert isinstance(champion.reload(), Scorer)
    (folder / "model.onnx").write_bytes(b"")
    assert isinstance(champion.reload(), Unavailable)
    small, large = a_subject(), a_subject(amount_minor=500_00)
    found = assess([small, large], [{}, {}])
    assert [(each.outcome, each.source) for each in found] == [
        ("ALLOW", "FALLBACK"),
        ("CHALLENGE", "FALLBACK"),
    ]


def test_the_served_scores_are_those_of_the_trained_trees(signed_here: Trained) -> None:
    import skops.io

    from risk_model.calibration import Calibration

    path = signed_here.directory / signed_here.manifest["version"] / "model.skops"
    trees = skops.io.load(path, trusted=registry.TRUSTED_TYPES)
    rows = replay(generate(4_000, seed=77, days=30))
    line = Calibration(**signed_here.manifest["calibration"])
    expected = line.applied(trees.predict_proba(rows)[:, 1])
    scorer = registry.load_champion(signed_here.directory)
    assert isinstance(scorer, Scorer)
    served = scorer.model.probabilities(rows)
    assert np.abs(served - expected).max() < 1e-5
    flipped = [
        (a, b)
        for a, b in zip(served.tolist(), expected.tolist(), strict=True)
        if scorer.model.policy.outcome(a, 80.0) != scorer.model.policy.outcome(b, 80.0)
    ]
    assert flipped == []


def test_training_twice_gives_the_same_scores(signed_here: Trained, tmp_path: Path) -> None:
    from risk_model.training import train

    again = train(tmp_path, seed=3, payments=15_000)
    for part in ("data", "golden", "policy", "metrics", "features"):
        assert again[part] == signed_here.manifest[part]


def test_the_model_finds_most_frauds_and_bothers_few(trained: Trained) -> None:
    metrics = trained.manifest["metrics"]
    assert metrics["auc"] > 0.85
    assert metrics["caught_challenge"] > 0.4
    assert metrics["genuine_challenge"] < 0.05
    assert metrics["caught_block"] <= metrics["caught_review"] <= metrics["caught_challenge"]


def test_a_new_customer_tops_up_and_pays_a_little_unasked(signed_here: Trained) -> None:
    scorer = registry.load_champion(signed_here.directory)
    top_up = a_subject(operation="TOP_UP", amount_minor=100_00)
    first = assess([top_up], [{}], scorer, LIMITS)[0]
    row = first.profiles[0]
    known = {row.key: Profile(row.version, orjson.loads(row.state))}
    payment = later(top_up, 20, operation="PAY", amount_minor=30_00)
    second = assess([payment], [known], scorer, LIMITS)[0]
    assert [each.outcome for each in (first, second)] == ["ALLOW", "ALLOW"]
    assert [each.source for each in (first, second)] == ["MODEL", "MODEL"]


def test_a_burst_of_large_payments_is_not_let_through_and_says_why(signed_here: Trained) -> None:
    scorer = registry.load_champion(signed_here.directory)
    subject = a_subject(amount_minor=20_00, effective_at=SOMETIME)
    known: dict[str, Profile] = {}
    for day in range(40):
        row = assess([later(subject, day * 86_400)], [known], scorer, LIMITS)[0].profiles[0]
        known = {row.key: Profile(row.version, orjson.loads(row.state))}
    outcomes, reasons = [], set()
    for step in range(6):
        burst = later(subject, 40 * 86_400 + 40_000 + step * 300, amount_minor=180_00)
        burst = replace(burst, merchant_id=a_subject().merchant_id)
        found = assess([burst], [known], scorer, LIMITS)[0]
        row = found.profiles[0]
        known = {row.key: Profile(row.version, orjson.loads(row.state))}
        outcomes.append(found.outcome)
        reasons.update(found.reason_codes)
    assert outcomes[-1] != "ALLOW"
    assert reasons & {"AMOUNT_UNUSUAL", "PAYMENTS_FREQUENT"}
    assert reasons <= set(REASONS)


def test_every_feature_stands_for_exactly_one_reason() -> None:
    named = [name for names in REASONS.values() for name in names]
    assert sorted(named) == sorted(NAMES)


def test_the_same_seed_makes_the_same_history_and_another_seed_another() -> None:
    once, twice, other = (generate(2_000, seed=seed, days=30) for seed in (5, 5, 6))
    assert _bytes(once) == _bytes(twice)
    assert _bytes(once) != _bytes(other)


def test_a_history_is_in_time_with_labels_known_after_the_fact() -> None:
    history = generate(5_000, seed=9, days=60)
    assert (np.diff(history.at) >= 0).all()
    frauds = history.is_fraud == 1
    assert (history.known_at[frauds] > history.at[frauds]).all()
    assert 0.01 < frauds.mean() < 0.12
    assert len(set(history.pattern.tolist())) == 11
    assert history.hundredths.min() >= 1


def _reason(found: Scorer | Unavailable) -> Reason | None:
    return found.reason if isinstance(found, Unavailable) else None


def _signed_anew(folder: Path, **changes: Any) -> None:
    document = {**orjson.loads((folder / "manifest.json").read_bytes()), **changes}
    data = manifest.encoded(document)
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sig").write_bytes(manifest.signature_of(data))


def _bytes(history: History) -> bytes:
    columns = (history.at, history.payer, history.hundredths, history.is_fraud, history.known_at)
    return b"".join(column.tobytes() for column in columns)


def test_golden_rows_stand_on_thresholds_too(signed_here: Trained) -> None:
    rows = vector(signed_here.manifest["golden"]["rows"])
    assert rows.shape == (256, len(NAMES))
