"""Payout: a merchant's available balance to a bank account.

The money is held when the order is made, moves to "in flight" when it is sent, and leaves the books
when the bank says paid. A refused payout keeps it in flight until it is cancelled.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from channels.contract import Destination, InstructionKind
from core import secretbox
from core.errors import InvalidArgument, OperationNotSupported
from payments.product import Event, Interaction, Movement, Product
from payments.states import OperationType
from payments.values import OpenOrder, Order
from wallet import chart
from wallet.ledger import Action, Hold, Post, PostHold, VoidHold

SEAL_PURPOSE = "payout-destination"
ACCOUNT_NUMBER_MAX = 34
TEXT_MAX = 70


@dataclass(frozen=True, slots=True)
class Details:
    """The bank account that is paid."""

    account_number: str = field(
        repr=False,
        metadata={"description": "Number of the bank account, 5 to 34 digits or letters."},
    )
    holder_name: str = field(
        repr=False, metadata={"description": "Name of the account's holder, at most 70 characters."}
    )
    bank_code: str = field(
        metadata={"description": "The bank's code or BIC, at most 11 letters or digits."}
    )


PRODUCT = Product(
    code="payout",
    details=Details,
    interactions={OperationType.PAYOUT: Interaction.NONE, OperationType.CLOSE: Interaction.NONE},
    channel_kinds={OperationType.PAYOUT: InstructionKind.PAY_OUT},
    events={
        OperationType.PAYOUT: frozenset(
            {
                Event.HELD,
                Event.HOLD_RELEASED,
                Event.SUBMITTED,
                Event.PAID,
                Event.CANCELLED,
                Event.RETURNED,
            }
        )
    },
)


def check(request: OpenOrder) -> dict[str, Any]:
    """The destination, sealed; only the last four characters of the number stay readable."""
    details = request.unchecked_details
    if not isinstance(details, Details):
        raise InvalidArgument("A payout needs a bank account.", field=("destination",))
    number = details.account_number.replace(" ", "")
    if not (5 <= len(number) <= ACCOUNT_NUMBER_MAX and number.isascii() and number.isalnum()):
        raise InvalidArgument(
            "This is not an account number.", field=("destination", "accountNumber")
        )
    if any(unicodedata.category(each) == "Cc" for each in details.holder_name):
        raise InvalidArgument(
            "Control characters are not allowed.", field=("destination", "holderName")
        )
    if not 0 < len(details.holder_name.strip()) <= TEXT_MAX:
        raise InvalidArgument("The holder's name is missing.", field=("destination", "holderName"))
    code = details.bank_code
    if not (0 < len(code) <= 11 and code.isascii() and code.isalnum()):
        raise InvalidArgument("This is not a bank code.", field=("destination", "bankCode"))
    sealed = secretbox.seal(f"{number}\n{details.holder_name.strip()}".encode(), SEAL_PURPOSE)
    return {
        "destination_sealed": base64.b64encode(sealed).decode(),
        "account_number_last4": number[-4:],
        "bank_code": code,
    }


def destination(details: Mapping[str, Any]) -> Destination:
    """What the channel is told, opened only for the call."""
    sealed = base64.b64decode(details["destination_sealed"])
    number, holder = secretbox.open_sealed(sealed, SEAL_PURPOSE).decode().split("\n", 1)
    return Destination(account_number=number, holder_name=holder, bank_code=details["bank_code"])


def movements(event: Event, movement: Movement) -> Sequence[Action]:
    """Available → in flight (held, then posted) → clearing; back again when it fails or returns."""
    order, amount = movement.order, movement.amount_minor
    source = _merchant(order, chart.AccountKind.MERCHANT_AVAILABLE)
    in_flight = _merchant(order, chart.AccountKind.PAYOUTS_IN_FLIGHT)
    match event:
        case Event.HELD:
            return (
                Hold(
                    hold_id=movement.hold_id,
                    debit=source,
                    credit=in_flight,
                    amount_minor=amount,
                    expires_at=None,
                ),
            )
        case Event.HOLD_RELEASED:
            return (VoidHold(hold_id=movement.hold_id),)
        case Event.SUBMITTED:
            return (PostHold(hold_id=movement.hold_id, credits=((in_flight, amount),)),)
        case Event.PAID:
            return (Post(in_flight, _clearing(movement), amount),)
        case Event.CANCELLED:
            return (Post(in_flight, source, amount),)
        case Event.RETURNED:
            return (Post(_clearing(movement), source, amount),)
        case _:
            raise OperationNotSupported()


def _merchant(order: Order, kind: chart.AccountKind) -> chart.AccountSpec:
    return chart.account(kind, order.merchant_id, order.currency)


def _clearing(movement: Movement) -> chart.AccountSpec:
    assert movement.channel is not None
    return chart.clearing(movement.channel, movement.order.currency)
