"""Frozen dataclasses to and from the JSON documents that the group functions and stored answers
use.

A field's type decides how it travels: ids and instants as text, amounts as integers, the rest as it
is.
"""

from __future__ import annotations

import dataclasses
import operator
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

_known_defaults: dict[type[Any], tuple[tuple[str, Any], ...]] = {}
_known_shapes: dict[type[Any], tuple[tuple[str, ...], Callable[[Any], Any]]] = {}
_known_readers: dict[type[Any], tuple[tuple[str, Callable[[Any], Any]], ...]] = {}


def dumps(value: Any) -> bytes:
    """JSON of values that may hold ids of the database driver."""
    return orjson.dumps(value, default=str)


def to_json(value: Any, *, sparse: bool = False) -> dict[str, Any]:
    """The dataclass as a JSON object with one member per field.

    A `sparse` one, for `dumps`, leaves out what is as the class has it by default.
    """
    if sparse:
        return {
            name: found
            for name, default in _defaults(type(value))
            if (found := getattr(value, name)) != default
        }
    return {name: _plain(getattr(value, name)) for name, _ in _readers(type(value))}


def from_json(cls: type[T], document: Mapping[str, Any]) -> T:
    """The inverse of `to_json`; members that `cls` does not have are left out."""
    return cls(**{name: read(document[name]) for name, read in _readers(cls) if name in document})


def row_maker(cls: type[Any], *documents: str) -> Callable[[Any], tuple[Any, ...]]:
    """A function that makes the row of a dataclass: its fields in order, as a composite type of
    PostgreSQL takes them; the fields named by `documents` are encoded as JSON.
    """
    names = [item.name for item in dataclasses.fields(cls)]
    values = operator.attrgetter(*names)
    if not documents:
        return values
    places = [names.index(name) for name in documents]

    def made(value: Any) -> tuple[Any, ...]:
        row = list(values(value))
        for place in places:
            row[place] = dumps(row[place]) if row[place] else b"{}"
        return tuple(row)

    return made


def _defaults(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    known = _known_defaults.get(cls)
    if known is None:
        known = tuple(
            (
                item.name,
                item.default
                if item.default_factory is dataclasses.MISSING
                else item.default_factory(),
            )
            for item in dataclasses.fields(cls)
        )
        _known_defaults[cls] = known
    return known


def changed(value: T, **changes: Any) -> T:
    """The dataclass with some fields changed, as `dataclasses.replace` makes it in half the time:
    for those with many fields, in the path of each payment. All fields are arguments.
    """
    cls = type(value)
    shape = _known_shapes.get(cls)
    if shape is None:
        names = tuple(item.name for item in dataclasses.fields(cls))  # type: ignore[arg-type]
        shape = _known_shapes[cls] = (names, operator.attrgetter(*names))
    names, values = shape
    return cls(**{**dict(zip(names, values(value), strict=True)), **changes})


def from_row(cls: type[T], row: Any) -> T:
    """The value of a Tortoise row that has an attribute for each field of `cls`."""
    return cls(**{name: read(getattr(row, name)) for name, read in _readers(cls)})


def _readers(cls: type[Any]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    readers = _known_readers.get(cls)
    if readers is None:
        hints = typing.get_type_hints(cls)
        readers = tuple((item.name, _reader(hints[item.name])) for item in dataclasses.fields(cls))
        _known_readers[cls] = readers
    return readers


def _reader(hint: Any) -> Callable[[Any], Any]:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType) and type(None) in arguments:
        inner = _reader(next(member for member in arguments if member is not type(None)))
        return lambda value: None if value is None else inner(value)
    if hint is uuid.UUID:
        return lambda value: value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    if hint is datetime:
        return lambda value: value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if hint is date:
        return lambda value: value if isinstance(value, date) else date.fromisoformat(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda value: value


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, date):  # A datetime is one too.
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return value
