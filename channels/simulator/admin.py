"""The script's entrance: faults in, books and callbacks out. Loopback only, with a token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import fields as fields_of
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from channels.simulator import faults, fields, ledger
from channels.simulator.api import limited_body
from channels.simulator.callbacks import Bank
from channels.simulator.faults import Fault, FaultOperation, Plan

Endpoint = Callable[[Request], Awaitable[Response]]

PLAN_FIELDS = frozenset(field.name for field in fields_of(Plan))


def guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint, for a caller on this machine that shows the token; 404 for anyone else."""

    async def answer(request: Request) -> Response:
        bank: Bank = request.app.state.bank
        given = request.headers.get("authorization", "").encode()
        expected = f"Bearer {bank.settings.admin_token}".encode()
        host = request.client.host if request.client else ""
        if not hmac.compare_digest(given, expected) or not _is_loopback(host):
            return JSONResponse({"error": "NOT_FOUND"}, 404)
        try:
            return await endpoint(request)
        except (fields.Invalid, ValueError, TypeError, KeyError) as error:
            return JSONResponse({"error": "FIELD_INVALID", "message": str(error)}, 400)

    return answer


async def add_fault(request: Request) -> Response:
    """POST a line of the script: the fields of `Plan`; `operation` and `fault` are needed."""
    bank: Bank = request.app.state.bank
    given: dict[str, Any] = fields.parsed(await limited_body(request))
    if unknown := given.keys() - PLAN_FIELDS:
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    given["operation"] = FaultOperation(given["operation"])
    given["fault"] = Fault(given["fault"])
    return JSONResponse({"fault_id": faults.add(bank.connection, Plan(**given))}, 201)


async def show_faults(request: Request) -> Response:
    """GET the script, with what is left of each line."""
    bank: Bank = request.app.state.bank
    return JSONResponse(faults.listed(bank.connection))


async def clear_faults(request: Request) -> Response:
    """DELETE the script."""
    bank: Bank = request.app.state.bank
    faults.clear(bank.connection)
    return Response(status_code=204)


async def show_ledger(request: Request) -> Response:
    """GET what was booked, `?number=` for one instruction."""
    bank: Bank = request.app.state.bank
    return JSONResponse(ledger.report(bank.connection, request.query_params.get("number")))


async def show_callbacks(request: Request) -> Response:
    """GET the callbacks of `?number=`, or all, with their tries."""
    bank: Bank = request.app.state.bank
    rows = bank.connection.execute(
        """
        SELECT event_id, number, url, tries_count, next_at, last_answer, acknowledged_at
        FROM callback WHERE ?1 IS NULL OR number = ?1 ORDER BY rowid
        """,
        (request.query_params.get("number"),),
    ).fetchall()
    return JSONResponse([dict(row) for row in rows])


async def add_webhook_secret(request: Request) -> Response:
    """POST `{"secret": "whsec_…"}`: from now on the merchant's receiver believes this secret."""
    bank: Bank = request.app.state.bank
    secret = fields.parsed(await limited_body(request)).get("secret")
    if not isinstance(secret, str) or not secret.startswith("whsec_"):
        raise ValueError("a webhook secret begins with whsec_")
    bank.connection.execute(
        "INSERT INTO webhook_secret (secret) VALUES (?) ON CONFLICT DO NOTHING", (secret,)
    )
    return Response(status_code=204)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
