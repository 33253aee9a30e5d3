"""The ledger against a small one in memory: any program of entries ends the same in both."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wallet.books import BANK, Books, Customer, Merchant, entry
from wallet import ledger
from wallet.chart import CHART, AccountSpec
from wallet.ledger import Hold, Post, PostHold, VoidHold

WALLETS, SHOPS, HOLDS = 3, 2, 4


@dataclass
class Model:
    """Balances by account, and holds by id: debit account, amount, whether still pending."""

    posted: dict[AccountSpec, int] = field(default_factory=lambda: defaultdict(int))
    pending: dict[AccountSpec, int] = field(default_factory=lambda: defaultdict(int))
    holds: dict[uuid.UUID, tuple[AccountSpec, int, bool]] = field(default_factory=dict)

    def available(self, spec: AccountSpec) -> int:
        outflow_minor = self.pending[spec] if CHART[spec.kind].normal_side == "credit" else 0
        return self.posted[spec] - outflow_minor

    def judge(self, actions) -> str:
        after = Model(self.posted.copy(), self.pending.copy(), self.holds.copy())
        for action in actions:
            if (code := after._apply(action)) is not None:
                return code
        for spec in after.posted.keys() | after.pending.keys():
            floor = min(0, self.available(spec))
            if CHART[spec.kind].has_floor and after.available(spec) < floor:
                return "INSUFFICIENT_AVAILABLE"
        self.posted, self.pending, self.holds = after.posted, after.pending, after.holds
        return "POSTED"

    def _apply(self, action) -> str | None:
        match action:
            case Post(debit, credit, amount_minor):
                self._move(debit, credit, amount_minor)
            case Hold(hold_id, debit, _, amount_minor, _):
                self.holds[hold_id] = (debit, amount_minor, True)
                self.pending[debit] += amount_minor
            case PostHold(hold_id, credits):
                debit, held_minor, is_pending = self.holds.get(hold_id, (BANK, 0, False))
                if not is_pending:
                    return "HOLD_NOT_PENDING"
                if sum(amount_minor for _, amount_minor in credits) > held_minor:
                    return "HOLD_EXCEEDED"
                self._resolve(hold_id)
                for credit, amount_minor in credits:
                    self._move(debit, credit, amount_minor)
            case VoidHold(hold_id):
                if not self.holds.get(hold_id, (BANK, 0, False))[2]:
                    return "HOLD_NOT_PENDING"
                self._resolve(hold_id)
        return None

    def _move(self, debit, credit, amount_minor):
        self.posted[debit] += amount_minor * (1 if CHART[debit.kind].normal_side == "debit" else -1)
        self.posted[credit] += amount_minor * (
            1 if CHART[credit.kind].normal_side == "credit" else -1
        )

    def _resolve(self, hold_id):
        debit, held_minor, _ = self.holds[hold_id]
        self.holds[hold_id] = (debit, held_minor, False)
        self.pending[debit] -= held_minor


amounts = st.integers(1, 60)
places = st.integers(0, WALLETS + 3 * SHOPS)
moves = st.tuples(st.just("post"), places, places, amounts)
makes = st.tuples(st.just("hold"), places, places, amounts)
takes = st.tuples(st.just("take"), st.integers(0, HOLDS), places, amounts, amounts)
voids = st.tuples(st.just("void"), st.integers(0, HOLDS))
programs = st.lists(
    st.one_of(
        st.just("roll up"),
        st.lists(
            st.lists(st.one_of(moves, moves, makes, takes, voids), min_size=1, max_size=3),
            max_size=5,
        ),
    ),
    max_size=8,
)


@given(programs)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_program_of_entries_has_the_same_outcome_as_in_the_model(books: Books, program):
    shops = [Merchant() for _ in range(SHOPS)]
    accounts = [BANK, *(Customer().wallet for _ in range(WALLETS))]
    accounts += [spec for shop in shops for spec in (shop.pending, shop.fees, shop.available)]
    model, hold_ids = Model(), [uuid.uuid4()]
    [bank_before] = await books.available(BANK)
    model.posted[BANK] = bank_before
    funding = [Post(BANK, spec, 100) for spec in accounts[1:]]
    assert model.judge(funding) == "POSTED"
    await books.book(*funding)

    def action_of(step):
        match step:
            case ("post", debit, credit, amount_minor) if debit != credit:
                return Post(accounts[debit], accounts[credit], amount_minor)
            case ("hold", debit, credit, amount_minor) if debit != credit:
                hold_ids.append(uuid.uuid4())
                return Hold(hold_ids[-1], accounts[debit], accounts[credit], amount_minor)
            case ("take", number, credit, first_minor, second_minor):
                hold_id = hold_ids[-1 - number % len(hold_ids)]
                debit = model.holds.get(hold_id, (None,))[0]
                takers = [
                    spec for spec in (accounts[credit], accounts[credit - 1]) if spec != debit
                ]
                parts = zip(takers, (first_minor, second_minor), strict=False)
                return PostHold(hold_id, tuple(parts))
            case ("void", number):
                return VoidHold(hold_ids[-1 - number % len(hold_ids)])
        return Post(accounts[1], accounts[2], 1)

    for call in program:
        if call == "roll up":
            await ledger.roll_up(3)
            continue
        entries = []
        expected = []
        for steps in call:
            actions = [action_of(step) for step in steps]
            made = [action.hold_id for action in actions if isinstance(action, Hold)]
            own = [a for a in actions if not (isinstance(a, PostHold) and a.hold_id in made)]
            entries.append(entry(*(own or [Post(accounts[1], accounts[2], 1)])))
            expected.append(model.judge(entries[-1].actions))
        outcomes = [each.code or each.outcome for each in await books.post(*entries)]
        assert outcomes == expected
        assert await books.available(*accounts) == [model.available(spec) for spec in accounts]
    while await ledger.roll_up():
        pass
    await ledger.seal()
    assert await books.available(*accounts) == [model.available(spec) for spec in accounts]
    await books.assert_proven()
