"""The worker processes themselves: how they start, stop, and give up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from core import ids
from tests.workers.conftest import OwnValkey, Process, Receiver, add_event, undone, until
from workers.serve import EXIT_RESTART


@pytest.mark.parametrize("kind", ["dispatch", "short", "long"])
async def test_a_worker_ends_cleanly_on_sigterm(
    database: Any, valkey: str, start: Callable[..., Process], kind: str
) -> None:
    process = start(kind)
    await process.started()
    assert await process.terminate() == 0
    assert b"Traceback" not in process.log.read_bytes()


@pytest.mark.parametrize("kind", ["short", "long"])
async def test_an_arq_worker_exits_to_be_restarted_when_valkey_dies(
    database: Any, own_valkey: OwnValkey, start: Callable[..., Process], kind: str
) -> None:
    process = start(kind)
    await process.started()
    own_valkey.kill()
    assert await process.ended() == EXIT_RESTART
    assert b"Valkey is away" in process.log.read_bytes()


async def test_the_dispatcher_lives_on_when_valkey_dies(
    database: Any,
    own_valkey: OwnValkey,
    start: Callable[..., Process],
    shop: Any,
    receiver: Receiver,
) -> None:
    from payments.webhooks import set_endpoint

    await set_endpoint(shop, receiver.url)
    dispatcher = start("dispatch")
    await dispatcher.started()
    own_valkey.kill()
    event_id = await add_event("deliver_webhook", merchant_id=shop.id)
    await own_valkey.start()
    start("short")
    await until(lambda: receiver.received, seconds=20)
    assert receiver.event_ids == [str(event_id)]
    await until(lambda: _done(database))
    assert dispatcher.process.poll() is None


async def test_a_worker_without_a_database_exits_to_be_restarted(
    database: Any, valkey: str, start: Callable[..., Process]
) -> None:
    process = start("short", database_url=f"postgresql://nobody@127.0.0.1:1/{ids.new_id().hex}")
    assert await process.ended() == EXIT_RESTART
    assert b"Traceback" not in process.log.read_bytes()


async def test_a_running_job_comes_to_its_end_before_the_worker_does(
    database: Any,
    valkey: str,
    start: Callable[..., Process],
    shop: Any,
    receiver: Receiver,
) -> None:
    from payments.webhooks import set_endpoint

    await set_endpoint(shop, receiver.url)
    receiver.pause_seconds = 1.0
    start("dispatch")
    worker = start("short")
    await add_event("deliver_webhook", merchant_id=shop.id)
    await until(lambda: receiver.received)
    worker.process.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert await undone(database) == 0


async def _done(database: Any) -> bool:
    return await undone(database) == 0
