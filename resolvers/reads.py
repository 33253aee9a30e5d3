"""Root fields of Query: who I am, orders, wallets, balances, and what operators look at."""

from __future__ import annotations

from typing import Annotated

import strawberry

from core.errors import InvalidArgument, NotFound
from core.money import exponent
from core.phase import phase
from identity import customers
from identity.permissions import Permission
from payments import queries
from payments.queries import OrderFilter
from payments.states import OrderState
from payments.values import Order as OrderValue
from resolvers import views
from resolvers.context import Info
from resolvers.given import address_of, keyset, merchant_of, order_filter, text
from resolvers.guard import query
from schema.books import LedgerIntegrity, MerchantBalance, Wallet
from schema.connections import After, Before, Connection, First, Last, Page, connection_of, page_of
from schema.cursors import make_cursor
from schema.enums import OrderSorting
from schema.inputs import AddressInput, OrderFilterInput
from schema.node import Node, key_of, parse_node_id
from schema.orders import Order
from schema.parties import Merchant, Payee, Viewer
from schema.scalars import CurrencyCode
from schema.webhooks import WebhookEndpoint, WebhookEvent
from wallet import statements, verify

NODES_MAX = 100

Id = Annotated[strawberry.ID, strawberry.argument(description="Global id of the object.")]
Ids = Annotated[list[strawberry.ID], strawberry.argument(description="Global ids, at most 100.")]
MerchantId = Annotated[
    strawberry.ID | None,
    strawberry.argument(description="For operators: whose; a merchant sees its own."),
]
Currency = Annotated[CurrencyCode, strawberry.argument(description="ISO 4217 code.")]


@query(Permission.PROFILE_READ, "Who is asking.", Viewer | None)
async def viewer(info: Info) -> Viewer | None:
    asker, load = info.context.asker, info.context.load
    customer = await load.customer(asker.customer_id) if asker.customer_id else None
    merchant = await load.merchant(asker.merchant_id) if asker.merchant_id else None
    return views.viewer(asker, customer, merchant)


@query(Permission.PROFILE_READ, "Any object by its id.", Node | None)
async def node(info: Info, id: Id) -> Node | None:
    found = await info.context.load.node(*parse_node_id(id))
    if found is None:
        raise NotFound(field=("id",))
    return found


@query(
    Permission.PROFILE_READ,
    "Objects by their ids, in the same order; null for each that is not there.",
    list[Node | None] | None,
)
async def nodes(info: Info, ids: Ids) -> list[Node | None] | None:
    if len(ids) > NODES_MAX:
        raise InvalidArgument(f"At most {NODES_MAX} ids.", field=("ids",))
    return [await _node_or_none(info, each) for each in ids]


@query(Permission.ORDER_READ, "An order by its id.", Order | None)
async def order(info: Info, id: Id) -> Order | None:
    found = await info.context.load.order(key_of("Order", id, "id"))
    if found is None:
        raise NotFound(field=("id",))
    return found


@query(Permission.ORDER_READ, "An order by its merchant's number, for the merchant.", Order | None)
async def order_by_merchant_number(
    info: Info,
    merchant_order_no: Annotated[
        str, strawberry.argument(description="The merchant's order number.")
    ],
    merchant_id: MerchantId = None,
) -> Order | None:
    asker = info.context.asker
    merchant_key = merchant_of(info.context.asker, merchant_id)
    found = await queries.find_order(
        asker.principal, merchant_key, text(merchant_order_no, "merchantOrderNo")
    )
    if found is None:
        raise NotFound(field=("merchantOrderNo",))
    return views.order(found, asker)


@query(
    Permission.ORDER_READ,
    "Orders that the caller takes part in; an operator sees all. Newest first by default.",
    Connection[Order] | None,
)
async def orders(
    info: Info,
    first: First = None,
    after: After = None,
    last: Last = None,
    before: Before = None,
    filter: Annotated[
        OrderFilterInput | None, strawberry.argument(description="Which orders.")
    ] = None,
    order_by: Annotated[
        OrderSorting, strawberry.argument(description="In which order.")
    ] = OrderSorting.CREATED_AT_DESC,
) -> Connection[Order] | None:
    return await _orders(
        info,
        "orders",
        page_of(first, after, last, before),
        order_filter(filter),
        newest_first=order_by is OrderSorting.CREATED_AT_DESC,
    )


