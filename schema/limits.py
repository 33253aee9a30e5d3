"""Limits on a document, before anything expensive looks at it: depth, fields, roots, aliases.

Each fragment is walked once and its measure remembered, so that no document takes longer than its
length deserves; validators that walk a fragment at every spread take seconds for a few
hundred bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

TOKENS_MAX = 1_000
DEPTH_MAX = 10
FIELDS_MAX = 300
ROOTS_MAX = 10
ALIASES_MAX = 30

INTROSPECTION = frozenset({"__schema", "__type"})
"""A reading of the schema may go twice as deep: every tool's own does."""

TOO_COSTLY = "QUERY_TOO_COSTLY"


@dataclass(slots=True)
class Measure:
    """What a selection amounts to with its fragments written out."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    introspects: bool = False
    roots: Counter[str] = field(default_factory=Counter)

    def add(self, other: Measure, deeper: int = 0) -> None:
        self.depth = max(self.depth, other.depth + deeper)
        self.fields = min(self.fields + other.fields, 2 * FIELDS_MAX)
        self.aliases = min(self.aliases + other.aliases, 2 * FIELDS_MAX)
        self.introspects = self.introspects or other.introspects


class FragmentCycle(Exception):
    """A fragment that spreads itself."""


def measure(document: DocumentNode) -> list[Measure]:
    """The measure of each operation; raises `FragmentCycle`."""
    fragments = {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    known: dict[str, Measure | None] = {}

    def of_fragment(name: str) -> Measure:
        if name not in fragments:
            return Measure()
        if name in known:
            if (found := known[name]) is None:
                raise FragmentCycle
            return found
        known[name] = None
        made = known[name] = _selection(fragments[name].selection_set, of_fragment)
        return made

    measures = [
        _selection(each.selection_set, of_fragment)
        for each in document.definitions
        if isinstance(each, OperationDefinitionNode)
    ]
    for name in fragments:
        of_fragment(name)
    return measures


def limit_errors(
    document: DocumentNode, sensitive: frozenset[str], *, may_introspect: bool
) -> list[GraphQLError]:
    """Why the document is refused; empty where it is not. `sensitive` roots may stand once."""
    try:
        measures = measure(document)
    except (FragmentCycle, RecursionError):
        return [_refusal("A fragment may not contain itself, and nesting has an end.")]
    errors = []
    for found in measures:
        if found.depth > DEPTH_MAX:
            errors.append(_refusal(f"At most {DEPTH_MAX} levels of fields."))
        if found.fields > FIELDS_MAX:
            errors.append(_refusal(f"At most {FIELDS_MAX} fields."))
        if found.aliases > ALIASES_MAX:
            errors.append(_refusal(f"At most {ALIASES_MAX} aliases."))
        if found.roots.total() > ROOTS_MAX:
            errors.append(_refusal(f"At most {ROOTS_MAX} root fields."))
        if any(count > 1 and name in sensitive for name, count in found.roots.items()):
            errors.append(_refusal("A field that takes a secret stands only once in a document."))
        if found.introspects and not may_introspect:
            errors.append(
                GraphQLError("Sign in to read the schema.", extensions={"code": "FORBIDDEN"})
            )
    return errors


def _selection(
    selections: SelectionSetNode | None, of_fragment: Callable[[str], Measure]
) -> Measure:
    total = Measure()
    for node in selections.selections if selections else ():
        match node:
            case FieldNode():
                inner = _selection(node.selection_set, of_fragment)
                inner.fields += 1
                inner.aliases += node.alias is not None
                if node.name.value in INTROSPECTION:
                    inner.introspects = True
                    inner.depth = max(0, inner.depth - DEPTH_MAX)
                total.add(inner, deeper=1)
                total.roots[node.name.value] += 1
            case InlineFragmentNode():
                _spread(total, _selection(node.selection_set, of_fragment))
            case FragmentSpreadNode():
                _spread(total, of_fragment(node.name.value))
    return total


def _spread(total: Measure, inner: Measure) -> None:
    total.add(inner)
    for name, count in inner.roots.items():
        total.roots[name] = min(total.roots[name] + count, 2 * FIELDS_MAX)


def _refusal(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": TOO_COSTLY})
