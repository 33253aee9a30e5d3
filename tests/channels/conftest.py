"""A simulated bank on a real port, our side configured for it, and a receiver for its callbacks."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from channels import bank, breaker, outgoing
from channels.contract import CallbackEvent, Destination, Instruction, InstructionKind
from channels.simulator import SimulatorSettings, application
from core import clock, configuration, ids
from core.configuration import Configuration
from core.errors import PurserError
from core.money import Money

ADMIN_TOKEN = "admin-token-of-the-test"
SMS_KEY = b"k" * 32


def key_pair() -> tuple[bytes, bytes]:
    """A fresh Ed25519 key: private and public PEM."""
    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(app: Starlette, port: int) -> Iterator[None]:
    """The application on a port, in a thread and event loop of its own, until the block ends."""
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="critical", ws="none")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the server did not start"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass
class Receiver:
    """Our callback address: keeps what came, and acknowledges unless told otherwise."""

    events: list[CallbackEvent] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[CallbackEvent], Response] | None = None

    async def take(self, request: Request) -> Response:
        body = await request.body()
        self.messages.append((dict(request.headers), body))
        try:
            event = bank.parse_callback(request.headers, body)
        except PurserError as error:
            self.refusals.append(error.code)
            return Response(status_code=401)
        self.events.append(event)
        if self.answer is not None:
            return self.answer(event)
        acknowledgement = bank.acknowledge(event)
        return Response(acknowledgement.body, acknowledgement.status, dict(acknowledgement.headers))

    async def wait(self, count: int, seconds: float = 8.0) -> list[CallbackEvent]:
        """The events, as soon as there are `count` of them."""
        deadline = time.monotonic() + seconds
        while len(self.events) < count:
            assert time.monotonic() < deadline, f"{len(self.events)} of {count} callbacks came"
            await asyncio.sleep(0.01)
        return self.events


@dataclass
class Simulator:
    """The running simulator, with its admin interface at hand."""

    settings: SimulatorSettings
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return self.settings.public_url

    def start(self) -> None:
        port = int(self.url.rsplit(":", 1)[1])
        self.running.enter_context(_serving(application(self.settings), port))

    def stop(self) -> None:
        self.running.close()

    async def admin(self, method: str, path: str, content: Any = None) -> Any:
        async with httpx2.AsyncClient(trust_env=False) as client:
            headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            answer = await client.request(method, self.url + path, json=content, headers=headers)
            assert answer.status_code < 300, answer.text
            return answer.json() if answer.content else None

    async def fault(self, operation: str, fault: str, **rest: Any) -> None:
        await self.admin("POST", "/admin/faults", {"operation": operation, "fault": fault, **rest})

    async def booked(self, number: str) -> dict[str, Any]:
        """What the simulator's own books say of one number."""
        report = await self.admin("GET", f"/admin/ledger?number={number}")
        assert report["balanced"], report
        found: dict[str, Any] = report["instructions"][0] if report["instructions"] else {}
        return found

    async def press(self, action_url: str | None, action: str) -> Any:
        """The payer presses a button on the cashier page."""
        assert action_url is not None
        async with httpx2.AsyncClient(trust_env=False) as client:
            return await client.post(action_url, data={"action": action})


@pytest.fixture
def settings(tmp_path: Path) -> SimulatorSettings:
    """The simulator's settings, on a fast clock; our configuration holds the other halves."""
    our_private, our_public = key_pair()
    bank_private, bank_public = key_pair()
    simulator_port, our_port = free_port(), free_port()
    configuration.install(
        Configuration(
            environment="development",
            public_url=f"http://127.0.0.1:{our_port}",
            database_url="",
            redis_url="",
            master_key=b"m" * 32,
            token_issuer="",
            token_audience="",
            bank_url=f"http://127.0.0.1:{simulator_port}",
            bank_private_key=our_private,
            bank_public_key=bank_public,
            sms_url=f"http://127.0.0.1:{simulator_port}/sms",
            sms_key=SMS_KEY,
            risk_model_directory=tmp_path,
        )
    )
    return SimulatorSettings(
        database_path=tmp_path / "simulator.sqlite",
        public_url=f"http://127.0.0.1:{simulator_port}",
        bank_private_key=bank_private,
        client_public_key=our_public,
        sms_key=SMS_KEY,
        admin_token=ADMIN_TOKEN,
        time_factor=0.002,
        payout_seconds=100.0,
        return_seconds=100.0,
    )


@pytest.fixture
async def simulator(settings: SimulatorSettings) -> AsyncIterator[Simulator]:
    """The simulator, running."""
    simulator = Simulator(settings)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
async def receiver(settings: SimulatorSettings) -> AsyncIterator[Receiver]:
    """Our callback address, running."""
    taking = Receiver()
    port = int(configuration.current().public_url.rsplit(":", 1)[1])
    app = Starlette(routes=[Route("/callbacks/bank", taking.take, methods=["POST"])])
    with _serving(app, port):
        yield taking


@pytest.fixture(autouse=True)
async def forgotten() -> AsyncIterator[None]:
    """No breaker, connection or configuration survives a test."""
    breaker.reset()
    yield
    await outgoing.close()
    configuration.install(None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bank gets one second instead of ten."""
    monkeypatch.setattr(bank, "CHANNEL", replace(bank.CHANNEL, call_timeout_seconds=1.0))


@pytest.fixture
def serving() -> Callable[[Starlette, int], AbstractContextManager[None]]:
    return _serving


@pytest.fixture
def pay_in() -> Callable[..., Instruction]:
    return _pay_in


@pytest.fixture
def pay_out() -> Callable[..., Instruction]:
    return _pay_out


def _pay_in(amount_minor: int = 100_00, number: str | None = None) -> Instruction:
    """A pay-in of `amount_minor` CNY under a fresh number."""
    return Instruction(
        request_number=number or ids.new_id().hex,
        kind=InstructionKind.PAY_IN,
        amount=Money(amount_minor, "CNY"),
        description="Top-up <of> a wallet",
        notify_url=f"{configuration.current().public_url}/callbacks/bank",
        return_url="https://shop.example/thanks",
        expires_at=clock.now() + timedelta(minutes=30),
    )


def _pay_out(account_number: str = "6222000000000099", amount_minor: int = 20_00) -> Instruction:
    """A payout of `amount_minor` CNY under a fresh number."""
    return Instruction(
        request_number=ids.new_id().hex,
        kind=InstructionKind.PAY_OUT,
        amount=Money(amount_minor, "CNY"),
        description="Payout",
        notify_url=f"{configuration.current().public_url}/callbacks/bank",
        expires_at=clock.now() + timedelta(days=1),
        destination=Destination(
            account_number=account_number, holder_name="Müller & Söhne", bank_code="ICBC"
        ),
    )
