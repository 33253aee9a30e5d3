"""Cursors: opaque, signed, and bound to the list they were made for.

A cursor holds the key of one row, never an offset, so that pages stay right while rows arrive. One
that was not made here, or was made for another list, is `INVALID_ARGUMENT`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

from core.errors import InvalidArgument
from core.secretbox import derived_key

SIGNATURE_SIZE = 12
CURSOR_LENGTH_MAX = 1_024


def make_cursor(name: str, *parts: str | int) -> str:
    """A cursor of the list `name`; `parts` are the key of its row, in the list's own order."""
    content = json.dumps(parts, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_signature(name, content) + content).decode().rstrip("=")


def read_cursor(name: str, unchecked_cursor: str, field: str = "after") -> list[str | int]:
    """The parts that `make_cursor` got."""
    try:
        if len(unchecked_cursor) > CURSOR_LENGTH_MAX:
            raise ValueError
        padded = unchecked_cursor + "=" * (-len(unchecked_cursor) % 4)
        signed = base64.b64decode(padded, altchars=b"-_", validate=True)
        signature, content = signed[:SIGNATURE_SIZE], signed[SIGNATURE_SIZE:]
        if not hmac.compare_digest(signature, _signature(name, content)):
            raise ValueError
        parts: list[str | int] = json.loads(content)
        return parts
    except (ValueError, binascii.Error):
        raise InvalidArgument("This is no cursor of this list.", field=(field,)) from None


def _signature(name: str, content: bytes) -> bytes:
    key = derived_key(f"cursor:{name}")
    return hmac.new(key, content, hashlib.sha256).digest()[:SIGNATURE_SIZE]
