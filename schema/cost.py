"""What an operation costs: known before it runs from its text and variables, counted after it ran.

A root field of Query costs 1, of Mutation or Subscription 10; every object costs 1, and what is
below `first` or `last` counts as many times as was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from schema.connections import PAGE_MAX

ROOT_COSTS = {"query": 1, "mutation": 10, "subscription": 10}
COST_MAX = 5_000


def requested_cost(
    document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]
) -> int:
    """The most that the operation can cost, but for lists without `first` or `last`."""
    fragments = {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    known: dict[str, int] = {}

    def of_fragment(name: str) -> int:
        if name not in known:
            known[name] = of_selection(fragments[name].selection_set)
        return known[name]

    def of_selection(selections: SelectionSetNode | None) -> int:
        total = 0
        for node in selections.selections if selections else ():
            match node:
                case FieldNode(selection_set=None):
                    pass
                case FieldNode():
                    inner = of_selection(node.selection_set)
                    total += 1 + inner * _page_size(node, variables)
                case InlineFragmentNode():
                    total += of_selection(node.selection_set)
                case FragmentSpreadNode():
                    total += of_fragment(node.name.value)
        return total

    root = ROOT_COSTS[operation.operation.value]
    roots = len(operation.selection_set.selections)
    return root * roots + of_selection(operation.selection_set)


def actual_cost(operation: OperationDefinitionNode, data: Any) -> int:
    """What it came to: its roots, and each object in the answer."""
    root = ROOT_COSTS[operation.operation.value]
    return root * len(operation.selection_set.selections) + _objects(data) - 1


def _objects(data: Any) -> int:
    if isinstance(data, dict):
        return 1 + sum(_objects(each) for each in data.values() if each.__class__ in (dict, list))
    if isinstance(data, list):
        return sum(_objects(each) for each in data if each.__class__ in (dict, list))
    return 1


def _page_size(node: FieldNode, variables: Mapping[str, Any]) -> int:
    for argument in node.arguments or ():
        if argument.name.value in ("first", "last"):
            given = argument.value
            if isinstance(given, IntValueNode):
                return max(1, min(int(given.value), PAGE_MAX))
            if isinstance(given, VariableNode):
                value = variables.get(given.name.value)
                return max(1, min(value, PAGE_MAX)) if type(value) is int else PAGE_MAX
    return 1
