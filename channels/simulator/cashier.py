"""The page on which the payer pays: plain HTML, three buttons, no script.

Whoever knows the page's unguessable address may pay; that the browser comes back proves nothing.
"""

from __future__ import annotations

import sqlite3
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from channels.simulator import fields, ledger
from channels.simulator.api import limited_body
from channels.simulator.callbacks import Bank
from core.money import Money, formatted

VERDICTS = {"pay": ledger.PAID, "cancel": ledger.CANCELLED, "decline": ledger.NO_FUNDS}
WORDS = {
    "SUCCESS": "This payment is done.",
    "DECLINED": "This payment was not made.",
    "CLOSED": "This payment has ended.",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Simulated bank</title>
<meta name="viewport" content="width=device-width">
<style>
body{{font:1.1rem sans-serif;max-width:24rem;margin:4rem auto}}button{{font:inherit;margin:.3rem}}
</style></head><body>
<h1>Simulated bank</h1><p>{description}</p><p><b>{amount} {currency}</b></p>{rest}
</body></html>
"""
BUTTONS = """<form method="post">
<button name="action" value="pay">Pay</button>
<button name="action" value="cancel">Cancel</button>
<button name="action" value="decline">Pay without funds</button>
</form>"""


async def show(request: Request) -> Response:
    """GET: what is to be paid, with the buttons while it can be."""
    row = _session(request)
    return Response("There is no such payment.", 404) if row is None else _page(row, 200)


async def act(request: Request) -> Response:
    """POST `action=pay|cancel|decline`: decide, then send the browser back to the shop."""
    bank: Bank = request.app.state.bank
    row = _session(request)
    if row is None:
        return Response("There is no such payment.", 404)
    try:
        form = parse_qs((await limited_body(request)).decode("ascii"))
        verdict = VERDICTS[form["action"][0]]
    except (fields.Invalid, UnicodeDecodeError, KeyError):
        return _page(row, 400)
    ledger.apply_due(bank.connection)
    if not ledger.decide(bank.connection, row["number"], verdict, only_from="PENDING"):
        return _page(_session(request) or row, 409)
    bank.wake.set()
    if row["return_url"]:
        return RedirectResponse(row["return_url"], 303)
    return _page(_session(request) or row, 200)


def _session(request: Request) -> sqlite3.Row | None:
    bank: Bank = request.app.state.bank
    row: sqlite3.Row | None = bank.connection.execute(
        "SELECT * FROM instruction WHERE cashier_id = ?", (request.path_params["cashier_id"],)
    ).fetchone()
    return row


def _page(row: sqlite3.Row, status: int) -> Response:
    amount = formatted(Money(row["amount_minor"], row["currency"]))
    rest = BUTTONS if row["status"] == "PENDING" else f"<p>{WORDS[row['status']]}</p>"
    page = PAGE.format(
        description=escape(row["description"]), amount=amount, currency=row["currency"], rest=rest
    )
    return HTMLResponse(page, status, HEADERS)
