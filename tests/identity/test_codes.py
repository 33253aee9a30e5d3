"""One-time codes: made by the worker, good once, for few tries, for what they were bound to."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from core.errors import CredentialsInvalid, CredentialsLocked, PurserError, Throttled
from identity import codes, customers, limits
from identity.codes import CodePurpose, binding_of

CHALLENGE = CodePurpose.CHALLENGE


def another(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


async def outcomes(calls: list[Any]) -> list[str]:
    """What each of many parallel calls ended with: `OK` or the code of its refusal."""

    async def one(call: Any) -> str:
        try:
            await call
        except PurserError as refusal:
            return refusal.code
        return "OK"

    return list(await asyncio.gather(*(one(call) for call in calls)))


@pytest.fixture
def challenge(person: Any, issued_code: Any) -> Any:
    """Ask for and issue a code for one order; gives the order and the digits."""

    async def ask(binding: str, tries_max: int = 3) -> tuple[uuid.UUID, str]:
        order_id = uuid.uuid4()
        await codes.request_code(
            person.customer_id,
            CHALLENGE,
            resource_id=order_id,
            binding=binding,
            tries_max=tries_max,
        )
        return order_id, await issued_code(person.customer_id, CHALLENGE)

    return ask


async def test_the_digits_come_into_being_with_the_worker(database: Any, person: Any) -> None:
    request = await codes.request_code(person.customer_id, CHALLENGE)
    row = (await database.fetch("SELECT * FROM one_time_code WHERE purpose = 'CHALLENGE'"))[0]
    assert (row["code_id"], row["state"], row["code_digest"]) == (
        request.code_id,
        "REQUESTED",
        None,
    )
    event = (await database.fetch("SELECT * FROM outbox WHERE resource_id = $1", request.code_id))[
        0
    ]
    assert event["job"] == codes.SEND_CODE_JOB
    assert event["payload"] == "{}"
    issued = await codes.issue(request.code_id)
    assert issued is not None
    assert issued.destination == person.address
    assert len(issued.code) == 6
    assert issued.code.isdigit()
    assert issued.code not in repr(issued)
    assert request.destination_masked == "+86*******5678"


async def test_a_code_works_once(person: Any, challenge: Any) -> None:
    order_id, code = await challenge("order")
    await codes.check_code(
        person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
    )
    with pytest.raises(CredentialsInvalid):
        await codes.check_code(
            person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
        )


async def test_of_a_hundred_right_codes_at_once_exactly_one_succeeds(
    person: Any, challenge: Any
) -> None:
    order_id, code = await challenge("order")
    ended = await outcomes(
        [
            codes.check_code(
                person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
            )
            for _ in range(100)
        ]
    )
    assert ended.count("OK") == 1
    assert set(ended) <= {"OK", "CREDENTIALS_INVALID", "CREDENTIALS_LOCKED", "BUSY"}


async def test_without_the_condition_on_the_use_a_code_would_succeed_more_than_once(
    person: Any, challenge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the race above: its guard taken out."""

    async def anyone(customer_id: uuid.UUID, code_id: uuid.UUID) -> bool:
        return True

    monkeypatch.setattr(codes, "_use", anyone)
    order_id, code = await challenge("order")
    checks = [
        codes.check_code(person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order")
        for _ in range(20)
    ]
    assert (await outcomes(checks)).count("OK") > 1


async def test_a_thousand_guesses_at_once_are_at_most_as_many_as_allowed(
    database: Any, person: Any, challenge: Any
) -> None:
    order_id, code = await challenge("order", tries_max=5)
    ended = await outcomes(
        [
            codes.check_code(
                person.customer_id, CHALLENGE, another(code), resource_id=order_id, binding="order"
            )
            for _ in range(200)
        ]
    )
    assert "OK" not in ended
    row = (await database.fetch("SELECT * FROM one_time_code WHERE purpose = 'CHALLENGE'"))[0]
    assert row["tries_count"] == 5
    wrong = await database.fetch("SELECT FROM audit_log WHERE action = 'CODE_WRONG'")
    assert len(wrong) == 5
    with pytest.raises(CredentialsInvalid):
        await codes.check_code(
            person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
        )


async def test_an_order_gives_three_tries(person: Any, challenge: Any) -> None:
    order_id, code = await challenge("order", tries_max=3)
    for guess, left in ((another(code), 2), (another(code), 1), (another(code), 0), (code, 0)):
        with pytest.raises(CredentialsInvalid) as refusal:
            await codes.check_code(
                person.customer_id, CHALLENGE, guess, resource_id=order_id, binding="order"
            )
        assert refusal.value.data == {"remaining_attempts": left}


async def test_ten_wrong_codes_lock_over_all_orders(person: Any, challenge: Any) -> None:
    for _ in range(2):
        order_id, code = await challenge("order", tries_max=5)
        for _ in range(5):
            with pytest.raises(CredentialsInvalid):
                await codes.check_code(
                    person.customer_id,
                    CHALLENGE,
                    another(code),
                    resource_id=order_id,
                    binding="order",
                )
    order_id, code = await challenge("order")
    with pytest.raises(CredentialsLocked):
        await codes.check_code(
            person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
        )


async def test_a_changed_amount_voids_the_code(person: Any, challenge: Any) -> None:
    agreed = binding_of("order", 3000, "CNY", "merchant")
    order_id, code = await challenge(agreed)
    with pytest.raises(CredentialsInvalid):
        await codes.check_code(
            person.customer_id,
            CHALLENGE,
            code,
            resource_id=order_id,
            binding=binding_of("order", 9000, "CNY", "merchant"),
        )
    with pytest.raises(CredentialsInvalid):
        await codes.check_code(
            person.customer_id, CHALLENGE, code, resource_id=order_id, binding=agreed
        )


def test_a_binding_tells_its_parts_apart() -> None:
    assert binding_of("ab", "c") != binding_of("a", "bc")
    assert binding_of(1, "CNY") == binding_of(1, "CNY")


async def test_a_code_serves_no_other_purpose_order_or_person(
    person: Any, challenge: Any, new_customer: Any
) -> None:
    other = await new_customer("+8613912345678")
    order_id, code = await challenge("order")
    for customer_id, purpose, resource_id in (
        (person.customer_id, CodePurpose.RESET_PASSWORD, None),
        (person.customer_id, CHALLENGE, uuid.uuid4()),
        (other.customer_id, CHALLENGE, order_id),
    ):
        with pytest.raises(CredentialsInvalid):
            await codes.check_code(
                customer_id, purpose, code, resource_id=resource_id, binding="order"
            )
    await codes.check_code(
        person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
    )


async def test_a_new_code_replaces_the_old(person: Any, issued_code: Any) -> None:
    await codes.request_code(person.customer_id, CHALLENGE)
    first = await issued_code(person.customer_id, CHALLENGE)
    await codes.request_code(person.customer_id, CHALLENGE)
    second = await issued_code(person.customer_id, CHALLENGE)
    if first != second:
        with pytest.raises(CredentialsInvalid):
            await codes.check_code(person.customer_id, CHALLENGE, first)
    await codes.check_code(person.customer_id, CHALLENGE, second)


async def test_a_code_issued_again_after_a_crash_replaces_the_first_and_not_for_ever(
    person: Any,
) -> None:
    request = await codes.request_code(person.customer_id, CHALLENGE)
    issued = [await codes.issue(request.code_id) for _ in range(codes.ISSUES_MAX)]
    assert await codes.issue(request.code_id) is None
    last = issued[-1]
    assert last is not None
    await codes.check_code(person.customer_id, CHALLENGE, last.code)
    assert await codes.issue(request.code_id) is None


async def test_a_code_expires_after_five_minutes_of_the_databases_clock(
    database: Any, person: Any, challenge: Any
) -> None:
    order_id, code = await challenge("order")
    row = (await database.fetch("SELECT expires_at - now() AS left FROM one_time_code"))[0]
    assert row["left"].total_seconds() <= codes.CODE_SECONDS
    await database.fetch("UPDATE one_time_code SET expires_at = now()")
    with pytest.raises(CredentialsInvalid):
        await codes.check_code(
            person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
        )


@pytest.mark.parametrize(
    "code", ["", "12345", "1234567", "abcdef", "１２３４５６", "\ud800", "0" * 9999]
)
async def test_what_is_no_code_is_wrong(person: Any, challenge: Any, code: str) -> None:
    order_id, _ = await challenge("order")
    with pytest.raises(CredentialsInvalid):
        await codes.check_code(
            person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
        )


async def test_an_address_gets_a_limited_number_of_codes_an_hour(person: Any) -> None:
    ended = await outcomes([codes.request_code(person.customer_id, CHALLENGE) for _ in range(30)])
    assert ended.count("OK") == codes.TO_ONE_ADDRESS.permits_max
    assert set(ended) == {"OK", "THROTTLED"}


async def test_a_block_of_numbers_gets_a_limited_number_of_codes(database: Any) -> None:
    few = limits.Permits("block", permits_max=3, window_seconds=3_600)
    for _ in range(3):
        await limits.take_permit(few, "+861381234")
    with pytest.raises(Throttled):
        await limits.take_permit(few, "+861381234")
    await limits.take_permit(few, "+861391234")
    await database.fetch("UPDATE limit_counter SET window_ends_at = now()")
    await limits.take_permit(few, "+861381234")


async def test_a_stranger_cannot_use_up_or_lock_what_the_owner_needs(
    person: Any, challenge: Any
) -> None:
    asked = [customers.request_password_reset(person.address) for _ in range(20)]
    assert set(await outcomes(asked)) == {"OK", "THROTTLED"}
    guesses = [
        customers.reset_password(person.address, "000000", "another long password")
        for _ in range(20)
    ]
    assert "OK" not in await outcomes(guesses)
    order_id, code = await challenge("order")
    await codes.check_code(
        person.customer_id, CHALLENGE, code, resource_id=order_id, binding="order"
    )
