"""The values of an assessment: what is judged, a profile as it was read, the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The payment that is assessed. `customer_id` is its payer; a merchant's own payout has none.

    `effective_at` is the instant that features read; it must be set when the payment is assessed.
    """

    operation: str
    amount_minor: int
    currency: str
    customer_id: UUID | None
    merchant_id: UUID
    payee_customer_id: UUID | None = None
    effective_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as it was read; version 0 and an empty state where there is none."""

    version: int
    state: Mapping[str, Any]


NO_PROFILE = Profile(0, {})


class Written(NamedTuple):
    """A profile as it shall be: the row of `profile_input`, without its member."""

    key: str
    version: int
    state: str


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to judge, by the profiles that were read for it."""

    subject: Subject
    profiles: Mapping[str, Profile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A decision. `probability` and `model_version` are absent where no model scored; `features` is
    what `features.stored` made.

    `profiles` are the own profiles to write, each at the version that was read plus one;
    `profile_versions` names every profile that was read, shared ones too.
    """

    outcome: str
    probability: float | None
    reason_codes: tuple[str, ...]
    rules_fired: tuple[str, ...]
    model_version: str | None
    features: bytes
    source: str
    latency_ms: float
    profiles: tuple[Written, ...]
    profile_versions: Mapping[str, int]
