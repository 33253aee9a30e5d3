"""Reads for those who look at payments: orders, what hangs on them, and what merchants were told.

Each read is a phase of the one who asks, so that PostgreSQL's policies stand behind every answer.
Many ids are read in one statement; an id that is missing or foreign is left out.
"""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from core.models import OutboxRow
from core.phase import phase, statement
from core.principal import Principal
from core.records import from_json, from_row
from payments.models import (
    AttemptRow,
    ChallengeRow,
    OperationRow,
    OrderRow,
    WebhookDeliveryRow,
    WebhookEndpointRow,
)
from payments.states import OperationType, OrderState
from payments.values import Attempt, Challenge, Operation, Order
from payments.webhooks import PUBLIC_TOPICS
from risk_model.models import Decision

CHILDREN_MAX = 100
PUBLIC_TOPIC = "^(" + "|".join(map(re.escape, PUBLIC_TOPICS)) + ")"

FIRST_WINDOW = timedelta(minutes=1)
WINDOW_GROWTH = 8
LAST_WINDOW = timedelta(days=36_500)
NEWEST = "SELECT purser_now()"
OLDEST = "SELECT coalesce((SELECT created_at FROM payment_order LIMIT 1), purser_now())"
"""About where the orders begin; the first window reaches from there to the beginning of time."""

KIND_WANTED = """($2::text[] IS NULL OR {kind}.state = ANY ($2))
    AND ($3::text[] IS NULL OR {kind}.type = ANY ($3))
    AND ($4::text IS NULL OR {kind}.currency = $4)"""
# One bound on each side: of two, an index would begin at whichever stands first. And bare values:
# an expression might betray rows that the policy hides, so no index is asked for it.
NEWEST_FIRST = """(o.created_at, o.order_id) < ($5::timestamptz, $6::uuid) AND o.created_at >= $7
    AND ($8::uuid IS NULL OR o.merchant_id = $8)"""
OLDEST_FIRST = """(o.created_at, o.order_id) > ($5::timestamptz, $6::uuid) AND o.created_at < $7
    AND ($8::uuid IS NULL OR o.merchant_id = $8)"""
NO_ORDER = uuid.UUID(int=0)
"""Before all orders of its instant."""
BEGINNING, END = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
FIRST = "o.created_at {direction}, o.order_id {direction} LIMIT {rows_max}"
# One index serves every search of a merchant's orders. Its first columns are what people ask for:
# the kinds of orders that the merchant has are read from it by one step each, and then, of each
# kind that is wanted, the first rows.
ORDERS_OF_MERCHANT = """
WITH RECURSIVE kind AS (
    (SELECT o.currency, o.type, o.state FROM payment_order o WHERE o.merchant_id = $1
     ORDER BY o.currency, o.type, o.state LIMIT 1)
    UNION ALL
    SELECT next.* FROM kind CROSS JOIN LATERAL (
        SELECT o.currency, o.type, o.state FROM payment_order o
        WHERE o.merchant_id = $1
          AND (o.currency, o.type, o.state) > (kind.currency, kind.type, kind.state)
        ORDER BY o.currency, o.type, o.state LIMIT 1) AS next
)
SELECT o.* FROM kind CROSS JOIN LATERAL (
    SELECT o.* FROM payment_order o
    WHERE o.merchant_id = $1 AND o.currency = kind.currency AND o.type = kind.type
      AND o.state = kind.state AND {behind}
    ORDER BY {first}) AS o
WHERE {kind_wanted}
ORDER BY {first}
"""
ORDERS_OF_CUSTOMER = """
SELECT o.* FROM (
    (SELECT o.* FROM payment_order o
     WHERE o.payer_customer_id = $1 AND {wanted} AND {behind} ORDER BY {first})
    UNION ALL
    (SELECT o.* FROM payment_order o
     WHERE o.payee_customer_id = $1 AND o.payer_customer_id IS DISTINCT FROM $1
       AND {wanted} AND {behind} ORDER BY {first})) AS o
ORDER BY {first}
"""
ORDERS_OF_ALL = """
SELECT o.* FROM payment_order o
WHERE $1::uuid IS NULL AND {wanted} AND {behind} ORDER BY {first}
"""
EVENTS_OF_MERCHANT = """
SELECT event_id FROM outbox
WHERE merchant_id = $1 AND topic ~ $2 AND (created_at, event_id) {side} ($3, $4)
ORDER BY created_at {direction}, event_id {direction} LIMIT {rows_max}
"""
ORDERS_IN_REVIEW = """
SELECT o.* FROM payment_order o
WHERE $1::uuid IS NULL AND o.state = 'IN_REVIEW' AND {wanted} AND {behind} ORDER BY {first}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    """Conditions on orders; all that are given must hold."""

    states: tuple[OrderState, ...] = ()
    types: tuple[OperationType, ...] = ()
    currency: str | None = None
    merchant_id: uuid.UUID | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """A page: at most `size` rows behind `(instant, key)`, newest first or oldest first."""

    size: int
    newest_first: bool
    instant: datetime | None = None
    key: uuid.UUID | None = None


async def read_orders(
    principal: Principal, order_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, Order]:
    """Orders by id."""
    async with phase(principal):
        rows = await OrderRow.filter(order_id__in=list(order_ids))
    return {row.order_id: from_row(Order, row) for row in rows}


async def find_order(
    principal: Principal, merchant_id: uuid.UUID, merchant_order_no: str
) -> Order | None:
    """An order by its merchant's number."""
    async with phase(principal):
        row = await OrderRow.get_or_none(
            merchant_id=merchant_id, merchant_order_no=merchant_order_no
        )
    return None if row is None else from_row(Order, row)


