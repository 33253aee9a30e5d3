"""Workers of the test's own, a merchant with an endpoint, and a Valkey that may be killed."""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from core import configuration as installed
from core import hub, ids, outbox
from core.configuration import Configuration
from core.phase import phase
from core.principal import SYSTEM, Principal
from workers.claims import Claim
from workers.dispatch import dispatch
from workers.jobs import Ending, Job
from workers.serve import close_worker
from workers.short import short_worker, webhook_worker

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Receiver:
    """A merchant's server: it keeps what it gets and answers as it is told (200 by default)."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    answer_always: int = 200
    pause_seconds: float = 0.0
    connections_count: int = 0
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def event_ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append((headers, body))
            await asyncio.sleep(self.pause_seconds)
            status = self.answers.pop(0) if self.answers else self.answer_always
            writer.write(f"HTTP/1.1 {status} Said\r\ncontent-length: 5\r\n\r\nheard".encode())
        writer.close()


@pytest.fixture
async def receiver(configuration: Configuration) -> AsyncIterator[Receiver]:
    """A receiver on loopback that the configuration allows."""
    here = Receiver()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    current = installed.current()
    installed.install(replace(current, webhook_loopback_addresses=(f"127.0.0.1:{here.port}",)))
    yield here
    server.close()
    await server.wait_closed()


@pytest.fixture
async def shop(database: Any) -> Principal:
    """A merchant's principal."""
    shop_id = ids.new_id()
    await database.fetch(
        """INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
            payment_limit_minor, created_at)
        VALUES ($1, 'Shop', 'ACTIVE', 6000, '["CNY"]', 10000000, now())""",
        shop_id,
    )
    return Principal("merchant", shop_id)


async def add_event(job: str | None, **changes: Any) -> uuid.UUID:
    """An event in the outbox, in a commit of its own."""
    values: dict[str, Any] = {
        "topic": "order.succeeded",
        "resource_kind": "order",
        "resource_id": ids.new_id(),
        "job": job,
        **changes,
    }
    event = outbox.Event(**values)
    async with phase(SYSTEM):
        await outbox.add(event)
    return event.event_id


async def end_leases(database: Any) -> None:
    """Let the time pass that every lease and every pause lasts."""
    await database.fetch("UPDATE outbox SET due_at = now() WHERE done_at IS NULL")


async def undone(database: Any) -> int:
    rows = await database.fetch("SELECT FROM outbox WHERE job IS NOT NULL AND done_at IS NULL")
    return len(rows)


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.02)


@dataclass
class Counter:
    """A job that counts its runs by event."""

    runs: dict[uuid.UUID, int] = field(default_factory=dict)

    async def run(self, claim: Claim) -> Ending:
        self.runs[claim.event_id] = self.runs.get(claim.event_id, 0) + 1
        return Ending.DONE

    @property
    def jobs(self) -> dict[str, Job]:
        return {"count": self.run}


@asynccontextmanager
async def dispatching() -> AsyncIterator[asyncio.Task[None]]:
    """The dispatcher as a task of this process."""
    hub.connect(installed.current().redis_url)
    stop = asyncio.Event()
    task = asyncio.create_task(dispatch(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)
        await hub.close()


@asynccontextmanager
async def working(redis_url: str, jobs: Any) -> AsyncIterator[None]:
    """The short workers as tasks of this process."""
    workers = [make(redis_url, jobs) for make in (short_worker, webhook_worker)]
    tasks = [asyncio.create_task(worker.async_run()) for worker in workers]
    try:
        yield
    finally:
        for worker in workers:
            worker.handle_sig_wait_for_completion(signal.SIGTERM)
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers:
            await close_worker(worker)


class Process:
    """A worker process like `purser worker`, with a configuration of the test's own."""

    def __init__(self, folder: Path, kind: str, **changes: Any) -> None:
        path = folder / f"configuration-{uuid.uuid4().hex}"
        path.write_bytes(pickle.dumps(replace(installed.current(), **changes)))
        self.log = path.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.workers.child", kind, str(path)],
                cwd=ROOT,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

    async def ended(self, seconds: float = 20.0) -> int:
        """The exit code, once there is one."""
        await until(lambda: self.process.poll() is not None, seconds)
        return int(self.process.returncode)

    async def started(self) -> None:
        """Wait until it has installed its handlers and connected."""
        await until(lambda: b"ready" in self.log.read_bytes())

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts worker processes; whatever still runs at the end is killed."""
    started: list[Process] = []

    def begin(kind: str, **changes: Any) -> Process:
        started.append(Process(tmp_path, kind, **changes))
        return started[-1]

    yield begin
    for each in started:
        each.kill()


@dataclass
class OwnValkey:
    """A Valkey of this test alone, to be killed and started again on the same port."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        self.launch()
        await until(self._answers)

    def launch(self) -> None:
        from app.development.binaries import valkey_server

        command = [str(valkey_server()), "--port", str(self.port), "--save", "", "--bind"]
        self.process = subprocess.Popen([*command, "127.0.0.1"], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def _answers(self) -> bool:
        async with Redis.from_url(self.url) as redis:
            with suppress(Exception):
                return bool(await redis.ping())
        return False


@pytest.fixture
async def own_valkey(configuration: Configuration) -> AsyncIterator[OwnValkey]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = OwnValkey(port)
    await server.start()
    installed.install(replace(installed.current(), redis_url=server.url))
    yield server
    server.kill()
