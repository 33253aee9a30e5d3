"""The outermost layer of every answer: trusted hosts, headers for browsers, and no stack trace."""

from __future__ import annotations

import logging
import urllib.parse
from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import configuration, ids

log = logging.getLogger(__name__)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
EXEMPT = "/health/"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
NOTHING_ALLOWED = "default-src 'none'; frame-ancestors 'none'"


class Edge:
    """Stands around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not scope["path"].startswith(EXEMPT) and not _is_trusted(Headers(scope=scope)):
            await _refused(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", NOTHING_ALLOWED)
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        except ClientDisconnect:
            # Whoever asked went away before the question was complete; nobody waits for an answer.
            log.info("a client went away")
        except Exception:
            # The last edge: whatever slipped through is our bug, masked outside and loud inside.
            error_id = str(ids.new_id())
            log.exception("error %s", error_id)
            if not started:
                await _json(500, _masked(error_id))(scope, receive, with_headers)


def _is_trusted(headers: Headers) -> bool:
    """Whether the Host is ours; behind another name a browser could be led to us."""
    installed = configuration.current()
    public = urllib.parse.urlsplit(installed.public_url).hostname
    host = headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rsplit(":", 1)[0] if ":" in host else host
    return name == public or (installed.environment != "live" and name in LOOPBACK)


async def _refused(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = {"errors": [{"message": "Unknown host.", "extensions": {"code": "BAD_USER_INPUT"}}]}
    await _json(400, body)(scope, receive, send)


def _masked(error_id: str) -> dict[str, Any]:
    extensions = {"code": "INTERNAL", "errorId": error_id}
    return {"errors": [{"message": "Something went wrong on our side.", "extensions": extensions}]}


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
