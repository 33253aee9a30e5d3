"""The workers together, on whole payments through the simulated bank."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from core import configuration as installed
from payments.settlement import run_settlement
from payments.values import Answer
from payments.webhooks import set_endpoint
from tests.channels.conftest import Simulator
from tests.payments.conftest import World, bank, bank_settings, verdict, world
from tests.workers.conftest import (
    OwnValkey,
    Process,
    Receiver,
    dispatching,
    end_leases,
    until,
    working,
)
from workers import long
from workers.followers import follow
from workers.jobs import JOBS
from workers.sweep import sweep

__all__ = ["bank", "bank_settings", "verdict", "world"]


@asynccontextmanager
async def running(*loops: Any) -> AsyncIterator[None]:
    """Loops of the dispatcher's process as tasks of this one."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(run(stop)) for run in loops]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def is_in(world: World, answer: Answer, *states: str) -> bool:
    assert answer.order is not None
    return (await world.order(answer.order.order_id))["state"] in states


async def pay_at_the_bank(world: World, bank: Simulator, answer: Answer) -> None:
    """What the payer does on the bank's page."""
    assert answer.order is not None
    await until(lambda: is_in(world, answer, "REQUIRES_ACTION"), 20)
    order = await world.order(answer.order.order_id)
    await bank.press(str(order["action_url"]), "pay")


async def test_a_top_up_and_a_payment_reach_their_end_and_the_shop(
    world: World, bank: Simulator, receiver: Receiver, valkey: str
) -> None:
    await set_endpoint(world.shop, receiver.url)
    async with dispatching(), working(valkey, JOBS), running(sweep, follow):
        top_up = await world.top_up(10_000)
        await pay_at_the_bank(world, bank, top_up)
        await until(lambda: is_in(world, top_up, "SUCCEEDED"), 20)
        paid = await world.pay(3_000)
        assert paid.order is not None
        refunded = await world.refund(paid.order.order_id, 1_000)
        assert refunded.refusal is None
        await until(lambda: len(receiver.received) >= 2, 20)
    assert await world.wallet() == 8_000
    await world.assert_books()


async def test_flushing_valkey_with_orders_in_flight_loses_none(
    world: World, bank: Simulator, valkey: str
) -> None:
    answers = []
    async with (
        Redis.from_url(valkey) as redis,
        dispatching(),
        working(valkey, JOBS),
        running(sweep),
    ):
        for _ in range(20):
            answers.append(await world.top_up(100))
            await redis.flushdb()
        await end_leases(world.database)
        for answer in answers:
            await pay_at_the_bank(world, bank, answer)
        for answer in answers:
            await until(lambda answer=answer: is_in(world, answer, "SUCCEEDED"), 20)
    assert await world.wallet() == 2_000
    await world.assert_books()


async def test_without_valkey_the_sweeper_still_brings_orders_to_their_end(
    world: World, bank: Simulator, own_valkey: OwnValkey
) -> None:
    own_valkey.kill()
    async with dispatching(), running(sweep, follow):
        answer = await world.top_up(5_000)
        await world.make_due()
        await pay_at_the_bank(world, bank, answer)
        await until(lambda: is_in(world, answer, "SUCCEEDED"), 20)
    assert await world.wallet() == 5_000
    await world.assert_books()


@pytest.mark.parametrize(
    "name",
    [
        "job_claimed",
        "attempt_committed",
        "answer_in_hand",
        "before_phase_b",
        "after_phase_b",
        "job_run",
    ],
)
async def test_a_worker_killed_anywhere_charges_the_payer_once(
    world: World, bank: Simulator, valkey: str, start: Callable[..., Process], name: str
) -> None:
    victim = start("short", crash_point=name)
    async with dispatching():
        answer = await world.top_up(5_000)
        assert await victim.ended() == -9
    await end_leases(world.database)
    await world.database.fetch(
        """UPDATE operation SET next_check_at = purser_now(),
            submitted_at = submitted_at - interval '1 minute'"""
    )
    async with dispatching(), working(valkey, JOBS), running(sweep):
        await pay_at_the_bank(world, bank, answer)
        await until(lambda: is_in(world, answer, "SUCCEEDED"), 30)
    assert answer.operation is not None
    assert (await bank.booked(answer.operation.operation_id.hex))["bookings_count"] == 1
    assert await world.wallet() == 5_000
    await world.assert_books()


async def test_an_order_whose_time_is_over_is_closed_by_the_sweeper(
    world: World, bank: Simulator, valkey: str
) -> None:
    installed.install(replace(installed.current(), order_expiry_seconds=1))
    async with dispatching(), working(valkey, JOBS), running(sweep):
        answer = await world.top_up(5_000)
        await until(lambda: is_in(world, answer, "CLOSED"), 30)
    await world.assert_books()


async def test_the_nightly_proof_is_clean_and_sees_what_is_wrong(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.fund(10_000)
    await world.pay(3_000)
    await run_settlement(world.operator, "settle-everything", world.shop_id, "CNY")
    async with running(follow):
        await asyncio.sleep(0.6)
    assert await long.prove_books()
    await world.database.fetch(
        "UPDATE account SET credits_posted = credits_posted + 1 WHERE kind = 'CUSTOMER_WALLET'"
    )
    assert not await long.prove_books()
    assert "the books are wrong" in caplog.text
    rows = await world.database.fetch(
        "SELECT outcome FROM audit_log WHERE action = 'BOOKS_PROVED' ORDER BY sequence"
    )
    assert [row["outcome"] for row in rows] == ["CLEAN", "WRONG"]