@query(
    Permission.DECISION_READ,
    "Orders that wait for an analyst, the longest waiting first.",
    Connection[Order] | None,
)
async def review_queue(
    info: Info,
    first: First = None,
    after: After = None,
    last: Last = None,
    before: Before = None,
) -> Connection[Order] | None:
    page = page_of(first, after, last, before)
    waiting = OrderFilter(states=(OrderState.IN_REVIEW,))
    return await _orders(info, "review", page, waiting, newest_first=False)


@query(Permission.WALLET_READ, "The caller's wallet in one currency.", Wallet | None)
async def wallet(info: Info, currency: Currency) -> Wallet | None:
    exponent(currency)
    return await info.context.load.wallet(info.context.customer_id, currency)


@query(
    Permission.WALLET_READ,
    "The caller's wallets, one for each currency used.",
    list[Wallet] | None,
)
async def wallets(info: Info) -> list[Wallet] | None:
    return list(await info.context.load.wallets(info.context.customer_id) or ())


@query(
    Permission.MERCHANT_BALANCE_READ,
    "A merchant's money in one currency; null where it never had any.",
    MerchantBalance | None,
)
async def merchant_balance(
    info: Info, currency: Currency, merchant_id: MerchantId = None
) -> MerchantBalance | None:
    exponent(currency)
    merchant_key = merchant_of(info.context.asker, merchant_id)
    async with phase(info.context.principal):
        found = await statements.merchant_balances(merchant_key)
    return next(
        (views.merchant_balance(merchant_key, each) for each in found if each.currency == currency),
        None,
    )


@query(Permission.MERCHANT_READ, "A merchant by its id.", Merchant | None)
async def merchant(info: Info, id: Id) -> Merchant | None:
    found = await info.context.load.merchant(key_of("Merchant", id, "id"))
    if found is None:
        raise NotFound(field=("id",))
    return found


@query(
    Permission.TRANSFER,
    "Who would be paid at an address; null if nobody. At most 30 times an hour.",
    Payee | None,
)
async def payee(
    info: Info,
    address: Annotated[
        AddressInput, strawberry.argument(description="Phone number or e-mail address.")
    ],
) -> Payee | None:
    found = await customers.find_payee(info.context.customer_id, address_of(address))
    return views.payee(found.customer_id, found.display_name_masked) if found else None


@query(Permission.WEBHOOK_READ, "Where a merchant wants its events.", WebhookEndpoint | None)
async def webhook_endpoint(info: Info, merchant_id: MerchantId = None) -> WebhookEndpoint | None:
    return await info.context.load.webhook_endpoint(merchant_of(info.context.asker, merchant_id))


@query(
    Permission.WEBHOOK_READ,
    "What a merchant was told, or would have been, newest first.",
    Connection[WebhookEvent] | None,
)
async def webhook_events(
    info: Info,
    merchant_id: MerchantId = None,
    first: First = None,
    after: After = None,
    last: Last = None,
    before: Before = None,
) -> Connection[WebhookEvent] | None:
    merchant_key = merchant_of(info.context.asker, merchant_id)
    page = page_of(first, after, last, before)
    name = f"webhook-events:{merchant_key}"
    rows, has_more = await queries.read_events_page(
        info.context.principal, merchant_key, keyset(name, page, newest_first=True)
    )
    return connection_of(
        rows[::-1] if page.backwards else rows,
        page,
        has_more=has_more,
        cursor=lambda row: make_cursor(name, row.created_at.isoformat(), str(row.event_id)),
        view=views.webhook_event,
    )


@query(
    Permission.LEDGER_READ,
    "A full check of the books: balances, holds, entries and the sealed chain. Answers BUSY where "
    "it takes longer than a request may: `purser ledger verify` has no such limit.",
    LedgerIntegrity | None,
)
async def ledger_integrity(info: Info) -> LedgerIntegrity | None:
    return views.ledger_integrity(await verify.verify(info.context.principal))


async def _node_or_none(info: Info, unchecked_id: str) -> Node | None:
    try:
        return await info.context.load.node(*parse_node_id(unchecked_id))
    except NotFound:
        return None


async def _orders(
    info: Info, name: str, page: Page, conditions: OrderFilter, *, newest_first: bool
) -> Connection[Order]:
    asker = info.context.asker
    place = f"{name}:{asker.principal}:{newest_first}"
    values, has_more = await queries.read_orders_page(
        asker.principal, conditions, keyset(place, page, newest_first=newest_first)
    )

    def cursor(value: OrderValue) -> str:
        return make_cursor(place, value.created_at.isoformat(), str(value.order_id))

    return connection_of(
        values[::-1] if page.backwards else values,
        page,
        has_more=has_more,
        cursor=cursor,
        view=lambda value: views.order(value, asker),
    )
