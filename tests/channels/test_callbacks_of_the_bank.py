"""Callbacks: only the bank's own words are believed, and the bank repeats them until we say so."""

from __future__ import annotations

import asyncio
import base64
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from starlette.responses import Response

from channels import bank, signed_json
from channels.contract import ResultKind
from channels.simulator.callbacks import ACKNOWLEDGEMENT, RETRY_SECONDS
from core import clock, configuration
from core.errors import InvalidArgument, SignatureInvalid

PATH = "POST /callbacks/bank"


async def genuine(simulator, receiver, pay_in):
    """One callback that was accepted: its headers and body."""
    asked = await bank.invoke(pay_in())
    await simulator.press(asked.action_url, "pay")
    await receiver.wait(1)
    return receiver.messages[0]


async def test_every_altered_callback_is_refused_with_one_answer(
    simulator, receiver, pay_in, monkeypatch
):
    headers, body = await genuine(simulator, receiver, pay_in)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    altered = []
    for _ in range(200):
        position, bit = chance.randrange(len(body)), 1 << chance.randrange(8)
        altered.append((headers, _flipped(body, position, bit)))
    for name in (signed_json.SIGNATURE_HEADER, "bank-timestamp", "bank-nonce", "bank-key"):
        for position in range(len(headers[name])):
            value = headers[name]
            other = "0" if value[position] != "0" else "1"
            altered.append(
                ({**headers, name: value[:position] + other + value[position + 1 :]}, body)
            )
        altered.append(({key: value for key, value in headers.items() if key != name}, body))
    altered += [(headers, body + b" "), (headers, body[:-1]), (headers, b""), ({}, body)]
    altered.append((headers, body + b" " * 70_000))
    signature = base64.b64decode(headers[signed_json.SIGNATURE_HEADER])
    for changed in (signature[:-1], signature + b"\0", b"", b"\0" * 64):
        value = base64.b64encode(changed).decode()
        altered.append(({**headers, signed_json.SIGNATURE_HEADER: value}, body))
    messages = set()
    for altered_headers, altered_body in altered:
        with pytest.raises(SignatureInvalid) as refused:
            bank.parse_callback(altered_headers, altered_body)
        messages.add((refused.value.message, str(refused.value.data)))
    assert len(messages) == 1
    assert bank.parse_callback(headers, body).result.kind is ResultKind.SUCCESS

    # The control run: with the guard taken out the same forgeries are believed.
    monkeypatch.setattr(signed_json, "refusal", lambda *_: None)
    forged = body.replace(b"10000", b"90000")
    assert bank.parse_callback({}, forged).result.amount_minor == 900_00


async def test_a_signature_has_one_spelling(simulator, receiver, pay_in):
    """The last letter before the padding carries two bits of the signature and four of nothing."""
    headers, body = await genuine(simulator, receiver, pay_in)
    signature = headers[signed_json.SIGNATURE_HEADER]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spelled = [f"{signature[:85]}{letter}==" for letter in letters if letter != signature[85]]
    same = [each for each in spelled if base64.b64decode(each) == base64.b64decode(signature)]
    assert len(same) == 15
    for value in spelled:
        with pytest.raises(SignatureInvalid):
            bank.parse_callback({**headers, signed_json.SIGNATURE_HEADER: value}, body)


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(-301, False), (-290, True), (290, True), (302, False)]
)
async def test_a_callback_counts_only_near_its_time(
    simulator, receiver, pay_in, monkeypatch, seconds, accepted
):
    headers, body = await genuine(simulator, receiver, pay_in)
    later = clock.now() + timedelta(seconds=seconds)
    monkeypatch.setattr(clock, "now", lambda: later)
    if accepted:
        bank.parse_callback(headers, body)
    else:
        with pytest.raises(SignatureInvalid):
            bank.parse_callback(headers, body)


async def test_a_callback_signed_by_another_key_or_for_another_client_or_path_is_refused(
    simulator, receiver, pay_in
):
    _, body = await genuine(simulator, receiver, pay_in)
    bank_key = simulator.settings.bank_private_key
    ours = configuration.current().bank_private_key
    bank.parse_callback(signed_json.signed_headers(bank_key, PATH, body), body)
    for_another = body.replace(simulator.settings.client.encode(), b"0123456789abcdef")
    assert for_another != body
    for headers, content in (
        (signed_json.signed_headers(ours, PATH, body), body),
        (signed_json.signed_headers(bank_key, "POST /callbacks/other", body), body),
        (signed_json.signed_headers(bank_key, "GET /callbacks/bank", body), body),
        (signed_json.signed_headers(bank_key, "200 " + PATH, body), body),
        (signed_json.signed_headers(bank_key, PATH, for_another), for_another),
    ):
        with pytest.raises(SignatureInvalid):
            bank.parse_callback(headers, content)


async def test_a_signed_callback_that_says_nothing_defined_is_an_invalid_argument(
    simulator, receiver, pay_in
):
    _, body = await genuine(simulator, receiver, pay_in)
    key = simulator.settings.bank_private_key
    for content in (
        b"[]",
        b"{",
        b"{}",
        body.replace(b'"SUCCESS"', b'"MAYBE"'),
        body.replace(b"10000", b"100.00"),
        body.replace(b"10000", b"-10000"),
        body.replace(b"10000", b"true"),
        body.replace(b"10000", b"9223372036854775808"),
        body.replace(b"event_id", b"no_event_id"),
    ):
        assert content != body
        with pytest.raises(InvalidArgument):
            bank.parse_callback(signed_json.signed_headers(key, PATH, content), content)


