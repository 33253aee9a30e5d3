"""Reads for those who look at payments: orders, what hangs on them, and what merchants were told.

Each read is a phase of the one who asks, so that PostgreSQL's policies stand behind every answer.
Many ids are read in one statement; an id that is missing or foreign is left out.
"""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tortoise.expressions import Q

from core.models import OutboxRow
from core.phase import phase, statement
from core.principal import Principal
from core.records import from_row
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

    A customer sees those they pay or are paid by, a merchant its own, an operator all.
    """
    wanted = OrderRow.filter(_party(principal), _condition(conditions), _behind(page, "order_id"))
    async with phase(principal):
        rows = await wanted.order_by(*_sorting(page, "order_id")).limit(page.size + 1)
    return [from_row(Order, row) for row in rows[: page.size]], len(rows) > page.size


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
    wanted = OutboxRow.filter(
        _behind(page, "event_id"), merchant_id=merchant_id, topic__posix_regex=PUBLIC_TOPIC
    )
    async with phase(principal):
        rows = await wanted.order_by(*_sorting(page, "event_id")).limit(page.size + 1)
    return rows[: page.size], len(rows) > page.size


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


def _behind(page: Keyset, key: str) -> Q:
    """The rows that follow the page's place."""
    if page.instant is None or page.key is None:
        return Q()
    side = "lt" if page.newest_first else "gt"
    later: dict[str, Any] = {f"created_at__{side}": page.instant}
    tied: dict[str, Any] = {"created_at": page.instant, f"{key}__{side}": page.key}
    return Q(**later) | Q(**tied)


def _sorting(page: Keyset, key: str) -> tuple[str, str]:
    direction = "-" if page.newest_first else ""
    return f"{direction}created_at", f"{direction}{key}"


def _party(principal: Principal) -> Q:
    """The same as the policy, said in a way that uses the indexes."""
    match principal.kind:
        case "customer":
            return Q(payer_customer_id=principal.id) | Q(payee_customer_id=principal.id)
        case "merchant":
            return Q(merchant_id=principal.id)
        case _:
            return Q()


def _condition(conditions: OrderFilter) -> Q:
    parts: dict[str, Any] = {
        "state__in": conditions.states or None,
        "type__in": conditions.types or None,
        "currency": conditions.currency,
        "merchant_id": conditions.merchant_id,
        "created_at__gte": conditions.created_from,
        "created_at__lt": conditions.created_before,
    }
    return Q(**{name: value for name, value in parts.items() if value is not None})


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
