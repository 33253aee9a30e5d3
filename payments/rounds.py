"""Read, decide, commit, together with whoever waits at the same time; and again while what was read
has moved meanwhile.

Members that wait together are read by one statement, scored by one call of the model and committed
by another statement; each has its own ending. After three stale rounds a member runs alone: it
locks before it reads, so that it cannot be overtaken again. A commit whose connection was lost is
settled by reading: the key or the order's version tells whether it happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import GeneratorType
from uuid import UUID

from core import clock
from core.errors import (
    Busy,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InsufficientAvailable,
    OutcomeUnknown,
    PurserError,
    ServerBusy,
    error_of,
)
from core.grouping import Grouping
from core.phase import phase, statement
from core.trace import span
from payments import notices
from payments.group import (
    Effects,
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
from risk_model import assessment as risk

log = logging.getLogger(__name__)
ROUNDS_MAX = 3
DEADLINE_MS = 3_500.0
"""After this no further round begins: what nothing was kept of is told so while somebody waits."""
APART_MAX = 8
"""How many run at once, each as a group of its own, after their group was undone."""

Planning = Generator[risk.Question, risk.Assessment, Member | None]
Plan = Callable[[Known], Member | Planning | None]
"""Computes a member from what was read. One that needs a score is a generator: it yields its
question, and the group answers all its members' questions by one call of the model."""


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """`refused` is what the books said to the round before, for a plan with an ending for it."""

    selector: Selector
    plan: Plan
    input_hash: str | None
    refused: PurserError | None = None


@dataclass(frozen=True, slots=True)
class _Turn:
    """How a round ended for one wish: with an answer (None: nothing was wanted), or again.

    `done` is what was committed now; `refused` what the books said, to plan again by; `apart` asks
    for a group of one.
    """

    answer: Answer | None = None
    done: Effects | None = None
    again: bool = False
    refused: PurserError | None = None
    apart: bool = False


_APART = _Turn(again=True, apart=True)
"""The group was undone for one of its members, by a fault or a lock that was held too long. Each
goes on by itself, so that no one waits for that one."""


async def decide_and_commit(
    selector: Selector, plan: Plan, *, input_hash: str | None = None
) -> Answer | None:
    """What was committed, or the stored answer of the same key; None when `plan` wants nothing.

    `plan` is called again, with fresh values, when it went stale. Raises what `plan` raises,
    `IdempotencyKeyReused`, `IdempotencyInProgress`, `Busy` and the errors of a database that is
    away.
    """
    wish = _Wish(selector, plan, input_hash)
    deadline_ms = clock.monotonic_ms() + DEADLINE_MS
    lost, groups = False, _groups
    rounds_left = ROUNDS_MAX
    while rounds_left:
        rounds_left -= 1
        try:
            with span("queue+group"):
                turn = await groups.join(wish)
        except OutcomeUnknown:
            lost = True
            continue
        except Busy as error:
            if lost:
                # The round before may have committed, and nobody could be asked.
                raise OutcomeUnknown() from error
            raise
        if not turn.again:
            return turn.answer
        if turn.refused is not None:
            wish = replace(wish, refused=turn.refused)
            rounds_left = ROUNDS_MAX
        elif turn.apart:
            groups, rounds_left = _singles, ROUNDS_MAX
        if clock.monotonic_ms() > deadline_ms:
            break
    if lost:
        raise OutcomeUnknown()
    if clock.monotonic_ms() > deadline_ms:
        raise ServerBusy()
    return await _alone(wish)


def _claims(wish: _Wish) -> frozenset[Hashable]:
    """What only one member of a group may touch: its key, its order, its own risk profile."""
    selector = wish.selector
    return frozenset(
        each
        for each in (
            selector.idempotency_id,
            selector.order_id,
            selector.profile_keys[0] if selector.profile_keys else None,
        )
        if each is not None
    )


def _key(wish: _Wish) -> UUID | None:
    return wish.selector.idempotency_id


async def _round(wishes: list[_Wish]) -> list[_Turn | Exception]:
    """One round of a group; each wish has its own ending."""
    try:
        turns = await _turns(wishes)
    except PurserError:
        raise
    except Exception as error:
        if len(wishes) == 1:
            raise
        _warn_of(error, len(wishes))
        return [_APART] * len(wishes)
    with span("publish", len(wishes)):
        _publish(turns)
    return turns


async def _turns(wishes: list[_Wish]) -> list[_Turn | Exception]:
    leaders, leader_of = _leaders(wishes)
    turns: list[_Turn | Exception | None] = [None] * len(leaders)
    with span("read", len(leaders)):
        known = await read([wish.selector for wish in leaders])
    with span("plan", len(leaders)):
        members = _planned(leaders, known, turns)
    with span("commit", len(members)):
        outcomes = await _committed([member for _, member in members])
    for (number, member), outcome in zip(members, outcomes, strict=True):
        turns[number] = _ended(member, outcome)
    return [
        _shared(turns[number], wish, leaders[number])
        for wish, number in zip(wishes, leader_of, strict=True)
    ]


def _leaders(wishes: list[_Wish]) -> tuple[list[_Wish], list[int]]:
    """One wish for each key, and for every wish the place of the one that runs for it."""
    leaders: list[_Wish] = []
    leader_of: list[int] = []
    places: dict[UUID, int] = {}
    for wish in wishes:
        key = _key(wish)
        place = len(leaders) if key is None else places.setdefault(key, len(leaders))
        if place == len(leaders):
            leaders.append(wish)
        leader_of.append(place)
    return leaders, leader_of


