"""The simulator: strict with requests, closed to strangers, true to its books when killed."""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import os
import signal
from dataclasses import replace
from datetime import timedelta

import httpx2
import orjson
import pytest
from standardwebhooks import Webhook
from starlette.responses import Response

from channels import bank, signed_json
from channels.contract import ResultKind
from channels.simulator import SimulatorSettings, faults, serve, store
from channels.simulator.faults import Fault, FaultOperation, Plan
from core import clock, configuration


async def ask(simulator, path: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(simulator.url + path, content=body, headers=headers)


async def test_requests_that_are_not_ours_or_not_now_are_refused_and_the_refusal_is_signed(
    simulator,
):
    settings = configuration.current()
    key, path, body = settings.bank_private_key, "/v1/payments", b'{"number":"1"}'
    now = clock.now()

    def signed(**changes) -> dict[str, str]:
        return signed_json.signed_headers(key, f"POST {path}", body, **changes)

    used = signed()
    cases = [
        ({}, "KEY_UNKNOWN", body),
        (signed(), "SIGNATURE_INVALID", body + b" "),
        (signed(sent_at=now - timedelta(seconds=302)), "TIMESTAMP_OUTSIDE_WINDOW", body),
        (signed(sent_at=now + timedelta(seconds=302)), "TIMESTAMP_OUTSIDE_WINDOW", body),
        (signed_json.signed_headers(key, "POST /v1/payouts", body), "SIGNATURE_INVALID", body),
        (used, "FIELD_MISSING", body),
        (used, "NONCE_REUSED", body),
        (signed(), "FIELD_INVALID", b" " * 70_000),
    ]
    for headers, error, content in cases:
        answer = await ask(simulator, path, content, headers)
        assert answer.json()["error"] == error
        assert answer.status_code == (400 if error.startswith("FIELD") else 401)
        subject = f"{answer.status_code} POST {path}"
        nonce = headers.get(signed_json.NONCE_HEADER)
        assert not signed_json.refusal(
            settings.bank_public_key, subject, answer.headers, answer.content, nonce=nonce
        )


async def test_a_signature_of_one_answer_does_not_fit_another_question(simulator, pay_in):
    instruction = pay_in()
    await bank.invoke(instruction)
    settings = configuration.current()
    path = f"/v1/instructions/{instruction.request_number}"
    headers = signed_json.signed_headers(settings.bank_private_key, f"GET {path}", b"")
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(simulator.url + path, headers=headers)
    key, nonce = settings.bank_public_key, headers[signed_json.NONCE_HEADER]

    def refusal(subject: str, nonce: str) -> str | None:
        return signed_json.refusal(key, subject, answer.headers, answer.content, nonce=nonce)

    assert refusal(f"200 GET {path}", nonce) is None
    assert refusal(f"200 GET {path}", "another-nonce-of-ours") == "SIGNATURE_INVALID"
    assert refusal(f"200 GET {path}x", nonce) == "SIGNATURE_INVALID"
    assert refusal(f"404 GET {path}", nonce) == "SIGNATURE_INVALID"


async def test_the_admin_interface_needs_its_token(simulator):
    async with httpx2.AsyncClient(trust_env=False) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            for path in ("/admin/ledger", "/admin/faults", "/admin/callbacks"):
                answer = await client.get(simulator.url + path, headers=headers)
                assert (answer.status_code, answer.json()) == (404, {"error": "NOT_FOUND"})


async def test_a_script_line_that_makes_no_sense_is_refused(simulator):
    async with httpx2.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {simulator.settings.admin_token}"}
        for line in (
            {},
            {"operation": "PAY_IN"},
            {"operation": "PAY_IN", "fault": "NONE_SUCH"},
            {"operation": "QUERY", "fault": "DECLINE"},
            {"operation": "PAY_IN", "fault": "DECLINE", "probability": 2},
            {"operation": "PAY_IN", "fault": "DECLINE", "colour": "red"},
        ):
            answer = await client.post(simulator.url + "/admin/faults", json=line, headers=headers)
            assert answer.status_code == 400, line


async def test_a_script_line_strikes_as_often_as_it_says_and_only_its_number(simulator, pay_in):
    hit, spared = pay_in(), pay_in()
    await simulator.fault("PAY_IN", "DECLINE", number=hit.request_number, reason="SCRIPTED")
    assert (await bank.invoke(spared)).kind is ResultKind.PENDING
    declined = await bank.invoke(hit)
    assert (declined.kind, declined.reason) == (ResultKind.DECLINED, "SCRIPTED")
    [line] = await simulator.admin("GET", "/admin/faults")
    assert line["count_left"] == 0
    await simulator.admin("DELETE", "/admin/faults")
    assert await simulator.admin("GET", "/admin/faults") == []


def test_the_same_seed_gives_the_same_faults(tmp_path):
    def strikes(name: str, seed: int) -> list[bool]:
        connection = store.connect(tmp_path / name)
        plan = Plan(
            operation=FaultOperation.QUERY,
            fault=Fault.DROP_AFTER_COMMIT,
            count=None,
            probability=0.3,
            seed=seed,
        )
        faults.add(connection, plan)
        drawn = [bool(faults.drawn(connection, plan.operation, "n")) for _ in range(300)]
        connection.close()
        return drawn

    first = strikes("first", 7)
    assert first == strikes("second", 7)
    assert first != strikes("third", 8)
    assert 60 < sum(first) < 120


async def test_many_payments_at_once_keep_the_books_balanced(simulator, receiver, pay_in):
    instructions = [pay_in(index + 1) for index in range(40)]

    async def pay(instruction) -> None:
        asked = await bank.invoke(instruction)
        await asyncio.gather(*(simulator.press(asked.action_url, "pay") for _ in range(3)))

    await asyncio.gather(*(pay(instruction) for instruction in instructions))
    await receiver.wait(40)
    report = await simulator.admin("GET", "/admin/ledger")
    assert report["balanced"]
    assert {line["bookings_count"] for line in report["instructions"]} == {1}
    [client, world] = report["balances"]
    assert client["credits_minor"] == world["debits_minor"] == sum(range(1, 41))
    assert len({event.event_id for event in receiver.events}) == 40


async def test_books_and_callbacks_survive_a_kill(settings, receiver, pay_in):
    settings = replace(settings, time_factor=0.02)
    port = int(settings.public_url.rsplit(":", 1)[1])
    instruction = pay_in()
    process = _spawned(settings, port)
    try:
        asked = await _until_answered(instruction)
        async with httpx2.AsyncClient(trust_env=False) as client:
            receiver.answer = lambda _: Response(status_code=503)
            await client.post(asked.action_url, data={"action": "pay"})
        await receiver.wait(1)
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        receiver.answer = None
        known = len(receiver.events)
        process = _spawned(settings, port)
        resent = await _until_answered(instruction)
        assert resent.kind is ResultKind.SUCCESS
        events = await receiver.wait(known + 1)
        assert len({event.event_id for event in events}) == 1
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.join(10)
    assert process.exitcode == 0 or process.exitcode == -signal.SIGTERM
    connection = store.connect(settings.database_path)
    assert connection.execute("SELECT count(*) FROM posting").fetchone()[0] == 1
    connection.close()


async def test_the_merchant_shows_webhooks_and_believes_only_registered_secrets(simulator):
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    url, body = simulator.url + "/merchant/webhooks", orjson.dumps({"type": "order.updated"})
    now = clock.now()
    good = {
        "webhook-id": "event-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("event-1", now, body.decode()),
    }
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.post(url, content=body, headers=good)).status_code == 204
        await simulator.admin("POST", "/admin/webhook-secret", {"secret": secret})
        assert (await client.post(url, content=body, headers=good)).status_code == 204
        assert (await client.post(url, content=body + b" ", headers=good)).status_code == 401
        assert (await client.post(url, content=body, headers={})).status_code == 401
        shown = (await client.get(url)).json()
    assert [webhook["verified"] for webhook in shown] == [False, False, True, None]
    assert shown[-1]["body"] == {"type": "order.updated"}


@pytest.mark.parametrize("pem", [b"", b"nonsense"])
def test_a_key_that_is_no_ed25519_key_is_a_value_error(pem):
    with pytest.raises(ValueError):
        signed_json.private_key_of(pem)
    with pytest.raises(ValueError):
        signed_json.public_key_of(pem)


def _spawned(settings: SimulatorSettings, port: int):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(settings, "127.0.0.1", port), daemon=True)
    process.start()
    return process


async def _until_answered(instruction):
    for _ in range(200):
        result = await bank.invoke(instruction)
        if result.kind is not ResultKind.NOT_SENT:
            return result
        await asyncio.sleep(0.05)
    raise AssertionError(result)
