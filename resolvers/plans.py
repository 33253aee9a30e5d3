"""Plans by the text of their document: parsed, checked and compiled once, then found by a look-up.

Trusted documents keep their plans; those of all others make room for each other. A document that is
wrong, or that no plan can answer, is remembered as one without a plan: the ordinary engine answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, specified_rules
from strawberry.extensions import parser_cache, validation_cache

from resolvers.compiled.plan import Plan, compile_plan
from resolvers.extensions import limits_of
from schema.limits import TOKENS_MAX

PLANS_MAX = 256
TEXT_LENGTH_MAX = 16 * 1024

Key = tuple[str, str | None]


class Plans:
    """The plans of one schema. `sensitive` are the fields that may stand only once."""

    def __init__(self, schema: Any, sensitive: frozenset[str]) -> None:
        self._schema = schema
        self._sensitive = sensitive
        self._trusted: frozenset[str] = frozenset()
        self._kept: dict[Key, Plan | None] = {}
        self._others: OrderedDict[Key, Plan | None] = OrderedDict()

    def trust(self, texts: Iterable[str]) -> None:
        """Keep the plans of these documents, however many others there are."""
        self._trusted = frozenset(texts)
        self._kept.clear()

    def find(self, text: str, operation_name: str | None) -> Plan | None:
        """The plan of an operation; None where the ordinary engine must answer."""
        key = (text, operation_name)
        if key in self._kept:
            return self._kept[key]
        if key in self._others:
            self._others.move_to_end(key)
            return self._others[key]
        if len(text) > TEXT_LENGTH_MAX or len(operation_name or "") > TEXT_LENGTH_MAX:
            return None
        made = self._made(text, operation_name)
        if text in self._trusted and made is not None:
            self._kept[key] = made
            return made
        self._others[key] = made
        if len(self._others) > PLANS_MAX:
            self._others.popitem(last=False)
        return made

    def is_valid(self, text: str) -> bool:
        """Whether the document is well-formed, within the limits and fits the schema."""
        return self._document(text) is not None

    def _made(self, text: str, operation_name: str | None) -> Plan | None:
        document = self._document(text)
        operation = _operation(document, operation_name) if document else None
        if document is None or operation is None:
            return None
        return compile_plan(self._schema._schema, document, operation)

    def _document(self, text: str) -> DocumentNode | None:
        """Through the caches of the ordinary engine, which then need not do it again."""
        parse = parser_cache._get_parse_cache(parser_cache.DEFAULT_MAXSIZE)
        validate = validation_cache._get_validate_cache(validation_cache.DEFAULT_MAXSIZE)
        try:
            document: DocumentNode = parse(text, max_tokens=TOKENS_MAX)
        except (GraphQLError, RecursionError):
            return None
        if limits_of(document, self._sensitive, True):
            return None
        if validate(self._schema._schema, document, tuple(specified_rules)):
            return None
        return document


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode | None:
    """The operation of this name; without one the first, as Strawberry chooses."""
    for each in document.definitions:
        if isinstance(each, OperationDefinitionNode) and (
            name is None or (each.name is not None and each.name.value == name)
        ):
            return each
    return None


def plan_for(schema: Any, text: str, operation_name: str | None) -> Plan | None:
    """The plan of an operation among those of the schema."""
    plans: Plans = schema.plans
    return plans.find(text, operation_name)
