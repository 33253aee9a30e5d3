"""Identifiers, randomness, and who a phase acts for."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, principal
from core.principal import SYSTEM, Principal


def test_fresh_ids_are_version_7_and_ascend() -> None:
    fresh = [ids.new_id() for _ in range(1_000)]
    assert {each.version for each in fresh} == {7}
    assert len(set(fresh)) == 1_000
    assert [each.bytes[:6] for each in fresh] == sorted(each.bytes[:6] for each in fresh)


def test_a_derived_id_is_the_same_each_time_and_different_for_each_name_and_base() -> None:
    base, other = ids.new_id(), ids.new_id()
    assert ids.derived_id(base, "hold") == ids.derived_id(base, "hold")
    assert len({ids.derived_id(each, name) for each in (base, other) for name in "ab"}) == 4


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_lists_of_parts_share_a_hashed_id(one: list[str], other: list[str]) -> None:
    def encodable(parts: list[str]) -> bool:
        return not any("\ud800" <= each <= "\udfff" for part in parts for each in part)

    if encodable(one) and encodable(other):
        assert (ids.hashed_id(*one) == ids.hashed_id(*other)) == (one == other)


def test_codes_have_all_their_digits_and_no_favourite() -> None:
    codes = [ids.random_digits(6) for _ in range(3_000)]
    assert all(len(code) == 6 and code.isdecimal() for code in codes)
    firsts = Counter(code[0] for code in codes)
    assert len(firsts) == 10
    assert max(firsts.values()) < 3 * min(firsts.values())


def test_random_fractions_stay_below_one() -> None:
    assert all(0.0 <= ids.random_fraction() < 1.0 for _ in range(1_000))


@pytest.mark.parametrize("make", [principal.customer, principal.merchant, principal.operator])
def test_a_principal_reads_back_what_it_writes(make: type[Principal]) -> None:
    one = make(uuid.uuid4())  # type: ignore[arg-type]
    assert Principal.parse(str(one)) == one
    assert Principal.parse(str(SYSTEM)) == SYSTEM


@pytest.mark.parametrize(
    "text", ["", "customer", "customer:", "customer:1", "system:", "stranger:x", "system:x", ":"]
)
def test_anything_else_is_no_principal(text: str) -> None:
    if text == "system:":
        assert Principal.parse(text) == SYSTEM
        return
    with pytest.raises(ValueError, match=r"."):
        Principal.parse(text)


def test_only_the_system_has_no_id() -> None:
    with pytest.raises(ValueError, match="no id"):
        Principal("customer")
    with pytest.raises(ValueError, match="no id"):
        Principal("system", uuid.uuid4())
    with pytest.raises(ValueError, match="four kinds"):
        Principal("root", uuid.uuid4())  # type: ignore[arg-type]
