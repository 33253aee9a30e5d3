"""Idempotency keys: what is hashed, and under which id a key is stored.

A key belongs to whoever asks and to one operation. Its row is written in the commit of the effect,
with the SHA-256 of the canonical input, without the key and without what the server made. A secret
in the input (a password, a code) enters the hash only as a keyed digest.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from typing import Any, NamedTuple

import orjson

from core import ids, secretbox
from core.errors import InvalidArgument
from core.principal import Principal

KEY_LENGTH_MIN = 8
KEY_LENGTH_MAX = 255


class Key(NamedTuple):
    """The row of a key, without its principal and its result."""

    idempotency_id: uuid.UUID
    operation: str
    key: str
    input_hash: str


def idempotency(
    principal: Principal, operation: str, unchecked_key: str, canonical_input: dict[str, Any]
) -> Key:
    """The row of a key, without its result; raises `InvalidArgument` for a malformed key."""
    key = checked_key(unchecked_key)
    try:
        text = orjson.dumps(canonical_input, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise InvalidArgument("The text is not valid Unicode.") from None
    return Key(
        ids.hashed_id("idempotency", str(principal), operation, key),
        operation,
        key,
        hashlib.sha256(text).hexdigest(),
    )


def checked_key(unchecked_key: str) -> str:
    """The key, if it is 8 to 255 visible ASCII characters."""
    if not (
        KEY_LENGTH_MIN <= len(unchecked_key) <= KEY_LENGTH_MAX
        and all("!" <= character <= "~" for character in unchecked_key)
    ):
        raise InvalidArgument(
            "An idempotency key is 8 to 255 visible ASCII characters.", field=("idempotencyKey",)
        )
    return unchecked_key


def secret_digest(secret: str | None) -> str | None:
    """A digest of a short secret that nobody can guess offline, because it is keyed."""
    if secret is None:
        return None
    key = secretbox.derived_key("idempotency-secret")
    return hmac.new(key, secret.encode(), hashlib.sha256).hexdigest()
