"""The proof that the books are right: balances, holds, entries and the sealed chain, recomputed.

It reads, in pieces, and changes nothing; payments may go on meanwhile. What it cannot see is said
in its report: entries that are not sealed yet are checked against their own hashes only.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.phase import phase, statement
from core.principal import SYSTEM, Principal

ENTRIES_PER_STEP = 5_000
BLOCKS_PER_STEP = 10
FINDINGS_MAX = 100
SET_CHECKS = (
    "SELECT * FROM verify_accounts($1)",
    "SELECT * FROM verify_holds($1)",
    "SELECT * FROM verify_postings($1)",
    "SELECT * FROM verify_sealing($1)",
    "SELECT * FROM verify_snapshots($1)",
    "SELECT * FROM verify_checkpoints($1)",
    "SELECT * FROM verify_marks($1)",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: what kind of fault, where, and the figures that differ."""

    finding: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of the chain. Kept outside the database, it shows later that nothing was cut off."""

    block_number: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found. `unsealed_count` entries are newer than the head."""

    entries_count: int
    blocks_count: int
    unsealed_count: int
    head: ChainHead | None
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        return not self.findings


async def verify(
    principal: Principal = SYSTEM, *, exported_head: ChainHead | None = None
) -> Report:
    """Check the whole ledger; with `exported_head` also that the chain still goes through it."""
    findings: list[Finding] = []
    for check in SET_CHECKS:
        findings += await _set_check(principal, check)
    entries_count = await _entries(principal, findings)
    blocks_count, sealed_count, head = await _chain(principal, findings, exported_head)
    return Report(
        entries_count, blocks_count, max(entries_count - sealed_count, 0), head, tuple(findings)
    )


async def chain_head(principal: Principal = SYSTEM) -> ChainHead | None:
    """The newest block of the chain, for export; None before the first one."""
    async with phase(principal):
        rows = await statement(
            "SELECT block_number, encode(block_hash, 'hex') FROM sealed_block"
            " ORDER BY block_number DESC LIMIT 1"
        )
    return ChainHead(*rows[0]) if rows else None


async def _set_check(principal: Principal, check: str) -> list[Finding]:
    async with phase(principal):
        await _take_time()
        rows = await statement(check, FINDINGS_MAX)
    return [Finding(*row) for row in rows]


async def _entries(principal: Principal, findings: list[Finding]) -> int:
    """Every entry says what its caller sent."""
    entries_count = 0
    after: int | None = 0
    while after is not None:
        async with phase(principal):
            await _take_time()
            rows = await statement("SELECT * FROM verify_entries($1, $2)", after, ENTRIES_PER_STEP)
        entries_count += rows[0]["entries_count"]
        after = rows[0]["last_sequence"]
        findings += [
            Finding("CONTENT_DIFFERS", str(sequence), "the entry is not what its caller sent")
            for sequence in rows[0]["differing"] or ()
        ]
    return entries_count


async def _chain(
    principal: Principal, findings: list[Finding], exported_head: ChainHead | None
) -> tuple[int, int, ChainHead | None]:
    """Every block follows the last and covers its entries as they are stored now."""
    head: ChainHead | None = None
    blocks_count = sealed_count = last_number = 0
    passed_exported = False
    while True:
        async with phase(principal):
            await _take_time()
            rows = await statement(
                "SELECT * FROM verify_blocks($1, $2)", last_number, BLOCKS_PER_STEP
            )
        for row in rows:
            if not row["linked"] or row["block_number"] != last_number + 1:
                findings.append(
                    Finding("CHAIN_BROKEN", str(row["block_number"]), "does not follow the last")
                )
            if not row["sound"]:
                findings.append(
                    Finding("BLOCK_DIFFERS", str(row["block_number"]), "its entries were changed")
                )
            head = ChainHead(row["block_number"], row["block_hash"].hex())
            passed_exported = passed_exported or head == exported_head
            last_number = row["block_number"]
            blocks_count += 1
            sealed_count += row["entries_count"]
        if len(rows) < BLOCKS_PER_STEP:
            break
    if exported_head is not None and not passed_exported:
        findings.append(
            Finding("CHAIN_CUT", str(exported_head.block_number), "the exported head is not in it")
        )
    return blocks_count, sealed_count, head


async def _take_time() -> None:
    """A proof over millions of rows may take longer than a payment's statement."""
    await statement("SET LOCAL statement_timeout = '10min'")
