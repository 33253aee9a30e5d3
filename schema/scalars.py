"""Scalars: exact integers, currency codes and instants. None of them ever passes a float for money.

A value that does not fit is refused before any resolver runs, with code `BAD_USER_INPUT`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NewType

import strawberry
from graphql import GraphQLError, IntValueNode, StringValueNode, ValueNode
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
CurrencyCode = NewType("CurrencyCode", str)
DateTime = NewType("DateTime", datetime)

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
DIGITS = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
CURRENCY = re.compile(r"[A-Z][A-Z0-9]{2,7}", re.ASCII)
INSTANT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def parse_big_int(value: Any) -> BigInt:
    """An integer or a string of digits within 64 bits; a boolean or a float is refused."""
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    if type(value) is not int or not INTEGER_MIN <= value <= INTEGER_MAX:
        raise GraphQLError("A BigInt is an integer, or a string of digits, of at most 64 bits.")
    return BigInt(value)


def parse_currency(value: Any) -> CurrencyCode:
    """The form of a code; whether there is such a currency is asked where it is used."""
    if not isinstance(value, str) or not CURRENCY.fullmatch(value):
        raise GraphQLError('A CurrencyCode is an ISO 4217 code in upper case, such as "CNY".')
    return CurrencyCode(value)


def parse_instant(value: Any) -> DateTime:
    """RFC 3339 with an offset, in UTC from here on."""
    try:
        if not isinstance(value, str) or not INSTANT.fullmatch(value):
            raise ValueError
        return DateTime(datetime.fromisoformat(value.upper()).astimezone(UTC))
    except (ValueError, OverflowError):
        raise GraphQLError(
            'A DateTime is RFC 3339 with an offset, such as "2026-01-31T12:00:00.000Z".'
        ) from None


def show_instant(value: datetime) -> str:
    """Whole milliseconds, rounded down, so that no event seems later than one that follows it."""
    whole = value.astimezone(UTC) - timedelta(microseconds=value.microsecond % 1_000)
    return whole.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _big_int_literal(node: ValueNode, _variables: Any = None) -> BigInt:
    if isinstance(node, IntValueNode | StringValueNode):
        text = node.value
        return parse_big_int(text if DIGITS.fullmatch(text) else None)
    return parse_big_int(None)


def _string_literal(parse: Any) -> Any:
    def parse_literal(node: ValueNode, _variables: Any = None) -> Any:
        return parse(node.value if isinstance(node, StringValueNode) else None)

    return parse_literal


SCALARS: dict[object, ScalarDefinition] = {
    BigInt: strawberry.scalar(
        name="BigInt",
        description="An integer of at most 64 bits. Sent as a string of digits, because many "
        "clients lose digits of large numbers; accepted as an integer or a string of digits.",
        serialize=lambda value: str(int(value)),
        parse_value=parse_big_int,
        parse_literal=_big_int_literal,
    ),
    CurrencyCode: strawberry.scalar(
        name="CurrencyCode",
        description="A currency by its ISO 4217 code in upper case, such as `CNY` or `JPY`.",
        serialize=str,
        parse_value=parse_currency,
        parse_literal=_string_literal(parse_currency),
    ),
    DateTime: strawberry.scalar(
        name="DateTime",
        description="An instant by RFC 3339, in UTC with milliseconds: "
        "`2026-01-31T12:00:00.000Z`. Any offset is accepted.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=show_instant,
        parse_value=parse_instant,
        parse_literal=_string_literal(parse_instant),
    ),
}
