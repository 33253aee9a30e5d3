"""Addresses have one canonical form, or are refused."""

from __future__ import annotations

import pytest

from core.errors import InvalidArgument
from identity.addresses import Address, masked, parse_address, prefix


@pytest.mark.parametrize(
    ("unchecked", "value"),
    [
        ("+86 138 1234 5678", "+8613812345678"),
        ("+8613812345678", "+8613812345678"),
        ("+49 (0)30 901820", "+4930901820"),
        ("+1-202-456-1111", "+12024561111"),
    ],
)
def test_spellings_of_a_phone_number_are_one(unchecked: str, value: str) -> None:
    assert parse_address(unchecked, None) == Address("PHONE", value)


@pytest.mark.parametrize(
    "unchecked",
    [
        "",
        "13812345678",
        "+86",
        "+999123456789",
        "call me",
        "+86138123456789012",
        "9" * 1000,
        "\x00",
    ],
)
def test_what_is_no_international_number_is_refused(unchecked: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_address(unchecked, None)


@pytest.mark.parametrize(
    ("unchecked", "value"),
    [("A@Example.com", "a@example.com"), ("li@bücher.example.com", "li@bücher.example.com")],
)
def test_spellings_of_an_e_mail_address_are_one(unchecked: str, value: str) -> None:
    assert parse_address(None, unchecked) == Address("EMAIL", value)


@pytest.mark.parametrize(
    "unchecked", ["", "a", "a@", "@b.com", "a@b@c.com", "a b@c.com", f"{'a' * 250}@example.com"]
)
def test_what_is_no_e_mail_address_is_refused(unchecked: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_address(None, unchecked)


def test_exactly_one_address_is_given() -> None:
    for pair in ((None, None), ("+8613812345678", "a@example.com")):
        with pytest.raises(InvalidArgument):
            parse_address(*pair)


def test_a_masked_address_shows_its_owner_enough_and_others_little() -> None:
    assert masked(Address("PHONE", "+8613812345678")) == "+86*******5678"
    assert masked(Address("EMAIL", "lixiaoming@example.com")) == "l***@example.com"


def test_neighbouring_numbers_share_a_prefix() -> None:
    assert prefix("+8613812345678") == prefix("+8613812349999") == "+861381234"