def _planned(
    wishes: list[_Wish], known: list[Known], turns: list[_Turn | Exception | None]
) -> list[tuple[int, Member]]:
    """The members to commit, by the places of their wishes; the other wishes get their turns."""
    members: list[tuple[int, Member]] = []
    waiting: list[tuple[int, Planning, risk.Question]] = []

    def note(number: int, member: Member | None) -> None:
        if member is None:
            turns[number] = _Turn()
        else:
            members.append((number, member))

    for number, (wish, read_for) in enumerate(zip(wishes, known, strict=True)):
        try:
            if read_for.stored is not None:
                turns[number] = _Turn(_stored(read_for, wish.input_hash))
                continue
            if wish.refused is not None:
                read_for = replace(read_for, refused=wish.refused)  # noqa: PLW2901
            planned = wish.plan(read_for)
            if isinstance(planned, GeneratorType):
                waiting.append((number, planned, next(planned)))
            else:
                note(number, planned)  # type: ignore[arg-type]
        except StopIteration as ended:
            note(number, ended.value)
        except Exception as error:  # noqa: BLE001  One member's fault is its own.
            turns[number] = error
    if waiting:
        with span("score", len(waiting)):
            found = risk.assess(
                [question.subject for _, _, question in waiting],
                [question.profiles for _, _, question in waiting],
            )
        for (number, planning, _), assessment in zip(waiting, found, strict=True):
            try:
                planning.send(assessment)
            except StopIteration as ended:
                note(number, ended.value)
            except Exception as error:  # noqa: BLE001
                turns[number] = error
            else:
                turns[number] = RuntimeError("a plan asks once")
    members.sort(key=lambda each: each[0])
    return members


async def _committed(members: list[Member]) -> Sequence[Outcome | Exception | None]:
    """Each member's outcome; None for the members of a group that was undone for one of them."""
    if not members:
        return []
    try:
        return await commit(members)
    except OutcomeUnknown as error:
        return [error] * len(members)
    except Exception as error:  # noqa: BLE001  Told to the member that caused it.
        if len(members) == 1:
            return [_waited_for_key(error)]
        _warn_of(error, len(members))
        return [None] * len(members)


def _warn_of(error: Exception, members_count: int) -> None:
    log.warning("a group of %d was undone: %s", members_count, type(error).__name__)


def _ended(member: Member, outcome: Outcome | Exception | None) -> _Turn | Exception:
    if outcome is None:
        return _APART
    if isinstance(outcome, Exception):
        return outcome
    match outcome.ending:
        case Ending.STALE:
            return _Turn(again=True)
        case Ending.KEY_REUSED:
            return IdempotencyKeyReused(field=("idempotencyKey",))
        case Ending.FORBIDDEN:
            return Forbidden()
        case Ending.STORED:
            assert outcome.result is not None
            return _Turn(answer_of(outcome.result, replay=True))
        case Ending.REFUSED:
            refused = _refusal(outcome)
            return _Turn(again=True, refused=refused) if member.answers_refusal else refused
        case Ending.DONE:
            done = member.done
            answer = Answer(order=done.order, operation=done.operation, refusal=done.refusal)
            return _Turn(answer, done)


def _shared(turn: _Turn | Exception | None, wish: _Wish, leader: _Wish) -> _Turn | Exception:
    """The turn of a wish; one that repeats another's key and input gets that one's answer.

    One with other input is told so only where the key was used: what is wrong in itself is not
    stored.
    """
    assert turn is not None
    if wish is leader:
        return turn
    same = wish.input_hash == leader.input_hash
    if isinstance(turn, _Turn) and turn.answer is not None:
        if same:
            return _Turn(replace(turn.answer, replay=True))
        return IdempotencyKeyReused(field=("idempotencyKey",))
    return turn if same and isinstance(turn, Exception) else _Turn(again=True)


def _publish(turns: Iterable[_Turn | Exception]) -> None:
    """Step 7 for all that was committed and changed an order."""
    done = [turn.done for turn in turns if isinstance(turn, _Turn) and turn.done is not None]
    notices.publish(
        [each.order for each in done if each.order is not None and each.writes_order],
        wakes=any(each.events or each.public_events for each in done),
    )


async def _alone(wish: _Wish) -> Answer | None:
    """The same round in one transaction that locks the order and the own profiles first."""
    selector = wish.selector
    async with phase(selector.principal):
        await statement(
            "SELECT lock_member($1, $2::text[])", selector.order_id, list(selector.profile_keys)
        )
        turn = (await _turns([wish]))[0]
        if isinstance(turn, Exception):
            raise turn
    _publish([turn])
    if not turn.again:
        return turn.answer
    if turn.refused is not None and wish.refused is None:
        return await _alone(replace(wish, refused=turn.refused))
    log.warning("a member that ran alone went stale")
    raise ServerBusy()


def _refusal(outcome: Outcome) -> PurserError:
    """What the books said; only a payer's own shortage tells what is available."""
    assert outcome.code is not None
    if outcome.code == InsufficientAvailable.code and outcome.available_minor is not None:
        return InsufficientAvailable(available_minor=max(outcome.available_minor, 0))
    return error_of(outcome.code)


def _stored(known: Known, input_hash: str | None) -> Answer:
    assert known.stored is not None
    stored_hash, result = known.stored
    if stored_hash != input_hash:
        raise IdempotencyKeyReused(field=("idempotencyKey",))
    return answer_of(result, replay=True)


def _waited_for_key(error: Exception) -> Exception:
    """A lock that was waited for in vain on the keys' index: the first request is still running."""
    context = str(getattr(error.__cause__, "context", "") or "")
    if isinstance(error, ServerBusy) and "idempotency" in context:
        return IdempotencyInProgress()
    return error


_groups: Grouping[_Wish, _Turn] = Grouping(_round, claims=_claims, fellow=_key)
_singles: Grouping[_Wish, _Turn] = Grouping(
    _round, claims=_claims, members_max=1, groups_max=APART_MAX
)
