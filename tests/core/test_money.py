"""Money: integers alone, one rounding, and parts that add up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidArgument
from core.money import (
    AMOUNT_MINOR_MAX,
    Money,
    exponent,
    fee_minor,
    fee_refund_minor,
    formatted,
    minor_units,
    positive,
)

amounts = st.integers(1, AMOUNT_MINOR_MAX)
rates = st.integers(0, 1_000_000)


@given(amounts, rates)
def test_a_fee_is_the_exact_product_rounded_half_even(amount_minor: int, rate: int) -> None:
    assert fee_minor(amount_minor, rate) == round(Fraction(amount_minor * rate, 1_000_000))


@pytest.mark.parametrize(
    ("amount_minor", "rate", "fee"),
    [
        (50, 10_000, 0),  # 0.5 goes to the even 0
        (150, 10_000, 2),  # 1.5 goes to the even 2
        (250, 10_000, 2),  # 2.5 goes to the even 2
        (3_000, 6_000, 18),
        (1, 0, 0),
        (7, 2_000_000, 7),  # never more than the amount
        (7, -1, 0),  # never negative
    ],
)
def test_a_fee_lies_between_nothing_and_the_amount(amount_minor: int, rate: int, fee: int) -> None:
    assert fee_minor(amount_minor, rate) == fee


@given(st.data())
def test_the_fee_parts_of_all_refunds_sum_to_the_fee(data: st.DataObject) -> None:
    captured = data.draw(st.integers(1, 10**12), "captured")
    fee = fee_minor(captured, data.draw(rates, "rate"))
    given_back = refunded = 0
    while refunded < captured:
        refund = data.draw(st.integers(max(1, (captured - refunded) // 6), captured - refunded))
        part = fee_refund_minor(fee, refunded, refund, captured, given_back)
        assert 0 <= part <= refund
        given_back, refunded = given_back + part, refunded + refund
        assert given_back <= fee
    assert given_back == fee


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money(3_000, "CNY"), "30.00"),
        (Money(-5, "CNY"), "-0.05"),
        (Money(0, "CNY"), "0.00"),
        (Money(3_000, "JPY"), "3000"),
        (Money(1, "KWD"), "0.001"),
        (Money(AMOUNT_MINOR_MAX, "CNY"), "92233720368547758.07"),
    ],
)
def test_amounts_are_written_with_their_currencys_decimals(money: Money, text: str) -> None:
    assert formatted(money) == text
    assert minor_units(text, money.currency) == money.amount_minor


@given(st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX), st.sampled_from(["CNY", "JPY", "KWD"]))
def test_writing_and_reading_an_amount_gives_the_same_integer(amount: int, currency: str) -> None:
    assert minor_units(formatted(Money(amount, currency)), currency) == amount


@pytest.mark.parametrize("text", ["0.001", "1e-3", "abc", "", "NaN", "sNaN", "Infinity", "1,0"])
def test_input_finer_than_the_minor_unit_or_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        minor_units(text, "CNY")


def test_an_amount_too_large_to_exist_is_refused_at_once() -> None:
    with pytest.raises(InvalidArgument):
        minor_units("1e999999", "CNY")


@pytest.mark.parametrize("amount_minor", [0, -1, AMOUNT_MINOR_MAX + 1])
def test_a_payment_is_positive_and_fits_in_64_bits(amount_minor: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        positive(Money(amount_minor, "CNY"))
    assert refused.value.field == ("amount", "amountMinor")


@pytest.mark.parametrize("currency", ["ZZZ", "", "cny", "XXX", "XAU", "C\x00Y"])
def test_a_code_without_a_minor_unit_is_no_currency(currency: str) -> None:
    with pytest.raises(InvalidArgument):
        exponent(currency)
