"""The text of a request's document: as it was sent, or by its SHA-256.

Trusted documents are read from files when the process starts. Automatic persisted queries are kept
in Valkey for a day: who signed in may add one, and everybody may name it, because a name is the
digest of the text it stands for. Nothing here ever runs a text under another text's name.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from graphql import GraphQLError, parse
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.errors import PurserError
from resolvers.faults import BAD_USER_INPUT

log = logging.getLogger(__name__)

OWN_DOCUMENTS = Path(__file__).resolve().parent.parent / "schema" / "documents"
"""What Purser's own demonstration, replay and examples ask, to the byte."""

PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
NOT_FOUND_MESSAGE = "PersistedQueryNotFound"
"""Apollo's clients look for this very message, and then send the text."""

DIGEST = re.compile(r"[0-9a-f]{64}")
TEXT_BYTES_MAX = 16 * 1024
LIFE_SECONDS = 86_400
STORED_COUNT_MAX = 2_000
"""Of all clients together in Valkey, which evicts nothing by itself: at most 32 MiB."""

REMEMBERED_COUNT_MAX = 256
TIMEOUT_SECONDS = 0.25
PREFIX = "document:"
BY_AGE = "documents-by-age"

STORE = """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], KEYS[1])
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[3]) do
    redis.call('DEL', redis.call('ZPOPMIN', KEYS[2])[1])
end
"""
"""Keeps a text, and forgets the oldest ones beyond the number that may be kept."""

_trusted: dict[str, str] = {}
_remembered: OrderedDict[str, str] = OrderedDict()
_redis: Redis | None = None


class DocumentRefused(PurserError):
    """No text to run; `code` is one of the protocol's, which no payload ever carries."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]


class DocumentsInvalid(Exception):
    """A file of trusted documents cannot be used; the text is the one line to show."""


def load(directory: Path | None) -> None:
    """Read the trusted documents: Purser's own, and those of the folder, if one is named.

    `*.graphql` files hold one document each, `*.json` manifests an object from digest to text, as
    @graphql-codegen's client preset and relay-compiler write them. Raises `DocumentsInvalid`.
    """
    found = dict(_read(OWN_DOCUMENTS))
    if directory is not None:
        if not directory.is_dir():
            raise DocumentsInvalid(f"{directory} is not a folder of documents")
        found.update(_read(directory))
    _trusted.clear()
    _trusted.update(found)


def trusted_texts() -> tuple[str, ...]:
    """Every trusted document."""
    return tuple(_trusted.values())


def connect(redis_url: str) -> None:
    """Prepare the client of this process; without it no automatic persisted query is known."""
    global _redis
    _redis = Redis.from_url(
        redis_url, socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS
    )


async def close() -> None:
    """Close the client of this process, and forget what came through it."""
    global _redis
    _remembered.clear()
    if _redis is not None:
        await _redis.aclose()
        _redis = None


async def text_of(body: dict[str, Any], *, known_client: bool) -> str:
    """The text that a request's body stands for; a `known_client` has signed in.

    Raises `DocumentRefused`: `PERSISTED_QUERY_NOT_FOUND` for a digest that nobody registered, and
    `BAD_USER_INPUT` for anything malformed.
    """
    query, document_id = body.get("query"), body.get("documentId")
    if query is not None and (not isinstance(query, str) or not query):
        raise _malformed("`query` must be a text.")
    if document_id is not None:
        if query is not None:
            raise _malformed("Give either `documentId` or `query`.")
        return _trusted_text(_digest(document_id, "documentId"))
    extensions = body.get("extensions")
    persisted = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
    if persisted is None:
        if query is None:
            raise _malformed("`query` must be a text.")
        return str(query)
    digest = _persisted_digest(persisted)
    if query is None:
        return await _persisted_text(digest)
    if digest != digest_of(query):
        raise _malformed("`sha256Hash` is not the SHA-256 of `query`.")
    if known_client:
        await _keep(digest, query)
    return query


def digest_of(text: str) -> str:
    """The SHA-256 of a document's text, in lower-case hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _trusted_text(digest: str) -> str:
    text = _trusted.get(digest)
    if text is None:
        raise _unknown()
    return text


