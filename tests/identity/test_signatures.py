"""Signed merchant calls: one byte, one second or one parameter off, and nobody has called."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from http_message_signatures import algorithms
from starlette.datastructures import Headers

from core import clock
from core import configuration as installed
from core.errors import SignatureInvalid
from identity import merchant_keys, signatures
from identity.caller import Caller
from identity.signatures import TAG, verify_request
from identity.signing_client import sign_request

PATH = "/graphql"
BODY = b'{"query":"mutation { refund }","variables":{"amountMinor":"1000"}}'
ALGORITHMS = ["ed25519", "rsa-v1_5-sha256", "hmac-sha256"]


@dataclass(frozen=True)
class Call:
    """What arrives: everything a stranger on the way can change."""

    headers: dict[str, str]
    method: str = "POST"
    path: str = PATH
    body: bytes = BODY

    def with_header(self, name: str, value: str | None) -> Call:
        headers = {**self.headers}
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
        return replace(self, headers=headers)

    def with_input(self, pattern: str, replacement: str) -> Call:
        changed = re.sub(pattern, replacement, self.headers["signature-input"])
        assert changed != self.headers["signature-input"], pattern
        return self.with_header("signature-input", changed)


async def accepted(call: Call) -> Caller | None:
    """The caller, or None for a refusal, which tells nothing of its reason."""
    try:
        return await verify_request(call.method, call.path, call.headers, call.body)
    except SignatureInvalid as refusal:
        told = refusal.message, refusal.data, refusal.field
    if told != (SignatureInvalid.default_message, {}, ()):
        raise AssertionError(told)
    return None


@pytest.fixture
def url(database: Any) -> str:
    return installed.current().public_url.rstrip("/") + PATH


@pytest.fixture
def signed(shop: Any, url: str) -> Callable[..., Call]:
    """A correctly signed call of the shop; keyword arguments as for `sign_request`."""

    def sign(algorithm: str = "ed25519", *, body: bytes = BODY, **changes: Any) -> Call:
        key_id, key = shop.keys[algorithm]
        headers = sign_request("POST", url, body, **{"key_id": key_id, "key": key, **changes})
        return Call(headers, body=body)

    return sign


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_signed_call_is_the_merchants(
    shop: Any, signed: Callable[..., Call], algorithm: str
) -> None:
    caller = await accepted(signed(algorithm))
    assert caller is not None
    assert caller.merchant_id == shop.merchant_id
    assert str(caller.key_id) == shop.keys[algorithm][0]
    assert caller.signed
    assert not caller.scopes


async def test_header_names_and_repeated_fields_are_read_as_starlette_gives_them(
    signed: Callable[..., Call],
) -> None:
    call = signed()
    raw = [(name.encode(), value.encode()) for name, value in call.headers.items()]
    headers = Headers(raw=raw)
    assert signatures.is_signed(headers)
    assert await verify_request(call.method, call.path, headers, call.body)


async def test_no_altered_call_is_accepted(
    database: Any,
    shop: Any,
    new_shop: Any,
    administrator: Caller,
    signed: Callable[..., Call],
    url: str,
) -> None:
    other = await new_shop("Tea")
    cases: dict[str, Call] = {}

    def altered(name: str, change: Callable[[Call], Call]) -> None:
        for algorithm in ALGORITHMS:
            cases[f"{algorithm}: {name}"] = change(signed(algorithm))

    for position in (0, 20, len(BODY) - 1):
        flipped = bytes(byte ^ (1 if index == position else 0) for index, byte in enumerate(BODY))
        altered(f"body byte {position}", lambda call, body=flipped: replace(call, body=body))
    altered("body longer", lambda call: replace(call, body=BODY + b" "))
    altered("body empty", lambda call: replace(call, body=b""))
    altered("body encoded anew", lambda call: replace(call, body=BODY.replace(b":", b": ")))
    altered("amount", lambda call: replace(call, body=BODY.replace(b"1000", b"9000")))
    altered("method", lambda call: replace(call, method="PUT"))
    altered("method in lower case", lambda call: replace(call, method="post"))
    altered("path", lambda call: replace(call, path="/graphql/"))
    altered("another path", lambda call: replace(call, path="/other"))
    altered("query", lambda call: replace(call, path=PATH + "?a=1"))
    altered("host smuggled in the path", lambda call: replace(call, path="@evil.example/graphql"))
    altered("content type", lambda call: call.with_header("content-type", "text/plain"))
    altered("no content type", lambda call: call.with_header("content-type", None))
    altered("no digest", lambda call: call.with_header("content-digest", None))
    altered("no signature", lambda call: call.with_header("signature", None))
    altered("empty signature", lambda call: call.with_header("signature", ""))
    altered("no input", lambda call: call.with_header("signature-input", None))
    altered("input garbage", lambda call: call.with_header("signature-input", '"((('))
    altered("input not ASCII", lambda call: call.with_header("signature-input", "é=()"))
    altered("input huge", lambda call: call.with_header("signature-input", "a=();" * 5_000))
    altered("label", lambda call: call.with_input("^purser=", "other="))
    altered("tag", lambda call: call.with_input(TAG, "another"))
    altered("no tag", lambda call: call.with_input(f';tag="{TAG}"', ""))
    altered("no nonce", lambda call: call.with_input(r';nonce="[^"]*"', ""))
    altered("another nonce", lambda call: call.with_input(r'nonce="[^"]*"', 'nonce="abcdefgh"'))
    altered("no alg", lambda call: call.with_input(r';alg="[^"]*"', ""))
    altered("alg md5", lambda call: call.with_input(r'alg="[^"]*"', 'alg="md5"'))
    altered("alg rsa-md5", lambda call: call.with_input(r'alg="[^"]*"', 'alg="rsa-md5"'))
    altered("alg none", lambda call: call.with_input(r'alg="[^"]*"', 'alg="none"'))
    altered("alg pss", lambda call: call.with_input(r'alg="[^"]*"', 'alg="rsa-pss-sha512"'))
    altered("no created", lambda call: call.with_input(r";created=\d+", ""))
    altered("created a text", lambda call: call.with_input(r"created=(\d+)", r'created="\1"'))
    altered("created a decimal", lambda call: call.with_input(r"created=(\d+)", r"created=\1.5"))
    altered("created moved", lambda call: call.with_input(r"created=1", "created=2"))
    altered("no expires", lambda call: call.with_input(r";expires=\d+", ""))
    altered("expires later", lambda call: call.with_input(r"expires=\d+", "expires=9999999999"))
    altered("no keyid", lambda call: call.with_input(r';keyid="[^"]*"', ""))
    altered("keyid unknown", lambda call: call.with_input(r'(keyid=")......', r"\g<1>000000"))
    altered("keyid no id", lambda call: call.with_input(r'keyid="[^"]*"', 'keyid="../../key"'))
    altered("keyid in capitals", _key_id_in_capitals)
    altered("a further parameter", lambda call: call.with_input("$", ';extra="1"'))
    altered("two signatures", _doubled)
    for component in ("@method", "@target-uri", "content-type", "content-digest"):
        altered(
            f"{component} not covered",
            lambda call, name=component: call.with_input(f' ?"{name}"', ""),
        )
    for algorithm in ALGORITHMS:
        key_id = shop.keys[algorithm][0]
        other_id, other_key = other.keys[algorithm]
        if algorithm != "rsa-v1_5-sha256":  # the shops of these tests share their RSA key
            cases[f"{algorithm}: another merchant's key"] = signed(algorithm, key=other_key)
            cases[f"{algorithm}: another merchant's key id"] = signed(algorithm, key_id=other_id)
        for seconds in (-301, -61, 45, 301, 86_400, -86_400):
            instant = clock.now() + timedelta(seconds=seconds)
            cases[f"{algorithm}: created {seconds} s away"] = signed(algorithm, created=instant)
        cases[f"{algorithm}: a life of 301 s"] = signed(algorithm, lifetime_seconds=301)
        cases[f"{algorithm}: no life"] = signed(algorithm, lifetime_seconds=0)
        cases[f"{algorithm}: a life that ends before"] = signed(algorithm, lifetime_seconds=-10)
        cases[f"{algorithm}: a short nonce"] = signed(algorithm, nonce="1234567")
        cases[f"{algorithm}: a long nonce"] = signed(algorithm, nonce="n" * 129)
        for named in ALGORITHMS:
            if named != algorithm:
                crossed = signed(named, key_id=key_id)
                cases[f"{named} under the id of an {algorithm} key"] = crossed
        honest = signed(algorithm)
        value = honest.headers["signature"]
        for position in range(9, len(value) - 3, max(1, len(value) // 12)):
            flipped_value = value[:position] + ("A" if value[position] != "A" else "B")
            cases[f"{algorithm}: signature character {position}"] = signed(algorithm).with_header(
                "signature", flipped_value + value[position + 1 :]
            )
        # The last letter before the padding carries bits that mean nothing: each is a forgery too.
        letter = len(value.rstrip(":=")) - 1
        for ending in "AQgwBRhxCSiyDTjz0123456789+/":
            respelled = signed(algorithm)
            value = respelled.headers["signature"]
            if value[letter] != ending:
                cases[f"{algorithm}: last letter {ending}"] = respelled.with_header(
                    "signature", value[:letter] + ending + value[letter + 1 :]
                )
    public = shop.keys["ed25519"][1].public_key().public_bytes_raw()
    key_id = shop.keys["ed25519"][0]
    cases["the public key as a secret"] = signed(key=public, key_id=key_id)
    cases["a stranger's key"] = signed(key=ed25519.Ed25519PrivateKey.generate())
    ecdsa = ec.generate_private_key(ec.SECP256R1())
    cases["an ECDSA key"] = _signed_by_hand(algorithms.ECDSA_P256_SHA256, ecdsa, key_id, url)
    rsa_id, rsa_key = shop.keys["rsa-v1_5-sha256"]
    pss = _signed_by_hand(algorithms.RSA_PSS_SHA512, rsa_key, rsa_id, url)
    cases["RSA-PSS by the right key"] = pss
    named = pss.with_input(r'alg="[^"]*"', 'alg="rsa-v1_5-sha256"')
    cases["RSA-PSS under the name of the other padding"] = named
    cases["digest of MD5"] = _with_digest(shop, url, f"md5=:{_digest(hashlib.md5)}:")
    cases["digest of SHA-1"] = _with_digest(shop, url, f"sha=:{_digest(hashlib.sha1)}:")
    cases["digest of SHA-512 alone"] = _with_digest(
        shop, url, f"sha-512=:{_digest(hashlib.sha512)}:"
    )
    cases["digest of another body"] = _with_digest(
        shop, url, f"sha-256=:{base64.b64encode(hashlib.sha256(b'other').digest()).decode()}:"
    )
    cases["digest that is a text"] = _with_digest(shop, url, f'sha-256="{_digest(hashlib.sha256)}"')

    assert len(cases) > 200
    assert [name for name, call in cases.items() if await accepted(call)] == []
    assert await accepted(signed()), "the control: unaltered calls of the same shop do pass"
    refused = await database.fetch("SELECT * FROM audit_log WHERE action = 'SIGNATURE_REFUSED'")
    assert len(refused) == len(cases)


async def test_a_call_signed_by_hand_after_the_standard_is_accepted(shop: Any, url: str) -> None:
    assert await accepted(_with_digest(shop, url, f"sha-256=:{_digest(hashlib.sha256)}:"))


async def test_a_digest_of_two_algorithms_is_fine_if_both_fit(shop: Any, url: str) -> None:
    both = f"sha-256=:{_digest(hashlib.sha256)}:, sha-512=:{_digest(hashlib.sha512)}:"
    assert await accepted(_with_digest(shop, url, both))


async def test_a_call_is_accepted_once(signed: Callable[..., Call]) -> None:
    call = signed()
    assert await accepted(call)
    assert await accepted(call) is None
    assert await accepted(signed(nonce="the same nonce"))
    assert await accepted(signed(nonce="the same nonce")) is None


async def test_without_the_nonce_a_call_could_be_sent_again(
    signed: Callable[..., Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: its guard taken out."""

    async def forgetful(key_id: uuid.UUID, nonce: str) -> None:
        return None

    monkeypatch.setattr(signatures, "_use_nonce", forgetful)
    call = signed()
    assert await accepted(call)
    assert await accepted(call)


