"""A network that can be cut: a proxy in user space before a real server."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Proxy:
    """Passes bytes both ways until it is told to cut.

    `cut_at` is what to look for in what clients send. With `after_reply` the server still gets it
    and answers, and only the answer is lost; else the server never hears of it. With `stays_away`
    no connection is taken after the cut.
    """

    connect: Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    cut_at: bytes | None = None
    after_reply: bool = False
    stays_away: bool = False
    cuts_count: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections, and cut those that are open."""
        if self._server is not None:
            self._server.close()
        self.cut_all()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.stays_away and self.cuts_count:
                raise ConnectionRefusedError
            server_reader, server_writer = await self.connect()
            self._writers |= {writer, server_writer}
            await asyncio.gather(
                self._up(reader, writer, server_reader, server_writer),
                self._down(server_reader, writer),
            )
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _up(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    self.cuts_count += 1
                    writer.transport.abort()
                    if not self.after_reply:
                        server_writer.transport.abort()
                        return
                server_writer.write(data)
                await server_writer.drain()
        with suppress(OSError):
            server_writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()


def postgres_behind(url: str) -> Proxy:
    """A proxy to the server of `url`, by TCP or by its Unix socket."""
    parts = urllib.parse.urlsplit(url)
    folder = urllib.parse.parse_qs(parts.query).get("host", [""])[0]
    if folder.startswith("/"):
        path = f"{folder}/.s.PGSQL.{parts.port or 5432}"
        return Proxy(lambda: asyncio.open_unix_connection(path))
    return Proxy(lambda: asyncio.open_connection(parts.hostname, parts.port or 5432))


def valkey_behind(url: str) -> Proxy:
    """A proxy to the Valkey of `url`, by TCP or by its Unix socket."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "unix":
        return Proxy(lambda: asyncio.open_unix_connection(parts.path))
    return Proxy(lambda: asyncio.open_connection(parts.hostname, parts.port))


def through(proxy: Proxy, url: str) -> str:
    """The same server's URL, by way of the proxy."""
    parts = urllib.parse.urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    place = f"{credentials}@127.0.0.1:{proxy.port}" if credentials else f"127.0.0.1:{proxy.port}"
    if parts.scheme == "unix":
        number = urllib.parse.parse_qs(parts.query).get("db", ["0"])[0]
        return f"redis://{place}/{number}"
    return parts._replace(netloc=place, query="").geturl()


@pytest.fixture
async def postgres_proxy(database: Any) -> AsyncIterator[Proxy]:
    """A proxy before the test's PostgreSQL; the open pool does not go through it."""
    proxy = postgres_behind(database.url)
    await proxy.start()
    yield proxy
    await proxy.stop()
