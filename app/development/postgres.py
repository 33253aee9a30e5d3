"""An embedded PostgreSQL: a cluster on a Unix socket, with a generated password for its owner.

PostgreSQL refuses to run as root. Then its process alone runs as `nobody`, and where a parent
folder is closed to that user, its binaries are copied and its data kept in a private folder
elsewhere, which the home names. The permissions of folders that are not ours are never changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from app.development import binaries
from app.development.processes import Account, Service, identity
from app.development.refusal import CannotStart

OWNER = "purser_owner"
DATABASE = "purser"
SETTINGS = {
    # The three that make an acknowledged commit survive; the application refuses to start without.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m %q%u@%d ",
    "log_min_error_statement": "panic",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where one cluster lives, and as whom its server runs (None: as we do)."""

    binaries: Path
    data: Path
    account: Account | None


def server_account() -> Account | None:
    """None for a normal user, `nobody` for root. Raises `CannotStart` where that is missing."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart("PostgreSQL does not run as root, and there is no user nobody") from None
    return Account(entry.pw_uid, entry.pw_gid)


def cluster_at(folder: Path, elsewhere: Path) -> Cluster:
    """The cluster of a home: in `folder`, or in the private folder that the file `elsewhere` names.

    As root with a closed parent folder, the private folder is made at the first call.
    """
    account = server_account()
    installed = binaries.postgres_binaries()
    if account is None:
        return Cluster(installed, folder / "data", None)
    if not reachable(folder.parent, account):
        folder = _private_folder(elsewhere)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    if not reachable(installed, account):
        installed = binaries.copy_postgres(folder)
    return Cluster(installed, folder / "data", account)


def initialise(cluster: Cluster, password: str) -> bool:
    """Make the cluster where there is none; whether it was made now.

    It is made beside its place and then moved: a run killed meanwhile leaves no half of one.
    """
    if cluster.data.exists():
        return False
    holder = cluster.data.parent
    holder.mkdir(mode=0o700, exist_ok=True)
    for left in holder.glob("unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=holder))
    try:
        password_file = unfinished / "password"
        password_file.write_text(password)
        password_file.chmod(0o600)
        if cluster.account is not None:
            for path in (unfinished, password_file):
                os.chown(path, cluster.account.user_id, cluster.account.group_id)
        _run_initdb(cluster, unfinished / "data", password_file)
        (unfinished / "data").rename(cluster.data)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def service(cluster: Cluster, sockets: Path, log: Path) -> Service:
    """The server's process; its socket stands in `sockets`, a folder that its account writes to."""
    options = SETTINGS | {"unix_socket_directories": str(sockets)}
    return Service(
        name="postgres",
        command=[
            str(cluster.binaries / "postgres"),
            "-D",
            str(cluster.data),
            *(f"--{name}={value}" for name, value in options.items()),
        ],
        log=log,
        environment=_environment(),
        account=cluster.account,
        folder=cluster.data.parent,
        stop_signal=signal.SIGINT,
        stop_seconds=30.0,
    )


def url(role: str, password: str, sockets: Path, database: str = DATABASE) -> str:
    """The URL of a database on the socket in `sockets`."""
    place = urllib.parse.quote(str(sockets), safe="/")
    return f"postgresql://{role}:{urllib.parse.quote(password, safe='')}@/{database}?host={place}"


def ready(cluster: Cluster, sockets: Path) -> bool:
    """Whether the server takes connections."""
    asked = [str(cluster.binaries / "pg_isready"), "--quiet", f"--host={sockets}"]
    return subprocess.run(asked, check=False, env=_environment()).returncode == 0


async def make_database(owner_url: str) -> None:
    """Make Purser's database where there is none. `owner_url` names another one, `postgres`."""
    connection = await asyncpg.connect(owner_url)
    try:
        found = await connection.fetch("SELECT FROM pg_database WHERE datname = $1", DATABASE)
        if not found:
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()


async def set_password(owner_url: str, role: str, password: str) -> None:
    """Give a role its password. `password` is URL-safe, so that it needs no quoting."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    finally:
        await connection.close()


def reachable(folder: Path, account: Account) -> bool:
    """Whether the account may enter `folder` and each of its parents, by their permission bits."""
    for place in (folder, *folder.parents):
        facts = place.stat()
        if facts.st_uid == account.user_id:
            bit = stat.S_IXUSR
        elif facts.st_gid == account.group_id:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not facts.st_mode & bit:
            return False
    return True


def _private_folder(elsewhere: Path) -> Path:
    if elsewhere.exists():
        folder = Path(elsewhere.read_text().strip())
        if folder.is_dir():
            return folder
    permanent = Path("/var/lib")
    parent = permanent if os.access(permanent, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="purser-", dir=parent))
    folder.chmod(0o711)
    elsewhere.write_text(f"{folder}\n")
    return folder


def _run_initdb(cluster: Cluster, data: Path, password_file: Path) -> None:
    made = subprocess.run(
        [
            str(cluster.binaries / "initdb"),
            f"--pgdata={data}",
            f"--username={OWNER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        ],
        check=False,
        capture_output=True,
        env=_environment(),
        cwd=data.parent,
        **identity(cluster.account),
    )
    if made.returncode != 0:
        reason = (made.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[
            -1
        ]
        raise CannotStart(f"PostgreSQL could not make its data folder: {reason}")


def _environment() -> dict[str, str]:
    """Nothing of the caller's: variables such as PGDATA or LC_ALL must not reach the server."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
