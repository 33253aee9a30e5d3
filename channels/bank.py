"""The bank: pay in by redirect to its cashier page, pay out to a bank account.

Speaks signed JSON over HTTP (`signed_json.py`). The bank is idempotent on our request number. An
answer that is late, cut, too large, unsigned or undefined is `UNKNOWN`, never a failure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from channels import outgoing, signed_json
from channels.contract import (
    Acknowledgement,
    AmountLimits,
    CallbackEvent,
    ChannelProfile,
    Instruction,
    InstructionKind,
    Result,
    ResultKind,
    StatementLine,
)
from core import configuration, money
from core.errors import InvalidArgument, SignatureInvalid

CHANNEL = ChannelProfile(
    code="bank",
    kinds=frozenset({InstructionKind.PAY_IN, InstructionKind.PAY_OUT}),
    capabilities=frozenset({"REDIRECT", "QUERY", "CLOSE", "STATEMENT"}),
    limits={
        "CNY": AmountLimits(1, 5_000_000_00),
        "EUR": AmountLimits(1, 500_000_00),
        "USD": AmountLimits(1, 500_000_00),
    },
    queries_consistent=True,
    success_may_be_withdrawn=frozenset({InstructionKind.PAY_OUT}),
)

ACKNOWLEDGED = b'{"code":"SUCCESS"}'
STATEMENT_COLUMNS = ["booked_at", "type", "trade_no", "number", "currency", "amount", "fee"]

_VERDICTS = {
    "SUCCESS": ResultKind.SUCCESS,
    "PENDING": ResultKind.PENDING,
    "DECLINED": ResultKind.DECLINED,
    "CLOSED": ResultKind.CLOSED,
}
_REFUSED_BEFORE_PROCESSING = frozenset(
    {"KEY_UNKNOWN", "SIGNATURE_INVALID", "TIMESTAMP_OUTSIDE_WINDOW", "NONCE_REUSED", "BUSY"}
)
_INVALID_INSTRUCTION = frozenset({"FIELD_MISSING", "FIELD_INVALID"})


async def invoke(instruction: Instruction) -> Result:
    """Send a pay-in or a payout; a resend under the same number is booked once. Never raises.

    A pay-in answers `PENDING` with the `action_url` of the bank's cashier page; a payout answers
    `PENDING`, and the outcome comes by callback. `NOT_SENT` only where no byte can have left, or
    the bank signs that it refused the request before looking at it.
    """
    fields: dict[str, Any] = {
        "number": instruction.request_number,
        "amount_minor": instruction.amount.amount_minor,
        "currency": instruction.amount.currency,
        "description": instruction.description,
        "notify_url": instruction.notify_url,
        "expires_at": instruction.expires_at.astimezone(UTC).isoformat(),
    }
    if instruction.kind is InstructionKind.PAY_IN:
        path = "/v1/payments"
        fields["return_url"] = instruction.return_url
    elif instruction.destination is None:
        return Result(kind=ResultKind.DECLINED, reason="DESTINATION_MISSING")
    else:
        path = "/v1/payouts"
        fields["account_number"] = instruction.destination.account_number
        fields["holder_name"] = instruction.destination.holder_name
        fields["bank_code"] = instruction.destination.bank_code
    return await _call("POST", path, fields, instruction.request_number, ResultKind.NOT_SENT)


async def query(request_number: str) -> Result:
    """The bank's state of a number; `NOT_FOUND` if it knows none. Never raises."""
    path = f"/v1/instructions/{quote(request_number, safe='')}"
    return await _call("GET", path, None, request_number, ResultKind.UNKNOWN)


async def close(request_number: str) -> Result:
    """End an unpaid pay-in: `CLOSED`, or what it already is. A payout stays. Never raises."""
    path = f"/v1/instructions/{quote(request_number, safe='')}/close"
    return await _call("POST", path, {}, request_number, ResultKind.UNKNOWN)


def parse_callback(headers: Mapping[str, str], body: bytes) -> CallbackEvent:
    """The verified event in a callback.

    Raises `SignatureInvalid` for a wrong signature, key, time or client, all alike, before the body
    is parsed; `InvalidArgument` for a body that the bank signed but that says nothing defined.
    """
    settings = configuration.current()
    path = f"{urlsplit(settings.public_url).path.rstrip('/')}/callbacks/{CHANNEL.code}"
    if signed_json.refusal(settings.bank_public_key, f"POST {path}", headers, body):
        raise SignatureInvalid()
    try:
        parsed = _object(body)
        event_id = _text(parsed, "event_id")
        request_number = _text(parsed, "number")
        client = _text(parsed, "client")
        result = _verdict(parsed, body, event_id=event_id)
        kind = InstructionKind(_text(parsed, "kind"))
    except ValueError:
        raise InvalidArgument("The callback is not understood.") from None
    if client != _our_key_name():
        raise SignatureInvalid()
    return CallbackEvent(
        channel=CHANNEL.code,
        event_id=event_id,
        type=f"{kind}.{result.kind}",
        request_number=request_number,
        result=result,
        raw=body,
        parsed=parsed,
    )


def acknowledge(event: CallbackEvent) -> Acknowledgement:
    """The bank repeats a callback until it reads exactly these bytes with status 200."""
    return Acknowledgement(200, {"content-type": "application/json"}, ACKNOWLEDGED)


