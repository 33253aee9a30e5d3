"""Operators: what they may do ends with their roles, and what they did stays in the audit log."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest

from core.errors import (
    CredentialsInvalid,
    Forbidden,
    InvalidArgument,
    NotFound,
    NotPermitted,
    Unauthenticated,
)
from identity import logins, operators, tokens
from identity.caller import Caller

PASSWORD = "one very long password"


async def test_an_operator_signs_in_with_the_roles_of_the_row(administrator: Caller) -> None:
    assert administrator.operator_id is not None
    assert administrator.roles == {"ADMINISTRATOR"}
    assert administrator.scopes == {"operator"}


async def test_a_wrong_password_and_an_unknown_address_are_answered_alike(
    administrator: Caller,
) -> None:
    for email in ("admin@example.com", "nobody@example.com"):
        codes = []
        for _ in range(11):
            with pytest.raises(NotPermitted) as refusal:
                await operators.login(email, "another long password")
            codes.append(refusal.value.code)
        assert codes == ["CREDENTIALS_INVALID"] * 10 + ["CREDENTIALS_LOCKED"]


@pytest.mark.parametrize(
    ("email", "password", "roles"),
    [
        ("no address", PASSWORD, ["SUPPORT"]),
        ("new@example.com", "too short", ["SUPPORT"]),
        ("new@example.com", PASSWORD, ["OWNER"]),
        ("ADMIN@example.com", PASSWORD, ["SUPPORT"]),
    ],
)
async def test_what_cannot_be_is_refused(
    administrator: Caller, email: str, password: str, roles: list[str]
) -> None:
    with pytest.raises(InvalidArgument):
        await operators.create_operator(email, password, roles, by=administrator)


async def test_other_roles_end_the_logins_that_carry_the_old_ones(administrator: Caller) -> None:
    operator_id = await operators.create_operator(
        "new@example.com", PASSWORD, ["SUPPORT"], by=administrator
    )
    signed_in = await operators.login("new@example.com", PASSWORD)
    await operators.set_roles(operator_id, ["AUDITOR", "SETTLEMENT"], by=administrator)
    with pytest.raises(Unauthenticated):
        await tokens.verify_access(signed_in.access_token)
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(signed_in.refresh_token or "")
    again = await operators.login("new@example.com", PASSWORD)
    caller = await tokens.verify_access(again.access_token)
    assert caller.roles == {"AUDITOR", "SETTLEMENT"}


async def test_a_disabled_operator_is_out_at_once(administrator: Caller) -> None:
    operator_id = await operators.create_operator(
        "new@example.com", PASSWORD, ["SUPPORT"], by=administrator
    )
    signed_in = await operators.login("new@example.com", PASSWORD)
    await operators.disable(operator_id, by=administrator)
    with pytest.raises(Unauthenticated):
        await tokens.verify_access(signed_in.access_token)
    with pytest.raises(CredentialsInvalid):
        await operators.login("new@example.com", PASSWORD)


async def test_nobody_changes_their_own_roles(administrator: Caller) -> None:
    assert administrator.operator_id is not None
    with pytest.raises(Forbidden):
        await operators.set_roles(administrator.operator_id, ["SETTLEMENT"], by=administrator)
    with pytest.raises(Forbidden):
        await operators.disable(administrator.operator_id, by=administrator)
    with pytest.raises(NotFound):
        await operators.disable(uuid.uuid4(), by=administrator)


async def test_every_act_of_an_operator_is_in_the_log_which_nobody_changes(
    database: Any, administrator: Caller, shop: Any
) -> None:
    rows = await database.fetch(
        "SELECT action FROM audit_log WHERE actor = $1", str(administrator.principal)
    )
    actions = [row["action"] for row in rows]
    assert actions.count("MERCHANT_KEY_ADDED") == 3
    assert {"OPERATOR_SIGNED_IN", "MERCHANT_REGISTERED"} <= set(actions)
    for change in ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.fetch(change)
