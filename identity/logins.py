"""Logins and their refresh tokens: rotated on each use, and ended as a family when one is used
twice.

A refresh token is random and stored as its SHA-256. Whoever uses a rotated one holds a stolen copy,
or was robbed of theirs: nobody can tell which, so the whole login ends and its owner signs in
again.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from datetime import datetime

from core import audit, ids
from core.errors import CredentialsInvalid
from core.phase import phase, statement
from core.principal import Principal
from identity.caller import Caller
from identity.tokens import issue_access

LOGIN_SECONDS = {"customer": 90 * 86_400, "merchant": 3_600, "operator": 12 * 3_600}
REFRESH_SECONDS = {"customer": 30 * 86_400, "merchant": 0, "operator": 3_600}
TOKEN_LENGTH_MAX = 256
END_ONE = """UPDATE login SET ended_at = purser_now(), end_reason = $2
    WHERE login_id = $1 AND ended_at IS NULL RETURNING login_id"""
END_ALL = """UPDATE login SET ended_at = purser_now(), end_reason = $2
    WHERE principal_id = $1 AND ended_at IS NULL RETURNING login_id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a client keeps of a login; the only place where these tokens exist in clear."""

    principal: Principal
    login_id: uuid.UUID
    access_token: str = field(repr=False)
    access_expires_at: datetime
    refresh_token: str | None = field(default=None, repr=False)


async def open_login(
    principal: Principal,
    *,
    scopes: frozenset[str],
    roles: frozenset[str] = frozenset(),
    refreshable: bool = True,
) -> Tokens:
    """Start a login for someone who has just proved who they are."""
    login_id = ids.new_id()
    refresh_token = ids.random_token() if refreshable else None
    async with phase(principal):
        await statement(
            """INSERT INTO login (login_id, principal_kind, principal_id, scopes, roles, expires_at)
            VALUES ($1, $2, $3, $4::jsonb, $5::jsonb, purser_now() + $6 * interval '1 second')""",
            login_id,
            principal.kind,
            principal.id,
            sorted(scopes),
            sorted(roles),
            LOGIN_SECONDS[principal.kind],
        )
        if refresh_token is not None:
            await _keep(refresh_token, login_id, principal)
    return await _tokens(principal, login_id, scopes, roles, refresh_token)


async def refresh(unchecked_refresh_token: str) -> Tokens:
    """New tokens for a refresh token, which is used up by this.

    Raises `CredentialsInvalid`. One that was used before ends its login: of two parallel calls with
    the same token one gets tokens, and these are dead when the other is through.
    """
    if len(unchecked_refresh_token) > TOKEN_LENGTH_MAX:
        raise CredentialsInvalid()
    digest = _digest(unchecked_refresh_token)
    found = await statement(
        "SELECT login_id, principal FROM find_refresh_login($1)", digest, writes=False
    )
    if not found:
        raise CredentialsInvalid()
    login_id, principal = found[0]["login_id"], Principal.parse(found[0]["principal"])
    refresh_token = ids.random_token()
    async with phase(principal):
        live = await statement(
            """UPDATE refresh_token t SET used_at = purser_now() FROM login l
            WHERE t.token_digest = $1 AND t.used_at IS NULL AND t.expires_at > purser_now()
              AND l.login_id = t.login_id AND l.ended_at IS NULL AND l.expires_at > purser_now()
            RETURNING l.scopes, l.roles""",
            digest,
        )
        if live:
            await _keep(refresh_token, login_id, principal)
        else:
            await _end_if_reused(digest, login_id, principal)
    if not live:
        raise CredentialsInvalid()
    scopes, roles = frozenset(live[0]["scopes"]), frozenset(live[0]["roles"])
    return await _tokens(principal, login_id, scopes, roles, refresh_token)


async def logout(caller: Caller) -> None:
    """End the login of the token that the caller came with; its other tokens end with it."""
    if caller.login_id is None:
        return
    async with phase(caller.principal):
        await statement(END_ONE, caller.login_id, "LOGOUT")


async def revoke_all(principal: Principal, *, reason: str, by: Principal) -> int:
    """End all logins of `principal`, in a phase of `by` (the same one, or an operator). How many
    ended.
    """
    async with phase(by):
        return await end_all(principal, reason=reason, by=by)


async def end_all(principal: Principal, *, reason: str, by: Principal) -> int:
    """The same in the phase that is open, so that a changed password and the end of logins are
    one.
    """
    ended = len(await statement(END_ALL, principal.id, reason))
    await audit.record(by, "LOGINS_REVOKED", str(principal), reason=reason, count=ended)
    return ended


async def _end_if_reused(digest: str, login_id: uuid.UUID, principal: Principal) -> None:
    reused = await statement(
        "SELECT FROM refresh_token WHERE token_digest = $1 AND used_at IS NOT NULL", digest
    )
    if reused and await statement(END_ONE, login_id, "REFRESH_REUSED"):
        await audit.record("anonymous", "REFRESH_REUSED", str(principal), login_id=str(login_id))


async def _keep(refresh_token: str, login_id: uuid.UUID, principal: Principal) -> None:
    await statement(
        """INSERT INTO refresh_token (token_digest, login_id, expires_at)
        VALUES ($1, $2, purser_now() + $3 * interval '1 second')""",
        _digest(refresh_token),
        login_id,
        REFRESH_SECONDS[principal.kind],
    )


async def _tokens(
    principal: Principal,
    login_id: uuid.UUID,
    scopes: frozenset[str],
    roles: frozenset[str],
    refresh_token: str | None,
) -> Tokens:
    access_token, expires_at = await issue_access(
        principal, login_id=login_id, scopes=scopes, roles=roles
    )
    return Tokens(
        principal=principal,
        login_id=login_id,
        access_token=access_token,
        access_expires_at=expires_at,
        refresh_token=refresh_token,
    )


def _digest(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode("utf-8", "surrogatepass")).hexdigest()
