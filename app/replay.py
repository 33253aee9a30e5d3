"""`purser replay`: recorded transactions through the whole public path, as payments.

Each customer of the recording becomes a customer, each terminal a merchant. What is missing, with
its money, is made in bulk first; then every payment is one `pay` mutation over HTTP. Those of
one customer keep their order. A second replay of the same rows gets the stored answers.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.client import TIMEOUT_SECONDS, Api, ApiRefused
from app.process import connected
from app.recorded import Recorded, RecordingInvalid, read_recording
from app.report import books_line, verified_books
from core import clock, ids
from core.phase import phase
from core.principal import SYSTEM
from identity.replay_parties import make_parties, replay_tokens
from schema.node import node_id
from wallet.chart import AccountKind, account, clearing
from wallet.ledger import Entry, Post, post
from wallet.statements import balances

NAMESPACE = uuid.UUID("a3b6a3f4-0c86-5a5e-9d0f-0f5f0a7f2c11")
"""Base of the ids of a recording's customers and merchants: the same each time."""

FUNDS_CHANNEL = "replay"
ENTRIES_PER_STATEMENT = 500
TOKEN_MS = 8 * 60 * 1_000.0
"""How long tokens are used. They are good for ten minutes."""

RETRIES_MAX = 6
RETRYABLE = {"BUSY", "THROTTLED", "OUTCOME_UNKNOWN", "IDEMPOTENCY_IN_PROGRESS"}
ANSWERS = {
    "SUCCEEDED": "approved",
    "REQUIRES_ACTION": "challenged",
    "IN_REVIEW": "in review",
    "RISK_BLOCKED": "blocked",
}
CAUGHT = ("challenged", "in review", "blocked")
PAY = """mutation($input: PayInput!) { pay(input: $input) {
  idempotentReplay order { state } userErrors { code message } } }"""


@dataclass(slots=True)
class Tally:
    """What became of the payments; `latencies_ms` has one for each request, repeated ones too."""

    answers: Counter[str] = field(default_factory=Counter)
    frauds: Counter[str] = field(default_factory=Counter)
    stored_count: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.answers.values())


@dataclass(slots=True)
class Run:
    """One replay while it runs."""

    api: Api
    currency: str
    tokens: dict[uuid.UUID, str]
    minted_at_ms: float
    minting: asyncio.Lock = field(default_factory=asyncio.Lock)
    tally: Tally = field(default_factory=Tally)


async def replay(file: Path, *, limit: int | None, concurrency: int, currency: str) -> bool:
    """Replay a file and show the result; whether the books are right afterwards.

    Raises `RecordingInvalid` for the file, `Forbidden` where replays are not allowed, and
    `ConnectionError` where the API does not answer.
    """
    console = Console(highlight=False)
    recorded = await asyncio.to_thread(read_recording, file, currency, limit)
    if not recorded:
        raise RecordingInvalid(f"{file} holds no transactions")
    async with connected("replay") as read, _http(concurrency) as http:
        api = Api(http, read.public_url, read.public_url)
        await _refuse_silence(api)
        with console.status(f"making customers, merchants and funds for {len(recorded)} payments"):
            tokens = await _prepare(recorded, currency)
        run = Run(api, currency, tokens, clock.monotonic_ms())
        await _push(run, recorded, concurrency, console)
        with console.status("verifying the books"):
            books = await verified_books()
        console.print(_table(run.tally, recorded))
        console.print(books_line(books), soft_wrap=True)
        return books.clean


async def _prepare(recorded: Sequence[Recorded], currency: str) -> dict[uuid.UUID, str]:
    """Make who and what is missing, in sets; the access tokens of the customers."""
    customers = {customer_id_of(row): f"Customer {row.customer}" for row in recorded}
    merchants = {merchant_id_of(row): f"Terminal {row.terminal}" for row in recorded}
    await make_parties(customers, merchants, currency)
    await _fund(recorded, currency)
    return await replay_tokens(customers)


async def _fund(recorded: Iterable[Recorded], currency: str) -> None:
    """Book what each wallet needs for its payments and has not; through the books like all else."""
    needed_minor: Counter[uuid.UUID] = Counter()
    for row in recorded:
        # What is not positive will be refused; it must not count against the others.
        needed_minor[customer_id_of(row)] += max(row.amount_minor, 0)
    wallets = {
        customer_id: account(AccountKind.CUSTOMER_WALLET, customer_id, currency)
        for customer_id in needed_minor
    }
    async with phase(SYSTEM):
        found = await balances([wallet.account_id for wallet in wallets.values()])
    source = clearing(FUNDS_CHANNEL, currency)
    entries = [
        Entry(
            entry_id=ids.new_id(),
            kind="REPLAY_FUNDED",
            actions=(Post(source, wallet, missing_minor),),
            description="funds of a replay",
        )
        for customer_id, wallet in wallets.items()
        if (missing_minor := needed_minor[customer_id] - found[wallet.account_id].available_minor)
        > 0
    ]
    for begin in range(0, len(entries), ENTRIES_PER_STATEMENT):
        for posted in await post(SYSTEM, entries[begin : begin + ENTRIES_PER_STATEMENT]):
            if posted.refusal is not None:
                raise posted.refusal


