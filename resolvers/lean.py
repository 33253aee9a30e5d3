"""The short way of a request whose document has a plan; everything else takes the ordinary one.

Same answers, byte for byte but for the order in which nobody looks: whatever is unusual about a
request (its headers, its body, its document, its variables) is left to `transport.py`, before
anything has run, with the body as it came and the caller as verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import PurserError, Throttled
from core.trace import span
from resolvers import documents, throttle
from resolvers.callers import context_of_parts
from resolvers.compiled.plan import Plan
from resolvers.context import DEADLINE_MS, RequestContext
from resolvers.transport import (
    CONTEXT,
    GRACE_SECONDS,
    GRAPHQL_JSON,
    JSON,
    QUERY,
    document_refusal,
    refusal,
    too_late,
)
from schema.cost import COST_MAX

BODY_SIZE_MAX = 64 * 1024

Headers = dict[bytes, bytes]


class LeanGraphQL:
    """`POST /graphql`. `ordinary` is the application that serves all requests."""

    def __init__(self, schema: Any, ordinary: ASGIApp) -> None:
        self._schema = schema
        self._ordinary = ordinary

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _usual_headers(scope)
        if headers is None:
            await self._ordinary(scope, receive, send)
            return
        messages: list[Message] = []
        raw = await _body(receive, messages)
        if raw is not None and (body := _usual_body(raw)) is not None:
            try:
                answer = await self._answer(scope, headers, raw, body)
            except documents.DocumentRefused as error:
                await document_refusal(error, _kind_of(headers.get(b"accept", b"")).decode())(
                    scope, receive, send
                )
                return
            except PurserError as error:
                await refusal(error)(scope, receive, send)
                return
            if answer is not None:
                with span("json"):
                    await _send(send, answer, _kind_of(headers.get(b"accept", b"")))
                return
        await self._ordinary(scope, _again(messages, receive), send)

    async def _answer(
        self, scope: Scope, headers: Headers, raw: bytes, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The response, or None where the ordinary way must find it."""
        with span("token"):
            context = await _context(scope, headers, raw)
        scope[CONTEXT] = context
        with span("document"):
            query = scope[QUERY] = await documents.text_of(
                body, known_client=context.caller is not None
            )
            plan = self._schema.plans.find(query, body.get("operationName"))
        if plan is None:
            return None
        variables = body.get("variables") or {}
        requested = plan.requested_cost(variables)
        if requested > COST_MAX:
            return None
        bucket = throttle.bucket_of(context.caller)
        try:
            with span("throttle"):
                available = await throttle.take(context.client, bucket, requested)
        except Throttled:
            return None
        if available is None and context.caller is None and plan.is_mutation:
            return None
        try:
            async with asyncio.timeout(DEADLINE_MS / 1_000 + GRACE_SECONDS):
                with span("execute"):
                    answer = await plan.run(variables, context, body.get("extensions"))
        except TimeoutError:
            answer = too_late(plan.is_mutation)
        if answer is None:
            if available is not None:
                throttle.give_back(context.client, bucket, requested)
            return None
        answer["extensions"] = {"cost": _cost(plan, answer, context, requested, available)}
        return answer


def _cost(
    plan: Plan,
    answer: Mapping[str, Any],
    context: RequestContext,
    requested: int,
    available: int | None,
) -> dict[str, Any]:
    bucket = throttle.bucket_of(context.caller)
    data = answer.get("data")
    actual = requested if data is None else min(requested, plan.actual_cost(data))
    return throttle.settled(context.client, bucket, requested, actual, available)


def _usual_headers(scope: Scope) -> Headers | None:
    """The headers by name, of a request with nothing unusual about them; else None."""
    if scope["method"] != "POST":
        return None
    headers: Headers = dict(scope["headers"])
    if len(headers) != len(scope["headers"]):
        return None
    usual = _is_json(headers.get(b"content-type", b"")) and b"text/event-stream" not in headers.get(
        b"accept", b""
    )
    return headers if usual and b"content-encoding" not in headers else None


@lru_cache(maxsize=64)
def _is_json(content_type: bytes) -> bool:
    return content_type.lower().replace(b" ", b"") in (
        b"application/json",
        b"application/json;charset=utf-8",
    )


@lru_cache(maxsize=256)
def _kind_of(accept: bytes) -> bytes:
    kinds = {part.split(b";", 1)[0].strip().lower() for part in accept.split(b",")}
    if GRAPHQL_JSON.encode() in kinds:
        return f"{GRAPHQL_JSON}; charset=utf-8".encode()
    return JSON.encode()


async def _body(receive: Receive, messages: list[Message]) -> bytes | None:
    """The whole body; None where it is too large or its sender went away."""
    body = b""
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > BODY_SIZE_MAX:
            return None
        if not message.get("more_body", False):
            return body


def _usual_body(raw: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if body.__class__ is not dict:
        return None
    for name, kind in _MEMBERS:
        if body.get(name) is not None and not isinstance(body[name], kind):
            return None
    return body


_MEMBERS = (("variables", dict), ("extensions", dict), ("operationName", str))


async def _context(scope: Scope, headers: Headers, raw: bytes) -> RequestContext:
    client = scope.get("client")
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    return await context_of_parts(
        "POST",
        target.decode("latin-1"),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()},
        raw,
        client[0] if client else "",
    )


def _again(messages: list[Message], receive: Receive) -> Receive:
    """What was received already, once more, and then what comes after it."""
    left = iter(messages)

    async def received() -> Message:
        for message in left:
            return message
        return await receive()

    return received


async def _send(send: Send, answer: Mapping[str, Any], kind: bytes) -> None:
    body = orjson.dumps(answer)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"cache-control", b"no-store"),
                (b"content-type", kind),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
