"""What the processors did meanwhile: seconds of CPU by the processes that shared the machine."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from benchmarks.servers import Stack


def seconds_by_process(stack: Stack, others: Mapping[str, int] | None = None) -> dict[str, float]:
    """CPU seconds so far, by what the processes are; `others` are process ids by name."""
    process_ids = {service.name: process.pid for service, process in stack.running}
    process_ids.update(others or {})
    found: dict[str, float] = {}
    for name, process_id in process_ids.items():
        kind = "api" if name.startswith("api-") else name
        found[kind] = found.get(kind, 0.0) + _seconds(process_id)
    return found


def told(before: Mapping[str, float], after: Mapping[str, float], count: int) -> str:
    """The CPU microseconds of each kind of process for one of `count`."""
    parts = []
    for name, seconds in after.items():
        each = 1e6 * (seconds - before.get(name, 0.0)) / max(count, 1)
        if each >= 1:
            parts.append(f"{name} {each:,.0f}")
    return "CPU us: " + ", ".join(parts)


def _seconds(process_id: int) -> float:
    """Of the process, and of those it has started: PostgreSQL has one for each connection."""
    try:
        process = psutil.Process(process_id)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    total = 0.0
    for each in family:
        try:
            times = each.cpu_times()
        except psutil.Error:
            continue
        # What ended meanwhile is in its parent's account of its children.
        total += times.user + times.system + times.children_user + times.children_system
    return total
