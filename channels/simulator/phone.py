"""The simulator stands for the phone: it takes signed messages, shows them in its log and as JSON.

Whoever can read this log can read the codes in it. That is its purpose, and why it is never
run beside a live environment.
"""

from __future__ import annotations

import hmac
import logging
import sys

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from channels import sms
from channels.simulator import fields, ledger
from channels.simulator.api import limited_body
from channels.simulator.callbacks import Bank
from core import clock

MESSAGES_SHOWN_MAX = 20

logger = logging.getLogger("purser.simulator.phone")


def log_messages() -> None:
    """Write messages to the standard output, past the filter that hides codes everywhere else."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("phone %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


async def receive(request: Request) -> Response:
    """POST: one message from us, signed with the shared key."""
    bank: Bank = request.app.state.bank
    try:
        body = await limited_body(request)
        timestamp = request.headers.get(sms.TIMESTAMP_HEADER, "")
        nonce = request.headers.get(sms.NONCE_HEADER, "")
        expected = sms.signature(bank.settings.sms_key, request.url.path, timestamp, nonce, body)
        given = request.headers.get(sms.SIGNATURE_HEADER, "")
        if not hmac.compare_digest(expected.encode(), given.encode()):
            return JSONResponse({"error": "SIGNATURE_INVALID"}, 401)
        if abs(clock.now().timestamp() - int(timestamp)) > sms.WINDOW_SECONDS:
            return JSONResponse({"error": "TIMESTAMP_OUTSIDE_WINDOW"}, 401)
        message = fields.parsed(body)
    except (fields.Invalid, ValueError):
        return JSONResponse({"error": "FIELD_INVALID"}, 400)
    destination, text = message.get("destination"), message.get("text")
    if not isinstance(destination, str) or not isinstance(text, str) or not destination:
        return JSONResponse({"error": "FIELD_MISSING"}, 400)
    cursor = bank.connection.execute(
        "INSERT INTO message (destination, text, received_at) VALUES (?, ?, ?)",
        (destination, text, clock.now().timestamp()),
    )
    logger.info("%s: %s", destination, text)
    return JSONResponse({"message_id": cursor.lastrowid})


async def show(request: Request) -> Response:
    """GET: the last messages to one destination, newest first."""
    bank: Bank = request.app.state.bank
    rows = bank.connection.execute(
        """
        SELECT text, received_at FROM message WHERE destination = ?
        ORDER BY message_id DESC LIMIT ?
        """,
        (request.path_params["destination"], MESSAGES_SHOWN_MAX),
    ).fetchall()
    return JSONResponse(
        [{"text": row["text"], "received_at": ledger.instant(row["received_at"])} for row in rows]
    )
