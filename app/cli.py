"""The command line `purser`. Each command is one call into a package; imports wait until it runs.

What can be expected to go wrong is one line on the standard error and exit code 1, no traceback.
"""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

application = typer.Typer(
    name="purser",
    help="A payment platform that a company runs itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
operator = typer.Typer(help="Those who run the platform.", no_args_is_help=True)
ledger = typer.Typer(help="The books.", no_args_is_help=True)
risk = typer.Typer(help="The risk model.", no_args_is_help=True)
application.add_typer(operator, name="operator")
application.add_typer(ledger, name="ledger")
application.add_typer(risk, name="risk")


class WorkerKind(StrEnum):
    """Short jobs stand apart from long ones, so that a killed one is found again soon."""

    DISPATCH = "dispatch"
    SHORT = "short"
    LONG = "long"


def main() -> None:
    """Run the command that the arguments name."""
    try:
        application()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = _expected(error)
        if line is None:
            raise
        print(f"purser: {line}", file=sys.stderr)
        sys.exit(1)


@application.command()
def dev() -> None:
    """Run everything on this machine, with servers of its own, until Ctrl-C."""
    from app import settings
    from app.development import stack

    settings.refuse_unknown()
    stack.run(settings.place())


@application.command()
def api() -> None:
    """Serve the GraphQL API on PURSER_HOST and PURSER_PORT."""
    from app import serve

    serve.run()


@application.command()
def worker(kind: Annotated[WorkerKind, typer.Argument(help="What this process does.")]) -> None:
    """Run one worker: the dispatcher of the outbox, short jobs, or long jobs."""
    from app import serve

    raise typer.Exit(serve.run_worker(kind.value))


@application.command()
def simulator() -> None:
    """Run the simulated bank, phone and merchant that stand for the outside world."""
    from app import serve

    serve.run_simulator()


@application.command()
def migrate() -> None:
    """Bring the database at PURSER_OWNER_DATABASE_URL to the present shape."""
    from app import settings
    from migrations.apply import apply

    asyncio.run(apply(settings.owner_database_url()))
    print("the database is migrated")


@operator.command("create")
def operator_create(
    email: Annotated[str, typer.Argument(help="The address to sign in with.")],
    role: Annotated[
        list[str] | None, typer.Option(help="A role; may be given several times.")
    ] = None,
    password: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            help="At least 12 characters; asked for when it is not given.",
        ),
    ] = "",
) -> None:
    """Make an operator; the first one can be made only here."""
    from identity.operators import create_operator

    roles = role or ["ADMINISTRATOR"]
    operator_id = _connected("operator", lambda: create_operator(email, password, roles))
    print(f"operator {operator_id} may sign in as {email}")


@application.command()
def doctor() -> None:
    """Check settings, database, Valkey, the risk model, and list what is past its deadline."""
    from app import checks, report

    found = _connected("doctor", checks.doctor, safe_database=False)
    if not report.show_checks(found):
        raise typer.Exit(1)


@ledger.command("verify")
def ledger_verify() -> None:
    """Recompute the books: balances, holds, entries, the sealed chain, and orders against them."""
    from app import report

    if not report.show_books(_connected("verify", report.verified_books)):
        raise typer.Exit(1)


@risk.command("train")
def risk_train(
    seed: Annotated[int, typer.Option(help="Seed of the generated history.")] = 1,
) -> None:
    """Train a risk model on generated history and keep it where the API looks for it."""
    from app import process, report

    directory = process.prepare().risk_model_directory
    from risk_model.training import train

    with report.progress() as told:
        manifest = train(directory, seed=seed, progress=told)
    report.show_manifest(manifest)


@application.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV with recorded transactions.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many, from the first on; all when not given.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=512, help="Payments at once.")] = 32,
    currency: Annotated[str, typer.Option(help="Currency of the amounts.")] = "EUR",
) -> None:
    """Push recorded transactions through the whole public path, as payments."""
    import uvloop

    from app import replay as recorded

    work = recorded.replay(file, limit=limit, concurrency=concurrency, currency=currency)
    if not uvloop.run(work):
        raise typer.Exit(1)


def _connected(name: str, work: Any, *, safe_database: bool = True) -> Any:
    """Run `work` with the settings read and the connections open."""
    from app.process import connected

    async def run() -> Any:
        async with connected(name, safe_database=safe_database, long_statements=True):
            return await work()

    return asyncio.run(run())


def _expected(error: Exception) -> str | None:
    """The line for an error that is no bug of ours."""
    from app.checks import UnsafeDatabase
    from app.development.refusal import CannotStart
    from app.recorded import RecordingInvalid
    from app.settings import SettingsInvalid
    from core.errors import PurserError

    if isinstance(
        error, (SettingsInvalid, CannotStart, UnsafeDatabase, RecordingInvalid, PurserError)
    ):
        return str(error)
    if isinstance(error, (ConnectionError, PermissionError, FileNotFoundError)):
        return str(error) or type(error).__name__
    return _refused_by_the_database(error)


def _refused_by_the_database(error: Exception) -> str | None:
    """A wrong password or database; what else PostgreSQL refuses is a bug of ours."""
    import asyncpg

    kinds = (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.TooManyConnectionsError,
        asyncpg.CannotConnectNowError,
    )
    return f"the database refuses: {error}" if isinstance(error, kinds) else None


if __name__ == "__main__":
    main()
