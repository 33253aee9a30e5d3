"""Group commit on real PostgreSQL: each member has its own ending, whatever its neighbours do."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core import configuration, ids
from core import phase as phases
from core.errors import (
    IdempotencyKeyReused,
    InvalidArgument,
    LimitExceeded,
    OutcomeUnknown,
    ServerBusy,
)
from core.phase import in_phase, phase, statement
from core.principal import SYSTEM, Principal
from payments import pipeline, rounds, update
from payments.group import Effects, Ending, Member, Outcome, Selector, commit, read
from payments.idempotency import idempotency
from payments.pipeline import accept_operation
from payments.values import Answer, OpenOrder, Order
from risk_model import champion
from risk_model.scoring import Scorer
from tests.core.conftest import Proxy, postgres_behind, through
from tests.payments.conftest import CURRENCY, World
from tests.payments.crash_child import as_json, packed
from tests.payments.test_edge_cases_of_orders import codes, customers, order_id_of, paid
from tests.risk_model.conftest import FixedModel
from wallet import ledger, verify
from wallet.chart import AccountKind, AccountSpec, account
from wallet.ledger import Action, Entry, Hold, PostHold, VoidHold

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[list[Member]]:
    """The members of each commit."""
    seen: list[list[Member]] = []
    real = rounds.commit

    async def recorded(members: list[Member]) -> list[Outcome]:
        seen.append(members)
        return await real(members)

    monkeypatch.setattr(rounds, "commit", recorded)
    return seen


async def payers(world: World, count: int, amount_minor: int = 1_000) -> list[Principal]:
    """Customers who have just this amount."""
    return [Principal("customer", each) for each in await customers(world, count, amount_minor)]


async def requests_of(world: World, count: int, amount_minor: int = 1_000) -> list[OpenOrder]:
    """A payment by each of so many payers, who all can pay it."""
    return [
        world.paying(amount_minor, caller=payer)
        for payer in await payers(world, count, amount_minor)
    ]


async def together(requests: list[OpenOrder]) -> list[Answer | BaseException]:
    async with asyncio.timeout(30):
        return await asyncio.gather(*map(accept_operation, requests), return_exceptions=True)


async def charges(world: World) -> Counter[str]:
    """How many journal entries each order number has; a number without one is not here."""
    rows = await world.database.fetch(
        """SELECT o.merchant_order_no, count(e.entry_id) FROM payment_order o
        JOIN entry e USING (order_id) GROUP BY o.order_id"""
    )
    return Counter(dict(map(tuple, rows)))


async def assert_each_charged_once(world: World, requests: list[OpenOrder]) -> None:
    assert await charges(world) == {request.merchant_order_no: 1 for request in requests}
    await world.assert_books()


# One key, many calls.


async def test_200_equal_requests_are_one_payment_and_one_answer(world: World) -> None:
    await world.fund(10_000)
    request = world.paying(3_000)
    answers = await together([request] * 200)
    assert all(isinstance(each, Answer) for each in answers)
    assert len({order_id_of(each) for each in answers}) == 1  # type: ignore[arg-type]
    assert Counter(each.replay for each in answers) == {False: 1, True: 199}  # type: ignore[union-attr]
    assert await world.wallet() == 7_000
    await assert_each_charged_once(world, [request])


async def test_among_equal_requests_one_with_another_body_is_told_so(world: World) -> None:
    await world.fund(10_000)
    request = world.paying(3_000, idempotency_key="one-and-the-same")
    other = world.paying(2_000, idempotency_key="one-and-the-same")
    requests = [*[request] * 20, other, *[request] * 20]
    answers = await together(requests)
    assert isinstance(answers.pop(20), IdempotencyKeyReused)
    assert Counter(each.replay for each in answers) == {False: 1, True: 39}  # type: ignore[union-attr]
    assert await world.wallet() == 7_000
    await assert_each_charged_once(world, [request])


async def test_a_key_whose_first_request_was_not_kept_is_free_for_its_neighbour(
    world: World,
) -> None:
    """Input that is wrong in itself is not stored: the key was not used by it."""
    await world.fund(10_000)
    wrong = world.paying(99_000_000, idempotency_key="one-and-the-same")
    right = world.paying(3_000, idempotency_key="one-and-the-same")
    first, second, third = await together([wrong, right, wrong])
    assert isinstance(first, LimitExceeded)
    assert isinstance(second, Answer)
    assert isinstance(third, LimitExceeded | IdempotencyKeyReused)
    await assert_each_charged_once(world, [right])


async def test_equal_requests_that_are_refused_share_the_refusal(world: World) -> None:
    request = world.paying(3_000)
    answers = await together([request] * 20)
    assert codes(answers) == {"INSUFFICIENT_AVAILABLE": 20}  # type: ignore[arg-type]
    assert len({order_id_of(each) for each in answers}) == 1  # type: ignore[arg-type]
    rows = await world.database.fetch("SELECT state FROM payment_order")
    assert [row["state"] for row in rows] == ["FAILED"]


async def test_one_key_in_two_processes_at_once_is_one_payment(world: World) -> None:
    """20 keys, each asked for five times here and five times there; some with another body."""
    requests = await requests_of(world, 20)
    others = [
        world.paying(999, caller=each.caller, idempotency_key=each.idempotency_key)
        for each in requests[:5]
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.payments.paying_child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    task = {
        "configuration": packed(configuration.current()),
        "requests": [as_json(each) for each in requests * 5],
    }
    process.stdin.write(json.dumps(task).encode() + b"\n")
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"go\n")
    here = await together([*requests * 5, *others])
    there = json.loads((await process.communicate())[0])
    assert process.returncode == 0
    reused = [each for each in here if isinstance(each, IdempotencyKeyReused)]
    assert here[-5:] == reused
    answered = here[:-5]
    for number in range(20):
        mine = answered[number::20]
        told = {str(order_id_of(each)) for each in mine}  # type: ignore[arg-type]
        assert told | {each for each, _ in there[number::20]} == told
        assert len(told) == 1
        first_count = sum(not each.replay for each in mine)  # type: ignore[union-attr]
        assert first_count + sum(not replay for _, replay in there[number::20]) == 1
    await assert_each_charged_once(world, requests)


# One that spoils.


async def test_a_member_that_breaks_a_constraint_spoils_none_of_its_neighbours(
    world: World, commits: list[list[Member]], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = await requests_of(world, 16)
    bad = requests[5]
    real = pipeline.generate_order

    def generate_order(request: OpenOrder, *rest: Any) -> Member:
        member = real(request, *rest)
        if request is not bad:
            return member
        operation = member.done.operations[0]
        broken = replace(operation, amount_minor=-1)
        return replace(member, done=replace(member.done, operations=(broken,)))

    monkeypatch.setattr(pipeline, "generate_order", generate_order)
    answers = await together(requests)
    assert len(commits[0]) == 16
    assert isinstance(answers.pop(5), asyncpg.CheckViolationError)
    assert codes(answers) == {"": 15}  # type: ignore[arg-type]
    assert not any(each.replay for each in answers)  # type: ignore[union-attr]
    kept = await world.database.fetch(
        "SELECT FROM idempotency WHERE principal = $1", str(bad.caller)
    )
    assert kept == []
    monkeypatch.setattr(pipeline, "generate_order", real)
    await accept_operation(bad)
    await assert_each_charged_once(world, requests)


async def test_a_plan_that_fails_fails_alone(
    world: World, commits: list[list[Member]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it asks for its score and after it was told."""
    requests = await requests_of(world, 8)
    before, after = requests[2], requests[6]
    validate, generate = pipeline.validate_parameters, pipeline.generate_order

    def validate_parameters(request: OpenOrder, *rest: Any) -> Any:
        if request is before:
            raise InvalidArgument("Not this one.")
        return validate(request, *rest)

    def generate_order(request: OpenOrder, *rest: Any) -> Member:
        if request is after:
            raise ZeroDivisionError
        return generate(request, *rest)

    monkeypatch.setattr(pipeline, "validate_parameters", validate_parameters)
    monkeypatch.setattr(pipeline, "generate_order", generate_order)
    answers = await together(requests)
    assert isinstance(answers.pop(6), ZeroDivisionError)
    assert isinstance(answers.pop(2), InvalidArgument)
    assert codes(answers) == {"": 6}  # type: ignore[arg-type]
    assert [len(members) for members in commits] == [6]


