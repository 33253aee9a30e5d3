"""The ASGI application: `/graphql`, the channels' callbacks, health, keys, and the explorer.

Everything that is plain HTTP stands here; all else is GraphQL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from app import explorer, process
from app.edge import Edge
from app.health import Probe
from core.errors import (
    Busy,
    IncorrectDetails,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    SignatureInvalid,
)
from identity import tokens
from payments.callbacks import apply_callback
from resolvers import documents, guard, throttle
from resolvers.lean import LeanGraphQL
from resolvers.root import make_schema
from resolvers.transport import GraphQLServer
from risk_model import champion

log = logging.getLogger(__name__)

REQUEST_SIZE_MAX = 64 * 1024
CALLBACK_SIZE_MAX = 256 * 1024
CALLBACK_SECONDS = 10.0
REFUSED = b"refused"
REFUSED_STATUS = {
    "SIGNATURE_INVALID": 401,
    "NOT_FOUND": 404,
    "INCORRECT_DETAILS": 409,
    "INVALID_ARGUMENT": 400,
}


def make_application(*, connects: bool = True) -> Starlette:
    """The application; without `connects` somebody else has opened its connections."""
    probe = Probe()
    schema = make_schema()
    graphql = GraphQLServer(schema)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with process.connected("api") as read:
            throttle.connect(read.redis_url)
            documents.connect(read.redis_url)
            documents.load(read.documents_directory)
            schema.plans.trust(documents.trusted_texts())
            champion.current()
            await tokens.ensure_signing_key()
            process.settle()
            try:
                yield
            finally:
                await guard.finish_running()
                await throttle.close()
                await documents.close()
                await probe.close()

    made = Starlette(
        routes=[
            Route("/graphql", graphql, methods=["POST"], max_body_size=REQUEST_SIZE_MAX),
            WebSocketRoute("/graphql", graphql),
            Route(
                "/callbacks/{channel}",
                callback,
                methods=["POST"],
                max_body_size=CALLBACK_SIZE_MAX,
            ),
            Route("/health/live", probe.live),
            Route("/health/ready", probe.ready),
            Route("/.well-known/jwks.json", jwks),
            Route("/explorer", explorer.page),
            Route("/explorer/{name}", explorer.asset),
        ],
        middleware=[Middleware(Edge, graphql=partial(LeanGraphQL, schema))],
        lifespan=lifespan if connects else None,
    )
    made.state.probe = probe
    made.router.redirect_slashes = False
    return made


async def callback(request: Request) -> Response:
    """What a channel tells us: its own acknowledgement after the commit, or one answer to all else.

    A channel that gets anything but its acknowledgement repeats the message, which is harmless.
    """
    body = await request.body()
    applying = asyncio.create_task(
        apply_callback(request.path_params["channel"], dict(request.headers), body)
    )
    guard.keep(applying)
    try:
        async with asyncio.timeout(CALLBACK_SECONDS):
            acknowledged = await asyncio.shield(applying)
    except (SignatureInvalid, NotFound, IncorrectDetails, InvalidArgument) as error:
        return Response(REFUSED, REFUSED_STATUS[error.code])
    except (Busy, OutcomeUnknown, TimeoutError):
        return Response(b"later", 503)
    return Response(acknowledged.body, acknowledged.status, dict(acknowledged.headers))


async def jwks(request: Request) -> JSONResponse:
    """The public keys that verify our access tokens."""
    return JSONResponse(await tokens.jwks(), headers={"cache-control": "public, max-age=300"})


application = make_application()