async def test_of_fifty_equal_calls_at_once_one_is_accepted(signed: Callable[..., Call]) -> None:
    call = signed()
    ended = await asyncio.gather(*(accepted(call) for _ in range(50)))
    assert sum(caller is not None for caller in ended) == 1


async def test_a_nonce_belongs_to_its_key(signed: Callable[..., Call]) -> None:
    assert await accepted(signed("ed25519", nonce="the same nonce"))
    assert await accepted(signed("hmac-sha256", nonce="the same nonce"))


async def test_a_forged_call_does_not_use_up_the_nonce(signed: Callable[..., Call]) -> None:
    call = signed()
    assert await accepted(replace(call, body=b"{}")) is None
    assert await accepted(call)


async def test_the_target_is_our_public_url_whatever_the_host_header_says(
    signed: Callable[..., Call], shop: Any
) -> None:
    assert await accepted(signed().with_header("host", "evil.example"))
    key_id, key = shop.keys["ed25519"]
    elsewhere = sign_request("POST", "https://evil.example/graphql", BODY, key_id=key_id, key=key)
    call = Call(elsewhere).with_header("host", "evil.example")
    assert await accepted(call) is None


async def test_a_clock_that_runs_a_little_ahead_is_forgiven(signed: Callable[..., Call]) -> None:
    assert await accepted(signed(created=clock.now() + timedelta(seconds=20)))
    assert await accepted(
        signed(created=clock.now() - timedelta(seconds=250), lifetime_seconds=300)
    )