@pytest.mark.parametrize("name", ["merchant_order_no", "idempotency_key", "description"])
async def test_input_that_postgresql_cannot_keep_spoils_none_of_its_neighbours(
    world: World, name: str
) -> None:
    requests = await requests_of(world, 4)
    requests[1] = replace(requests[1], **{name: "a\x00b-and-more"})
    answers = await together(requests)
    assert isinstance(answers.pop(1), Exception)
    assert codes(answers) == {"": 3}  # type: ignore[arg-type]


async def test_each_ending_in_one_group_is_its_members_own(
    world: World, verdict: Callable[[str], None]
) -> None:
    requests = await requests_of(world, 4)
    taken = await world.pay(1_000, caller=requests[0].caller, merchant_order_no="TAKEN")
    assert taken.order is not None
    await world.fund(1_000, requests[0].caller.id)  # type: ignore[arg-type]
    poor = world.paying(5_000, caller=requests[1].caller)
    again = world.paying(1_000, caller=requests[0].caller, merchant_order_no="TAKEN")
    stranger = world.paying(1_000, caller=Principal("customer", ids.new_id()))
    answers = await together([poor, again, stranger, *requests[2:]])
    assert [each.refusal.code for each in answers[:2]] == [  # type: ignore[union-attr]
        "INSUFFICIENT_AVAILABLE",
        "ALREADY_PAID",
    ]
    assert type(answers[2]).__name__ == "Forbidden"
    assert codes(answers[3:]) == {"": 2}  # type: ignore[arg-type]
    await world.assert_books()