async def _persisted_text(digest: str) -> str:
    known = _trusted.get(digest) or _remembered.get(digest)
    if known is not None:
        return known
    text = await _fetched(digest)
    if text is None:
        raise _unknown()
    _remember(digest, text)
    return text


async def _fetched(digest: str) -> str | None:
    """What Valkey holds under a digest, if it is what the digest says."""
    if _redis is None:
        return None
    try:
        stored = await _redis.get(PREFIX + digest)
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("a persisted query was not looked up: %s", type(error).__name__)
        return None
    if stored is None or hashlib.sha256(stored).hexdigest() != digest:
        return None
    return str(stored.decode())


async def _keep(digest: str, text: str) -> None:
    """Store a text whose digest was verified, for all clients and processes."""
    if digest in _trusted or digest in _remembered or _redis is None:
        return
    try:
        stored = text.encode()
    except UnicodeEncodeError:
        return
    if len(stored) > TEXT_BYTES_MAX:
        return
    try:
        await _redis.eval(  # type: ignore[misc]
            STORE, 2, PREFIX + digest, BY_AGE, stored, LIFE_SECONDS, STORED_COUNT_MAX
        )
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("a persisted query was not kept: %s", type(error).__name__)
        return
    _remember(digest, text)


def _remember(digest: str, text: str) -> None:
    _remembered[digest] = text
    while len(_remembered) > REMEMBERED_COUNT_MAX:
        _remembered.popitem(last=False)


def _persisted_digest(persisted: Any) -> str:
    if not isinstance(persisted, dict) or persisted.get("version") != 1:
        raise _malformed("`persistedQuery` must have version 1.")
    return _digest(persisted.get("sha256Hash"), "sha256Hash")


def _digest(given: Any, name: str) -> str:
    digest = given.removeprefix("sha256:").lower() if isinstance(given, str) else ""
    if not DIGEST.fullmatch(digest):
        raise _malformed(f"`{name}` must be a SHA-256 in hexadecimal digits.")
    return digest


def _read(directory: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.glob("*.graphql")):
        text = _content(path)
        yield _checked(text, str(path))
    for path in sorted(directory.glob("*.json")):
        try:
            manifest = orjson.loads(_content(path))
        except orjson.JSONDecodeError as error:
            raise DocumentsInvalid(f"{path} is not JSON: {error}") from None
        if not isinstance(manifest, dict):
            raise DocumentsInvalid(f"{path} must be an object from SHA-256 to document")
        for key, text in manifest.items():
            yield _of_manifest(key, text, path)


def _of_manifest(key: str, text: Any, path: Path) -> tuple[str, str]:
    if not isinstance(text, str):
        raise DocumentsInvalid(f"{path}: {key} is not a text")
    digest, text = _checked(text, f"{path}: {key}")
    if key.removeprefix("sha256:").lower() != digest:
        raise DocumentsInvalid(
            f"{path}: {key} is not the SHA-256 of its document; have the compiler name documents "
            'by SHA-256 (relay: "algorithm": "SHA256", codegen: hashAlgorithm "sha256")'
        )
    return digest, text


def _checked(text: str, place: str) -> tuple[str, str]:
    try:
        parse(text)
    except GraphQLError as error:
        raise DocumentsInvalid(f"{place} is not a GraphQL document: {error.message}") from None
    return digest_of(text), text


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentsInvalid(f"{path} cannot be read: {error}") from None


def _unknown() -> DocumentRefused:
    return DocumentRefused(PERSISTED_QUERY_NOT_FOUND, NOT_FOUND_MESSAGE)


def _malformed(message: str) -> DocumentRefused:
    return DocumentRefused(BAD_USER_INPUT, message)


load(None)
