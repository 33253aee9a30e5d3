"""`PURSER_HOME`: what one run of the development stack keeps, under a lock, closed to other users.

`secrets/` (made once), `logs/`, the cluster's data or the file that names its folder, the trained
model, the traces of running processes, and `environment`: the settings of the run that is up, so
that a command in another terminal finds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from app.development import processes
from app.development.postgres import server_account
from app.development.processes import Trace
from app.development.refusal import CannotStart


@dataclass(frozen=True, slots=True)
class Home:
    """One home, locked by this process."""

    folder: Path

    @property
    def environment_file(self) -> Path:
        return self.folder / "environment"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def risk_models(self) -> Path:
        return self.folder / "risk_models"

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.folder / "logs" / f"{name}.log"

    def secret(self, name: str, make: Callable[[], bytes]) -> Path:
        """The file of a secret, made at the first call and readable by us alone."""
        path = self.secrets / name
        if not path.exists():
            write_private(path, make())
        return path

    def record_environment(self, environment: Mapping[str, str]) -> None:
        """Write the settings of the run that is up."""
        lines = "".join(f"{name}='{value}'\n" for name, value in sorted(environment.items()))
        write_private(self.environment_file, lines.encode())

    def record_processes(self, traces: Iterable[Trace], sockets: Path) -> None:
        """Write what a next run must stop and remove, should this one be killed."""
        document = {"sockets": str(sockets), "processes": [asdict(trace) for trace in traces]}
        write_private(self.folder / "processes.json", json.dumps(document, indent=1).encode())

    def stop_leftovers(self) -> list[str]:
        """Stop what a killed run left; the names of those that were still running."""
        record = self.folder / "processes.json"
        if not record.exists():
            return []
        document = json.loads(record.read_bytes())
        left = [Trace(**row) for row in document["processes"]]
        stopped = [trace.name for trace in reversed(left) if processes.stop_leftover(trace)]
        shutil.rmtree(document["sockets"], ignore_errors=True)
        record.unlink()
        self.environment_file.unlink(missing_ok=True)
        return stopped


@contextmanager
def locked(folder: Path) -> Iterator[Home]:
    """The home at `folder`, made where it is missing. Raises `CannotStart` when a run uses it."""
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # As root, PostgreSQL runs as another user, who must pass through to the data. All that is
        # secret stands in files and folders that are closed by themselves.
        folder.chmod(0o711 if server_account() else 0o700)
        for part in ("secrets", "logs", "risk_models"):
            (folder / part).mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"PURSER_HOME {folder} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"PURSER_HOME {folder} is in use by another run; stop it or choose another home"
            ) from None
        yield Home(folder)
    finally:
        os.close(lock)


def socket_folder() -> Path:
    """A short private folder for sockets (their path is at most 107 bytes), open to the server."""
    account = server_account()
    folder = Path(tempfile.mkdtemp(prefix="purser-", dir="/tmp"))
    if account is not None:
        os.chown(folder, account.user_id, account.group_id)
    return folder


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; it is never open to others, not for a moment."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)
