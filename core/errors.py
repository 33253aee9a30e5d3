"""The one tree of errors: a class per code, each saying whether to retry and whether money may have
moved.

`Refused` is the business saying no, `NotPermitted` the guards, `Conflict` a contradiction with what
is stored, `Busy` means that nothing happened, `OutcomeUnknown` that only the same key tells.
Anything else is our own bug. A message may be shown to a payer: no internal id, no SQL, nothing of
another person.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PurserError(Exception):
    """An error with a stable `code`; `retryable` and `outcome_known` tell a client what to do next.

    `field` is the path of the input it is about, `data` what a typed refusal carries
    (JSON values only, because refusals are stored with the idempotency key).
    """

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    outcome_known: ClassVar[bool] = True
    default_message: ClassVar[str] = "Something went wrong on our side."

    def __init__(self, message: str = "", *, field: tuple[str, ...] = (), **data: Any) -> None:
        self.message = message or self.default_message
        self.field = field
        self.data = data
        super().__init__(self.message)


class Refused(PurserError):
    """The business says no. The answer will not change without a change of input or of state."""


class NotPermitted(PurserError):
    """The caller may not do this, or did not prove who they are."""


class Conflict(PurserError):
    """The request contradicts something already stored under the same name."""


class Busy(PurserError):
    """Nothing happened; the same request may be sent again."""

    retryable = True


class Unauthenticated(NotPermitted):
    code = "UNAUTHENTICATED"
    default_message = "Sign in to do this."


class Forbidden(NotPermitted):
    code = "FORBIDDEN"
    default_message = "This is not permitted for you."


class SignatureInvalid(NotPermitted):
    code = "SIGNATURE_INVALID"
    default_message = "The request's signature is missing or not valid."


class CredentialsInvalid(NotPermitted):
    code = "CREDENTIALS_INVALID"
    default_message = "These credentials are not valid."


class CredentialsLocked(NotPermitted):
    code = "CREDENTIALS_LOCKED"
    default_message = "Too many wrong attempts; try again later."


class InvalidArgument(Refused):
    code = "INVALID_ARGUMENT"
    default_message = "An argument is not valid."


class NotFound(Refused):
    code = "NOT_FOUND"
    default_message = "There is nothing with this id."


class LimitExceeded(Refused):
    code = "LIMIT_EXCEEDED"
    default_message = "This is over a limit."


class AlreadyPaid(Refused):
    code = "ALREADY_PAID"
    default_message = "This order is already paid."


class OrderClosed(Refused):
    code = "ORDER_CLOSED"
    default_message = "This order has ended."


class OperationNotSupported(Refused):
    code = "OPERATION_NOT_SUPPORTED"
    default_message = "This operation is not possible for this order."


class NoRoute(Refused):
    code = "NO_ROUTE"
    default_message = "No channel can carry this payment now."


class ChannelDeclined(Refused):
    code = "CHANNEL_DECLINED"
    default_message = "The channel declined."


class RiskBlocked(Refused):
    code = "RISK_BLOCKED"
    default_message = "This payment was refused for safety."


class ChallengeFailed(Refused):
    code = "CHALLENGE_FAILED"
    default_message = "The extra proof was wrong or has expired."


class InsufficientAvailable(Refused):
    code = "INSUFFICIENT_AVAILABLE"
    default_message = "The available balance is too small."


class AccountFrozen(Refused):
    code = "ACCOUNT_FROZEN"
    default_message = "The account is frozen."


class HoldExpired(Refused):
    code = "HOLD_EXPIRED"
    default_message = "The hold has expired."


class HoldExceeded(Refused):
    code = "HOLD_EXCEEDED"
    default_message = "More was asked than is held."


class HoldNotPending(Refused):
    code = "HOLD_NOT_PENDING"
    default_message = "The hold is already resolved."


class RefundExceeds(Refused):
    code = "REFUND_EXCEEDS"
    default_message = "The refund is larger than what can still be refunded."


class InsufficientMerchantBalance(Refused):
    code = "INSUFFICIENT_MERCHANT_BALANCE"
    retryable = True
    default_message = "The merchant's balance is too small for this now."


class PayoutNotCancellable(Refused):
    code = "PAYOUT_NOT_CANCELLABLE"
    default_message = "This payout can no longer be cancelled."


class IdempotencyKeyReused(Conflict):
    code = "IDEMPOTENCY_KEY_REUSED"
    default_message = "This idempotency key was used with another input."


class OrderParamMismatch(Conflict):
    code = "ORDER_PARAM_MISMATCH"
    default_message = "This order number was used with other parameters."


class OperationParamMismatch(Conflict):
    code = "OPERATION_PARAM_MISMATCH"
    default_message = "This operation number was used with other parameters."


class EntryConflict(Conflict):
    code = "ENTRY_CONFLICT"
    default_message = "This entry id was used with other content."


class IncorrectDetails(Conflict):
    code = "INCORRECT_DETAILS"
    default_message = "The message contradicts what is stored."


class ServerBusy(Busy):
    code = "BUSY"
    default_message = "Nothing happened; try again in a moment."


class Throttled(Busy):
    code = "THROTTLED"
    default_message = "Too many requests; try again later."


class IdempotencyInProgress(Busy):
    code = "IDEMPOTENCY_IN_PROGRESS"
    default_message = "The first request with this key is still running."


class OperationInProgress(Busy):
    code = "OPERATION_IN_PROGRESS"
    default_message = "Another operation on this order is still running."


class OutcomeUnknown(PurserError):
    """Something may have happened; the same key brings the answer."""

    code = "OUTCOME_UNKNOWN"
    retryable = True
    outcome_known = False
    default_message = "The outcome is not known yet; send the same request again."


def error_classes() -> dict[str, type[PurserError]]:
    """Every concrete class by its code. A code that stands twice raises `ValueError`: a bug."""
    by_code: dict[str, type[PurserError]] = {}
    waiting: list[type[PurserError]] = [PurserError]
    while waiting:
        parent = waiting.pop()
        waiting.extend(parent.__subclasses__())
        if "code" in vars(parent) and by_code.setdefault(parent.code, parent) is not parent:
            raise ValueError(f"error code {parent.code} stands twice")
    return by_code


def error_of(code: str, message: str = "", data: dict[str, Any] | None = None) -> PurserError:
    """The error that a stored refusal stands for. An unknown code raises `KeyError`: a bug."""
    return _BY_CODE[code](message, **(data or {}))


_BY_CODE = error_classes()
