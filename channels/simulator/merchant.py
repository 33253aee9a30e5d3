"""A merchant's server for demonstrations: it takes webhooks, checks them and shows them as JSON.

A secret is registered by the admin interface; without one a webhook is kept as not verified.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from channels.simulator import fields, ledger
from channels.simulator.api import limited_body
from channels.simulator.callbacks import Bank
from core import clock

WEBHOOKS_SHOWN_MAX = 100


async def receive(request: Request) -> Response:
    """POST: 204 if a registered secret signed it, or while none is registered; else 401."""
    bank: Bank = request.app.state.bank
    try:
        body = await limited_body(request)
        text = body.decode()
    except (fields.Invalid, UnicodeDecodeError):
        return JSONResponse({"error": "FIELD_INVALID"}, 400)
    verified = _verified(bank.connection, body, dict(request.headers))
    bank.connection.execute(
        "INSERT INTO webhook (event_id, verified, body, received_at) VALUES (?, ?, ?, ?)",
        (request.headers.get("webhook-id", ""), verified, text, clock.now().timestamp()),
    )
    return Response(status_code=401 if verified is False else 204)


async def show(request: Request) -> Response:
    """GET: the last webhooks, newest first."""
    bank: Bank = request.app.state.bank
    rows = bank.connection.execute(
        "SELECT * FROM webhook ORDER BY webhook_id DESC LIMIT ?", (WEBHOOKS_SHOWN_MAX,)
    ).fetchall()
    return JSONResponse([_shown(row) for row in rows])


def _verified(connection: sqlite3.Connection, body: bytes, headers: dict[str, str]) -> bool | None:
    """Whether any registered secret signed this; None while there is none."""
    secrets = [row["secret"] for row in connection.execute("SELECT secret FROM webhook_secret")]
    for secret in secrets:
        try:
            Webhook(secret).verify(body, headers)
        except (WebhookVerificationError, ValueError):
            continue
        return True
    return False if secrets else None


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    try:
        body = orjson.loads(row["body"])
    except orjson.JSONDecodeError:
        body = row["body"]
    return {
        "event_id": row["event_id"],
        "verified": None if row["verified"] is None else bool(row["verified"]),
        "received_at": ledger.instant(row["received_at"]),
        "body": body,
    }
