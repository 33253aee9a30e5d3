"""Text messages: signed, shown by the simulated phone, and in no log of ours."""

from __future__ import annotations

import logging

import httpx2
import pytest

from channels import sms
from channels.contract import ResultKind
from channels.simulator import phone
from core import clock, configuration


async def test_a_message_reaches_the_phone_newest_first(simulator, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    phone.log_messages()
    for code in ("111222", "333444"):
        result = await sms.send("+8613800000000", f"Your code: {code}")
        assert result.kind is ResultKind.SUCCESS
        assert code not in repr(result)
    await sms.send("someone@example.com", "Hello")
    async with httpx2.AsyncClient(trust_env=False) as client:
        shown = (await client.get(f"{simulator.url}/phone/+8613800000000")).json()
        other = (await client.get(f"{simulator.url}/phone/someone@example.com")).json()
    assert [message["text"] for message in shown] == ["Your code: 333444", "Your code: 111222"]
    assert [message["text"] for message in other] == ["Hello"]
    assert "333444" not in caplog.text
    assert "phone +8613800000000: Your code: 333444" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def quiet_phone():
    """What `log_messages` set for one test does not last."""
    yield
    phone.logger.handlers, phone.logger.propagate = [], True


async def test_a_message_that_is_not_signed_by_us_is_refused(simulator):
    body = b'{"destination":"+8613800000000","text":"hello"}'
    now = str(int(clock.now().timestamp()))
    old = str(int(clock.now().timestamp()) - 301)
    key = configuration.current().sms_key

    def headers(timestamp: str, signature: str) -> dict[str, str]:
        return {
            sms.TIMESTAMP_HEADER: timestamp,
            sms.NONCE_HEADER: "nonce",
            sms.SIGNATURE_HEADER: signature,
        }

    cases = [
        {},
        headers(now, "x"),
        headers(now, sms.signature(b"other", "/sms", now, "nonce", body)),
        headers(now, sms.signature(key, "/other", now, "nonce", body)),
        headers(now, sms.signature(key, "/sms", now, "nonce", body + b" ")),
        headers(old, sms.signature(key, "/sms", old, "nonce", body)),
    ]
    async with httpx2.AsyncClient(trust_env=False) as client:
        for case in cases:
            answer = await client.post(simulator.url + "/sms", content=body, headers=case)
            assert answer.status_code == 401
        good = headers(now, sms.signature(key, "/sms", now, "nonce", body))
        assert (
            await client.post(simulator.url + "/sms", content=body, headers=good)
        ).status_code == 200


async def test_a_provider_that_is_away_is_not_sent(settings):
    assert (await sms.send("+8613800000000", "text")).kind is ResultKind.NOT_SENT


async def test_a_destination_the_provider_refuses_is_declined(simulator):
    assert (await sms.send("", "text")).kind is ResultKind.DECLINED
