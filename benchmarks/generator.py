"""The load generator as a measurement holds it: started once, asked for slice after slice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from typing import Any, Self

from benchmarks.figures import Figures, Slice
from benchmarks.parties import Parties
from benchmarks.servers import ROOT, Failed, Stack
from core import ids

PAY = (
    "mutation Pay($input: PayInput!) { pay(input: $input) { idempotentReplay "
    "order { id state resourceVersion amount { amountMinor currency } createdAt } "
    "userErrors { code message field retryable outcomeKnown } } }"
)
"""What an application asks: the order, its state, and every refusal."""

GRAPHQL = "graphql"
PLAIN = "plain/pay"


class Generator:
    """`acknowledged` counts every payment that was answered as SUCCEEDED."""

    def __init__(self, stack: Stack, parties: Parties, form: str, seed: int) -> None:
        setup = stack.home.folder / "load.json"
        document = {
            "tokens": parties.tokens,
            "merchants": [ids.node_id("Merchant", each) for each in parties.merchant_ids],
            "bodies": {GRAPHQL: _around(form), PLAIN: ("", "")},
            "seed": seed,
        }
        setup.write_text(json.dumps(document))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=stack.environment(),
            start_new_session=True,
        )
        self.acknowledged = 0
        self.sent = 0
        self.failures: dict[str, int] = {}
        self._ask(str(setup))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Its input ends, and so does it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(2.0)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    async def slice(
        self, ports: list[int], connections: int, *, target: str = GRAPHQL, **asked: Any
    ) -> Slice:
        """One slice: `seconds` or `payments` long, `hot` where all pay one merchant."""
        question = {"ports": ports, "connections": connections, "target": target, **asked}
        answer = await asyncio.to_thread(self._ask, json.dumps(question))
        self.acknowledged += answer["succeeded"]
        self.sent += answer["succeeded"] + answer["failed"]
        for text, count in answer["failures"]:
            self.failures[text] = self.failures.get(text, 0) + count
        return Slice(
            answer["succeeded"], answer["seconds"], answer["latencies_us"], answer["failed"]
        )

    def add(self, other: Generator) -> None:
        """Count what another one has sent as well."""
        self.acknowledged += other.acknowledged
        self.sent += other.sent
        for text, count in other.failures.items():
            self.failures[text] = self.failures.get(text, 0) + count

    @property
    def process_id(self) -> int:
        return self._process.pid

    def report(self, figures: Figures) -> None:
        """The share that did not succeed, and what was answered instead."""
        failed = self.sent - self.acknowledged
        share = failed / max(self.sent, 1)
        print(f"{self.acknowledged:,} payments acknowledged, {failed:,} not ({share:.2%})")
        for text, count in sorted(self.failures.items(), key=lambda each: -each[1])[:5]:
            print(f"  {count:,} times: {text}")
        if share > 0.01:
            figures.broken.append(f"{share:.1%} of the payments did not succeed")

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed("the load generator ended") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise Failed("the load generator ended")
        return json.loads(answer)


def _around(form: str) -> tuple[str, str]:
    """The body of a request before and after its input: the text of the document, or its hash."""
    digest = hashlib.sha256(PAY.encode()).hexdigest()
    named = {
        "query": {"query": PAY},
        "document": {"documentId": f"sha256:{digest}"},
        "persisted": {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}}},
    }[form]
    text = json.dumps({**named, "variables": {"input": "@"}}, separators=(",", ":"))
    before, _, after = text.partition('"@"')
    return before, after
