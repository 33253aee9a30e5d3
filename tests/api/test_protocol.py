"""GraphQL over HTTP: media types, statuses, codes, who may ask what, and what stands beside it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import orjson
import pytest
from strawberry.extensions import parser_cache, validation_cache

from app.asgi import make_application
from core import configuration
from core.configuration import Configuration
from core.phase import phase
from core.principal import SYSTEM
from payments import pipeline
from resolvers import guard
from tests.api.conftest import Api, Person, Shop, paying

JSON = {"content-type": "application/json"}


def code_of(answer: dict[str, Any]) -> str:
    return str(answer["errors"][0]["extensions"]["code"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"123", 400),
        (b'["a"]', 400),
        (b'"text"', 400),
        (b"null", 400),
        (b"[]", 400),
        (b'[{"query":"{viewer{kind}}"}]', 400),
        (b"{}", 400),
        (b'{"query":null}', 400),
        (b'{"query":7}', 400),
        (b'{"query":""}', 400),
        (b'{"query":"{viewer{kind}}","variables":[]}', 400),
        (b'{"query":"{viewer{kind}}","operationName":7}', 400),
        (b'{"query":"{viewer{kind}}","extensions":7}', 400),
        (b'{"query":"\\ud800"}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b'{"query":"' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_a_body_that_is_no_request_is_refused_before_graphql(
    api: Api, body: bytes, status: int
) -> None:
    response = await api.post(body, JSON)
    assert response.status_code == status
    if status == 400:
        assert code_of(response.json()) == "BAD_USER_INPUT"


async def test_a_body_without_a_length_is_capped_too(api: Api) -> None:
    async def parts() -> Any:
        for _ in range(80):
            yield b" " * 1_024

    response = await api.http.post("/graphql", content=parts(), headers=JSON)
    assert response.status_code == 413


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
async def test_only_json_is_taken(api: Api, kind: str) -> None:
    response = await api.post(b'{"query":"{__typename}"}', {"content-type": kind})
    assert response.status_code == 415


async def test_nothing_is_answered_to_get(api: Api) -> None:
    for path in ("/graphql", "/graphql?query={__typename}", "/graphql/"):
        assert (await api.http.get(path)).status_code in (404, 405)


async def test_the_newer_media_type_gets_statuses_of_its_own(api: Api) -> None:
    newer = {**JSON, "accept": "application/graphql-response+json"}
    good = await api.post(b'{"query":"{__typename}"}', newer)
    assert good.status_code == 200
    assert good.headers["content-type"].startswith("application/graphql-response+json")
    bad = await api.post(b'{"query":"{nothing}"}', newer)
    assert bad.status_code == 400
    assert "data" not in bad.json()
    older = await api.post(b'{"query":"{nothing}"}', {**JSON, "accept": "application/json"})
    assert older.status_code == 200
    assert older.headers["content-type"] == "application/json"


async def test_an_unknown_field_is_a_coded_error_without_suggestions(
    api: Api, person: Person
) -> None:
    answer = await api.ask("{ viewr { kind } }", token=person.token)
    assert code_of(answer) == "BAD_USER_INPUT"
    assert "viewer" not in answer["errors"][0]["message"]


async def test_a_subscription_over_plain_post_is_refused(api: Api, person: Person) -> None:
    body = orjson.dumps({"query": 'subscription { walletUpdated(currency: "CNY") { __typename } }'})
    response = await api.post(body, {**JSON, "authorization": f"Bearer {person.token}"})
    assert response.status_code == 400


async def test_nobody_gets_a_coded_refusal_and_the_rest_of_the_answer(api: Api) -> None:
    answer = await api.ask("{ viewer { kind } __typename }")
    assert code_of(answer) == "UNAUTHENTICATED"
    assert answer["data"] == {"viewer": None, "__typename": "Query"}


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "Basic YTpi", "Bearer a.b.c"])
async def test_a_token_that_is_not_ours_is_401(api: Api, header: str) -> None:
    response = await api.post(b'{"query":"{__typename}"}', {**JSON, "authorization": header})
    assert response.status_code == 401
    assert code_of(response.json()) == "UNAUTHENTICATED"


async def test_a_signature_over_another_body_is_refused(api: Api, shop: Shop) -> None:
    body = orjson.dumps({"query": "{ viewer { kind signed } }"})
    headers = shop.sign(body)
    good = (await api.post(body, headers)).json()
    assert good["data"] == {"viewer": {"kind": "MERCHANT", "signed": True}}
    replayed = await api.post(body, headers)
    assert replayed.status_code == 401, "a nonce is good once"
    altered = await api.post(body + b" ", shop.sign(body))
    assert altered.status_code == 401
    assert code_of(altered.json()) == "SIGNATURE_INVALID"


async def test_an_operator_field_is_forbidden_to_a_customer(api: Api, person: Person) -> None:
    answer = await api.ask("{ ledgerIntegrity { clean } }", token=person.token)
    assert code_of(answer) == "FORBIDDEN"


async def test_a_suspended_login_ends_at_once(api: Api, person: Person) -> None:
    payload = await api.mutate(
        "customerLogout", {"everywhere": True}, "__typename", token=person.token
    )
    assert payload["userErrors"] == []
    response = await api.post(
        b'{"query":"{__typename}"}', {**JSON, "authorization": f"Bearer {person.token}"}
    )
    assert response.status_code == 401


async def test_a_bug_is_masked_and_has_an_id_that_the_log_has_too(
    api: Api, person: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("payments.queries.find_order", broken)
    answer = await api.ask(
        'query($m: ID) { orderByMerchantNumber(merchantOrderNo: "x", merchantId: $m) { id } }',
        {"m": "TWVyY2hhbnQ6MDE5M2Y0MTgtMDAwMC03MDAwLTgwMDAtMDAwMDAwMDAwMDAw"},
        token=person.token,
    )
    error = answer["errors"][0]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "secret" not in orjson.dumps(answer).decode()
    assert error["extensions"]["errorId"] in caplog.text


async def test_money_that_takes_too_long_is_answered_unknown_and_goes_on(
    api: Api, person: Person, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = pipeline.accept_operation

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.5)
        return await accept(request)

    monkeypatch.setattr(pipeline, "accept_operation", slow)
    monkeypatch.setattr("resolvers.context.DEADLINE_MS", 200)
    given = paying(shop, 1_00)
    payload = await api.mutate("pay", given, "order { state }", token=person.token)
    assert payload["userErrors"][0]["code"] == "OUTCOME_UNKNOWN"
    assert payload["userErrors"][0]["outcomeKnown"] is False
    await guard.finish_running()
    monkeypatch.undo()
    again = await api.mutate("pay", given, "order { state } idempotentReplay", token=person.token)
    assert again["order"]["state"] == "SUCCEEDED"
    assert again["idempotentReplay"] is True


async def test_a_read_that_takes_too_long_is_ended(
    api: Api, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def slow(*_: Any, **__: Any) -> Any:
        try:
            await asyncio.sleep(5)
        finally:
            ended.set()

    monkeypatch.setattr("payments.queries.read_orders_page", slow)
    monkeypatch.setattr("resolvers.context.DEADLINE_MS", 200)
    answer = await api.ask("{ orders(first: 1) { nodes { id } } }", token=person.token)
    assert code_of(answer) == "BUSY"
    await asyncio.wait_for(ended.wait(), 1)


async def test_each_answer_tells_what_it_cost(api: Api, person: Person) -> None:
    answer = await api.ask("{ orders(first: 50) { nodes { id } } }", token=person.token)
    cost = answer["extensions"]["cost"]
    assert cost["requested"] >= 50 > cost["actual"]
    assert set(cost["throttle"]) == {"maximum", "available", "restoreRate"}
    assert cost["throttle"]["available"] > cost["throttle"]["maximum"] - 50


async def test_who_asks_for_too_much_is_throttled(
    api: Api, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resolvers.throttle import Bucket

    monkeypatch.setattr("resolvers.throttle.SIGNED_IN", Bucket(maximum=3, restore_rate=1))
    answers = [await api.ask("{ viewer { kind } }", token=person.token) for _ in range(4)]
    assert code_of(answers[-1]) == "THROTTLED"


async def test_without_valkey_reads_and_payments_go_on(
    api: Api, person: Person, shop: Shop
) -> None:
    from resolvers import throttle

    await throttle.close()
    throttle.connect("redis://127.0.0.1:1/0")
    assert (await api.data("{ viewer { kind } }", token=person.token))["viewer"]
    paid = await api.mutate("pay", paying(shop, 1_00), "order { state }", token=person.token)
    assert paid["order"]["state"] == "SUCCEEDED"
    given = {"address": {"phone": person.phone}, "password": "x"}
    answer = await api.ask(
        "mutation($i: CustomerLoginInput!) { customerLogin(input: $i) { tokens { accessToken } } }",
        {"i": given},
    )
    assert code_of(answer) == "BUSY", "who did not sign in may not guess while nobody counts"


async def test_another_host_is_refused(api: Api) -> None:
    response = await api.post(b'{"query":"{__typename}"}', {**JSON, "host": "evil.example"})
    assert response.status_code == 400


async def test_answers_carry_the_headers_for_browsers_and_no_cors(api: Api) -> None:
    response = await api.post(
        b'{"query":"{__typename}"}', {**JSON, "origin": "https://evil.example"}
    )
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in response.headers


async def test_health_and_keys_stand_beside_the_endpoint(api: Api) -> None:
    assert (await api.http.get("/health/live")).json() == {"status": "live"}
    ready = await api.http.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["database"] == "up"
    keys = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
    assert keys
    assert all("d" not in key for key in keys)


async def test_health_answers_while_every_connection_is_in_use(api: Api, person: Person) -> None:
    release = asyncio.Event()

    async def hold() -> None:
        async with phase(SYSTEM):
            await release.wait()

    holders = [asyncio.create_task(hold()) for _ in range(10)]
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    assert (await api.http.get("/health/ready")).status_code == 200
    assert (await api.http.get("/health/live")).status_code == 200
    assert time.perf_counter() - began < 1.0
    refused = await api.http.post(
        "/graphql",
        json={"query": "{ viewer { kind } }"},
        headers={"authorization": f"Bearer {person.token}"},
    )
    assert refused.status_code == 503
    assert code_of(refused.json()) == "BUSY"
    release.set()
    await asyncio.gather(*holders)


async def test_readiness_turns_when_the_database_is_gone(
    api: Api, configuration: Configuration
) -> None:
    _install(configuration, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    application = make_application(connects=False)
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        began = time.perf_counter()
        answer = await http.get("/health/ready")
        assert time.perf_counter() - began < 2.0
    await application.state.probe.close()
    assert answer.status_code == 503
    assert answer.json()["database"] == "down"


async def test_an_unknown_channel_and_a_forged_callback_are_refused(api: Api) -> None:
    assert (await api.http.post("/callbacks/nowhere", content=b"{}")).status_code == 404
    assert (await api.http.post("/callbacks/bank", content=b"{}")).status_code == 401
    assert (await api.http.post("/callbacks/bank", content=b"x" * 300_000)).status_code == 413


async def test_the_explorer_needs_no_network_and_is_for_development_only(
    api: Api, configuration: Configuration
) -> None:
    page = await api.http.get("/explorer")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("explorer.js", "schema.js", "explorer.css"):
        asset = await api.http.get(f"/explorer/{name}")
        assert asset.status_code == 200
        assert f"/explorer/{name}" in page.text
        assert "//" not in asset.text.replace("// ", "").replace("://${", ""), (
            "nothing from outside"
        )
    assert (await api.http.get("/explorer/__init__.py")).status_code == 404
    _install(configuration, environment="live")
    assert (await api.http.get("/explorer")).status_code in (400, 404)


async def test_the_schema_is_shown_to_those_who_signed_in_or_in_development(
    api: Api, person: Person, configuration: Configuration
) -> None:
    document = "{ __schema { queryType { name } } }"
    assert "errors" not in await api.ask(document)
    _install(configuration, environment="sandbox")
    assert code_of(await api.ask(document)) == "FORBIDDEN"
    assert "errors" not in await api.ask(document, token=person.token)


async def test_a_document_that_was_seen_is_neither_parsed_nor_validated_again(api: Api) -> None:
    parsed = parser_cache._get_parse_cache(parser_cache.DEFAULT_MAXSIZE)
    validated = validation_cache._get_validate_cache(validation_cache.DEFAULT_MAXSIZE)
    await api.ask("{ __typename } # seen")
    before = parsed.cache_info(), validated.cache_info()  # type: ignore[attr-defined]
    await api.ask("{ __typename } # seen")
    after = parsed.cache_info(), validated.cache_info()  # type: ignore[attr-defined]
    for old, new in zip(before, after, strict=True):
        assert new.misses == old.misses


async def test_the_pinned_settings_are_those_of_the_running_server() -> None:
    routes = {route.path: route for route in make_application(connects=False).routes}  # type: ignore[attr-defined]
    server = routes["/graphql"].app  # type: ignore[attr-defined]
    assert server.graphql_ide is None
    assert server.allow_queries_via_get is False
    assert tuple(server.protocols) == ("graphql-transport-ws", "graphql-sse")
    assert server.allowed_origins == frozenset()
    assert server.multipart_uploads_enabled is False
    assert server.connection_init_wait_timeout.total_seconds() == 5
    assert server.max_subscriptions_per_connection == 20
    config = server.schema.config
    assert config.disable_field_suggestions is True
    assert config.relay_max_results == 100
    assert config.batching_config is None


def _install(present: Configuration, **changes: Any) -> None:
    from dataclasses import replace

    configuration.install(replace(present, **changes))
