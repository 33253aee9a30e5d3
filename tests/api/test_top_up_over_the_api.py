"""A top-up through the simulated bank: the page to visit, the callback, and what the payer sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from channels import breaker, outgoing
from core import configuration
from tests.api.conftest import Api, Person, finish_all
from tests.channels.conftest import Simulator
from tests.payments.conftest import bank_settings

__all__ = ["bank_settings"]

FIELDS = "order { id state actionUrl amount { formatted } } idempotentReplay"
WALLET = '{ wallet(currency: "CNY") { available { formatted } } }'


@pytest.fixture
async def bank(bank_settings: Any, api: Api) -> AsyncIterator[Simulator]:
    """The simulated bank, and this application at the address that it calls back."""
    simulator = Simulator(bank_settings)
    simulator.start()
    port = int(configuration.current().public_url.rsplit(":", 1)[1])
    transport: Any = api.http._transport
    config = uvicorn.Config(transport.app, "127.0.0.1", port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield simulator
    server.should_exit = True
    await serving
    simulator.stop()
    await outgoing.close()
    breaker.reset()


def topping_up(amount_minor: int = 100_00) -> dict[str, Any]:
    return {
        "idempotencyKey": "top-up-0001",
        "amount": {"amountMinor": amount_minor, "currency": "CNY"},
        "returnUrl": "https://shop.example/back",
    }


async def test_the_answer_brings_the_banks_page_and_the_callback_the_money(
    bank: Simulator,
    api: Api,
    new_person: Callable[..., Awaitable[Person]],
    database: Any,
) -> None:
    person = await new_person()

    async def worker() -> None:
        while not await database.fetch("SELECT 1 FROM operation"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await finish_all(database)

    payload, _ = await asyncio.gather(
        api.mutate("topUp", topping_up(), FIELDS, token=person.token), worker()
    )
    assert payload["userErrors"] == []
    assert payload["order"]["state"] == "REQUIRES_ACTION"
    assert payload["order"]["actionUrl"].startswith(bank.url)
    await bank.press(payload["order"]["actionUrl"], "pay")
    for _ in range(250):
        order = await api.data(
            "query($id: ID!) { order(id: $id) { state actionUrl } }",
            {"id": payload["order"]["id"]},
            token=person.token,
        )
        if order["order"]["state"] == "SUCCEEDED":
            break
        await asyncio.sleep(0.02)
    assert order["order"]["state"] == "SUCCEEDED"
    wallet = await api.data(WALLET, token=person.token)
    assert wallet["wallet"]["available"]["formatted"] == "100.00"
    again = await api.mutate("topUp", topping_up(), FIELDS, token=person.token)
    assert again["idempotentReplay"] is True
    assert again["order"]["id"] == payload["order"]["id"]


async def test_without_a_worker_the_answer_comes_all_the_same(
    api: Api, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.paying.ACTION_WAIT_SECONDS", 0.2)
    payload = await api.mutate("topUp", topping_up(), FIELDS, token=person.token)
    assert payload["userErrors"] == []
    assert payload["order"]["state"] in ("CREATED", "PROCESSING")
    assert payload["order"]["actionUrl"] is None


@pytest.mark.parametrize("amount", [0, -1, "9223372036854775807"])
async def test_an_amount_that_cannot_be_is_refused_before_the_bank_hears_of_it(
    api: Api, person: Person, database: Any, amount: Any
) -> None:
    payload = await api.mutate("topUp", topping_up(amount), FIELDS, token=person.token)
    assert payload["userErrors"][0]["code"] in ("INVALID_ARGUMENT", "LIMIT_EXCEEDED")
    assert not await database.fetch("SELECT 1 FROM attempt")