# Locks of others.


def wallet_of(request: OpenOrder) -> uuid.UUID:
    assert isinstance(request.caller.id, uuid.UUID)
    return account(AccountKind.CUSTOMER_WALLET, request.caller.id, CURRENCY).account_id


@pytest.fixture
async def stranger(world: World) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else's connection, with a transaction open."""
    connection = await asyncpg.connect(world.database.owner_url)
    await connection.execute("BEGIN")
    yield connection
    await connection.close()


LOCK = "SELECT FROM account WHERE account_id = $1 FOR UPDATE"


async def test_a_member_that_waits_for_a_lock_delays_its_neighbours_less_than_a_second(
    world: World, stranger: asyncpg.Connection
) -> None:
    await paid(world, 1_000)
    requests = await requests_of(world, 12)
    await stranger.execute(LOCK, wallet_of(requests[4]))
    started = time.monotonic()
    tasks = [asyncio.create_task(accept_operation(request)) for request in requests]
    neighbours = [task for number, task in enumerate(tasks) if number != 4]
    answers = await asyncio.gather(*neighbours)
    took = time.monotonic() - started
    assert codes(answers) == {"": 11}
    assert not tasks[4].done()
    later = await world.pay(1, caller=world.payer)
    assert later.refusal is not None
    assert took < 1.0
    await stranger.execute("ROLLBACK")
    assert codes([await tasks[4]]) == {"": 1}
    await world.assert_books()


