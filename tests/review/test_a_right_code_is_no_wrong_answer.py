"""A code that was right and is used up costs the payer a new code, never the order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core import ids
from core.errors import ChallengeFailed, ServerBusy
from identity import codes
from identity.codes import CodePurpose
from payments import challenges
from payments.challenges import request_code
from payments.opening import binding_of
from payments.pipeline import accept_operation
from payments.states import OrderState
from payments.values import Answer, AnswerChallenge
from tests.payments.conftest import World


@pytest.fixture
async def asked(world: World, verdict: Callable[[str], None]) -> Answer:
    await world.fund(10_000)
    verdict("CHALLENGE")
    return await world.pay(3_000)


async def code_for(world: World, asked: Answer) -> str:
    assert asked.order is not None
    requested = await request_code(world.payer, asked.order.order_id)
    issued = await codes.issue(requested.code_id)
    assert issued is not None
    return issued.code


def proof(world: World, asked: Answer, code: str, key: str | None = None) -> AnswerChallenge:
    assert asked.order is not None
    return AnswerChallenge(
        caller=world.payer,
        idempotency_key=key or f"proof-{ids.random_token(8)}",
        order_id=asked.order.order_id,
        unchecked_code=code,
    )


async def wrong_count(world: World) -> int:
    rows = await world.database.fetch("SELECT wrong_count FROM challenge")
    return int(rows[0]["wrong_count"])


async def test_a_code_that_another_process_is_just_using_is_not_counted(
    world: World, asked: Answer
) -> None:
    code = await code_for(world, asked)
    order = asked.order
    assert order is not None
    await codes.check_code(
        world.payer_id,
        CodePurpose.CHALLENGE,
        code,
        resource_id=order.order_id,
        binding=binding_of(order),
    )
    for _ in range(4):
        with pytest.raises(ChallengeFailed):
            await accept_operation(proof(world, asked, code))
    assert await wrong_count(world) == 0
    answer = await accept_operation(proof(world, asked, await code_for(world, asked)))
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED
    await world.assert_books()


async def test_a_database_that_was_away_behind_the_right_code_ends_no_order(
    world: World, asked: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = await code_for(world, asked)

    async def away(*_: object, **__: object) -> Answer:
        raise ServerBusy()

    with monkeypatch.context() as patched:
        patched.setattr(challenges, "decide_and_commit", away)
        with pytest.raises(ServerBusy):
            await accept_operation(proof(world, asked, code, key="proof-again"))
    with pytest.raises(ChallengeFailed):
        await accept_operation(proof(world, asked, code, key="proof-again"))
    assert await wrong_count(world) == 0
    answer = await accept_operation(proof(world, asked, await code_for(world, asked)))
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED


async def test_wrong_digits_are_counted_as_before(world: World, asked: Answer) -> None:
    code = await code_for(world, asked)
    wrong = "000000" if code != "000000" else "111111"
    answers = [await accept_operation(proof(world, asked, wrong)) for _ in range(3)]
    lefts = [each.refusal.data["remaining_attempts"] for each in answers if each.refusal]
    assert lefts == [2, 1, 0]
    assert answers[-1].order is not None
    assert answers[-1].order.state is OrderState.FAILED