async def read_orders_page(
    principal: Principal, conditions: OrderFilter, page: Keyset
) -> tuple[list[Order], bool]:
    """A page of the orders that `principal` takes part in, and whether more follow.

    A customer sees those they pay or are paid by, a merchant its own, an operator all. For a
    merchant's orders it costs the same wherever the page lies, however many there are and whatever
    the conditions. Who looks for what is rare elsewhere, among his own payments or through all
    merchants, reads until it is found.
    """
    merchant_id = conditions.merchant_id
    if principal.kind == "merchant":
        if merchant_id not in (None, principal.id):
            return [], False
        merchant_id = principal.id
    async with phase(principal):
        if principal.kind == "customer":
            rows = await _orders(ORDERS_OF_CUSTOMER, conditions, page, of=principal.id)
        elif merchant_id is not None:
            rows = await _orders(ORDERS_OF_MERCHANT, conditions, page, of=merchant_id)
        else:
            rows = await _orders_of_all(conditions, page)
    return [from_json(Order, row) for row in rows[: page.size]], len(rows) > page.size


async def read_operations(
    principal: Principal, order_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Operation]]:
    """The operations of each order, oldest first; of more than 100 the newest."""
    rows = await _children(principal, OperationRow, "operation", "order_id", order_ids)
    return _grouped("order_id", Operation, rows)


async def read_attempts(
    principal: Principal, operation_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Attempt]]:
    """The attempts of each operation, oldest first."""
    rows = await _children(principal, AttemptRow, "attempt", "operation_id", operation_ids)
    return _grouped("operation_id", Attempt, rows)


async def read_challenges(
    principal: Principal, order_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Challenge]]:
    """The challenges of each order, oldest first."""
    rows = await _children(principal, ChallengeRow, "challenge", "order_id", order_ids)
    return _grouped("order_id", Challenge, rows)


async def read_decisions(
    principal: Principal, order_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Decision]]:
    """The risk decisions of each order, oldest first."""
    async with phase(principal):
        rows = await Decision.filter(order_id__in=list(order_ids)).order_by(
            "decided_at", "decision_id"
        )
    found: dict[uuid.UUID, list[Decision]] = defaultdict(list)
    for row in rows:
        found[row.order_id].append(row)
    return found


async def read_endpoint(principal: Principal, merchant_id: uuid.UUID) -> WebhookEndpointRow | None:
    """Where a merchant wants its events; the caller shows nothing of the sealed secrets."""
    async with phase(principal):
        return await WebhookEndpointRow.get_or_none(merchant_id=merchant_id)


async def read_event(principal: Principal, event_id: uuid.UUID) -> OutboxRow | None:
    """One event that a merchant was told of, or would have been."""
    async with phase(principal):
        return await OutboxRow.get_or_none(event_id=event_id, topic__posix_regex=PUBLIC_TOPIC)


async def read_events_page(
    principal: Principal, merchant_id: uuid.UUID, page: Keyset
) -> tuple[list[OutboxRow], bool]:
    """A page of a merchant's events, and whether more follow."""
    instant, key = page.instant, page.key
    if instant is None or key is None:
        instant, key = (END if page.newest_first else BEGINNING), NO_ORDER
    async with phase(principal):
        found = await statement(
            EVENTS_OF_MERCHANT.format(
                side="<" if page.newest_first else ">",
                direction="DESC" if page.newest_first else "ASC",
                rows_max=page.size + 1,
            ),
            merchant_id,
            PUBLIC_TOPIC,
            instant,
            key,
        )
        rows = await OutboxRow.filter(event_id__in=[row[0] for row in found[: page.size]])
    places = {row[0]: place for place, row in enumerate(found)}
    return sorted(rows, key=lambda row: places[row.event_id]), len(found) > page.size


