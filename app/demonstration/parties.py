"""Who takes part in the demonstration: an operator, a merchant with a key, a customer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.client import Api, MerchantKey
from app.demonstration.stage import Stage, wait_for
from core import ids
from identity.operators import create_operator

CURRENCY = "CNY"
FEE_RATE_MILLIONTHS = 6_000
PAYMENT_LIMIT_MINOR = 1_000_000_00
ROLES = ("ADMINISTRATOR", "SETTLEMENT", "RISK_ANALYST", "SUPPORT", "AUDITOR")
PAYMENT_PASSWORD = "294817"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """Who took part, and how each of them comes back."""

    phone: str
    password: str = field(repr=False)
    payment_password: str = field(repr=False)
    operator_email: str
    operator_password: str = field(repr=False)
    merchant_id: str
    key_id: str
    private_key: bytes = field(repr=False)

    @property
    def merchant_key(self) -> MerchantKey:
        return MerchantKey(self.key_id, Ed25519PrivateKey.from_private_bytes(self.private_key))


async def register_parties(stage: Stage) -> Parties:
    """Make all three; needs an open pool, for the operator alone."""
    operator_email = f"operator-{ids.random_digits(6)}@purser-operators.com"
    operator_password = ids.random_token(12)
    await create_operator(operator_email, operator_password, ROLES)
    operator = await operator_token(stage.api, operator_email, operator_password)
    merchant_id, key, private_key = await _register_merchant(stage, operator)
    phone, password = f"+86138{ids.random_digits(8)}", ids.random_token(12)
    await _register_customer(stage, phone, password)
    return Parties(
        phone=phone,
        password=password,
        payment_password=PAYMENT_PASSWORD,
        operator_email=operator_email,
        operator_password=operator_password,
        merchant_id=merchant_id,
        key_id=key.key_id,
        private_key=private_key,
    )


async def operator_token(api: Api, email: str, password: str) -> str:
    """An access token of an operator."""
    data = await api.ask(
        """mutation($input: OperatorLoginInput!) { operatorLogin(input: $input) {
            tokens { accessToken } userErrors { code message } } }""",
        {"input": {"email": email, "password": password}},
    )
    return str(data["operatorLogin"]["tokens"]["accessToken"])


async def customer_token(api: Api, phone: str, password: str) -> str:
    """An access token of a customer."""
    data = await api.ask(
        """mutation($input: CustomerLoginInput!) { customerLogin(input: $input) {
            tokens { accessToken } userErrors { code message } } }""",
        {"input": {"address": {"phone": phone}, "password": password}},
    )
    return str(data["customerLogin"]["tokens"]["accessToken"])


async def merchant_token(api: Api, key: MerchantKey) -> str:
    """An access token of a merchant: it reads, and moves no money."""
    data = await api.ask(
        """mutation { merchantTokenIssue(input: {}) {
            tokens { accessToken } userErrors { code message } } }""",
        key=key,
    )
    return str(data["merchantTokenIssue"]["tokens"]["accessToken"])


async def _register_merchant(stage: Stage, operator: str) -> tuple[str, MerchantKey, bytes]:
    """A merchant with a key of its own and a place for its webhooks."""
    data = await stage.api.ask(
        """mutation($input: MerchantRegisterInput!) { merchantRegister(input: $input) {
            merchant { id } userErrors { code message } } }""",
        {
            "input": {
                "name": "Corner Tea House",
                "currencies": [CURRENCY],
                "feeRateMillionths": FEE_RATE_MILLIONTHS,
                "paymentLimitMinor": PAYMENT_LIMIT_MINOR,
            }
        },
        token=operator,
    )
    merchant_id = str(data["merchantRegister"]["merchant"]["id"])
    private = Ed25519PrivateKey.generate()
    document = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    data = await stage.api.ask(
        """mutation($input: MerchantKeyCreateInput!) { merchantKeyCreate(input: $input) {
            merchantKey { keyId } userErrors { code message } } }""",
        {"input": {"merchantId": merchant_id, "publicKey": document.decode()}},
        token=operator,
    )
    key = MerchantKey(str(data["merchantKeyCreate"]["merchantKey"]["keyId"]), private)
    data = await stage.api.ask(
        """mutation($input: WebhookEndpointSetInput!) { webhookEndpointSet(input: $input) {
            secret userErrors { code message } } }""",
        {"input": {"url": f"{stage.simulator_url}/merchant/webhooks"}},
        key=key,
    )
    response = await stage.api.http.post(
        f"{stage.simulator_url}/admin/webhook-secret",
        json={"secret": data["webhookEndpointSet"]["secret"]},
        headers={"authorization": f"Bearer {stage.admin_token}"},
    )
    response.raise_for_status()
    return merchant_id, key, private.private_bytes_raw()


async def _register_customer(stage: Stage, phone: str, password: str) -> str:
    """A customer who read the code on the simulated phone, with a payment password."""
    data = await stage.api.ask(
        """mutation($input: CustomerRegisterInput!) { customerRegister(input: $input) {
            registrationId userErrors { code message } } }""",
        {"input": {"address": {"phone": phone}, "password": password, "displayName": "Li Wei"}},
    )
    registration_id = data["customerRegister"]["registrationId"]
    code = await _code_on_the_phone(stage, phone)
    data = await stage.api.ask(
        """mutation($input: CustomerConfirmInput!) { customerConfirm(input: $input) {
            tokens { accessToken } userErrors { code message } } }""",
        {"input": {"registrationId": registration_id, "code": code}},
    )
    token = str(data["customerConfirm"]["tokens"]["accessToken"])
    await stage.api.ask(
        """mutation($input: PaymentPasswordSetInput!) { paymentPasswordSet(input: $input) {
            userErrors { code message } } }""",
        {"input": {"newPaymentPassword": PAYMENT_PASSWORD, "loginPassword": password}},
        token=token,
    )
    return token


async def _code_on_the_phone(stage: Stage, phone: str) -> str:
    async def look() -> str | None:
        shown = await stage.api.http.get(f"{stage.simulator_url}/phone/{phone}")
        messages = shown.json()
        found = re.search(r"\b\d{6}\b", messages[0]["text"]) if messages else None
        return found[0] if found else None

    return await wait_for("the code on the phone", look)
