"""Read, decide, commit; and again while what was read has moved meanwhile.

After three stale rounds the member runs alone: it locks before it reads, so that it cannot be
overtaken again. A commit whose connection was lost is settled by reading: the key or the order's
version tells whether it happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakValueDictionary

from core.errors import (
    Busy,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    OutcomeUnknown,
    ServerBusy,
    error_of,
)
from core.phase import phase, statement
from payments import notices
from payments.group import (
    Ending,
    Known,
    Member,
    Outcome,
    Selector,
    answer_of,
    commit,
    read,
)
from payments.values import Answer

log = logging.getLogger(__name__)
ROUNDS_MAX = 3

Plan = Callable[[Known], Member | None]

_queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


async def decide_and_commit(
    selector: Selector, plan: Plan, *, input_hash: str | None = None
) -> Answer | None:
    """What was committed, or the stored answer of the same key; None when `plan` wants nothing.

    `plan` computes a member from what was read; it is called again, with fresh values, when it went
    stale. Raises what `plan` raises, `IdempotencyKeyReused`, `IdempotencyInProgress` and the errors
    of a database that is away.
    """
    async with _queue(selector):
        lost = False
        for _ in range(ROUNDS_MAX):
            try:
                finished, answer = await _round(selector, plan, input_hash)
            except OutcomeUnknown:
                lost = True
                continue
            except Busy as error:
                if lost:
                    # The round before may have committed, and nobody could be asked.
                    raise OutcomeUnknown() from error
                raise
            if finished:
                return answer
        if lost:
            raise OutcomeUnknown()
        return await _alone(selector, plan, input_hash)


def _queue(selector: Selector) -> asyncio.Lock:
    """Members that would make each other stale wait for each other here, where waiting is cheap.

    It is a courtesy of one process to itself; what keeps members apart is the commit.
    """
    key = str(selector.order_id or next(iter(selector.profile_keys), selector.principal))
    return _queues.setdefault(key, asyncio.Lock())


async def _round(
    selector: Selector, plan: Plan, input_hash: str | None
) -> tuple[bool, Answer | None]:
    known = (await read([selector]))[0]
    if known.stored is not None:
        return True, _stored(known, input_hash)
    member = plan(known)
    if member is None:
        return True, None
    try:
        outcome = (await commit([member]))[0]
    except ServerBusy as error:
        raise _waited_for_key(error) from error
    if outcome.ending is Ending.STALE:
        return False, None
    return True, await _ended(member, outcome)


async def _alone(selector: Selector, plan: Plan, input_hash: str | None) -> Answer | None:
    """The same round in one transaction that locks the order and the own profiles first."""
    async with phase(selector.principal):
        await statement(
            "SELECT lock_member($1, $2::text[])", selector.order_id, list(selector.profile_keys)
        )
        known = (await read([selector]))[0]
        if known.stored is not None:
            return _stored(known, input_hash)
        member = plan(known)
        if member is None:
            return None
        outcome = (await commit([member]))[0]
        if outcome.ending is Ending.STALE:
            log.warning("a member that ran alone went stale")
            raise ServerBusy()
    return await _ended(member, outcome)


def _stored(known: Known, input_hash: str | None) -> Answer:
    assert known.stored is not None
    stored_hash, result = known.stored
    if stored_hash != input_hash:
        raise IdempotencyKeyReused(field=("idempotencyKey",))
    return answer_of(result, replay=True)


async def _ended(member: Member, outcome: Outcome) -> Answer:
    match outcome.ending:
        case Ending.KEY_REUSED:
            raise IdempotencyKeyReused(field=("idempotencyKey",))
        case Ending.FORBIDDEN:
            raise Forbidden()
        case Ending.STORED:
            return answer_of(outcome.result, replay=True)
    if not outcome.result:
        assert outcome.code is not None
        raise error_of(outcome.code)
    answer = answer_of(outcome.result, replay=False)
    effects = member.done if outcome.ending is Ending.DONE else member.refused
    if answer.order is not None and effects is not None and effects.writes_order:
        await notices.publish(answer.order, wakes=bool(effects.events or effects.public_events))
    return answer


def _waited_for_key(error: ServerBusy) -> ServerBusy | IdempotencyInProgress:
    """A lock that was waited for in vain on the keys' index: the first request is still running."""
    context = str(getattr(error.__cause__, "context", "") or "")
    return IdempotencyInProgress() if "idempotency" in context else error
