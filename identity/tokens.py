"""Access tokens: short-lived ES256 JWTs. The only importer of `jose`.

python-jose trusts more than it should by default, so everything it leaves open is closed here:
the header is an exact set, the key comes from our own table by `kid`, every claim is required.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from jose import jwk, jwt
from jose.backends.base import Key
from jose.exceptions import JOSEError

from core import clock, configuration, ids
from core.errors import Unauthenticated
from core.grouping import Grouping
from core.phase import statement
from core.principal import Principal
from identity import signing_keys
from identity.caller import REPLAY_SCOPE, Caller
from identity.signing_keys import ALGORITHM

TOKEN_TYPE = "at+jwt"
ACCESS_SECONDS = 600
LEEWAY_SECONDS = 30
TOKEN_LENGTH_MAX = 8_192
REMEMBERED_MAX = 16_384
RELOAD_MS = 60_000
RELOAD_FOR_UNKNOWN_MS = 1_000
OPTIONS = {f"require_{claim}": True for claim in ("exp", "iat", "aud", "iss", "sub", "jti")} | {
    "leeway": LEEWAY_SECONDS
}


@dataclass(frozen=True, slots=True)
class _Keys:
    """The live keys of one database. Each is constructed once: that is the dear part of a
    signature.
    """

    database_url: str = field(repr=False)
    loaded_at_ms: float
    signing_kid: str
    signing: Key = field(repr=False)
    verifying: dict[str, Key] = field(repr=False)
    public: tuple[dict[str, str], ...]


_keys: _Keys | None = None


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What a token was verified to say, by which key and under which configuration."""

    caller: Caller
    kid: str
    configuration: configuration.Configuration


_remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
"""Verified tokens by their digest, the one used last at the end."""


async def issue_access(
    principal: Principal,
    *,
    login_id: uuid.UUID,
    scopes: frozenset[str],
    roles: frozenset[str] = frozenset(),
) -> tuple[str, datetime]:
    """A signed token of this login, and when it expires."""
    keys = await _live_keys()
    installed = configuration.current()
    issued_at = clock.now().replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=ACCESS_SECONDS)
    claims = {
        "iss": installed.token_issuer,
        "aud": installed.token_audience,
        "sub": str(principal),
        "scope": " ".join(sorted(scopes)),
        "roles": sorted(roles),
        "sid": str(login_id),
        "jti": ids.random_token(16),
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
    }
    headers = {"typ": TOKEN_TYPE, "kid": keys.signing_kid}
    return jwt.encode(claims, keys.signing, algorithm=ALGORITHM, headers=headers), expires_at


async def verify_access(token: str) -> Caller:
    """Who the token stands for. Raises `Unauthenticated`, always the same, for anything but a live
    one.
    """
    if len(token) > TOKEN_LENGTH_MAX:
        raise Unauthenticated()
    digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
    caller = await _verified_before(digest)
    if caller is None:
        caller = await _verified(token, digest)
    if not await _logins.join(caller):
        raise Unauthenticated()
    return caller


