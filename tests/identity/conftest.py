"""People of these tests: a customer, an administrator and a merchant with a key of each kind."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from identity import codes, customers, merchant_keys, merchants, operators, tokens
from identity.addresses import Address, parse_address
from identity.caller import Caller
from identity.logins import Tokens
from identity.signing_client import SigningKey

PASSWORD = "correct horse battery"
OPERATOR_PASSWORD = "one very long password"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Person:
    """A registered customer with the tokens of the first login."""

    address: Address
    tokens: Tokens

    @property
    def customer_id(self) -> uuid.UUID:
        assert self.tokens.principal.id is not None
        return self.tokens.principal.id


@dataclass
class Shop:
    """A merchant, its private keys by algorithm, and the ids under which we know them."""

    merchant_id: uuid.UUID
    keys: dict[str, tuple[str, SigningKey]]


@pytest.fixture
def issued_code(database: Any) -> Callable[..., Awaitable[str]]:
    """The digits of the newest code of a customer, as the SMS would carry them."""

    async def read(customer_id: uuid.UUID, purpose: str) -> str:
        rows = await database.fetch(
            """SELECT code_id FROM one_time_code WHERE customer_id = $1 AND purpose = $2
            ORDER BY requested_at DESC LIMIT 1""",
            customer_id,
            purpose,
        )
        issued = await codes.issue(rows[0]["code_id"])
        assert issued is not None
        return issued.code

    return read


@pytest.fixture
def new_customer(issued_code: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[Person]]:
    async def make(phone: str = "+8613812345678") -> Person:
        address = parse_address(phone, None)
        registration = await customers.register(address, PASSWORD, "Li Xiaoming")
        code = await issued_code(registration.registration_id, "REGISTER")
        signed_in = await customers.confirm_registration(registration.registration_id, code)
        return Person(address, signed_in)

    return make


@pytest.fixture
async def person(new_customer: Callable[..., Awaitable[Person]]) -> Person:
    return await new_customer()


@pytest.fixture
async def administrator(database: Any) -> Caller:
    await operators.create_operator("admin@example.com", OPERATOR_PASSWORD, ["ADMINISTRATOR"])
    signed_in = await operators.login("admin@example.com", OPERATOR_PASSWORD)
    return await tokens.verify_access(signed_in.access_token)


@pytest.fixture
def new_shop(administrator: Caller) -> Callable[..., Awaitable[Shop]]:
    async def make(name: str = "Noodles") -> Shop:
        merchant = await merchants.register_merchant(
            name,
            currencies=["CNY"],
            fee_rate_millionths=6_000,
            payment_limit_minor=10_000_00,
            by=administrator,
        )
        merchant_id = merchant.merchant_id
        keys: dict[str, tuple[str, SigningKey]] = {}
        for private in (ed25519.Ed25519PrivateKey.generate(), RSA_KEY):
            pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            view = await merchant_keys.add_public_key(merchant_id, pem.decode(), by=administrator)
            keys[view.algorithm] = (str(view.key_id), private)
        view, secret = await merchant_keys.make_secret(merchant_id, by=administrator)
        keys[view.algorithm] = (str(view.key_id), base64.b64decode(secret))
        return Shop(merchant_id, keys)

    return make


@pytest.fixture
async def shop(new_shop: Callable[..., Awaitable[Shop]]) -> Shop:
    return await new_shop()
