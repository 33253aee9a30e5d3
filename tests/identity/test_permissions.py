"""Permissions: denied is the rule, and a merchant's token moves nothing."""

from __future__ import annotations

import uuid

import pytest

from core.errors import Forbidden, PurserError, SignatureInvalid, Unauthenticated
from core.principal import SYSTEM, customer, merchant, operator
from identity.caller import Caller
from identity.permissions import GRANTS, Permission, Role, allows, require

PERSON = uuid.uuid4()
BY_CUSTOMER = Caller(principal=customer(PERSON), scopes=frozenset({"customer"}))
BY_TOKEN = Caller(principal=merchant(PERSON), scopes=frozenset({"merchant:read"}))
BY_SIGNATURE = Caller(principal=merchant(PERSON), signed=True)
MOVES_MONEY = {
    Permission.PAY,
    Permission.TOP_UP,
    Permission.TRANSFER,
    Permission.REFUND,
    Permission.PAYOUT,
    Permission.ORDER_CLOSE,
    Permission.SETTLEMENT_RUN,
}
CHANGES = MOVES_MONEY | {
    Permission.CHALLENGE_ANSWER,
    Permission.MERCHANT_KEY_MANAGE,
    Permission.MERCHANT_TOKEN_ISSUE,
    Permission.WEBHOOK_MANAGE,
    Permission.WEBHOOK_REPLAY,
}


def by_operator(*roles: Role) -> Caller:
    return Caller(
        principal=operator(PERSON), scopes=frozenset({"operator"}), roles=frozenset(roles)
    )


def refusal_of(caller: Caller | None, permission: Permission) -> type[PurserError]:
    with pytest.raises(PurserError) as refusal:
        require(caller, permission)
    return type(refusal.value)


@pytest.mark.parametrize("permission", Permission)
def test_a_permission_without_a_row_is_nobodys(
    permission: Permission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(GRANTS, permission, raising=False)
    for caller in (None, BY_CUSTOMER, BY_TOKEN, BY_SIGNATURE, by_operator(*Role)):
        assert not allows(caller, permission)


@pytest.mark.parametrize("permission", Permission)
def test_every_permission_is_somebodys_but_never_the_systems_or_a_strangers(
    permission: Permission,
) -> None:
    replaying = Caller(principal=customer(PERSON), scopes=frozenset({"customer", "replay"}))
    callers = (replaying, BY_SIGNATURE, by_operator(*Role))
    assert any(allows(caller, permission) for caller in callers)
    assert not allows(Caller(principal=SYSTEM, scopes=frozenset({"operator"})), permission)
    assert refusal_of(None, permission) is Unauthenticated


@pytest.mark.parametrize("permission", sorted(CHANGES))
def test_a_merchants_token_alone_changes_nothing(permission: Permission) -> None:
    assert not allows(BY_TOKEN, permission)
    assert refusal_of(BY_TOKEN, permission) in (SignatureInvalid, Forbidden)


def test_an_unsigned_refund_is_told_to_sign() -> None:
    assert refusal_of(BY_TOKEN, Permission.REFUND) is SignatureInvalid
    assert refusal_of(BY_TOKEN, Permission.PAY) is Forbidden
    assert require(BY_SIGNATURE, Permission.REFUND) is BY_SIGNATURE


def test_a_merchants_token_reads_and_only_with_its_scope() -> None:
    assert allows(BY_TOKEN, Permission.ORDER_READ)
    assert allows(BY_SIGNATURE, Permission.ORDER_READ)
    assert not allows(Caller(principal=merchant(PERSON)), Permission.ORDER_READ)


@pytest.mark.parametrize("permission", sorted(MOVES_MONEY - {Permission.SETTLEMENT_RUN}))
def test_no_operator_moves_other_peoples_money(permission: Permission) -> None:
    assert not allows(by_operator(*Role), permission)


def test_an_operator_may_what_a_role_says_and_no_more() -> None:
    assert allows(by_operator(Role.SETTLEMENT), Permission.SETTLEMENT_RUN)
    assert refusal_of(by_operator(Role.ADMINISTRATOR), Permission.SETTLEMENT_RUN) is Forbidden
    assert refusal_of(by_operator(Role.AUDITOR), Permission.MERCHANT_REGISTER) is Forbidden
    assert refusal_of(by_operator(), Permission.ORDER_READ) is Forbidden
    without_scope = Caller(principal=operator(PERSON), roles=frozenset({Role.ADMINISTRATOR}))
    assert refusal_of(without_scope, Permission.MERCHANT_REGISTER) is Forbidden


def test_a_customer_may_not_do_what_merchants_and_operators_do() -> None:
    for permission in (Permission.REFUND, Permission.PAYOUT, Permission.MERCHANT_REGISTER):
        assert refusal_of(BY_CUSTOMER, permission) is Forbidden
    no_scope = Caller(principal=customer(PERSON))
    assert refusal_of(no_scope, Permission.PAY) is Forbidden


def test_a_recorded_instant_needs_the_scope_of_a_replay() -> None:
    assert refusal_of(BY_CUSTOMER, Permission.EFFECTIVE_AT_SET) is Forbidden
    replaying = Caller(principal=customer(PERSON), scopes=frozenset({"customer", "replay"}))
    assert require(replaying, Permission.EFFECTIVE_AT_SET)
    only_replay = Caller(principal=customer(PERSON), scopes=frozenset({"replay"}))
    assert refusal_of(only_replay, Permission.EFFECTIVE_AT_SET) is Forbidden
