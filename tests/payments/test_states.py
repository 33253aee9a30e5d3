"""The tables of states: closed, with a way out of each, and drawn as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from payments.states import (
    OPENING_TYPES,
    OPERATION_CHANGES,
    ORDER_CHANGES,
    UNRESOLVED,
    OperationState,
    OperationType,
    OrderState,
    changed_operation_state,
    changed_order_state,
)

ROOT = Path(__file__).resolve().parent.parent.parent
ORDERS_THAT_REST = {
    OrderState.SUCCEEDED,
    OrderState.FAILED,
    OrderState.CLOSED,
    OrderState.LATE_REFUNDED,
}

Changes = Mapping[Any, frozenset[Any]]


def drawn(heading: str) -> tuple[set[str], set[tuple[str, str]]]:
    """The first states and the arrows of the drawing that follows `heading` in the map."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = re.search(
        r"```mermaid\nstateDiagram-v2\n(.*?)```", text[text.index(heading) :], re.DOTALL
    )
    assert block is not None
    arrows = re.findall(r"^\s*(\S+) --> ([A-Z_]+)", block[1], re.MULTILINE)
    return (
        {to for start, to in arrows if start == "[*]"},
        {(start, to) for start, to in arrows if start != "[*]"},
    )


def listed(changes: Changes) -> set[tuple[str, str]]:
    return {(start.value, to.value) for start, targets in changes.items() for to in targets}


def reachable(changes: Changes, start: StrEnum) -> set[StrEnum]:
    found, waiting = {start}, [start]
    while waiting:
        fresh = changes[waiting.pop()] - found
        found |= fresh
        waiting.extend(fresh)
    return found


@pytest.mark.parametrize(
    ("heading", "changes"),
    [
        ("## The states of an order", ORDER_CHANGES),
        ("Operations have their own states", OPERATION_CHANGES),
    ],
    ids=["orders", "operations"],
)
def test_the_map_draws_each_allowed_change_and_no_other(heading: str, changes: Changes) -> None:
    first, arrows = drawn(heading)
    assert first == {"CREATED"}
    assert arrows - listed(changes) == set(), "drawn, but not allowed"
    assert listed(changes) - arrows == set(), "allowed, but not drawn"


@pytest.mark.parametrize(
    ("states", "changes"), [(OrderState, ORDER_CHANGES), (OperationState, OPERATION_CHANGES)]
)
def test_the_tables_are_closed(states: type[StrEnum], changes: Changes) -> None:
    assert set(changes) == set(states)
    assert all(targets <= set(states) for targets in changes.values())
    assert all(state not in targets for state, targets in changes.items())
    assert reachable(changes, states("CREATED")) == set(states)


@pytest.mark.parametrize("state", set(OrderState) - ORDERS_THAT_REST)
def test_each_order_that_does_not_rest_has_a_way_to_rest(state: OrderState) -> None:
    assert ORDER_CHANGES[state]
    assert reachable(ORDER_CHANGES, state) & ORDERS_THAT_REST


@pytest.mark.parametrize("state", UNRESOLVED)
def test_each_unresolved_operation_can_succeed_and_fail(state: OperationState) -> None:
    assert OPERATION_CHANGES[state] >= {OperationState.SUCCEEDED, OperationState.FAILED}


def test_nothing_known_becomes_unknown_again() -> None:
    for state in set(OperationState) - {OperationState.SUBMITTED}:
        assert OperationState.UNKNOWN not in OPERATION_CHANGES[state]
    for state, targets in OPERATION_CHANGES.items():
        assert OperationState.CREATED not in targets, state
    for state, targets in ORDER_CHANGES.items():
        assert OrderState.CREATED not in targets, state


@pytest.mark.parametrize("start", OrderState)
@pytest.mark.parametrize("to", OrderState)
def test_an_order_changes_only_as_listed(start: OrderState, to: OrderState) -> None:
    if start == to or to in ORDER_CHANGES[start]:
        assert changed_order_state(start, to) is to
    else:
        with pytest.raises(ValueError, match="never goes from"):
            changed_order_state(start, to)


@pytest.mark.parametrize("start", OperationState)
@pytest.mark.parametrize("to", OperationState)
def test_an_operation_changes_only_as_listed(start: OperationState, to: OperationState) -> None:
    if start == to or to in OPERATION_CHANGES[start]:
        assert changed_operation_state(start, to) is to
    else:
        with pytest.raises(ValueError, match="never goes from"):
            changed_operation_state(start, to)


def test_each_operation_opens_an_order_or_follows_on_one() -> None:
    following = set(OperationType) - set(OPENING_TYPES)
    assert following == {OperationType.REFUND, OperationType.CLOSE}