def parse_statement(content: bytes) -> list[StatementLine]:
    """The bookings of one day's statement, in the bank's order.

    A CSV file: a row of column names, one row per booking with decimal amounts (money out
    negative), and a last row `TOTAL,<number of bookings>`. Raises `InvalidArgument` for a file
    that is cut or wrong.
    """
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8")), strict=True))
        if len(rows) < 2 or rows[0] != STATEMENT_COLUMNS:
            raise ValueError("the column names are missing")
        if rows[-1] != ["TOTAL", str(len(rows) - 2)]:
            raise ValueError("the total is missing or another one")
        return [_statement_line(row) for row in rows[1:-1]]
    except (ValueError, csv.Error) as error:
        raise InvalidArgument(f"The statement is not complete: {error}.") from None


async def _call(
    method: str,
    path: str,
    fields: dict[str, Any] | None,
    request_number: str,
    unsent: ResultKind,
) -> Result:
    """One signed exchange about one number. `unsent`: what it means that nothing has left."""
    settings = configuration.current()
    url = settings.bank_url.rstrip("/") + path
    subject = f"{method} {urlsplit(url).path}"
    body = b"" if fields is None else orjson.dumps(fields)
    headers = signed_json.signed_headers(settings.bank_private_key, subject, body)
    answer = await outgoing.exchange(
        method, url, headers, body, timeout_seconds=CHANNEL.call_timeout_seconds
    )
    if answer.failure:
        kind = ResultKind.UNKNOWN if answer.began else unsent
        return Result(kind=kind, reason=answer.failure, latency_ms=answer.latency_ms)
    unverified = signed_json.refusal(
        settings.bank_public_key,
        f"{answer.status} {subject}",
        answer.headers,
        answer.body,
        nonce=headers[signed_json.NONCE_HEADER],
    )
    if unverified:
        return _unknown(f"ANSWER_{unverified}", answer)
    try:
        return _read(answer, request_number, unsent)
    except ValueError:
        return _unknown("ANSWER_UNDEFINED", answer)


def _read(answer: outgoing.Exchange, request_number: str, unsent: ResultKind) -> Result:
    """The meaning of a verified answer; raises `ValueError` if it has none that we know."""
    if answer.status >= 500:
        return _unknown(f"HTTP_{answer.status}", answer)
    parsed = _object(answer.body)
    if answer.status == 200:
        if parsed.get("number") != request_number or parsed.get("client") != _our_key_name():
            return _unknown("ANSWER_FOR_ANOTHER_NUMBER", answer)
        return _verdict(parsed, answer.body, latency_ms=answer.latency_ms)
    reason = _text(parsed, "error")
    if reason == "NUMBER_UNKNOWN":
        kind = ResultKind.NOT_FOUND
    elif reason in _REFUSED_BEFORE_PROCESSING:
        kind = unsent
    elif reason in _INVALID_INSTRUCTION:
        kind = ResultKind.DECLINED if unsent is ResultKind.NOT_SENT else ResultKind.UNKNOWN
    else:
        # The number stands at the bank with other parameters, or the bank says what we do not know.
        kind = ResultKind.UNKNOWN
    return Result(kind=kind, reason=reason, raw=answer.body, latency_ms=answer.latency_ms)


def _verdict(
    parsed: Mapping[str, Any],
    raw: bytes,
    *,
    event_id: str | None = None,
    latency_ms: float = 0.0,
) -> Result:
    """The state that the bank reports; raises `ValueError` for a missing or undefined field."""
    kind = _VERDICTS.get(_text(parsed, "status"))
    amount_minor = parsed.get("amount_minor")
    if kind is None or type(amount_minor) is not int:
        raise ValueError("the status or the amount is not defined")
    if not 0 < amount_minor <= money.AMOUNT_MINOR_MAX:
        raise ValueError("the amount is out of range")
    action_url = _optional_text(parsed, "action_url", length_max=2_000)
    if action_url and urlsplit(action_url).scheme not in {"https", "http"}:
        raise ValueError("the action is not a page")
    return Result(
        kind=kind,
        payer_must_act=kind is ResultKind.PENDING and action_url is not None,
        action_url=action_url if kind is ResultKind.PENDING else None,
        channel_trade_no=_text(parsed, "trade_no"),
        reason=_optional_text(parsed, "reason"),
        retryable=parsed.get("retryable") is True,
        soft=parsed.get("soft") is True,
        amount_minor=amount_minor,
        currency=_text(parsed, "currency"),
        occurred_at=_instant(_text(parsed, "occurred_at")),
        event_id=event_id,
        raw=raw,
        latency_ms=latency_ms,
    )


def _statement_line(row: list[str]) -> StatementLine:
    booked_at, type_, trade_no, number, currency, amount, fee = row
    return StatementLine(
        channel_trade_no=trade_no,
        request_number=number,
        type=type_,
        amount_minor=money.minor_units(amount, currency),
        fee_minor=money.minor_units(fee, currency),
        currency=currency,
        booked_at=_instant(booked_at),
    )


def _unknown(reason: str, answer: outgoing.Exchange) -> Result:
    return Result(kind=ResultKind.UNKNOWN, reason=reason, latency_ms=answer.latency_ms)


def _our_key_name() -> str:
    private_key = signed_json.private_key_of(configuration.current().bank_private_key)
    return signed_json.key_name(private_key.public_key())


def _object(body: bytes) -> dict[str, Any]:
    parsed = orjson.loads(body)
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return parsed


def _text(parsed: Mapping[str, Any], name: str, length_max: int = 64) -> str:
    value = parsed.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= length_max:
        raise ValueError(f"{name} is not a text")
    return value


def _optional_text(parsed: Mapping[str, Any], name: str, length_max: int = 64) -> str | None:
    return None if parsed.get(name) is None else _text(parsed, name, length_max)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("an instant without an offset")
    return instant.astimezone(UTC)
