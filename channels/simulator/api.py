"""The bank's signed interface: payments, payouts, queries, closes and statements.

Every request's signature, time and nonce are verified before it is read; every answer, refusals
too, is signed. The fault script acts here, before and after the bank commits, never in the books.
"""

from __future__ import annotations

import asyncio
import csv
import io
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from channels import signed_json
from channels.simulator import faults, fields, ledger
from channels.simulator.callbacks import Bank, deliver_now, signed
from channels.simulator.faults import Fault, FaultOperation
from channels.simulator.ledger import Verdict
from core import clock
from core.money import Money, formatted

STATEMENT_COLUMNS = ["booked_at", "type", "trade_no", "number", "currency", "amount", "fee"]
HUGE_ANSWER_BYTES = 10_000_000
HANG_SECONDS_MAX = 60.0
NONCE_SECONDS = 2 * signed_json.WINDOW_SECONDS

Struck = dict[Fault, sqlite3.Row]
Act = Callable[[Bank, dict[str, Any], Struck], tuple[int, dict[str, Any]]]
Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(operation: FaultOperation, act: Act) -> Endpoint:
    """An endpoint that verifies, lets the script strike around `act`, and signs what it answers.

    `act` gets the fields of the body and of the path; it raises `fields.Invalid` for a wrong one.
    """

    async def answer(request: Request) -> Response:
        bank: Bank = request.app.state.bank
        subject = f"{request.method} {request.url.path}"
        nonce = request.headers.get(signed_json.NONCE_HEADER)
        try:
            body = await limited_body(request)
            refused = _refusal(bank, request, subject, body)
            given = {} if refused else {**fields.parsed(body), **request.path_params}
        except fields.Invalid as invalid:
            refused, given = invalid.code, {}
        if refused:
            status = 400 if refused.startswith("FIELD") else 401
            return _signed(bank, status, {"error": refused}, subject, nonce, {})
        number = str(given.get("number", ""))
        struck = faults.drawn(bank.connection, operation, number)
        if early := await _before_commit(struck):
            return early
        try:
            status, reply = act(bank, given, struck)
        except fields.Invalid as invalid:
            status, reply = 400, {"error": invalid.code, "field": invalid.field}
        bank.wake.set()
        if Fault.EARLY_CALLBACK in struck:
            await deliver_now(bank, number)
        if Fault.WRONG_AMOUNT in struck and "amount_minor" in reply:
            reply["amount_minor"] += struck[Fault.WRONG_AMOUNT]["amount_minor"]
        return await _after_commit(request, struck) or _signed(
            bank, status, reply, subject, nonce, struck
        )

    return answer


def pay_in(bank: Bank, given: dict[str, Any], struck: Struck) -> tuple[int, dict[str, Any]]:
    """Open a payment session: the payer pays on the cashier page until it expires."""
    row = fields.instruction("PAY_IN", given)
    open_seconds = max(0.0, row["expires_at"] - clock.now().timestamp())
    return _registered(bank, row, replace(ledger.EXPIRED, after_seconds=open_seconds), struck)


def pay_out(bank: Bank, given: dict[str, Any], struck: Struck) -> tuple[int, dict[str, Any]]:
    """Take a payout. The last two digits of the account decide what becomes of it:

    01 refused at once · 02 soft refusal (bank away) · 03 refused later ·
    04 paid and later returned · 05 never ends · anything else paid after a short delay.
    """
    row = fields.instruction("PAY_OUT", given)
    seconds = bank.settings.payout_seconds * bank.settings.time_factor
    if row["account_number"].endswith("04"):
        row["return_seconds"] = bank.settings.return_seconds * bank.settings.time_factor
    verdict = {
        "01": Verdict(status="DECLINED", reason="ACCOUNT_CLOSED"),
        "02": Verdict(status="DECLINED", reason="BANK_AWAY", retryable=True, soft=True),
        "03": Verdict(status="DECLINED", reason="ACCOUNT_UNKNOWN", after_seconds=seconds),
        "05": Verdict(status="PENDING"),
    }.get(row["account_number"][-2:], replace(ledger.PAID, after_seconds=seconds))
    return _registered(bank, row, verdict, struck)


def query(bank: Bank, given: dict[str, Any], _: Struck) -> tuple[int, dict[str, Any]]:
    """The state of a number."""
    row = ledger.found(bank.connection, given["number"])
    return (200, _state(bank, row)) if row else (404, {"error": "NUMBER_UNKNOWN"})


def close(bank: Bank, given: dict[str, Any], struck: Struck) -> tuple[int, dict[str, Any]]:
    """End an unpaid payment session; anything else stays and answers what it is."""
    row = ledger.found(bank.connection, given["number"])
    if row is not None and row["kind"] == "PAY_IN":
        ledger.decide(bank.connection, row["number"], ledger.CLOSED, only_from="PENDING")
        row = ledger.found(bank.connection, given["number"])
    if row is None:
        return 404, {"error": "NUMBER_UNKNOWN"}
    reply = _state(bank, row)
    if late := struck.get(Fault.SUCCESS_AFTER_CLOSE):
        paid_late = replace(ledger.PAID, after_seconds=late["seconds"])
        ledger.decide(bank.connection, row["number"], paid_late, only_from="CLOSED")
    return 200, reply


