"""An API process with what only a measurement wants: a plain route, spans, a profile.

It is `purser api` itself, with routes added to its application, so that settings, server and
middleware are the same. Never part of the product.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import signal
import sys
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app import asgi, serve
from benchmarks.profiling import PROFILE_VARIABLE, SPANS_PATH, SPANS_VARIABLE
from core import trace
from core.errors import PurserError
from core.money import Money
from identity.permissions import Permission, require
from payments import pipeline
from payments.states import OperationType
from payments.values import Answer, OpenOrder
from resolvers.callers import context_of_request
from schema.node import key_of, node_id

LINES = 60


async def pay(request: Request) -> Response:
    """The same payment as plain JSON: same check of the token, same call, same fields."""
    given = orjson.loads(await request.body())
    try:
        context = await context_of_request(request)
        require(context.caller, Permission.PAY)
        amount = given["amount"]
        answer = await pipeline.accept_operation(
            OpenOrder(
                type=OperationType.PAY,
                caller=context.principal,
                idempotency_key=given["idempotencyKey"],
                merchant_id=key_of("Merchant", given["merchantId"], "merchantId"),
                merchant_order_no=given["merchantOrderNo"],
                money=Money(amount["amountMinor"], amount["currency"]),
                product="account",
            )
        )
    except PurserError as error:
        return _json({"order": None, "userErrors": [_error(error)]})
    return _json(_answer(answer))


async def spans(_: Request) -> Response:
    """The sums since the last time; the first time makes the process listen."""
    found = {
        name: [total.calls, total.members, total.total_ms] for name, total in trace.taken().items()
    }
    trace.listen()
    return _json(found)


class Timed:
    """The whole application in a span: all but the server's own reading and writing."""

    def __init__(self, application: Starlette) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/graphql":
            await self._application(scope, receive, send)
            return
        with trace.span("request"):
            await self._application(scope, receive, send)


def _answer(answer: Answer) -> dict[str, object]:
    order = answer.order
    assert order is not None
    return {
        "idempotentReplay": answer.replay,
        "order": {
            "id": node_id("Order", order.order_id),
            "state": order.state.value,
            "resourceVersion": str(order.version),
            "amount": {"amountMinor": str(order.amount_minor), "currency": order.currency},
            "createdAt": order.created_at.isoformat(),
        },
        "userErrors": [_error(answer.refusal)] if answer.refusal else [],
    }


def _error(error: PurserError) -> dict[str, object]:
    return {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "retryable": error.retryable,
        "outcomeKnown": error.outcome_known,
    }


def _json(body: object) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def main() -> None:
    routes = [Route("/plain/pay", pay, methods=["POST"]), Route(SPANS_PATH, spans)]
    asgi.application.router.routes[:0] = routes
    if os.environ.get(SPANS_VARIABLE):
        asgi.application = Timed(asgi.application)
    where = os.environ.get(PROFILE_VARIABLE)
    if where is None:
        serve.run()
        return
    # Uvicorn raises the signal again when it has stopped, which must not end us before the profile.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    profile = cProfile.Profile()
    try:
        profile.runcall(serve.run)
    finally:
        with Path(where).open("w") as file:
            for order in ("tottime", "cumtime"):
                pstats.Stats(profile, stream=file).sort_stats(order).print_stats(LINES)


if __name__ == "__main__":
    sys.exit(main())
