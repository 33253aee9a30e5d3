"""The followers: roll-up of buffered accounts, sealing of the chain, checkpoints of accounts,
folding of shared profiles.

They read what was committed and carry it on, behind the payments.
"""

from __future__ import annotations

import asyncio

from risk_model.folding import fold_shared
from wallet.ledger import ROLL_UP_ENTRIES_MAX, keep_checkpoints, roll_up, seal
from workers.loops import repeat

FOLLOW_SECONDS = 0.2
FOLD_EVENTS_MAX = 500


async def follow(stop: asyncio.Event) -> None:
    """Run every follower until `stop`. Several processes may do so: each step takes its lock."""
    async with asyncio.TaskGroup() as group:
        group.create_task(repeat("roll-up", _roll_up, FOLLOW_SECONDS, stop))
        group.create_task(repeat("sealing", seal, FOLLOW_SECONDS, stop))
        group.create_task(repeat("checkpoints", keep_checkpoints, FOLLOW_SECONDS, stop))
        group.create_task(repeat("risk folding", _fold_shared, FOLLOW_SECONDS, stop))


async def _roll_up() -> bool:
    return await roll_up(ROLL_UP_ENTRIES_MAX) >= ROLL_UP_ENTRIES_MAX


async def _fold_shared() -> bool:
    return await fold_shared(FOLD_EVENTS_MAX) >= FOLD_EVENTS_MAX
