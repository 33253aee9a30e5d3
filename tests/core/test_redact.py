"""What reaches a log: no card number, token, code or password; but ids and amounts do."""

from __future__ import annotations

import io
import logging
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.redact import RedactingFilter, redacted

CARDS = ["4111111111111111", "5500005555555559", "378282246310005", "6222021234567890123"]


def luhn_complete(digits: str) -> str:
    """The digits with the check digit that makes them a card number."""
    total = 0
    for position, digit in enumerate(reversed(digits), start=1):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


@given(st.text("0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_card_numbers_of_every_length_are_masked(digits: str, separator: str) -> None:
    number = luhn_complete(digits)
    written = separator.join(number[at : at + 4] for at in range(0, len(number), 4))
    for text in (written, f"card {written} refused", f'{{"pan": "{written}"}}', f"({written})"):
        assert written not in redacted(text)
        assert number[-4:] in redacted(text)


@pytest.mark.parametrize(
    "around", ["{}", "{}.", "{},", "pan={};", "'{}'", "{}?", "paid with {}.\n"]
)
def test_a_card_number_at_the_end_of_a_sentence_is_masked(around: str) -> None:
    for card in CARDS[:3]:
        assert card not in redacted(around.format(card))


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: {}",
        '"authorization": "Bearer {}"',
        "Bearer {}",
        "token={}",
        "refresh_token={}",
        '{{"refreshToken": "{}"}}',
        '{{"accessToken":"{}"}}',
        "client_secret: {}",
        "password={}",
        "new_password: {}",
        '{{"paymentPassword": "{}"}}',
        "{{'payment_password': '{}'}}",
        "signature={}",
        "Signature: sig1=:{}:",
    ],
)
def test_what_follows_a_secrets_name_is_gone(text: str) -> None:
    canary = "eyJhbGciOiJFUzI1NiJ9.cGF5bG9hZA.c2lnbmF0dXJl"
    assert canary not in redacted(text.format(canary))
    assert "c2lnbmF0dXJl" not in redacted(text.format(canary))


@pytest.mark.parametrize("text", ["code 802451", "code=802451", '"code": "802451"', "cvv: 1234"])
def test_one_time_codes_are_gone(text: str) -> None:
    assert "802451" not in redacted(text)
    assert "1234" not in redacted(text)


@given(st.uuids())
def test_ids_survive(value: uuid.UUID) -> None:
    for text in (str(value), f"order {value} closed", f"order:{value}", f"/orders/{value}."):
        assert redacted(text) == text


@given(st.integers(0, 10**12 - 1))
def test_amounts_survive(amount_minor: int) -> None:
    for text in (f"amount_minor={amount_minor}", f"paid {amount_minor / 100:.2f} CNY"):
        assert redacted(text) == text


def test_ordinary_lines_survive() -> None:
    for text in (
        "operation 0190a1b2-0000-7000-8000-00000000000a of bank: UNKNOWN after 10.0 s",
        "2026-01-02T03:04:05.678901+00:00 GET /health/ready 200",
        "refused with code INSUFFICIENT_AVAILABLE",
    ):
        assert redacted(text) == text


def test_the_filter_redacts_arguments_and_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("test.redact")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        logger.warning("card %s, password=%s", CARDS[0], "hunter22")
        try:
            raise ValueError(f"bad card {CARDS[1]}")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    written = stream.getvalue()
    assert "ValueError: bad card [card …5559]" in written
    assert not any(secret in written for secret in (CARDS[0], CARDS[1], "hunter22"))