async def statement(request: Request) -> Response:
    """The bookings of one UTC day as a CSV file, signed like any answer."""
    bank: Bank = request.app.state.bank
    subject = f"GET {request.url.path}"
    nonce = request.headers.get(signed_json.NONCE_HEADER)
    if refused := _refusal(bank, request, subject, b""):
        return _signed(bank, 401, {"error": refused}, subject, nonce, {})
    try:
        begin = datetime.combine(
            date.fromisoformat(request.path_params["day"]), time.min, tzinfo=UTC
        ).timestamp()
    except ValueError:
        return _signed(bank, 400, {"error": "FIELD_INVALID"}, subject, nonce, {})
    rows = ledger.bookings(bank.connection, begin, begin + 86_400)
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(STATEMENT_COLUMNS)
    for row in rows:
        amount = formatted(Money(row["amount_minor"], row["currency"]))
        booked_at = ledger.instant(row["booked_at"])
        writer.writerow(
            [
                booked_at,
                row["type"],
                row["trade_no"],
                row["number"],
                row["currency"],
                amount,
                "0.00",
            ]
        )
    writer.writerow(["TOTAL", len(rows)])
    body = content.getvalue().encode()
    headers = {**signed(bank, f"200 {subject}", body, {}, nonce), "content-type": "text/csv"}
    return Response(body, headers=headers)


async def limited_body(request: Request) -> bytes:
    """The raw body; raises `fields.Invalid` as soon as it is longer than the protocol allows."""
    received = bytearray()
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > signed_json.BODY_BYTES_MAX:
                raise fields.Invalid("FIELD_INVALID", "body")
    except ClientDisconnect:
        raise fields.Invalid("FIELD_MISSING", "body") from None
    return bytes(received)


def _registered(
    bank: Bank, row: dict[str, Any], verdict: Verdict, struck: Struck
) -> tuple[int, dict[str, Any]]:
    """Register once; the same number with the same fields answers what it has become."""
    if decline := struck.get(Fault.DECLINE):
        verdict = Verdict(
            status="DECLINED",
            reason=decline["reason"],
            retryable=bool(decline["retryable"]),
            soft=bool(decline["soft"]),
        )
    known = ledger.found(bank.connection, row["number"])
    if known is not None and any(known[name] != row[name] for name in fields.COMPARED):
        return 409, {"error": "NUMBER_USED_WITH_OTHER_FIELDS"}
    row["client"] = bank.settings.client
    row["silent"] = Fault.SILENCE in struck
    reply = _state(bank, ledger.register(bank.connection, row, verdict))
    if Fault.EARLY_CALLBACK in struck:
        # The answer still says what was true before: it will be overtaken by the callback.
        ledger.decide(bank.connection, row["number"], ledger.PAID, only_from="PENDING")
    return 200, reply


def _state(bank: Bank, row: sqlite3.Row) -> dict[str, Any]:
    state = ledger.state_of(row)
    if row["status"] == "PENDING" and row["cashier_id"]:
        state["action_url"] = f"{bank.settings.public_url}/cashier/{row['cashier_id']}"
    return state


def _refusal(bank: Bank, request: Request, subject: str, body: bytes) -> str | None:
    """Why a request is not even read: not signed by the client, too old, or seen before."""
    refused = signed_json.refusal(bank.settings.client_public_key, subject, request.headers, body)
    if refused:
        return refused
    at = clock.now().timestamp()
    bank.connection.execute("DELETE FROM nonce WHERE seen_at < ?", (at - NONCE_SECONDS,))
    fresh = bank.connection.execute(
        "INSERT INTO nonce (nonce, seen_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (request.headers[signed_json.NONCE_HEADER], at),
    )
    return None if fresh.rowcount else "NONCE_REUSED"


async def _before_commit(struck: Struck) -> Response | None:
    if delay := struck.get(Fault.DELAY_BEFORE_COMMIT):
        await asyncio.sleep(delay["seconds"])
    if Fault.DROP_BEFORE_COMMIT in struck:
        return _CutAnswer()
    if Fault.ERROR_BEFORE_COMMIT in struck:
        return Response("Bad gateway", status_code=502)
    return None


async def _after_commit(request: Request, struck: Struck) -> Response | None:
    if delay := struck.get(Fault.DELAY_AFTER_COMMIT):
        await asyncio.sleep(delay["seconds"])
    if Fault.HANG_AFTER_COMMIT in struck:
        await _until_disconnected(request)
        return _CutAnswer()
    if Fault.DROP_AFTER_COMMIT in struck:
        return _CutAnswer()
    if Fault.ERROR_AFTER_COMMIT in struck:
        return Response("Bad gateway", status_code=502)
    if Fault.HUGE_ANSWER in struck:
        return Response(b" " * HUGE_ANSWER_BYTES, media_type="application/json")
    if Fault.SLOW_DRIP in struck:
        return StreamingResponse(_drops(), media_type="application/json")
    return None


def _signed(
    bank: Bank, status: int, reply: dict[str, Any], subject: str, nonce: str | None, struck: Struck
) -> Response:
    body = orjson.dumps(reply)
    headers = signed(bank, f"{status} {subject}", body, struck, nonce)
    return Response(body, status_code=status, headers=headers)


class _CutAnswer(Response):
    """An answer that ends before it said anything: the server closes the connection under it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _until_disconnected(request: Request) -> None:
    for _ in range(int(HANG_SECONDS_MAX * 10)):
        if await request.is_disconnected():
            return
        await asyncio.sleep(0.1)


async def _drops() -> AsyncIterator[bytes]:
    for _ in range(int(HANG_SECONDS_MAX * 10)):
        yield b" "
        await asyncio.sleep(0.1)
