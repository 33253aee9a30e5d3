"""The load generator: a process of its own that costs little, because it shares the machine.

It reads one JSON document per line (the file with the parties first, then one per slice) and
answers each with one line. Requests are bytes put together from parts made before; of an answer it
reads the length, and whether it says SUCCEEDED. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

HOST = "127.0.0.1"
ANSWER_SECONDS_MAX = 30.0
LATENCIES_MAX = 50_000
FAILURES_SHOWN_MAX = 5
NUMBER = re.compile(r"\d+")
USUAL_AMOUNT_MINOR = 12_00
AMOUNT_MINOR_MIN, AMOUNT_MINOR_MAX = 5_00, 60_00


@dataclass(frozen=True)
class Setup:
    """Who pays whom: `bodies` are the texts of a request around its input, by target."""

    tokens: list[str]
    merchants: list[str]
    bodies: dict[str, tuple[str, str]]
    seed: int


@dataclass
class Run:
    """One slice. It ends at `ends_at`, or when `left` requests were sent."""

    target: str
    ends_at: float
    left: int
    succeeded: int = 0
    latencies_us: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    waiting: set[asyncio.Future[None]] = field(default_factory=set)

    def failed(self, answer: str) -> None:
        self.failures[answer] = self.failures.get(answer, 0) + 1


class Requests:
    """Makes the bytes of payments, each under a number and a key of its own."""

    def __init__(self, setup: Setup) -> None:
        self._chance = chance = random.Random(setup.seed)
        self._tokens = [f"Authorization: Bearer {token}\r\n".encode() for token in setup.tokens]
        levels = [USUAL_AMOUNT_MINOR * math.exp(chance.gauss(0, 0.3)) for _ in setup.tokens]
        self._levels = levels
        self._factors = [math.exp(chance.gauss(0, 0.35)) for _ in range(256)]
        self._merchants = [merchant.encode() for merchant in setup.merchants]
        self._favourites = [tuple(chance.sample(self._merchants, 2)) for _ in setup.tokens]
        self._bodies = {
            name: (before.encode(), after.encode())
            for name, (before, after) in setup.bodies.items()
        }
        self._prefix = f"{chance.getrandbits(64):016x}"
        self._numbers = itertools.count()

    def customers(self, lane: int, lanes: int) -> Iterator[int]:
        """The customers of one API process, one after another, again and again."""
        return itertools.cycle(range(lane, len(self._tokens), lanes))

    def of(self, customer: int, run: Run, port: int, hot: bool) -> bytes:
        """A payment of `customer` to a merchant of theirs; all pay one merchant where `hot`."""
        number = next(self._numbers)
        name = b"%s-%d" % (self._prefix.encode(), number)
        amount = int(self._levels[customer] * self._factors[number & 255])
        amount = min(max(amount, AMOUNT_MINOR_MIN), AMOUNT_MINOR_MAX)
        merchant = self._merchants[0] if hot else self._favourites[customer][number & 1]
        before, after = self._bodies[run.target]
        body = (
            b'%s{"idempotencyKey":"%s","merchantId":"%s","merchantOrderNo":"%s",'
            b'"amount":{"amountMinor":%d,"currency":"CNY"},"method":{"account":{}}}%s'
            % (before, name, merchant, name, amount, after)
        )
        return (
            b"POST /%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b"Accept: application/json\r\n%sContent-Length: %d\r\n\r\n%s"
            % (run.target.encode(), port, self._tokens[customer], len(body), body)
        )


class Connection(asyncio.Protocol):
    """A connection that is kept: the next request leaves when the last one is answered."""

    def __init__(self, requests: Requests, customers: Iterator[int], port: int, hot: bool) -> None:
        self._requests, self._customers, self._port, self._hot = requests, customers, port, hot
        self._run: Run | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = b""
        self._started_ns = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def start(self, run: Run) -> asyncio.Future[None]:
        """Begin to send; the future is done when the last answer is there."""
        self._run = run
        self._send()
        return self._ended

    def data_received(self, data: bytes) -> None:
        run = self._run
        assert run is not None
        if self._received:
            data = self._received + data
        head = data.find(b"\r\n\r\n")
        if head < 0 or len(data) < head + 4 + _length(data, head):
            self._received = data
            return
        self._received = b""
        run.latencies_us.append((time.perf_counter_ns() - self._started_ns) / 1_000)
        if b'"SUCCEEDED"' in data:
            run.succeeded += 1
        else:
            run.failed(_shown(data))
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._ended.done():
            if self._run is not None:
                self._run.failed("the connection was lost")
            self._ended.set_result(None)

    def _send(self) -> None:
        run = self._run
        assert run is not None
        if run.left <= 0 or time.monotonic() >= run.ends_at:
            self._ended.set_result(None)
            self._transport.close()
            return
        run.left -= 1
        request = self._requests.of(next(self._customers), run, self._port, self._hot)
        self._started_ns = time.perf_counter_ns()
        self._transport.write(request)


def _length(data: bytes, head: int) -> int:
    name = data.lower().find(b"content-length:", 0, head) if data[:9] == b"HTTP/1.1 " else -1
    if name < 0:
        return 0
    return int(data[name + 15 : data.find(b"\r\n", name)])


def _shown(data: bytes) -> str:
    """An answer without what differs each time, so that equal ones count as one."""
    text = data.partition(b"\r\n\r\n")[2][:2_000].decode(errors="replace")
    start = text.find('"state"')
    if start < 0:
        start = max(text.find('"errors"'), text.find('"userErrors"'), 0)
    return NUMBER.sub("#", text[start : start + 160])


async def run_slice(requests: Requests, cursors: dict[int, Iterator[int]], asked: Any) -> Any:
    """Open the connections, load for `seconds` (or `payments`), and tell what was answered."""
    loop = asyncio.get_running_loop()
    ports: list[int] = asked["ports"]
    connections = []
    for number in range(asked["connections"]):
        port = ports[number % len(ports)]
        customers = cursors.setdefault(port, requests.customers(len(cursors) % 2, 2))
        made = Connection(requests, customers, port, asked.get("hot", False))
        await loop.create_connection(lambda made=made: made, HOST, port)
        connections.append(made)
    began = time.monotonic()
    seconds = asked.get("seconds", math.inf)
    run = Run(asked["target"], began + seconds, asked.get("payments", sys.maxsize))
    ending = [connection.start(run) for connection in connections]
    await asyncio.wait_for(
        asyncio.gather(*ending), None if seconds == math.inf else seconds + ANSWER_SECONDS_MAX
    )
    took = time.monotonic() - began
    stride = max(1, len(run.latencies_us) // LATENCIES_MAX)
    failures = sorted(run.failures.items(), key=lambda each: -each[1])
    return {
        "succeeded": run.succeeded,
        "seconds": took,
        "latencies_us": [round(each) for each in run.latencies_us[::stride]],
        "failed": sum(run.failures.values()),
        "failures": failures[:FAILURES_SHOWN_MAX],
    }


def main() -> None:
    setup = Setup(**json.loads(Path(sys.stdin.readline().strip()).read_text()))
    requests = Requests(setup)
    cursors: dict[int, Iterator[int]] = {}
    print("{}", flush=True)
    for line in sys.stdin:
        answer = uvloop.run(run_slice(requests, cursors, json.loads(line)))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
