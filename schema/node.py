"""Relay's global ids: opaque, typed, and the only ids a client ever sees.

A malformed id, one of another type and one of somebody else's are answered alike: `NOT_FOUND`.
Strawberry's own relay types answer a malformed id without a code, which is why these stand here.
"""

from __future__ import annotations

import base64
import binascii
import uuid

import strawberry

from core import ids
from core.errors import NotFound

NODE_ID_LENGTH_MAX = 128


@strawberry.interface(description="An object with an id that is unique over all types.")
class Node:
    """Relay's interface; a type that implements it is filled with `node_id` of its own name."""

    id: strawberry.ID = strawberry.field(
        description="Opaque id, unique over all types and never reused."
    )


def node_id(type_name: str, key: uuid.UUID) -> strawberry.ID:
    """The global id of one object."""
    return strawberry.ID(ids.node_id(type_name, key))


def parse_node_id(unchecked_id: str) -> tuple[str, uuid.UUID]:
    """Type name and key; raises `NotFound` for what we never made."""
    try:
        if len(unchecked_id) > NODE_ID_LENGTH_MAX:
            raise ValueError
        type_name, _, key = base64.b64decode(unchecked_id, validate=True).decode().partition(":")
        parsed = uuid.UUID(key)
    except (ValueError, binascii.Error):
        raise NotFound() from None
    if node_id(type_name, parsed) != unchecked_id:
        raise NotFound()
    return type_name, parsed


def key_of(type_name: str, unchecked_id: str, field: str) -> uuid.UUID:
    """The key of an id that must be of this type; `field` names the input in the refusal."""
    try:
        found, key = parse_node_id(unchecked_id)
    except NotFound:
        raise NotFound(field=(field,)) from None
    if found != type_name:
        raise NotFound(field=(field,))
    return key