async def test_a_revoked_key_signs_nothing_and_an_expiring_one_for_its_overlap(
    database: Any, shop: Any, administrator: Caller, signed: Callable[..., Call]
) -> None:
    keys = await merchant_keys.list_keys(shop.merchant_id, by=administrator)
    ed25519_key = next(view.key_id for view in keys if view.algorithm == "ed25519")
    await merchant_keys.expire_key(shop.merchant_id, ed25519_key, by=administrator)
    assert await accepted(signed("ed25519"))
    await merchant_keys.revoke_key(shop.merchant_id, ed25519_key, by=administrator)
    assert await accepted(signed("ed25519")) is None
    assert await accepted(signed("hmac-sha256"))


async def test_a_key_row_moved_to_another_merchant_verifies_nothing(
    database: Any, shop: Any, new_shop: Any, signed: Callable[..., Call]
) -> None:
    """Who can write to the table but has no master key cannot speak for a merchant."""
    other = await new_shop("Tea")
    await database.fetch("UPDATE merchant_key SET merchant_id = $1", other.merchant_id)
    assert await accepted(signed("hmac-sha256")) is None


def _key_id_in_capitals(call: Call) -> Call:
    found = re.search(r'keyid="([^"]*)"', call.headers["signature-input"])
    assert found
    changed = call.headers["signature-input"].replace(found[1], found[1].upper())
    return call.with_header("signature-input", changed)


