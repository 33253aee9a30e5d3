"""The signed manifest of a model: what it was made of, and what every other file must hash to.

Signed with Ed25519 under a key derived from the master key. It is verified before anything in the
folder is parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.secretbox import derived_key

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MODEL = "model.onnx"
TRAINABLE = "model.skops"
FORMAT = 1
SIGNING_PURPOSE = "risk-manifest"


def encoded(manifest: Mapping[str, Any]) -> bytes:
    """The bytes that are stored and signed."""
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decoded(data: bytes) -> dict[str, Any]:
    """A manifest whose signature holds; raises `ValueError` for bytes that are no manifest."""
    document = orjson.loads(data)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("not a manifest of this format")
    return document


def signature_of(data: bytes) -> bytes:
    """The Ed25519 signature over the manifest's bytes."""
    return _key().sign(data)


def is_signed(data: bytes, signature: bytes) -> bool:
    """Whether this deployment signed these bytes."""
    try:
        _key().public_key().verify(signature, data)
    except InvalidSignature:
        return False
    return True


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal, as the manifest names files."""
    return hashlib.sha256(data).hexdigest()


def _key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derived_key(SIGNING_PURPOSE))
