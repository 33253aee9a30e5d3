"""Starts the processes of one run, starts again what ends by itself, and stops all in order.

A worker ends by itself when Valkey goes away, and any process may be killed to see what happens: it
comes back, after a pause that grows while it keeps ending.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.development import processes
from app.development.home import Home
from app.development.processes import Service
from app.development.refusal import CannotStart

WATCH_SECONDS = 0.1
PAUSE_SECONDS_MAX = 5.0
SETTLED_SECONDS = 10.0
POLL_SECONDS = 0.05


@dataclass(slots=True)
class Running:
    """A supervised process; `due_at` is when one that ended starts again (monotonic seconds)."""

    service: Service
    process: subprocess.Popen[bytes]
    started_at: float
    ends_count: int = 0
    due_at: float | None = None


class Supervisor:
    """The processes of one run, in the order in which they were started."""

    def __init__(self, home: Home, sockets: Path) -> None:
        self._home = home
        self._sockets = sockets
        self._running: list[Running] = []

    def start(self, service: Service) -> None:
        """Start a process that stays up."""
        process = processes.start(service)
        self._running.append(Running(service, process, time.monotonic()))
        self._record()

    async def run_to_end(self, service: Service) -> None:
        """Run a process that ends; raises `CannotStart` with its last line when it fails."""
        self.start(service)
        running = self._running[-1]
        try:
            while running.process.poll() is None:  # noqa: ASYNC110 - a process sets no event
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._running.remove(running)
            processes.stop([(running.service, running.process)])
        if running.process.returncode != 0:
            raise CannotStart(f"{service.name} failed: {last_line(service.log)}")

    async def wait_for(
        self, what: str, ready: Callable[[], Awaitable[bool]], seconds_max: float
    ) -> None:
        """Wait until `ready`; raises `CannotStart` when a process ends meanwhile, or it is late."""
        deadline = time.monotonic() + seconds_max
        while not await ready():
            for running in self._running:
                if running.process.poll() is not None:
                    name, log = running.service.name, running.service.log
                    raise CannotStart(f"{name} did not start: {last_line(log)} ({log})")
            if time.monotonic() > deadline:
                raise CannotStart(f"{what} did not become ready in {seconds_max:.0f} seconds")
            await asyncio.sleep(POLL_SECONDS)

    async def watch(self) -> None:
        """Start again what ends, for ever."""
        while True:
            for running in self._running:
                self._attend(running)
            await asyncio.sleep(WATCH_SECONDS)

    def stop(self, stages: Sequence[Sequence[str]]) -> None:
        """Stop everything: all but the named ones together first, then stage by stage."""
        named = {name for stage in stages for name in stage}
        first = [name for name in self._names() if name not in named]
        for stage in (first, *stages):
            processes.stop(
                [
                    (running.service, running.process)
                    for running in self._running
                    if running.service.name in stage
                ]
            )
        self._running.clear()
        self._record()

    def _attend(self, running: Running) -> None:
        now = time.monotonic()
        if running.due_at is not None:
            if now >= running.due_at:
                running.process = processes.start(running.service)
                running.started_at, running.due_at = now, None
                self._record()
            return
        if running.process.poll() is None:
            return
        if now - running.started_at > SETTLED_SECONDS:
            running.ends_count = 0
        pause = min(PAUSE_SECONDS_MAX, 0.2 * 2**running.ends_count)
        running.ends_count += 1
        running.due_at = now + pause
        with running.service.log.open("a") as log:
            log.write(f"ended with {running.process.returncode}; starts again in {pause:.1f} s\n")

    def _names(self) -> list[str]:
        return [running.service.name for running in self._running]

    def _record(self) -> None:
        traces = [
            trace
            for running in self._running
            if (trace := processes.trace(running.service.name, running.process.pid)) is not None
        ]
        self._home.record_processes(traces, self._sockets)


def last_line(log: Path) -> str:
    """The last line of a log, for a message."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "its log is empty"
