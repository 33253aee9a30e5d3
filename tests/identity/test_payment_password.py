"""The payment password: six digits are few, so guesses are counted before they are looked at."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.errors import CredentialsInvalid, CredentialsLocked, InvalidArgument, PurserError
from identity import payment_password
from identity.limits import Guesses
from identity.payment_password import (
    checked_payment_password,
    request_payment_password_reset,
    reset_payment_password,
    set_payment_password,
    verify_payment_password,
)

PASSWORD = "correct horse battery"
DIGITS = "824671"


@pytest.fixture
async def payer(person: Any) -> Any:
    await set_payment_password(person.customer_id, DIGITS, unchecked_login_password=PASSWORD)
    return person


async def guess(customer_id: Any, digits: str) -> str:
    try:
        await verify_payment_password(customer_id, digits)
    except PurserError as refusal:
        return refusal.code
    return "OK"


async def test_the_right_one_is_right_again_and_again(payer: Any) -> None:
    for _ in range(6):
        assert await guess(payer.customer_id, DIGITS) == "OK"


async def test_wrong_ones_count_down_and_lock(payer: Any) -> None:
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(CredentialsInvalid) as refusal:
            await verify_payment_password(payer.customer_id, "824672")
        assert refusal.value.data == {"remaining_attempts": left}
    assert await guess(payer.customer_id, DIGITS) == "CREDENTIALS_LOCKED"


async def test_a_right_one_forgets_the_wrong_ones(payer: Any) -> None:
    for _ in range(3):
        for _ in range(4):
            assert await guess(payer.customer_id, "824672") == "CREDENTIALS_INVALID"
        assert await guess(payer.customer_id, DIGITS) == "OK"


async def test_the_lock_ends_after_half_an_hour_of_the_databases_clock(
    database: Any, payer: Any
) -> None:
    for _ in range(5):
        await guess(payer.customer_id, "824672")
    row = (
        await database.fetch(
            "SELECT window_ends_at - now() AS left FROM limit_counter WHERE taken_count = 5"
        )
    )[0]
    assert 1_790 < row["left"].total_seconds() <= 1_800
    await database.fetch("UPDATE limit_counter SET window_ends_at = now()")
    assert await guess(payer.customer_id, DIGITS) == "OK"


async def test_of_fifty_parallel_guesses_at_most_five_are_looked_at(
    payer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = await _guesses_looked_at(payer, monkeypatch)
    assert looked_at == 5


async def test_without_the_counter_all_parallel_guesses_would_be_looked_at(
    payer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the race above: its guard taken out."""

    async def uncounted(guesses: Guesses, subject: str) -> int:
        return guesses.guesses_max

    monkeypatch.setattr(payment_password, "take_guess", uncounted)
    assert await _guesses_looked_at(payer, monkeypatch) == 50


async def _guesses_looked_at(payer: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    looked_at = 0
    real = payment_password.matches

    async def counting(*arguments: Any) -> bool:
        nonlocal looked_at
        looked_at += 1
        return await real(*arguments)

    monkeypatch.setattr(payment_password, "matches", counting)
    guesses = [f"90{number:04d}" for number in range(50)]
    ended = await asyncio.gather(*(guess(payer.customer_id, digits) for digits in guesses))
    assert "OK" not in ended
    return looked_at


@pytest.mark.parametrize(
    "weak",
    [
        "000000",
        "111111",
        "123456",
        "654321",
        "890123",
        "012345",
        "121212",
        "123123",
        "112233",
        "147258",
    ],
)
def test_weak_ones_are_refused(weak: str) -> None:
    with pytest.raises(InvalidArgument):
        checked_payment_password(weak)


@pytest.mark.parametrize(
    "bad", ["", "12345", "1234567", "12345a", "１２３４５６", "12 456", "-12345"]
)
def test_only_six_digits_are_a_payment_password(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        checked_payment_password(bad)


async def test_a_weak_one_is_not_set(person: Any) -> None:
    with pytest.raises(InvalidArgument):
        await set_payment_password(person.customer_id, "123456", unchecked_login_password=PASSWORD)


async def test_the_first_one_needs_the_login_password(person: Any) -> None:
    with pytest.raises(InvalidArgument):
        await set_payment_password(person.customer_id, DIGITS)
    with pytest.raises(CredentialsInvalid):
        await set_payment_password(
            person.customer_id, DIGITS, unchecked_login_password="another password"
        )
    with pytest.raises(CredentialsInvalid):
        await verify_payment_password(person.customer_id, DIGITS)


async def test_a_change_needs_the_current_one(payer: Any) -> None:
    with pytest.raises(InvalidArgument):
        await set_payment_password(payer.customer_id, "913578", unchecked_login_password=PASSWORD)
    with pytest.raises(CredentialsInvalid):
        await set_payment_password(payer.customer_id, "913578", unchecked_current="824670")
    await set_payment_password(payer.customer_id, "913578", unchecked_current=DIGITS)
    assert await guess(payer.customer_id, "913578") == "OK"
    assert await guess(payer.customer_id, DIGITS) == "CREDENTIALS_INVALID"


async def test_a_change_cannot_be_used_to_guess_past_the_lock(payer: Any) -> None:
    for _ in range(5):
        await guess(payer.customer_id, "824672")
    with pytest.raises(CredentialsLocked):
        await set_payment_password(payer.customer_id, "913578", unchecked_current=DIGITS)


async def test_a_forgotten_one_is_replaced_by_code_and_login_password(
    payer: Any, issued_code: Any
) -> None:
    for _ in range(5):
        await guess(payer.customer_id, "824672")
    await request_payment_password_reset(payer.customer_id)
    code = await issued_code(payer.customer_id, "RESET_PAYMENT_PASSWORD")
    with pytest.raises(CredentialsInvalid):
        await reset_payment_password(payer.customer_id, code, "913578", "another password")
    await reset_payment_password(payer.customer_id, code, "913578", PASSWORD)
    assert await guess(payer.customer_id, "913578") == "OK"
