"""One input for each mutation, in the order of a customer's, a merchant's and an operator's day."""

from __future__ import annotations

import strawberry

from payments.states import OperationType, OrderState
from schema.enums import MerchantStatus, ReviewVerdict
from schema.money import MoneyInput
from schema.payment_methods import PaymentMethodInput, PayoutDestinationInput
from schema.scalars import BigInt, CurrencyCode, DateTime

KEY = (
    "Names this request: 8 to 255 visible ASCII characters, fresh for each wish and the same for "
    "each retry of it, kept 30 days. Required here or as `@idempotent(key:)` on the field."
)
ORDER_ID = "The order's id."
CODE = "The one-time code that was sent."


def text(description: str) -> str:
    """A required text."""
    return strawberry.field(description=description)  # type: ignore[return-value]


def note() -> str:
    """What the caller writes about it."""
    return strawberry.field(  # type: ignore[return-value]
        description="Shown on statements, at most 256 characters.", default=""
    )


def key() -> str:
    """The idempotency key of a mutation that moves money."""
    return strawberry.field(description=KEY, default="")  # type: ignore[return-value]


@strawberry.input(one_of=True, description="Where somebody can be reached: exactly one of these.")
class AddressInput:
    phone: strawberry.Maybe[str] = strawberry.field(
        description="Phone number in international form, such as +8613812345678."
    )
    email: strawberry.Maybe[str] = strawberry.field(description="E-mail address.")


@strawberry.input(description="A registration; a code goes to the address.")
class CustomerRegisterInput:
    address: AddressInput = strawberry.field(description="Phone number or e-mail address.")
    password: str = text("The login password: 8 to 128 characters, none that is often used.")
    display_name: str = strawberry.field(
        description="The name that payers recognise, masked; at most 64 characters.", default=""
    )


@strawberry.input(description="Another code for a registration; it replaces the first.")
class RegistrationCodeRequestInput:
    registration_id: strawberry.ID = strawberry.field(description="From `customerRegister`.")


@strawberry.input(description="The proof of the address.")
class CustomerConfirmInput:
    registration_id: strawberry.ID = strawberry.field(description="From `customerRegister`.")
    code: str = text(CODE)


@strawberry.input(description="A sign-in.")
class CustomerLoginInput:
    address: AddressInput = strawberry.field(description="Phone number or e-mail address.")
    password: str = text("The login password.")


@strawberry.input(description="A sign-out.")
class CustomerLogoutInput:
    everywhere: bool = strawberry.field(
        description="End all logins of the caller, not only this one.", default=False
    )


@strawberry.input(description="New tokens for a refresh token.")
class TokenRefreshInput:
    refresh_token: str = text("The refresh token; it is used up by this.")


@strawberry.input(description="A code for a new login password.")
class PasswordResetRequestInput:
    address: AddressInput = strawberry.field(description="Phone number or e-mail address.")


@strawberry.input(description="A new login password, proved by a code.")
class PasswordResetInput:
    address: AddressInput = strawberry.field(description="Phone number or e-mail address.")
    code: str = text(CODE)
    new_password: str = text("The new login password.")


@strawberry.input(description="A new login password, proved by the present one.")
class PasswordChangeInput:
    current_password: str = text("The present login password.")
    new_password: str = text("The new login password.")


@strawberry.input(description="The six-digit payment password.")
class PaymentPasswordSetInput:
    new_payment_password: str = text("Six digits, not too easy to guess.")
    current_payment_password: str | None = strawberry.field(
        description="The present one; required to change it.", default=None
    )
    login_password: str | None = strawberry.field(
        description="The login password; required to set the first one.", default=None
    )


@strawberry.input(description="A code with which a forgotten payment password can be replaced.")
class PaymentPasswordResetRequestInput:
    login_password: str = text("The login password.")


@strawberry.input(description="A new payment password in place of a forgotten one.")
class PaymentPasswordResetInput:
    code: str = text(CODE)
    new_payment_password: str = text("Six digits, not too easy to guess.")
    login_password: str = text("The login password.")


