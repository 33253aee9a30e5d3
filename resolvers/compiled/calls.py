"""Calls of resolvers: coerced arguments become Strawberry's inputs, then the function is called.

The conversion follows Strawberry's `convert_argument`, prepared once for each field; whatever is
odd about a type or a value is left to Strawberry itself.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from graphql import GraphQLSchema
from strawberry import UNSET, Info, Some
from strawberry.types.arguments import _is_leaf_type, _is_optional_leaf_type, convert_arguments
from strawberry.types.base import (
    StrawberryList,
    StrawberryMaybe,
    StrawberryOptional,
    has_object_definition,
)
from strawberry.types.enum import has_enum_definition
from strawberry.types.field import StrawberryField
from strawberry.types.lazy_type import LazyType

from resolvers.compiled.running import ResolveInfo, Unsupported

Convert = Callable[[Any], Any]
Call = Callable[[Any, ResolveInfo, dict[str, Any]], Any]


class _Odd(Exception):
    """A type or a value whose conversion is Strawberry's own business."""


def call_of(field: StrawberryField, schema: GraphQLSchema) -> Call:
    """The call of a field's resolver with its source, its info and its arguments."""
    resolver = field.base_resolver
    assert resolver is not None
    function = resolver.wrapped_func
    if not callable(function) or (field.is_async and not inspect.iscoroutinefunction(function)):
        raise Unsupported(field.python_name)
    owner = schema._strawberry_schema  # type: ignore[attr-defined]
    convert = _conversion(field, owner)
    takes_self = resolver.self_parameter is not None
    sources = [each.name for each in (resolver.parent_parameter, resolver.root_parameter) if each]
    info_name = resolver.info_parameter.name if resolver.info_parameter else None
    info_class = owner.config.info_class

    def call(source: Any, raw: ResolveInfo, given: dict[str, Any]) -> Any:
        info = info_class(_raw_info=raw, _field=field)
        named = convert(given, info)
        for name in sources:
            named[name] = source
        if info_name is not None:
            named[info_name] = info
        return function(source, **named) if takes_self else function(**named)

    return call


def _conversion(
    field: StrawberryField, schema: Any
) -> Callable[[dict[str, Any], Info[Any, Any]], dict[str, Any]]:
    """From coerced arguments to those of the function; a new dictionary each time."""
    names = schema.config.name_converter
    scalars = schema.schema_converter.scalar_registry

    def exact(given: dict[str, Any], info: Info[Any, Any]) -> dict[str, Any]:
        return convert_arguments(given, field.arguments, scalars, schema.config, info)

    if not field.arguments:
        return lambda given, info: {}
    try:
        prepared = [
            (names.from_argument(each), each.python_name, _converter(each.type, scalars, names))
            for each in field.arguments
        ]
    except _Odd:
        return exact

    def convert(given: dict[str, Any], info: Info[Any, Any]) -> dict[str, Any]:
        try:
            return {
                python_name: made(given[name])
                for name, python_name, made in prepared
                if name in given
            }
        except _Odd:
            return exact(given, info)

    return convert


def _converter(type_: Any, scalars: Any, names: Any) -> Convert:
    """The conversion for one type; raises `_Odd`."""
    if isinstance(type_, StrawberryMaybe):
        return _maybe(type_, _converter(type_.of_type, scalars, names))
    if isinstance(type_, StrawberryOptional):
        return _converter(type_.of_type, scalars, names)
    if isinstance(type_, StrawberryList):
        if _is_leaf_type(type_.of_type, scalars) or _is_optional_leaf_type(type_.of_type, scalars):
            return lambda value: list(value) if _is_given(value) else value
        inner = _converter(type_.of_type, scalars, names)
        return lambda value: [inner(each) for each in value] if _is_given(value) else value
    if _is_leaf_type(type_, scalars):
        return _same
    if isinstance(type_, LazyType):
        return _converter(type_.resolve_type(), scalars, names)
    if has_enum_definition(type_):
        return _same
    if has_object_definition(type_) and type_.__strawberry_definition__.from_input is None:
        return _input(type_, scalars, names)
    raise _Odd


def _maybe(type_: StrawberryMaybe, inner: Convert) -> Convert:
    nullable = isinstance(type_.of_type, StrawberryOptional)

    def convert(value: Any) -> Any:
        if value is None and not nullable:
            raise _Odd
        return Some(inner(value))

    return convert


def _input(type_: Any, scalars: Any, names: Any) -> Convert:
    """An input object, which becomes an instance of its class."""
    definition = type_.__strawberry_definition__
    absent = {
        field.python_name: None
        for field in definition.fields
        if definition.is_input
        and field.default_value is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    fields = [
        (
            names.from_field(field),
            field.python_name,
            _converter(field.resolve_type(type_definition=definition), scalars, names),
        )
        for field in definition.fields
    ]

    def convert(value: Any) -> Any:
        if not _is_given(value):
            return value
        given = dict(absent)
        for name, python_name, made in fields:
            if name in value:
                given[python_name] = made(value[name])
        return type_(**given)

    return convert


def _same(value: Any) -> Any:
    return value


def _is_given(value: Any) -> bool:
    return value is not None and value is not UNSET
