"""Account pay: money from a customer's wallet, booked by us at once; topped up through a bank.

A small amount needs no proof; above the limit the payer gives the payment password or a code, and
the money is held meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from channels.contract import InstructionKind
from core.errors import InvalidArgument, OperationNotSupported
from core.principal import Principal
from payments.product import Event, Interaction, Movement, Product
from payments.states import OperationType
from payments.values import OpenOrder, Order
from wallet import chart
from wallet.ledger import Action, Hold, Post, PostHold, VoidHold


@dataclass(frozen=True, slots=True)
class Details:
    """Pay from the payer's own wallet."""

    wallet_currency: str | None = field(
        default=None,
        metadata={
            "description": "ISO 4217 code of the wallet to pay from, the order's currency; "
            "the wallet in that currency when absent."
        },
    )


_LOCAL = frozenset({Event.BOOKED, Event.HELD, Event.HOLD_BOOKED, Event.HOLD_RELEASED})

PRODUCT = Product(
    code="account",
    details=Details,
    interactions={
        OperationType.PAY: Interaction.PROOF_OVER_SMALL_AMOUNT,
        OperationType.TRANSFER: Interaction.PROOF_OVER_SMALL_AMOUNT,
        OperationType.TOP_UP: Interaction.REDIRECT,
        OperationType.REFUND: Interaction.NONE,
        OperationType.CLOSE: Interaction.NONE,
    },
    channel_kinds={OperationType.TOP_UP: InstructionKind.PAY_IN},
    events={
        OperationType.PAY: _LOCAL,
        OperationType.TRANSFER: _LOCAL,
        OperationType.TOP_UP: frozenset({Event.BOOKED, Event.SUSPENDED, Event.REOPENED}),
        OperationType.REFUND: frozenset({Event.REFUNDED}),
    },
    reopens_late_money=True,
)


def check(request: OpenOrder) -> dict[str, Any]:
    """The details to store. Refuses a wallet of another currency and a transfer to oneself."""
    details = request.unchecked_details or Details()
    if details.wallet_currency not in (None, request.money.currency):
        raise InvalidArgument(
            "A wallet pays in its own currency.", field=("method", "account", "walletCurrency")
        )
    if request.type is OperationType.TRANSFER:
        if request.payee_customer_id is None:
            raise InvalidArgument("A transfer needs a payee.", field=("payee",))
        if request.caller == Principal("customer", request.payee_customer_id):
            raise InvalidArgument("A transfer goes to somebody else.", field=("payee",))
    return {}


def movements(event: Event, movement: Movement) -> Sequence[Action]:
    """Postings of wallet payments, transfers, top-ups and their refunds."""
    order, amount = movement.order, movement.amount_minor
    match event:
        case Event.BOOKED if order.type is OperationType.TOP_UP:
            return (Post(_clearing(movement), _wallet(order), amount),)
        case Event.BOOKED:
            return tuple(
                Post(_wallet(order), account, part) for account, part in _receivers(movement)
            )
        case Event.HELD:
            return (
                Hold(
                    hold_id=movement.hold_id,
                    debit=_wallet(order),
                    credit=_receivers(movement)[0][0],
                    amount_minor=amount,
                    expires_at=None,
                ),
            )
        case Event.HOLD_BOOKED:
            return (PostHold(hold_id=movement.hold_id, credits=_receivers(movement)),)
        case Event.HOLD_RELEASED:
            return (VoidHold(hold_id=movement.hold_id),)
        case Event.REFUNDED:
            return _refund(movement)
        case Event.SUSPENDED:
            return (Post(_clearing(movement), _suspense(order), amount),)
        case Event.REOPENED:
            return (Post(_suspense(order), _wallet(order), amount),)
        case _:
            raise OperationNotSupported()


def _receivers(movement: Movement) -> tuple[tuple[chart.AccountSpec, int], ...]:
    """Who gets the payer's money: the payee whole, or the merchant net and the fees."""
    order = movement.order
    if order.type is OperationType.TRANSFER:
        assert order.payee_customer_id is not None
        payee = chart.account(
            chart.AccountKind.CUSTOMER_WALLET, order.payee_customer_id, order.currency
        )
        return ((payee, movement.amount_minor),)
    parts = (
        (
            _merchant(order, chart.AccountKind.MERCHANT_PENDING),
            movement.amount_minor - movement.fee_minor,
        ),
        (_merchant(order, chart.AccountKind.FEES), movement.fee_minor),
    )
    return tuple((account, part) for account, part in parts if part > 0)


def _refund(movement: Movement) -> Sequence[Action]:
    """The fee's part from fees; the rest from pending as far as it reaches, then available."""
    order = movement.order
    net = movement.amount_minor - movement.fee_minor
    from_pending = min(net, max(movement.pending_minor, 0))
    parts = (
        (chart.AccountKind.MERCHANT_PENDING, from_pending),
        (chart.AccountKind.MERCHANT_AVAILABLE, net - from_pending),
        (chart.AccountKind.FEES, movement.fee_minor),
    )
    return tuple(
        Post(_merchant(order, kind), _wallet(order), part) for kind, part in parts if part > 0
    )


def _wallet(order: Order) -> chart.AccountSpec:
    assert order.payer_customer_id is not None
    return chart.account(chart.AccountKind.CUSTOMER_WALLET, order.payer_customer_id, order.currency)


def _merchant(order: Order, kind: chart.AccountKind) -> chart.AccountSpec:
    return chart.account(kind, order.merchant_id, order.currency)


def _clearing(movement: Movement) -> chart.AccountSpec:
    assert movement.channel is not None
    return chart.clearing(movement.channel, movement.order.currency)


def _suspense(order: Order) -> chart.AccountSpec:
    return chart.account(chart.AccountKind.SUSPENSE, order.merchant_id, order.currency)
