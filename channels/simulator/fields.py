"""The fields of the bank's requests: which must be there, and what each may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

AMOUNT_MINOR_MAX = 2**63 - 1
CURRENCIES = frozenset({"CNY", "EUR", "USD"})
COMPARED = (
    "kind",
    "amount_minor",
    "currency",
    "notify_url",
    "account_number",
    "holder_name",
    "bank_code",
)
"""What a second request under the same number must repeat."""


class Invalid(Exception):
    """A request that the bank does not process; `code` is its own error code."""

    def __init__(self, code: str, field: str) -> None:
        super().__init__(f"{code} {field}")
        self.code = code
        self.field = field


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; an empty body has no fields."""
    try:
        content = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        raise Invalid("FIELD_INVALID", "body") from None
    if not isinstance(content, dict):
        raise Invalid("FIELD_INVALID", "body")
    return content


def instruction(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The checked row of a payment or a payout; raises `Invalid` for the first wrong field."""
    row: dict[str, Any] = {
        "kind": kind,
        "number": _required(given, "number", _matching(r"[A-Za-z0-9_-]{1,64}")),
        "amount_minor": _required(given, "amount_minor", _amount),
        "currency": _required(given, "currency", lambda value: _one_of(value, CURRENCIES)),
        "description": _required(given, "description", _text_up_to(500)),
        "notify_url": _required(given, "notify_url", _page),
        "expires_at": _required(given, "expires_at", _instant),
        "return_url": None,
        "account_number": None,
        "holder_name": None,
        "bank_code": None,
        "return_seconds": None,
    }
    if kind == "PAY_IN" and given.get("return_url") is not None:
        row["return_url"] = _required(given, "return_url", _page)
    if kind == "PAY_OUT":
        row["account_number"] = _required(given, "account_number", _matching(r"[A-Za-z0-9]{5,34}"))
        row["holder_name"] = _required(given, "holder_name", _text_up_to(140))
        row["bank_code"] = _required(given, "bank_code", _matching(r"[A-Za-z0-9]{1,32}"))
    return row


def _required(given: dict[str, Any], name: str, read: Callable[[Any], Any]) -> Any:
    if given.get(name) is None:
        raise Invalid("FIELD_MISSING", name)
    try:
        return read(given[name])
    except (ValueError, TypeError, AttributeError):
        raise Invalid("FIELD_INVALID", name) from None


def _matching(pattern: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(value)
        return str(value)

    return read


def _text_up_to(length_max: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or len(value) > length_max:
            raise ValueError(value)
        return value

    return read


def _amount(value: Any) -> int:
    if type(value) is not int or not 0 < value <= AMOUNT_MINOR_MAX:
        raise ValueError(value)
    return value


def _one_of(value: Any, allowed: frozenset[str]) -> str:
    if value not in allowed:
        raise ValueError(value)
    return str(value)


def _page(value: Any) -> str:
    if len(value) > 2_000 or urlsplit(value).scheme not in {"http", "https"}:
        raise ValueError(value)
    return str(value)


def _instant(value: Any) -> float:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError(value)
    return instant.timestamp()
