"""Every way to lose or spoil the bank's answer ends as a value, bounded in time and size."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from channels import bank, breaker, outgoing, signed_json
from channels.contract import ResultKind
from core import clock, configuration, ids


@pytest.mark.parametrize(
    "fault",
    [
        "DROP_AFTER_COMMIT",
        "ERROR_AFTER_COMMIT",
        "HANG_AFTER_COMMIT",
        "HUGE_ANSWER",
        "SLOW_DRIP",
        "BAD_SIGNATURE",
        "STALE_TIMESTAMP",
    ],
)
async def test_an_answer_that_is_lost_or_wrong_is_unknown_until_the_query_tells(
    simulator, receiver, pay_out, impatient, fault
):
    instruction = pay_out()
    await simulator.fault("PAY_OUT", fault)
    started = time.monotonic()
    sent = await bank.invoke(instruction)
    assert sent.kind is ResultKind.UNKNOWN
    assert sent.raw == b""
    assert time.monotonic() - started < 3
    await receiver.wait(1)
    queried = await bank.query(instruction.request_number)
    assert (queried.kind, queried.amount_minor) == (ResultKind.SUCCESS, 20_00)
    assert (await bank.invoke(instruction)).kind is ResultKind.SUCCESS
    assert (await simulator.booked(instruction.request_number))["bookings_count"] == 1


@pytest.mark.parametrize("fault", ["DROP_BEFORE_COMMIT", "ERROR_BEFORE_COMMIT"])
async def test_a_call_lost_before_the_bank_acted_is_unknown_and_then_not_found(
    simulator, pay_in, fault
):
    instruction = pay_in()
    await simulator.fault("PAY_IN", fault)
    assert (await bank.invoke(instruction)).kind is ResultKind.UNKNOWN
    assert (await bank.query(instruction.request_number)).kind is ResultKind.NOT_FOUND
    assert (await bank.invoke(instruction)).kind is ResultKind.PENDING


async def test_a_slow_answer_inside_the_time_limit_is_an_answer(simulator, pay_in, impatient):
    await simulator.fault("PAY_IN", "DELAY_BEFORE_COMMIT", seconds=0.2)
    await simulator.fault("PAY_IN", "DELAY_AFTER_COMMIT", seconds=0.2)
    answered = await bank.invoke(pay_in())
    assert answered.kind is ResultKind.PENDING
    assert answered.latency_ms >= 400


async def test_a_refused_connection_is_not_sent(settings, pay_in):
    result = await bank.invoke(pay_in())
    assert (result.kind, result.reason) == (ResultKind.NOT_SENT, "NO_CONNECTION")


async def test_a_query_or_close_that_never_left_proves_nothing(settings):
    assert (await bank.query("number")).kind is ResultKind.UNKNOWN
    assert (await bank.close("number")).kind is ResultKind.UNKNOWN


async def test_a_name_that_does_not_resolve_is_not_sent(settings, pay_in, monkeypatch):
    monkeypatch.setattr(
        configuration, "current", _with(configuration.current(), "http://bank.invalid")
    )
    assert (await bank.invoke(pay_in())).kind is ResultKind.NOT_SENT


async def test_a_failed_tls_handshake_is_not_sent(simulator, pay_in, monkeypatch):
    https = simulator.url.replace("http:", "https:")
    monkeypatch.setattr(configuration, "current", _with(configuration.current(), https))
    assert (await bank.invoke(pay_in())).kind is ResultKind.NOT_SENT


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{"status":"SUCCESS"}',
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}",
        b"SSH-2.0-nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_whatever_else_comes_back_is_unknown(settings, pay_in, impatient, answer):
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    port = int(settings.public_url.rsplit(":", 1)[1])
    async with await asyncio.start_server(reply, "127.0.0.1", port):
        result = await bank.invoke(pay_in())
        await outgoing.close()
    assert result.kind is ResultKind.UNKNOWN


@pytest.mark.parametrize(
    "changes",
    [
        {"number": "another"},
        {"client": "0123456789abcdef"},
        {"status": "MAYBE"},
        {"status": None},
        {"amount_minor": "10000"},
        {"amount_minor": True},
        {"amount_minor": 0},
        {"amount_minor": 2**63},
        {"currency": ""},
        {"trade_no": "x" * 65},
        {"action_url": "javascript:alert(1)"},
        {"occurred_at": "2026-11-22T10:00:00"},
        {"occurred_at": "yesterday"},
    ],
)
async def test_a_signed_answer_that_says_nothing_defined_is_unknown(
    settings, serving, pay_in, changes
):
    instruction = pay_in()
    reply = {
        "number": instruction.request_number,
        "client": settings.client,
        "status": "SUCCESS",
        "trade_no": "B1",
        "amount_minor": 100_00,
        "currency": "CNY",
        "occurred_at": clock.now().isoformat(),
    }

    async def answer(request: Request) -> Response:
        content = orjson.dumps(replies.pop(0))
        nonce = request.headers[signed_json.NONCE_HEADER]
        headers = signed_json.signed_headers(
            settings.bank_private_key, f"200 POST {request.url.path}", content, nonce=nonce
        )
        return Response(content, headers=headers)

    replies = [reply | changes, reply]
    app = Starlette(routes=[Route("/v1/payments", answer, methods=["POST"])])
    with serving(app, int(settings.public_url.rsplit(":", 1)[1])):
        assert (await bank.invoke(instruction)).kind is ResultKind.UNKNOWN
        assert (await bank.invoke(instruction)).kind is ResultKind.SUCCESS


async def test_a_brown_out_opens_the_breaker_and_leaves_nothing_booked_twice(
    simulator, receiver, pay_out, impatient, monkeypatch
):
    monkeypatch.setattr(breaker, "PAUSE_MS", 100.0)
    seed = ids.new_id().int % 2**32
    print(f"seed {seed}")
    faults = ("DROP_AFTER_COMMIT", "DROP_BEFORE_COMMIT", "ERROR_AFTER_COMMIT", "BAD_SIGNATURE")
    for offset, fault in enumerate(faults):
        await simulator.fault("PAY_OUT", fault, count=None, probability=0.3, seed=seed + offset)
    instructions = [pay_out(amount_minor=index + 1) for index in range(60)]

    async def send(instruction):
        return await breaker.guarded("bank", "invoke", lambda: bank.invoke(instruction))

    sent = [await send(instruction) for instruction in instructions]
    assert "BREAKER_OPEN" in [result.reason for result in sent[:20]]
    await simulator.admin("DELETE", "/admin/faults")
    expected_minor = 0
    for instruction, result in zip(instructions, sent, strict=True):
        queried = await bank.query(instruction.request_number)
        if result.kind is ResultKind.NOT_SENT:
            assert queried.kind is ResultKind.NOT_FOUND
        else:
            assert queried.kind in {ResultKind.PENDING, ResultKind.SUCCESS, ResultKind.NOT_FOUND}
            assert result.kind is ResultKind.UNKNOWN or queried.kind is not ResultKind.NOT_FOUND
        resent = await bank.invoke(instruction)
        assert resent.kind in {ResultKind.PENDING, ResultKind.SUCCESS}
        expected_minor += instruction.amount.amount_minor
    await receiver.wait(len(instructions))
    report = await simulator.admin("GET", "/admin/ledger")
    assert report["balanced"]
    assert {line["bookings_count"] for line in report["instructions"]} == {1}
    assert report["balances"][0]["debits_minor"] == expected_minor


async def test_a_success_after_a_close_is_called_back(simulator, receiver, pay_in):
    instruction = pay_in()
    await bank.invoke(instruction)
    await simulator.fault("CLOSE", "SUCCESS_AFTER_CLOSE", seconds=0.1)
    assert (await bank.close(instruction.request_number)).kind is ResultKind.CLOSED
    [event] = await receiver.wait(1)
    assert event.result.kind is ResultKind.SUCCESS
    assert (await bank.query(instruction.request_number)).kind is ResultKind.SUCCESS


async def test_a_wrong_amount_in_the_answer_reaches_the_caller_to_compare(simulator, pay_in):
    await simulator.fault("PAY_IN", "WRONG_AMOUNT", amount_minor=5)
    assert (await bank.invoke(pay_in(100_00))).amount_minor == 100_05


def _with(settings: configuration.Configuration, bank_url: str):
    changed = replace(settings, bank_url=bank_url)
    return lambda: changed
