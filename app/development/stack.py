"""`purser dev`: everything on this machine, from nothing to a line that says `ready`.

In order: servers, roles and migrations, a trained risk model, the simulator, the workers and the
API, each a process of its own; then, on fresh data, the demonstration. It stays up until it is
asked to stop, and leaves no process behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from app import settings
from app.client import ApiRefused
from app.demonstration.stage import DemonstrationFailed
from app.development import postgres, valkey
from app.development.home import Home, locked, socket_folder
from app.development.processes import Service
from app.development.refusal import CannotStart
from app.development.secrets import Secrets, secrets_of
from app.development.supervisor import Supervisor
from app.development.variables import free, local_url, run_variables
from app.settings import Place, Settings, SettingsInvalid, SimulatorSettingsSource

WORKERS = ("dispatch", "short", "long")
SERVERS_LAST = (("valkey",), ("postgres",))
READY_SECONDS_MAX = 60.0
TRAINING_SECONDS_MAX = 120.0
PLAIN_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Run:
    """One run: `variables` are the settings of its processes."""

    home: Home
    place: Place
    secrets: Secrets
    sockets: Path
    supervisor: Supervisor
    console: Console
    simulator_url: str
    variables: dict[str, str] = field(repr=False)

    @property
    def public_url(self) -> str:
        return self.variables["PURSER_PUBLIC_URL"]


def run(place: Place) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises `CannotStart` with the one line to show."""
    os.umask(0o077)  # What our processes write is nobody else's.
    try:
        asyncio.run(_until_stopped(place))
    except SettingsInvalid as invalid:
        raise CannotStart(str(invalid)) from None


async def _until_stopped(place: Place) -> None:
    task = asyncio.current_task()
    assert task is not None
    stopping: list[int] = []

    def stop(number: int) -> None:
        stopping.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await _serve(place)
    except asyncio.CancelledError:
        if not stopping:
            raise


async def _serve(place: Place) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if not free(place.host, place.port):
        raise CannotStart(f"PURSER_PORT {place.port} is taken on {place.host}; choose another one")
    with locked(place.home) as home:
        for name in home.stop_leftovers():
            console.print(f"stopped {name}, left by a run that was killed")
        async with _servers(home, place, console) as stack:
            await _set_up(stack)
            await _start_processes(stack)
            await _demonstrate(stack)
            print(f"ready {stack.public_url}", flush=True)
            await stack.supervisor.watch()


@asynccontextmanager
async def _servers(home: Home, place: Place, console: Console) -> AsyncIterator[Run]:
    """Embedded servers, but for those that settings name; stopped last, whatever happens."""
    given = settings.given()
    secrets = secrets_of(home)
    sockets = socket_folder()
    supervisor = Supervisor(home, sockets)
    try:
        variables = run_variables(home, place, secrets, sockets)
        if "PURSER_DATABASE_URL" in given:
            del variables["PURSER_OWNER_DATABASE_URL"]
        variables |= given
        fresh = False
        if "PURSER_DATABASE_URL" not in given:
            fresh = await _start_postgres(home, secrets, sockets, supervisor)
            console.print("PostgreSQL is up")
        if "PURSER_REDIS_URL" not in given:
            supervisor.start(
                valkey.service(sockets, home.folder, secrets.valkey_password, home.log("valkey"))
            )
            await supervisor.wait_for("Valkey", _exists(sockets / valkey.SOCKET), 10.0)
            console.print("Valkey is up")
        if fresh:
            (home.folder / "demonstration.json").unlink(missing_ok=True)
        yield Run(
            home=home,
            place=place,
            secrets=secrets,
            sockets=sockets,
            supervisor=supervisor,
            console=console,
            simulator_url=variables["PURSER_SIMULATOR_PUBLIC_URL"],
            variables=variables,
        )
    finally:
        home.environment_file.unlink(missing_ok=True)
        supervisor.stop(SERVERS_LAST)
        shutil.rmtree(sockets, ignore_errors=True)


