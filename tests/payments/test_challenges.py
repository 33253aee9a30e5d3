"""Challenges and reviews: the proof that stands between a payment and its booking."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import pytest

from core import ids
from core.errors import ChallengeFailed, InvalidArgument, OperationNotSupported
from identity import codes, payment_password
from payments.challenges import request_code
from payments.pipeline import accept_operation
from payments.states import OrderState
from payments.values import Answer, AnswerChallenge, DecideReview
from tests.payments.conftest import World

PASSWORD = "802451"


@pytest.fixture
async def asked(world: World, verdict: Callable[[str], None]) -> Answer:
    """A payment of 30.00 that risk challenges, by a payer who has a payment password."""
    await world.fund(10_000)
    await payment_password._store(world.payer_id, PASSWORD, "PAYMENT_PASSWORD_SET")
    verdict("CHALLENGE")
    answer = await world.pay(3_000)
    assert answer.order is not None
    assert answer.order.state is OrderState.REQUIRES_ACTION
    return answer


def proof(world: World, answer: Answer, **given: str) -> AnswerChallenge:
    assert answer.order is not None
    return AnswerChallenge(
        caller=world.payer,
        idempotency_key=f"proof-{ids.random_token(8)}",
        order_id=answer.order.order_id,
        **given,
    )


async def issued(world: World, answer: Answer) -> str:
    """The code as the phone shows it."""
    assert answer.order is not None
    requested = await request_code(world.payer, answer.order.order_id)
    code = await codes.issue(requested.code_id)
    assert code is not None
    return code.code


async def test_the_payment_password_books_what_was_held(world: World, asked: Answer) -> None:
    assert await world.wallet() == 7_000
    answer = await accept_operation(proof(world, asked, unchecked_payment_password=PASSWORD))
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED
    assert await world.wallet() == 7_000
    await world.assert_books()


async def test_a_code_bound_to_the_order_books_it_too(world: World, asked: Answer) -> None:
    code = await issued(world, asked)
    answer = await accept_operation(proof(world, asked, unchecked_code=code))
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED


async def test_the_right_code_many_times_at_once_is_one_success(
    world: World, asked: Answer
) -> None:
    code = await issued(world, asked)
    results = await asyncio.gather(
        *(accept_operation(proof(world, asked, unchecked_code=code)) for _ in range(50)),
        return_exceptions=True,
    )
    answers = [result for result in results if isinstance(result, Answer)]
    assert [answer.order.state for answer in answers if answer.order] == [OrderState.SUCCEEDED]
    assert all(isinstance(each, OperationNotSupported) for each in results if each not in answers)
    await world.assert_books()


async def test_three_wrong_proofs_end_the_order_and_release_the_money(
    world: World, asked: Answer
) -> None:
    lefts = []
    for _ in range(3):
        answer = await accept_operation(proof(world, asked, unchecked_payment_password="111111"))
        assert isinstance(answer.refusal, ChallengeFailed)
        lefts.append(answer.refusal.data["remaining_attempts"])
    assert lefts == [2, 1, 0]
    assert answer.order is not None
    assert (answer.order.state, answer.order.failure_reason) == (
        OrderState.FAILED,
        "CHALLENGE_FAILED",
    )
    assert await world.wallet() == 10_000
    with pytest.raises(OperationNotSupported):
        await accept_operation(proof(world, asked, unchecked_payment_password=PASSWORD))
    await world.assert_books()


async def test_a_proof_is_one_thing_and_answers_only_the_payers_own_order(
    world: World, asked: Answer
) -> None:
    with pytest.raises(InvalidArgument):
        await accept_operation(proof(world, asked))
    with pytest.raises(InvalidArgument):
        await accept_operation(
            proof(world, asked, unchecked_payment_password=PASSWORD, unchecked_code="123456")
        )


async def test_an_expired_challenge_is_asked_anew(world: World, asked: Answer) -> None:
    await world.database.fetch("UPDATE challenge SET expires_at = purser_now()")
    with pytest.raises(ChallengeFailed):
        await accept_operation(proof(world, asked, unchecked_payment_password=PASSWORD))
    code = await issued(world, asked)
    answer = await accept_operation(proof(world, asked, unchecked_code=code))
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED


async def test_a_changed_amount_voids_the_challenge(world: World, asked: Answer) -> None:
    code = await issued(world, asked)
    await world.database.fetch("UPDATE payment_order SET amount_minor = amount_minor + 1")
    with pytest.raises(ChallengeFailed):
        await accept_operation(proof(world, asked, unchecked_code=code))
    assert await world.wallet() == 7_000


async def test_the_stored_answer_of_a_proof_holds_no_secret(world: World, asked: Answer) -> None:
    request = proof(world, asked, unchecked_payment_password=PASSWORD)
    first = await accept_operation(request)
    again = await accept_operation(request)
    assert (again.order, again.replay) == (first.order, True)
    rows = await world.database.fetch("SELECT row_to_json(i)::text AS text FROM idempotency i")
    assert all(PASSWORD not in row["text"] for row in rows)


async def verdict_on(world: World, order_id: uuid.UUID, *, accept: bool) -> Answer:
    return await accept_operation(
        DecideReview(
            caller=world.operator,
            idempotency_key=f"verdict-{ids.random_token(8)}",
            order_id=order_id,
            accept=accept,
            reason="looked at it",
        )
    )


@pytest.mark.parametrize(
    ("accept", "state", "left"),
    [(True, OrderState.SUCCEEDED, 7_000), (False, OrderState.FAILED, 10_000)],
)
async def test_a_review_holds_the_money_until_the_verdict(
    world: World, verdict: Callable[[str], None], accept: bool, state: OrderState, left: int
) -> None:
    await world.fund(10_000)
    verdict("REVIEW")
    asked = await world.pay(3_000)
    assert asked.order is not None
    assert asked.order.state is OrderState.IN_REVIEW
    assert await world.wallet() == 7_000
    answer = await verdict_on(world, asked.order.order_id, accept=accept)
    assert answer.order is not None
    assert answer.order.state is state
    assert await world.wallet() == left
    decisions = await world.database.fetch(
        "SELECT source, outcome FROM decision WHERE order_id = $1 ORDER BY sequence",
        asked.order.order_id,
    )
    assert tuple(decisions[1]) == ("ANALYST", "ALLOW" if accept else "BLOCK")
    with pytest.raises(OperationNotSupported):
        await verdict_on(world, asked.order.order_id, accept=accept)
    await world.assert_books()
