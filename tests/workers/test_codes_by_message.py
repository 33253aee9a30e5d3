"""A code is made by the worker that sends it, and is nowhere else in clear."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from channels import outgoing
from core import configuration as installed
from core import ids
from core.configuration import Configuration
from core.errors import CredentialsInvalid
from identity import codes
from identity.codes import CodePurpose
from tests.workers.conftest import end_leases, undone
from workers.inline import run_due


@dataclass
class Provider:
    """A provider of messages: keeps the texts; a status of 0 is a connection cut without answer."""

    statuses: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def digits(self) -> list[str]:
        return [found[0] for text in self.texts if (found := re.findall(r"\b\d{6}\b", text))]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.split("content-length: ")[1].split("\r\n")[0])
            self.texts.append(json.loads(await reader.readexactly(size))["text"])
            if status := self.statuses.pop(0) if self.statuses else 200:
                writer.write(f"HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()


@pytest.fixture
async def provider(configuration: Configuration) -> AsyncIterator[Provider]:
    here = Provider()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    installed.install(replace(installed.current(), sms_url=f"http://127.0.0.1:{port}/messages"))
    yield here
    await outgoing.close()
    server.close()


@pytest.fixture
async def asked(database: Any) -> codes.CodeRequest:
    """A customer who has asked for a code."""
    customer_id = ids.new_id()
    await database.fetch(
        """INSERT INTO customer (customer_id, phone, status, display_name, created_at)
        VALUES ($1, '+8613800000001', 'ACTIVE', 'Customer', now())""",
        customer_id,
    )
    request = await codes.request_code(customer_id, CodePurpose.RESET_PASSWORD)
    return replace(request, code_id=customer_id)


async def test_the_code_that_arrives_is_the_one_that_counts(
    database: Any, asked: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert await run_due() == 1
    (digits,) = provider.digits
    assert await undone(database) == 0
    for table in ("outbox", "one_time_code", "audit_log"):
        rows = await database.fetch(f"SELECT t::text AS text FROM {table} t")
        assert all(digits not in row["text"] for row in rows)
    assert digits not in caplog.text
    await codes.check_code(asked.code_id, CodePurpose.RESET_PASSWORD, digits)


@pytest.mark.parametrize("status", [0, 500, 429])
async def test_an_unknown_outcome_is_tried_again_with_another_code_three_times_in_all(
    database: Any, asked: Any, provider: Provider, status: int
) -> None:
    provider.statuses = [status] * 10
    for _ in range(6):
        await run_due()
        await end_leases(database)
    assert len(provider.digits) == len(set(provider.digits)) == 3
    assert await undone(database) == 0
    for old in provider.digits[:2]:
        with pytest.raises(CredentialsInvalid):
            await codes.check_code(asked.code_id, CodePurpose.RESET_PASSWORD, old)
    await codes.check_code(asked.code_id, CodePurpose.RESET_PASSWORD, provider.digits[2])


async def test_a_destination_that_does_not_exist_is_not_tried_again(
    database: Any, asked: Any, provider: Provider
) -> None:
    provider.statuses = [404]
    await run_due()
    assert await undone(database) == 0
    assert len(provider.texts) == 1


async def test_a_code_that_expired_in_the_queue_is_not_sent(
    database: Any, asked: Any, provider: Provider
) -> None:
    await database.fetch("UPDATE one_time_code SET expires_at = now()")
    await run_due()
    assert await undone(database) == 0
    assert provider.texts == []