async def test_a_member_whose_lock_never_comes_is_busy_and_nothing_of_it_is_kept(
    world: World, stranger: asyncpg.Connection
) -> None:
    requests = await requests_of(world, 6)
    blocked = requests.pop(2)
    await stranger.execute(LOCK, wallet_of(blocked))
    started = time.monotonic()
    answers = await together([*requests, blocked])
    assert time.monotonic() - started < 5.0
    assert isinstance(answers.pop(), ServerBusy)
    assert codes(answers) == {"": 5}  # type: ignore[arg-type]
    await stranger.execute("ROLLBACK")
    assert blocked.merchant_order_no not in await charges(world)
    answer = await accept_operation(blocked)
    assert not answer.replay
    await assert_each_charged_once(world, [*requests, blocked])


async def test_payments_that_come_while_a_group_is_held_up_pass_it(
    world: World, stranger: asyncpg.Connection
) -> None:
    await paid(world, 1_000)
    slow, *others = await requests_of(world, 9)
    await stranger.execute(LOCK, wallet_of(slow))
    first = asyncio.create_task(accept_operation(slow))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    assert codes(await together(others)) == {"": 8}  # type: ignore[arg-type]
    assert time.monotonic() - started < 1.0
    assert not first.done()
    await stranger.execute("ROLLBACK")
    assert codes([await first]) == {"": 1}


# Lost connections.


@pytest.fixture
async def by_proxy(world: World) -> AsyncIterator[Proxy]:
    """The pool of the test, connected again by way of a network that can be cut."""
    proxy = postgres_behind(world.database.url)
    await proxy.start()
    await phases.close()
    url = through(proxy, world.database.url)
    await phases.connect(url, pool_size=6, application_name="test")
    yield proxy
    await proxy.stop()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_group_whose_connection_was_lost_is_known_after_a_look_up(
    world: World, by_proxy: Proxy, commits: list[list[Member]], arrived: bool
) -> None:
    requests = await requests_of(world, 24)
    by_proxy.cut_at = requests[7].idempotency_key.encode()
    by_proxy.after_reply = arrived
    answers = await together(requests)
    assert by_proxy.cuts_count == 1
    assert len(commits[0]) == 24
    assert codes(answers) == {"": 24}  # type: ignore[arg-type]
    assert {each.replay for each in answers} == {arrived}  # type: ignore[union-attr]
    await assert_each_charged_once(world, requests)


@pytest.mark.parametrize("arrived", [True, False])
async def test_where_nobody_can_be_asked_every_member_is_unknown_and_none_is_busy(
    world: World, by_proxy: Proxy, arrived: bool
) -> None:
    requests = await requests_of(world, 8)
    by_proxy.cut_at = requests[7].idempotency_key.encode()
    by_proxy.after_reply, by_proxy.stays_away = arrived, True
    answers = await together(requests)
    assert {type(each) for each in answers} == {OutcomeUnknown}
    by_proxy.stays_away = False
    await asyncio.sleep(0.1)
    again = await together(requests)
    assert {each.replay for each in again} == {arrived}  # type: ignore[union-attr]
    await assert_each_charged_once(world, requests)


async def test_a_backend_that_is_killed_in_the_middle_of_a_commit_charges_each_once(
    world: World, stranger: asyncpg.Connection
) -> None:
    """The statement stands at a lock, with half of its rows written."""
    requests = await requests_of(world, 12)
    await stranger.execute(LOCK, wallet_of(requests[11]))
    calls = asyncio.create_task(together(requests))
    killed: list[Any] = []
    async with asyncio.timeout(5):
        while not killed:
            killed = await world.database.fetch(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'test' AND wait_event_type = 'Lock'
                AND query LIKE '%commit_group%' AND datname = current_database()"""
            )
    await stranger.execute("ROLLBACK")
    answers = await calls
    assert codes(answers) == {"": 12}  # type: ignore[arg-type]
    await assert_each_charged_once(world, requests)


async def test_backends_killed_all_the_time_never_charge_twice(world: World) -> None:
    requests = await requests_of(world, 60)
    ended = asyncio.Event()

    async def kill() -> int:
        count = 0
        while not ended.is_set():
            found = await world.database.fetch(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'test' AND state = 'active'
                AND datname = current_database() AND pid <> pg_backend_pid()"""
            )
            count += len(found)
            await asyncio.sleep(0.005)
        return count

    async def insist(request: OpenOrder) -> Answer:
        while True:
            try:
                return await accept_operation(request)
            except (ServerBusy, OutcomeUnknown):
                await asyncio.sleep(0.05)

    killing = asyncio.create_task(kill())
    calls = []
    for request in requests:
        calls.append(asyncio.create_task(insist(request)))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    ended.set()
    assert await killing > 0
    async with asyncio.timeout(20):
        assert codes(await asyncio.gather(*calls)) == {"": 60}
    await assert_each_charged_once(world, requests)


