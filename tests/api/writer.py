"""Writes valid documents over any schema, by whatever chooses: Hypothesis or a random generator.

Aliases, repeated fields, fragments inline and named, `@skip` and `@include` with constants and with
variables, arguments as constants and as variables, each absent now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    is_required_input_field,
)

CONDITIONS = {"yes": "Boolean!", "perhaps": "Boolean = true"}


@dataclass
class Writer:
    """`choose(n)` gives a number below n; `values` are literals by the name of a scalar."""

    schema: GraphQLSchema
    choose: Callable[[int], int]
    values: Mapping[str, Sequence[str]]
    skipped: frozenset[str] = frozenset()
    depth_max: int = 4
    variables: dict[str, str] = field(default_factory=dict)
    fragments: list[str] = field(default_factory=list)
    _count: int = 0

    def operation(self, kind: str, root: GraphQLObjectType) -> str:
        """A whole document with one operation."""
        selection = self._selection(root, self.depth_max, is_root=True)
        declared = ", ".join(f"${name}: {type_}" for name, type_ in self.variables.items())
        head = f"{kind} Made({declared})" if declared else kind
        return " ".join([head, selection, *self.fragments])

    def _selection(self, type_: Any, depth: int, *, is_root: bool = False) -> str:
        parts = [self._part(type_, depth, is_root) for _ in range(1 + self.choose(4))]
        return "{ " + " ".join(parts) + " }"

    def _part(self, type_: Any, depth: int, is_root: bool) -> str:
        kind = self.choose(12)
        if kind == 0:
            return f"{self._alias()}__typename"
        if kind in (1, 2) and depth > 1:
            return self._fragment(type_, depth, named=kind == 1)
        fields = [
            (name, each)
            for name, each in sorted(getattr(type_, "fields", {}).items())
            if f"{type_.name}.{name}" not in self.skipped
            and (depth > 1 or is_leaf_type(get_named_type(each.type)))
        ]
        if not fields:
            return "__typename"
        return self._field(*fields[self.choose(len(fields))], depth, is_root)

    def _fragment(self, type_: Any, depth: int, *, named: bool) -> str:
        on = type_
        if is_abstract_type(type_):
            possible = sorted(self.schema.get_possible_types(type_), key=str)
            on = [type_, *possible][self.choose(1 + len(possible))]
        directive = self._directive()
        selection = self._selection(on, depth - 1)
        if not named:
            return f"... on {on.name}{directive} {selection}"
        self._count += 1
        name = f"F{self._count}"
        self.fragments.append(f"fragment {name} on {on.name} {selection}")
        return f"...{name}{directive}"

    def _field(self, name: str, each: GraphQLField, depth: int, is_root: bool) -> str:
        arguments = [
            f"{key}: {self._argument(argument)}"
            for key, argument in each.args.items()
            if is_required_argument(argument) or self.choose(2)
        ]
        alias = self._alias(always=bool(each.args) or is_root)
        given = f"({', '.join(arguments)})" if arguments else ""
        inner = ""
        if is_composite_type(get_named_type(each.type)):
            inner = " " + self._selection(get_named_type(each.type), depth - 1)
        return f"{alias}{name}{given}{self._directive()}{inner}"

    def _alias(self, *, always: bool = False) -> str:
        if not always and self.choose(5):
            return ""
        self._count += 1
        return f"a{self._count}: "

    def _directive(self) -> str:
        if self.choose(6):
            return ""
        name = ("skip", "include")[self.choose(2)]
        condition = ("true", "false", "$yes", "$perhaps")[self.choose(4)]
        if condition.startswith("$"):
            self.variables[condition[1:]] = CONDITIONS[condition[1:]]
        return f" @{name}(if: {condition})"

    def _argument(self, argument: GraphQLArgument) -> str:
        if self.choose(3):
            return self._literal(argument.type)
        self._count += 1
        self.variables[f"v{self._count}"] = str(argument.type)
        return f"$v{self._count}"

    def _literal(self, type_: Any) -> str:
        if is_non_null_type(type_):
            return self._literal_of(type_.of_type)
        return "null" if not self.choose(8) else self._literal_of(type_)

    def _literal_of(self, type_: Any) -> str:
        if is_list_type(type_):
            return (
                "[" + ", ".join(self._literal(type_.of_type) for _ in range(self.choose(3))) + "]"
            )
        if isinstance(type_, GraphQLEnumType):
            return list(type_.values)[self.choose(len(type_.values))]
        if isinstance(type_, GraphQLInputObjectType):
            return self._object(type_)
        known = self.values[type_.name]
        return known[self.choose(len(known))]

    def _object(self, type_: GraphQLInputObjectType) -> str:
        names = sorted(type_.fields)
        if type_.is_one_of:
            name = names[self.choose(len(names))]
            return f"{{ {name}: {self._literal_of(get_named_type(type_.fields[name].type))} }}"
        parts = [
            f"{name}: {self._literal(type_.fields[name].type)}"
            for name in names
            if is_required_input_field(type_.fields[name]) or self.choose(2)
        ]
        return "{ " + ", ".join(parts) + " }"
