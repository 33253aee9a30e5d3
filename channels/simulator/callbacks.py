"""Calls the client back, again and again, until it answers with the exact acknowledgement.

The schedule is in the database, so a restart forgets no callback. Each try is signed anew; the
event id and the body stay the same.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

import httpx2
import orjson

from channels import signed_json
from channels.simulator import faults, ledger
from channels.simulator.faults import Fault, FaultOperation
from channels.simulator.settings import SimulatorSettings
from core import clock

ACKNOWLEDGEMENT = b'{"code":"SUCCESS"}'
RETRY_SECONDS = (
    *(15, 15, 30),
    *(60 * minutes for minutes in (3, 10, 20, 30, 30, 30, 60)),
    *(3_600 * hours for hours in (3, 3, 3, 6, 6)),
)
TRY_TIMEOUT_SECONDS = 5.0
IDLE_SECONDS = 1.0
PARALLEL_MAX = 50

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Bank:
    """What one running simulator holds. `wake` tells the delivery loop of something new."""

    settings: SimulatorSettings
    connection: sqlite3.Connection
    client: httpx2.AsyncClient
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: dict[str, asyncio.Task[None]] = field(default_factory=dict)


async def run(bank: Bank) -> None:
    """Do what is due and deliver what is pending, until cancelled."""
    try:
        while True:
            bank.wake.clear()
            try:
                ledger.apply_due(bank.connection)
                start_due(bank)
            except sqlite3.Error:
                # Somebody else reads the file; what is due stays due.
                logger.exception("the simulator's file could not be used")
                await asyncio.sleep(IDLE_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(bank.wake.wait(), _seconds_to_next(bank))
    finally:
        for task in bank.in_flight.values():
            task.cancel()
        await asyncio.gather(*bank.in_flight.values(), return_exceptions=True)


def start_due(bank: Bank) -> None:
    """Begin a try of each callback whose time has come and that is not being tried."""
    due = bank.connection.execute(
        "SELECT event_id FROM callback WHERE next_at <= ? ORDER BY next_at LIMIT ?",
        (clock.now().timestamp(), PARALLEL_MAX + len(bank.in_flight)),
    ).fetchall()
    for row in due:
        event_id = row["event_id"]
        if event_id not in bank.in_flight and len(bank.in_flight) < PARALLEL_MAX:
            bank.in_flight[event_id] = asyncio.create_task(_try_and_leave(bank, event_id))


async def deliver_now(bank: Bank, number: str) -> None:
    """Try the pending callbacks of one number at once and wait for their end."""
    start_due(bank)
    rows = bank.connection.execute("SELECT event_id FROM callback WHERE number = ?", (number,))
    tasks = [bank.in_flight[row["event_id"]] for row in rows if row["event_id"] in bank.in_flight]
    await asyncio.gather(*tasks)


async def _try_and_leave(bank: Bank, event_id: str) -> None:
    try:
        await _try(bank, event_id)
    finally:
        del bank.in_flight[event_id]
        bank.wake.set()


async def _try(bank: Bank, event_id: str) -> None:
    """One delivery; notes the answer, and when to try again if it was not the acknowledgement."""
    row = bank.connection.execute(
        "SELECT * FROM callback WHERE event_id = ?", (event_id,)
    ).fetchone()
    struck = faults.drawn(bank.connection, FaultOperation.CALLBACK, row["number"])
    body: bytes = row["body"]
    if delay := struck.get(Fault.DELAY_BEFORE_COMMIT):
        await asyncio.sleep(delay["seconds"])
    if wrong := struck.get(Fault.WRONG_AMOUNT):
        content = orjson.loads(body)
        body = orjson.dumps(
            {**content, "amount_minor": content["amount_minor"] + wrong["amount_minor"]}
        )
    headers = signed(bank, f"POST {urlsplit(row['url']).path}", body, struck)
    if Fault.DUPLICATE in struck:
        answers = await asyncio.gather(*(_post(bank, row["url"], headers, body) for _ in range(2)))
        acknowledged, answer = answers[0]
    else:
        acknowledged, answer = await _post(bank, row["url"], headers, body)
    _note(bank, row, acknowledged=acknowledged, answer=answer)


def signed(
    bank: Bank,
    subject: str,
    body: bytes,
    struck: dict[Fault, sqlite3.Row],
    nonce: str | None = None,
) -> dict[str, str]:
    """The headers of a message of the bank's, wrong where the script says so."""
    sent_at = clock.now()
    if Fault.STALE_TIMESTAMP in struck:
        sent_at -= timedelta(seconds=signed_json.WINDOW_SECONDS + 1)
    headers = signed_json.signed_headers(
        bank.settings.bank_private_key, subject, body, nonce=nonce, sent_at=sent_at
    )
    if Fault.BAD_SIGNATURE in struck:
        signature = headers[signed_json.SIGNATURE_HEADER]
        headers[signed_json.SIGNATURE_HEADER] = ("B" if signature[0] == "A" else "A") + signature[
            1:
        ]
    return headers


async def _post(bank: Bank, url: str, headers: dict[str, str], body: bytes) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(TRY_TIMEOUT_SECONDS):
            answer = await bank.client.post(url, content=body, headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        return False, type(error).__name__
    acknowledged = answer.status_code == 200 and answer.content == ACKNOWLEDGEMENT
    return acknowledged, f"HTTP {answer.status_code}"


def _note(bank: Bank, row: sqlite3.Row, *, acknowledged: bool, answer: str) -> None:
    """Write the end of a try down; after the last step of the schedule there is no next one."""
    at = clock.now().timestamp()
    tries_count = row["tries_count"] + 1
    next_at = None
    if not acknowledged and tries_count <= len(RETRY_SECONDS):
        next_at = at + RETRY_SECONDS[tries_count - 1] * bank.settings.time_factor
    bank.connection.execute(
        """
        UPDATE callback SET tries_count = ?, next_at = ?, last_answer = ?, acknowledged_at = ?
        WHERE event_id = ?
        """,
        (tries_count, next_at, answer, at if acknowledged else None, row["event_id"]),
    )


def _seconds_to_next(bank: Bank) -> float:
    """How long nothing is due; a callback that is being tried wakes the loop by itself."""
    waiting = bank.connection.execute(
        "SELECT event_id, next_at FROM callback WHERE next_at IS NOT NULL ORDER BY next_at LIMIT ?",
        (len(bank.in_flight) + 1,),
    ).fetchall()
    times: list[float] = [
        row["next_at"] for row in waiting if row["event_id"] not in bank.in_flight
    ]
    due_at = ledger.next_due_at(bank.connection)
    if due_at is not None:
        times.append(due_at)
    if not times or len(bank.in_flight) >= PARALLEL_MAX:
        return IDLE_SECONDS
    return min(IDLE_SECONDS, max(0.0, min(times) - clock.now().timestamp()))