# Scores and profiles.


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FixedModel:
    """A model that serves, and counts how often it is called."""
    fixed = FixedModel()
    monkeypatch.setattr(champion, "current", lambda: Scorer(fixed, budget_ms=1_000))
    return fixed


async def test_a_group_is_scored_by_one_call_of_the_model(
    world: World, model: FixedModel, commits: list[list[Member]]
) -> None:
    requests = await requests_of(world, 64)
    answers = await together(requests)
    assert codes(answers) == {"": 64}  # type: ignore[arg-type]
    assert [len(members) for members in commits] == [64]
    assert model.calls_count == 1
    rows = await world.database.fetch("SELECT source, count(*) FROM decision GROUP BY source")
    assert list(map(tuple, rows)) == [("MODEL", 64)]


async def test_two_payments_of_one_payer_are_never_in_one_group(
    world: World, commits: list[list[Member]]
) -> None:
    """Each is judged by a profile that knows the one before it; nobody else waits for them."""
    await world.fund(10_000)
    others = await requests_of(world, 5)
    mine = [world.paying(1_000) for _ in range(3)]
    answers = await together([mine[0], mine[1], *others, mine[2]])
    assert codes(answers) == {"": 8}  # type: ignore[arg-type]
    assert [len(members) for members in commits] == [6, 1, 1]
    rows = await world.database.fetch(
        "SELECT profile_versions ->> $2 AS seen FROM decision WHERE customer_id = $1 ORDER BY 1",
        world.payer_id,
        f"customer:{world.payer_id}",
    )
    assert [row["seen"] for row in rows] == ["0", "1", "2"]


async def test_a_member_that_went_stale_three_times_runs_alone_and_is_overtaken_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await paid(world, 1_000)
    neighbours = [await paid(world, 1_000) for _ in range(2)]
    overtaking = "UPDATE payment_order SET version = version + 1 WHERE order_id = $1"
    real, sizes, late = rounds.commit, [], []

    async def commit_overtaken(members: list[Member]) -> list[Outcome]:
        sizes.append((len(members), in_phase()))
        if in_phase():
            late.append(asyncio.create_task(world.database.fetch(overtaking, order_id)))
            await asyncio.sleep(0.2)
            assert not late[0].done()
        elif any(member.order_id == order_id for member in members):
            await world.database.fetch(overtaking, order_id)
        return await real(members)

    monkeypatch.setattr(rounds, "commit", commit_overtaken)
    answers = await asyncio.gather(*(world.refund(each, 500) for each in (order_id, *neighbours)))
    assert codes(answers) == {"": 3}
    assert sizes == [(3, False), (1, False), (1, False), (1, True)]
    await late[0]
    refunded = await world.database.fetch("SELECT refunded_minor FROM payment_order")
    assert [row["refunded_minor"] for row in refunded] == [500] * 3
    await world.assert_books()


