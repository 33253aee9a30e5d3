"""The fields of a selection as functions: what each asks of its source, and how they run together.

The fields are collected by graphql-core itself, once, with the values that `@skip` and `@include`
had; siblings that wait are gathered as there, so that what they read is read together.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import CoroutineType
from typing import Any

from graphql import (
    GraphQLList,
    GraphQLObjectType,
    TypeNameMetaFieldDef,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import (
    FieldDetailsList,
    FragmentDetails,
    GroupedFieldSet,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues
from strawberry.types.field import StrawberryField

from resolvers.compiled import completion
from resolvers.compiled.arguments import arguments_of
from resolvers.compiled.calls import call_of
from resolvers.compiled.completion import Complete
from resolvers.compiled.running import (
    Chain,
    Document,
    Place,
    Run,
    Unsupported,
    guarded,
    of_fields,
    settle,
    waits,
)

DEFINITION = "strawberry-definition"

Execute = Callable[[Any, Chain, Run], Any]


class Compiler:
    """Turns one operation into functions, for one choice of what is skipped and included."""

    def __init__(self, document: Document, variables: VariableValues) -> None:
        self.document = document
        self.schema = document.schema
        self._variables = variables
        self._fragments = {
            name: FragmentDetails(definition) for name, definition in document.fragments.items()
        }

    def root(self, type_: GraphQLObjectType, *, serially: bool) -> Execute:
        """The whole operation; raises `Unsupported`, or `GraphQLError` where a condition fails."""
        collected = collect_fields(
            self.schema, self._fragments, self._variables, type_, self.document.operation
        )
        fields = self._fields(type_, collected.grouped_field_set)
        return _one_by_one(fields) if serially else _together(fields)

    def selection(self, type_: GraphQLObjectType, details: FieldDetailsList) -> Execute:
        """What is selected below a field, for one type of object."""
        collected = collect_subfields(
            self.schema,
            self._fragments,
            self._variables,
            self.document.operation,
            type_,
            details,
        )
        return _together(self._fields(type_, collected.grouped_field_set))

    def _fields(
        self, type_: GraphQLObjectType, grouped: GroupedFieldSet
    ) -> tuple[tuple[str, Execute], ...]:
        return tuple((key, self._field(type_, key, details)) for key, details in grouped.items())

    def _field(self, parent: GraphQLObjectType, key: str, details: FieldDetailsList) -> Execute:
        nodes = [each.node for each in details]
        definition = self.schema.get_field(parent, nodes[0].name.value)
        if definition is TypeNameMetaFieldDef:
            return _constant(parent.name)
        field = definition.extensions.get(DEFINITION) if definition else None
        if definition is None or not isinstance(field, StrawberryField) or field.extensions:
            raise Unsupported(key)
        place = Place(self.document, key, parent, definition, details, nodes)
        if field.base_resolver is not None:
            return self._resolved(place, field)
        if field.default_resolver is not getattr:
            raise Unsupported(key)
        return self._attribute(place, attrgetter(field.python_name))

    def _attribute(self, place: Place, get: Callable[[Any], Any]) -> Execute:
        """A field that is an attribute of its object, and needs no resolver."""
        complete = self.completed(place.definition.type, place)
        key, parent_name = place.key, place.parent.name
        required = is_non_null_type(place.definition.type)

        def execute(source: Any, above: Chain, run: Run) -> Any:
            chain = (above, key, parent_name)
            try:
                found = complete(get(source), chain, run)
            except Exception as error:  # noqa: BLE001  Located, as every error of a field.
                run.failed(error, place, chain, required)
                return None
            if found.__class__ is CoroutineType:
                return guarded(run, found, place, chain, required)
            return found

        return execute

    def _resolved(self, place: Place, field: StrawberryField) -> Execute:
        """A field with a resolver, called as Strawberry calls it."""
        complete = self.completed(place.definition.type, place)
        arguments = arguments_of(place)
        call = call_of(field, self.schema)
        key, parent_name = place.key, place.parent.name
        required = is_non_null_type(place.definition.type)

        async def wait(source: Any, chain: Chain, run: Run, given: dict[str, Any]) -> Any:
            try:
                value = await call(source, run.info(place, chain), given)
                found = complete(value, chain, run)
                return await found if found.__class__ is CoroutineType else found
            except Exception as error:  # noqa: BLE001  Located, as every error of a field.
                run.failed(error, place, chain, required)
                return None

        def later(source: Any, above: Chain, run: Run) -> Any:
            chain = (above, key, parent_name)
            try:
                given = arguments(run)
            except Exception as error:  # noqa: BLE001  Located, as every error of a field.
                run.failed(error, place, chain, required)
                return None
            return wait(source, chain, run, given)

        def at_once(source: Any, above: Chain, run: Run) -> Any:
            chain = (above, key, parent_name)
            try:
                value = call(source, run.info(place, chain), arguments(run))
                found = complete(value, chain, run)
            except Exception as error:  # noqa: BLE001  Located, as every error of a field.
                run.failed(error, place, chain, required)
                return None
            if found.__class__ is CoroutineType:
                return guarded(run, found, place, chain, required)
            return found

        return later if field.is_async else at_once

    def completed(self, type_: Any, place: Place) -> Complete:
        """How a value of this type becomes part of the answer."""
        if is_non_null_type(type_):
            inner = self.completed(type_.of_type, place)
            return completion.required(inner, place)
        if is_list_type(type_):
            return self._list(type_, place)
        if is_leaf_type(type_):
            return completion.leaf(type_)
        if is_abstract_type(type_):
            return completion.abstract(type_, place, self)
        if is_object_type(type_):
            return completion.object_of(type_, place, self.selection(type_, place.details))
        raise Unsupported(place.key)

    def _list(self, type_: GraphQLList[Any], place: Place) -> Complete:
        item = self.completed(type_.of_type, place)
        return completion.list_of(item, place, required=is_non_null_type(type_.of_type))


def _constant(value: str) -> Execute:
    def execute(source: Any, above: Chain, run: Run) -> str:
        return value

    return execute


def _together(fields: tuple[tuple[str, Execute], ...]) -> Execute:
    def execute(source: Any, above: Chain, run: Run) -> Any:
        results: dict[str, Any] = {}
        waiting: list[str] = []
        try:
            for key, field in fields:
                found = results[key] = field(source, above, run)
                if found.__class__ is CoroutineType:
                    waiting.append(key)
        except Exception:
            settle([results[key] for key in waiting])
            raise
        return of_fields(results, waiting) if waiting else results

    return execute


def _one_by_one(fields: tuple[tuple[str, Execute], ...]) -> Execute:
    """The roots of a mutation: each begins when the one before has ended."""

    async def execute(source: Any, above: Chain, run: Run) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for key, field in fields:
            found = field(source, above, run)
            results[key] = await found if waits(found) else found
        return results

    return execute
