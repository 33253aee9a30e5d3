"""The one place that reads the application's clocks.

Tokens and signatures use `now()`. Money never does: its expiries follow the database's clock, which
only the SQL function `purser_now()` reads.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The application's wall clock, aware, in UTC."""
    return datetime.now(UTC)


def monotonic_ms() -> float:
    """Milliseconds of a clock that never jumps; only differences mean anything."""
    return time.perf_counter() * 1000.0
