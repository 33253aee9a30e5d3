"""A late success that could not be confirmed, and a payout's number with another bank account."""

from __future__ import annotations

from dataclasses import replace

import pytest

from channels.contract import Result, ResultKind
from core import configuration as installed
from core.errors import InvalidArgument, OrderParamMismatch, OutcomeUnknown
from core.money import Money
from payments import callbacks
from payments.callbacks import apply_event
from payments.pipeline import accept_operation
from payments.products.payout import Details, check
from payments.settlement import run_settlement
from payments.states import OperationType
from payments.values import Answer
from tests.channels.conftest import Simulator
from tests.payments.conftest import World
from tests.payments.test_channel_payments import number_of, until


async def test_a_large_success_that_nobody_can_confirm_now_stays_to_be_applied(
    world: World, bank: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.install(replace(installed.current(), callback_confirm_over_minor=1))
    answer = await world.top_up(10_000)
    await world.run_jobs()
    await until(world, answer, "REQUIRES_ACTION")
    number = await number_of(world, answer)
    event = {
        "channel_event_id": answer.order.order_id if answer.order else None,
        "channel": "bank",
        "event_key": "event:large",
        "channel_request_number": number,
        "parsed": {
            "result": callbacks._document(
                Result(kind=ResultKind.SUCCESS, amount_minor=10_000, currency="CNY")
            )
        },
    }

    async def lost(*_: object) -> Result:
        return Result(kind=ResultKind.UNKNOWN, reason="READ_TIMEOUT")

    monkeypatch.setattr(callbacks.breaker, "guarded", lost)
    with pytest.raises(OutcomeUnknown):
        await apply_event(event)
    assert answer.order is not None
    assert (await world.order(answer.order.order_id))["state"] == "REQUIRES_ACTION"


async def test_a_payouts_number_with_another_bank_account_is_a_contradiction(world: World) -> None:
    await world.fund(50_000)
    await world.pay(20_000)
    await run_settlement(world.operator, "settle-0001", world.shop_id, "CNY")
    first = await world.pay_out(1_000)
    assert first.order is not None
    number = first.order.merchant_order_no
    again = await pay_out_again(world, number, "6222000011110000")
    assert again.order is not None
    assert again.order.order_id == first.order.order_id
    with pytest.raises(OrderParamMismatch):
        await pay_out_again(world, number, "6222000011119999")


async def pay_out_again(world: World, number: str, account_number: str) -> Answer:
    return await accept_operation(
        world.paying(
            1_000,
            type=OperationType.PAYOUT,
            caller=world.shop,
            product="payout",
            merchant_order_no=number,
            money=Money(1_000, "CNY"),
            unchecked_details=Details(
                account_number=account_number, holder_name="Shop Ltd", bank_code="BANKCNBJ"
            ),
        )
    )


@pytest.mark.parametrize("name", ["Shop\nLtd", "Shop\x00", "Shop\x85"])
async def test_a_holders_name_with_control_characters_never_reaches_a_bank(
    world: World, name: str
) -> None:
    request = world.paying(
        1_000,
        type=OperationType.PAYOUT,
        caller=world.shop,
        product="payout",
        unchecked_details=Details(
            account_number="6222000011110000", holder_name=name, bank_code="BANKCNBJ"
        ),
    )
    with pytest.raises(InvalidArgument):
        check(request)
