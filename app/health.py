"""Whether this process lives, and whether it can serve. Answers fast when everything else is slow.

Readiness has a database connection of its own, so that a pool in full use does not make a healthy
process look dead. Valkey and the risk model are shown but decide nothing:
payments go on without them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse

from core import clock, configuration
from risk_model import champion
from risk_model.scoring import Unavailable

ANSWER_SECONDS = 1.0
FRESH_MS = 200.0


class Probe:
    """The connections that only readiness uses."""

    def __init__(self) -> None:
        self._database: asyncpg.Connection | None = None
        self._valkey: Redis | None = None
        self._asking = asyncio.Lock()
        self._answers = [False, False]
        self._fresh_until_ms = 0.0

    async def live(self, request: Request) -> JSONResponse:
        """The process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, request: Request) -> JSONResponse:
        """200 when the database answers within a second, else 503."""
        async with self._asking:
            # Those who waited for this answer share it: many probes are one question.
            if clock.monotonic_ms() >= self._fresh_until_ms:
                self._answers = await asyncio.gather(
                    self._database_answers(), self._valkey_answers()
                )
                self._fresh_until_ms = clock.monotonic_ms() + FRESH_MS
        database, valkey = self._answers
        model = champion.current()
        body = {
            "status": "ready" if database else "not ready",
            "database": "up" if database else "down",
            "valkey": "up" if valkey else "down",
            "riskModel": "rules only" if isinstance(model, Unavailable) else model.model.version,
        }
        return JSONResponse(body, 200 if database else 503)

    async def close(self) -> None:
        """Give both connections back."""
        if self._database is not None:
            self._database.terminate()
        if self._valkey is not None:
            with suppress(RedisError, OSError):
                await self._valkey.aclose()

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._database is None or self._database.is_closed():
                    self._database = await asyncpg.connect(
                        configuration.current().database_url,
                        server_settings={"application_name": "purser-health"},
                    )
                return bool(await self._database.fetchval("SELECT true"))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if self._database is not None:
                self._database.terminate()
                self._database = None
            return False

    async def _valkey_answers(self) -> bool:
        if self._valkey is None:
            self._valkey = Redis.from_url(configuration.current().redis_url)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool(await self._valkey.ping())
        except (OSError, TimeoutError, RedisError):
            return False
