"""The home's lock, child processes that never outlive their parent, and servers for root too."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import psutil
import pytest

from app.development import home, postgres, processes, variables
from app.development.processes import Service
from app.development.refusal import CannotStart
from app.development.secrets import secrets_of
from app.development.supervisor import Supervisor

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process as another")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A process that stays until it is asked to end."""
    return Service(name="sleeper", command=["/bin/sleep", "600"], log=tmp_path / "sleeper.log")


def test_a_home_is_used_by_one_run_at_a_time(tmp_path: Path) -> None:
    with home.locked(tmp_path / "home"):
        with (
            pytest.raises(CannotStart, match="in use by another run") as refused,
            home.locked(tmp_path / "home"),
        ):
            pass
        assert "\n" not in str(refused.value)
    with home.locked(tmp_path / "home"):
        pass


def test_a_home_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CannotStart, match=r"PURSER_HOME .* cannot be used: "),
        home.locked(tmp_path / "file" / "home"),
    ):
        pass


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    with home.locked(tmp_path / "home") as opened:
        first = secrets_of(opened)
        contents = {path.name: path.read_bytes() for path in opened.secrets.iterdir()}
    with home.locked(tmp_path / "home") as opened:
        assert secrets_of(opened) == first
        assert {path.name: path.read_bytes() for path in opened.secrets.iterdir()} == contents
        modes = {stat.S_IMODE(path.stat().st_mode) for path in opened.secrets.iterdir()}
        assert modes == {0o600}
        assert stat.S_IMODE(opened.secrets.stat().st_mode) == 0o700


def test_a_process_is_asked_to_end_and_killed_when_it_does_not(service: Service) -> None:
    stubborn = replace(
        service,
        command=["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
        stop_seconds=0.3,
    )
    both = [(one, processes.start(one)) for one in (service, stubborn)]
    time.sleep(0.2)
    processes.stop(both)
    assert [process.returncode for _, process in both] == [-signal.SIGTERM, -signal.SIGKILL]


def test_what_a_killed_run_left_is_stopped(tmp_path: Path, service: Service) -> None:
    process = processes.start(service)
    left = processes.trace(service.name, process.pid)
    assert left is not None
    with home.locked(tmp_path / "home") as opened:
        sockets = home.socket_folder()
        opened.record_processes([left], sockets)
    with home.locked(tmp_path / "home") as opened:
        assert opened.stop_leftovers() == ["sleeper"]
        assert not sockets.exists()
        assert opened.stop_leftovers() == []
    assert process.wait(5) == -signal.SIGTERM


def test_a_process_that_only_has_the_same_number_is_left_alone(service: Service) -> None:
    process = processes.start(service)
    trace = processes.trace(service.name, process.pid)
    assert trace is not None
    try:
        assert not processes.stop_leftover(replace(trace, started_at=trace.started_at - 60))
        assert not processes.stop_leftover(replace(trace, program="/bin/other"))
        assert process.poll() is None
    finally:
        processes.stop([(service, process)])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    supervisor = f"""
import time
from pathlib import Path
from app.development import processes
log = Path({str(tmp_path / "log")!r})
service = processes.Service(name="sleeper", command=["/bin/sleep", "600"], log=log)
print(processes.start(service).pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    _wait_until(lambda: not psutil.pid_exists(child))


async def test_what_ends_by_itself_is_started_again(tmp_path: Path) -> None:
    started = tmp_path / "started"
    service = Service(
        name="short-lived",
        command=["/bin/sh", "-c", f"echo once >> {started}; exit 75"],
        log=tmp_path / "log",
    )
    with home.locked(tmp_path / "home") as opened:
        supervisor = Supervisor(opened, tmp_path / "sockets")
        supervisor.start(service)
        watching = asyncio.create_task(supervisor.watch())
        async with asyncio.timeout(10):
            while not started.exists() or len(started.read_text().split()) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        watching.cancel()
        supervisor.stop([])
    assert "ended with 75; starts again" in (tmp_path / "log").read_text()


async def test_a_process_that_does_not_start_is_one_line_with_its_last_words(
    tmp_path: Path,
) -> None:
    service = Service(
        name="broken", command=["/bin/sh", "-c", "echo first; echo why; exit 3"], log=tmp_path / "l"
    )

    async def never() -> bool:
        return False

    with home.locked(tmp_path / "home") as opened:
        supervisor = Supervisor(opened, tmp_path / "sockets")
        supervisor.start(service)
        with pytest.raises(CannotStart, match="broken did not start: why"):
            await supervisor.wait_for("it", never, 5.0)
        supervisor.stop([])


def test_a_taken_port_is_seen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not variables.free("127.0.0.1", port)
    assert variables.free("127.0.0.1", port)


@AS_ROOT
def test_run_as_root_in_a_closed_folder_postgres_keeps_its_data_elsewhere(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    modes = _modes(closed)
    with home.locked(closed / "home") as opened:
        cluster = _started_and_stopped(opened)
        elsewhere = Path((opened.folder / "postgres-folder").read_text().strip())
        try:
            assert cluster.data.is_relative_to(elsewhere)
            assert not elsewhere.is_relative_to(tmp_path)
            assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
            assert _started_and_stopped(opened) == cluster
        finally:
            subprocess.run(["rm", "-rf", str(elsewhere)], check=True)
    assert _modes(closed) == modes


@AS_ROOT
def test_run_as_root_where_the_binaries_are_closed_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        postgres, "reachable", lambda folder, account: "site-packages" not in str(folder)
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # The folders of pytest are this test's own.
    with home.locked(tmp_path / "home") as opened:
        cluster = _started_and_stopped(opened)
        assert cluster.binaries.is_relative_to(opened.folder)


@AS_ROOT
def test_run_as_a_normal_user_everything_stands_in_the_home() -> None:
    account = postgres.server_account()
    assert account is not None
    script = """
import os, tempfile
from pathlib import Path
from app.development.throwaway import throwaway_servers
with throwaway_servers() as servers:
    print(os.getuid(), "up")
"""
    root = Path(__file__).resolve().parent.parent.parent
    if not postgres.reachable(root / ".venv", account) or not postgres.reachable(
        Path(sys.executable).resolve().parent, account
    ):
        pytest.skip("the interpreter is closed to other users")
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)},
        **processes.identity(account),
    )
    assert done.stdout.split() == [str(account.user_id).encode(), b"up"], done.stderr


def _started_and_stopped(opened: home.Home) -> postgres.Cluster:
    cluster = postgres.cluster_at(opened.folder / "postgres", opened.folder / "postgres-folder")
    postgres.initialise(cluster, "a-password")
    sockets = home.socket_folder()
    service = postgres.service(cluster, sockets, opened.log("postgres"))
    process = processes.start(service)
    try:
        _wait_until(lambda: postgres.ready(cluster, sockets))
        asyncio.run(_asked(postgres.url(postgres.OWNER, "a-password", sockets, "postgres")))
        assert psutil.Process(process.pid).uids().real != 0
    finally:
        processes.stop([(service, process)])
        sockets.rmdir()
    return cluster


async def _asked(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await connection.fetchval(f"SHOW {name}") == "on"
        assert await connection.fetchval("SHOW listen_addresses") == ""
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace("a-password", "another"))


def _modes(folder: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents)]


def _wait_until(done: Callable[[], bool], seconds_max: float = 15.0) -> None:
    deadline = time.monotonic() + seconds_max
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
