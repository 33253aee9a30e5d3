"""Live hints: best effort, never in the way of a payment, and honest about what was missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from core import hub
from tests.core.conftest import Proxy, through, valkey_behind


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    await hub.close()


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[Proxy]:
    """Valkey behind a network that can be cut, and our hub connected by it."""
    proxy = valkey_behind(valkey)
    await proxy.start()
    hub.connect(through(proxy, valkey))
    yield proxy
    await proxy.stop()


async def next_of(messages: AsyncIterator[dict[str, object]], seconds: float = 5.0) -> object:
    async with asyncio.timeout(seconds):
        return await anext(messages)


async def test_a_hint_reaches_those_who_listen_to_its_channel(proxy: Proxy) -> None:
    async with hub.listen("order:1", "customer:1") as messages:
        await hub.announce("order:2", {"version": 9})
        await hub.announce_all({"order:1": {"version": 2}, "customer:1": {"version": 3}})
        assert await next_of(messages) == {"version": 2}
        assert await next_of(messages) == {"version": 3}
        await hub.announce("order:1")
        assert await next_of(messages) == {}


async def test_hints_of_many_at_once_travel_together_and_the_newest_of_a_topic_is_sent(
    proxy: Proxy, valkey: str
) -> None:
    async with Redis.from_url(valkey) as redis, redis.pubsub() as wire:
        async with hub.listen("order:1", "order:2") as messages:
            (channel,) = await redis.pubsub_channels()
            await wire.subscribe(channel)
            assert (await wire.get_message(timeout=5))["type"] == "subscribe"
            for version in range(50):
                hub.announce_soon("order:1", {"version": version})
            hub.announce_soon("order:2", {"version": 7})
            assert await next_of(messages) == {"version": 49}
            assert await next_of(messages) == {"version": 7}
        assert (await wire.get_message(timeout=5))["type"] == "message"
        assert await wire.get_message(timeout=0.2) is None


async def test_a_hint_on_its_way_at_the_end_is_still_sent(proxy: Proxy, valkey: str) -> None:
    async with Redis.from_url(valkey) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(hub.WAKE_DISPATCH)
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        hub.announce_soon(hub.WAKE_DISPATCH, {})
        await hub.close()
        message = await pubsub.get_message(timeout=5)
    assert message is not None
    assert message["type"] == "message"


async def test_listeners_of_a_process_share_one_connection_and_hear_only_their_topics(
    proxy: Proxy, valkey: str
) -> None:
    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(hub.listen("order:1", f"order:{number}"))
            for number in range(2, 22)
        ]
        async with Redis.from_url(valkey) as redis:
            channels = await redis.pubsub_channels()
            subscribers = await redis.pubsub_numsub(*channels)
            assert sum(count for _, count in subscribers) == 1
        await hub.announce("order:1", {"version": 1})
        assert [await next_of(each) for each in listeners] == [{"version": 1}] * 20
        await hub.announce("order:5", {"version": 5})
        assert await next_of(listeners[3]) == {"version": 5}
        await hub.announce("order:1", {"version": 2})
        assert [await next_of(each) for each in listeners] == [{"version": 2}] * 20
    async with Redis.from_url(valkey) as redis, asyncio.timeout(5):
        while await redis.pubsub_channels():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_listener_that_does_not_listen_loses_the_oldest_hints(proxy: Proxy) -> None:
    async with hub.listen("order:1") as slow, hub.listen("order:2") as quick:
        for version in range(hub.WAITING_MAX + 10):
            await hub.announce("order:1", {"version": version})
        await hub.announce("order:2", {})
        await next_of(quick)
        assert await next_of(slow) == {"version": 10}


async def test_after_a_lost_connection_an_empty_hint_says_look_again(proxy: Proxy) -> None:
    async with hub.listen("order:1") as messages:
        await hub.announce("order:1", {"version": 1})
        assert await next_of(messages) == {"version": 1}
        proxy.cut_all()
        assert await next_of(messages) == {}
        await hub.announce("order:1", {"version": 2})
        assert await next_of(messages) == {"version": 2}


async def test_a_listener_that_came_while_valkey_was_away_is_told_when_it_is_back(
    proxy: Proxy,
) -> None:
    await proxy.stop()
    async with hub.listen("order:1") as messages:
        waiting = asyncio.create_task(next_of(messages, 10.0))
        await asyncio.sleep(0.2)
        await proxy.start()
        assert await waiting == {}


async def test_announcing_to_a_dead_valkey_never_raises_and_soon_costs_nothing(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    await proxy.stop()
    started = time.monotonic()
    for _ in range(100):
        await hub.announce("order:1", {"version": 1})
    assert time.monotonic() - started < hub.ANNOUNCE_TIMEOUT_SECONDS + 0.5
    assert len([each for each in caplog.records if "hints dropped" in each.message]) == 1


async def test_a_valkey_that_hangs_holds_a_payment_up_for_half_a_second_at_most() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    hub.connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    started = time.monotonic()
    await asyncio.gather(*(hub.announce("order:1") for _ in range(50)))
    assert time.monotonic() - started < hub.ANNOUNCE_TIMEOUT_SECONDS + 0.5
    await hub.close()
    server.close()


async def test_without_a_connection_nothing_is_announced_and_nobody_listens() -> None:
    await hub.announce("order:1", {"version": 1})
    with pytest.raises(RuntimeError):
        async with hub.listen("order:1"):
            pass
