"""Hostile URLs: whatever a merchant writes, nothing of ours is ever connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest

from core import configuration as installed
from core import egress
from core.addresses import is_public
from core.configuration import Configuration
from core.errors import InvalidArgument

BODY = b'{"secret": "canary"}'


@dataclass
class Canary:
    """A listener on every local address that counts who connects."""

    port: int
    connections_count: int = 0


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    found = Canary(0)

    async def on_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections_count += 1
        writer.close()

    server = await asyncio.start_server(on_connection, "0.0.0.0", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await server.wait_closed()


LITERALS = [
    "127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001",
    "0x7F.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.01", "127.0.0.1.", "0", "0.0.0.0",
    "0.0.0.1", "00.00.00.00", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254",
    "192.168.0.1", "169.254.169.254", "169.254.0.1", "2852039166", "0xa9fea9fe",
    "0251.0376.0251.0376", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "168.63.129.16", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2001:0:7f00:1::]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[fc00::1]",
    "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[fec0::1]",
    "[127.0.0.1]", "[::1", "::1",
]  # fmt: skip

NAMES = [
    "localhost", "localhost.", "LOCALHOST", "ip6-localhost", "localhost.localdomain.",
    "user@localhost", "shop.example@127.0.0.1", "127.0.0.1@shop.example", "a:b@127.0.0.1",
    "shop.example%00.127.0.0.1", "127.0.0.1%23.shop.example", "127.0.0.1%2f", "127。0。0。1",
    "①②⑦.0.0.1", "ｌｏｃａｌｈｏｓｔ", "shop.example\\@127.0.0.1", "127.0.0.1\\.shop.example",
    "127.0.0.1 .shop.example", "127.0.0.1\t", "127.0.0.1\r\nhost: shop.example", "", ".", "..",
    "-shop.example", "shop_.example", "shop..example", "metadata", "1.1.1.1.1",
]  # fmt: skip

WHOLE_URLS = [
    "http://shop.example/", "ftp://shop.example/", "file:///etc/passwd", "gopher://127.0.0.1:1/",
    "https:127.0.0.1", "https:/127.0.0.1", "https:///127.0.0.1", "//127.0.0.1", "127.0.0.1",
    "https://shop.example:22/", "https://shop.example:80/", "https://shop.example:0/",
    "https://shop.example:65536/", "https://shop.example:4430/", "https://shop.example:443#@a/",
    "https://shop.example/ a", "https://shop.example/\r\nx: y", "https://shop.example?x", "",
    "HTTPS://shop.example/", "https://shop.example/" + "a" * 2_048, "javascript:alert(1)",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("host", [*LITERALS, *NAMES])
async def test_a_hostile_host_is_never_connected_to(
    host: str, scheme: str, canary: Canary, configuration: Configuration
) -> None:
    for url in (f"{scheme}://{host}:{canary.port}/", f"{scheme}://{host}/"):
        reply = await egress.post(url, {}, BODY)
        assert reply.status is None
        assert reply.failure in ("URL_REFUSED", "ADDRESS_REFUSED")
    assert canary.connections_count == 0


@pytest.mark.parametrize("url", WHOLE_URLS)
async def test_an_unusual_url_is_refused_when_it_is_set(
    url: str, configuration: Configuration
) -> None:
    with pytest.raises(InvalidArgument):
        egress.check_url(url)
    assert (await egress.post(url, {}, BODY)).failure == "URL_REFUSED"


ANSWERS = [
    ["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"], ["fe80::1%lo"],
    ["10.1.2.3"], ["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], [],
    ["64:ff9b::7f00:1"], ["not an address"],
]  # fmt: skip


@pytest.mark.parametrize("addresses", ANSWERS)
async def test_a_name_that_leads_home_is_refused(
    addresses: list[str], configuration: Configuration
) -> None:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return addresses

    reply = await egress.post("https://shop.example:8443/", {}, BODY, resolver=resolver)
    assert reply.failure == "ADDRESS_REFUSED"


async def test_a_name_is_resolved_once_and_the_judged_address_is_the_one_called(
    canary: Canary, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebinding resolver: public while it is judged, ours afterwards."""
    asked: list[str] = []
    connected: list[tuple[str, int]] = []

    async def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) > 1 else ["93.184.216.34"]

    async def connect(self: object, sock: object, address: tuple[str, int]) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_connect", connect)
    reply = await egress.post("https://shop.example:8443/", {}, BODY, resolver=resolver)
    assert reply.failure == "NO_CONNECTION"
    assert asked == ["shop.example"]
    assert connected == [("93.184.216.34", 8443)]
    assert canary.connections_count == 0


async def test_without_the_judgement_the_canary_would_sing(
    canary: Canary, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control run: the guard taken out, the same call arrives."""
    monkeypatch.setattr(egress, "is_public", lambda address: True)
    monkeypatch.setattr(egress, "check_url", lambda url: None)
    for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
        await egress.post(f"https://{host}:{canary.port}/", {}, BODY)
    assert canary.connections_count == 2


async def test_loopback_is_allowed_by_exact_address_and_port_in_development_only(
    canary: Canary, configuration: Configuration
) -> None:
    own = f"127.0.0.1:{canary.port}"
    named = replace(configuration, webhook_loopback_addresses=(own, f"10.0.0.1:{canary.port}"))
    installed.install(named)
    egress.check_url(f"http://{own}/hook")
    for refused in (
        f"http://127.0.0.1:{canary.port + 1}/", f"http://127.0.0.2:{canary.port}/",
        f"http://localhost:{canary.port}/", f"http://10.0.0.1:{canary.port}/",
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            egress.check_url(refused)
    for environment in ("sandbox", "live"):
        installed.install(replace(named, environment=environment))
        with pytest.raises(InvalidArgument):
            egress.check_url(f"http://{own}/hook")
    assert canary.connections_count == 0


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::8.8.8.8"]
)
def test_addresses_of_the_public_internet_are_let_through(address: str) -> None:
    assert is_public(address)


async def test_a_proxy_of_the_environment_is_not_used(
    canary: Canary, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")

    async def resolver(host: str, port: int) -> Sequence[str]:
        return ["192.0.43.8"]

    async def connect(self: object, sock: object, address: tuple[str, int]) -> None:
        assert address == ("192.0.43.8", 443)
        raise ConnectionRefusedError

    monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_connect", connect)
    reply = await egress.post("https://shop.example/", {}, BODY, resolver=resolver)
    assert reply.failure == "NO_CONNECTION"
    assert canary.connections_count == 0


def test_the_table_is_as_long_as_promised() -> None:
    assert len({*LITERALS, *NAMES, *WHOLE_URLS}) >= 60
    assert socket.has_ipv6
