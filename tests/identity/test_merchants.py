"""Merchants and their keys: each changes its own, an operator any, and a secret is shown once."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from core.configuration import PLATFORM_MERCHANT_ID
from core.errors import Forbidden, InvalidArgument, NotFound
from core.principal import customer, merchant
from identity import merchant_keys, merchants
from identity.caller import Caller

SPKI = PublicFormat.SubjectPublicKeyInfo


def signed_by(shop: Any) -> Caller:
    return Caller(principal=merchant(shop.merchant_id), signed=True)


def public_pem(private: Any) -> str:
    return str(private.public_key().public_bytes(Encoding.PEM, SPKI).decode())


async def test_a_registered_merchant_reads_itself_and_no_other(shop: Any, new_shop: Any) -> None:
    other = await new_shop("Tea")
    view = await merchants.read_merchant(signed_by(shop), shop.merchant_id)
    assert (view.name, view.status, view.currencies) == ("Noodles", "ACTIVE", ("CNY",))
    assert (view.fee_rate_millionths, view.payment_limit_minor) == (6_000, 10_000_00)
    for foreign in (other.merchant_id, uuid.uuid4()):
        with pytest.raises(NotFound):
            await merchants.read_merchant(signed_by(shop), foreign)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": " "},
        {"name": "x" * 129},
        {"name": "a\nb"},
        {"fee_rate_millionths": -1},
        {"fee_rate_millionths": 1_000_001},
        {"payment_limit_minor": 0},
        {"payment_limit_minor": 2**63},
        {"currencies": []},
        {"currencies": ["CNY", "XYZ"]},
    ],
)
async def test_values_that_cannot_be_are_refused(
    administrator: Caller, wrong: dict[str, Any]
) -> None:
    right: dict[str, Any] = {
        "name": "Noodles",
        "currencies": ["CNY"],
        "fee_rate_millionths": 6_000,
        "payment_limit_minor": 1,
    }
    with pytest.raises(InvalidArgument):
        await merchants.register_merchant(**(right | wrong), by=administrator)


async def test_a_merchant_is_suspended_and_back(shop: Any, administrator: Caller) -> None:
    view = await merchants.set_merchant_status(shop.merchant_id, "SUSPENDED", by=administrator)
    assert view.status == "SUSPENDED"
    view = await merchants.set_merchant_status(shop.merchant_id, "ACTIVE", by=administrator)
    assert view.status == "ACTIVE"
    with pytest.raises(NotFound):
        await merchants.set_merchant_status(uuid.uuid4(), "SUSPENDED", by=administrator)
    with pytest.raises(InvalidArgument):
        await merchants.set_merchant_status(PLATFORM_MERCHANT_ID, "SUSPENDED", by=administrator)


async def test_row_level_security_stands_behind_the_permissions(
    shop: Any, new_shop: Any, administrator: Caller
) -> None:
    """The same calls as an operator's, made by a merchant and a customer past all guards."""
    other = await new_shop("Tea")
    for principal in (merchant(other.merchant_id), customer(uuid.uuid4())):
        intruder = Caller(principal=principal, signed=True)
        with pytest.raises(NotFound):
            await merchants.set_merchant_status(shop.merchant_id, "SUSPENDED", by=intruder)
        key_id = uuid.UUID(shop.keys["ed25519"][0])
        with pytest.raises(NotFound):
            await merchant_keys.revoke_key(shop.merchant_id, key_id, by=intruder)
        assert await merchant_keys.list_keys(shop.merchant_id, by=intruder) == []
        with pytest.raises(Forbidden):
            await merchant_keys.make_secret(shop.merchant_id, by=intruder)
        with pytest.raises(Forbidden):
            await merchant_keys.issue_merchant_token(shop.merchant_id, by=intruder)


async def test_names_are_public(shop: Any) -> None:
    names = await merchants.merchant_names([shop.merchant_id, uuid.uuid4()])
    assert names == {shop.merchant_id: "Noodles"}


async def test_a_merchant_rotates_its_own_keys(shop: Any) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    added = await merchant_keys.add_public_key(
        shop.merchant_id, public_pem(private), by=signed_by(shop)
    )
    old = uuid.UUID(shop.keys["ed25519"][0])
    expiring = await merchant_keys.expire_key(shop.merchant_id, old, by=signed_by(shop))
    assert expiring.expires_at is not None
    again = await merchant_keys.expire_key(
        shop.merchant_id, old, after_seconds=10**6, by=signed_by(shop)
    )
    assert again.expires_at == expiring.expires_at, "an end is never moved back"
    views = await merchant_keys.list_keys(shop.merchant_id, by=signed_by(shop))
    assert views[0] == added
    assert len(views) == 4


async def test_a_secret_is_shown_once_and_stored_sealed(
    database: Any, shop: Any, administrator: Caller
) -> None:
    view, secret = await merchant_keys.make_secret(shop.merchant_id, by=administrator)
    raw = base64.b64decode(secret)
    assert len(raw) == merchant_keys.SECRET_SIZE
    row = await database.fetch("SELECT * FROM merchant_key WHERE key_id = $1", view.key_id)
    assert raw not in bytes(row[0]["sealed_key"])
    assert secret not in repr(view)


async def test_only_strong_public_keys_are_accepted(shop: Any) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    refused = {
        "nothing": "",
        "not PEM": "ssh-ed25519 AAAA",
        "an RSA key of 1024 bits": public_pem(rsa.generate_private_key(65537, 1024)),
        "an elliptic curve key": public_pem(ec.generate_private_key(ec.SECP256R1())),
        "a private key": private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode(),
        "a huge text": "-----BEGIN PUBLIC KEY-----\n" + "A" * 10_000,
        "a lone surrogate": "\ud800",
        "garbage in PEM": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    accepted = []
    for name, pem in refused.items():
        try:
            await merchant_keys.add_public_key(shop.merchant_id, pem, by=signed_by(shop))
        except InvalidArgument:
            continue
        accepted.append(name)
    assert accepted == []


async def test_there_is_an_end_to_live_keys(shop: Any) -> None:
    for _ in range(merchant_keys.LIVE_KEYS_MAX - len(shop.keys)):
        await merchant_keys.make_secret(shop.merchant_id, by=signed_by(shop))
    with pytest.raises(InvalidArgument):
        await merchant_keys.make_secret(shop.merchant_id, by=signed_by(shop))


async def test_a_token_carries_only_a_scope_that_reads(shop: Any) -> None:
    with pytest.raises(InvalidArgument):
        await merchant_keys.issue_merchant_token(
            shop.merchant_id, scopes=frozenset({"customer"}), by=signed_by(shop)
        )
    tokens = await merchant_keys.issue_merchant_token(shop.merchant_id, by=signed_by(shop))
    assert tokens.refresh_token is None
