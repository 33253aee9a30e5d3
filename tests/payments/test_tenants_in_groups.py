"""Foreign ids sent straight through the group functions, with the application's guards left out."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from core import ids
from core.phase import phase, statement
from core.principal import Principal
from payments import update
from payments.group import Effects, Ending, Known, Member, Selector, commit, read
from payments.opening import entry_of
from payments.product import Event, Movement
from payments.products import account as product
from payments.values import Order
from tests.payments.conftest import World
from wallet import ledger
from wallet.chart import AccountKind, account


async def known_of(world: World, order_id: uuid.UUID, principal: Principal) -> Known:
    return (await read([Selector(principal=principal, order_id=order_id)]))[0]


@pytest.fixture
async def paid(world: World) -> Order:
    """The payer's paid order at the shop."""
    await world.fund(10_000)
    answer = await world.pay(3_000)
    assert answer.order is not None
    return answer.order


@pytest.mark.parametrize("kind", ["customer", "merchant"])
async def test_a_stranger_reads_nothing_of_an_order(world: World, paid: Order, kind: Any) -> None:
    known = await known_of(world, paid.order_id, Principal(kind, ids.new_id()))
    assert (known.order, known.operations, known.merchant) == (None, (), None)
    assert (known.pending_minor, known.available_minor) == (0, 0)


@pytest.mark.parametrize("kind", ["customer", "merchant"])
async def test_a_stranger_changes_no_order(world: World, paid: Order, kind: Any) -> None:
    stolen = update.next_version(replace(paid, description="mine"), paid.created_at)
    member = Member(
        principal=Principal(kind, ids.new_id()),
        order_id=paid.order_id,
        expected_version=paid.version,
        done=Effects(order=stolen),
    )
    assert (await commit([member]))[0].ending is Ending.FORBIDDEN
    assert (await world.order(paid.order_id))["version"] == paid.version


async def test_an_order_of_ones_own_cannot_debit_another_customers_wallet(
    world: World, paid: Order
) -> None:
    await world.fund(5_000, world.payee_id)
    known = await known_of(world, paid.order_id, world.payer)
    theft = ledger.Post(
        account(AccountKind.CUSTOMER_WALLET, world.payee_id, "CNY"),
        account(AccountKind.CUSTOMER_WALLET, world.payer_id, "CNY"),
        5_000,
    )
    entry = ledger.Entry(entry_id=ids.new_id(), kind="THEFT", actions=(theft,))
    for principal in (world.payer, world.shop):
        member = Member(
            principal=principal,
            order_id=paid.order_id,
            expected_version=paid.version,
            done=Effects(order=update.next_version(paid, known.now), entry=entry),
        )
        assert (await commit([member]))[0].ending is Ending.FORBIDDEN
    assert await world.wallet(world.payee_id) == 5_000


async def test_a_merchant_cannot_debit_its_payer_without_a_hold(world: World, paid: Order) -> None:
    known = await known_of(world, paid.order_id, world.shop)
    operation = replace(known.operations[0], operation_id=ids.new_id())
    movement = Movement(order=paid, operation=operation, amount_minor=1_000)
    member = Member(
        principal=world.shop,
        order_id=paid.order_id,
        expected_version=paid.version,
        done=Effects(
            order=update.next_version(paid, known.now),
            entry=entry_of(Event.BOOKED, movement, product),
        ),
    )
    assert (await commit([member]))[0].ending is Ending.FORBIDDEN
    assert await world.wallet() == 7_000


async def test_rows_of_another_order_cannot_ride_along(world: World, paid: Order) -> None:
    other = (await world.pay(1_000)).order
    assert other is not None
    foreign = (await known_of(world, other.order_id, world.payer)).operations
    member = Member(
        principal=world.payer,
        order_id=paid.order_id,
        expected_version=paid.version,
        done=Effects(order=paid, writes_order=False, operations=foreign),
    )
    assert (await commit([member]))[0].ending is Ending.FORBIDDEN


async def test_a_new_order_cannot_take_the_place_of_one_that_exists(
    world: World, paid: Order
) -> None:
    taken = replace(paid, payer_customer_id=world.payee_id, merchant_order_no="another")
    member = Member(
        principal=Principal("customer", world.payee_id),
        order_id=paid.order_id,
        expected_version=None,
        done=Effects(order=taken),
    )
    outcome = (await commit([member]))[0]
    assert outcome.ending in (Ending.FORBIDDEN, Ending.STALE)
    assert (await world.order(paid.order_id))["payer_customer_id"] == world.payer_id


async def test_one_refusal_never_spoils_its_neighbours(world: World, paid: Order) -> None:
    known = await known_of(world, paid.order_id, world.shop)
    good = Member(
        principal=world.shop,
        order_id=paid.order_id,
        expected_version=paid.version,
        done=Effects(order=update.next_version(paid, known.now)),
    )
    bad = replace(good, principal=Principal("merchant", ids.new_id()))
    stale = replace(good, expected_version=paid.version + 7)
    endings = [outcome.ending for outcome in await commit([bad, good, stale])]
    assert endings == [Ending.FORBIDDEN, Ending.DONE, Ending.STALE]


async def test_the_application_cannot_write_orders_or_run_as_poster(
    world: World, paid: Order
) -> None:
    for sql in (
        "UPDATE payment_order SET amount_minor = 1",
        "INSERT INTO operation SELECT * FROM operation",
        "DELETE FROM payment_order",
        "SET ROLE purser_poster",
        "SELECT write_effects('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '[]')",
        "SELECT write_rest('[]', '{}')",
        "SELECT undo_members('{}', '{}', '{}', '{}', '{}')",
        "SELECT post_members('{}', '{}', '{}', '{}', '{}')",
        "SELECT post_entries('{}', '{}', '{}')",
        "SELECT read_followed(NULL, true, '')",
        "SELECT * FROM read_customers(ARRAY[]::uuid[])",
        "SELECT * FROM read_merchants(ARRAY[]::uuid[])",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with phase(world.shop):
                await statement(sql)


async def test_without_a_principal_nobody_sees_a_row(world: World, paid: Order) -> None:
    for table in ("payment_order", "operation", "attempt", "idempotency", "challenge", "decision"):
        assert await statement(f"SELECT 1 FROM {table}") == []
