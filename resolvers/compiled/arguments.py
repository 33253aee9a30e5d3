"""The arguments of a field: constant, or taken from variables; the odd ones by graphql-core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphql import (
    ArgumentNode,
    ListValueNode,
    ObjectValueNode,
    ValueNode,
    VariableNode,
    is_non_null_type,
)
from graphql.execution.values import VariableValues, get_argument_values

from resolvers.compiled.running import Place, Run

Arguments = Callable[[Run], dict[str, Any]]

NOTHING = VariableValues({}, {})


def arguments_of(place: Place) -> Arguments:
    """A function that makes the coerced arguments; it raises the errors of the ordinary engine.

    Raises `GraphQLError` itself where constants are wrong, so that such a document has no plan.
    """
    definition, node = place.definition, place.nodes[0]

    def exact(run: Run) -> dict[str, Any]:
        return get_argument_values(definition, node, run.variables)

    if any(_nests_variables(each.value) for each in node.arguments or ()):
        return exact
    named = [each for each in node.arguments or () if isinstance(each.value, VariableNode)]
    if not named:
        constant = get_argument_values(definition, node, NOTHING)
        return lambda run: constant
    if len(named) < len(definition.args):
        return exact
    taken = [_taken(each, place) for each in named]

    def from_variables(run: Run) -> dict[str, Any]:
        coerced = run.variables.coerced
        found: dict[str, Any] = {}
        for out_name, variable, required in taken:
            value = coerced.get(variable)
            if value is None and (required or variable not in coerced):
                return exact(run)
            found[out_name] = value
        return found

    return from_variables


def _taken(argument: ArgumentNode, place: Place) -> tuple[str, str, bool]:
    definition = place.definition.args[argument.name.value]
    assert isinstance(argument.value, VariableNode)
    return (
        definition.out_name or argument.name.value,
        argument.value.name.value,
        is_non_null_type(definition.type),
    )


def _nests_variables(value: ValueNode) -> bool:
    """Whether a list or an object in the text of the document names a variable."""
    match value:
        case ListValueNode():
            inside = list(value.values)
        case ObjectValueNode():
            inside = [each.value for each in value.fields]
        case _:
            return False
    return any(isinstance(each, VariableNode) or _nests_variables(each) for each in inside)
