"""The keys that verify a merchant's signed calls, and the tokens a merchant may give its own tools.

Public keys are given to us, secrets are made by us and shown once. All are stored sealed, bound to
their id and merchant. Rotation: add the new key, then let the old one expire after an overlap.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from core import audit, ids
from core.errors import Forbidden, InvalidArgument, NotFound
from core.phase import phase, statement
from core.principal import merchant
from core.secretbox import open_sealed, seal
from identity.caller import MERCHANT_READ_SCOPE, Caller
from identity.logins import Tokens, open_login
from identity.models import Merchant, MerchantKey

ED25519 = "ed25519"
RSA_SHA256 = "rsa-v1_5-sha256"
HMAC_SHA256 = "hmac-sha256"
RSA_BITS_MIN = 2_048
RSA_BITS_MAX = 8_192
SECRET_SIZE = 32
PEM_LENGTH_MAX = 4_096
OVERLAP_SECONDS = 86_400
LIVE_KEYS_MAX = 10
MERCHANT_SCOPES = frozenset({MERCHANT_READ_SCOPE})

VerifyingKey = Ed25519PublicKey | RSAPublicKey | bytes


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key without the key. `key_id` is what a signature carries as `keyid`."""

    key_id: uuid.UUID
    merchant_id: uuid.UUID
    algorithm: str
    created_at: datetime
    expires_at: datetime | None


async def add_public_key(merchant_id: uuid.UUID, unchecked_pem: str, *, by: Caller) -> KeyView:
    """Accept an Ed25519 or RSA public key in PEM; raises `InvalidArgument` for any other."""
    pem = unchecked_pem.encode("utf-8", "surrogatepass")
    return await _add(merchant_id, _algorithm_of(pem), pem, by)


async def make_secret(merchant_id: uuid.UUID, *, by: Caller) -> tuple[KeyView, str]:
    """Make a secret for HMAC-SHA256. The Base64 text is shown now and never again."""
    secret = ids.random_bytes(SECRET_SIZE)
    view = await _add(merchant_id, HMAC_SHA256, secret, by)
    return view, base64.b64encode(secret).decode()


async def expire_key(
    merchant_id: uuid.UUID, key_id: uuid.UUID, *, after_seconds: int = OVERLAP_SECONDS, by: Caller
) -> KeyView:
    """Let a key end after an overlap in which its successor is already good. It never ends
    later.
    """
    async with phase(by.principal):
        rows = await statement(
            """UPDATE merchant_key
            SET expires_at = least(expires_at, purser_now() + $3 * interval '1 second')
            WHERE merchant_id = $1 AND key_id = $2 RETURNING key_id""",
            merchant_id,
            key_id,
            after_seconds,
        )
        if not rows:
            raise NotFound()
        await audit.record(
            by.principal,
            "MERCHANT_KEY_EXPIRES",
            f"merchant_key:{key_id}",
            merchant_id=str(merchant_id),
            after_seconds=after_seconds,
        )
        return _view(await MerchantKey.get(key_id=key_id))


async def revoke_key(merchant_id: uuid.UUID, key_id: uuid.UUID, *, by: Caller) -> KeyView:
    """End a key at once."""
    return await expire_key(merchant_id, key_id, after_seconds=0, by=by)


async def list_keys(merchant_id: uuid.UUID, *, by: Caller) -> list[KeyView]:
    """The merchant's keys that the caller may see, newest first, ended ones included."""
    async with phase(by.principal):
        rows = await MerchantKey.filter(merchant_id=merchant_id).order_by("-created_at")
    return [_view(row) for row in rows]


async def issue_merchant_token(
    merchant_id: uuid.UUID, *, scopes: frozenset[str] = MERCHANT_SCOPES, by: Caller
) -> Tokens:
    """A token that reads the merchant's own data. It moves no money and is not refreshed."""
    if not scopes or not scopes <= MERCHANT_SCOPES:
        raise InvalidArgument("Unknown scope.", field=("scopes",))
    _must_own(merchant_id, by)
    async with phase(by.principal):
        if not await Merchant.exists(merchant_id=merchant_id):
            raise NotFound()
        await audit.record(by.principal, "MERCHANT_TOKEN_ISSUED", f"merchant:{merchant_id}")
    return await open_login(merchant(merchant_id), scopes=scopes, refreshable=False)


@lru_cache(maxsize=4_096)
def opened_key(
    key_id: uuid.UUID, merchant_id: uuid.UUID, algorithm: str, sealed_key: bytes
) -> VerifyingKey:
    """The key itself, constructed once; a row that we did not seal raises `InvalidTag`."""
    opened = open_sealed(sealed_key, _seal_purpose(key_id, merchant_id, algorithm))
    return opened if algorithm == HMAC_SHA256 else _loaded(opened)


async def _add(merchant_id: uuid.UUID, algorithm: str, key: bytes, by: Caller) -> KeyView:
    _must_own(merchant_id, by)
    key_id = ids.new_id()
    sealed_key = seal(key, _seal_purpose(key_id, merchant_id, algorithm))
    async with phase(by.principal):
        if not await Merchant.exists(merchant_id=merchant_id):
            raise NotFound()
        live = await statement(
            """SELECT FROM merchant_key
            WHERE merchant_id = $1 AND (expires_at IS NULL OR expires_at > purser_now())""",
            merchant_id,
        )
        if len(live) >= LIVE_KEYS_MAX:
            raise InvalidArgument("There are too many live keys; revoke one first.")
        await statement(
            """INSERT INTO merchant_key (key_id, merchant_id, algorithm, sealed_key)
            VALUES ($1, $2, $3, $4)""",
            key_id,
            merchant_id,
            algorithm,
            sealed_key,
        )
        await audit.record(
            by.principal,
            "MERCHANT_KEY_ADDED",
            f"merchant_key:{key_id}",
            merchant_id=str(merchant_id),
            algorithm=algorithm,
        )
        return _view(await MerchantKey.get(key_id=key_id))


def _must_own(merchant_id: uuid.UUID, by: Caller) -> None:
    """A merchant acts for itself alone; an operator for any."""
    if by.operator_id is None and by.merchant_id != merchant_id:
        raise Forbidden()


def _algorithm_of(pem: bytes) -> str:
    refusal = InvalidArgument(
        "This is neither an Ed25519 nor an RSA public key of 2048 bits or more, in PEM.",
        field=("publicKey",),
    )
    if len(pem) > PEM_LENGTH_MAX:
        raise refusal
    try:
        key = _loaded(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise refusal from None
    if isinstance(key, Ed25519PublicKey):
        return ED25519
    if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        raise refusal
    return RSA_SHA256


def _loaded(pem: bytes) -> Ed25519PublicKey | RSAPublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey | RSAPublicKey):
        raise ValueError("another kind of key")
    return key


def _seal_purpose(key_id: uuid.UUID, merchant_id: uuid.UUID, algorithm: str) -> str:
    return f"merchant-key:{merchant_id}:{key_id}:{algorithm}"


def _view(row: MerchantKey) -> KeyView:
    return KeyView(row.key_id, row.merchant_id, row.algorithm, row.created_at, row.expires_at)
