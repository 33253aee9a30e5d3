"""Who a request comes from: a signature over its raw bytes, or a token. Checked before GraphQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request

from core.errors import Unauthenticated
from identity import signatures, tokens
from identity.caller import Caller
from resolvers.context import RequestContext, request_context

BEARER = "bearer "


async def context_of_request(request: Request) -> RequestContext:
    """The context of an HTTP request; see `context_of_parts`."""
    return await context_of_parts(
        request.method,
        _target(request),
        request.headers,
        await request.body(),
        request.client.host if request.client else "",
    )


async def context_of_parts(
    method: str, target: str, headers: Mapping[str, str], body: bytes, address: str
) -> RequestContext:
    """The context of a request by what it consists of; `headers` have lower-case names.

    A request that claims to be signed is judged by its signature alone. Raises `SignatureInvalid`
    or `Unauthenticated`; without either proof the caller is nobody, who may do little.
    """
    if signatures.is_signed(headers):
        caller = await signatures.verify_request(method, target, headers, body)
        return request_context(caller, address)
    token = bearer_token(headers.get("authorization"))
    verified = await tokens.verify_access(token) if token is not None else None
    return request_context(verified, address, token=token)


async def context_of_socket(socket: HTTPConnection) -> RequestContext:
    """The context of a socket, whose caller is nobody until `connection_init` brought a token."""
    address = socket.client.host if socket.client else ""
    return request_context(None, address, authorization=socket.headers.get("authorization"))


async def sign_in(context: RequestContext) -> Caller:
    """The caller of a socket, by the token in `connection_init` or in the handshake.

    Raises `Unauthenticated`.
    """
    params: dict[str, Any] = context.connection_params or {}
    given = params.get("authorization", params.get("Authorization", context.authorization))
    token = bearer_token(given if isinstance(given, str) else None)
    if token is None:
        raise Unauthenticated()
    context.caller = await tokens.verify_access(token)
    context.client = str(context.caller.principal)
    context.token = token
    return context.caller


def bearer_token(authorization: str | None) -> str | None:
    """The token of the header; None without one. Any other scheme is nobody's proof."""
    if authorization is None:
        return None
    if not authorization.lower().startswith(BEARER):
        raise Unauthenticated()
    return authorization[len(BEARER) :].strip()


def _target(request: Request) -> str:
    """The path and query as they were sent, which is what was signed."""
    path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")
