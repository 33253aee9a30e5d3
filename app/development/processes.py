"""Child processes that never outlive what started them.

Each runs in a session of its own, so that Ctrl-C reaches the supervisor alone, which stops them in
order. On Linux the kernel ends them when the supervisor is killed; elsewhere the next run does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
LOG_SIZE_MAX = 20_000_000
SAME_START_SECONDS = 2.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Account:
    """The system user that a server runs as."""

    user_id: int
    group_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process to run: `stop_signal` asks it to end, after `stop_seconds` it is killed."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    standard_input: bytes = field(default=b"", repr=False)
    account: Account | None = None
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Trace:
    """What tells a process from a later one with the same number."""

    name: str
    process_id: int
    started_at: float
    program: str


def start(service: Service) -> subprocess.Popen[bytes]:
    """Start it in a session of its own; what it prints goes to its log."""
    if service.log.exists() and service.log.stat().st_size > LOG_SIZE_MAX:
        service.log.replace(service.log.with_suffix(".previous.log"))
    with service.log.open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        process = subprocess.Popen(
            list(service.command),
            stdin=subprocess.PIPE if service.standard_input else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(service.environment),
            cwd=service.folder,
            start_new_session=True,
            preexec_fn=_end_with_parent(service.stop_signal),  # noqa: PLW1509 - other threads are idle
            **identity(service.account),
        )
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(service.standard_input)
    return process


def stop(running: Sequence[tuple[Service, subprocess.Popen[bytes]]]) -> None:
    """Ask all to end at once, wait, and kill what stays, with what it left in its process group."""
    for service, process in running:
        with suppress(ProcessLookupError):
            process.send_signal(service.stop_signal)
    for service, process in running:
        try:
            process.wait(service.stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def identity(account: Account | None) -> dict[str, object]:
    """The arguments of `subprocess` that make a process run as `account`."""
    if account is None:
        return {}
    return {"user": account.user_id, "group": account.group_id, "extra_groups": []}


def trace(name: str, process_id: int) -> Trace | None:
    """The trace of a running process; None when it has ended."""
    try:
        process = psutil.Process(process_id)
        return Trace(name, process_id, process.create_time(), process.exe())
    except psutil.Error:
        return None


def stop_leftover(left: Trace, stop_seconds: float = 10.0) -> bool:
    """Stop a process that a killed run left, if it is still the same one; whether it was."""
    now = trace(left.name, left.process_id)
    if now is None or abs(now.started_at - left.started_at) > SAME_START_SECONDS:
        return False
    if now.program != left.program:
        return False
    # PostgreSQL takes SIGINT for a fast shutdown and would wait for its clients on SIGTERM.
    os.kill(left.process_id, signal.SIGINT if left.name == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + stop_seconds
    while time.monotonic() < deadline:
        if not _alive(left.process_id):
            return True
        time.sleep(POLL_SECONDS)
    with suppress(ProcessLookupError):
        os.kill(left.process_id, signal.SIGKILL)
    return True


def _alive(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end_with_parent(stop_signal: signal.Signals) -> object:
    """What the child runs before its program: the kernel sends it the signal when we are gone."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask_the_kernel() -> None:
        library.prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel
