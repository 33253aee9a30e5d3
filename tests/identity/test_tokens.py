"""Access tokens: what is not exactly one of ours, live and signed by a live key, is nobody's."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from jose import JWTError, jwk, jwt

from core import clock
from core import configuration as installed
from core.configuration import Configuration
from core.errors import Forbidden, Unauthenticated
from core.principal import customer, merchant
from core.secretbox import open_sealed
from identity import logins, replay_parties, signing_keys, tokens
from identity.caller import Caller


def encoded(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, claims, signature = token.split(".")
    read = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, claims)]
    return read[0], read[1], signature


@pytest.fixture
async def private_key(database: Any) -> ec.EllipticCurvePrivateKey:
    """The platform's own signing key: the forger of these tests holds even that."""
    await tokens.ensure_signing_key()
    row = (await database.fetch("SELECT * FROM signing_key"))[0]
    opened = open_sealed(bytes(row["sealed_private_key"]), f"signing-key:{row['signing_key_id']}")
    key = load_der_private_key(opened, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@pytest.fixture
def signed(private_key: ec.EllipticCurvePrivateKey) -> Callable[..., str]:
    """A token over any header and claims, correctly signed with the platform's own key."""

    def sign(header: dict[str, Any], claims: dict[str, Any] | bytes) -> str:
        base = f"{encoded(header)}.{encoded(claims)}"
        r, s = decode_dss_signature(private_key.sign(base.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{base}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    return sign


async def accepted(token: str) -> Caller | None:
    try:
        return await tokens.verify_access(token)
    except Unauthenticated:
        return None


async def test_a_fresh_token_names_its_customer_and_login(person: Any) -> None:
    caller = await tokens.verify_access(person.tokens.access_token)
    assert caller.principal == person.tokens.principal
    assert caller.login_id == person.tokens.login_id
    assert caller.scopes == {"customer"}
    assert not caller.signed


async def test_no_forged_token_is_accepted(
    person: Any, signed: Callable[..., str], private_key: ec.EllipticCurvePrivateKey
) -> None:
    header, claims, signature = parts_of(person.tokens.access_token)
    assert await accepted(signed(header, claims)), "the control: the forger's pen does write"
    public = private_key.public_key()
    raw = encoded(header), encoded(claims)

    def without(*names: str) -> dict[str, Any]:
        return {name: value for name, value in claims.items() if name not in names}

    def by_hmac(secret: bytes, algorithm: str = "HS256") -> str:
        base = f"{encoded(header | {'alg': algorithm})}.{raw[1]}"
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(base.encode())
        return f"{base}.{encoded(mac.finalize())}"

    spki = PublicFormat.SubjectPublicKeyInfo
    stranger = ec.generate_private_key(ec.SECP256R1())
    now = int(clock.now().timestamp())
    forged = {
        "empty": "",
        "not a token": "abc",
        "two parts": ".".join(raw),
        "four parts": f"{'.'.join(raw)}.{signature}.x",
        "alg none": f"{encoded(header | {'alg': 'none'})}.{raw[1]}.",
        "alg None": f"{encoded(header | {'alg': 'None'})}.{raw[1]}.{signature}",
        "no alg": signed({"typ": "at+jwt", "kid": header["kid"]}, claims),
        "HS256 with PEM": by_hmac(public.public_bytes(Encoding.PEM, spki)),
        "HS256 with DER": by_hmac(public.public_bytes(Encoding.DER, spki)),
        "HS256 with SSH": by_hmac(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
        "HS256 empty secret": by_hmac(b""),
        "ES256 named, HMAC made": by_hmac(public.public_bytes(Encoding.PEM, spki), "ES256"),
        "another key, our kid": jwt.encode(
            claims,
            jwk.construct(_pem(stranger), "ES256"),
            algorithm="ES256",
            headers={"typ": "at+jwt", "kid": header["kid"]},
        ),
        "another curve": jwt.encode(
            claims,
            jwk.construct(_pem(ec.generate_private_key(ec.SECP384R1())), "ES384"),
            algorithm="ES384",
            headers={"typ": "at+jwt", "kid": header["kid"]},
        ),
        "RS256": jwt.encode(
            claims,
            jwk.construct(_pem(rsa.generate_private_key(65537, 2048)), "RS256"),
            algorithm="RS256",
            headers={"typ": "at+jwt", "kid": header["kid"]},
        ),
        "no kid": signed({"alg": "ES256", "typ": "at+jwt"}, claims),
        "kid a path": signed(header | {"kid": "../../../../dev/null"}, claims),
        "kid a URL": signed(header | {"kid": "https://evil.example/key"}, claims),
        "kid SQL": signed(header | {"kid": "' OR 1=1 --"}, claims),
        "kid a number": signed(header | {"kid": 7}, claims),
        "kid a list": signed(header | {"kid": [header["kid"]]}, claims),
        "kid unknown": signed(header | {"kid": str(uuid.uuid4())}, claims),
        "typ JWT": signed(header | {"typ": "JWT"}, claims),
        "no typ": signed({"alg": "ES256", "kid": header["kid"]}, claims),
        "jku": signed(header | {"jku": "https://evil.example/jwks.json"}, claims),
        "x5u": signed(header | {"x5u": "https://evil.example/cert.pem"}, claims),
        "jwk": signed(header | {"jwk": {"kty": "EC"}}, claims),
        "x5c": signed(header | {"x5c": []}, claims),
        "crit": signed(header | {"crit": ["exp"]}, claims),
        "b64 false": signed(header | {"b64": False, "crit": ["b64"]}, claims),
        "header a list": f"{encoded(b'[]')}.{raw[1]}.{signature}",
        "header deep": f"{encoded(b'[' * 4000)}.{raw[1]}.{signature}",
        "claims a list": signed(header, b"[]"),
        "claims not JSON": signed(header, b"\xff\xfe"),
        "claims deep": signed(header, b'{"a":' + b"[" * 5000),
        "one megabyte": signed(header, claims | {"padding": "x" * 1_000_000}),
        "9 KiB": signed(header, claims | {"padding": "x" * 7_000}),
        "expired": signed(header, claims | {"iat": now - 700, "exp": now - 100}),
        "expires in a year": signed(header, claims | {"exp": now + 365 * 86_400}),
        "issued in the future": signed(header, claims | {"iat": now + 120, "exp": now + 600}),
        "not yet valid": signed(header, claims | {"nbf": now + 600}),
        "exp text": signed(header, claims | {"exp": "never"}),
        "exp true": signed(header, claims | {"exp": True}),
        "exp infinite": signed(header, json.dumps(claims | {"exp": float("inf")}).encode()),
        "another audience": signed(header, claims | {"aud": "another"}),
        "a list of audiences": signed(header, claims | {"aud": [claims["aud"], "another"]}),
        "another issuer": signed(header, claims | {"iss": "https://evil.example"}),
        "the system": signed(header, claims | {"sub": "system"}),
        "an operator with this login": signed(header, claims | {"sub": f"operator:{uuid.uuid4()}"}),
        "another customer": signed(header, claims | {"sub": f"customer:{uuid.uuid4()}"}),
        "sub without kind": signed(header, claims | {"sub": str(person.customer_id)}),
        "no login": signed(header, without("sid")),
        "another login": signed(header, claims | {"sid": str(uuid.uuid4())}),
        "no scope": signed(header, without("scope")),
        "claims changed": f"{raw[0]}.{encoded(claims | {'scope': 'operator'})}.{signature}",
        "padded": person.tokens.access_token + "=",
        "white space": person.tokens.access_token + "\n",
        "not ASCII": person.tokens.access_token[:-1] + "é",
        "refresh token": person.tokens.refresh_token,
    }
    for claim in ("exp", "iat", "aud", "iss", "sub", "jti"):
        forged[f"no {claim}"] = signed(header, without(claim))
    for position in range(0, len(person.tokens.access_token), 7):
        flipped = list(person.tokens.access_token)
        flipped[position] = "A" if flipped[position] != "A" else "B"
        forged[f"character {position} flipped"] = "".join(flipped)
    last = signature[:-1] + chr(ord(signature[-1]) + 1)
    forged["spare bits of the signature"] = f"{'.'.join(raw)}.{last}"

    assert len(forged) > 120
    assert [name for name, token in forged.items() if await accepted(token)] == []


async def test_the_library_alone_would_accept_what_we_refuse(
    person: Any, signed: Callable[..., str], private_key: ec.EllipticCurvePrivateKey
) -> None:
    """The control: without our options and header rules these tokens pass."""
    header, claims, _ = parts_of(person.tokens.access_token)
    endless = {name: value for name, value in claims.items() if name not in ("exp", "aud")}
    token = signed(header | {"crit": ["exp"], "jku": "https://evil.example"}, endless)
    spki = PublicFormat.SubjectPublicKeyInfo
    key = jwk.construct(private_key.public_key().public_bytes(Encoding.PEM, spki), "ES256")
    audience = installed.current().token_audience
    assert jwt.decode(token, key, algorithms=["ES256"], audience=audience)
    assert await accepted(token) is None


async def test_a_token_dies_with_its_login(person: Any) -> None:
    caller = await tokens.verify_access(person.tokens.access_token)
    await logins.logout(caller)
    assert await accepted(person.tokens.access_token) is None


async def test_a_token_expires_after_ten_minutes(
    person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued_early = clock.now() - timedelta(seconds=tokens.ACCESS_SECONDS + 31)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: issued_early)
        token, expires_at = await tokens.issue_access(
            person.tokens.principal,
            login_id=person.tokens.login_id,
            scopes=frozenset({"customer"}),
        )
    assert expires_at - issued_early.replace(microsecond=0) == timedelta(minutes=10)
    assert await accepted(token) is None


async def test_a_token_that_was_verified_before_expires_all_the_same(
    person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise JWTError

    token = person.tokens.access_token
    assert await accepted(token)
    monkeypatch.setattr(tokens.jwt, "decode", refuse)
    assert await accepted(token)  # It is not verified again.
    late = clock.now() + timedelta(seconds=tokens.ACCESS_SECONDS + tokens.LEEWAY_SECONDS + 1)
    monkeypatch.setattr(clock, "now", lambda: late)
    assert await accepted(token) is None


async def test_a_token_that_was_verified_before_is_judged_anew_by_another_configuration(
    person: Any, configuration: Configuration
) -> None:
    token = person.tokens.access_token
    assert await accepted(token)
    installed.install(replace(configuration, token_audience="somebody else"))
    assert await accepted(token) is None


async def test_of_many_tokens_asked_together_each_gets_its_own_answer(person: Any) -> None:
    """The ended login dies in the middle of its neighbours."""
    alive = [person.tokens.access_token]
    for _ in range(3):
        token, _ = await tokens.issue_access(
            person.tokens.principal, login_id=person.tokens.login_id, scopes=frozenset({"customer"})
        )
        alive.append(token)
    dead, _ = await tokens.issue_access(
        person.tokens.principal, login_id=uuid.uuid4(), scopes=frozenset({"customer"})
    )
    foreign, _ = await tokens.issue_access(
        customer(uuid.uuid4()), login_id=person.tokens.login_id, scopes=frozenset({"customer"})
    )
    asked = [alive[0], dead, *alive[1:3], foreign, alive[3]]
    for _ in range(2):  # The second time from memory.
        found = await asyncio.gather(*map(accepted, asked))
        assert [each is not None for each in found] == [True, False, True, True, False, True]


async def test_what_is_remembered_of_tokens_is_bounded(
    person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_MAX", 4)
    for _ in range(9):
        token, _ = await tokens.issue_access(
            person.tokens.principal, login_id=person.tokens.login_id, scopes=frozenset({"customer"})
        )
        assert await accepted(token)
    assert len(tokens._remembered) <= 4
    assert token.encode() not in repr(tokens._remembered).encode()


async def test_two_signing_keys_verify_while_one_signs(person: Any) -> None:
    before = person.tokens.access_token
    kid = await tokens.rotate_signing_key()
    after = (await logins.refresh(person.tokens.refresh_token)).access_token
    assert parts_of(after)[0]["kid"] == kid != parts_of(before)[0]["kid"]
    assert await accepted(before)
    assert await accepted(after)
    published = (await tokens.jwks())["keys"]
    assert {key["kid"] for key in published} == {kid, parts_of(before)[0]["kid"]}
    assert all(set(key) == {"kty", "crv", "x", "y", "use", "alg", "kid"} for key in published)


async def test_processes_that_start_together_make_one_key(database: Any) -> None:
    await asyncio.gather(*(signing_keys.read_live_keys() for _ in range(8)))
    assert len(await database.fetch("SELECT FROM signing_key")) == 1


async def test_a_key_that_another_process_made_is_known_at_once(
    person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tokens._keys
    await tokens.rotate_signing_key()
    second = await logins.refresh(person.tokens.refresh_token)
    monkeypatch.setattr(tokens, "_keys", stale)
    monkeypatch.setattr(tokens, "RELOAD_FOR_UNKNOWN_MS", 0)
    assert await accepted(second.access_token)


async def test_a_retired_key_verifies_nothing(database: Any, person: Any) -> None:
    await tokens.rotate_signing_key()
    assert await accepted(person.tokens.access_token)
    await database.fetch("UPDATE signing_key SET retires_at = now() WHERE retires_at IS NOT NULL")
    tokens._keys = None
    assert await accepted(person.tokens.access_token) is None


async def test_a_key_row_that_was_not_sealed_by_us_signs_and_verifies_nothing(
    database: Any, person: Any
) -> None:
    """Who can write to the table but has no master key cannot make tokens."""
    await database.fetch(
        """INSERT INTO signing_key (signing_key_id, sealed_private_key, created_at)
        SELECT gen_random_uuid(), sealed_private_key, now() + interval '1 hour' FROM signing_key"""
    )
    tokens._keys = None
    assert await accepted(person.tokens.access_token)
    assert len((await tokens.jwks())["keys"]) == 1


async def test_the_replay_scope_is_worth_nothing_where_replay_is_not_allowed(
    database: Any, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "_installed", replace(configuration, replay_allowed=True))
    payer, seller = uuid.uuid4(), uuid.uuid4()
    await replay_parties.make_parties({payer: "Payer"}, {seller: "Terminal"}, "EUR")
    token = (await replay_parties.replay_tokens([payer]))[payer]
    caller = await accepted(token)
    assert caller is not None
    assert caller.principal == customer(payer)
    assert caller.scopes == {"customer", "replay"}

    monkeypatch.setattr(installed, "_installed", replace(configuration, replay_allowed=False))
    assert await accepted(token) is None
    with pytest.raises(Forbidden):
        await replay_parties.replay_tokens([payer])
    with pytest.raises(Forbidden):
        await replay_parties.make_parties({payer: "Payer"}, {seller: "Terminal"}, "EUR")


async def test_a_merchants_token_is_not_a_customers(shop: Any) -> None:
    signed_in = await logins.open_login(
        merchant(shop.merchant_id), scopes=frozenset({"merchant:read"}), refreshable=False
    )
    caller = await accepted(signed_in.access_token)
    assert caller is not None
    assert caller.merchant_id == shop.merchant_id
    assert caller.customer_id is None
    assert signed_in.refresh_token is None


def _pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