def _doubled(call: Call) -> Call:
    second = call.headers["signature-input"].replace("purser=", "second=")
    signature = call.headers["signature"].replace("purser=", "second=")
    both = call.with_header("signature-input", f"{call.headers['signature-input']}, {second}")
    return both.with_header("signature", f"{call.headers['signature']}, {signature}")


def _signed_by_hand(algorithm: Any, key: Any, key_id: str, url: str, digest: str = "") -> Call:
    """Signed with nothing but RFC 9421, section 2.5, for what no library would help us do."""
    now = int(clock.now().timestamp())
    digest = digest or f"sha-256=:{_digest(hashlib.sha256)}:"
    parameters = (
        '("@method" "@target-uri" "content-type" "content-digest")'
        f';created={now};keyid="{key_id}";alg="{algorithm.algorithm_id}";expires={now + 60}'
        f';nonce="{hashlib.sha256(digest.encode()).hexdigest()}";tag="{TAG}"'
    )
    base = (
        f'"@method": POST\n"@target-uri": {url}\n"content-type": application/json\n'
        f'"content-digest": {digest}\n"@signature-params": {parameters}'
    )
    made = algorithm(private_key=key).sign(base.encode())
    headers = {
        "content-type": "application/json",
        "content-digest": digest,
        "signature-input": f"purser={parameters}",
        "signature": f"purser=:{base64.b64encode(made).decode()}:",
    }
    return Call(headers)


def _with_digest(shop: Any, url: str, digest: str) -> Call:
    key_id, key = shop.keys["ed25519"]
    return _signed_by_hand(algorithms.ED25519, key, key_id, url, digest)


def _digest(algorithm: Any) -> str:
    return base64.b64encode(algorithm(BODY).digest()).decode()