async def _verified(token: str, digest: bytes) -> Caller:
    """The caller of a token whose signature and claims are right; remembered for its short life."""
    if not _is_canonical(token):
        raise Unauthenticated()
    try:
        header = jwt.get_unverified_header(token)
        key = await _key_named_by(header)
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            options=OPTIONS,
            audience=configuration.current().token_audience,
            issuer=configuration.current().token_issuer,
        )
        caller = _caller(claims)
    except (JOSEError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise Unauthenticated() from None
    _remembered[digest] = _Remembered(caller, header["kid"], configuration.current())
    while len(_remembered) > REMEMBERED_MAX:
        _remembered.popitem(last=False)
    return caller


async def _verified_before(digest: bytes) -> Caller | None:
    """The caller of a token that was verified a moment ago, by a key that is still good."""
    found = _remembered.get(digest)
    if found is None:
        return None
    expires_at = found.caller.expires_at
    if (
        found.configuration is configuration.current()
        and found.kid in (await _live_keys()).verifying
        and expires_at is not None
        and clock.now() < expires_at + timedelta(seconds=LEEWAY_SECONDS)
    ):
        _remembered.move_to_end(digest)
        return found.caller
    del _remembered[digest]
    return None


async def jwks() -> dict[str, list[dict[str, str]]]:
    """The public keys, for `/.well-known/jwks.json`."""
    return {"keys": [dict(key) for key in (await _live_keys()).public]}


async def ensure_signing_key() -> None:
    """Make the first key of a new database; later calls change nothing."""
    await _live_keys()


async def rotate_signing_key() -> str:
    """Sign with a new key from now on; returns its `kid`.

    Other processes follow within a minute; what the new key signs they accept at once.
    """
    global _keys
    kid = await signing_keys.rotate()
    _keys = None
    return kid


def _is_canonical(token: str) -> bool:
    """Three base64url parts without padding or spare bits: no second spelling of a token passes."""
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        return False
    try:
        return all(
            base64.urlsafe_b64encode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            .rstrip(b"=")
            .decode()
            == part
            for part in parts
        )
    except (ValueError, binascii.Error):
        return False


async def _key_named_by(header: dict[str, Any]) -> Key:
    """The key of our own table. `crit`, `jku`, `jwk`, `x5u` and all else that could name one is
    refused.
    """
    if set(header) != {"alg", "typ", "kid"} or not isinstance(header["kid"], str):
        raise ValueError("the header holds something else than alg, typ and kid")
    if header["alg"] != ALGORITHM or header["typ"] != TOKEN_TYPE:
        raise ValueError("another algorithm or another type of token")
    keys = await _live_keys()
    if header["kid"] not in keys.verifying and _age_ms(keys) > RELOAD_FOR_UNKNOWN_MS:
        keys = await _load()
    return keys.verifying[header["kid"]]


def _caller(claims: dict[str, Any]) -> Caller:
    """The caller that verified claims describe; raises `ValueError` for claims that we never
    write.
    """
    issued, expires = claims["iat"], claims["exp"]
    now = clock.now().timestamp()
    if type(issued) is not int or type(expires) is not int or claims["aud"].__class__ is not str:
        raise ValueError("a claim of another type")
    if issued > now + LEEWAY_SECONDS or expires - issued > ACCESS_SECONDS:
        raise ValueError("issued in the future, or too long-lived")
    principal = Principal.parse(claims["sub"])
    scopes = frozenset(claims["scope"].split())
    if principal.id is None:
        raise ValueError("nobody signs in as the system")
    if REPLAY_SCOPE in scopes and not configuration.current().replay_allowed:
        raise ValueError("recorded input is not replayed here")
    return Caller(
        principal=principal,
        scopes=scopes,
        roles=frozenset(map(str, claims["roles"])),
        login_id=uuid.UUID(claims["sid"]),
        expires_at=datetime.fromtimestamp(expires, UTC),
    )


async def _are_live(callers: list[Caller]) -> list[bool | Exception]:
    """Asked for each token at each request, for all requests that wait together: a logout, a reset
    or a reuse ends all tokens of a login at once.
    """
    rows = await statement(
        "SELECT * FROM live_logins($1, $2, $3)",
        [caller.login_id for caller in callers],
        [caller.principal.kind for caller in callers],
        [caller.principal.id for caller in callers],
        writes=False,
    )
    live = {row[0] for row in rows}
    return [place in live for place in range(1, len(callers) + 1)]


_logins: Grouping[Caller, bool] = Grouping(_are_live)


async def _live_keys() -> _Keys:
    keys = _keys
    if keys is None or keys.database_url != configuration.current().database_url:
        return await _load()
    if _age_ms(keys) > RELOAD_MS:
        return await _load()
    return keys


def _age_ms(keys: _Keys) -> float:
    return clock.monotonic_ms() - keys.loaded_at_ms


async def _load() -> _Keys:
    """Read and construct the live keys; the first process of a new database makes one."""
    global _keys
    live = await signing_keys.read_live_keys()
    signing = next(key for key in live if not key.retires)
    _keys = _Keys(
        database_url=configuration.current().database_url,
        loaded_at_ms=clock.monotonic_ms(),
        signing_kid=signing.kid,
        signing=jwk.construct(signing.private_pem(), ALGORITHM),
        verifying={key.kid: jwk.construct(dict(key.public_jwk()), ALGORITHM) for key in live},
        public=tuple(key.public_jwk() for key in live),
    )
    return _keys
