"""What happens around each operation: fresh loaders, limits before validation, and its cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode
from strawberry.extensions import ParserCache, SchemaExtension, ValidationCache

from core import configuration
from core.errors import ServerBusy
from resolvers import throttle
from resolvers.context import RequestContext
from schema.cost import COST_MAX, actual_cost, requested_cost
from schema.limits import TOO_COSTLY, limit_errors


class FreshContext(SchemaExtension):
    """Each operation reads with loaders of its own; a socket would share them otherwise."""

    def on_operation(self) -> Iterator[None]:
        execution = self.execution_context
        execution.context = execution.context.for_operation()
        yield


class CarefulParserCache(ParserCache):
    """A syntax error is left to the executor: raised from here it would end a socket's task."""

    def on_parse(self) -> Iterator[None]:
        execution = self.execution_context
        with suppress(GraphQLError):
            execution.graphql_document = self.cached_parse_document(
                execution.query, **execution.parse_options
            )
        yield


class LimitedValidation(ValidationCache):
    """Our limits first: a document beyond them never meets the validator, which is dearer."""

    sensitive: frozenset[str] = frozenset()

    def on_validate(self) -> Iterator[None]:
        execution = self.execution_context
        context: RequestContext = execution.context
        may_introspect = (
            context.caller is not None or configuration.current().environment == "development"
        )
        assert execution.graphql_document is not None
        errors = limits_of(execution.graphql_document, self.sensitive, may_introspect)
        if errors:
            execution.pre_execution_errors = list(errors)
            yield
        else:
            yield from super().on_validate()


class Costs(SchemaExtension):
    """Takes the requested cost from the client's bucket, gives back what was not used."""

    _cost: dict[str, Any] | None = None

    async def on_execute(self) -> AsyncIterator[None]:
        execution = self.execution_context
        context: RequestContext = execution.context
        operation = _operation(execution.graphql_document, execution.operation_name)
        assert execution.graphql_document is not None
        requested = requested_cost(execution.graphql_document, operation, execution.variables or {})
        if requested > COST_MAX:
            raise GraphQLError(
                f"This would cost {requested} points; at most {COST_MAX} are allowed.",
                extensions={"code": TOO_COSTLY, "requested": requested, "maximum": COST_MAX},
            )
        bucket = throttle.bucket_of(context.caller)
        available = await throttle.take(context.client, bucket, requested)
        if available is None and context.caller is None and operation.operation.value == "mutation":
            raise ServerBusy()
        yield
        data = getattr(execution.result, "data", None)
        actual = requested if data is None else min(requested, actual_cost(operation, data))
        self._cost = throttle.settled(context.client, bucket, requested, actual, available)

    def get_results(self) -> dict[str, Any]:
        return {"cost": self._cost} if self._cost else {}


@lru_cache(maxsize=128)
def limits_of(
    document: DocumentNode, sensitive: frozenset[str], may_introspect: bool
) -> tuple[GraphQLError, ...]:
    """Why a document is refused before it is validated; see `schema/limits.py`."""
    return tuple(limit_errors(document, sensitive, may_introspect=may_introspect))


def _operation(document: DocumentNode | None, name: str | None) -> OperationDefinitionNode:
    """The operation that runs; the executor has already refused a name that is not there."""
    operations = [
        each
        for each in (document.definitions if document else ())
        if isinstance(each, OperationDefinitionNode)
    ]
    return next(
        (each for each in operations if each.name and each.name.value == name), operations[0]
    )
