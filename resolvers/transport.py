"""GraphQL over HTTP, over `graphql-transport-ws` and over server-sent events.

Strawberry's view with what it leaves open closed: only JSON objects, coded errors before GraphQL
too, text frames, nothing but subscriptions over a socket, and a deadline for every answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.exceptions import ConnectionRejectionError, MissingQueryError
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.http.parse_content_type import parse_content_type
from strawberry.http.streaming import SSETransport
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
)
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from core.errors import Busy, OutcomeUnknown, PurserError, ServerBusy
from resolvers.callers import context_of_request, context_of_socket, sign_in
from resolvers.context import DEADLINE_MS, RequestContext
from resolvers.documents import PERSISTED_QUERY_NOT_FOUND, DocumentRefused, text_of
from resolvers.faults import BAD_USER_INPUT, extensions_of, status_of

log = logging.getLogger(__name__)

MESSAGE_LENGTH_MAX = 64 * 1024
GRAPHQL_JSON = "application/graphql-response+json"
JSON = "application/json"
CONTEXT = "purser.context"
QUERY = "purser.query"
"""Where the short way leaves in the scope what it has found out about a request (`lean.py`)."""
GRACE_SECONDS = 1.0
"""A mutation answers by itself at its deadline; only what stands around it is cut off here."""

CONNECTION_INIT_SECONDS = 5
SUBSCRIPTIONS_MAX = 20


class TextSocket(ASGIWebSocketAdapter):
    """Text frames, as the protocol wants them, and none that is larger than a request may be."""

    async def iter_json(
        self, *, ignore_parsing_errors: bool = False
    ) -> AsyncGenerator[object, None]:
        receive = self.ws.receive_text

        async def limited() -> str:
            text = await receive()
            if len(text) > MESSAGE_LENGTH_MAX:
                await self.ws.close(1009, "Message too big")
                raise WebSocketDisconnect(1009)
            return text

        self.ws.receive_text = limited  # type: ignore[method-assign]
        async for message in super().iter_json(ignore_parsing_errors=ignore_parsing_errors):
            yield message

    async def send_json(self, message: Mapping[str, object]) -> None:
        try:
            await self.ws.send_text(orjson.dumps(message).decode())
        except (WebSocketDisconnect, RuntimeError) as error:
            raise WebSocketDisconnected from error


class StrictSSE(SSETransport):
    """Server-sent events only for those who accept nothing else: some clients always list them."""

    def accepts(self, accept: str) -> bool:
        kinds = {part.split(";", 1)[0].strip().lower() for part in accept.split(",")}
        return "text/event-stream" in kinds and not {JSON, GRAPHQL_JSON, "*/*"} & kinds


class OnlySubscriptions:
    """The schema as a socket sees it: a `complete` would cancel a mutation half-way."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    async def stream(self, query: str | None, **arguments: Any) -> Any:
        return await self._schema.stream(
            query, **arguments, allowed_operation_types=(OperationType.SUBSCRIPTION,)
        )


