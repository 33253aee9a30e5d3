"""API processes as a measurement runs them: each on a port of its own."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

from benchmarks.servers import HOST, Stack, free_port


def start_api(stack: Stack, name: str, *, module: str = "app.cli", **changes: str) -> int:
    """Start an API process on a port of its own; the port."""
    port = free_port()
    arguments = (module, "api") if module == "app.cli" else (module,)
    stack.start(name, *arguments, PURSER_PORT=str(port), **changes)
    return port


def answers(port: int) -> Callable[[], bool]:
    """Whether the API process on this port is ready."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return ready
