"""What one run of a plan carries: who asks, with which variables, and the errors so far.

Where a value stands in the answer is a chain of tuples (the one before, key, name of the type), and
becomes a path of graphql-core only where somebody asks for it: in an error, or in a resolver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    located_error,
)
from graphql.execution.collect_fields import FieldDetailsList
from graphql.execution.executor import CollectedErrors
from graphql.execution.values import VariableValues
from graphql.pyutils import Path, gather_with_cancel
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import _OperationContextAwareGraphQLResolveInfo as ResolveInfo

Chain = tuple[Any, str | int, str | None] | None

_unheard: set[asyncio.Future[Any]] = set()
"""What still runs beside an error that has already ended its object; kept so that it ends."""


class Unsupported(Exception):
    """A document that a plan cannot answer as the ordinary engine would."""


@dataclass(frozen=True, slots=True)
class Document:
    """What all fields of one operation share."""

    schema: GraphQLSchema
    operation: OperationDefinitionNode
    fragments: dict[str, FragmentDefinitionNode]


@dataclass(frozen=True, slots=True)
class Place:
    """A field where it stands in a document; `key` is its name in the answer."""

    document: Document
    key: str
    parent: GraphQLObjectType
    definition: GraphQLField
    details: FieldDetailsList
    nodes: list[FieldNode]


@dataclass(slots=True)
class Run:
    """One request; `input_extensions` are those of its body."""

    context: Any
    variables: VariableValues
    input_extensions: dict[str, Any] | None
    errors: CollectedErrors = field(default_factory=CollectedErrors)

    def info(self, place: Place, chain: Chain) -> ResolveInfo:
        """What a resolver may ask about its field; `chain` may go on into lists below it."""
        while chain is not None and chain[1].__class__ is int:
            chain = chain[0]
        return ResolveInfo(
            place.nodes[0].name.value,
            place.nodes,
            place.definition.type,
            place.parent,
            path_of(chain),
            place.document.schema,
            place.document.fragments,
            None,
            place.document.operation,
            self.variables.coerced,
            self.context,
            optimized_is_awaitable,
            None,
            None,
            self.input_extensions,
        )

    def failed(self, error: Exception, place: Place, chain: Chain, required: bool) -> None:
        """Note the error; raises it, located, where the place cannot be null."""
        path = path_of(chain)
        located = located_error(error, place.nodes, path.as_list())
        if required:
            raise located
        self.errors.add(located, path)


def path_of(chain: Chain) -> Path:
    """The path of graphql-core that a chain stands for."""
    keys: list[tuple[str | int, str | None]] = []
    while chain is not None:
        before, key, type_name = chain
        keys.append((key, type_name))
        chain = before
    path: Path | None = None
    for key, type_name in reversed(keys):
        path = Path(path, key, type_name)
    assert path is not None
    return path


async def of_fields(results: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    """The object once its waiting fields are there; what is read for them is read together."""
    if len(waiting) == 1:
        key = waiting[0]
        results[key] = await results[key]
    else:
        found = await gather_with_cancel(*(results[key] for key in waiting))
        results.update(zip(waiting, found, strict=True))
    return results


async def of_items(results: list[Any], waiting: list[int]) -> list[Any]:
    """The list once its waiting items are there."""
    if len(waiting) == 1:
        results[waiting[0]] = await results[waiting[0]]
    else:
        found = await gather_with_cancel(*(results[index] for index in waiting))
        for index, result in zip(waiting, found, strict=True):
            results[index] = result
    return results


async def guarded(
    run: Run, waiting: Awaitable[Any], place: Place, chain: Chain, required: bool
) -> Any:
    """The value; its error belongs to this place."""
    try:
        return await waiting
    except Exception as error:  # noqa: BLE001  Located, as every error of a field.
        run.failed(error, place, chain, required)
        return None


def settle(waiting: list[Any]) -> None:
    """Let those go on whose object is null already, unheard."""
    if not waiting:
        return
    future = asyncio.gather(*waiting, return_exceptions=True)
    _unheard.add(future)
    future.add_done_callback(_unheard.discard)


def waits(value: Any) -> bool:
    """Whether this is one of our own coroutines, and no value yet."""
    return value.__class__ is CoroutineType
