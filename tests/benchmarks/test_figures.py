"""What a measurement says: ratios as lines, and an exit code for what is wrong, not slow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.figures import Figures, Slice, percentile, show
from benchmarks.load import Requests, Run, Setup


def _slice(count: int) -> Slice:
    return Slice(count, 1.0, [float(count)])


def test_a_ratio_compares_medians_so_that_one_stall_does_not_move_it() -> None:
    figures = Figures()
    figures.ratio("api_pay", [_slice(200), _slice(10), _slice(220)], [_slice(100)])
    assert figures.ratios == {"api_pay": 2.0}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 3.0
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([], 0.99) == 0.0


def test_a_missed_goal_is_said_and_only_what_is_wrong_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = Figures(ratios={"api_pay": 0.5})
    assert show(figures) == 0
    printed = capsys.readouterr().out
    assert "goal >= 2, missed" in printed
    assert "\nRATIO api_pay 0.500\n" in printed
    figures.broken.append("one payment is missing")
    assert show(figures) == 1
    assert "BROKEN one payment is missing" in capsys.readouterr().out


@pytest.fixture
def requests() -> Requests:
    bodies = {"graphql": ('{"query":"...","variables":{"input":', "}}")}
    return Requests(Setup(["first", "second"], ["one", "two", "three"], bodies, seed=1))


def _body(request: bytes) -> Any:
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return json.loads(body)["variables"]["input"]


def test_every_payment_has_a_key_and_a_number_of_its_own(requests: Requests) -> None:
    run = Run("graphql", ends_at=0.0, left=1)
    given = [_body(requests.of(0, run, 80, False)) for _ in range(50)]
    assert len({each["idempotencyKey"] for each in given}) == 50
    assert len({each["merchantOrderNo"] for each in given}) == 50
    assert len({each["merchantId"] for each in given}) == 2, "a payer has usual merchants"
    assert all(500 <= each["amount"]["amountMinor"] <= 6_000 for each in given)


def test_where_it_is_hot_all_pay_one_merchant(requests: Requests) -> None:
    run = Run("graphql", ends_at=0.0, left=1)
    given = [_body(requests.of(payer, run, 80, True)) for payer in (0, 1, 0, 1)]
    assert {each["merchantId"] for each in given} == {"one"}
