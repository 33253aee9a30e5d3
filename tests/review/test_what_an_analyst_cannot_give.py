"""A review: the verdict is recorded with its reason, and replaces no proof of the payer's own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from core import ids
from core.configuration import current
from payments.pipeline import accept_operation
from payments.states import OrderState
from payments.values import Answer, AnswerChallenge, DecideReview
from tests.payments.conftest import World
from wallet.chart import AccountKind

PASSWORD = "593817"


async def verdict_on(world: World, asked: Answer, *, accept: bool) -> Answer:
    assert asked.order is not None
    return await accept_operation(
        DecideReview(
            caller=world.operator,
            idempotency_key=f"verdict-{ids.random_token(8)}",
            order_id=asked.order.order_id,
            accept=accept,
            reason="called the payer",
        )
    )


@pytest.fixture
async def funded(world: World, verdict: Callable[[str], None]) -> World:
    await world.fund(100_000)
    verdict("REVIEW")
    return world


async def test_over_the_small_amount_an_accepted_review_still_asks_the_payer(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    amount = current().small_amount_limit_minor + 1
    asked = await funded.pay(amount)
    accepted = await verdict_on(funded, asked, accept=True)
    assert accepted.order is not None
    assert accepted.order.state is OrderState.REQUIRES_ACTION
    assert await funded.wallet() == 100_000 - amount
    assert await funded.available(AccountKind.MERCHANT_PENDING, funded.shop_id) == 0

    async def right(*_: object) -> None:
        return None

    monkeypatch.setattr("identity.payment_password.verify_payment_password", right)
    proven = await accept_operation(
        AnswerChallenge(
            caller=funded.payer,
            idempotency_key=f"proof-{ids.random_token(8)}",
            order_id=accepted.order.order_id,
            unchecked_payment_password=PASSWORD,
        )
    )
    assert proven.order is not None
    assert proven.order.state is OrderState.SUCCEEDED
    await funded.assert_books()


async def test_what_was_asked_after_a_review_is_released_when_the_payer_closes(
    funded: World,
) -> None:
    asked = await funded.pay(current().small_amount_limit_minor + 1)
    accepted = await verdict_on(funded, asked, accept=True)
    assert accepted.order is not None
    closed = await funded.close(accepted.order.order_id)
    assert closed.order is not None
    assert closed.order.state is OrderState.CLOSED
    assert await funded.wallet() == 100_000
    await funded.assert_books()


@pytest.mark.parametrize("accept", [True, False])
async def test_a_verdict_is_a_row_of_the_audit_log_once(funded: World, accept: bool) -> None:
    asked = await funded.pay(1_000)
    await verdict_on(funded, asked, accept=accept)
    with pytest.raises(Exception, match="not in review"):
        await verdict_on(funded, asked, accept=accept)
    rows = await funded.database.fetch("SELECT * FROM audit_log WHERE action LIKE 'REVIEW%'")
    assert asked.order is not None
    assert [(row["actor"], row["action"], row["subject"]) for row in rows] == [
        (
            str(funded.operator),
            "REVIEW_ACCEPTED" if accept else "REVIEW_DECLINED",
            f"order:{asked.order.order_id}",
        )
    ]
    facts = rows[0]["facts"]
    facts = json.loads(facts) if isinstance(facts, str) else facts
    assert facts == {"reason": "called the payer"}
