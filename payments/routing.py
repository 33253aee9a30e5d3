"""Payment routing: which channel can carry this, and in which order of preference.

Local operations need none. The candidates with their scores are stored with the attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from channels import breaker
from channels.contract import Channel, InstructionKind
from channels.registry import channels
from core.errors import NoRoute
from core.money import Money, fee_minor
from payments.product import Product
from payments.states import OperationType


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The chosen channel, and every candidate with what spoke for it."""

    channel: str
    candidates: tuple[dict[str, Any], ...]


def choose_route(product: Product, operation: OperationType, money: Money) -> Route | None:
    """The cheapest healthy channel that carries this kind, currency and amount.

    None for a local operation. Raises `NoRoute` where a channel is needed and none can carry it.
    A channel whose breaker is open stays a candidate of the last resort: it answers `NOT_SENT`.
    """
    kind = product.channel_kinds.get(operation)
    if kind is None:
        return None
    able = [
        channel
        for channel in channels().values()
        if channel.CHANNEL.carries(InstructionKind(kind), money)
    ]
    candidates = sorted((_candidate(channel, money) for channel in able), key=_preference)
    if not candidates:
        raise NoRoute()
    return Route(channel=candidates[0]["channel"], candidates=tuple(candidates))


def _candidate(channel: Channel, money: Money) -> dict[str, Any]:
    profile = channel.CHANNEL
    fee = profile.fee_fixed_minor + fee_minor(money.amount_minor, profile.fee_rate_millionths)
    healthy = breaker.state(profile.code, "invoke") != "OPEN"
    return {"channel": profile.code, "fee_minor": fee, "healthy": healthy}


def _preference(candidate: dict[str, Any]) -> tuple[bool, int, str]:
    return not candidate["healthy"], candidate["fee_minor"], candidate["channel"]