async def test_a_payer_who_is_overtaken_three_times_pays_alone_on_a_locked_profile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.fund(10_000)
    await world.pay(1)
    key = f"customer:{world.payer_id}"
    overtaking = "UPDATE risk_profile SET version = version + 1 WHERE key = $1"
    real, alone = rounds.commit, []

    async def commit_overtaken(members: list[Member]) -> list[Outcome]:
        alone.append(in_phase())
        if not in_phase():
            await world.database.fetch(overtaking, key)
        return await real(members)

    monkeypatch.setattr(rounds, "commit", commit_overtaken)
    assert codes([await world.pay(1_000)]) == {"": 1}
    assert alone == [False, False, False, True]
    assert await world.wallet() == 8_999


async def test_past_its_deadline_a_stale_member_is_told_that_nothing_happened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.fund(10_000)
    real, rounds_seen = rounds.commit, []

    async def commit_overtaken(members: list[Member]) -> list[Outcome]:
        rounds_seen.append(len(members))
        await world.database.fetch(
            "INSERT INTO risk_profile (key, customer_id, version, state)"
            " VALUES ($1, $2, 1, '{}') ON CONFLICT (key) DO UPDATE"
            " SET version = risk_profile.version + 1",
            f"customer:{world.payer_id}",
            world.payer_id,
        )
        return await real(members)

    monkeypatch.setattr(rounds, "commit", commit_overtaken)
    monkeypatch.setattr(rounds, "DEADLINE_MS", 0.0)
    with pytest.raises(ServerBusy):
        await world.pay(1_000)
    assert rounds_seen == [1]
    assert await world.wallet() == 10_000
    assert await world.database.fetch("SELECT FROM idempotency") == []


# Holds in members of a group.


class Holding:
    """Members that follow on paid orders and move what is held on their payers' wallets."""

    def __init__(self, world: World, orders: list[Order]) -> None:
        self.world, self.orders = world, orders
        self.holds = [ids.new_id() for _ in orders]
        self.again = [ids.new_id() for _ in orders]

    def wallet(self, number: int) -> AccountSpec:
        payer = self.orders[number].payer_customer_id
        assert payer is not None
        return account(AccountKind.CUSTOMER_WALLET, payer, CURRENCY)

    @property
    def pending(self) -> AccountSpec:
        return account(AccountKind.MERCHANT_PENDING, self.world.shop_id, CURRENCY)

    async def commit(self, actions: Callable[[int], tuple[Action, ...]]) -> list[Outcome]:
        """One group with a member for each order, whose entry does these actions."""
        members = []
        for number, order in enumerate(self.orders):
            assert order.payer_customer_id is not None
            payer = Principal("customer", order.payer_customer_id)
            known = (await read([Selector(principal=payer, order_id=order.order_id)]))[0]
            assert known.order is not None
            entry = Entry(entry_id=ids.new_id(), kind="HOLDING", actions=actions(number))
            key = idempotency(payer, "HOLDING", ids.random_token(8), {})
            members.append(
                Member(
                    principal=payer,
                    order_id=order.order_id,
                    expected_version=known.order.version,
                    idempotency=key,
                    done=Effects(order=update.next_version(known.order, known.now), entry=entry),
                )
            )
        return await commit(members)

    async def wallets(self) -> list[int]:
        return [
            await self.world.wallet(self.orders[number].payer_customer_id)
            for number in range(len(self.orders))
        ]

    async def states(self, holds: list[uuid.UUID]) -> list[tuple[str, int]]:
        rows = await self.world.database.fetch(
            """SELECT state, posted_minor FROM unnest($1::uuid[]) WITH ORDINALITY AS w (hold_id, n)
            JOIN hold USING (hold_id) ORDER BY n""",
            holds,
        )
        return [tuple(row) for row in rows]


