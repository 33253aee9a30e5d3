"""Holds: made once, resolved once, on the database's clock."""

from __future__ import annotations

import datetime as dt
import uuid

from core.principal import SYSTEM
from tests.wallet.books import Customer, Merchant, entry, posting_call
from wallet import ledger
from wallet.ledger import ExpireHold, Hold, Post, PostHold, VoidHold


async def held(books, amount_minor=50, funds_minor=100, **terms):
    """A payer with a hold for a merchant."""
    payer, merchant, hold_id = await books.funded_customer(funds_minor), Merchant(), uuid.uuid4()
    await books.book(Hold(hold_id, payer.wallet, merchant.pending, amount_minor, **terms))
    return payer, merchant, hold_id


async def state_of(books, hold_id):
    [row] = await books.database.fetch(
        "SELECT state, posted_minor FROM hold WHERE hold_id = $1", hold_id
    )
    return tuple(row)


async def in_the_past(books):
    [row] = await books.database.fetch("SELECT purser_now() - interval '1 second'")
    return row[0]


async def test_what_is_held_cannot_be_spent(books):
    payer, merchant, _ = await held(books, amount_minor=100)
    assert await books.refused(Post(payer.wallet, merchant.pending, 1)) == "INSUFFICIENT_AVAILABLE"
    assert await books.available(payer.wallet, merchant.pending) == [0, 0]
    await books.assert_proven()


async def test_a_hold_larger_than_what_is_available_is_refused(books):
    payer, merchant, _ = await held(books, amount_minor=60)
    code = await books.refused(Hold(uuid.uuid4(), payer.wallet, merchant.pending, 41))
    assert code == "INSUFFICIENT_AVAILABLE"


async def test_posting_less_releases_the_rest(books):
    payer, merchant, hold_id = await held(books, amount_minor=50)
    await books.book(PostHold(hold_id, ((merchant.pending, 29), (merchant.fees, 1))))
    assert await books.available(payer.wallet, merchant.pending, merchant.fees) == [70, 29, 1]
    assert await state_of(books, hold_id) == ("POSTED", 30)
    await books.assert_proven()


async def test_posting_more_than_is_held_is_refused(books):
    payer, merchant, hold_id = await held(books, amount_minor=50)
    code = await books.refused(PostHold(hold_id, ((merchant.pending, 50), (merchant.fees, 1))))
    assert code == "HOLD_EXCEEDED"
    assert await state_of(books, hold_id) == ("PENDING", 0)
    assert await books.available(payer.wallet) == [50]
    await books.assert_proven()


async def test_a_resolved_hold_is_never_resolved_again(books):
    _, merchant, posted_id = await held(books)
    await books.book(PostHold(posted_id, ((merchant.pending, 50),)))
    _, other, voided_id = await held(books)
    await books.book(VoidHold(voided_id))
    for hold_id, credit in ((posted_id, merchant.pending), (voided_id, other.pending)):
        assert await books.refused(PostHold(hold_id, ((credit, 1),))) == "HOLD_NOT_PENDING"
        assert await books.refused(VoidHold(hold_id)) == "HOLD_NOT_PENDING"
    assert await books.refused(VoidHold(uuid.uuid4())) == "HOLD_NOT_PENDING"
    await books.assert_proven()


async def test_a_void_gives_back_all(books):
    payer, _, hold_id = await held(books)
    await books.book(VoidHold(hold_id))
    assert await books.available(payer.wallet) == [100]
    assert await state_of(books, hold_id) == ("VOIDED", 0)
    await books.assert_proven()


async def test_an_expired_hold_cannot_be_posted_even_before_it_is_swept(books):
    payer, merchant, hold_id = await held(books, expires_at=await in_the_past(books))
    assert await books.refused(PostHold(hold_id, ((merchant.pending, 1),))) == "HOLD_EXPIRED"
    assert await books.available(payer.wallet) == [50]
    await books.book(VoidHold(hold_id))
    assert await books.available(payer.wallet) == [100]


async def test_the_sweep_expires_what_is_due_and_nothing_else(books):
    past = await in_the_past(books)
    payer, _, due_id = await held(books, expires_at=past)
    _, _, later_id = await held(books, expires_at=past + dt.timedelta(hours=1))
    _, _, open_id = await held(books)
    assert await ledger.hold_expiry_sweep() == (due_id,)
    assert await ledger.hold_expiry_sweep() == ()
    assert await state_of(books, due_id) == ("EXPIRED", 0)
    assert await state_of(books, later_id) == ("PENDING", 0)
    assert await state_of(books, open_id) == ("PENDING", 0)
    assert await books.available(payer.wallet) == [100]
    assert await books.refused(ExpireHold(later_id)) == "INVALID_ARGUMENT"
    await books.assert_proven()


