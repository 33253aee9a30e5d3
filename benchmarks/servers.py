"""A whole Purser for one measurement: servers, settings and processes in a folder that is removed.

The servers are those of `purser dev`, with the same settings; what is tuned belongs there, never
here. Whatever is started is ended by its own process id, also on Ctrl-C and on a failure.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg

from app import settings
from app.development import postgres, processes, valkey
from app.development.home import Home, locked, socket_folder
from app.development.postgres import Cluster
from app.development.processes import Service
from app.development.secrets import Secrets, secrets_of
from app.development.supervisor import last_line
from app.development.variables import free, run_variables
from app.settings import Place
from benchmarks.figures import tell
from benchmarks.profiling import COUNTING

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".purser-bench"
HOST = "127.0.0.1"
START_SECONDS_MAX = 60.0


class Failed(Exception):
    """The measurement cannot go on; the text is the one line to show."""


@dataclass
class Stack:
    """Running servers; `variables` are the settings of every process of the measurement."""

    home: Home
    cluster: Cluster
    sockets: Path
    secrets: Secrets = field(repr=False)
    variables: dict[str, str] = field(repr=False)
    running: list[tuple[Service, subprocess.Popen[bytes]]] = field(default_factory=list)

    @property
    def owner_url(self) -> str:
        return self.variables["PURSER_OWNER_DATABASE_URL"]

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a process of ours is started with; the owner's URL is nobody else's."""
        made = {**settings.inherited_environment(), **self.variables, **(changes or {})}
        made.pop("PURSER_OWNER_DATABASE_URL")
        return {**made, "PYTHONPATH": str(ROOT)}

    def start(self, name: str, *module: str, **changes: str) -> subprocess.Popen[bytes]:
        """Start `python -m module`, which stays up; `changes` are settings of its own."""
        return self.serve(
            Service(
                name=name,
                command=[sys.executable, "-m", *module],
                log=self.home.log(name),
                environment=self.environment(changes),
                folder=ROOT,
            )
        )

    def serve(self, service: Service) -> subprocess.Popen[bytes]:
        """Start a process that `stop` will end."""
        process = processes.start(service)
        self.running.append((service, process))
        return process

    def run(self, name: str, *module: str) -> str:
        """Run `python -m module` to its end and return what it printed; raises `Failed`."""
        ended = subprocess.run(
            [sys.executable, "-m", *module],
            check=False,
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=ROOT,
        )
        if ended.returncode != 0:
            raise Failed(f"{name} failed: {(ended.stdout + ended.stderr).strip()[-2_000:]}")
        return ended.stdout

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """A running process by its name."""
        return next(process for service, process in self.running if service.name == name)

    def end(self, name: str) -> None:
        """End one process by its name, before the others."""
        ending = [each for each in self.running if each[0].name == name]
        processes.stop(ending)
        self.running = [each for each in self.running if each not in ending]

    def wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        """Wait until `ready`; raises `Failed` when a process ends meanwhile, or it is late."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{what} did not become ready")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise `Failed` where a process has ended by itself: its figures would mean nothing."""
        for service, process in self.running:
            if process.poll() is not None:
                raise Failed(f"{service.name} ended: {last_line(service.log)}")

    def stop(self) -> None:
        """End everything: the servers last."""
        servers = [each for each in self.running if each[0].name in ("postgres", "valkey")]
        processes.stop([each for each in self.running if each not in servers])
        for server in reversed(servers):
            processes.stop([server])
        self.running.clear()


@contextmanager
def started(*, counting: bool = False, kept: Path | None = None) -> Iterator[Stack]:
    """A migrated stack of its own, stopped and removed afterwards, whatever happens.

    With `counting` the server counts the time of each statement, which costs some. What stands in
    the folder `kept` stays there.
    """
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    os.umask(0o077)
    folder = kept or Path(tempfile.mkdtemp(prefix="purser-bench-"))
    sockets = socket_folder()
    try:
        with locked(folder) as home:
            stack = _stack(home, sockets)
            try:
                _start_servers(stack, counting)
                yield stack
            finally:
                stack.stop()
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
        if kept is None:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove what a stack has written, wherever its data stand."""
    elsewhere = folder / "postgres-folder"
    if elsewhere.exists():
        shutil.rmtree(elsewhere.read_text().strip(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def _stack(home: Home, sockets: Path) -> Stack:
    """The master key is kept beside the trained model, whose manifest it signs."""
    KEPT.mkdir(mode=0o700, exist_ok=True)
    kept_key = KEPT / "master_key"
    if kept_key.exists():
        shutil.copy(kept_key, home.secrets / "master_key")
    secrets = secrets_of(home)
    if not kept_key.exists():
        shutil.copy(secrets.master_key, kept_key)
    variables = run_variables(home, Place(home=home.folder, host=HOST), secrets, sockets)
    variables["PURSER_RISK_MODEL_DIRECTORY"] = str(_models())
    cluster = postgres.cluster_at(home.folder / "postgres", home.folder / "postgres-folder")
    return Stack(home, cluster, sockets, secrets, variables)


def _models() -> Path:
    """A model of other features than the present ones would be refused, and rules would decide."""
    from risk_model.features import SCHEMA

    return KEPT / f"risk_models-{SCHEMA}"


def _start_servers(stack: Stack, counting: bool) -> None:
    tell("starting PostgreSQL and Valkey")
    home, secrets, sockets = stack.home, stack.secrets, stack.sockets
    postgres.initialise(stack.cluster, secrets.owner_password)
    server = postgres.service(stack.cluster, sockets, home.log("postgres"))
    if counting:
        options = [f"--{name}={value}" for name, value in COUNTING.items()]
        server = replace(server, command=[*server.command, *options])
    stack.serve(server)
    stack.serve(valkey.service(sockets, home.folder, secrets.valkey_password, home.log("valkey")))
    stack.wait_for("PostgreSQL", lambda: postgres.ready(stack.cluster, sockets))
    stack.wait_for("Valkey", (sockets / valkey.SOCKET).exists)
    administration = postgres.url(postgres.OWNER, secrets.owner_password, sockets, "postgres")
    asyncio.run(_prepare(stack, administration))


async def _prepare(stack: Stack, administration: str) -> None:
    from migrations.apply import apply

    await postgres.make_database(administration)
    await apply(stack.owner_url)
    await postgres.set_password(stack.owner_url, "purser_app", stack.secrets.application_password)
    connection = await asyncpg.connect(administration)
    try:
        if not await connection.fetch("SELECT FROM pg_database WHERE datname = 'pgbench'"):
            await connection.execute("CREATE DATABASE pgbench")
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            if await connection.fetchval(f"SHOW {name}") != "on":
                raise Failed(f"{name} is off: nothing measured like this counts")
    finally:
        await connection.close()


def train_model(stack: Stack) -> None:
    """The first model, as `purser dev` trains it; once, then it is kept."""
    directory = _models()
    if not any(directory.glob("*")):
        tell("training the risk model (once)")
        stack.run("risk train", "app.cli", "risk", "train")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    if not free(HOST, port):
        raise Failed("no free port")
    return port
