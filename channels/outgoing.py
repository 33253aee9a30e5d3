"""One HTTP exchange with a provider, bounded in time and size, with a value for every ending.

What matters about a failure is whether a byte of the request may have left: that alone separates
"certainly not done" from "not known". No proxy or certificate setting comes from the environment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from core import clock

ANSWER_BYTES_MAX = 64 * 1024
CONNECT_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A complete answer (`failure` is None), or why there is none and whether anything left."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    began: bool = True
    failure: str | None = None
    latency_ms: float = 0.0


_shared: tuple[asyncio.AbstractEventLoop, httpx2.AsyncClient] | None = None


async def exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes, *, timeout_seconds: float
) -> Exchange:
    """Send one request and read its whole answer. Never raises, except when it is cancelled.

    Redirects are not followed. The time-out covers everything from connecting to the last byte, so
    an answer that drips in slowly ends like one that never comes.
    """
    started_ms = clock.monotonic_ms()
    began = False

    async def on_progress(name: str, info: dict[str, Any]) -> None:
        nonlocal began
        began = began or name.endswith("send_request_headers.started")

    def failed(reason: str) -> Exchange:
        latency_ms = clock.monotonic_ms() - started_ms
        return Exchange(began=began, failure=reason, latency_ms=latency_ms)

    try:
        async with (
            asyncio.timeout(timeout_seconds),
            _client().stream(
                method,
                url,
                headers={**headers, "accept-encoding": "identity"},
                content=body,
                extensions={"trace": on_progress},
            ) as response,
        ):
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > ANSWER_BYTES_MAX:
                    return failed("ANSWER_TOO_LARGE")
            return Exchange(
                status=response.status_code,
                headers=dict(response.headers),
                body=bytes(received),
                latency_ms=clock.monotonic_ms() - started_ms,
            )
    except (TimeoutError, httpx2.TimeoutException):
        return failed("TIMED_OUT")
    except (httpx2.TransportError, OSError):
        return failed("CONNECTION_LOST" if began else "NO_CONNECTION")
    except Exception:  # The edge of a provider call: whatever broke, the caller gets a value.
        logger.exception("a provider call broke")
        return failed("CALL_BROKE")


async def close() -> None:
    """Close the connections of this process; the next exchange opens new ones."""
    global _shared
    shared, _shared = _shared, None
    if shared is not None:
        await shared[1].aclose()


def _client() -> httpx2.AsyncClient:
    """The shared client. Connections cannot outlive their event loop, so a new loop gets a new one.

    Idle connections are dropped well before a server would drop them, so that a request is rarely
    written to a connection that is just being closed, which would be an unknown outcome.
    """
    global _shared
    loop = asyncio.get_running_loop()
    if _shared is None or _shared[0] is not loop:
        client = httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            limits=httpx2.Limits(
                max_connections=100,
                max_keepalive_connections=20,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
        )
        _shared = (loop, client)
    return _shared[1]