@strawberry.input(description="Money from a bank into the caller's wallet.")
class TopUpInput:
    idempotency_key: str = key()
    amount: MoneyInput = strawberry.field(description="How much.")
    return_url: str | None = strawberry.field(
        description="Where the bank sends the payer afterwards.", default=None
    )
    description: str = note()


@strawberry.input(description="A payment to a merchant.")
class PayInput:
    idempotency_key: str = key()
    merchant_id: strawberry.ID = strawberry.field(description="The merchant's id.")
    merchant_order_no: str = text(
        "The merchant's order number, 1 to 64 visible ASCII characters, unique for ever."
    )
    amount: MoneyInput = strawberry.field(description="How much.")
    method: PaymentMethodInput = strawberry.field(description="How the payer pays.")
    description: str = note()
    return_url: str | None = strawberry.field(
        description="Where a channel sends the payer afterwards.", default=None
    )
    effective_at: DateTime | None = strawberry.field(
        description="The recorded instant of a replayed payment. Only with the scope `replay`, "
        "never in a live environment.",
        default=None,
    )


@strawberry.input(description="Money from the caller's wallet to another's.")
class TransferInput:
    idempotency_key: str = key()
    payee_id: strawberry.ID = strawberry.field(description="From the query `payee`.")
    amount: MoneyInput = strawberry.field(description="How much.")
    description: str = note()


@strawberry.input(description="A one-time code for an order that waits for a proof.")
class ChallengeCodeRequestInput:
    order_id: strawberry.ID = strawberry.field(description=ORDER_ID)


@strawberry.input(one_of=True, description="The payer's proof: exactly one of these.")
class ChallengeProofInput:
    payment_password: strawberry.Maybe[str] = strawberry.field(
        description="The six-digit payment password."
    )
    code: strawberry.Maybe[str] = strawberry.field(description=CODE)


@strawberry.input(description="The payer's answer to a challenge.")
class ChallengeAnswerInput:
    idempotency_key: str = key()
    order_id: strawberry.ID = strawberry.field(description=ORDER_ID)
    proof: ChallengeProofInput = strawberry.field(description="The payment password or a code.")


@strawberry.input(description="The end of an order that is not paid, or of a payout.")
class OrderCloseInput:
    idempotency_key: str = key()
    order_id: strawberry.ID = strawberry.field(description=ORDER_ID)


@strawberry.input(description="Money back to the payer.")
class RefundInput:
    idempotency_key: str = key()
    order_id: strawberry.ID = strawberry.field(description=ORDER_ID)
    refund_number: str = text(
        "The merchant's number of this refund, 1 to 64 visible ASCII characters, unique."
    )
    amount: MoneyInput | None = strawberry.field(
        description="How much; all that is left when absent.", default=None
    )
    description: str = note()


@strawberry.input(description="A merchant's available money to a bank account.")
class PayOutInput:
    idempotency_key: str = key()
    payout_number: str = text(
        "The merchant's number of this payout, 1 to 64 visible ASCII characters, unique for ever."
    )
    amount: MoneyInput = strawberry.field(description="How much.")
    destination: PayoutDestinationInput = strawberry.field(description="Where it goes.")
    description: str = note()


@strawberry.input(description="Where the calling merchant wants its events.")
class WebhookEndpointSetInput:
    url: str = text("An https address that answers with 2xx within five seconds.")
    enabled: bool = strawberry.field(description="Whether events are sent.", default=True)


@strawberry.input(description="A new secret for webhooks.")
class WebhookSecretRotateInput:
    endpoint_id: strawberry.ID = strawberry.field(description="The id of the caller's endpoint.")


@strawberry.input(description="A span of time.")
class TimeRangeInput:
    begins_at: DateTime = strawberry.field(description="The first instant.")
    ends_at: DateTime = strawberry.field(description="The first instant after it.")