async def test_a_frozen_account_may_be_voided_but_not_posted(books):
    payer, merchant, hold_id = await held(books)
    await ledger.set_account_terms(SYSTEM, payer.wallet.account_id, frozen=True)
    assert await books.refused(PostHold(hold_id, ((merchant.pending, 50),))) == "ACCOUNT_FROZEN"
    await books.book(VoidHold(hold_id))
    await books.assert_proven()


async def test_a_partial_capture_keeps_the_rest_held_at_every_instant(books):
    payer, merchant, hold_id = await held(books, amount_minor=100)
    rest_id = uuid.uuid4()
    await books.book(
        PostHold(hold_id, ((merchant.pending, 40),)),
        Hold(rest_id, payer.wallet, merchant.pending, 60),
    )
    assert await books.available(payer.wallet) == [0]
    await books.book(VoidHold(rest_id))
    assert await books.available(payer.wallet, merchant.pending) == [60, 40]
    await books.assert_proven()


async def test_one_call_may_make_a_hold_and_resolve_it(books):
    payer, merchant, hold_id = await books.funded_customer(50), Merchant(), uuid.uuid4()
    outcomes = await books.post(
        entry(VoidHold(hold_id)),
        entry(Hold(hold_id, payer.wallet, merchant.pending, 50)),
        entry(PostHold(hold_id, ((merchant.pending, 51),))),
        entry(PostHold(hold_id, ((merchant.pending, 20),))),
        entry(VoidHold(hold_id)),
        entry(Post(payer.wallet, merchant.pending, 30)),
    )
    assert [each.code or each.outcome for each in outcomes] == [
        "HOLD_NOT_PENDING",
        "POSTED",
        "HOLD_EXCEEDED",
        "POSTED",
        "HOLD_NOT_PENDING",
        "POSTED",
    ]
    assert await books.available(payer.wallet, merchant.pending) == [0, 50]
    await books.assert_proven()


async def test_a_hold_made_by_a_refused_entry_does_not_exist(books):
    payer, merchant, hold_id = await books.funded_customer(50), Merchant(), uuid.uuid4()
    outcomes = await books.post(
        entry(Hold(hold_id, payer.wallet, merchant.pending, 51)),
        entry(PostHold(hold_id, ((merchant.pending, 1),))),
    )
    assert [each.code for each in outcomes] == ["INSUFFICIENT_AVAILABLE", "HOLD_NOT_PENDING"]
    assert await books.count("hold") == 0
    await books.assert_proven()


async def test_a_hold_on_a_merchants_pending_money_sees_what_is_not_rolled_up(books):
    payer, merchant, hold_id = await books.funded_customer(100), Merchant(), uuid.uuid4()
    refunds = merchant.account(ledger.AccountKind.REFUNDS_IN_FLIGHT)
    await books.book(Post(payer.wallet, merchant.pending, 40))
    assert (
        await books.refused(Hold(hold_id, merchant.pending, refunds, 41))
        == "INSUFFICIENT_AVAILABLE"
    )
    await books.book(Hold(hold_id, merchant.pending, refunds, 40))
    assert await books.available(merchant.pending) == [0]
    await books.book(PostHold(hold_id, ((refunds, 40),)))
    await books.book(Post(refunds, books.bank, 40))
    assert await books.available(merchant.pending, refunds) == [0, 0]
    await books.assert_proven()


async def test_a_hold_may_be_posted_to_a_customer(books):
    payer, _, hold_id = await held(books)
    payee = Customer()
    await books.book(PostHold(hold_id, ((payee.wallet, 50),)))
    assert await books.available(payer.wallet, payee.wallet) == [50, 50]


async def test_fifty_racers_resolve_a_hold_once(books):
    payer, merchant, hold_id = await held(books, expires_at=await in_the_past(books))
    fresh_id = uuid.uuid4()
    await books.book(Hold(fresh_id, payer.wallet, merchant.pending, 50))
    racers = [
        posting_call(
            entry(
                [
                    PostHold(fresh_id, ((merchant.pending, 50),)),
                    VoidHold(fresh_id),
                    ExpireHold(hold_id),
                ][place % 3]
            )
        )
        for place in range(50)
    ]
    results = [codes[0] for codes in await books.together(10, racers)]
    assert results.count("POSTED") == 2
    assert set(results) == {"POSTED", "HOLD_NOT_PENDING"}
    await books.assert_proven()
