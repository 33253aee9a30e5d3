"""Signed calls of merchants: HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530).

One profile: four components and six parameters, all required; the algorithm is the key's own, a
nonce is good once, and the target is our public URL, whatever the Host header says. All failures
look alike from outside; each is a row of the audit log that says which check it was.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import http_sf
from cryptography.exceptions import InvalidTag
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    MappingKeyResolver,
    VerifyResult,
    algorithms,
)

from core import audit, clock, configuration, ids
from core.errors import SignatureInvalid
from core.phase import statement
from core.principal import merchant
from identity.caller import Caller
from identity.merchant_keys import ED25519, HMAC_SHA256, RSA_SHA256, opened_key

TAG = "purser-merchant-v1"
LIFETIME_SECONDS_MAX = 300
SKEW_SECONDS = 30
"""How far ahead of ours a merchant's clock may run. Nothing is accepted after its own `expires`."""

NONCE_SECONDS = 900
"""Longer than a signature can live on any of our clocks, counted by the database's own."""

NONCE_LENGTHS = range(8, 129)
HEADER_LENGTH_MAX = 8_192
PARAMETERS = frozenset({"created", "expires", "keyid", "alg", "nonce", "tag"})
COMPONENTS = ("@method", "@target-uri", "content-type", "content-digest")
COMPONENTS_WITHOUT_BODY = COMPONENTS[:2]
ALGORITHMS: dict[str, type[HTTPSignatureAlgorithm]] = {
    ED25519: algorithms.ED25519,
    RSA_SHA256: algorithms.RSA_V1_5_SHA256,
    HMAC_SHA256: algorithms.HMAC_SHA256,
}


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A request as the library reads and signs it; `url` is the absolute target."""

    method: str
    url: str
    headers: Mapping[str, str]


_BYTES = re.compile(r":([^:]*):")


class _Untrusted(Exception):
    """Why a signature was refused: for the audit log, never for the caller."""


class _Verifier(HTTPMessageVerifier):
    """Freshness is judged by `_check_freshness`, on the application's own clock."""

    def validate_created_and_expires(self, *_: Any, **__: Any) -> None:
        return None


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether a request claims to be signed. It is then judged as such, whatever token it
    carries.
    """
    return "signature" in headers or "signature-input" in headers


async def verify_request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Caller:
    """The merchant whose key made the signature.

    `path` is the raw path with its query as it was sent, `headers` any mapping with lower-case
    names (Starlette's will do), `body` the raw bytes. Raises `SignatureInvalid`, always the same.
    """
    claimed_key = ""
    try:
        claimed = _claimed_parameters(headers.get("signature-input", ""))
        claimed_key = str(claimed["keyid"])[:64]
        key_id, merchant_id, algorithm, key = await _key_named(claimed_key)
        if claimed["alg"] != algorithm:
            raise _Untrusted("another algorithm than the key's")
        _check_spelling(headers.get("signature", ""))
        url = configuration.current().public_url.rstrip("/") + path
        verifier = _Verifier(
            signature_algorithm=ALGORITHMS[algorithm],
            key_resolver=MappingKeyResolver(public_keys={claimed_key: key}, private_keys={}),
        )
        results = verifier.verify(
            SignedMessage(method, url, headers),
            max_age=None,
            expect_tag=TAG,
            require_components=COMPONENTS if body else COMPONENTS_WITHOUT_BODY,
            body=body,
        )
        if len(results) != 1:
            raise _Untrusted("more than one signature with our tag")
        _check_digest(results[0])
        nonce = _check_freshness(results[0].parameters)
        await _use_nonce(key_id, nonce)
    except (_Untrusted, HTTPMessageSignaturesException, InvalidTag) as error:
        await _record(claimed_key, error)
        raise SignatureInvalid() from None
    return Caller(principal=merchant(merchant_id), key_id=key_id, signed=True)


def _claimed_parameters(signature_input: str) -> dict[str, Any]:
    """What the one signature with our tag says of itself, before anything of it is believed."""
    if not 0 < len(signature_input) <= HEADER_LENGTH_MAX:
        raise _Untrusted("no signature input, or a huge one")
    try:
        members = _parsed(signature_input)
    except (ValueError, TypeError, RecursionError):
        raise _Untrusted("malformed signature input") from None
    ours = [parameters for _, parameters in members.values() if parameters.get("tag") == TAG]
    if len(ours) != 1:
        raise _Untrusted("not exactly one signature with our tag")
    if set(ours[0]) != PARAMETERS:
        raise _Untrusted("a parameter is missing, or one too many")
    return dict(ours[0])


def _check_spelling(signature: str) -> None:
    """The last letter of a base64 text has bits to spare; only one spelling is the signature."""
    for encoded in _BYTES.findall(signature):
        try:
            spelled = base64.b64encode(base64.b64decode(encoded, validate=True)).decode()
        except ValueError:
            raise _Untrusted("malformed signature") from None
        if spelled != encoded:
            raise _Untrusted("another spelling of a signature")


async def _key_named(claimed_key: str) -> tuple[uuid.UUID, uuid.UUID, str, Any]:
    try:
        key_id = uuid.UUID(claimed_key)
    except ValueError:
        raise _Untrusted("no such key") from None
    rows = await statement("SELECT * FROM find_merchant_key($1)", key_id, writes=False)
    if not rows or str(key_id) != claimed_key:
        raise _Untrusted("no such key")
    merchant_id, algorithm, sealed_key = rows[0]
    return key_id, merchant_id, algorithm, opened_key(key_id, merchant_id, algorithm, sealed_key)


def _check_digest(result: VerifyResult) -> None:
    """The library compared every digest with the body; ours must be one of them."""
    covered = result.covered_components.get('"content-digest"')
    if covered is not None and "sha-256" not in _parsed(covered):
        raise _Untrusted("no sha-256 digest")


def _parsed(value: str) -> dict[str, Any]:
    return cast("dict[str, Any]", http_sf.parse(value.encode("ascii"), tltype="dictionary"))


def _check_freshness(parameters: Mapping[str, int | str]) -> str:
    """The nonce of a signature that is neither from the future nor over; times are whole
    seconds.
    """
    created, expires, nonce = parameters["created"], parameters["expires"], parameters["nonce"]
    if type(created) is not int or type(expires) is not int or type(nonce) is not str:
        raise _Untrusted("a parameter of another type")
    now = clock.now().timestamp()
    if created > now + SKEW_SECONDS:
        raise _Untrusted("created in the future")
    if not 0 < expires - created <= LIFETIME_SECONDS_MAX:
        raise _Untrusted("it would live too long, or not at all")
    if expires < now:
        raise _Untrusted("expired")
    if len(nonce) not in NONCE_LENGTHS:
        raise _Untrusted("a nonce that is too short or too long")
    return nonce


async def _use_nonce(key_id: uuid.UUID, nonce: str) -> None:
    """Only a genuine signature comes this far, so that a stranger cannot use up a merchant's
    nonces.
    """
    fresh = await statement(
        """INSERT INTO request_nonce (nonce_id, expires_at)
        VALUES ($1, purser_now() + $2 * interval '1 second')
        ON CONFLICT (nonce_id) DO NOTHING RETURNING nonce_id""",
        ids.hashed_id("nonce", str(key_id), nonce),
        NONCE_SECONDS,
    )
    if not fresh:
        raise _Untrusted("the nonce was used before")


async def _record(claimed_key: str, error: Exception) -> None:
    subject = "merchant_key:unknown"
    with suppress(ValueError):
        subject = f"merchant_key:{uuid.UUID(claimed_key)}"
    reason = str(error) if isinstance(error, _Untrusted) else type(error).__name__
    await audit.record_security_event("SIGNATURE_REFUSED", subject, "REFUSED", reason=reason)
