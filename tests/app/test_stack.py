"""`purser dev` from an empty home to `ready`, killed processes that come back, and nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROCESSES = {"simulator", "api", "dispatch", "short", "long"}


@dataclass(frozen=True, slots=True)
class Stack:
    """A home and a port, and how `purser` is called with them."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("PURSER_")
        }
        return {**clean, "PURSER_HOME": str(self.home), "PURSER_PORT": str(self.port)}

    def purser(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=self.environment,
            timeout=120,
        )

    def start(self) -> tuple[subprocess.Popen[str], list[str]]:
        """Start `purser dev` and wait for `ready`; all lines up to it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "dev"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("ready "):
                return process, lines
        process.communicate(timeout=60)
        pytest.fail("\n".join([*lines, f"ended with {process.returncode}"]))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A home that does not exist yet, and a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Stack(tmp_path_factory.mktemp("stack") / "home", port)


@pytest.fixture(scope="module")
def first_run(stack: Stack) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The first run of that home; what it left elsewhere is removed at the end."""
    process, lines = stack.start()
    yield process, lines
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    subprocess.run(
        [sys.executable, "-m", "app.development.clean"],
        check=True,
        cwd=ROOT,
        env=stack.environment,
    )


def test_a_first_run_trains_plays_and_is_ready(
    stack: Stack, first_run: tuple[subprocess.Popen[str], list[str]]
) -> None:
    text = "\n".join(first_run[1])
    assert "the first risk model is trained" in text
    for step in ("top up from the bank", "pay the merchant", "refund a part", "settle"):
        assert step in text
    assert "by model" in text
    assert "the books are balanced" in text
    assert first_run[1][-1] == f"ready http://127.0.0.1:{stack.port}"
    for path in ("/health/live", "/health/ready"):
        assert httpx2.get(f"http://127.0.0.1:{stack.port}{path}").status_code == 200


def test_a_home_in_use_and_a_taken_port_are_one_line_each(
    stack: Stack, first_run: tuple[subprocess.Popen[str], list[str]]
) -> None:
    same_port = Stack(stack.home.parent / "other", stack.port).purser("dev")
    assert (same_port.returncode, same_port.stdout) == (1, "")
    assert same_port.stderr == (
        f"purser: PURSER_PORT {stack.port} is taken on 127.0.0.1; choose another one\n"
    )
    same_home = Stack(stack.home, 1).purser("dev")
    assert same_home.returncode == 1
    assert len(same_home.stderr.splitlines()) == 1


def test_commands_in_another_terminal_find_the_running_stack(
    stack: Stack, first_run: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    doctor = stack.purser("doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "wrong" not in doctor.stdout
    created = stack.purser(
        "operator", "create", "second@purser-operators.com", "--password", "a long password 1"
    )
    assert created.returncode == 0, created.stderr
    again = stack.purser(
        "operator", "create", "second@purser-operators.com", "--password", "a long password 1"
    )
    assert again.returncode == 1
    assert again.stderr == "purser: There is an operator with this address.\n"
    recording = tmp_path / "recording.csv"
    rows = [
        f"{number},2018-04-01 00:{number // 60:02d}:{number % 60:02d},{number % 7},{number % 5},"
        f"{number % 9 + 1}.25,{int(number % 20 == 0)}"
        for number in range(100)
    ]
    header = "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD"
    recording.write_text("\n".join([header, *rows]))
    replayed = stack.purser("replay", str(recording), "--concurrency", "8")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "refused" not in replayed.stdout
    assert "of 5" in replayed.stdout
    assert "the books are right" in replayed.stdout
    second = stack.purser("replay", str(recording), "--concurrency", "8")
    assert "already paid by an earlier replay" in second.stdout
    verified = stack.purser("ledger", "verify")
    assert verified.returncode == 0, verified.stdout
    assert "the books are right" in verified.stdout


def test_what_the_documents_let_one_type_runs(
    stack: Stack, first_run: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    for program in ("pay.py", "merchant_refund.py"):
        command = [sys.executable, f"examples/{program}", "--home", str(stack.home)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to type the first calls with")
    (tmp_path / ".purser").symlink_to(stack.home)
    readme = (ROOT / "README.md").read_text()
    calls = readme.partition("<!-- runnable: first calls -->\n```sh\n")[2].partition("```")[0]
    typed = subprocess.run(
        ["sh", "-eu", "-c", f"TOKEN=\n{calls}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert typed.returncode == 0, typed.stderr
    assert '"state":"SUCCEEDED"' in typed.stdout
    assert '"available":{"formatted":"70.00"}' in typed.stdout


def test_a_killed_process_comes_back(
    stack: Stack, first_run: tuple[subprocess.Popen[str], list[str]]
) -> None:
    before = _children(first_run[0])
    assert set(before) >= PROCESSES
    for name in ("api", "short"):
        before[name].kill()

    def back() -> bool:
        after = _children(first_run[0])
        return all(
            name in after and after[name].pid != before[name].pid for name in ("api", "short")
        )

    _wait_until(back)
    _wait_until(lambda: _answers(f"http://127.0.0.1:{stack.port}/health/ready"))


def test_sigterm_leaves_no_process_and_a_second_run_finds_its_data(
    stack: Stack, first_run: tuple[subprocess.Popen[str], list[str]]
) -> None:
    everything = psutil.Process(first_run[0].pid).children(recursive=True)
    first_run[0].send_signal(signal.SIGTERM)
    assert first_run[0].wait(30) == 0
    assert not [process for process in everything if _runs(process)]
    assert not (stack.home / "environment").exists()
    not_running = stack.purser("doctor")
    assert not_running.returncode == 1
    assert len(not_running.stderr.splitlines()) == 1

    second, lines = stack.start()
    try:
        assert "top up from the bank" not in "\n".join(lines)
        verified = stack.purser("ledger", "verify")
        assert verified.returncode == 0
        assert " 0 entries," not in verified.stdout
        everything = psutil.Process(second.pid).children(recursive=True)
    finally:
        second.kill()
    second.communicate(timeout=10)
    _wait_until(lambda: not [process for process in everything if _runs(process)])


def _children(supervisor: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes of ours by the last word of their command."""
    return {
        process.cmdline()[-1]: process
        for process in psutil.Process(supervisor.pid).children()
        if _runs(process) and "app.cli" in process.cmdline()
    }


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2.0).status_code == 200
    except httpx2.HTTPError:
        return False


def _wait_until(done: Callable[[], bool], seconds_max: float = 30.0) -> None:
    deadline = time.monotonic() + seconds_max
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
