"""The chart of accounts and the ids that follow from it."""

from __future__ import annotations

import uuid

from wallet.chart import CHART, AccountKind, account, clearing


async def test_the_database_knows_the_same_chart(database):
    rows = await database.fetch("SELECT * FROM chart()")
    stored = {row["kind"]: (row["normal_side"], row["has_floor"], row["buffered"]) for row in rows}
    assert stored == {
        kind.value: (terms.normal_side, terms.has_floor, terms.buffered)
        for kind, terms in CHART.items()
    }


def test_every_kind_has_its_terms():
    assert set(CHART) == set(AccountKind)


def test_an_account_has_one_id_and_shares_it_with_no_other():
    owner_id, other_id = uuid.uuid4(), uuid.uuid4()
    ids = {
        account(kind, owner, currency).account_id
        for kind in AccountKind
        for owner in (owner_id, other_id)
        for currency in ("CNY", "USD")
    }
    assert len(ids) == len(AccountKind) * 2 * 2
    first = account(AccountKind.CUSTOMER_WALLET, owner_id, "CNY")
    assert first == account(AccountKind.CUSTOMER_WALLET, owner_id, "CNY")


def test_each_channel_clears_in_an_account_of_its_own():
    assert clearing("bank", "CNY") != clearing("card", "CNY")
    assert clearing("bank", "CNY") == clearing("bank", "CNY")
