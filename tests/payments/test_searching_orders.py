"""Pages of orders: complete, in order, without overlap, and as cheap far behind as in front."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import uuid
from contextlib import nullcontext
from typing import Any

import pytest

from core.phase import phase
from core.principal import Principal
from payments.queries import Keyset, OrderFilter, read_events_page, read_orders_page
from payments.states import OperationType, OrderState

SHOP, OTHER_SHOP, PAYER, PAYEE = (uuid.UUID(int=place) for place in (11, 12, 21, 22))
OPERATOR = Principal("operator", uuid.UUID(int=31))
BEGIN = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
INSERT = """
INSERT INTO payment_order (
    order_id, version, merchant_id, merchant_order_no, type, product, state, currency, amount_minor,
    authorized_minor, capture_pending_minor, captured_minor, releasing_minor, released_minor,
    reversed_minor, refund_pending_minor, refunded_minor, disputed_open_minor, dispute_lost_minor,
    suspense_minor, fee_rate_millionths, fee_minor, fee_refunded_minor, refund_progress,
    settlement_progress, payer_customer_id, payee_customer_id, description, details, effective_at,
    expires_at, created_at, updated_at)
SELECT row.order_id, 1, row.merchant_id, row.order_id, row.type, 'account_pay', row.state,
    row.currency, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'NONE', 'NONE', row.payer,
    row.payee, '', '{}', row.created_at, row.created_at, row.created_at, row.created_at
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[],
            $8::timestamptz[]) AS row (order_id, merchant_id, type, state, currency, payer, payee,
                                       created_at)
"""


class Orders:
    """Orders of every kind, as rows; often several at one instant."""

    def __init__(self, database: Any, seed: int) -> None:
        self.database = database
        self.chance = random.Random(seed)
        self.rows: list[tuple[Any, ...]] = []

    async def add(self, count: int, *, minutes: int = 500, **fixed: Any) -> None:
        rows = [self._row(minutes, fixed) for _ in range(count)]
        await self.database.fetch(INSERT, *(list(column) for column in zip(*rows, strict=True)))
        self.rows += rows

    def _row(self, minutes: int, fixed: dict[str, Any]) -> tuple[Any, ...]:
        made = {
            "merchant_id": self.chance.choice((SHOP, SHOP, OTHER_SHOP)),
            "type": self.chance.choice(("PAY", "PAY", "PAY", "TOP_UP", "TRANSFER")),
            "state": self.chance.choice(("SUCCEEDED",) * 6 + ("FAILED", "CLOSED", "IN_REVIEW")),
            "currency": self.chance.choice(("CNY",) * 5 + ("USD",)),
            "payer": self.chance.choice((PAYER, PAYEE, None)),
            "payee": self.chance.choice((PAYER, PAYEE, None)),
            "created_at": BEGIN + dt.timedelta(minutes=self.chance.randrange(minutes)),
            **fixed,
        }
        return (uuid.UUID(int=self.chance.getrandbits(128)), *made.values())

    def wanted(
        self, principal: Principal, conditions: OrderFilter, newest_first: bool
    ) -> list[Any]:
        """The ids that brute force finds, in order."""
        found = [
            (created_at, order_id)
            for order_id, merchant, kind, state, currency, payer, payee, created_at in self.rows
            if (principal.kind == "operator" or principal.id in (merchant, payer, payee))
            and not (principal.kind == "merchant" and merchant != principal.id)
            and (not conditions.states or state in conditions.states)
            and (not conditions.types or kind in conditions.types)
            and conditions.currency in (None, currency)
            and conditions.merchant_id in (None, merchant)
            and (conditions.created_from is None or created_at >= conditions.created_from)
            and (conditions.created_before is None or created_at < conditions.created_before)
        ]
        return [order_id for _, order_id in sorted(found, reverse=newest_first)]


async def all_pages(
    principal: Principal, conditions: OrderFilter, *, newest_first: bool, size: int
) -> list[uuid.UUID]:
    """The ids of every page, one after another."""
    found: list[uuid.UUID] = []
    place: dict[str, Any] = {}
    has_more = True
    while has_more:
        keyset = Keyset(size=size, newest_first=newest_first, **place)
        orders, has_more = await read_orders_page(principal, conditions, keyset)
        assert len(orders) == size or not has_more
        found += [order.order_id for order in orders]
        if orders:
            place = {"instant": orders[-1].created_at, "key": orders[-1].order_id}
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_the_pages_of_a_search_hold_what_fits_it_once_and_in_order(
    database: Any, seed: int
) -> None:
    orders = Orders(database, seed)
    await orders.add(400)
    chance = random.Random(seed)
    principals = [Principal("merchant", SHOP), Principal("customer", PAYER), OPERATOR]
    for _ in range(25):
        conditions = OrderFilter(
            states=tuple(
                chance.sample((OrderState.SUCCEEDED, OrderState.FAILED), chance.choice((0, 1, 2)))
            ),
            types=tuple(
                chance.sample((OperationType.PAY, OperationType.TOP_UP), chance.choice((0, 0, 1)))
            ),
            currency=chance.choice((None, None, "CNY", "USD")),
            merchant_id=chance.choice((None, None, SHOP, OTHER_SHOP)),
            created_from=chance.choice((None, BEGIN + dt.timedelta(minutes=chance.randrange(400)))),
            created_before=chance.choice(
                (None, BEGIN + dt.timedelta(minutes=chance.randrange(500)))
            ),
        )
        principal, newest_first = chance.choice(principals), chance.random() < 0.5
        found = await all_pages(
            principal, conditions, newest_first=newest_first, size=chance.choice((3, 20, 100))
        )
        assert found == orders.wanted(principal, conditions, newest_first), (principal, conditions)


async def test_the_review_queue_shows_who_waits_longest_first(database: Any) -> None:
    orders = Orders(database, 5)
    await orders.add(100)
    waiting = OrderFilter(states=(OrderState.IN_REVIEW,))
    found = await all_pages(OPERATOR, waiting, newest_first=False, size=4)
    assert found == orders.wanted(OPERATOR, waiting, False)


async def test_pages_that_are_read_while_orders_come_in_miss_none_that_was_there(
    database: Any,
) -> None:
    orders = Orders(database, 6)
    await orders.add(300)
    shop = Principal("merchant", SHOP)
    there = orders.wanted(shop, OrderFilter(), True)
    done = asyncio.Event()

    async def come_in() -> None:
        while not done.is_set():
            await orders.add(3, merchant_id=SHOP)

    coming = asyncio.create_task(come_in())
    found = await all_pages(shop, OrderFilter(), newest_first=True, size=7)
    done.set()
    await coming
    assert len(found) == len(set(found))
    assert [order_id for order_id in found if order_id in set(there)] == there


async def test_a_merchant_that_names_another_finds_nothing(database: Any) -> None:
    orders = Orders(database, 7)
    await orders.add(30)
    page = Keyset(size=5, newest_first=True)
    for conditions in (OrderFilter(merchant_id=OTHER_SHOP), OrderFilter(merchant_id=uuid.uuid4())):
        assert await read_orders_page(Principal("merchant", SHOP), conditions, page) == ([], False)


@pytest.mark.parametrize("analyzed", [False, True], ids=["fresh tables", "analyzed tables"])
async def test_a_page_reads_no_more_orders_than_it_needs_whatever_is_asked(
    database: Any, analyzed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rare things lie at the beginning of time, behind all the others."""
    orders = Orders(database, 8)
    common = {"merchant_id": SHOP, "type": "PAY", "state": "SUCCEEDED", "currency": "CNY"}
    await orders.add(10, minutes=10, **{**common, "state": "FAILED"})
    await orders.add(10, minutes=10, **{**common, "type": "TOP_UP"})
    await orders.add(10, minutes=10, **{**common, "currency": "USD"})
    await orders.add(5_000, **common)
    if analyzed:
        await database.fetch("ANALYZE")
    shop = Principal("merchant", SHOP)
    middle = BEGIN + dt.timedelta(minutes=250)
    searches = (
        OrderFilter(),
        OrderFilter(states=(OrderState.FAILED,)),
        OrderFilter(types=(OperationType.TOP_UP,)),
        OrderFilter(currency="USD"),
        OrderFilter(created_before=middle),
        OrderFilter(created_from=middle),
        OrderFilter(states=(OrderState.SUCCEEDED,), types=(OperationType.PAY,)),
    )
    async with phase(shop) as connection:
        monkeypatch.setattr("payments.queries.phase", lambda _: nullcontext())
        # More than five times: PostgreSQL then makes a plan for all values.
        for _ in range(4):
            for conditions, newest_first, instant in itertools.product(
                searches, (True, False), (None, middle)
            ):
                page = Keyset(size=10, newest_first=newest_first, instant=instant, key=SHOP)
                before = await _rows_read(connection)
                await read_orders_page(shop, conditions, page)
                assert await _rows_read(connection) - before < 100, (conditions, page)


