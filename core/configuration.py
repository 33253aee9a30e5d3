"""The values of the settings, as every package sees them. `app/settings.py` alone reads the
environment.

Installed once when a process starts; tests install their own.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

PLATFORM_MERCHANT_ID = uuid.UUID("00000000-0000-7000-8000-000000000001")
"""The merchant that owns a wallet's own top-ups and transfers. Seeded by the migrations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Amounts in minor units, durations in seconds, keys as bytes (never shown by `repr`)."""

    environment: Literal["development", "sandbox", "live"]
    public_url: str
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    pool_size: int = 10
    master_key: bytes = field(repr=False)
    token_issuer: str
    token_audience: str
    bank_url: str
    bank_private_key: bytes = field(repr=False)
    bank_public_key: bytes
    sms_url: str
    sms_key: bytes = field(repr=False)
    risk_model_directory: Path
    documents_directory: Path | None = None
    small_amount_limit_minor: int = 200_00
    small_amount_daily_limit_minor: int = 1_000_00
    callback_confirm_over_minor: int = 1_000_000_00
    order_expiry_seconds: int = 1_800
    challenge_seconds: int = 300
    review_seconds: int = 86_400
    sweep_interval_seconds: float = 1.0
    dispatch_interval_seconds: float = 0.05
    webhook_loopback_addresses: tuple[str, ...] = ()
    replay_allowed: bool = False
    crash_point: str = ""


_installed: Configuration | None = None


def install(configuration: Configuration | None) -> None:
    """Make `configuration` the one that `current()` returns."""
    global _installed
    _installed = configuration


def current() -> Configuration:
    """The installed configuration; raises `RuntimeError` where a process forgot to install one."""
    if _installed is None:
        raise RuntimeError("no configuration is installed in this process")
    return _installed