class SocketHandler(BaseGraphQLTransportWSHandler[Any, Any]):
    """One socket; a message of the wrong shape closes it, as the protocol says."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.schema = OnlySubscriptions(self.schema)  # type: ignore[assignment]

    async def handle_message(self, message: Any) -> None:
        if not _is_well_formed(message):
            await self.handle_invalid_message("Failed to parse message")
            return
        await super().handle_message(message)


class GraphQLServer(GraphQL[RequestContext, None]):
    """The `/graphql` endpoint."""

    websocket_adapter_class = TextSocket  # type: ignore[assignment]
    graphql_transport_ws_handler_class = SocketHandler
    stream_transport_classes_by_protocol: ClassVar[Any] = {
        **GraphQL.stream_transport_classes_by_protocol,
        GRAPHQL_SSE_PROTOCOL: StrictSSE,
    }

    def __init__(self, schema: Any, allowed_origins: tuple[str, ...] = ()) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            allow_queries_via_get=False,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            connection_init_wait_timeout=timedelta(seconds=CONNECTION_INIT_SECONDS),
            multipart_uploads_enabled=False,
            max_subscriptions_per_connection=SUBSCRIPTIONS_MAX,
            allowed_origins=allowed_origins,
        )

    async def run(self, request: Any, *arguments: Any, **named: Any) -> Any:
        """Answer a request; what is refused before GraphQL is a coded error too."""
        if self.is_websocket_request(request):
            return await super().run(request, *arguments, **named)
        try:
            return await super().run(request, *arguments, **named)
        except DocumentRefused as error:
            newer = _prefers_graphql_json(request.headers.get("accept", ""))
            return document_refusal(error, f"{GRAPHQL_JSON}; charset=utf-8" if newer else JSON)
        except PurserError as error:
            return refusal(error)
        except HTTPException as error:
            return _refusal(error.status_code, error.reason, {"code": BAD_USER_INPUT})

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> RequestContext:
        if isinstance(request, WebSocket):
            return await context_of_socket(request)
        # A signature's nonce is good once: who was verified on the short way stays verified.
        if CONTEXT not in request.scope:
            request.scope[CONTEXT] = await context_of_request(request)
        context: RequestContext = request.scope[CONTEXT]
        return context

    async def on_ws_connect(self, context: RequestContext) -> dict[str, object] | None:
        """Only who signed in may listen."""
        try:
            await sign_in(context)
        except PurserError:
            raise ConnectionRejectionError from None
        return {}

    async def parse_http_body(self, request: AsyncHTTPRequestAdapter) -> GraphQLRequestData:
        """One operation as a JSON object; no form, no batch."""
        content_type, _ = parse_content_type(request.content_type or "")
        if content_type != JSON:
            raise HTTPException(415, "The content type must be application/json.")
        body = self.parse_json(await request.get_body())
        if not isinstance(body, dict):
            raise HTTPException(400, "The body must be a JSON object.")
        scope = request._request.scope  # type: ignore[attr-defined]
        if QUERY in scope:
            body["query"] = scope[QUERY]
        elif _names_document(body):
            context: RequestContext = scope[CONTEXT]
            body["query"] = await text_of(body, known_client=context.caller is not None)
        _check_members(body)
        transport = self._get_stream_transport_from_headers(request.headers)
        return GraphQLRequestData(
            query=body["query"],
            variables=body.get("variables"),
            operation_name=body.get("operationName"),
            extensions=body.get("extensions"),
            protocol=transport.protocol if transport else "http",
        )

    async def execute_single(  # type: ignore[override]
        self, *, request_data: GraphQLRequestData, context: RequestContext, **_: Any
    ) -> ExecutionResult:
        """Run a query or a mutation within the deadline."""
        running = self.schema.execute(
            request_data.query,
            variable_values=request_data.variables,
            context_value=context,
            operation_name=request_data.operation_name,
            operation_extensions=request_data.extensions,
            allowed_operation_types=(OperationType.QUERY, OperationType.MUTATION),
        )
        try:
            async with asyncio.timeout(DEADLINE_MS / 1_000 + GRACE_SECONDS):
                return await running
        except TimeoutError:
            late = too_late("mutation" in (request_data.query or ""))
            return ExecutionResult(data=None, errors=[_error_of(each) for each in late["errors"]])
        except InvalidOperationTypeError:
            raise HTTPException(
                400, "Subscriptions go over a socket or server-sent events."
            ) from None
        except CannotGetOperationTypeError as error:
            raise HTTPException(400, error.as_http_error_reason()) from error
        except MissingQueryError:
            raise HTTPException(400, "There is no query.") from None

    async def get_sub_response(self, request: Any) -> Response:
        response = await super().get_sub_response(request)
        response.headers["cache-control"] = "no-store"
        if _prefers_graphql_json(request.headers.get("accept", "")):
            response.headers["content-type"] = f"{GRAPHQL_JSON}; charset=utf-8"
        return response

    async def process_result(self, request: Any, result: ExecutionResult) -> GraphQLHTTPResponse:
        """A request that never ran has errors and no data."""
        answer = await super().process_result(request, result)
        if isinstance(result, PreExecutionError):
            answer.pop("data", None)  # type: ignore[misc]
        return answer

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        """200 for clients of `application/json`; else 400 where nothing ran."""
        kind = sub_response.headers.get("content-type", JSON)
        status = 400 if kind != JSON and "data" not in response_data else 200
        headers = {"cache-control": "no-store", "content-type": kind}
        return Response(self.encode_json(response_data), status_code=status, headers=headers)

    def decode_json(self, data: str | bytes) -> object:
        return orjson.loads(data)

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data)


def _names_document(body: dict[str, Any]) -> bool:
    extensions = body.get("extensions")
    return "documentId" in body or (isinstance(extensions, dict) and "persistedQuery" in extensions)


def _check_members(body: dict[str, Any]) -> None:
    if not isinstance(body.get("query"), str) or not body["query"]:
        raise HTTPException(400, "`query` must be a text.")
    for name, kind in (("variables", dict), ("extensions", dict), ("operationName", str)):
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise HTTPException(400, f"`{name}` is of another type.")


def _is_well_formed(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return False
    if message["type"] not in ("subscribe", "complete"):
        return True
    if not isinstance(message.get("id"), str):
        return False
    payload = message.get("payload")
    if message["type"] == "complete":
        return True
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("query"), str)
        and isinstance(payload.get("variables") or {}, dict)
        and isinstance(payload.get("operationName") or "", str)
    )


def _prefers_graphql_json(accept: str) -> bool:
    """Whether the newer type is listed; a client that does not name it gets the older one."""
    return GRAPHQL_JSON in {part.split(";", 1)[0].strip().lower() for part in accept.split(",")}


def too_late(may_have_begun: bool) -> dict[str, Any]:
    """What holds for whatever was asked: a mutation may have begun."""
    error: Busy | OutcomeUnknown = OutcomeUnknown() if may_have_begun else ServerBusy()
    log.warning("an operation passed its deadline")
    return {
        "data": None,
        "errors": [{"message": error.message, "extensions": extensions_of(error)}],
    }


def _error_of(formatted: dict[str, Any]) -> GraphQLError:
    return GraphQLError(formatted["message"], extensions=formatted["extensions"])


def refusal(error: PurserError) -> Response:
    """The answer to a request that is refused before GraphQL sees it."""
    return _refusal(status_of(error), error.message, extensions_of(error))


def document_refusal(error: DocumentRefused, kind: str) -> Response:
    """The answer to a request whose document is not known, as clients of persisted queries expect:
    200 in the older type, 400 in the newer one.
    """
    if error.code != PERSISTED_QUERY_NOT_FOUND:
        return _refusal(400, error.message, {"code": error.code})
    response = _refusal(200 if kind == JSON else 400, error.message, {"code": error.code})
    response.headers["content-type"] = kind
    return response


def _refusal(status: int, message: str, extensions: dict[str, Any]) -> Response:
    body = {"errors": [{"message": message, "extensions": extensions}]}
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body), status, headers, media_type=JSON)