async def _push(run: Run, recorded: Sequence[Recorded], concurrency: int, console: Console) -> None:
    """Pay one after another, `concurrency` at once; a customer's next waits for his last."""
    waiting: defaultdict[uuid.UUID, deque[Recorded]] = defaultdict(deque)
    busy: set[uuid.UUID] = set()
    free = asyncio.Semaphore(concurrency)
    progress = Progress(
        TextColumn("paying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    )
    bar = progress.add_task("paying", total=len(recorded), rate="")
    began = time.perf_counter()

    async def pay_in_turn(customer_id: uuid.UUID) -> None:
        try:
            while waiting[customer_id]:
                await _pay(run, waiting[customer_id].popleft())
                done = run.tally.count
                rate = done / (time.perf_counter() - began)
                progress.update(bar, completed=done, rate=f"{rate:.0f}/s")
        finally:
            busy.discard(customer_id)
            free.release()

    with progress:
        async with asyncio.TaskGroup() as group:
            for row in recorded:
                customer_id = customer_id_of(row)
                waiting[customer_id].append(row)
                if customer_id not in busy:
                    await free.acquire()
                    # He may have been taken up while this waited for a free place.
                    if customer_id in busy or not waiting[customer_id]:
                        free.release()
                        continue
                    busy.add(customer_id)
                    group.create_task(pay_in_turn(customer_id))
    run.tally.seconds = time.perf_counter() - began


async def _pay(run: Run, row: Recorded) -> None:
    """One payment, tried again with the same key where the answer says that it may be."""
    customer_id = customer_id_of(row)
    variables = {
        "input": {
            "idempotencyKey": f"replay-{run.currency}-{row.transaction_id}",
            "merchantId": node_id("Merchant", merchant_id_of(row)),
            "merchantOrderNo": f"replay-{run.currency}-{row.transaction_id}",
            "amount": {"amountMinor": row.amount_minor, "currency": run.currency},
            "method": {"account": {}},
            "effectiveAt": row.effective_at.isoformat(),
        }
    }
    answer = "NO_ANSWER"
    for attempt in range(RETRIES_MAX):
        token = await _token(run, customer_id)
        began_ms = clock.monotonic_ms()
        try:
            data = await run.api.ask(PAY, variables, token=token)
            run.tally.stored_count += bool(data["pay"]["idempotentReplay"])
            answer = data["pay"]["order"]["state"]
        except ApiRefused as refused:
            answer = refused.codes[0] if refused.codes else str(refused)
        except httpx2.TransportError as error:
            answer = type(error).__name__
        run.tally.latencies_ms.append(clock.monotonic_ms() - began_ms)
        if answer not in RETRYABLE and not answer.endswith(("Error", "Timeout")):
            break
        await asyncio.sleep(min(2.0, 0.05 * 2**attempt))
    what = ANSWERS.get(answer, f"refused: {answer}")
    run.tally.answers[what] += 1
    if row.is_fraud:
        run.tally.frauds[what] += 1


async def _token(run: Run, customer_id: uuid.UUID) -> str:
    if clock.monotonic_ms() - run.minted_at_ms > TOKEN_MS:
        async with run.minting:
            if clock.monotonic_ms() - run.minted_at_ms > TOKEN_MS:
                run.tokens = await replay_tokens(list(run.tokens))
                run.minted_at_ms = clock.monotonic_ms()
    return run.tokens[customer_id]


def _table(tally: Tally, recorded: Sequence[Recorded]) -> Table:
    count, frauds = tally.count, sum(tally.frauds.values())
    caught = sum(tally.frauds[what] for what in CAUGHT)
    latencies = sorted(tally.latencies_ms)
    table = Table(title="replay", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row("payments", f"{count:,}", f"of {len(recorded):,} recorded")
    for what in ("approved", "challenged", "in review", "blocked"):
        table.add_row(what, f"{tally.answers[what]:,}", _share(tally.answers[what], count))
    for what, number in tally.answers.most_common():
        if what.startswith("refused"):
            table.add_row(what, f"{number:,}", _share(number, count))
    if tally.stored_count:
        table.add_row("already paid by an earlier replay", f"{tally.stored_count:,}", "")
    table.add_row("known frauds caught", f"{caught:,} of {frauds:,}", _share(caught, frauds))
    table.add_row("payments a second", f"{count / tally.seconds:,.0f}", f"in {tally.seconds:.1f} s")
    table.add_row("p50", f"{_percentile(latencies, 0.50):.1f} ms", "")
    table.add_row("p99", f"{_percentile(latencies, 0.99):.1f} ms", "")
    return table


def customer_id_of(row: Recorded) -> uuid.UUID:
    """The customer that a recorded one becomes."""
    return ids.derived_id(NAMESPACE, f"customer:{row.customer}")


def merchant_id_of(row: Recorded) -> uuid.UUID:
    """The merchant that a terminal becomes."""
    return ids.derived_id(NAMESPACE, f"terminal:{row.terminal}")


@asynccontextmanager
async def _http(concurrency: int) -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx2.AsyncClient(
        trust_env=False, timeout=TIMEOUT_SECONDS, limits=limits
    ) as client:
        yield client


async def _refuse_silence(api: Api) -> None:
    try:
        response = await api.http.get(f"{api.url}/health/ready")
    except httpx2.TransportError:
        raise ConnectionError(f"the API at {api.url} does not answer") from None
    if response.status_code != 200:
        raise ConnectionError(f"the API at {api.url} is not ready")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ""


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
