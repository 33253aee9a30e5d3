"""Variables as graphql-core coerces them, by functions that are made once for each document.

Only the way of right values is here. For whatever is wrong the ordinary engine finds the words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphql import (
    GraphQLError,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    Undefined,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    is_required_input_field,
)
from graphql.execution.get_variable_signature import get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource
from graphql.utilities.coerce_input_value import coerce_default_value

from resolvers.compiled.running import Unsupported

Coerce = Callable[[Any], Any]
"""From a JSON value to the coerced one, or to `Undefined` where it is wrong."""

AS_THEY_ARE = (GraphQLString.name, GraphQLID.name)
NESTING_MAX = 16


def coercion_of(
    schema: GraphQLSchema, operation: OperationDefinitionNode
) -> Callable[[dict[str, Any]], VariableValues | None]:
    """A function from raw variables to coerced ones, or to None where something is wrong."""
    prepared = []
    for node in operation.variable_definitions or ():
        signature = get_variable_signature(schema, node)
        if isinstance(signature, GraphQLError):
            raise Unsupported(node.variable.name.value)
        default = _default_of(signature) if node.default_value else Undefined
        optional = not is_non_null_type(signature.type)
        made = _coercion(signature.type, NESTING_MAX)
        prepared.append((signature.name, signature, made, default, optional))

    def coerce(raw: dict[str, Any]) -> VariableValues | None:
        sources: dict[str, VariableValueSource] = {}
        coerced: dict[str, Any] = {}
        for name, signature, made, default, optional in prepared:
            if name in raw:
                sources[name] = VariableValueSource(signature, raw[name])
                value = made(raw[name])
                if value is Undefined:
                    return None
                coerced[name] = value
                continue
            sources[name] = VariableValueSource(signature)
            if default is not Undefined:
                coerced[name] = default
            elif not optional:
                return None
        return VariableValues(sources, coerced)

    return coerce


def _coercion(type_: Any, depth_left: int) -> Coerce:
    if is_non_null_type(type_):
        inner = _coercion(type_.of_type, depth_left)
        return lambda value: Undefined if value is None else inner(value)
    if is_list_type(type_):
        return _list(_coercion(type_.of_type, depth_left))
    if is_input_object_type(type_):
        return _object(type_, depth_left)
    return _leaf(type_)


def _leaf(type_: Any) -> Coerce:
    coerce_value = type_.coerce_input_value
    texts_stay = type_.name in AS_THEY_ARE

    def coerce(value: Any) -> Any:
        if value is None or (texts_stay and value.__class__ is str):
            return value
        try:
            return coerce_value(value)
        except Exception:  # noqa: BLE001
            # Whatever a scalar raises means that the value is wrong, as in graphql-core.
            return Undefined

    return coerce


def _list(inner: Coerce) -> Coerce:
    def coerce(value: Any) -> Any:
        if value is None:
            return None
        found = [inner(each) for each in (value if value.__class__ is list else [value])]
        return Undefined if any(each is Undefined for each in found) else found

    return coerce


def _object(type_: GraphQLInputObjectType, depth_left: int) -> Coerce:
    """An input object. One that contains itself has no bottom to prepare, and no plan."""
    if not depth_left:
        raise Unsupported(type_.name)
    fields = [
        (
            name,
            field.out_name or name,
            _coercion(field.type, depth_left - 1),
            _default_of(field),
            is_required_input_field(field),
        )
        for name, field in type_.fields.items()
    ]
    one_of, out_type = type_.is_one_of, type_.out_type

    def coerce(value: Any) -> Any:
        if value is None:
            return None
        if value.__class__ is not dict:
            return Undefined
        found: dict[str, Any] = {}
        given_count = 0
        for name, out_name, made, default, required in fields:
            if name in value:
                given_count += 1
                each = found[out_name] = made(value[name])
                if each is Undefined:
                    return Undefined
            elif required:
                return Undefined
            elif default is not Undefined:
                found[out_name] = default
        if given_count != len(value):
            return Undefined
        if one_of and (given_count != 1 or len(found) != 1 or None in found.values()):
            return Undefined
        try:
            return out_type(found)
        except Exception:  # noqa: BLE001
            # Strawberry's own check of a @oneOf; the ordinary engine says what is wrong with it.
            return Undefined

    return coerce


def _default_of(given: Any) -> Any:
    """A default that may be shared: no list and no object, which somebody might change."""
    try:
        value = coerce_default_value(given)
    except TypeError as error:
        raise Unsupported(str(error)) from error
    if isinstance(value, list | dict):
        raise Unsupported("a default that is no leaf")
    return value