async def test_a_hold_is_made_posted_in_part_held_again_and_voided_by_the_group_function(
    world: World,
) -> None:
    answers = await together(await requests_of(world, 8))
    orders = [each.order for each in answers if isinstance(each, Answer) and each.order]
    for order in orders:
        await world.fund(1_000, order.payer_customer_id)
    here = Holding(world, orders)
    endings = [
        each.ending
        for each in await here.commit(
            lambda n: (Hold(here.holds[n], here.wallet(n), here.pending, 1_000),)
        )
    ]
    assert endings == [Ending.DONE] * 8
    assert await here.wallets() == [0] * 8

    def posted_in_part_and_held_again(n: int) -> tuple[Action, ...]:
        """The third one wants more than there is; its neighbours notice nothing."""
        rest = 801 if n == 2 else 800
        post = PostHold(here.holds[n], ((here.pending, 200),))
        return post, Hold(here.again[n], here.wallet(n), here.pending, rest)

    outcomes = await here.commit(posted_in_part_and_held_again)
    assert [each.ending for each in outcomes] == [
        Ending.REFUSED if n == 2 else Ending.DONE for n in range(8)
    ]
    assert (outcomes[2].code, outcomes[2].available_minor) == ("INSUFFICIENT_AVAILABLE", 0)
    assert await here.wallets() == [0] * 8
    expected = [("PENDING", 0) if n == 2 else ("POSTED", 200) for n in range(8)]
    assert await here.states(here.holds) == expected

    outcomes = await here.commit(lambda n: (VoidHold(here.again[n]),))
    assert [each.ending for each in outcomes] == [
        Ending.FORBIDDEN if n == 2 else Ending.DONE for n in range(8)
    ]
    assert await here.wallets() == [0 if n == 2 else 800 for n in range(8)]
    assert set(await here.states([each for n, each in enumerate(here.again) if n != 2])) == {
        ("VOIDED", 0)
    }
    keys = await world.database.fetch("SELECT FROM idempotency WHERE operation = 'HOLDING'")
    assert len(keys) == 8 + 7 + 7
    versions = await world.database.fetch("SELECT version FROM payment_order ORDER BY version")
    assert [row["version"] for row in versions] == [orders[0].version + 1] + [
        orders[0].version + 3
    ] * 7
    await ledger.roll_up()
    assert (await verify.verify()).findings == ()


async def test_a_hold_of_another_payer_is_not_taken_by_a_member_of_a_group(world: World) -> None:
    answers = await together(await requests_of(world, 2))
    mine, other = [each.order for each in answers if isinstance(each, Answer) and each.order]
    await world.fund(1_000, other.payer_customer_id)
    theirs = Holding(world, [other])
    await theirs.commit(lambda n: (Hold(theirs.holds[n], theirs.wallet(n), theirs.pending, 600),))
    here = Holding(world, [mine])
    for action in (VoidHold(theirs.holds[0]), PostHold(theirs.holds[0], ((here.pending, 600),))):
        assert [each.ending for each in await here.commit(lambda _, a=action: (a,))] == [  # type: ignore[misc]
            Ending.FORBIDDEN
        ]
    assert await theirs.states(theirs.holds) == [("PENDING", 0)]
    assert await statement("SELECT 1") != []


async def test_a_number_is_looked_up_by_number_however_many_orders_its_merchant_has(
    world: World,
) -> None:
    """The plan of `read_group` is made on empty tables and kept: it must be right later too."""
    await world.fund(1_000)
    selectors = [
        Selector(principal=world.payer, merchant_id=world.shop_id, merchant_order_no=f"new {n}")
        for n in range(64)
    ]
    async with phase(SYSTEM):
        for _ in range(7):
            await read(selectors)
        paid = await world.pay(10)
        await world.database.fetch(
            """INSERT INTO payment_order
            SELECT (jsonb_populate_record(o, jsonb_build_object(
                'order_id', gen_random_uuid(), 'merchant_order_no', 'N' || n))).*
            FROM payment_order o, generate_series(1, 2000) AS n WHERE o.order_id = $1""",
            paid.order.order_id,  # type: ignore[union-attr]
        )
        before = await _orders_fetched()
        await read(selectors)
        assert await _orders_fetched() - before <= 1


async def _orders_fetched() -> int:
    rows = await statement(
        "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'payment_order'"
    )
    return int(rows[0][0])
