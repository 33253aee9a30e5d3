"""The other side of `signatures.py`: how a merchant's server signs a call.

For the demonstration, the tests and the examples in the documentation. It reads nothing of ours but
the profile, so that what is written here holds for any RFC 9421 library.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPSignatureAlgorithm,
    MappingKeyResolver,
    algorithms,
)

from core import clock, ids
from identity.signatures import COMPONENTS, TAG, SignedMessage

SigningKey = Ed25519PrivateKey | RSAPrivateKey | bytes


def sign_request(
    method: str,
    url: str,
    body: bytes,
    *,
    key_id: str,
    key: SigningKey,
    headers: Mapping[str, str] | None = None,
    nonce: str | None = None,
    created: datetime | None = None,
    lifetime_seconds: int = 60,
) -> dict[str, str]:
    """The headers to send with the request: those given, the digest and the signature.

    `url` is the public URL of the API; `key` a private key, or the bytes of a shared secret.
    `created` and `nonce` are now and random unless a test gives others.
    """
    signed = {"content-type": "application/json"}
    signed |= {name.lower(): value for name, value in (headers or {}).items()}
    issued_at = created or clock.now()
    signer = HTTPMessageSigner(
        signature_algorithm=_algorithm_of(key),
        key_resolver=MappingKeyResolver(public_keys={}, private_keys={key_id: key}),
    )
    signer.sign(
        SignedMessage(method, url, signed),
        key_id=key_id,
        created=issued_at,
        expires=issued_at + timedelta(seconds=lifetime_seconds),
        nonce=nonce or ids.random_token(16),
        label="purser",
        tag=TAG,
        covered_component_ids=COMPONENTS[:3],
        body=body,
    )
    return {name.lower(): value for name, value in signed.items()}


def _algorithm_of(key: SigningKey) -> type[HTTPSignatureAlgorithm]:
    match key:
        case Ed25519PrivateKey():
            return algorithms.ED25519
        case RSAPrivateKey():
            return algorithms.RSA_V1_5_SHA256
        case _:
            return algorithms.HMAC_SHA256
