"""The port to the provider of text messages and e-mails: one signed request per message.

The text carries one-time codes: it is never logged, never stored and never part of a result here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlsplit

import orjson

from channels import outgoing
from channels.contract import Result, ResultKind
from core import clock, configuration, ids

SEND_TIMEOUT_SECONDS = 5.0
WINDOW_SECONDS = 300

TIMESTAMP_HEADER = "sms-timestamp"
NONCE_HEADER = "sms-nonce"
SIGNATURE_HEADER = "sms-signature"


async def send(destination: str, text: str) -> Result:
    """Hand `text` to the provider for a phone number (E.164) or an e-mail address. Never raises.

    `SUCCESS` means that the provider took it, not that it was read. `DECLINED` is final (no such
    destination); `NOT_SENT` and `UNKNOWN` may be tried again: a message that comes
    twice does no harm.
    """
    settings = configuration.current()
    body = orjson.dumps({"destination": destination, "text": text})
    timestamp = str(int(clock.now().timestamp()))
    nonce = ids.random_token(16)
    path = urlsplit(settings.sms_url).path or "/"
    headers = {
        "content-type": "application/json",
        TIMESTAMP_HEADER: timestamp,
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: signature(settings.sms_key, path, timestamp, nonce, body),
    }
    answer = await outgoing.exchange(
        "POST", settings.sms_url, headers, body, timeout_seconds=SEND_TIMEOUT_SECONDS
    )
    if answer.failure:
        kind = ResultKind.UNKNOWN if answer.began else ResultKind.NOT_SENT
        return Result(kind=kind, reason=answer.failure, latency_ms=answer.latency_ms)
    if 200 <= answer.status < 300:
        return Result(kind=ResultKind.SUCCESS, latency_ms=answer.latency_ms)
    if answer.status == 429 or answer.status >= 500:
        kind = ResultKind.NOT_SENT if answer.status == 429 else ResultKind.UNKNOWN
    else:
        kind = ResultKind.DECLINED
    return Result(kind=kind, reason=f"HTTP_{answer.status}", latency_ms=answer.latency_ms)


def signature(key: bytes, path: str, timestamp: str, nonce: str, body: bytes) -> str:
    """Base64 of HMAC-SHA256 over `POST`, path, timestamp, nonce (a line each) and the raw body."""
    signed = f"POST {path}\n{timestamp}\n{nonce}\n".encode() + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
