"""Subscriptions over a real socket: fed by hints, ended with the token, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
import pytest
import uvicorn
import websockets
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from tests.api.conftest import Api, Person, Shop, fund, paying

PROTOCOL = "graphql-transport-ws"
WALLET = """subscription { walletUpdated(currency: "CNY") {
    resourceVersion wallet { available { formatted } } } }"""


@pytest.fixture
async def server(api: Api) -> AsyncIterator[str]:
    """The same application behind a real socket; its loop is the test's own."""
    transport: Any = api.http._transport
    config = uvicorn.Config(
        transport.app, port=0, log_config=None, lifespan="off", ws="websockets-sansio"
    )
    running = uvicorn.Server(config)
    serving = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"127.0.0.1:{port}"
    running.should_exit = True
    await serving


class Listener:
    """One socket that speaks the protocol by hand."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            message = await self.socket.recv()
        assert isinstance(message, str), "the protocol wants text frames"
        return orjson.loads(message)

    async def subscribe(self, query: str, variables: Any = None, name: str = "1") -> None:
        payload = {"query": query, "variables": variables or {}}
        await self.send(id=name, type="subscribe", payload=payload)


@asynccontextmanager
async def listening(server: str, token: str | None, **options: Any) -> AsyncIterator[Listener]:
    async with websockets.connect(
        f"ws://{server}/graphql", subprotocols=[PROTOCOL], **options
    ) as socket:  # type: ignore[list-item]
        listener = Listener(socket)
        if token is not None:
            await listener.send(
                type="connection_init", payload={"authorization": f"Bearer {token}"}
            )
            assert (await listener.next())["type"] == "connection_ack"
        yield listener


async def test_a_wallet_is_told_at_once_and_after_each_change(
    server: str, api: Api, person: Person, shop: Shop
) -> None:
    async with listening(server, person.token) as listener:
        await listener.subscribe(WALLET)
        first = await listener.next()
        assert (
            first["payload"]["data"]["walletUpdated"]["wallet"]["available"]["formatted"]
            == "1000.00"
        )
        await api.mutate("pay", paying(shop, 10_00), "order { id }", token=person.token)
        second = await listener.next()
        assert (
            second["payload"]["data"]["walletUpdated"]["wallet"]["available"]["formatted"]
            == "990.00"
        )


async def test_an_order_is_followed_by_an_unmodified_client(
    server: str, api: Api, person: Person, shop: Shop, operator_token: str
) -> None:
    paid = await api.mutate("pay", paying(shop, 10_00), "order { id }", token=person.token)
    transport = WebsocketsTransport(
        url=f"ws://{server}/graphql",
        init_payload={"authorization": f"Bearer {person.token}"},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
    )
    document = gql(
        """subscription($id: ID!) { orderUpdated(orderId: $id) { resourceVersion
            order { state refunded { formatted } } } }"""
    )
    document.variable_values = {"id": paid["order"]["id"]}
    seen = []
    async with Client(transport=transport) as session:
        async for event in session.subscribe(document):
            seen.append(event["orderUpdated"])
            if len(seen) == 1:
                given = {
                    "idempotencyKey": "refund-0001",
                    "orderId": paid["order"]["id"],
                    "refundNumber": "R-1",
                }
                await api.signed(shop, "refund", given, "__typename")
            else:
                break
    assert seen[0]["order"] == {"state": "SUCCEEDED", "refunded": {"formatted": "0.00"}}
    assert seen[1]["order"]["refunded"]["formatted"] == "10.00"
    assert int(seen[1]["resourceVersion"]) > int(seen[0]["resourceVersion"])


async def test_another_persons_order_is_not_found(
    server: str, api: Api, person: Person, shop: Shop, new_person: Any
) -> None:
    stranger = await new_person("+8613812345670")
    paid = await api.mutate("pay", paying(shop, 10_00), "order { id }", token=person.token)
    async with listening(server, stranger.token) as listener:
        await listener.subscribe(
            "subscription($id: ID!) { orderUpdated(orderId: $id) { resourceVersion } }",
            {"id": paid["order"]["id"]},
        )
        answer = await listener.next()
        assert _code(answer) == "NOT_FOUND"


@pytest.mark.parametrize(
    "query",
    [
        "{ viewer { kind } }",
        "mutation { customerLogout(input: {}) { __typename } }",
        "subscription { nothing }",
        "subscription {",
    ],
)
async def test_only_subscriptions_go_over_a_socket(
    server: str, api: Api, person: Person, query: str
) -> None:
    async with listening(server, person.token) as listener:
        await listener.subscribe(query)
        try:
            refused = (await listener.next())["type"] == "error"
        except websockets.ConnectionClosed as closed:
            refused = closed.rcvd is not None and closed.rcvd.code == 4400
        assert refused
    assert (await api.data("{ viewer { kind } }", token=person.token))["viewer"]


@pytest.mark.parametrize("payload", [{}, {"authorization": "Bearer x"}, {"authorization": 7}, None])
async def test_without_a_token_there_is_no_socket(server: str, payload: Any) -> None:
    async with listening(server, None) as listener:
        await listener.send(type="connection_init", payload=payload or {})
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await listener.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize(
    "message",
    [
        "[]",
        "7",
        "{",
        '{"type":7}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","id":"1","payload":[]}',
        '{"type":"subscribe","id":["1"],"payload":{"query":"{a}"}}',
        '{"type":"subscribe","id":"1","payload":{"query":7}}',
        '{"type":"subscribe","id":"1","payload":{"query":"{a}","variables":[1]}}',
        '{"type":"unheard of"}',
        " " * 70_000,
    ],
)
async def test_a_message_of_the_wrong_shape_closes_the_socket(
    server: str, person: Person, message: str
) -> None:
    async with listening(server, person.token) as listener:
        await listener.socket.send(message)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await listener.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (4400, 1009)


async def test_a_page_of_another_origin_and_the_legacy_protocol_are_refused(server: str) -> None:
    with pytest.raises(websockets.InvalidStatus):
        async with listening(server, None, origin="https://evil.example"):
            pass
    async with websockets.connect(f"ws://{server}/graphql", subprotocols=["graphql-ws"]) as socket:  # type: ignore[list-item]
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()


async def test_a_logout_ends_the_stream(
    server: str, api: Api, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.live.LOOK_AGAIN_SECONDS", 0.1)
    async with listening(server, person.token) as listener:
        await listener.subscribe(WALLET)
        await listener.next()
        await api.mutate("customerLogout", {}, "__typename", token=person.token)
        assert _code(await listener.next()) == "UNAUTHENTICATED"
        assert (await listener.next())["type"] == "complete"


async def test_a_lost_hint_is_made_up_for(
    server: str, api: Api, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.live.LOOK_AGAIN_SECONDS", 0.2)
    async with listening(server, person.token) as listener:
        await listener.subscribe(WALLET)
        await listener.next()
        await fund(person.customer_id, 1_00)
        event = await listener.next()
        assert (
            event["payload"]["data"]["walletUpdated"]["wallet"]["available"]["formatted"]
            == "1001.00"
        )


async def test_many_short_subscriptions_leave_no_connection_behind(
    server: str, api: Api, person: Person
) -> None:
    async with listening(server, person.token) as listener:
        for number in range(150):
            await listener.subscribe(WALLET, name=str(number))
            await listener.send(id=str(number), type="complete")
        await listener.send(type="ping")
        while (await listener.next())["type"] != "pong":
            pass
    answers = await asyncio.gather(
        *(api.data("{ wallets { currency } }", token=person.token) for _ in range(20))
    )
    assert len(answers) == 20


async def test_a_connection_has_an_end_of_subscriptions(server: str, person: Person) -> None:
    async with listening(server, person.token) as listener:
        for number in range(25):
            await listener.subscribe(WALLET, name=str(number))
        kinds = [(await listener.next())["type"] for _ in range(25)]
        assert kinds.count("error") == 5
        assert kinds.count("next") == 20


async def test_a_client_has_an_end_of_streams_over_all_its_connections(
    server: str, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.live.STREAMS_MAX", 1)
    async with listening(server, person.token) as one, listening(server, person.token) as two:
        await one.subscribe(WALLET)
        assert (await one.next())["type"] == "next"
        await two.subscribe(WALLET)
        assert _code(await two.next()) == "THROTTLED"
        await one.send(id="1", type="complete")
        for number in range(2, 50):
            await two.subscribe(WALLET, name=str(number))
            answer = await two.next()
            if answer["type"] == "next" and not answer["payload"].get("errors"):
                return
        pytest.fail("what one connection gave back the other never got")


async def test_server_sent_events_carry_the_same(
    server: str, api: Api, person: Person, shop: Shop
) -> None:
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {person.token}"}
    async with httpx2.AsyncClient(base_url=f"http://{server}", timeout=10) as http:
        async with http.stream(
            "POST", "/graphql", json={"query": WALLET}, headers=headers
        ) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: next"
            first = orjson.loads((await anext(lines)).removeprefix("data: "))
            assert first["data"]["walletUpdated"]["wallet"]["available"]["formatted"] == "1000.00"
        listing_all = {**headers, "accept": "application/json, text/event-stream"}
        plain = await http.post(
            "/graphql", json={"query": "{ viewer { kind } }"}, headers=listing_all
        )
        assert plain.json()["data"] == {"viewer": {"kind": "CUSTOMER"}}


def _code(message: Any) -> str:
    errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
    return str(errors[0]["extensions"]["code"])
