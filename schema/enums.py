"""Enums of the API. Those that the domain already has are shown as they are, each value described.

A value that the domain gains without a description here stops the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

import strawberry

from core.errors import PurserError, error_classes
from payments.states import (
    ChallengeState,
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
    RefundProgress,
    SettlementProgress,
)

E = TypeVar("E", bound=type[Enum])


def described(enum: E, description: str, values: Mapping[str, str]) -> E:
    """Show `enum` in the schema; raises `RuntimeError` for a value without a description."""
    strawberry.enum(enum, description=description)
    for value in enum.__strawberry_definition__.values:  # type: ignore[attr-defined]
        if value.name not in values:
            raise RuntimeError(f"{enum.__name__}.{value.name} has no description")
        value.description = values[value.name]
    return enum


described(
    OperationType,
    "One step on an order.",
    {
        "PAY": "Take money from a payer for a merchant.",
        "TOP_UP": "Bring money from a bank into a wallet.",
        "TRANSFER": "Move money from one wallet to another.",
        "PAYOUT": "Send a merchant's money to a bank account.",
        "REFUND": "Give back what was paid, whole or in part.",
        "CLOSE": "End an order that is not paid.",
    },
)
described(
    OrderState,
    "Where an order stands.",
    {
        "CREATED": "Accepted; nothing has been sent yet.",
        "REQUIRES_ACTION": "Waits for the payer: a proof, or a page to visit (`actionUrl`).",
        "IN_REVIEW": "Waits for a risk analyst; nothing has been sent.",
        "PROCESSING": "On its way through a channel.",
        "SUCCEEDED": "The money has moved.",
        "FAILED": "Refused; `failureReason` says why. No money is kept.",
        "CLOSING": "Being ended; the channel's last word is awaited.",
        "CLOSED": "Ended without payment.",
        "LATE_PAID": "Paid after it had ended; the money goes back or into the wallet.",
        "LATE_REFUNDED": "Paid after it had ended, and given back.",
        "CONFLICTED": "The channel reported another amount or currency; an operator decides.",
    },
)
described(
    OperationState,
    "Where an operation stands.",
    {
        "CREATED": "Accepted; nothing has been sent yet.",
        "SUBMITTED": "Sent to a channel; no answer yet.",
        "PENDING": "The channel accepted it and will answer later.",
        "UNKNOWN": "The channel's answer was lost and is asked for. Money may have moved.",
        "SUCCEEDED": "Done.",
        "FAILED": "Not done; `reason` says why.",
    },
)
described(
    RefundProgress,
    "How much of what was captured has gone back.",
    {
        "NONE": "Nothing.",
        "PENDING": "A refund is on its way.",
        "PARTIAL": "A part.",
        "FULL": "All of it.",
    },
)
described(
    SettlementProgress,
    "Whether an order's money has been settled to its merchant.",
    {
        "NONE": "It has no money to settle.",
        "ELIGIBLE": "It counts for the next settlement.",
        "SETTLED": "It was settled.",
    },
)
described(
    PayoutProgress,
    "Where the money of a payout is.",
    {
        "CREATED": "Held on the merchant's balance.",
        "HELD": "Held, waiting for a review.",
        "RESERVED": "Cleared for sending.",
        "SUBMITTED": "Sent to the bank; no answer yet.",
        "IN_TRANSIT": "The bank accepted it.",
        "PAID": "The bank paid it.",
        "RETURNED": "The bank paid it and took it back; it is on the balance again.",
        "FAILED": "The bank refused it; the money is still held until it is cancelled.",
        "CANCELLED": "Cancelled; the money is on the balance again.",
    },
)
described(
    ChallengeState,
    "Where a challenge stands.",
    {
        "PENDING": "Waits for the payer's proof.",
        "PASSED": "The proof was right.",
        "FAILED": "Three proofs were wrong; the order has ended.",
    },
)


@strawberry.enum(description="What kind of caller somebody is.")
class CallerKind(Enum):
    CUSTOMER = strawberry.enum_value("customer", description="A person with a wallet.")
    MERCHANT = strawberry.enum_value("merchant", description="A merchant's server or tool.")
    OPERATOR = strawberry.enum_value("operator", description="One who runs this platform.")


@strawberry.enum(description="Order of a list of orders.")
class OrderSorting(Enum):
    CREATED_AT_DESC = strawberry.enum_value("desc", description="Newest first.")
    CREATED_AT_ASC = strawberry.enum_value("asc", description="Oldest first.")


@strawberry.enum(description="Whether a merchant may trade.")
class MerchantStatus(Enum):
    ACTIVE = strawberry.enum_value("ACTIVE", description="It may trade.")
    SUSPENDED = strawberry.enum_value("SUSPENDED", description="An operator stopped its trade.")


@strawberry.enum(description="Whether a customer may sign in and pay.")
class CustomerStatus(Enum):
    ACTIVE = strawberry.enum_value("ACTIVE", description="They may sign in and pay.")
    SUSPENDED = strawberry.enum_value("SUSPENDED", description="An operator stopped them.")


@strawberry.enum(description="How a merchant's calls may be signed.")
class SignatureAlgorithm(Enum):
    ED25519 = strawberry.enum_value("ed25519", description="Ed25519, with a public key.")
    RSA_SHA256 = strawberry.enum_value(
        "rsa-v1_5-sha256", description="RSASSA-PKCS1-v1_5 with SHA-256, with a public key."
    )
    HMAC_SHA256 = strawberry.enum_value(
        "hmac-sha256", description="HMAC with SHA-256, with a shared secret."
    )


@strawberry.enum(description="One of a merchant's accounts that has a statement.")
class BalanceBucket(Enum):
    AVAILABLE = strawberry.enum_value(
        "MERCHANT_AVAILABLE", description="Settled money, which can be paid out."
    )
    PENDING_SETTLEMENT = strawberry.enum_value(
        "MERCHANT_PENDING", description="Earned money that is not settled yet."
    )
    IN_TRANSIT = strawberry.enum_value(
        "PAYOUTS_IN_FLIGHT", description="Payouts on their way to a bank."
    )


@strawberry.enum(description="An analyst's verdict on an order in review.")
class ReviewVerdict(Enum):
    ACCEPT = strawberry.enum_value(True, description="The order goes on where it stopped.")
    DECLINE = strawberry.enum_value(
        False, description="The order fails and what it held is released."
    )


@strawberry.enum(description="What to do instead of what was refused.")
class SuggestedAction(Enum):
    REFUND = strawberry.enum_value("REFUND", description="Refund the order instead.")
    RETRY_WITH_NEW_NUMBER = strawberry.enum_value(
        "RETRY_WITH_NEW_NUMBER", description="Try again under a new number."
    )
    REQUEST_CODE = strawberry.enum_value(
        "REQUEST_CODE", description="Ask for a new one-time code and answer with it."
    )


def _error_codes(classes: Mapping[str, type[PurserError]]) -> type[Enum]:
    """An enum with a value for each class of the one tree of errors."""
    codes = Enum("ErrorCode", {code: code for code in sorted(classes)})  # type: ignore[misc]
    return described(
        codes,
        "Why something was refused. Codes are stable; messages are not.",
        {code: classes[code].default_message for code in classes},
    )


ErrorCode = _error_codes(error_classes())
