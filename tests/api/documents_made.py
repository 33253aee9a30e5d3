"""Queries made by chance from the committed schema: valid, and odd in what they select."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    build_schema,
    is_leaf_type,
    is_required_argument,
)

from schema.export import SNAPSHOT
from schema.limits import DEPTH_MAX

ROOTS = [
    "viewer",
    "node",
    "nodes",
    "order",
    "orders",
    "wallet",
    "wallets",
    "merchant",
    "merchantBalance",
    "reviewQueue",
    "webhookEndpoint",
    "webhookEvents",
    "orderByMerchantNumber",
]
OF_THIS_MOMENT = {"asOf"}
"""Fields that differ each time they are read."""


def documents_made(seed: int, known: list[str], count: int) -> Iterator[str]:
    """Some queries; `known` are ids to ask for."""
    chance = random.Random(seed)
    schema = build_schema(SNAPSHOT.read_text())
    for _ in range(count):
        yield _Maker(chance, schema, known).document()


class _Maker:
    """Makes one document; `left` is how many fields it may still have."""

    def __init__(self, chance: random.Random, schema: GraphQLSchema, known: list[str]) -> None:
        self.chance, self.schema, self.known = chance, schema, known
        self.left = 60
        self.aliases = 0
        self.fragments: list[str] = []

    def document(self) -> str:
        root = self.schema.query_type
        assert root is not None
        parts = [
            self._field(root, name, DEPTH_MAX - 2)
            for name in self.chance.sample(ROOTS, self.chance.randint(1, 3))
        ]
        return "{ " + " ".join(["__typename", *parts]) + " } " + " ".join(self.fragments)

    def _selection(self, type_: Any, depth: int) -> str:
        choice = sorted(set(type_.fields) - OF_THIS_MOMENT)
        names = self.chance.sample(choice, min(4, len(choice)))
        parts = [self._field(type_, name, depth) for name in names if self.left > 0]
        if isinstance(type_, GraphQLInterfaceType):
            parts.extend(
                f"... on {each.name} {self._selection(each, depth)}"
                for each in self.schema.get_possible_types(type_)
                if self.chance.random() < 0.4 and self.left > 0
            )
        elif parts and self.chance.random() < 0.2:
            parts.append(f"... on {type_.name} {{ {parts[0]} }}")
        elif self.chance.random() < 0.2 and self.left > 0:
            name = f"F{len(self.fragments)}"
            self.fragments.append("")
            place = len(self.fragments) - 1
            inner = self._selection(type_, depth)
            self.fragments[place] = f"fragment {name} on {type_.name} {inner}"
            parts.append(f"...{name}")
        return "{ __typename " + " ".join(parts) + " }"

    def _field(self, parent: Any, name: str, depth: int) -> str:
        field = parent.fields[name]
        inner = field.type
        while isinstance(inner, GraphQLNonNull | GraphQLList):
            inner = inner.of_type
        self.left -= 1
        if not is_leaf_type(inner) and depth <= 1:
            return "__typename"
        alias = ""
        if self.chance.random() < 0.2 and self.aliases < 20:
            self.aliases += 1
            alias = f"a{self.aliases}: "
        arguments = self._arguments(field)
        condition = self.chance.choice([""] * 8 + [" @skip(if: true)", " @include(if: true)"])
        below = "" if is_leaf_type(inner) else " " + self._selection(inner, depth - 1)
        return f"{alias}{name}{arguments}{condition}{below}"

    def _arguments(self, field: Any) -> str:
        given = []
        for name, argument in field.args.items():
            if name == "first" or is_required_argument(argument):
                given.append(f"{name}: {self._value(argument.type)}")
        return f"({', '.join(given)})" if given else ""

    def _value(self, type_: Any) -> str:
        if isinstance(type_, GraphQLNonNull):
            return self._value(type_.of_type)
        if isinstance(type_, GraphQLList):
            return "[" + ", ".join(self._value(type_.of_type) for _ in range(3)) + "]"
        if isinstance(type_, GraphQLEnumType):
            return self.chance.choice(sorted(type_.values))
        texts = {
            "Int": self.chance.choice(["1", "2", "2", "0"]),
            "CurrencyCode": '"CNY"',
            "ID": f'"{self.chance.choice(self.known)}"',
        }
        return texts.get(type_.name, '"x"')
