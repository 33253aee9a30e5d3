"""Processes killed between any two lines that matter: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from core import configuration, ids
from core.configuration import PLATFORM_MERCHANT_ID
from payments.pipeline import accept_operation, finish_operation
from payments.states import OrderState
from tests.channels.conftest import Simulator
from tests.payments.conftest import World
from tests.payments.crash_child import as_json, packed
from tests.payments.test_channel_payments import until

ROOT = Path(__file__).resolve().parent.parent.parent


async def child(crash_point: str, **task: Any) -> int:
    """The exit status of a process that does `task` and dies at `crash_point` ("" for nowhere)."""
    document = {
        "configuration": packed(configuration.current(), crash_point=crash_point),
        **task,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.payments.crash_child",
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    _, errors = await process.communicate(json.dumps(document).encode())
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


@pytest.mark.parametrize(("place", "booked"), [("before_phase_a", 0), ("accepted", 1)])
async def test_an_api_killed_around_its_commit_answers_the_same_key_with_one_payment(
    world: World, place: str, booked: int
) -> None:
    await world.fund(10_000)
    request = world.paying(3_000)
    assert await child(place, do="open", request=as_json(request)) == -signal.SIGKILL
    assert len(await world.database.fetch("SELECT 1 FROM payment_order")) == booked
    answer = await accept_operation(request)
    assert answer.order is not None
    assert answer.order.state is OrderState.SUCCEEDED
    assert answer.replay is bool(booked)
    assert await world.wallet() == 7_000
    await world.assert_books()


@pytest.mark.parametrize(
    "place", ["attempt_committed", "answer_in_hand", "before_phase_b", "after_phase_b", ""]
)
async def test_a_worker_killed_around_the_channel_call_charges_once(
    world: World, bank: Simulator, place: str
) -> None:
    answer = await world.top_up(10_000)
    assert answer.operation is not None
    operation_id = answer.operation.operation_id
    status = await child(place, do="finish", operation_id=str(operation_id))
    assert status == (-signal.SIGKILL if place else 0)
    for _ in range(3):
        await world.database.fetch(
            """UPDATE operation SET next_check_at = purser_now(),
                submitted_at = submitted_at - interval '1 minute'
            WHERE next_check_at IS NOT NULL"""
        )
        await finish_operation(operation_id)
    order = await until(world, answer, "REQUIRES_ACTION")
    await bank.press(str(order["action_url"]), "pay")
    await until(world, answer, "SUCCEEDED")
    assert (await bank.booked(operation_id.hex))["bookings_count"] == 1
    assert await world.wallet() == 10_000
    await world.assert_books()


@pytest.mark.parametrize("place", ["callback_stored", "callback_applied"])
async def test_a_callback_handler_that_dies_is_repeated_and_books_once(
    world: World, bank: Simulator, place: str
) -> None:
    answer = await world.top_up(10_000)
    await world.run_jobs()
    order = await until(world, answer, "REQUIRES_ACTION")
    installed = configuration.current()
    crashed: list[int] = []
    from payments import callbacks
    from tests.payments import conftest

    real = callbacks.apply_callback

    async def dying(code: str, headers: Any, body: bytes) -> Any:
        if not crashed:
            import base64

            crashed.append(0)
            await child(
                place,
                do="callback",
                headers=dict(headers),
                body=base64.b64encode(body).decode(),
            )
            raise ConnectionResetError
        return await real(code, headers, body)

    conftest_apply = conftest.apply_callback
    conftest.apply_callback = dying  # type: ignore[assignment]
    try:
        await bank.press(str(order["action_url"]), "pay")
        await until(world, answer, "SUCCEEDED")
        await asyncio.sleep(0.3)
    finally:
        conftest.apply_callback = conftest_apply
    assert installed is configuration.current()
    assert await world.wallet() == 10_000
    assert len(await world.database.fetch("SELECT 1 FROM entry WHERE kind = 'TOP_UP_BOOKED'")) == 1
    await world.assert_books()


async def test_without_the_key_a_killed_request_would_pay_twice(world: World) -> None:
    """The control: another key and number, as a client without idempotency would send."""
    await world.fund(10_000)
    request = world.paying(3_000)
    await child("accepted", do="open", request=as_json(request))
    await world.pay(3_000, merchant_order_no=ids.random_token(8))
    assert await world.wallet() == 4_000
    assert world.shop_id != PLATFORM_MERCHANT_ID
