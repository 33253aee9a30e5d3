"""What a merchant's server may answer, and how slowly; and that TLS goes by the name."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core import configuration as installed
from core import egress
from core.configuration import Configuration

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def receiver(respond: Respond, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that reads one request and hands the rest to `respond`; yields its port."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await respond(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
    return head, await reader.readexactly(size)


def allowed(configuration: Configuration, port: int) -> str:
    installed.install(replace(configuration, webhook_loopback_addresses=(f"127.0.0.1:{port}",)))
    return f"http://127.0.0.1:{port}/hook"


async def test_a_reply_comes_back_with_status_and_body(configuration: Configuration) -> None:
    seen: list[tuple[str, bytes]] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok")

    async with receiver(respond) as port:
        reply = await egress.post(allowed(configuration, port), {"webhook-id": "7"}, b"{}")
    assert (reply.status, reply.body, reply.failure) == (202, b"ok", None)
    assert reply.succeeded
    head, body = seen[0]
    assert head.startswith("POST /hook HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{port}\r\n" in head.lower()
    assert "webhook-id: 7\r\n" in head
    assert body == b"{}"


async def test_a_redirect_is_an_answer_and_is_not_followed(configuration: Configuration) -> None:
    requests_count = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests_count
        requests_count += 1
        await request_of(reader)
        writer.write(b"HTTP/1.1 307 Go\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n")

    async with receiver(respond) as port:
        reply = await egress.post(allowed(configuration, port), {}, b"{}")
    assert reply.status == 307
    assert not reply.succeeded
    assert requests_count == 1


async def test_a_huge_reply_is_cut(configuration: Configuration) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n")
        for _ in range(1_000):
            writer.write(b"x" * 10_000)
            await writer.drain()

    async with receiver(respond) as port:
        reply = await egress.post(allowed(configuration, port), {}, b"{}")
    assert reply.succeeded
    assert len(reply.body) == egress.REPLY_BYTES_MAX


async def test_a_dripping_reply_ends_at_the_deadline(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "DEADLINE_SECONDS", 0.5)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    started = time.monotonic()
    async with receiver(respond) as port:
        reply = await egress.post(allowed(configuration, port), {}, b"{}")
    assert reply.failure == "TIMED_OUT"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"]
)
async def test_a_broken_reply_is_a_failure_and_no_exception(
    answer: bytes, configuration: Configuration
) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)

    async with receiver(respond) as port:
        reply = await egress.post(allowed(configuration, port), {}, b"{}")
    assert reply.failure == "NO_CONNECTION"
    assert not reply.succeeded


async def test_tls_is_checked_against_the_name_while_the_address_is_called(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed("shop.example", tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    names: list[str | None] = []
    server_side.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(egress, "_tls", lambda: trusting)
    monkeypatch.setattr(egress, "is_public", lambda address: True)
    monkeypatch.setattr(egress, "check_url", lambda url: None)
    heads: list[str] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await request_of(reader))[0])
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def resolver(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with receiver(respond, server_side) as port:
        right = await egress.post(f"https://shop.example:{port}/", {}, b"{}", resolver=resolver)
        wrong = await egress.post(f"https://other.example:{port}/", {}, b"{}", resolver=resolver)
    assert right.status == 204
    assert names == ["shop.example", "other.example"]
    assert f"host: shop.example:{port}\r\n" in heads[0].lower()
    assert wrong.failure == "TLS_FAILED"
    assert len(heads) == 1


def self_signed(name: str, folder: Path) -> tuple[Path, Path]:
    """A certificate for `name` that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


async def test_names_are_resolved_by_the_system(configuration: Configuration) -> None:
    assert "127.0.0.1" in await egress.system_resolver("localhost", 443)
    reply = await egress.post("https://no-such-name.invalid/", {}, b"{}")
    assert reply.failure in ("NO_CONNECTION", "TIMED_OUT")


async def test_the_next_address_is_tried_when_the_first_cannot_be_reached(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "is_public", lambda address: True)
    tried: list[str] = []
    real = egress._exchange

    async def exchange(target: object, address: str, *rest: object) -> tuple[int, bytes]:
        tried.append(address)
        if address == "127.0.0.9":
            return 200, b"here"
        return await real(target, address, *rest)  # type: ignore[arg-type]

    async def resolver(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1", "127.0.0.9", "127.0.0.3"]

    monkeypatch.setattr(egress, "_exchange", exchange)
    reply = await egress.post("https://shop.example:8443/", {}, b"{}", resolver=resolver)
    assert reply.body == b"here"
    assert tried == ["127.0.0.1", "127.0.0.9"]
