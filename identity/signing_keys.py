"""The keys that sign our tokens, in PostgreSQL: only the private part, sealed with the master key.

The public part is derived from it, so that whoever can write to the table but has no master key
cannot add a key that verifies. Two keys live side by side while one takes over from the other.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from core import audit, ids
from core.phase import phase, statement
from core.principal import SYSTEM
from core.secretbox import open_sealed, seal

log = logging.getLogger(__name__)

ALGORITHM = "ES256"
CURVE = ec.SECP256R1()
RETIRED_KEY_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key that verifies, and signs unless it `retires`."""

    kid: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)
    retires: bool

    def private_pem(self) -> bytes:
        """The private part, for the one who signs."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def public_jwk(self) -> dict[str, str]:
        """The public part as RFC 7517 writes it."""
        numbers = self.private.public_key().public_numbers()
        return {
            "kty": "EC",
            "crv": "P-256",
            "x": _base64url(numbers.x),
            "y": _base64url(numbers.y),
            "use": "sig",
            "alg": ALGORITHM,
            "kid": self.kid,
        }


async def read_live_keys() -> list[LiveKey]:
    """The live keys, newest first. A new database gets its first one here, and only one."""
    live = await _read()
    if not all(key.retires for key in live):
        return live
    async with phase(SYSTEM):
        # Processes that start together wait for the one that makes the key.
        await statement("SELECT pg_advisory_xact_lock(hashtext('signing_key'))")
        if all(key.retires for key in await _read()):
            await _make()
    return await _read()


async def rotate() -> str:
    """Make a key that signs from now on; the others verify for an hour more. Returns its `kid`."""
    async with phase(SYSTEM):
        await statement(
            """UPDATE signing_key SET retires_at = purser_now() + $1 * interval '1 second'
            WHERE retires_at IS NULL""",
            RETIRED_KEY_SECONDS,
        )
        kid = await _make()
        await audit.record(SYSTEM, "SIGNING_KEY_ROTATED", f"signing_key:{kid}")
    return kid


async def _read() -> list[LiveKey]:
    rows = await statement(
        """SELECT signing_key_id, sealed_private_key, retires_at FROM signing_key
        WHERE retires_at IS NULL OR retires_at > purser_now() ORDER BY created_at DESC""",
        writes=False,
    )
    return [
        LiveKey(kid, private, row["retires_at"] is not None)
        for row in rows
        if (private := _opened(kid := str(row["signing_key_id"]), row["sealed_private_key"]))
    ]


async def _make() -> str:
    kid = str(ids.new_id())
    private = ec.generate_private_key(CURVE)
    document = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    await statement(
        "INSERT INTO signing_key (signing_key_id, sealed_private_key) VALUES ($1, $2)",
        kid,
        seal(document, _purpose(kid)),
    )
    return kid


def _opened(kid: str, sealed: bytes) -> ec.EllipticCurvePrivateKey | None:
    """The key, or None for a row that was written without our master key."""
    try:
        document = open_sealed(sealed, _purpose(kid))
    except InvalidTag:
        log.error("signing key %s was not sealed with this master key", kid)
        return None
    key = load_der_private_key(document, password=None)
    # python-jose would sign and verify ES256 with a key of any curve.
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != CURVE.name:
        raise ValueError("a signing key of another kind or curve")
    return key


def _purpose(kid: str) -> str:
    return f"signing-key:{kid}"


def _base64url(coordinate: int) -> str:
    return base64.urlsafe_b64encode(coordinate.to_bytes(32, "big")).rstrip(b"=").decode()
