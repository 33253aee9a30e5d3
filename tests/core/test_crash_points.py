"""Crash points: each stands where somebody dies on purpose, and does nothing anywhere else."""

from __future__ import annotations

import ast
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from core import configuration as installed
from core.configuration import Configuration
from core.crash import crash_point

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("app", "channels", "core", "identity", "payments", "wallet", "workers")


def named_places() -> list[str]:
    """The names given to `crash_point` in our own code."""
    names = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "crash_point":
                    argument = node.args[0]
                    assert isinstance(argument, ast.Constant)
                    names.append(str(argument.value))
    return names


def test_every_crash_point_is_used_by_a_test() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    unused = [name for name in named_places() if f'"{name}"' not in tests]
    assert unused == []


def test_the_places_that_matter_have_a_name() -> None:
    counted = Counter(named_places())
    assert counted.keys() >= {
        "before_phase_a",
        "accepted",
        "attempt_committed",
        "answer_in_hand",
        "before_phase_b",
        "after_phase_b",
        "callback_stored",
        "callback_applied",
    }


def test_only_the_chosen_place_kills(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: killed.append(given))
    crash_point("accepted")
    crash_point("")
    installed.install(replace(configuration, crash_point="accepted"))
    crash_point("before_phase_a")
    assert [each for each in killed if each[1] == signal.SIGKILL][1:] == []
    killed.clear()
    crash_point("accepted")
    assert killed == [(os.getpid(), signal.SIGKILL)]
