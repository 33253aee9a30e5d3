"""No secret is found again: not in any table, any line of the log, any `repr` or any refusal."""

from __future__ import annotations

import base64
import logging
import re
import uuid
from typing import Any

import pytest

from core.errors import PurserError
from identity import codes, customers, logins, merchant_keys, operators, payment_password, tokens
from identity.addresses import Address
from identity.caller import Caller
from identity.signatures import verify_request
from identity.signing_client import sign_request

CANARY_PASSWORD = "canary-login-password-7731"
CANARY_NEW_PASSWORD = "canary-second-password-7731"
CANARY_WRONG_PASSWORD = "canary-wrong-password-7731"
CANARY_OPERATOR_PASSWORD = "canary-operator-password-7731"
CANARY_DIGITS = "739154"
CANARY_WRONG_DIGITS = "739155"
ADDRESS = Address("PHONE", "+8613812345678")


async def text_of_the_database(database: Any) -> str:
    """Every row of every table as text, as a dump would hold it, and bytes as text too."""
    tables = await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    lines = []
    for table in tables:
        for row in await database.fetch(f'SELECT * FROM "{table["tablename"]}"'):
            for value in row.values():
                lines.append(str(value))
                if isinstance(value, bytes):
                    lines += [
                        value.hex(),
                        value.decode("latin-1"),
                        base64.b64encode(value).decode(),
                    ]
    return "\n".join(lines)


async def refused(call: Any, seen: list[str]) -> None:
    with pytest.raises(PurserError) as refusal:
        await call
    seen += [str(refusal.value), repr(refusal.value), repr(refusal.value.data)]


async def test_a_whole_life_leaves_no_secret_behind(
    database: Any, administrator: Caller, shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    issued: list[str] = []

    async def newest_code(customer_id: uuid.UUID) -> str:
        rows = await database.fetch(
            "SELECT code_id FROM one_time_code WHERE customer_id = $1 ORDER BY requested_at DESC",
            customer_id,
        )
        code = await codes.issue(rows[0]["code_id"])
        assert code is not None
        shown.append(repr(code))
        issued.append(code.code)
        return code.code

    registration = await customers.register(ADDRESS, CANARY_PASSWORD)
    code = await newest_code(registration.registration_id)
    first = await customers.confirm_registration(registration.registration_id, code)
    customer_id = registration.registration_id
    second = await logins.refresh(first.refresh_token or "")
    await refused(customers.login(ADDRESS, CANARY_WRONG_PASSWORD), shown)
    third = await customers.login(ADDRESS, CANARY_PASSWORD)
    await payment_password.set_payment_password(
        customer_id, CANARY_DIGITS, unchecked_login_password=CANARY_PASSWORD
    )
    await refused(payment_password.verify_payment_password(customer_id, CANARY_WRONG_DIGITS), shown)
    await customers.request_password_reset(ADDRESS)
    await refused(customers.reset_password(ADDRESS, "739153", CANARY_NEW_PASSWORD), shown)
    code = await newest_code(customer_id)
    await customers.reset_password(ADDRESS, code, CANARY_NEW_PASSWORD)
    await operators.create_operator("new@example.com", CANARY_OPERATOR_PASSWORD, ["SUPPORT"])
    operator = await operators.login("new@example.com", CANARY_OPERATOR_PASSWORD)
    view, secret = await merchant_keys.make_secret(shop.merchant_id, by=administrator)
    token = await merchant_keys.issue_merchant_token(shop.merchant_id, by=administrator)
    headers = sign_request(
        "POST",
        "http://elsewhere/graphql",
        b"{}",
        key_id=str(view.key_id),
        key=base64.b64decode(secret),
    )
    await refused(verify_request("POST", "/graphql", headers, b"{}"), shown)
    await refused(tokens.verify_access(third.access_token), shown)
    shown += [repr(value) for value in (registration, first, second, third, operator, view, token)]
    shown += [repr(tokens._keys)]

    secrets = [
        CANARY_PASSWORD,
        CANARY_NEW_PASSWORD,
        CANARY_WRONG_PASSWORD,
        CANARY_OPERATOR_PASSWORD,
        CANARY_DIGITS,
        CANARY_WRONG_DIGITS,
        "739153",
        *issued,
        secret,
        base64.b64decode(secret).hex(),
        base64.b64decode(secret).decode("latin-1"),
    ]
    for signed_in in (first, second, third, operator, token):
        secrets += [signed_in.access_token, signed_in.refresh_token or "no refresh token"]
    stored = await text_of_the_database(database)
    logged = "\n".join(
        [record.getMessage() + str(record.args) for record in caplog.records] + [caplog.text]
    )
    assert str(customer_id) in stored, "the control: what is stored is found"
    for place, text in (("database", stored), ("log", logged), ("shown", "\n".join(shown))):
        found = [secret for secret in secrets if _stands_alone(secret, text)]
        assert found == [], place


def _stands_alone(secret: str, text: str) -> bool:
    """Six digits may stand by chance inside a longer number or an id, never on their own."""
    if not secret.isdigit():
        return secret in text
    return re.search(rf"(?<![\w.+-]){secret}(?![\w.-])", text) is not None
