"""The bank's adapter against the simulated bank, over real HTTP."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, timedelta

import httpx2
import pytest

from channels import bank, signed_json
from channels.contract import InstructionKind, ResultKind
from core import clock, configuration
from core.errors import InvalidArgument
from core.money import Money


async def test_a_pay_in_asks_the_payer_to_act_and_succeeds_by_callback(simulator, receiver, pay_in):
    instruction = pay_in(123_45)
    asked = await bank.invoke(instruction)
    assert (asked.kind, asked.payer_must_act) == (ResultKind.PENDING, True)
    assert asked.action_url.startswith(simulator.url)
    assert (await simulator.press(asked.action_url, "pay")).status_code == 303

    [event] = await receiver.wait(1)
    assert event.request_number == instruction.request_number
    assert event.type == "PAY_IN.SUCCESS"
    assert event.result.kind is ResultKind.SUCCESS
    assert (event.result.amount_minor, event.result.currency) == (123_45, "CNY")
    assert event.result.channel_trade_no == asked.channel_trade_no
    assert event.result.event_id == event.event_id
    assert event.result.occurred_at.tzinfo is UTC

    queried = await bank.query(instruction.request_number)
    assert queried.kind is ResultKind.SUCCESS
    assert queried.event_id is None
    booked = await simulator.booked(instruction.request_number)
    assert (booked["bookings_count"], booked["booked_minor"]) == (1, 123_45)


async def test_the_cashier_page_shows_the_amount_and_escapes_the_description(simulator, pay_in):
    asked = await bank.invoke(pay_in(123_45))
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = await client.get(asked.action_url)
        assert (await client.get(simulator.url + "/cashier/none")).status_code == 404
    assert "123.45 CNY" in page.text
    assert "Top-up &lt;of&gt; a wallet" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await simulator.press(asked.action_url, "steal")).status_code == 400


@pytest.mark.parametrize(
    ("button", "reason", "retryable"),
    [("cancel", "PAYER_CANCELLED", False), ("decline", "INSUFFICIENT_FUNDS", True)],
)
async def test_a_payer_who_does_not_pay_declines(
    simulator, receiver, pay_in, button, reason, retryable
):
    instruction = pay_in()
    asked = await bank.invoke(instruction)
    await simulator.press(asked.action_url, button)
    [event] = await receiver.wait(1)
    assert event.result.kind is ResultKind.DECLINED
    assert (event.result.reason, event.result.retryable) == (reason, retryable)
    assert (await simulator.press(asked.action_url, "pay")).status_code == 409
    assert (await simulator.booked(instruction.request_number))["bookings_count"] == 0


async def test_an_unpaid_number_closes_and_can_no_longer_be_paid(simulator, pay_in):
    instruction = pay_in()
    asked = await bank.invoke(instruction)
    assert (await bank.close(instruction.request_number)).kind is ResultKind.CLOSED
    assert (await bank.close(instruction.request_number)).kind is ResultKind.CLOSED
    assert (await simulator.press(asked.action_url, "pay")).status_code == 409
    assert (await bank.query(instruction.request_number)).kind is ResultKind.CLOSED
    assert (await simulator.booked(instruction.request_number))["bookings_count"] == 0


async def test_closing_a_paid_number_tells_that_it_is_paid(simulator, receiver, pay_in):
    instruction = pay_in()
    asked = await bank.invoke(instruction)
    await simulator.press(asked.action_url, "pay")
    closed = await bank.close(instruction.request_number)
    assert (closed.kind, closed.amount_minor) == (ResultKind.SUCCESS, 100_00)


async def test_a_session_that_has_expired_is_closed_by_the_bank(simulator, pay_in):
    instruction = replace(pay_in(), expires_at=clock.now() + timedelta(seconds=0.2))
    asked = await bank.invoke(instruction)
    await asyncio.sleep(0.5)
    queried = await bank.query(instruction.request_number)
    assert (queried.kind, queried.reason) == (ResultKind.CLOSED, "EXPIRED")
    assert (await simulator.press(asked.action_url, "pay")).status_code == 409


async def test_a_number_the_bank_does_not_know_is_not_found(simulator):
    assert (await bank.query("never-sent")).kind is ResultKind.NOT_FOUND
    assert (await bank.close("never-sent")).kind is ResultKind.NOT_FOUND
    assert (await bank.query("../sms")).kind is not ResultKind.SUCCESS


async def test_a_resend_under_the_same_number_is_booked_once(simulator, receiver, pay_in):
    instruction = pay_in()
    first, second = await asyncio.gather(bank.invoke(instruction), bank.invoke(instruction))
    assert first.action_url == second.action_url
    await simulator.press(first.action_url, "pay")
    assert (await bank.invoke(instruction)).kind is ResultKind.SUCCESS
    assert (await simulator.booked(instruction.request_number))["bookings_count"] == 1


async def test_the_same_number_with_another_amount_is_unknown_and_books_nothing(simulator, pay_in):
    instruction = pay_in(100_00)
    await bank.invoke(instruction)
    other = await bank.invoke(replace(instruction, amount=Money(1, "CNY")))
    assert (other.kind, other.reason) == (ResultKind.UNKNOWN, "NUMBER_USED_WITH_OTHER_FIELDS")
    assert (await bank.query(instruction.request_number)).amount_minor == 100_00


async def test_a_payout_is_pending_until_its_callback(simulator, receiver, pay_out):
    instruction = pay_out()
    assert "6222" not in repr(instruction)
    sent = await bank.invoke(instruction)
    assert (sent.kind, sent.payer_must_act) == (ResultKind.PENDING, False)
    [event] = await receiver.wait(1)
    assert (event.type, event.result.kind) == ("PAY_OUT.SUCCESS", ResultKind.SUCCESS)
    booked = await simulator.booked(instruction.request_number)
    assert (booked["bookings_count"], booked["booked_minor"]) == (1, -20_00)


@pytest.mark.parametrize(
    ("ending", "reason", "soft"), [("01", "ACCOUNT_CLOSED", False), ("02", "BANK_AWAY", True)]
)
async def test_an_account_that_cannot_be_paid_declines_at_once(
    simulator, pay_out, ending, reason, soft
):
    instruction = pay_out(f"62220000000000{ending}")
    for _ in range(2):
        sent = await bank.invoke(instruction)
        assert (sent.kind, sent.reason, sent.soft) == (ResultKind.DECLINED, reason, soft)
    assert (await simulator.booked(instruction.request_number))["bookings_count"] == 0


async def test_a_soft_refusal_is_considered_again_under_the_same_number(
    simulator, receiver, pay_out
):
    instruction = pay_out()
    await simulator.fault("PAY_OUT", "DECLINE", reason="NO_FUNDS", soft=True)
    assert (await bank.invoke(instruction)).soft
    assert (await bank.invoke(instruction)).kind is ResultKind.PENDING
    [event] = await receiver.wait(1)
    assert event.result.kind is ResultKind.SUCCESS


async def test_a_payout_may_be_refused_later(simulator, receiver, pay_out):
    await bank.invoke(pay_out("6222000000000003"))
    [event] = await receiver.wait(1)
    assert (event.result.kind, event.result.reason) == (ResultKind.DECLINED, "ACCOUNT_UNKNOWN")


async def test_a_payout_may_be_returned_after_it_succeeded(simulator, receiver, pay_out):
    instruction = pay_out("6222000000000004")
    await bank.invoke(instruction)
    paid, returned = await receiver.wait(2)
    assert paid.result.kind is ResultKind.SUCCESS
    assert (returned.result.kind, returned.result.reason) == (ResultKind.DECLINED, "RETURNED")
    assert returned.result.occurred_at > paid.result.occurred_at
    assert InstructionKind.PAY_OUT in bank.CHANNEL.success_may_be_withdrawn
    booked = await simulator.booked(instruction.request_number)
    assert (booked["bookings_count"], booked["returns_count"], booked["booked_minor"]) == (1, 1, 0)


async def test_a_wrong_field_is_declined_and_moves_nothing(simulator, pay_in, pay_out):
    for instruction in (
        replace(pay_in(), amount=Money(100, "XXX")),
        replace(pay_in(), notify_url="ftp://nowhere"),
        replace(pay_in(), description="x" * 501),
        pay_out("account with spaces"),
        replace(pay_out(), destination=None),
    ):
        result = await bank.invoke(instruction)
        assert (result.kind, result.retryable) == (ResultKind.DECLINED, False)
    assert (await simulator.admin("GET", "/admin/ledger"))["instructions"] == []


async def test_the_bank_refuses_a_client_it_does_not_know_before_acting(
    simulator, pay_in, monkeypatch
):
    instruction = pay_in()
    theirs = simulator.settings.bank_private_key
    monkeypatch.setattr(signed_json, "private_key_of", _always(signed_json.private_key_of(theirs)))
    assert (await bank.invoke(instruction)).kind is not ResultKind.SUCCESS
    assert await simulator.booked(instruction.request_number) == {}


async def test_the_statement_holds_every_booking_of_the_day(simulator, receiver, pay_in, pay_out):
    paid, sent = pay_in(30_00), pay_out("6222000000000004", 20_05)
    asked = await bank.invoke(paid)
    await simulator.press(asked.action_url, "pay")
    await bank.invoke(sent)
    await receiver.wait(3)
    path = f"/v1/statements/{clock.now().date()}"
    settings = configuration.current()
    headers = signed_json.signed_headers(settings.bank_private_key, f"GET {path}", b"")
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(simulator.url + path, headers=headers)
    assert not signed_json.refusal(
        settings.bank_public_key,
        f"200 GET {path}",
        answer.headers,
        answer.content,
        nonce=headers[signed_json.NONCE_HEADER],
    )
    lines = bank.parse_statement(answer.content)
    assert [(line.type, line.amount_minor) for line in lines] == [
        ("PAY_IN", 30_00),
        ("PAY_OUT", -20_05),
        ("RETURN", 20_05),
    ]
    assert [line.request_number for line in lines] == [
        paid.request_number,
        sent.request_number,
        sent.request_number,
    ]
    assert lines[0].channel_trade_no == asked.channel_trade_no

    cut = answer.content.rsplit(b"\n", 2)[0]
    unbalanced = re.sub(rb"TOTAL,3", b"TOTAL,4", answer.content)
    too_fine = answer.content.replace(b"30.00", b"30.001")
    for wrong in (b"", b"\xff", cut, unbalanced, too_fine, answer.content[200:]):
        with pytest.raises(InvalidArgument):
            bank.parse_statement(wrong)


def _always(value):
    return lambda *_: value
