"""The one place that reads randomness and makes identifiers.

Ids are UUIDs of version 7, so that rows made together lie together. Ids of rows that follow from
another row are derived from it, so that a second run writes the same row.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import uuid

import uuid_utils
from asyncpg.pgproto.pgproto import UUID

VERSION_5 = 0x50
VARIANT = 0x80


def new_id() -> uuid.UUID:
    """A fresh id, ascending in time."""
    return of_bytes(uuid_utils.uuid7().bytes)


def derived_id(base: uuid.UUID, name: str) -> uuid.UUID:
    """The id that `name` has under `base`: the same one each time it is asked for (version 5)."""
    digest = bytearray(
        hashlib.sha1(base.bytes + name.encode(), usedforsecurity=False).digest()[:16]
    )
    digest[6] = digest[6] & 0x0F | VERSION_5
    digest[8] = digest[8] & 0x3F | VARIANT
    return of_bytes(bytes(digest))


def hashed_id(*parts: str) -> uuid.UUID:
    """An id from 128 bits of a SHA-256 over the parts; no two lists of parts share one."""
    joined = "\x00".join(f"{len(part)}:{part}" for part in parts)
    return of_bytes(hashlib.sha256(joined.encode()).digest()[:16])


def of_bytes(value: bytes) -> uuid.UUID:
    """An id of 16 bytes, as the database driver makes them: a `uuid.UUID` that is written as text
    and compared in a tenth of the time. orjson takes it only by way of `core.records.dumps`.
    """
    made: uuid.UUID = UUID(value)
    return made


def node_id(type_name: str, key: uuid.UUID) -> str:
    """The one id under which the outside knows an object, in the API and in webhooks alike."""
    return base64.b64encode(f"{type_name}:{key}".encode()).decode()


def random_token(size: int = 32) -> str:
    """`size` random bytes as URL-safe text; for refresh tokens, keys and nonces."""
    return secrets.token_urlsafe(size)


def random_bytes(size: int) -> bytes:
    """`size` bytes fit for keys."""
    return secrets.token_bytes(size)


def random_digits(count: int) -> str:
    """A code of `count` decimal digits, each equally likely."""
    return f"{secrets.randbelow(10**count):0{count}d}"


def random_fraction() -> float:
    """A number in [0, 1), for jitter."""
    return secrets.randbelow(1 << 30) / (1 << 30)
