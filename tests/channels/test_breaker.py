"""The breaker: a channel that fails is left alone, and found again when it is well."""

from __future__ import annotations

import asyncio

import pytest

from channels import bank, breaker
from channels.contract import Result, ResultKind
from core import clock

GOOD = Result(kind=ResultKind.PENDING)
REFUSED = Result(kind=ResultKind.DECLINED)
LOST = Result(kind=ResultKind.UNKNOWN)


class Elapsed:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000.0

    def __call__(self) -> float:
        return self.now_ms


@pytest.fixture
def elapsed(monkeypatch: pytest.MonkeyPatch) -> Elapsed:
    moved = Elapsed()
    monkeypatch.setattr(clock, "monotonic_ms", moved)
    return moved


async def told(result: Result, operation: str = "invoke") -> Result:
    """One guarded call that ends with `result`."""

    async def call() -> Result:
        return result

    return await breaker.guarded("bank", operation, call)


async def test_half_of_the_calls_lost_opens_it_within_twenty_calls(elapsed):
    calls_count = 0
    while breaker.state("bank", "invoke") == "CLOSED":
        await told(LOST if calls_count % 2 else GOOD)
        calls_count += 1
    assert calls_count <= 20
    assert (await told(GOOD)).kind is ResultKind.NOT_SENT
    assert (await told(GOOD)).reason == "BREAKER_OPEN"


async def test_a_third_of_the_calls_lost_and_any_decline_leave_it_closed(elapsed):
    for number in range(200):
        await told(LOST if number % 3 == 0 else REFUSED)
    assert breaker.state("bank", "invoke") == "CLOSED"


async def test_a_few_losses_alone_do_not_open_it(elapsed):
    for _ in range(4):
        await told(LOST)
    assert breaker.state("bank", "invoke") == "CLOSED"


async def test_old_losses_are_forgotten_after_twenty_calls(elapsed):
    for _ in range(4):
        await told(LOST)
    for _ in range(20):
        await told(GOOD)
    for _ in range(4):
        await told(LOST)
    assert breaker.state("bank", "invoke") == "CLOSED"


async def test_operations_do_not_share_a_breaker_and_an_unsent_query_is_unknown(elapsed):
    for _ in range(5):
        await told(LOST, "query")
    assert breaker.state("bank", "query") == "OPEN"
    assert breaker.state("bank", "invoke") == "CLOSED"
    assert (await told(GOOD, "query")).kind is ResultKind.UNKNOWN
    assert (await told(GOOD)).kind is ResultKind.PENDING


async def test_after_a_pause_two_good_probes_close_it_and_a_bad_one_does_not(elapsed):
    for _ in range(5):
        await told(LOST)
    elapsed.now_ms += breaker.PAUSE_MS
    assert breaker.state("bank", "invoke") == "HALF_OPEN"
    assert (await told(GOOD)).kind is ResultKind.PENDING
    await told(LOST)
    assert breaker.state("bank", "invoke") == "OPEN"
    elapsed.now_ms += breaker.PAUSE_MS
    await told(GOOD)
    assert breaker.state("bank", "invoke") == "HALF_OPEN"
    await told(REFUSED)
    assert breaker.state("bank", "invoke") == "CLOSED"


async def test_one_probe_at_a_time(elapsed):
    for _ in range(5):
        await told(LOST)
    elapsed.now_ms += breaker.PAUSE_MS
    release = asyncio.Event()

    async def slow() -> Result:
        await release.wait()
        return GOOD

    probe = asyncio.create_task(breaker.guarded("bank", "invoke", slow))
    await asyncio.sleep(0)
    assert (await told(GOOD)).reason == "BREAKER_OPEN"
    release.set()
    assert (await probe).kind is ResultKind.PENDING
    assert (await told(GOOD)).kind is ResultKind.PENDING


async def test_a_cancelled_probe_gives_its_place_back(elapsed):
    for _ in range(5):
        await told(LOST)
    elapsed.now_ms += breaker.PAUSE_MS
    probe = asyncio.create_task(breaker.guarded("bank", "invoke", asyncio.Event().wait))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert (await told(GOOD)).kind is ResultKind.PENDING


async def test_an_adapter_that_raises_becomes_an_unknown_outcome(elapsed, caplog):
    async def broken() -> Result:
        raise ZeroDivisionError

    result = await breaker.guarded("bank", "invoke", broken)
    assert (result.kind, result.reason) == (ResultKind.UNKNOWN, "CALL_BROKE")
    assert "broke in invoke" in caplog.text


async def test_it_opens_on_a_bank_that_is_away_and_recovers_with_it(
    simulator, receiver, pay_in, monkeypatch
):
    monkeypatch.setattr(breaker, "PAUSE_MS", 200.0)
    simulator.stop()

    async def send() -> Result:
        instruction = pay_in()
        return await breaker.guarded("bank", "invoke", lambda: bank.invoke(instruction))

    results = [await send() for _ in range(20)]
    assert {result.kind for result in results} == {ResultKind.NOT_SENT}
    assert [result.reason for result in results].count("BREAKER_OPEN") == 15
    simulator.start()
    await asyncio.sleep(0.25)
    assert [(await send()).kind for _ in range(3)] == [ResultKind.PENDING] * 3
    assert breaker.state("bank", "invoke") == "CLOSED"
