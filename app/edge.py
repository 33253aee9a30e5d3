"""The outermost layer of every answer: trusted hosts, headers for browsers, and no stack trace."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import configuration, ids

log = logging.getLogger(__name__)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
EXEMPT = "/health/"
GRAPHQL_PATH = "/graphql"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
POLICY = b"content-security-policy"
NOTHING_ALLOWED = b"default-src 'none'; frame-ancestors 'none'"
HEADERS_AND_POLICY = (*HEADERS, (POLICY, NOTHING_ALLOWED))


class Edge:
    """Stands around the whole application."""

    def __init__(self, app: ASGIApp, graphql: Callable[[ASGIApp], ASGIApp] | None = None) -> None:
        self.app = app
        self._graphql = graphql(app) if graphql else app

    def _served_by(self, scope: Scope) -> ASGIApp:
        """The way of most requests is known without a router."""
        return self._graphql if scope["path"] == GRAPHQL_PATH else self.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not scope["path"].startswith(EXEMPT) and not _is_trusted(scope):
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
                given = message["headers"]
                policy = any(name == POLICY for name, _ in given)
                added = HEADERS if policy else HEADERS_AND_POLICY
                message["headers"] = [*given, *added]
            await send(message)

        try:
            await self._served_by(scope)(scope, receive, with_headers)
        except ClientDisconnect:
            # Whoever asked went away before the question was complete; nobody waits for an answer.
            log.info("a client went away")
        except Exception:
            # The last edge: whatever slipped through is our bug, masked outside and loud inside.
            error_id = str(ids.new_id())
            log.exception("error %s", error_id)
            if not started:
                await _json(500, _masked(error_id))(scope, receive, with_headers)


def _is_trusted(scope: Scope) -> bool:
    """Whether the Host is ours; behind another name a browser could be led to us."""
    installed = configuration.current()
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return _is_ours(host, installed.public_url, installed.environment)


@lru_cache(maxsize=256)
def _is_ours(host_header: bytes, public_url: str, environment: str) -> bool:
    public = urllib.parse.urlsplit(public_url).hostname
    host = host_header.decode("latin-1").lower()
    name = host if host.endswith("]") else host.rsplit(":", 1)[0] if ":" in host else host
    return name == public or (environment != "live" and name in LOOPBACK)


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
