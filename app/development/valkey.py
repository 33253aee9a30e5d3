"""An embedded Valkey on a Unix socket. It keeps nothing: what it holds may be lost at any time."""

from __future__ import annotations

from pathlib import Path

from app.development import binaries
from app.development.processes import Service

SOCKET = "valkey.sock"


def service(sockets: Path, folder: Path, password: str, log: Path) -> Service:
    """The server's process. Its settings come by standard input, so that no list of processes and
    no file shows the password.
    """
    settings = f"""
        port 0
        unixsocket {sockets / SOCKET}
        unixsocketperm 700
        requirepass {password}
        maxmemory 256mb
        maxmemory-policy noeviction
        save ""
        appendonly no
        daemonize no
        dir "{folder}"
    """
    return Service(
        name="valkey",
        command=[str(binaries.valkey_server()), "-"],
        log=log,
        environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        standard_input=settings.encode(),
        folder=folder,
    )


def url(password: str, sockets: Path, number: int = 0) -> str:
    """The URL of one numbered database; `password` is URL-safe."""
    return f"unix://:{password}@{sockets / SOCKET}?db={number}"
