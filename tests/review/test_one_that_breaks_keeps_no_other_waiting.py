"""A row that always breaks is a bug; that those behind it wait for ever would be a second one."""

from __future__ import annotations

import uuid

import pytest

from core import ids
from core.errors import NoRoute
from core.phase import phase, statement
from core.principal import SYSTEM
from payments import callbacks, sweep
from payments.callbacks import apply_unapplied
from payments.sweep import expire_orders
from tests.payments.conftest import World
from workers import sweep as sweeper
from workers.sweep import FINISHING_MAX, Finisher


async def stored_event(number: str) -> str:
    key = f"event:{ids.random_token(8)}"
    async with phase(SYSTEM):
        await statement(
            """INSERT INTO channel_event (channel_event_id, channel, event_key, kind,
                channel_request_number, raw_body, parsed, received_at)
            VALUES ($1, 'bank', $2, 'CALLBACK', $3, '', '{}', purser_now() - interval '1 hour')""",
            ids.new_id(),
            key,
            number,
        )
    return key


async def test_a_stored_callback_that_breaks_leaves_the_others_applied(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [await stored_event(number) for number in ("broken", "unknown-1", "unknown-2")]
    apply = callbacks.apply_event

    async def breaking(event: dict[str, object]) -> None:
        if event["channel_request_number"] == "broken":
            raise ValueError("an order never goes there")
        await apply(event)

    monkeypatch.setattr(callbacks, "apply_event", breaking)
    assert await apply_unapplied() == 2
    left = await world.database.fetch(
        "SELECT event_key FROM channel_event WHERE applied_at IS NULL"
    )
    assert [row["event_key"] for row in left] == keys[:1]
    assert "never goes there" in caplog.text


async def test_an_order_that_cannot_be_closed_leaves_the_others_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    for _ in range(3):
        answer = await world.top_up(1_000)
        assert answer.order is not None
        orders.append(answer.order.order_id)
    await world.database.fetch(
        "UPDATE payment_order SET expires_at = purser_now() - interval '1 minute'"
    )
    decide = sweep.decide_and_commit

    async def breaking(selector: sweep.Selector, plan: object) -> object:
        if selector.order_id == orders[0]:
            raise ValueError("a bug")
        return await decide(selector, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "decide_and_commit", breaking)
    assert await expire_orders() == 2
    assert [(await world.order(each))["state"] for each in orders] == [
        "CREATED",
        "CLOSED",
        "CLOSED",
    ]


@pytest.mark.parametrize("error", [ValueError("a bug"), NoRoute()])
async def test_operations_that_always_break_do_not_take_every_place(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    broken = [uuid.uuid4() for _ in range(3 * FINISHING_MAX)]
    sound = uuid.uuid4()
    finished: list[uuid.UUID] = []

    async def finish(operation_id: uuid.UUID) -> None:
        if operation_id in broken:
            raise error
        finished.append(operation_id)

    async def find(limit: int) -> list[uuid.UUID]:
        return [*broken, sound][:limit]

    monkeypatch.setattr(sweeper, "finish_operation", finish)
    monkeypatch.setattr(sweeper, "BATCH", FINISHING_MAX)
    finisher = Finisher()
    step = finisher.step(find)
    for _ in range(5):
        await step()
        await finisher.finished()
    assert set(finished) == {sound}
