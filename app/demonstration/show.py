"""The demonstration on the screen, and what to try after it: addresses and tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

from app.client import TIMEOUT_SECONDS, Api
from app.demonstration.parties import Parties, customer_token, merchant_token, operator_token
from app.demonstration.play import Outcome, play
from app.demonstration.stage import Stage, Step
from app.development.home import write_private
from core.money import formatted


async def demonstrate(
    urls: tuple[str, str, str], admin_token: str, record: Path, console: Console
) -> None:
    """Play and show it, unless `record` says that it was played; then print what to try.

    `urls` are the API's local one, the one that signatures name, and the simulator's.
    """
    url, signed_url, simulator_url = urls
    async with httpx2.AsyncClient(trust_env=False, timeout=TIMEOUT_SECONDS) as http:
        api = Api(http, url, signed_url)
        parties = _read(record)
        if parties is None:
            with console.status("the demonstration plays"):
                outcome = await play(Stage(api, simulator_url, admin_token))
            parties = outcome.parties
            _write(record, parties)
            _show(outcome, console)
        await _show_what_to_try(api, parties, simulator_url, console)


def _show(outcome: Outcome, console: Console) -> None:
    console.print(_steps(outcome.steps))
    wallet, balance = outcome.wallet, outcome.merchant_balance
    console.print(_statement("the customer's wallet", wallet["statement"]["nodes"]))
    console.print(_statement("the merchant's available money", balance["statement"]["nodes"]))
    integrity = outcome.integrity
    console.print(
        f"[green]the books are balanced[/]: {integrity['entriesCount']} journal entries checked; "
        f"{outcome.webhooks_count} signed webhooks reached the merchant"
    )


def _steps(steps: Iterable[Step]) -> Table:
    table = Table(title="what happened", title_justify="left")
    for heading in ("step", "amount", "state", "risk decision", "took"):
        table.add_column(heading, justify="right" if heading in ("amount", "took") else "left")
    for step in steps:
        amount = f"{formatted(step.amount)} {step.amount.currency}"
        table.add_row(step.what, amount, step.state, step.risk, f"{step.took_ms:.0f} ms")
    return table


def _statement(title: str, lines: Iterable[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("entry")
    table.add_column("description")
    table.add_column("amount", justify="right")
    table.add_column("balance after", justify="right")
    for line in lines:
        table.add_row(
            line["kind"],
            line["description"],
            line["amount"]["formatted"],
            line["balanceAfter"]["formatted"],
        )
    return table


async def _show_what_to_try(
    api: Api, parties: Parties, simulator_url: str, console: Console
) -> None:
    customer = await customer_token(api, parties.phone, parties.password)
    operator = await operator_token(api, parties.operator_email, parties.operator_password)
    merchant = await merchant_token(api, parties.merchant_key)
    lines = {
        "GraphQL": f"{api.url}/graphql",
        "explorer": f"{api.url}/explorer",
        "health": f"{api.url}/health/ready",
        "simulated bank and phone": simulator_url,
        "customer": f"phone {parties.phone}, password {parties.password}, "
        f"payment password {parties.payment_password}",
        "merchant": f"id {parties.merchant_id}, key {parties.key_id}",
        "operator": f"{parties.operator_email}, password {parties.operator_password}",
    }
    for name, value in lines.items():
        console.print(f"[bold]{name}[/]: {value}", soft_wrap=True)
    console.print("access tokens, good for ten minutes (Authorization: Bearer …):")
    for name, token in (("customer", customer), ("merchant", merchant), ("operator", operator)):
        console.print(f"  [bold]{name}[/] {token}", soft_wrap=True)


def _read(record: Path) -> Parties | None:
    if not record.exists():
        return None
    document = json.loads(record.read_text())
    return Parties(**{**document, "private_key": base64.b64decode(document["private_key"])})


def _write(record: Path, parties: Parties) -> None:
    document = {**asdict(parties), "private_key": base64.b64encode(parties.private_key).decode()}
    write_private(record, json.dumps(document, indent=1).encode())
