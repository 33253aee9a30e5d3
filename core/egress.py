"""The only way to a merchant's URL: a guarded POST to an address that was looked at first.

A merchant chooses the name, so the name may point anywhere: into our own network, at a cloud's
metadata service, at another address the second time it is resolved. It is resolved once, every
answer is judged, and the connection goes to the judged address, with the name in SNI and Host only.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial

import httpx2

from core import clock, configuration
from core.addresses import Target, is_loopback, is_public, parse_url
from core.errors import InvalidArgument

DEADLINE_SECONDS = 5.0
CONNECT_SECONDS = 2.0
REPLY_BYTES_MAX = 64 * 1024
ADDRESSES_TRIED_MAX = 3
RESOLVING_MAX = 32

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply (`failure` is None) with at most 64 KiB of its body, or why there is none."""

    status: int | None = None
    body: bytes = field(default=b"", repr=False)
    failure: str | None = None
    duration_ms: int = 0

    @property
    def succeeded(self) -> bool:
        return self.failure is None and self.status is not None and 200 <= self.status < 300


def check_url(unchecked_url: str) -> None:
    """Refuse a URL that could never be called; raises `InvalidArgument`. Resolves nothing."""
    target = parse_url(unchecked_url)
    if is_allowed_loopback(target):
        return
    if target.scheme != "https":
        raise InvalidArgument("The URL must begin with https://.", field=("url",))
    if target.port not in (443, 8443):
        raise InvalidArgument("The URL may only use port 443 or 8443.", field=("url",))
    if target.address is not None and not is_public(target.address):
        raise InvalidArgument("The URL's address is not a public one.", field=("url",))


def is_allowed_loopback(target: Target) -> bool:
    """Whether this is a receiver on our own machine that a developer has named, host and port."""
    settings = configuration.current()
    allowed = settings.webhook_loopback_addresses if settings.environment == "development" else ()
    if target.address is None or not is_loopback(target.address):
        return False
    return f"{target.host}:{target.port}" in allowed


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`, best first, as the operating system knows them.

    It runs on threads of its own: a name server that hangs must not keep those that the rest of the
    process resolves with.
    """
    found = await asyncio.get_running_loop().run_in_executor(
        _threads(), partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def post(
    url: str, headers: Mapping[str, str], body: bytes, *, resolver: Resolver = system_resolver
) -> Reply:
    """POST `body` and read the reply, all within 5 s. Never raises, except when it is cancelled.

    Redirects are not followed and no proxy is used. A reply beyond 64 KiB is cut there, and its
    status counts; one that drips past the deadline ends as `TIMED_OUT`.
    """
    started_ms = clock.monotonic_ms()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            status, received = await _post(url, headers, body, resolver)
    except InvalidArgument:
        failure = "URL_REFUSED"
    except PermissionError:
        failure = "ADDRESS_REFUSED"
    except (TimeoutError, httpx2.TimeoutException):
        failure = "TIMED_OUT"
    except (ssl.SSLError, httpx2.TransportError, OSError, UnicodeError) as error:
        failure = "TLS_FAILED" if _is_tls(error) else "NO_CONNECTION"
    else:
        return Reply(status=status, body=received, duration_ms=_since(started_ms))
    return Reply(failure=failure, duration_ms=_since(started_ms))


async def _post(
    url: str, headers: Mapping[str, str], body: bytes, resolver: Resolver
) -> tuple[int, bytes]:
    check_url(url)
    target = parse_url(url)
    addresses = await _judged_addresses(target, resolver)
    for position, address in enumerate(addresses, start=1):
        try:
            return await _exchange(target, address, headers, body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # Nothing of the request has left, so the next address may have it.
            if position == len(addresses) or _is_tls(error):
                raise
    raise PermissionError(target.host)


async def _judged_addresses(target: Target, resolver: Resolver) -> Sequence[str]:
    """The addresses to try; a name with one address of ours among others is refused altogether."""
    if is_allowed_loopback(target):
        return [target.host]
    addresses = (
        [target.host.strip("[]")] if target.address else await resolver(target.host, target.port)
    )
    if not addresses or not all(is_public(address) for address in addresses):
        raise PermissionError(target.host)
    return addresses[:ADDRESSES_TRIED_MAX]


async def _exchange(
    target: Target, address: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, bytes]:
    """One request on a connection of its own.

    A shared one could carry one name's calls to another name's server on the same address.
    """
    literal = f"[{address}]" if ":" in address else address
    received = bytearray()
    async with (
        httpx2.AsyncClient(
            verify=_tls(),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(DEADLINE_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=0),
        ) as client,
        client.stream(
            "POST",
            f"{target.scheme}://{literal}:{target.port}{target.path}",
            headers={**headers, "host": target.authority, "accept-encoding": "identity"},
            content=body,
            extensions={"sni_hostname": target.host.strip("[]")},
        ) as response,
    ):
        async for chunk in response.aiter_raw():
            received += chunk
            if len(received) >= REPLY_BYTES_MAX:
                break
        return response.status_code, bytes(received[:REPLY_BYTES_MAX])


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(RESOLVING_MAX, thread_name_prefix="merchant-names")


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """One context for the process: reading the certificate authorities takes long."""
    return httpx2.create_ssl_context(trust_env=False)


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _since(started_ms: float) -> int:
    return round(clock.monotonic_ms() - started_ms)
