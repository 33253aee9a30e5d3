"""Where a customer can be reached: a phone in E.164 or an e-mail address, in one canonical form
each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from core.errors import InvalidArgument

AddressKind = Literal["PHONE", "EMAIL"]
PREFIX_DIGITS_OPEN = 4
"""Numbers that differ only in their last four digits count as one prefix."""


@dataclass(frozen=True, slots=True)
class Address:
    """`value` is E.164 (`+8613812345678`) or a lower-case e-mail address."""

    kind: AddressKind
    value: str


def parse_address(unchecked_phone: str | None, unchecked_email: str | None) -> Address:
    """The one address that was given; raises `InvalidArgument` for none, both or a malformed
    one.
    """
    if (unchecked_phone is None) == (unchecked_email is None):
        raise InvalidArgument("Give either a phone number or an e-mail address.")
    if unchecked_phone is not None:
        return _phone(unchecked_phone)
    return _email(unchecked_email or "")


def masked(address: Address) -> str:
    """Enough for its owner to recognise it: `+86*******5678`, `a***@example.com`."""
    if address.kind == "PHONE":
        return f"{address.value[:3]}{'*' * (len(address.value) - 7)}{address.value[-4:]}"
    local, _, domain = address.value.partition("@")
    return f"{local[:1]}***@{domain}"


def prefix(phone: str) -> str:
    """The block of numbers that a limit against pumped messages counts by."""
    return phone[:-PREFIX_DIGITS_OPEN]


def address_of(phone: str | None, email: str | None) -> Address | None:
    """The address in the columns of a row, the phone first."""
    if phone is not None:
        return Address("PHONE", phone)
    return Address("EMAIL", email) if email is not None else None


def _phone(unchecked_phone: str) -> Address:
    refusal = InvalidArgument("This is not a phone number in international form.", field=("phone",))
    if len(unchecked_phone) > 32:
        raise refusal
    try:
        number = phonenumbers.parse(unchecked_phone, None)
    except phonenumbers.NumberParseException:
        raise refusal from None
    if not phonenumbers.is_valid_number(number):
        raise refusal
    return Address("PHONE", phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _email(unchecked_email: str) -> Address:
    refusal = InvalidArgument("This is not an e-mail address.", field=("email",))
    if len(unchecked_email) > 254:
        raise refusal
    try:
        checked = validate_email(unchecked_email, check_deliverability=False)
    except EmailNotValidError:
        raise refusal from None
    return Address("EMAIL", checked.normalized.lower())
