"""Logins: a refresh token is good once, and a second use ends the family."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.errors import CredentialsInvalid, Unauthenticated
from core.principal import SYSTEM
from identity import logins, tokens


async def is_live(access_token: str) -> bool:
    try:
        await tokens.verify_access(access_token)
    except Unauthenticated:
        return False
    return True


async def test_a_refresh_gives_new_tokens_of_the_same_login(person: Any) -> None:
    second = await logins.refresh(person.tokens.refresh_token)
    assert second.login_id == person.tokens.login_id
    assert second.refresh_token != person.tokens.refresh_token
    caller = await tokens.verify_access(second.access_token)
    assert caller.scopes == {"customer"}
    assert await is_live(person.tokens.access_token)


async def test_a_rotated_token_used_again_ends_the_whole_family(database: Any, person: Any) -> None:
    second = await logins.refresh(person.tokens.refresh_token)
    third = await logins.refresh(second.refresh_token)
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(person.tokens.refresh_token)
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(third.refresh_token)
    for access_token in (person.tokens.access_token, second.access_token, third.access_token):
        assert not await is_live(access_token)
    events = await database.fetch("SELECT * FROM audit_log WHERE action = 'REFRESH_REUSED'")
    assert len(events) == 1


async def test_one_token_used_in_parallel_works_once_and_then_ends_the_family(person: Any) -> None:
    ended = await asyncio.gather(
        *(logins.refresh(person.tokens.refresh_token) for _ in range(20)), return_exceptions=True
    )
    winners = [one for one in ended if isinstance(one, logins.Tokens)]
    assert len(winners) == 1
    assert sum(isinstance(one, CredentialsInvalid) for one in ended) == 19
    assert not await is_live(winners[0].access_token)
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(winners[0].refresh_token or "")


async def test_another_login_of_the_same_customer_lives_on(person: Any) -> None:
    other = await logins.open_login(person.tokens.principal, scopes=frozenset({"customer"}))
    await logins.refresh(person.tokens.refresh_token)
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(person.tokens.refresh_token)
    assert await is_live(other.access_token)


@pytest.mark.parametrize("token", ["", "x", "x" * 10_000, "\x00", "\ud800", "é"])
async def test_what_is_no_refresh_token_is_refused(database: Any, token: str) -> None:
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(token)


async def test_an_access_token_refreshes_nothing(person: Any) -> None:
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(person.tokens.access_token)


async def test_a_refresh_token_expires_by_the_databases_clock(database: Any, person: Any) -> None:
    await database.fetch("UPDATE refresh_token SET expires_at = now()")
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(person.tokens.refresh_token)
    assert await is_live(person.tokens.access_token), "expired is not stolen"


async def test_a_login_ends_whatever_is_refreshed(database: Any, person: Any) -> None:
    await database.fetch("UPDATE login SET expires_at = now()")
    assert not await is_live(person.tokens.access_token)
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(person.tokens.refresh_token)


async def test_a_logout_ends_refreshing_too(person: Any) -> None:
    await logins.logout(await tokens.verify_access(person.tokens.access_token))
    with pytest.raises(CredentialsInvalid):
        await logins.refresh(person.tokens.refresh_token)


async def test_all_logins_of_one_are_ended_and_nobody_elses(person: Any, new_customer: Any) -> None:
    other = await new_customer("+8613912345678")
    principal = person.tokens.principal
    await logins.open_login(principal, scopes=frozenset({"customer"}))
    assert await logins.revoke_all(principal, reason="TEST", by=principal) == 2
    assert await logins.revoke_all(principal, reason="TEST", by=SYSTEM) == 0
    assert await is_live(other.tokens.access_token)


async def test_a_customer_cannot_end_another_ones_logins(person: Any, new_customer: Any) -> None:
    other = await new_customer("+8613912345678")
    ended = await logins.revoke_all(
        person.tokens.principal, reason="TEST", by=other.tokens.principal
    )
    assert ended == 0
    assert await is_live(person.tokens.access_token)
