"""The two servers alone, in a folder that is removed afterwards: for the tests."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.development import postgres, processes, valkey
from app.development.home import socket_folder
from app.development.refusal import CannotStart

START_SECONDS_MAX = 30.0
Running = tuple[processes.Service, subprocess.Popen[bytes]]


@dataclass(frozen=True, slots=True)
class Servers:
    """The URLs of a running PostgreSQL (as its owner) and Valkey."""

    owner_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@contextmanager
def throwaway_servers() -> Iterator[Servers]:
    """Start both, yield their URLs, stop both and remove all they wrote."""
    folder = Path(tempfile.mkdtemp(prefix="purser-servers-"))
    sockets = socket_folder()
    running: list[Running] = []
    try:
        if postgres.server_account():
            folder.chmod(0o711)
        password = secrets.token_urlsafe(24)
        cluster = postgres.cluster_at(folder / "postgres", folder / "postgres-folder")
        postgres.initialise(cluster, password)
        services = [
            postgres.service(cluster, sockets, folder / "postgres.log"),
            valkey.service(sockets, folder, password, folder / "valkey.log"),
        ]
        running.extend((service, processes.start(service)) for service in services)
        _wait_for(lambda: postgres.ready(cluster, sockets), running)
        _wait_for((sockets / valkey.SOCKET).exists, running)
        yield Servers(
            postgres.url(postgres.OWNER, password, sockets, "postgres"),
            valkey.url(password, sockets),
        )
    finally:
        processes.stop(running)
        elsewhere = folder / "postgres-folder"
        if elsewhere.exists():
            shutil.rmtree(elsewhere.read_text().strip(), ignore_errors=True)
        for left in (folder, sockets):
            shutil.rmtree(left, ignore_errors=True)


def _wait_for(ready: Callable[[], bool], running: list[Running]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not ready():
        for service, process in running:
            if process.poll() is not None:
                raise CannotStart(f"{service.name} did not start: {last_line(service.log)}")
        if time.monotonic() > deadline:
            raise CannotStart("a server did not start in time")
        time.sleep(0.02)


def last_line(log: Path) -> str:
    """The last line of a log, for a message."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "its log is empty"
