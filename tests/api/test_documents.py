"""Documents by their digest: trusted ones from files, automatic ones from Valkey, and no others."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from graphql import build_schema, parse, validate
from redis.asyncio import Redis

from core.configuration import Configuration
from core.errors import error_classes
from resolvers import documents
from resolvers.documents import DocumentRefused, DocumentsInvalid, digest_of, text_of
from schema.export import SNAPSHOT
from tests.api.own_documents import own_documents

QUERY = "{ viewer { kind } }"
OTHER = "{ viewer { scopes } }"


def persisted(text: str, **members: Any) -> dict[str, Any]:
    """A body that names a text by its digest, as Apollo's clients write it."""
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest_of(text)}}} | (
        members
    )


@pytest.fixture
async def stored(configuration: Configuration, valkey: str) -> AsyncIterator[Redis]:
    """Documents on this test's Valkey, which is given to look at."""
    documents.connect(valkey)
    async with Redis.from_url(valkey) as redis:
        yield redis
    await documents.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of trusted documents; what was loaded from it is forgotten afterwards."""
    yield tmp_path
    documents.load(None)


async def refused(body: dict[str, Any], *, known_client: bool = True) -> str:
    """The code of the refusal."""
    with pytest.raises(DocumentRefused) as found:
        await text_of(body, known_client=known_client)
    if found.value.code == "PERSISTED_QUERY_NOT_FOUND":
        assert found.value.message == "PersistedQueryNotFound"
    return found.value.code


async def test_a_plain_query_stays_as_it_is() -> None:
    assert await text_of({"query": QUERY}, known_client=False) == QUERY


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": None},
        {"query": ""},
        {"query": 7},
        {"documentId": 7},
        {"documentId": "sha256:"},
        {"documentId": "md5:" + "0" * 32},
        {"documentId": "0" * 63},
        {"documentId": "0" * 64 + "\n"},
        {"documentId": "0" * 64, "query": QUERY},
        {"extensions": 7},
        {"extensions": {"persistedQuery": None}},
        {"extensions": {"persistedQuery": 7}},
        {"extensions": {"persistedQuery": {}}},
        {"extensions": {"persistedQuery": {"version": 2, "sha256Hash": "0" * 64}}},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "short"}}},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": ["0" * 64]}}},
        {"query": QUERY, "extensions": {"persistedQuery": {"version": 1}}},
    ],
)
async def test_a_malformed_body_is_bad_user_input(body: dict[str, Any]) -> None:
    assert await refused(body) == "BAD_USER_INPUT"


async def test_what_nobody_registered_is_not_found(stored: Redis) -> None:
    assert await refused(persisted(QUERY)) == "PERSISTED_QUERY_NOT_FOUND"
    assert await refused({"documentId": digest_of(QUERY)}) == "PERSISTED_QUERY_NOT_FOUND"


async def test_what_a_signed_in_client_registered_is_found_by_everybody(stored: Redis) -> None:
    assert await text_of(persisted(QUERY, query=QUERY), known_client=True) == QUERY
    assert await text_of(persisted(QUERY), known_client=True) == QUERY
    documents._remembered.clear()
    assert await text_of(persisted(QUERY), known_client=False) == QUERY
    assert 0 < await stored.ttl(documents.PREFIX + digest_of(QUERY)) <= documents.LIFE_SECONDS


async def test_an_automatic_document_is_no_trusted_one(stored: Redis) -> None:
    await text_of(persisted(QUERY, query=QUERY), known_client=True)
    assert await refused({"documentId": digest_of(QUERY)}) == "PERSISTED_QUERY_NOT_FOUND"


async def test_nobody_registers_without_signing_in(stored: Redis) -> None:
    assert await text_of(persisted(QUERY, query=QUERY), known_client=False) == QUERY
    assert await refused(persisted(QUERY)) == "PERSISTED_QUERY_NOT_FOUND"
    assert not await stored.keys("document*")


@pytest.mark.parametrize("known_client", [True, False])
async def test_a_text_under_the_digest_of_another_is_refused_and_not_kept(
    stored: Redis, known_client: bool
) -> None:
    assert await refused(persisted(QUERY, query=OTHER), known_client=known_client) == (
        "BAD_USER_INPUT"
    )
    assert await refused(persisted(QUERY)) == "PERSISTED_QUERY_NOT_FOUND"
    assert not await stored.keys("document*")


async def test_a_text_that_was_changed_in_valkey_is_not_found(stored: Redis) -> None:
    await stored.set(documents.PREFIX + digest_of(QUERY), OTHER)
    assert await refused(persisted(QUERY)) == "PERSISTED_QUERY_NOT_FOUND"


async def test_a_text_that_is_too_large_runs_and_is_not_kept(stored: Redis) -> None:
    large = QUERY + " " * documents.TEXT_BYTES_MAX
    assert await text_of(persisted(large, query=large), known_client=True) == large
    assert await refused(persisted(large)) == "PERSISTED_QUERY_NOT_FOUND"
    assert not await stored.keys("document*")


async def test_a_text_that_is_no_unicode_is_not_kept(stored: Redis) -> None:
    broken = QUERY + "#\ud800"
    assert await text_of(persisted(broken, query=broken), known_client=True) == broken
    assert not await stored.keys("document*")


async def test_the_oldest_make_room_beyond_the_number_that_is_kept(
    stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "STORED_COUNT_MAX", 3)
    monkeypatch.setattr(documents, "REMEMBERED_COUNT_MAX", 2)
    for number in range(6):
        text = f"query Q{number} {QUERY}"
        await text_of(persisted(text, query=text), known_client=True)
    assert len(await stored.keys(documents.PREFIX + "*")) == 3
    assert len(documents._remembered) == 2


async def test_without_valkey_only_trusted_documents_have_a_digest(
    configuration: Configuration, folder: Path
) -> None:
    (folder / "viewer.graphql").write_text(OTHER)
    documents.load(folder)
    documents.connect("redis://127.0.0.1:1")
    try:
        assert await text_of(persisted(QUERY, query=QUERY), known_client=True) == QUERY
        assert await refused(persisted(QUERY)) == "PERSISTED_QUERY_NOT_FOUND"
        assert await text_of(persisted(OTHER), known_client=False) == OTHER
    finally:
        await documents.close()


async def test_documents_of_a_folder_are_trusted(folder: Path) -> None:
    (folder / "one.graphql").write_text(QUERY)
    (folder / "relay.json").write_bytes(orjson.dumps({digest_of(OTHER): OTHER}))
    documents.load(folder)
    assert {QUERY, OTHER} < set(documents.trusted_texts())
    for text in (QUERY, OTHER):
        for name in (digest_of(text), f"sha256:{digest_of(text)}", digest_of(text).upper()):
            assert await text_of({"documentId": name}, known_client=False) == text
        assert await text_of(persisted(text), known_client=False) == text


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.graphql", b"{ viewer {", "not a GraphQL document"),
        ("a.graphql", b"\xff", "cannot be read"),
        ("a.json", b"{", "not JSON"),
        ("a.json", b"[]", "must be an object"),
        ("a.json", orjson.dumps({digest_of(QUERY): 7}), "not a text"),
        ("a.json", orjson.dumps({digest_of(QUERY): OTHER}), "not the SHA-256"),
        ("a.json", orjson.dumps({digest_of("{"): "{"}), "not a GraphQL document"),
        (
            "relay.json",
            orjson.dumps({hashlib.md5(QUERY.encode()).hexdigest(): QUERY}),
            "by SHA-256",
        ),
        (
            "codegen.json",
            orjson.dumps({hashlib.sha1(QUERY.encode()).hexdigest(): QUERY}),
            "by SHA-256",
        ),
    ],
)
async def test_a_file_that_cannot_be_trusted_stops_the_start_by_name(
    folder: Path, name: str, content: bytes, problem: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DocumentsInvalid, match=problem) as found:
        documents.load(folder)
    assert name in str(found.value)


def test_a_folder_that_is_not_there_stops_the_start(folder: Path) -> None:
    with pytest.raises(DocumentsInvalid, match="not a folder"):
        documents.load(folder / "nowhere")


async def test_what_our_own_programs_send_is_trusted_to_the_byte() -> None:
    sent = {text for _, text in own_documents()}
    assert len(sent) > 30
    committed = {path.read_bytes().decode() for path in documents.OWN_DOCUMENTS.glob("*.graphql")}
    assert committed == sent
    schema = build_schema(SNAPSHOT.read_text())
    for text in sent:
        assert await text_of({"documentId": digest_of(text)}, known_client=False) == text
        assert validate(schema, parse(text)) == []


def test_the_codes_of_the_protocol_are_no_codes_of_payloads() -> None:
    assert documents.PERSISTED_QUERY_NOT_FOUND not in error_classes()
