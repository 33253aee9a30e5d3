"""Refusals as typed values: `UserError` and what some of them carry, and the map from our errors.

Every class of `core.errors` has a view here; a class without one stops the start. Faults of the
protocol itself are top-level errors with a code in `extensions`, see `schema/faults.py`.
"""

from __future__ import annotations

from typing import Any

import strawberry

from core.errors import PurserError, error_classes
from schema.enums import ErrorCode, SuggestedAction
from schema.money import Money, money
from schema.scalars import BigInt


@strawberry.interface(description="Why a mutation did not do what was asked.")
class UserError:
    code: ErrorCode = strawberry.field(  # type: ignore[valid-type]
        description="The stable reason."
    )
    message: str = strawberry.field(description="A sentence that may be shown to the payer.")
    field: list[str] | None = strawberry.field(
        description="Path of the input that is at fault, below `input`; null if none is."
    )
    retryable: bool = strawberry.field(
        description="Whether the same request may succeed later, sent again as it is."
    )
    outcome_known: bool = strawberry.field(
        description="False where money may have moved: only the same idempotency key tells."
    )


@strawberry.type(description="A refusal that carries no more than its code.")
class RefusedError(UserError):
    pass


@strawberry.type(description="The available balance is too small.")
class InsufficientAvailableError(UserError):
    available: Money | None = strawberry.field(
        description="What was available when it was refused; null where it is not the caller's."
    )


@strawberry.type(description="A password, code or other proof was wrong, or is locked.")
class CredentialsError(UserError):
    remaining_attempts: int | None = strawberry.field(
        description="How many wrong attempts are left; null where that is not told."
    )


@strawberry.type(description="Something is over a limit.")
class LimitExceededError(UserError):
    limit_minor: BigInt | None = strawberry.field(
        description="The limit in minor units of the request's currency; null if it is no amount."
    )


@strawberry.type(description="A refusal with a way to go on.")
class SuggestedActionError(UserError):
    suggested_action: SuggestedAction = strawberry.field(description="What to do instead.")


CONCRETE_TYPES = (
    RefusedError,
    InsufficientAvailableError,
    CredentialsError,
    LimitExceededError,
    SuggestedActionError,
)

WITH_DATA: dict[str, type[UserError]] = {
    "INSUFFICIENT_AVAILABLE": InsufficientAvailableError,
    "INSUFFICIENT_MERCHANT_BALANCE": InsufficientAvailableError,
    "CREDENTIALS_INVALID": CredentialsError,
    "CREDENTIALS_LOCKED": CredentialsError,
    "CHALLENGE_FAILED": CredentialsError,
    "LIMIT_EXCEEDED": LimitExceededError,
    "ALREADY_PAID": SuggestedActionError,
    "ORDER_PARAM_MISMATCH": SuggestedActionError,
    "OPERATION_PARAM_MISMATCH": SuggestedActionError,
}
NEXT_STEPS = {
    "ALREADY_PAID": SuggestedAction.REFUND,
    "ORDER_PARAM_MISMATCH": SuggestedAction.RETRY_WITH_NEW_NUMBER,
    "OPERATION_PARAM_MISMATCH": SuggestedAction.RETRY_WITH_NEW_NUMBER,
}

VIEWS: dict[str, type[UserError]] = {
    code: WITH_DATA.get(code, RefusedError) for code in error_classes()
}
"""The whole map: the code of every class, and the type that shows it."""


def user_error(error: PurserError, currency: str | None = None) -> UserError:
    """The typed value of a refusal; `currency` is what the request was in, if it was in any."""
    view = VIEWS[error.code]
    shared: dict[str, Any] = {
        "code": ErrorCode[error.code],  # type: ignore[index]
        "message": error.message,
        "field": list(error.field) or None,
        "retryable": error.retryable,
        "outcome_known": error.outcome_known,
    }
    return view(**shared, **_data(view, error, currency))


def _data(view: type[UserError], error: PurserError, currency: str | None) -> dict[str, Any]:
    if view is InsufficientAvailableError:
        available = error.data.get("available_minor")
        shown = available is not None and currency is not None
        return {"available": money(int(available), currency) if shown and currency else None}
    if view is CredentialsError:
        return {"remaining_attempts": error.data.get("remaining_attempts")}
    if view is LimitExceededError:
        limit = error.data.get("limit_minor")
        return {"limit_minor": None if limit is None else BigInt(int(limit))}
    if view is SuggestedActionError:
        return {"suggested_action": NEXT_STEPS[error.code]}
    return {}
