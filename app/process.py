"""What every process does when it starts: settings, logs, connections."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import settings
from app.settings import Settings
from core import configuration, hub, phase
from core.redact import RedactingFilter

YOUNG_OBJECTS_MAX = 50_000
"""Allocations between two looks of the garbage collector; a payment makes no cycles of its own."""

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def prepare() -> Settings:
    """Read and install the settings, and let no secret into a log. Raises `SettingsInvalid`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("httpx2", "httpx", "tortoise", "arq"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    read = settings.read(Settings)
    configuration.install(read.configuration())
    return read


@asynccontextmanager
async def connected(
    name: str, *, safe_database: bool = True, long_statements: bool = False
) -> AsyncIterator[Settings]:
    """A prepared process with its connections open; `name` is what the database shows for it.

    Raises `SettingsInvalid`, `ServerBusy` when the database is away, and `UnsafeDatabase` when it
    could lose what it acknowledged (unless `safe_database` is false: the doctor wants to look).
    """
    from app.checks import refuse_unsafe_database

    read = prepare()
    await phase.connect(
        read.database_url,
        pool_size=read.pool_size,
        application_name=f"purser-{name}",
        long_statements=long_statements,
    )
    hub.connect(read.redis_url)
    try:
        if safe_database:
            await refuse_unsafe_database()
        yield read
    finally:
        await hub.close()
        await phase.close()


def settle() -> None:
    """Called once a process that serves has loaded all it needs: what lives until its end (the
    schema, the model) is no longer looked through for garbage, which would stop every payment.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 50)
