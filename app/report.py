"""What commands show: the checks of `purser doctor`, the proof of `purser ledger verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from app.checks import Check
from payments.reconcile_books import Difference, verify_orders
from wallet.verify import Report, verify

FINDINGS_SHOWN_MAX = 50


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger's own proof, and the orders whose amounts are not their postings."""

    ledger: Report
    differences: Sequence[Difference]

    @property
    def clean(self) -> bool:
        return self.ledger.clean and not self.differences


async def verified_books() -> Books:
    """Recompute everything; reads alone, while payments may go on."""
    return Books(await verify(), await verify_orders())


def show_checks(checks: Sequence[Check]) -> bool:
    """Print the checks; whether all hold."""
    table = Table("check", "", "found", box=None)
    for check in checks:
        table.add_row(
            check.subject, "[green]ok[/]" if check.holds else "[red]wrong[/]", check.detail
        )
    Console(highlight=False).print(table)
    return all(check.holds for check in checks)


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A function to tell a step and the share of it that is done, shown as bars."""
    with Progress() as bars:
        tasks: dict[str, TaskID] = {}

        def told(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=1.0)
            bars.update(tasks[step], completed=share)

        yield told


def show_manifest(manifest: Mapping[str, Any]) -> None:
    """Print what was trained, in one line."""
    Console(highlight=False).print(f"trained and promoted model {manifest['version']}")


def show_books(books: Books, console: Console | None = None) -> bool:
    """Print the proof; whether the books are right."""
    console = console or Console(highlight=False)
    for finding in books.ledger.findings[:FINDINGS_SHOWN_MAX]:
        console.print(f"[red]{finding.finding}[/] {finding.subject}: {finding.detail}")
    for difference in list(books.differences)[:FINDINGS_SHOWN_MAX]:
        console.print(f"[red]ORDER_DIFFERS[/] {difference}")
    console.print(books_line(books), soft_wrap=True)
    return books.clean


def books_line(books: Books) -> str:
    """The proof in one line."""
    ledger = books.ledger
    head = f"chain head {ledger.head.block_hash[:16]}" if ledger.head else "nothing sealed yet"
    verdict = "the books are right" if books.clean else "the books are WRONG"
    return (
        f"{verdict}: {ledger.entries_count} entries, {ledger.blocks_count} sealed blocks "
        f"({ledger.unsealed_count} entries not sealed yet), {head}"
    )
