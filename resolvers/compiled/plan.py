"""A plan: one operation of one document, ready to run.

`compile_plan` makes it from a document that is parsed, within the limits and valid. What it costs
is known from its variables without a walk; what `@skip` and `@include` leave of it is compiled once
for each of their choices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.values import VariableValues

from resolvers.compiled.running import Document, Run, Unsupported
from resolvers.compiled.selection import Compiler, Execute
from resolvers.compiled.variables import coercion_of
from resolvers.context import RequestContext
from resolvers.faults import coded
from schema.cost import actual_cost, requested_cost

CONDITIONS_MAX = 4
"""So many variables may decide what is skipped or included: 16 choices."""

Roots = dict[tuple[bool, ...], Execute]


class Plan:
    """One operation. Safe for many requests at once; it keeps nothing of any of them."""

    def __init__(
        self, schema: GraphQLSchema, node: DocumentNode, operation: OperationDefinitionNode
    ) -> None:
        root_type = schema.get_root_type(operation.operation)
        if operation.operation is OperationType.SUBSCRIPTION or root_type is None:
            raise Unsupported("a subscription")
        fragments = {
            each.name.value: each
            for each in node.definitions
            if isinstance(each, FragmentDefinitionNode)
        }
        self.is_mutation = operation.operation is OperationType.MUTATION
        self._root_type = root_type
        self._document = Document(schema, operation, fragments)
        self._coerce = coercion_of(schema, operation)
        variables = _Variables()
        visit(node, variables)
        if len(variables.of_conditions) > CONDITIONS_MAX:
            raise Unsupported("too many conditions")
        self._conditions = sorted(variables.of_conditions)
        self._roots: Roots = {}
        self._cost = _cost_function(node, operation, sorted(variables.of_pages))
        if not self._conditions:
            self._root_of(VariableValues({}, {}))

    def requested_cost(self, variables: dict[str, Any]) -> int:
        """The most that it can cost with these raw variables; see `schema/cost.py`."""
        return self._cost(variables)

    def actual_cost(self, data: dict[str, Any]) -> int:
        """What it came to."""
        return actual_cost(self._document.operation, data)

    def prepare(self, variables: dict[str, Any]) -> Prepared | None:
        """The plan for these variables; None where the ordinary engine must say what is wrong."""
        coerced = self._coerce(variables)
        if coerced is None:
            return None
        try:
            return Prepared(self._root_of(coerced), coerced)
        except (Unsupported, GraphQLError):
            return None

    async def run(
        self,
        variables: dict[str, Any],
        context: RequestContext,
        input_extensions: dict[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """`data`, and `errors` if there are any; None where nothing ran, as in `prepare`."""
        prepared = self.prepare(variables)
        return None if prepared is None else await prepared.run(context, input_extensions)

    def _root_of(self, coerced: VariableValues) -> Execute:
        choice = tuple(coerced.coerced.get(name) for name in self._conditions)
        found = self._roots.get(choice)
        if found is None:
            if any(each.__class__ is not bool for each in choice):
                raise Unsupported("a condition that is no boolean")
            compiler = Compiler(self._document, coerced)
            found = compiler.root(self._root_type, serially=self.is_mutation)
            self._roots[choice] = found
        return found


class Prepared:
    """A plan with the variables of one request."""

    __slots__ = ("_root", "_variables")

    def __init__(self, root: Execute, variables: VariableValues) -> None:
        self._root = root
        self._variables = variables

    async def run(
        self, context: RequestContext, input_extensions: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run it once."""
        run = Run(context, self._variables, input_extensions)
        try:
            found = self._root(None, None, run)
            data = await found if found.__class__ is not dict else found
        except GraphQLError as error:
            run.errors.add(error, None)
            data = None
        answer: dict[str, Any] = {"data": data}
        if run.errors.errors:
            answer["errors"] = [coded(error).formatted for error in run.errors.errors]
        return answer


def compile_plan(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Plan | None:
    """The plan of an operation of a valid document, or None where it has none."""
    try:
        return Plan(schema, document, operation)
    except (Unsupported, GraphQLError, RecursionError):
        return None


class _Variables(Visitor):
    """Names of the variables that decide what is selected, and how many of it."""

    def __init__(self) -> None:
        super().__init__()
        self.of_conditions: set[str] = set()
        self.of_pages: set[str] = set()

    def enter_directive(self, node: Any, *_: Any) -> None:
        if node.name.value in ("skip", "include"):
            self.of_conditions |= _names(node.arguments)

    def enter_field(self, node: Any, *_: Any) -> None:
        pages = [each for each in node.arguments or () if each.name.value in ("first", "last")]
        self.of_pages |= _names(pages)


def _names(arguments: Any) -> set[str]:
    return {
        each.value.name.value for each in arguments or () if isinstance(each.value, VariableNode)
    }


def _cost_function(
    document: DocumentNode, operation: OperationDefinitionNode, names: list[str]
) -> Callable[[dict[str, Any]], int]:
    """`requested_cost` of the operation, remembered by the variables that it depends on."""

    @lru_cache(maxsize=128)
    def known(*sizes: int | None) -> int:
        given = {name: size for name, size in zip(names, sizes, strict=True) if size is not None}
        return requested_cost(document, operation, given)

    def cost(variables: dict[str, Any]) -> int:
        values = [variables.get(name) for name in names]
        return known(*(value if type(value) is int else None for value in values))

    return cost