async def test_the_events_of_a_merchant_come_in_pages_as_they_are(database: Any) -> None:
    await database.fetch(
        """INSERT INTO outbox (event_id, topic, resource_kind, resource_id, resource_version,
                               merchant_id, payload, created_at)
        SELECT md5(number::text)::uuid,
               CASE number % 3 WHEN 0 THEN 'operation.x' ELSE 'order.x' END,
               'order', md5('order' || number)::uuid, 1,
               CASE number % 5 WHEN 0 THEN $2::uuid ELSE $1::uuid END,
               '{}', $3::timestamptz + number / 4 * interval '1 second'
        FROM generate_series(1, 200) AS number""",
        SHOP,
        OTHER_SHOP,
        BEGIN,
    )
    wanted = await database.fetch(
        "SELECT event_id FROM outbox WHERE merchant_id = $1 AND topic = 'order.x'"
        " ORDER BY created_at, event_id",
        SHOP,
    )
    for newest_first in (True, False):
        found: list[Any] = []
        place: dict[str, Any] = {}
        has_more = True
        while has_more:
            page = Keyset(size=7, newest_first=newest_first, **place)
            events, has_more = await read_events_page(Principal("merchant", SHOP), SHOP, page)
            found += [event.event_id for event in events]
            place = {"instant": events[-1].created_at, "key": events[-1].event_id}
        expected = [row[0] for row in wanted]
        assert found == (expected[::-1] if newest_first else expected)


async def _rows_read(connection: Any) -> int:
    """Rows of orders that this transaction has read so far."""
    [row] = await connection.execute_query_dict(
        "SELECT idx_tup_fetch + seq_tup_read AS rows_read FROM pg_stat_xact_user_tables"
        " WHERE relname = 'payment_order'"
    )
    return int(row["rows_read"])
