"""How values become parts of an answer: leaves, lists, objects and interfaces, as graphql-core
completes them, with the same errors.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import CoroutineType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from graphql import (
    GraphQLAbstractType,
    GraphQLBoolean,
    GraphQLError,
    GraphQLID,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLString,
    Undefined,
)
from graphql.execution.executor import Executor, invalid_return_type_error
from graphql.pyutils import is_iterable
from strawberry.schema.schema_converter import CustomGraphQLEnumType

from resolvers.compiled.running import (
    Chain,
    Place,
    Run,
    Unsupported,
    guarded,
    of_items,
    settle,
)

if TYPE_CHECKING:
    from resolvers.compiled.selection import Compiler, Execute

Complete = Callable[[Any, Chain, Run], Any]

AS_THEY_ARE: dict[str, type] = {
    GraphQLString.name: str,
    GraphQLID.name: str,
    GraphQLBoolean.name: bool,
}
"""Leaves whose usual values need no coercion."""


def required(inner: Complete, place: Place) -> Complete:
    """The same for a type that is not nullable."""
    message = (
        f"Cannot return null for non-nullable field {place.parent}.{place.nodes[0].name.value}."
    )

    def complete(value: Any, chain: Chain, run: Run) -> Any:
        found = inner(value, chain, run)
        if found is None:
            raise TypeError(message)
        return found

    return complete


def leaf(type_: GraphQLLeafType) -> Complete:
    """A scalar or an enum."""
    usual = AS_THEY_ARE.get(type_.name)
    names = _names_of(type_)

    def complete(value: Any, chain: Chain, run: Run) -> Any:
        kind = value.__class__
        if kind is usual or value is None:
            return value
        if kind in names:
            return names[kind][value]
        if isinstance(value, Exception):
            raise value
        if value is Undefined:
            return None
        return Executor.complete_leaf_value(type_, value)

    return complete


def list_of(item: Complete, place: Place, *, required: bool) -> Complete:
    """A list; `required` says that its items are not nullable."""
    no_list = (
        "Expected Iterable, but did not find one for field"
        f" '{place.parent}.{place.nodes[0].name.value}'."
    )

    def complete(value: Any, chain: Chain, run: Run) -> Any:
        if value is None or value is Undefined:
            return None
        if value.__class__ is not list and not is_iterable(value):
            raise value if isinstance(value, Exception) else GraphQLError(no_list)
        results: list[Any] = []
        waiting: list[int] = []
        try:
            for index, each in enumerate(value):
                here = (chain, index, None)
                try:
                    found = item(each, here, run)
                    if found.__class__ is CoroutineType:
                        found = guarded(run, found, place, here, required)
                        waiting.append(index)
                except Exception as error:  # noqa: BLE001  Located, as every error of an item.
                    run.failed(error, place, here, required)
                    found = None
                results.append(found)
        except Exception:
            settle([results[index] for index in waiting])
            raise
        return of_items(results, waiting) if waiting else results

    return complete


def object_of(type_: GraphQLObjectType, place: Place, selection: Execute) -> Complete:
    """An object of one type."""
    is_type_of = _is_type_of(type_)

    def complete(value: Any, chain: Chain, run: Run) -> Any:
        if value is None or value is Undefined:
            return None
        if isinstance(value, Exception):
            raise value
        if is_type_of is not None and not is_type_of(value, None):
            raise invalid_return_type_error(type_, value, place.details)
        return selection(value, chain, run)

    return complete


def abstract(type_: GraphQLAbstractType, place: Place, compiler: Compiler) -> Complete:
    """An interface or a union; the selection for each type of object is made when one is met."""
    if type_.resolve_type is None:
        raise Unsupported(type_.name)
    resolve_type = type_.resolve_type
    known: dict[str, Complete] = {}
    checked = SimpleNamespace(schema=compiler.schema)

    def learned(name: Any, value: Any, info: Any) -> Complete:
        runtime_type = Executor.ensure_valid_runtime_type(
            checked,  # type: ignore[arg-type]
            name,
            type_,
            place.details,
            info,
            value,
        )
        selection = compiler.selection(runtime_type, place.details)
        return known.setdefault(name, object_of(runtime_type, place, selection))

    def complete(value: Any, chain: Chain, run: Run) -> Any:
        if value is None or value is Undefined:
            return None
        if isinstance(value, Exception):
            raise value
        info = run.info(place, chain)
        name = resolve_type(value, info, type_)
        found = known.get(name) if isinstance(name, str) else None
        return (found or learned(name, value, info))(value, chain, run)

    return complete


def _names_of(type_: GraphQLLeafType) -> dict[type, dict[Any, str]]:
    """The names of an enum's members, as the ordinary coercion gives them, by their class."""
    if not isinstance(type_, CustomGraphQLEnumType) or not issubclass(type_.wrapped_cls, enum.Enum):
        return {}
    return {
        type_.wrapped_cls: {each: type_.coerce_output_value(each) for each in type_.wrapped_cls}
    }


def _is_type_of(type_: GraphQLObjectType) -> Callable[[Any, Any], Any] | None:
    """Strawberry's own predicate, which looks at the value alone."""
    definition = type_.extensions.get("strawberry-definition")
    if definition is None or definition.is_type_of is not None:
        raise Unsupported(type_.name)
    return type_.is_type_of
