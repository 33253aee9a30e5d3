"""The served form of a model: an ONNX graph in float32, calibration beside it, reasons on demand.

The graph runs in the calling thread: handing one row to an executor costs more than scoring it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from risk_model.calibration import Calibration
from risk_model.features import NAMES, vector
from risk_model.thresholds import Policy, policy_of

REASONS: dict[str, tuple[str, ...]] = {
    "AMOUNT_UNUSUAL": (
        "amount",
        "deviation",
        "amount_to_mean",
        "amount_to_median",
        "amount_to_largest",
        "amount_rank",
    ),
    "PAYMENTS_FREQUENT": (
        "count_1h",
        "count_1d",
        "count_7d",
        "count_30d",
        "pace",
        "spending_pace",
        "size_1h",
        "idle_hours",
    ),
    "AMOUNT_REPEATED": ("repeats_1d",),
    "ODD_AMOUNTS_LATELY": ("odd_15d", "odd_share_15d"),
    "PAYER_NEW": ("habit_count", "age_days"),
    "COUNTERPARTY_NEW_TO_PAYER": ("is_newcomer", "newcomers_1d", "newcomers_7d"),
    "TIME_UNUSUAL": ("hour_habit",),
    "TOP_UP_DRAINED": ("top_up_hours", "top_up_drained"),
    "OPERATION": ("is_top_up", "is_transfer", "is_payout"),
    "COUNTERPARTY_FRAUDS_KNOWN": (
        "shared_frauds_7d",
        "shared_frauds_30d",
        "shared_fraud_share_30d",
        "shared_fraud_days",
    ),
    "COUNTERPARTY_UNUSUAL": (
        "shared_deviation",
        "shared_pace",
        "shared_newcomer_share_7d",
        "shared_odd_share_7d",
    ),
    "COUNTERPARTY_NEW": ("shared_count_30d", "shared_age_days"),
}
"""The fixed list of reason codes, and the features that each one stands for."""
REASONS_MAX = 3
LEAST_CONTRIBUTION = 0.2
_PLACES = {code: [NAMES.index(name) for name in names] for code, names in REASONS.items()}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What `scoring.Scorer` calls."""

    version: str
    feature_schema: str
    policy: Policy
    calibration: Calibration
    session: onnxruntime.InferenceSession
    usual: np.ndarray[Any, Any]

    def probabilities(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The calibrated probability of fraud of each float32 row."""
        raw = self.session.run(["probabilities"], {"features": rows})[0][:, 1]
        return self.calibration.applied(raw.astype(np.float64))

    def reasons(self, row: np.ndarray[Any, Any]) -> tuple[str, ...]:
        """Up to three codes, the strongest first: whose features, were they usual, would lower the
        odds most.

        A contribution is the fall of the log-odds when all features of a code take their median
        among genuine payments; all codes are scored in one call.
        """
        rows = np.repeat(row.reshape(1, -1), len(_PLACES) + 1, axis=0)
        for line, places in enumerate(_PLACES.values(), start=1):
            rows[line, places] = self.usual[places]
        odds = [_log_odds(p) for p in self.probabilities(rows).tolist()]
        falls = {code: odds[0] - odds[line] for line, code in enumerate(_PLACES, start=1)}
        ranked = sorted(falls, key=falls.__getitem__, reverse=True)
        return tuple(code for code in ranked[:REASONS_MAX] if falls[code] > LEAST_CONTRIBUTION)


def served_model(graph: bytes, manifest: Mapping[str, Any]) -> ServedModel:
    """The model of an ONNX graph and its verified manifest; raises what the runtime raises."""
    return ServedModel(
        version=manifest["version"],
        feature_schema=manifest["feature_schema"],
        policy=policy_of(manifest["policy"]),
        calibration=Calibration(**manifest["calibration"]),
        session=inference_session(graph),
        usual=vector([manifest["usual"]])[0],
    )


def inference_session(graph: bytes) -> onnxruntime.InferenceSession:
    """A session that computes in the calling thread alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(bounded / (1 - bounded))
