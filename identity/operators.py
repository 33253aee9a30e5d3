"""Operators: those who run the platform. What each may do follows from roles, what each did from
the audit log.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

import asyncpg

from core import audit, ids
from core.errors import CredentialsInvalid, Forbidden, InvalidArgument, NotFound
from core.phase import phase, statement
from core.principal import SYSTEM, operator
from identity.addresses import parse_address
from identity.caller import OPERATOR_SCOPE, Caller
from identity.limits import Guesses, clear_guesses, take_guess
from identity.logins import Tokens, end_all, open_login
from identity.models import Operator
from identity.passwords import checked_password, hashed, matches, read_hash, store_hash
from identity.permissions import Role

LOGIN_GUESSES = Guesses("operator login", guesses_max=10)
PASSWORD_LENGTH_MIN = 12


async def create_operator(
    unchecked_email: str,
    unchecked_password: str,
    roles: Collection[str],
    *,
    by: Caller | None = None,
) -> uuid.UUID:
    """Make an operator; without `by` it is the command line that makes the first one.

    Raises `InvalidArgument` for an unknown role, a weak password or an address that is taken.
    """
    address = parse_address(None, unchecked_email)
    checked_roles = _checked_roles(roles)
    password = checked_password(unchecked_password)
    if len(password) < PASSWORD_LENGTH_MIN:
        raise InvalidArgument("An operator's password needs 12 characters.", field=("password",))
    password_hash = await hashed(password, "LOGIN")
    operator_id = ids.new_id()
    actor = by.principal if by is not None else SYSTEM
    # The password comes first: a crash in between leaves a hash without an owner, not the reverse.
    async with phase(operator(operator_id)):
        await store_hash(operator(operator_id), "LOGIN", password_hash)
    try:
        async with phase(actor):
            await statement(
                """INSERT INTO operator (operator_id, email, roles, status)
                VALUES ($1, $2, $3::jsonb, 'ACTIVE')""",
                operator_id,
                address.value,
                checked_roles,
            )
            await audit.record(
                actor, "OPERATOR_CREATED", f"operator:{operator_id}", roles=checked_roles
            )
    except asyncpg.UniqueViolationError:
        raise InvalidArgument("There is an operator with this address.", field=("email",)) from None
    return operator_id


async def login(unchecked_email: str, unchecked_password: str) -> Tokens:
    """Sign an operator in. Raises `CredentialsInvalid` or `CredentialsLocked`, as for customers."""
    address = parse_address(None, unchecked_email)
    left = await take_guess(LOGIN_GUESSES, address.value)
    found = await statement("SELECT find_operator_id($1)", address.value, writes=False)
    principal = operator(found[0][0] or ids.hashed_id("nobody", address.value))
    async with phase(principal):
        password_hash = await read_hash(principal, "LOGIN")
        row = await Operator.get_or_none(operator_id=principal.id)
    right = await matches(password_hash, unchecked_password, "LOGIN")
    if row is None or not right:
        await audit.record_security_event(
            "OPERATOR_LOGIN_FAILED", str(principal), "LOCKED" if left == 0 else "REFUSED"
        )
        raise CredentialsInvalid()
    await clear_guesses(LOGIN_GUESSES, address.value)
    async with phase(principal):
        await audit.record(principal, "OPERATOR_SIGNED_IN", str(principal))
    return await open_login(
        principal, scopes=frozenset({OPERATOR_SCOPE}), roles=frozenset(row.roles)
    )


async def set_roles(operator_id: uuid.UUID, roles: Collection[str], *, by: Caller) -> None:
    """Give another operator other roles; their logins end, so that no token carries the old
    ones.
    """
    checked_roles = _checked_roles(roles)
    await _change(operator_id, {"roles": checked_roles}, "OPERATOR_ROLES_SET", by)


async def disable(operator_id: uuid.UUID, *, by: Caller) -> None:
    """Let another operator in no more, at once."""
    await _change(operator_id, {"status": "DISABLED"}, "OPERATOR_DISABLED", by)


async def _change(operator_id: uuid.UUID, change: dict[str, Any], action: str, by: Caller) -> None:
    if by.operator_id == operator_id:
        raise Forbidden("Another operator has to do this.")
    async with phase(by.principal):
        if not await Operator.filter(operator_id=operator_id).update(**change):
            raise NotFound()
        await end_all(operator(operator_id), reason=action, by=by.principal)
        await audit.record(by.principal, action, f"operator:{operator_id}", **change)


def _checked_roles(roles: Collection[str]) -> list[str]:
    try:
        return sorted({Role(role).value for role in roles})
    except ValueError:
        known = ", ".join(Role)
        raise InvalidArgument(f"Roles are {known}.", field=("roles",)) from None
