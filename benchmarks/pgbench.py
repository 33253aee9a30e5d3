"""PostgreSQL's own measure, on the same server: TPC-B-like transactions by `pgbench`."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from pathlib import Path

from app.development import postgres
from benchmarks.figures import Slice, tell
from benchmarks.servers import Failed, Stack

SCALE = 20
SAMPLE = 0.2
"""The share of transactions whose latency is logged where there are many clients."""


def prepare(stack: Stack) -> None:
    """The tables of `pgbench`, at a scale at which it has no hot row of its own."""
    tell(f"pgbench -i -s {SCALE}")
    _run(stack, ["-i", "-q", "-s", str(SCALE)])


def measure(stack: Stack, clients: int, seconds: float) -> Slice:
    """One slice of `-M prepared` with `clients` connections; whole seconds, one at least."""
    whole = max(1, math.ceil(seconds))
    threads = min(2, clients)
    with tempfile.TemporaryDirectory(prefix="purser-pgbench-") as folder:
        arguments = ["-M", "prepared", "-c", str(clients), "-j", str(threads), "-T", str(whole)]
        arguments += ["--log", f"--log-prefix={folder}/log"]
        if clients > 1:
            arguments.append(f"--sampling-rate={SAMPLE}")
        printed = _run(stack, arguments)
        logs = [path.read_text() for path in Path(folder).glob("log*")]
    per_second = _number(r"tps = ([0-9.]+)", printed)
    # Client, its transaction's number, latency in microseconds, script, when.
    latencies = [float(line.split(" ", 3)[2]) for log in logs for line in log.splitlines()]
    return Slice(round(per_second * whole), float(whole), latencies)


def _run(stack: Stack, arguments: list[str]) -> str:
    environment = {**os.environ, "PGPASSWORD": stack.secrets.owner_password}
    command = [
        str(stack.cluster.binaries / "pgbench"),
        f"--host={stack.sockets}",
        f"--username={postgres.OWNER}",
        *arguments,
        "pgbench",
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode != 0:
        raise Failed(f"pgbench failed: {ended.stderr.strip()[-500:]}")
    return ended.stdout


def _number(pattern: str, printed: str) -> float:
    found = re.search(pattern, printed)
    if found is None:
        raise Failed(f"pgbench did not say its throughput: {printed[-500:]}")
    return float(found[1])