@strawberry.input(one_of=True, description="Which events to send again: exactly one of these.")
class WebhookEventReplayInput:
    event_id: strawberry.Maybe[strawberry.ID] = strawberry.field(description="One event's id.")
    range: strawberry.Maybe[TimeRangeInput] = strawberry.field(
        description="All that happened in this span, at most 10,000 events, the oldest first."
    )


@strawberry.input(description="A token that reads a merchant's data and moves no money.")
class MerchantTokenIssueInput:
    merchant_id: strawberry.ID | None = strawberry.field(
        description="For operators; a merchant issues its own.", default=None
    )


@strawberry.input(description="A key for signed calls.")
class MerchantKeyCreateInput:
    merchant_id: strawberry.ID | None = strawberry.field(
        description="For operators; a merchant adds its own.", default=None
    )
    public_key: str | None = strawberry.field(
        description="Ed25519 or RSA public key in PEM; without one a shared secret is made.",
        default=None,
    )


@strawberry.input(description="A new key in place of another.")
class MerchantKeyRotateInput:
    merchant_id: strawberry.ID | None = strawberry.field(
        description="For operators: whose key; a merchant's own otherwise.", default=None
    )
    key_id: strawberry.ID = strawberry.field(description="The key's id.")
    public_key: str | None = strawberry.field(
        description="Ed25519 or RSA public key in PEM; without one a shared secret is made.",
        default=None,
    )
    overlap_seconds: int = strawberry.field(
        description="How long the old key is still good, 0 to 604800 seconds.", default=86_400
    )


@strawberry.input(description="The end of a key, at once.")
class MerchantKeyRevokeInput:
    merchant_id: strawberry.ID | None = strawberry.field(
        description="For operators: whose key; a merchant's own otherwise.", default=None
    )
    key_id: strawberry.ID = strawberry.field(description="The key's id.")


@strawberry.input(description="An operator's sign-in.")
class OperatorLoginInput:
    email: str = text("E-mail address.")
    password: str = text("Password.")


@strawberry.input(description="A new merchant.")
class MerchantRegisterInput:
    name: str = text("The public name, at most 128 characters.")
    currencies: list[CurrencyCode] = strawberry.field(description="What it may be paid in.")
    fee_rate_millionths: int = strawberry.field(
        description="The fee of a payment in millionths of its amount: 6000 is 0.6 %."
    )
    payment_limit_minor: BigInt = strawberry.field(
        description="The most that one payment may be, in minor units of its currency."
    )


@strawberry.input(description="A change of a merchant; what is absent stays.")
class MerchantUpdateInput:
    merchant_id: strawberry.ID = strawberry.field(description="The merchant's id.")
    status: MerchantStatus | None = strawberry.field(
        description="Whether it may trade.", default=None
    )
    fee_rate_millionths: int | None = strawberry.field(
        description="The fee of later payments in millionths of the amount.", default=None
    )


@strawberry.input(description="A settlement of all that is pending.")
class SettlementRunInput:
    idempotency_key: str = key()
    merchant_id: strawberry.ID = strawberry.field(description="Whose money.")
    currency: CurrencyCode = strawberry.field(description="In which currency.")


@strawberry.input(description="A verdict on an order in review.")
class ReviewDecideInput:
    idempotency_key: str = key()
    order_id: strawberry.ID = strawberry.field(description=ORDER_ID)
    verdict: ReviewVerdict = strawberry.field(description="Accept or decline.")
    reason: str = text("Why, for the audit log; 1 to 256 characters.")


@strawberry.input(description="Which orders; all conditions must hold.")
class OrderFilterInput:
    states: list[OrderState] | None = strawberry.field(
        description="In one of these states.", default=None
    )
    types: list[OperationType] | None = strawberry.field(
        description="Opened by one of these operations.", default=None
    )
    currency: CurrencyCode | None = strawberry.field(description="In this currency.", default=None)
    merchant_id: strawberry.ID | None = strawberry.field(
        description="Of this merchant.", default=None
    )
    created_from: DateTime | None = strawberry.field(
        description="Accepted at or after this instant.", default=None
    )
    created_before: DateTime | None = strawberry.field(
        description="Accepted before this instant.", default=None
    )
