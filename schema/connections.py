"""Relay's connections with keyset cursors, and the one way to ask for a page.

Every list is asked for by `first` (with `after`) or `last` (with `before`), at most 100 at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import strawberry

from core.errors import InvalidArgument

PAGE_MAX = 100

T = TypeVar("T")
N = TypeVar("N")

First = Annotated[
    int | None, strawberry.argument(description="How many from the start of the list, 1 to 100.")
]
Last = Annotated[
    int | None, strawberry.argument(description="How many from the end of the list, 1 to 100.")
]
After = Annotated[
    str | None, strawberry.argument(description="Cursor after which the page begins.")
]
Before = Annotated[
    str | None, strawberry.argument(description="Cursor before which the page ends.")
]


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow after this page.")
    has_previous_page: bool = strawberry.field(description="Whether more stand before this page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first edge.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last edge.")


@strawberry.type(description="One item of a list, with the cursor of its place.")
class Edge(Generic[N]):
    cursor: str = strawberry.field(description="Opaque cursor, for `after` and `before`.")
    node: N = strawberry.field(description="The item.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[N]):
    edges: list[Edge[N]] = strawberry.field(description="The items of this page with cursors.")
    nodes: list[N] = strawberry.field(description="The items of this page.")
    page_info: PageInfo = strawberry.field(description="Where this page stands.")


@dataclass(frozen=True, slots=True)
class Page:
    """A checked request for a page: `size` items after or before `cursor`, from the named end."""

    size: int
    backwards: bool
    cursor: str | None


def page_of(first: int | None, after: str | None, last: int | None, before: str | None) -> Page:
    """The page that was asked for; raises `InvalidArgument` unless exactly one end is named."""
    if (first is None) == (last is None):
        raise InvalidArgument("Give either `first` or `last`.", field=("first",))
    if first is not None:
        if before is not None:
            raise InvalidArgument("`before` goes with `last`.", field=("before",))
        return Page(_checked_size(first, "first"), False, after)
    assert last is not None
    if after is not None:
        raise InvalidArgument("`after` goes with `first`.", field=("after",))
    return Page(_checked_size(last, "last"), True, before)


def connection_of(
    items: Sequence[T],
    page: Page,
    *,
    has_more: bool,
    cursor: Callable[[T], str],
    view: Callable[[T], N],
) -> Connection[N]:
    """The page as a connection; `items` in the list's order, `has_more` in the page's direction."""
    edges = [Edge(cursor=cursor(item), node=view(item)) for item in items]
    return Connection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=PageInfo(
            has_next_page=page.cursor is not None if page.backwards else has_more,
            has_previous_page=has_more if page.backwards else page.cursor is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )


def _checked_size(size: int, field: str) -> int:
    if not 1 <= size <= PAGE_MAX:
        raise InvalidArgument(f"A page has 1 to {PAGE_MAX} items.", field=(field,))
    return size
