"""The signature around every message of the generic bank protocol, in both directions.

Ed25519 over subject, timestamp, nonce and the raw body. The subject is `POST /path` for a request
or a callback and `200 POST /path` for an answer, which also repeats its request's nonce, so no
message can stand for another one. Verify first, parse afterwards.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from core import clock, ids

WINDOW_SECONDS = 300
BODY_BYTES_MAX = 64 * 1024

KEY_HEADER = "bank-key"
TIMESTAMP_HEADER = "bank-timestamp"
NONCE_HEADER = "bank-nonce"
SIGNATURE_HEADER = "bank-signature"

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")


def signed_headers(
    private_key_pem: bytes,
    subject: str,
    body: bytes,
    *,
    nonce: str | None = None,
    sent_at: datetime | None = None,
) -> dict[str, str]:
    """The headers that make `body` a signed message, sent now unless `sent_at` says otherwise.

    An answer passes its request's nonce. Raises `ValueError` if the key is no Ed25519 private key.
    """
    private_key = private_key_of(private_key_pem)
    timestamp = str(int((sent_at or clock.now()).timestamp()))
    nonce = nonce or ids.random_token(16)
    signature = private_key.sign(_signed_bytes(subject, timestamp, nonce, body))
    return {
        "content-type": "application/json",
        KEY_HEADER: key_name(private_key.public_key()),
        TIMESTAMP_HEADER: timestamp,
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: base64.b64encode(signature).decode(),
    }


def refusal(
    public_key_pem: bytes,
    subject: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    nonce: str | None = None,
) -> str | None:
    """Why this message must not be believed, or None if it may be.

    `nonce` is the one that an answer must repeat.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    public_key = public_key_of(public_key_pem)
    timestamp = lowered.get(TIMESTAMP_HEADER, "")
    sent_nonce = lowered.get(NONCE_HEADER, "")
    if len(body) > BODY_BYTES_MAX:
        return "BODY_TOO_LARGE"
    if lowered.get(KEY_HEADER) != key_name(public_key):
        return "KEY_UNKNOWN"
    if not _TIMESTAMP.fullmatch(timestamp) or not _NONCE.fullmatch(sent_nonce):
        return "SIGNATURE_INVALID"
    if nonce is not None and nonce != sent_nonce:
        return "SIGNATURE_INVALID"
    try:
        encoded = lowered.get(SIGNATURE_HEADER, "")
        signature = base64.b64decode(encoded, validate=True)
        # The last letter has bits to spare: only one spelling of a signature is the signature.
        if base64.b64encode(signature).decode() != encoded:
            return "SIGNATURE_INVALID"
        public_key.verify(signature, _signed_bytes(subject, timestamp, sent_nonce, body))
    except (InvalidSignature, binascii.Error):
        return "SIGNATURE_INVALID"
    if abs(clock.now().timestamp() - int(timestamp)) > WINDOW_SECONDS:
        return "TIMESTAMP_OUTSIDE_WINDOW"
    return None


@lru_cache(maxsize=8)
def private_key_of(pem: bytes) -> Ed25519PrivateKey:
    """The key in a PEM file; raises `ValueError` if it is no Ed25519 private key."""
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the private key is not an Ed25519 key")
    return key


@lru_cache(maxsize=8)
def public_key_of(pem: bytes) -> Ed25519PublicKey:
    """The key in a PEM file; raises `ValueError` if it is no Ed25519 public key."""
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the public key is not an Ed25519 key")
    return key


def key_name(key: Ed25519PublicKey) -> str:
    """The name under which both sides know a key: the beginning of its SHA-256."""
    encoded = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(encoded).hexdigest()[:16]


def _signed_bytes(subject: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    return f"{subject}\n{timestamp}\n{nonce}\n".encode() + body