async def read_deliveries(
    principal: Principal, event_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[WebhookDeliveryRow]]:
    """The tries to deliver each event, oldest first, at most 100."""
    async with phase(principal):
        rows = await WebhookDeliveryRow.filter(event_id__in=list(event_ids)).order_by(
            "delivered_at", "try_number"
        )
    found: dict[uuid.UUID, list[WebhookDeliveryRow]] = defaultdict(list)
    for row in rows:
        if len(found[row.event_id]) < CHILDREN_MAX:
            found[row.event_id].append(row)
    return found


async def _orders(
    orders: str,
    conditions: OrderFilter,
    page: Keyset,
    *,
    of: uuid.UUID | None = None,
    rows_max: int | None = None,
) -> list[Any]:
    """Rows behind the page's place; one more than it holds tells that others follow."""
    since, until = conditions.created_from or BEGINNING, conditions.created_before or END
    edge, far = (until, since) if page.newest_first else (since, until)
    places = [(edge, NO_ORDER)]
    if page.instant is not None and page.key is not None:
        places.append((page.instant, page.key))
    instant, key = min(places) if page.newest_first else max(places)
    return await statement(
        orders.format(
            wanted=KIND_WANTED.format(kind="o"),
            kind_wanted=KIND_WANTED.format(kind="kind"),
            behind=NEWEST_FIRST if page.newest_first else OLDEST_FIRST,
            first=FIRST.format(
                direction="DESC" if page.newest_first else "ASC",
                rows_max=rows_max or page.size + 1,
            ),
        ),
        of,
        list(conditions.states) or None,
        list(conditions.types) or None,
        conditions.currency,
        instant,
        key,
        far,
        conditions.merchant_id,
    )


async def _orders_of_all(conditions: OrderFilter, page: Keyset) -> list[Any]:
    """The orders of all merchants, in windows of time that grow until the page is full.

    In each of them the database looks at the blocks of that time alone: it keeps a summary of a few
    bytes for many rows, where an index of all orders by time would cost each payment an insertion.
    """
    if conditions.states == (OrderState.IN_REVIEW,):
        return await _orders(ORDERS_IN_REVIEW, conditions, page)
    edge = page.instant or (await statement(NEWEST if page.newest_first else OLDEST))[0][0]
    span = FIRST_WINDOW
    rows: list[Any] = []
    near: datetime | None = None
    while len(rows) <= page.size:
        far = None if span > LAST_WINDOW else edge - span if page.newest_first else edge + span
        window = (far, near) if page.newest_first else (near, far)
        rows += await _orders(
            ORDERS_OF_ALL,
            _within(conditions, *window),
            page,
            rows_max=page.size + 1 - len(rows),
        )
        limit = conditions.created_from if page.newest_first else conditions.created_before
        if far is None or (limit is not None and (far <= limit) == page.newest_first):
            break
        near, span = far, span * WINDOW_GROWTH
    return rows


def _within(conditions: OrderFilter, since: datetime | None, until: datetime | None) -> OrderFilter:
    """The conditions, in a part of their time."""
    sinces = [each for each in (conditions.created_from, since) if each is not None]
    untils = [each for each in (conditions.created_before, until) if each is not None]
    return replace(
        conditions,
        created_from=max(sinces, default=None),
        created_before=min(untils, default=None),
    )


async def _children(
    principal: Principal,
    model: type[OperationRow | AttemptRow | ChallengeRow],
    table: str,
    parent: str,
    parent_ids: Iterable[uuid.UUID],
) -> Sequence[Any]:
    """The newest 100 children of each parent, oldest first."""
    key = f"{table}_id"
    async with phase(principal):
        newest = await statement(
            f"""SELECT child.{key} FROM unnest($1::uuid[]) AS parent (id)
            CROSS JOIN LATERAL (
                SELECT {key} FROM {table} WHERE {parent} = parent.id
                ORDER BY created_at DESC, {key} DESC LIMIT {CHILDREN_MAX}) AS child""",  # noqa: S608
            list(parent_ids),
        )
        found = await model.filter(**{f"{key}__in": [row[0] for row in newest]})
    return sorted(found, key=lambda row: (row.created_at, getattr(row, key)))


def _grouped(parent: str, value: type[Any], rows: Sequence[Any]) -> dict[uuid.UUID, list[Any]]:
    groups: dict[uuid.UUID, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, parent)].append(from_row(value, row))
    return groups
