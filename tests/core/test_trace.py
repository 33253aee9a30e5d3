"""Spans: they count for whoever listens, and nothing otherwise."""

from __future__ import annotations

import pytest

from core import trace


@pytest.fixture(autouse=True)
def silent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_totals", None)


def test_nothing_is_kept_while_nobody_listens() -> None:
    with trace.span("stage"):
        pass
    assert trace.span("one") is trace.span("another")
    assert trace.taken() == {}


def test_spans_add_up_by_name_and_count_the_members_of_a_group() -> None:
    trace.listen()
    with trace.span("group", members=3):
        pass
    with trace.span("group"), trace.span("stage"):
        pass
    found = trace.taken()
    assert (found["group"].calls, found["group"].members) == (2, 4)
    assert found["group"].total_ms >= found["stage"].total_ms > 0
    assert trace.taken() == {}, "what was taken is not counted again"


def test_a_span_that_ends_with_an_error_counts_too() -> None:
    trace.listen()
    with pytest.raises(ValueError, match="broken"), trace.span("stage"):
        raise ValueError("broken")
    assert trace.taken()["stage"].calls == 1
