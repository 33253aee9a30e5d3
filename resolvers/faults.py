"""Top-level errors: each has a code, none tells of our insides. A bug gets an id for the log."""

from __future__ import annotations

import logging
from typing import Any

from graphql import GraphQLError

from core import ids
from core.errors import (
    Busy,
    Forbidden,
    OutcomeUnknown,
    PurserError,
    SignatureInvalid,
    Unauthenticated,
)

log = logging.getLogger(__name__)

BAD_USER_INPUT = "BAD_USER_INPUT"
INTERNAL = "INTERNAL"
MASKED = "Something went wrong on our side."


def coded(error: GraphQLError) -> GraphQLError:
    """The error as a client may see it."""
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(cause, PurserError):
        return _shown(error, cause.message, extensions_of(cause))
    if cause is None or isinstance(cause, GraphQLError):
        extensions = dict((cause or error).extensions or error.extensions or {})
        extensions.setdefault("code", BAD_USER_INPUT)
        return _shown(error, error.message, extensions)
    return _masked(error, cause)


def extensions_of(error: PurserError) -> dict[str, Any]:
    """What a client learns of a refusal beside its message."""
    found: dict[str, Any] = {
        "code": error.code,
        "retryable": error.retryable,
        "outcomeKnown": error.outcome_known,
    }
    if error.field:
        found["field"] = list(error.field)
    return found


def status_of(error: PurserError) -> int:
    """The HTTP status of a request that is refused before GraphQL sees it."""
    match error:
        case Unauthenticated() | SignatureInvalid():
            return 401
        case Forbidden():
            return 403
        case Busy() | OutcomeUnknown():
            return 503
        case _:
            return 400


def _shown(error: GraphQLError, message: str, extensions: dict[str, Any]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )


def _masked(error: GraphQLError, cause: Exception) -> GraphQLError:
    error_id = str(ids.new_id())
    log.error("error %s at %s", error_id, error.path, exc_info=cause)
    return _shown(error, MASKED, {"code": INTERNAL, "errorId": error_id})
