"""From a probability and an amount to an outcome: the one with the least expected loss.

Four losses are straight lines in the probability, each flatter than the one before, so that a
higher probability never brings a weaker outcome. Floors keep the model from asking or refusing more
genuine payers than it may, whatever the amounts are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

OUTCOMES = ("ALLOW", "CHALLENGE", "REVIEW", "BLOCK")
STRENGTH = {outcome: place for place, outcome in enumerate(OUTCOMES)}
GENUINE_SHARES = {"CHALLENGE": 0.03, "REVIEW": 0.005, "BLOCK": 0.001}
"""The budget: at most this share of the genuine payments may reach each floor."""
LEAST_FLOORS = {"CHALLENGE": 0.02, "REVIEW": 0.15, "BLOCK": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Example costs in major units; shares and effects between 0 and 1.

    A challenge costs something itself, loses some genuine payers, and stops most frauds; a review
    costs an analyst's time and stops nearly all; a wrong block costs the margin and an angry payer.
    """

    challenge: float = 0.10
    challenge_abandoned: float = 0.08
    challenge_effect: float = 0.90
    review: float = 4.00
    review_abandoned: float = 0.08
    review_effect: float = 0.95
    margin: float = 0.02
    wrong_block: float = 5.00


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What turns probabilities into outcomes. Floors ascend from CHALLENGE to BLOCK."""

    challenge_floor: float
    review_floor: float
    block_floor: float
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        costs = self.costs
        ordered = 0 < self.challenge_floor <= self.review_floor <= self.block_floor <= 1
        if not (ordered and costs.challenge_effect <= costs.review_effect <= 1):
            raise ValueError("floors and effects must ascend with the strength of the outcome")

    def outcome(self, probability: float, amount: float) -> str:
        """The outcome for a payment of `amount` major units; ties go to the weaker one."""
        if probability < self.challenge_floor:
            return "ALLOW"
        losses = expected_losses(self.costs, probability, amount)
        floors = (0.0, self.challenge_floor, self.review_floor, self.block_floor)
        allowed = [place for place, floor in enumerate(floors) if probability >= floor]
        return OUTCOMES[min(allowed, key=losses.__getitem__)]

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return asdict(self)


def policy_of(document: Mapping[str, Any]) -> Policy:
    """The policy of a manifest; raises `TypeError` or `ValueError` for one that is not one."""
    return Policy(**{**document, "costs": Costs(**document["costs"])})


def expected_losses(
    costs: Costs, probability: float, amount: float
) -> tuple[float, float, float, float]:
    """The expected loss of each of `OUTCOMES`, in major units."""
    genuine = 1 - probability
    lost_margin = genuine * costs.margin * amount
    return (
        probability * amount,
        costs.challenge
        + lost_margin * costs.challenge_abandoned
        + probability * (1 - costs.challenge_effect) * amount,
        costs.review
        + lost_margin * costs.review_abandoned
        + probability * (1 - costs.review_effect) * amount,
        genuine * costs.wrong_block + lost_margin,
    )


def choose_policy(
    probabilities: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], costs: Costs | None = None
) -> Policy:
    """The policy whose floors keep the budget of `GENUINE_SHARES` on these scored payments."""
    genuine = probabilities[labels == 0]
    floors: dict[str, float] = {}
    least = 0.0
    for outcome, share in GENUINE_SHARES.items():
        within_budget = float(np.quantile(genuine, 1 - share))
        least = min(0.99, max(least, LEAST_FLOORS[outcome], within_budget))
        floors[f"{outcome.lower()}_floor"] = round(least, 6)
    return Policy(**floors, costs=costs or Costs())


def strongest(*outcomes: str) -> str:
    """The strongest of several outcomes: block, review, challenge, allow."""
    return max(outcomes, key=STRENGTH.__getitem__)
