"""What a URL given by a stranger names, and whether an address belongs to the public internet.

Parsing is stricter than any browser's: whatever could be read in two ways is refused, because the
one who judges and the one who connects must see the same host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from core.errors import InvalidArgument

URL_LENGTH_MAX = 2_048

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[0-9A-Za-z.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!$&'()*+,;=:@/?%0-9A-Za-z._~-]*)?"
)
_LABEL = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_REFUSED_IPV4 = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # Protocol assignments; one of them is a cloud's metadata service.
        "192.88.99.0/24",  # The relays of 6to4, which lead anywhere.
        "168.63.129.16/32",  # A cloud's wire server, public by its number alone.
    )
)
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Protocol assignments, Teredo among them.
        "2001:db8::/32",  # Documentation.
        "2002::/16",  # 6to4 carries any IPv4 address inside.
        "3fff::/20",  # Documentation.
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parsed URL: `host` in lower case, `address` set where it is written as an address."""

    scheme: str
    host: str
    port: int
    path: str
    address: str | None

    @property
    def authority(self) -> str:
        """What the Host header says."""
        usual = {"https": 443, "http": 80}[self.scheme]
        return self.host if self.port == usual else f"{self.host}:{self.port}"


def parse_url(unchecked_url: str) -> Target:
    """The parts of an absolute http(s) URL; raises `InvalidArgument` for anything unusual.

    Refused are user info, fragments, blanks, backslashes, escapes in the host, names of one label
    or with a trailing dot, and every spelling of an IPv4 address but four plain decimals.
    """
    match = _URL.fullmatch(unchecked_url) if len(unchecked_url) <= URL_LENGTH_MAX else None
    if match is None:
        raise InvalidArgument("This is not a plain http(s) URL.", field=("url",))
    host = match["host"].lower()
    port = int(match["port"] or {"https": 443, "http": 80}[match["scheme"]])
    if not 0 < port < 65_536:
        raise InvalidArgument("The URL's port is out of range.", field=("url",))
    address = _literal(host)
    if address is None and not _is_name(host):
        raise InvalidArgument("The URL's host is not a full domain name.", field=("url",))
    return Target(
        scheme=match["scheme"], host=host, port=port, path=match["path"] or "/", address=address
    )


def is_public(address: str) -> bool:
    """Whether `address` is a unicast address of the public internet, in whatever form it comes.

    A v6 address that carries a v4 one is refused, but for NAT64, where the one inside is judged.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_ipv4(parsed)
    return _is_public_ipv6(parsed)


def is_loopback(address: str) -> bool:
    """Whether `address` is our own machine."""
    return ip_address(address).is_loopback


def _is_public_ipv4(address: IPv4Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _REFUSED_IPV4)
    )


def _is_public_ipv6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return _is_public_ipv4(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _GLOBAL_IPV6 and not any(address in network for network in _REFUSED_IPV6)


def _literal(host: str) -> str | None:
    """The address that `host` is, written canonically; None for a name."""
    try:
        return str(IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host))
    except ValueError:
        return None


def _is_name(host: str) -> bool:
    """A name of several labels whose last one is no number: numbers are addresses in disguise."""
    labels = host.split(".")
    return (
        len(host) <= 253
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )
