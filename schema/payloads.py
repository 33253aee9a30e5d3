"""One payload for each mutation: what was made, or why not, and whether the key was met before."""

from __future__ import annotations

import strawberry

from schema.books import Settlement
from schema.errors import UserError
from schema.orders import Operation, Order
from schema.parties import Customer, Merchant, MerchantKey, Tokens
from schema.webhooks import WebhookEndpoint

ORDER = "The order as committed; null where none was made."
OPERATION = "The step that was asked for; null where none was made."
SECRET = "The secret, Base64, shown now and never again."


@strawberry.interface(description="What every mutation answers.")
class Payload:
    user_errors: list[UserError] = strawberry.field(
        description="Why it was not done; empty where it was.", default_factory=list
    )


@strawberry.interface(description="What every mutation that moves money answers.")
class MoneyPayload(Payload):
    idempotent_replay: bool = strawberry.field(
        description="Whether this is the stored answer of an earlier request with the same key.",
        default=False,
    )


@strawberry.interface(description="What a mutation on an order answers.")
class OrderPayload(MoneyPayload):
    order: Order | None = strawberry.field(description=ORDER, default=None)
    operation: Operation | None = strawberry.field(description=OPERATION, default=None)


@strawberry.interface(description="What a mutation that sends a one-time code answers.")
class CodePayload(Payload):
    destination_masked: str | None = strawberry.field(
        description="Where the code goes, masked; the same for an unknown address.", default=None
    )
    code_expires_seconds: int | None = strawberry.field(
        description="How long the code is good, in seconds.", default=None
    )


@strawberry.interface(description="What a mutation that signs somebody in answers.")
class TokensPayload(Payload):
    tokens: Tokens | None = strawberry.field(description="The tokens of the login.", default=None)


@strawberry.type(description="Answer of `customerRegister`.")
class CustomerRegisterPayload(CodePayload):
    registration_id: strawberry.ID | None = strawberry.field(
        description="For `customerConfirm`.", default=None
    )


@strawberry.type(description="Answer of `registrationCodeRequest`.")
class RegistrationCodeRequestPayload(Payload):
    pass


@strawberry.type(description="Answer of `customerConfirm`.")
class CustomerConfirmPayload(TokensPayload):
    customer: Customer | None = strawberry.field(description="The new customer.", default=None)


@strawberry.type(description="Answer of `customerLogin`.")
class CustomerLoginPayload(TokensPayload):
    pass


@strawberry.type(description="Answer of `customerLogout`.")
class CustomerLogoutPayload(Payload):
    pass


@strawberry.type(description="Answer of `tokenRefresh`.")
class TokenRefreshPayload(TokensPayload):
    pass


@strawberry.type(description="Answer of `passwordResetRequest`.")
class PasswordResetRequestPayload(CodePayload):
    pass


@strawberry.type(description="Answer of `passwordReset`.")
class PasswordResetPayload(Payload):
    pass


@strawberry.type(description="Answer of `passwordChange`.")
class PasswordChangePayload(Payload):
    pass


@strawberry.type(description="Answer of `paymentPasswordSet`.")
class PaymentPasswordSetPayload(Payload):
    pass


@strawberry.type(description="Answer of `paymentPasswordResetRequest`.")
class PaymentPasswordResetRequestPayload(CodePayload):
    pass


@strawberry.type(description="Answer of `paymentPasswordReset`.")
class PaymentPasswordResetPayload(Payload):
    pass


@strawberry.type(description="Answer of `topUp`.")
class TopUpPayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `pay`.")
class PayPayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `transfer`.")
class TransferPayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `challengeCodeRequest`.")
class ChallengeCodeRequestPayload(CodePayload):
    pass


@strawberry.type(description="Answer of `challengeAnswer`.")
class ChallengeAnswerPayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `orderClose`.")
class OrderClosePayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `refund`.")
class RefundPayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `payOut`.")
class PayOutPayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `reviewDecide`.")
class ReviewDecidePayload(OrderPayload):
    pass


@strawberry.type(description="Answer of `settlementRun`.")
class SettlementRunPayload(MoneyPayload):
    settlement: Settlement | None = strawberry.field(
        description="The run; null where there was nothing to settle.", default=None
    )


@strawberry.type(description="Answer of `webhookEndpointSet`.")
class WebhookEndpointSetPayload(Payload):
    webhook_endpoint: WebhookEndpoint | None = strawberry.field(
        description="The endpoint as set.", default=None
    )
    secret: str | None = strawberry.field(
        description="The first secret (`whsec_…`), shown now and never again; null where the "
        "endpoint has one already.",
        default=None,
    )


@strawberry.type(description="Answer of `webhookSecretRotate`.")
class WebhookSecretRotatePayload(Payload):
    webhook_endpoint: WebhookEndpoint | None = strawberry.field(
        description="The endpoint.", default=None
    )
    secret: str | None = strawberry.field(
        description="The new secret (`whsec_…`), shown now and never again.", default=None
    )


@strawberry.type(description="Answer of `webhookEventReplay`.")
class WebhookEventReplayPayload(Payload):
    events_count: int | None = strawberry.field(
        description="How many events are sent again.", default=None
    )


@strawberry.type(description="Answer of `merchantTokenIssue`.")
class MerchantTokenIssuePayload(TokensPayload):
    pass


@strawberry.type(description="Answer of `merchantKeyCreate`.")
class MerchantKeyCreatePayload(Payload):
    merchant_key: MerchantKey | None = strawberry.field(description="The new key.", default=None)
    secret: str | None = strawberry.field(description=SECRET, default=None)


@strawberry.type(description="Answer of `merchantKeyRotate`.")
class MerchantKeyRotatePayload(Payload):
    merchant_key: MerchantKey | None = strawberry.field(description="The new key.", default=None)
    ending_key: MerchantKey | None = strawberry.field(
        description="The old key with its end.", default=None
    )
    secret: str | None = strawberry.field(description=SECRET, default=None)


@strawberry.type(description="Answer of `merchantKeyRevoke`.")
class MerchantKeyRevokePayload(Payload):
    merchant_key: MerchantKey | None = strawberry.field(description="The ended key.", default=None)


@strawberry.type(description="Answer of `operatorLogin`.")
class OperatorLoginPayload(TokensPayload):
    pass


@strawberry.type(description="Answer of `merchantRegister`.")
class MerchantRegisterPayload(Payload):
    merchant: Merchant | None = strawberry.field(description="The new merchant.", default=None)


@strawberry.type(description="Answer of `merchantUpdate`.")
class MerchantUpdatePayload(Payload):
    merchant: Merchant | None = strawberry.field(
        description="The merchant as changed.", default=None
    )
