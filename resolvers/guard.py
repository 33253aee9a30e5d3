"""The guard that every root field is made by. A field that names no permission stops the start.

Queries answer a refusal as null with a coded error, mutations as a typed value in their payload. A
mutation that has begun is never cancelled: past the deadline its caller gets `OUTCOME_UNKNOWN`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Literal

import strawberry

from core import clock
from core.errors import InvalidArgument, OutcomeUnknown, PurserError, ServerBusy
from identity.permissions import Permission, require
from resolvers.context import Info, RequestContext
from schema.errors import user_error

Public = Literal["PUBLIC"]
PUBLIC: Public = "PUBLIC"
Guard = Permission | Public

_running: set[asyncio.Task[Any]] = set()
"""Mutations that outlived their caller; kept so that none is lost half-way."""


def query(permission: Guard, description: str, graphql_type: Any) -> Callable[[Any], Any]:
    """A field of Query. Its type is nullable, so that one refusal leaves the other fields alone."""

    def made(resolver: Callable[..., Awaitable[Any]]) -> Any:
        @functools.wraps(resolver)
        async def guarded(info: Info, **arguments: Any) -> Any:
            _check(info.context, permission)
            return await before_deadline(info.context, resolver(info, **arguments))

        return strawberry.field(
            resolver=guarded,
            description=description,
            graphql_type=graphql_type,
            metadata={"permission": permission},
        )

    return made


def mutation(
    permission: Guard, payload: Any, description: str, *, sensitive: bool = False
) -> Callable[[Any], Any]:
    """A field of Mutation. A `sensitive` one may stand only once in a document."""

    def made(resolver: Callable[..., Awaitable[Any]]) -> Any:
        @functools.wraps(resolver)
        async def guarded(info: Info, input: Any) -> Any:
            _check(info.context, permission)
            try:
                return await before_deadline(info.context, resolver(info, input), shielded=True)
            except PurserError as error:
                return payload(user_errors=[user_error(error, _currency(input))])

        return strawberry.mutation(
            resolver=guarded,
            description=description,
            graphql_type=payload | None,
            metadata={"permission": permission, "sensitive": sensitive},
        )

    return made


def subscription(permission: Guard, description: str) -> Callable[[Any], Any]:
    """A field of Subscription; the permission is checked before the first event."""

    def made(resolver: Callable[..., AsyncGenerator[Any, None]]) -> Any:
        @functools.wraps(resolver)
        async def guarded(info: Info, **arguments: Any) -> AsyncGenerator[Any, None]:
            _check(info.context, permission)
            async for event in resolver(info, **arguments):
                yield event

        return strawberry.subscription(
            resolver=guarded, description=description, metadata={"permission": permission}
        )

    return made


async def before_deadline(
    context: RequestContext, work: Coroutine[Any, Any, Any], *, shielded: bool = False
) -> Any:
    """The result of `work`. Shielded work goes on behind a passed deadline, any other is cancelled.

    Raises `ServerBusy` where certainly nothing happened, `OutcomeUnknown` where shielded work
    began.
    """
    left_seconds = (context.deadline_ms - clock.monotonic_ms()) / 1_000
    if left_seconds <= 0:
        work.close()
        raise ServerBusy()
    task = asyncio.create_task(work)
    if shielded:
        keep(task)
    try:
        done, _ = await asyncio.wait({task}, timeout=left_seconds)
    except asyncio.CancelledError:
        if not shielded:
            task.cancel()
        raise
    if done:
        return task.result()
    if shielded:
        raise OutcomeUnknown()
    task.cancel()
    raise ServerBusy()


def keep(task: asyncio.Task[Any]) -> None:
    """Let `task` end even if nobody waits for it any more."""
    _running.add(task)
    task.add_done_callback(_finished)


async def finish_running() -> None:
    """Wait for the mutations that outlived their callers; for the end of the process."""
    while _running:
        await asyncio.wait(set(_running))


def idempotency_key(info: Info, given: str) -> str:
    """The key of the input or of `@idempotent(key:)`; raises `InvalidArgument` for two that differ.

    Whether a key has the right form is checked by the domain.
    """
    nodes = info._raw_info.field_nodes
    directive = None
    if nodes[0].directives:
        directive = info.selected_fields[0].directives.get("idempotent")
    if directive is None:
        if not given:
            raise InvalidArgument("An idempotency key is required.", field=("idempotencyKey",))
        return given
    key = str(directive["key"])
    if given and given != key:
        raise InvalidArgument("Two different idempotency keys.", field=("idempotencyKey",))
    return key


def _check(context: RequestContext, permission: Guard) -> None:
    if permission != PUBLIC:
        require(context.caller, Permission(permission))


def _currency(given: Any) -> str | None:
    """What the request was in, for refusals that carry an amount."""
    amount = getattr(given, "amount", None)
    return str(amount.currency) if amount is not None else getattr(given, "currency", None)


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()