async def _set_up(stack: Run) -> None:
    """Settings that hold, a database of the present shape, a trained model: what processes need."""
    stack.home.record_environment(stack.variables)
    checked = settings.read(Settings)
    settings.read(SimulatorSettingsSource)
    checked.configuration()
    training = None
    if not _filled(checked.risk_model_directory):
        train = _command(stack, "risk train", "risk", "train")
        training = asyncio.create_task(stack.supervisor.run_to_end(train))
    try:
        await _migrate(stack)
        stack.console.print("the database is migrated")
        if training is not None:
            with stack.console.status("training the first risk model"):
                stack.console.print(await _trained(training))
    finally:
        if training is not None:
            training.cancel()
            await asyncio.gather(training, return_exceptions=True)


async def _trained(training: asyncio.Task[None]) -> str:
    """Without a model the rules decide, and say so: that is no reason not to start."""
    try:
        async with asyncio.timeout(TRAINING_SECONDS_MAX):
            await training
    except (CannotStart, TimeoutError) as failed:
        return f"[red]no risk model, rules decide[/]: {failed or 'training took too long'}"
    return "the first risk model is trained"


async def _migrate(stack: Run) -> None:
    """A process of its own too: no other one gets to know the owner's URL."""
    owner_url = settings.owner_database_url()
    migrate = _command(stack, "migrate", "migrate")
    environment = {**migrate.environment, "PURSER_OWNER_DATABASE_URL": owner_url}
    await stack.supervisor.run_to_end(replace(migrate, environment=environment))
    if "PURSER_DATABASE_URL" not in settings.given():
        await postgres.set_password(owner_url, "purser_app", stack.secrets.application_password)


async def _start_processes(stack: Run) -> None:
    import httpx2

    services = [_command(stack, "simulator", "simulator"), _command(stack, "api", "api")]
    services += [_command(stack, f"worker-{kind}", "worker", kind) for kind in WORKERS]
    for service in services:
        stack.supervisor.start(service)
    async with httpx2.AsyncClient(trust_env=False, timeout=2.0) as client:

        async def answers(url: str) -> bool:
            try:
                return (await client.get(url)).status_code == 200
            except httpx2.HTTPError:
                return False

        for what, url in (
            ("the simulator", f"{stack.simulator_url}/health/live"),
            ("the API", f"{local_url(stack.place)}/health/ready"),
        ):
            await stack.supervisor.wait_for(what, lambda url=url: answers(url), READY_SECONDS_MAX)
    stack.console.print(f"API, {len(WORKERS)} workers and the simulator are up")


async def _demonstrate(stack: Run) -> None:
    """Watch the processes meanwhile: one that ends during the demonstration starts again too."""
    from app.demonstration.show import demonstrate
    from app.process import connected

    urls = (local_url(stack.place), stack.public_url, stack.simulator_url)
    record = stack.home.folder / "demonstration.json"
    admin_token = stack.secrets.admin_token.read_text()
    watching = asyncio.create_task(stack.supervisor.watch())
    try:
        async with connected("dev"):
            await demonstrate(urls, admin_token, record, stack.console)
    except (ApiRefused, DemonstrationFailed) as failed:
        raise CannotStart(f"the demonstration failed: {failed}") from None
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _start_postgres(
    home: Home, secrets: Secrets, sockets: Path, supervisor: Supervisor
) -> bool:
    """Whether the data is fresh."""
    cluster = postgres.cluster_at(home.folder / "postgres", home.folder / "postgres-folder")
    fresh = postgres.initialise(cluster, secrets.owner_password)
    supervisor.start(postgres.service(cluster, sockets, home.log("postgres")))

    async def ready() -> bool:
        return postgres.ready(cluster, sockets)

    await supervisor.wait_for("PostgreSQL", ready, 60.0)
    owner_url = postgres.url(postgres.OWNER, secrets.owner_password, sockets, "postgres")
    await postgres.make_database(owner_url)
    return fresh


def _command(stack: Run, name: str, *arguments: str) -> Service:
    """A process of ours: the same command that a person would type."""
    environment = {**settings.inherited_environment(), **stack.variables}
    environment.pop("PURSER_OWNER_DATABASE_URL", None)
    return Service(
        name=name,
        command=[sys.executable, "-m", "app.cli", *arguments],
        log=stack.home.log(name.replace(" ", "-")),
        environment=environment,
    )


def _filled(folder: Path) -> bool:
    return any(folder.glob("*"))


def _exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def exists() -> bool:
        return await asyncio.to_thread(path.exists)

    return exists
