"""Customers: what strangers ask is answered alike, whoever exists; what is proved opens a login."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from core.errors import (
    CredentialsInvalid,
    CredentialsLocked,
    Forbidden,
    InvalidArgument,
    NotFound,
    PurserError,
    Throttled,
    Unauthenticated,
)
from identity import codes, customers, passwords, tokens
from identity.addresses import Address, masked, parse_address
from identity.caller import Caller

PASSWORD = "correct horse battery"
NEW_PASSWORD = "another long password"
NOBODY = Address("PHONE", "+8613900000000")


class Work:
    """The statements and the hashes that a call cost, as a stopwatch would feel them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def take(self) -> list[str]:
        done, self.done = self.done, []
        return done


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    noted = Work()
    fetch, execute, off_the_loop = (
        asyncpg.Connection.fetch,
        asyncpg.Connection.execute,
        passwords._off_the_loop,
    )

    async def noting_fetch(self: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        noted.done.append(query)
        return await fetch(self, query, *args, **kwargs)

    async def noting_execute(self: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        noted.done.append(query)
        return await execute(self, query, *args, **kwargs)

    async def noting_hash(work: Any) -> Any:
        noted.done.append("argon2")
        return await off_the_loop(work)

    monkeypatch.setattr(asyncpg.Connection, "fetch", noting_fetch)
    monkeypatch.setattr(asyncpg.Connection, "execute", noting_execute)
    monkeypatch.setattr(passwords, "_off_the_loop", noting_hash)
    return noted


async def refusal_of(call: Any) -> tuple[str, str, dict[str, Any]]:
    with pytest.raises(PurserError) as refusal:
        await call
    return refusal.value.code, refusal.value.message, refusal.value.data


async def test_a_registered_customer_signs_in_and_sees_themselves(person: Any) -> None:
    signed_in = await customers.login(person.address, PASSWORD)
    caller = await tokens.verify_access(signed_in.access_token)
    assert caller.customer_id == person.customer_id
    profile = await customers.read_customer(person.customer_id)
    assert (profile.phone, profile.email) == ("+8613812345678", None)
    assert profile.status == "ACTIVE"
    assert not profile.has_payment_password


async def test_an_e_mail_address_serves_as_well_as_a_phone(database: Any, issued_code: Any) -> None:
    address = parse_address(None, "Li.Xiaoming@Example.COM")
    registration = await customers.register(address, PASSWORD)
    assert registration.destination_masked == "l***@example.com"
    code = await issued_code(registration.registration_id, "REGISTER")
    await customers.confirm_registration(registration.registration_id, code)
    assert await customers.login(parse_address(None, "li.xiaoming@example.com"), PASSWORD)


async def test_an_unproved_address_opens_nothing(database: Any) -> None:
    address = parse_address("+8613812345678", None)
    registration = await customers.register(address, PASSWORD)
    with pytest.raises(CredentialsInvalid):
        await customers.login(address, PASSWORD)
    with pytest.raises(CredentialsInvalid):
        await customers.confirm_registration(registration.registration_id, "000000")
    with pytest.raises(NotFound):
        await customers.read_customer(registration.registration_id)
    with pytest.raises(CredentialsInvalid):
        await customers.confirm_registration(uuid.uuid4(), "000000")


async def test_registering_a_known_address_looks_like_registering_a_new_one(
    database: Any, person: Any, work: Work
) -> None:
    new = await customers.register(NOBODY, PASSWORD, "Wang")
    cost_of_new = work.take()
    known = await customers.register(person.address, NEW_PASSWORD, "Wang")
    assert work.take() == cost_of_new
    assert known.code_expires_seconds == new.code_expires_seconds
    assert known.destination_masked == masked(person.address)
    assert "argon2" in cost_of_new


async def test_who_registers_a_known_address_takes_nothing_over(
    database: Any, person: Any, issued_code: Any
) -> None:
    second = await customers.register(person.address, NEW_PASSWORD)
    assert await customers.login(person.address, PASSWORD)
    code = await issued_code(second.registration_id, "REGISTER")
    with pytest.raises(InvalidArgument):
        await customers.confirm_registration(second.registration_id, code)
    assert await customers.login(person.address, PASSWORD)
    with pytest.raises(CredentialsInvalid):
        await customers.login(person.address, NEW_PASSWORD)


async def test_of_two_registrations_of_one_address_one_becomes_a_customer(
    database: Any, issued_code: Any
) -> None:
    both = [await customers.register(NOBODY, PASSWORD) for _ in range(2)]
    digits = [await issued_code(one.registration_id, "REGISTER") for one in both]
    ended = await asyncio.gather(
        *(
            customers.confirm_registration(one.registration_id, code)
            for one, code in zip(both, digits, strict=True)
        ),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in ended) == ["InvalidArgument", "Tokens"]


async def test_a_code_sent_again_replaces_the_first(database: Any, issued_code: Any) -> None:
    registration = await customers.register(NOBODY, PASSWORD)
    first = await issued_code(registration.registration_id, "REGISTER")
    await customers.resend_code(registration.registration_id)
    second = await issued_code(registration.registration_id, "REGISTER")
    if first != second:
        with pytest.raises(CredentialsInvalid):
            await customers.confirm_registration(registration.registration_id, first)
    assert await customers.confirm_registration(registration.registration_id, second)
    await customers.resend_code(uuid.uuid4())


async def test_a_wrong_password_and_an_unknown_address_are_answered_alike(
    database: Any, person: Any, work: Work
) -> None:
    known = await refusal_of(customers.login(person.address, "wrong password"))
    cost_of_known = work.take()
    unknown = await refusal_of(customers.login(NOBODY, "wrong password"))
    assert work.take() == cost_of_known
    assert unknown == known
    assert cost_of_known.count("argon2") == 1


async def test_ten_wrong_passwords_lock_a_known_and_an_unknown_address_alike(
    database: Any, person: Any
) -> None:
    for address in (person.address, NOBODY):
        answers = [
            (await refusal_of(customers.login(address, f"wrong password {number}")))[0]
            for number in range(12)
        ]
        assert answers == ["CREDENTIALS_INVALID"] * 10 + ["CREDENTIALS_LOCKED"] * 2
    with pytest.raises(CredentialsLocked):
        await customers.login(person.address, PASSWORD)
    await database.fetch("UPDATE limit_counter SET window_ends_at = now()")
    assert await customers.login(person.address, PASSWORD)


async def test_fifty_passwords_at_once_are_at_most_ten_guesses(
    database: Any, person: Any, work: Work
) -> None:
    calls = [customers.login(person.address, f"wrong password {number}") for number in range(50)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, CredentialsInvalid | CredentialsLocked) for one in ended)
    assert work.take().count("argon2") == 10


async def test_a_reset_is_asked_for_alike_whoever_exists(
    database: Any, person: Any, work: Work
) -> None:
    known = await customers.request_password_reset(person.address)
    cost_of_known = work.take()
    unknown = await customers.request_password_reset(NOBODY)
    assert work.take() == cost_of_known
    assert unknown.destination_masked == masked(NOBODY)
    assert known.expires_seconds == unknown.expires_seconds
    rows = await database.fetch("SELECT * FROM outbox WHERE job IS NOT NULL AND due_at IS NOT NULL")
    assert str(unknown.code_id) not in {str(row["resource_id"]) for row in rows}
    assert await codes.issue(unknown.code_id) is None


async def test_a_wrong_reset_code_is_answered_alike_whoever_exists(
    database: Any, person: Any, work: Work
) -> None:
    answers = {}
    for address in (person.address, NOBODY):
        await customers.request_password_reset(address)
        work.take()
        refusals = [
            await refusal_of(customers.reset_password(address, "000000", NEW_PASSWORD))
            for _ in range(7)
        ]
        answers[address] = refusals, work.take()
    assert answers[person.address] == answers[NOBODY]


async def test_a_reset_sets_the_password_and_ends_all_logins(
    database: Any, person: Any, issued_code: Any
) -> None:
    second = await customers.login(person.address, PASSWORD)
    await customers.request_password_reset(person.address)
    code = await issued_code(person.customer_id, "RESET_PASSWORD")
    await customers.reset_password(person.address, code, NEW_PASSWORD)
    for access_token in (person.tokens.access_token, second.access_token):
        with pytest.raises(Unauthenticated):
            await tokens.verify_access(access_token)
    with pytest.raises(CredentialsInvalid):
        await customers.login(person.address, PASSWORD)
    assert await customers.login(person.address, NEW_PASSWORD)


async def test_a_reset_opens_a_login_that_strangers_locked(
    database: Any, person: Any, issued_code: Any
) -> None:
    for _ in range(11):
        await refusal_of(customers.login(person.address, "wrong password"))
    await customers.request_password_reset(person.address)
    code = await issued_code(person.customer_id, "RESET_PASSWORD")
    await customers.reset_password(person.address, code, NEW_PASSWORD)
    assert await customers.login(person.address, NEW_PASSWORD)


async def test_a_changed_password_ends_all_logins(person: Any) -> None:
    with pytest.raises(CredentialsInvalid):
        await customers.change_password(person.customer_id, "wrong password", NEW_PASSWORD)
    await customers.change_password(person.customer_id, PASSWORD, NEW_PASSWORD)
    with pytest.raises(Unauthenticated):
        await tokens.verify_access(person.tokens.access_token)
    assert await customers.login(person.address, NEW_PASSWORD)


async def test_a_suspended_customer_is_out_at_once_until_resumed(
    person: Any, administrator: Caller
) -> None:
    await customers.suspend(person.customer_id, by=administrator)
    with pytest.raises(Unauthenticated):
        await tokens.verify_access(person.tokens.access_token)
    with pytest.raises(CredentialsInvalid):
        await customers.login(person.address, "wrong password")
    with pytest.raises(Forbidden):
        await customers.login(person.address, PASSWORD)
    await customers.resume(person.customer_id, by=administrator)
    assert await customers.login(person.address, PASSWORD)
    with pytest.raises(NotFound):
        await customers.suspend(uuid.uuid4(), by=administrator)


async def test_a_customer_cannot_suspend_another(person: Any, new_customer: Any) -> None:
    other = await new_customer("+8613912345678")
    caller = await tokens.verify_access(person.tokens.access_token)
    with pytest.raises(NotFound):
        await customers.suspend(other.customer_id, by=caller)


async def test_a_customer_sees_no_other_customer(person: Any, new_customer: Any) -> None:
    other = await new_customer("+8613912345678")
    with pytest.raises(NotFound):
        await customers.read_customer(other.customer_id, by=person.tokens.principal)


async def test_a_payee_is_found_by_address_with_a_part_of_the_name(
    person: Any, new_customer: Any
) -> None:
    payer = await new_customer("+8613912345678")
    payee = await customers.find_payee(payer.customer_id, person.address)
    assert payee is not None
    assert payee.customer_id == person.customer_id
    assert payee.display_name_masked == "***g"
    assert await customers.find_payee(payer.customer_id, NOBODY) is None


async def test_addresses_cannot_be_walked_through(person: Any) -> None:
    for _ in range(customers.PAYEE_LOOKUPS.permits_max):
        assert await customers.find_payee(person.customer_id, NOBODY) is None
    with pytest.raises(Throttled):
        await customers.find_payee(person.customer_id, person.address)


@pytest.mark.parametrize(
    "password", ["", "short", "1234567890", "aaaaaaaaaaaa", "password123", "x" * 257, "98765432"]
)
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidArgument):
        passwords.checked_password(password)


async def test_nobody_registers_with_a_weak_password(database: Any) -> None:
    with pytest.raises(InvalidArgument):
        await customers.register(NOBODY, "password123")


@pytest.mark.parametrize("name", ["x" * 65, "a\x00b", "a\u202eb", "a\nb", "\ud800"])
async def test_names_that_cannot_be_shown_are_refused(database: Any, name: str) -> None:
    with pytest.raises(InvalidArgument):
        await customers.register(NOBODY, PASSWORD, name)


async def test_a_password_is_the_same_in_every_spelling_of_unicode(
    database: Any, issued_code: Any
) -> None:
    registration = await customers.register(NOBODY, "pa\u0301ssword café")
    code = await issued_code(registration.registration_id, "REGISTER")
    await customers.confirm_registration(registration.registration_id, code)
    assert await customers.login(NOBODY, "p\u00e1ssword cafe\u0301")


async def test_what_does_not_fit_into_the_hashing_queue_is_busy(
    person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 0)
    code, _, _ = await refusal_of(customers.register(NOBODY, PASSWORD))
    assert code == "BUSY"