async def test_the_bank_repeats_until_the_exact_acknowledgement(simulator, receiver, pay_in):
    asked = await bank.invoke(pay_in())
    answers = [
        Response(status_code=500),
        Response(b"ok"),
        Response(ACKNOWLEDGEMENT, 201),
        Response(ACKNOWLEDGEMENT + b"\n"),
        Response(status_code=302, headers={"location": "/callbacks/bank"}),
        Response(ACKNOWLEDGEMENT),
    ]
    receiver.answer = lambda _: answers[len(receiver.events) - 1]
    await simulator.press(asked.action_url, "pay")
    events = await receiver.wait(len(answers))
    assert len({event.event_id for event in events}) == 1
    assert len({event.raw for event in events}) == 1
    nonces = {headers["bank-nonce"] for headers, _ in receiver.messages}
    assert len(nonces) == len(answers), "each try is signed anew"
    [callback] = await _settled(simulator)
    assert callback["tries_count"] == len(answers)
    assert callback["acknowledged_at"]


def test_the_schedule_is_the_known_one_of_twenty_four_hours():
    minutes = [0.25, 0.25, 0.5, 3, 10, 20, 30, 30, 30, 60, 180, 180, 180, 360, 360]
    assert [seconds / 60 for seconds in RETRY_SECONDS] == minutes
    assert sum(RETRY_SECONDS) == 24 * 3600 + 4 * 60


async def test_pending_callbacks_survive_a_restart_of_the_bank(simulator, receiver, pay_in):
    simulator.settings = replace(simulator.settings, time_factor=0.05)
    simulator.stop()
    simulator.start()
    instruction = pay_in()
    asked = await bank.invoke(instruction)
    receiver.answer = lambda _: Response(status_code=503)
    await simulator.press(asked.action_url, "pay")
    await receiver.wait(1)
    simulator.stop()
    assert (await bank.invoke(pay_in())).kind is ResultKind.NOT_SENT
    receiver.answer = None
    simulator.start()
    first, second = (await receiver.wait(2))[:2]
    assert first.event_id == second.event_id
    assert (await bank.query(instruction.request_number)).kind is ResultKind.SUCCESS
    assert (await simulator.booked(instruction.request_number))["bookings_count"] == 1


@pytest.mark.parametrize(
    "address", ["http://", "http://127.0.0.1:x/", "http://[", "http://127.0.0.1:1/"]
)
async def test_an_address_that_cannot_be_called_costs_one_try_per_step(simulator, pay_in, address):
    result = await bank.invoke(replace(pay_in(), notify_url=address))
    if result.kind is ResultKind.DECLINED:
        return
    await simulator.press(result.action_url, "pay")
    await asyncio.sleep(0.5)
    [callback] = await simulator.admin("GET", "/admin/callbacks")
    assert 1 <= callback["tries_count"] <= 6


async def test_duplicate_and_early_callbacks_can_be_ordered(simulator, receiver, pay_in):
    await simulator.fault("PAY_IN", "EARLY_CALLBACK")
    await simulator.fault("CALLBACK", "DUPLICATE")
    came_before = []
    receiver.answer = lambda _: came_before.append(True) or Response(ACKNOWLEDGEMENT)
    asked = await bank.invoke(pay_in())
    assert came_before, "the callback came before the answer"
    assert asked.kind is ResultKind.PENDING
    first, second = await receiver.wait(2)
    assert first.event_id == second.event_id


async def test_forged_stale_and_wrong_callbacks_can_be_ordered_and_heal(
    simulator, receiver, pay_in
):
    await simulator.fault("CALLBACK", "BAD_SIGNATURE")
    asked = await bank.invoke(pay_in())
    await simulator.press(asked.action_url, "pay")
    await receiver.wait(1)
    await simulator.fault("CALLBACK", "STALE_TIMESTAMP")
    asked = await bank.invoke(pay_in())
    await simulator.press(asked.action_url, "pay")
    await receiver.wait(2)
    assert receiver.refusals == ["SIGNATURE_INVALID", "SIGNATURE_INVALID"]
    await simulator.fault("CALLBACK", "WRONG_AMOUNT", amount_minor=-1)
    asked = await bank.invoke(pay_in(100_00))
    await simulator.press(asked.action_url, "pay")
    assert (await receiver.wait(3))[2].result.amount_minor == 99_99


async def test_a_silent_bank_never_calls_back_but_answers_the_query(simulator, receiver, pay_in):
    instruction = pay_in()
    await simulator.fault("PAY_IN", "SILENCE")
    asked = await bank.invoke(instruction)
    await simulator.press(asked.action_url, "pay")
    assert (await bank.query(instruction.request_number)).kind is ResultKind.SUCCESS
    assert await simulator.admin("GET", "/admin/callbacks") == []


async def _settled(simulator):
    """The callbacks, as soon as none is still to be tried."""
    for _ in range(200):
        callbacks = await simulator.admin("GET", "/admin/callbacks")
        if all(callback["next_at"] is None for callback in callbacks):
            return callbacks
    raise AssertionError(callbacks)


def _flipped(body: bytes, position: int, bit: int) -> bytes:
    return body[:position] + bytes([body[position] ^ bit]) + body[position + 1 :]
