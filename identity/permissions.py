"""What each kind of caller may do. Denied is the rule; one table lists all exceptions.

A permission opens a field; whose rows come through it is decided again by the domain and by the
policies in PostgreSQL. A merchant's token alone reads: what moves money or changes keys is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from core.errors import Forbidden, SignatureInvalid, Unauthenticated
from identity.caller import (
    CUSTOMER_SCOPE,
    MERCHANT_READ_SCOPE,
    OPERATOR_SCOPE,
    REPLAY_SCOPE,
    Caller,
)


class Role(StrEnum):
    """What an operator is trusted with. One may have several."""

    ADMINISTRATOR = "ADMINISTRATOR"
    SETTLEMENT = "SETTLEMENT"
    RISK_ANALYST = "RISK_ANALYST"
    SUPPORT = "SUPPORT"
    AUDITOR = "AUDITOR"


class Permission(StrEnum):
    """One thing that a field lets its caller do."""

    PROFILE_READ = "PROFILE_READ"
    PROFILE_WRITE = "PROFILE_WRITE"
    ORDER_READ = "ORDER_READ"
    WALLET_READ = "WALLET_READ"
    STATEMENT_READ = "STATEMENT_READ"
    MERCHANT_READ = "MERCHANT_READ"
    MERCHANT_BALANCE_READ = "MERCHANT_BALANCE_READ"
    PAY = "PAY"
    TOP_UP = "TOP_UP"
    TRANSFER = "TRANSFER"
    CHALLENGE_ANSWER = "CHALLENGE_ANSWER"
    EFFECTIVE_AT_SET = "EFFECTIVE_AT_SET"
    REFUND = "REFUND"
    PAYOUT = "PAYOUT"
    ORDER_CLOSE = "ORDER_CLOSE"
    MERCHANT_KEY_READ = "MERCHANT_KEY_READ"
    MERCHANT_KEY_MANAGE = "MERCHANT_KEY_MANAGE"
    MERCHANT_TOKEN_ISSUE = "MERCHANT_TOKEN_ISSUE"
    WEBHOOK_READ = "WEBHOOK_READ"
    WEBHOOK_MANAGE = "WEBHOOK_MANAGE"
    WEBHOOK_REPLAY = "WEBHOOK_REPLAY"
    MERCHANT_REGISTER = "MERCHANT_REGISTER"
    MERCHANT_SUSPEND = "MERCHANT_SUSPEND"
    OPERATOR_MANAGE = "OPERATOR_MANAGE"
    SETTLEMENT_RUN = "SETTLEMENT_RUN"
    REVIEW_DECIDE = "REVIEW_DECIDE"
    DECISION_READ = "DECISION_READ"
    LEDGER_READ = "LEDGER_READ"
    AUDIT_READ = "AUDIT_READ"
    ORDER_FINISH = "ORDER_FINISH"
    CUSTOMER_READ = "CUSTOMER_READ"
    CUSTOMER_SUSPEND = "CUSTOMER_SUSPEND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who has a permission. A merchant's `TOKEN` reads, and a signed call does what a token does.

    `scope` is what a customer's token must carry; operators need one of `roles`.
    """

    customer: bool = False
    merchant: Literal["TOKEN", "SIGNED", "NEVER"] = "NEVER"
    roles: frozenset[Role] = frozenset()
    scope: str = CUSTOMER_SCOPE


EVERY_ROLE = frozenset(Role)
BOOKKEEPERS = frozenset({Role.SETTLEMENT, Role.AUDITOR})
ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})

GRANTS: dict[Permission, Grant] = {
    Permission.PROFILE_READ: Grant(customer=True, merchant="TOKEN", roles=EVERY_ROLE),
    Permission.PROFILE_WRITE: Grant(customer=True),
    Permission.ORDER_READ: Grant(customer=True, merchant="TOKEN", roles=EVERY_ROLE),
    Permission.WALLET_READ: Grant(customer=True),
    Permission.STATEMENT_READ: Grant(customer=True, merchant="TOKEN", roles=BOOKKEEPERS),
    Permission.MERCHANT_READ: Grant(merchant="TOKEN", roles=EVERY_ROLE),
    Permission.MERCHANT_BALANCE_READ: Grant(merchant="TOKEN", roles=BOOKKEEPERS),
    Permission.PAY: Grant(customer=True),
    Permission.TOP_UP: Grant(customer=True),
    Permission.TRANSFER: Grant(customer=True),
    Permission.CHALLENGE_ANSWER: Grant(customer=True),
    Permission.EFFECTIVE_AT_SET: Grant(customer=True, scope=REPLAY_SCOPE),
    Permission.REFUND: Grant(merchant="SIGNED"),
    Permission.PAYOUT: Grant(merchant="SIGNED"),
    Permission.ORDER_CLOSE: Grant(customer=True, merchant="SIGNED"),
    Permission.MERCHANT_KEY_READ: Grant(merchant="TOKEN", roles=ADMINISTRATORS),
    Permission.MERCHANT_KEY_MANAGE: Grant(merchant="SIGNED", roles=ADMINISTRATORS),
    Permission.MERCHANT_TOKEN_ISSUE: Grant(merchant="SIGNED", roles=ADMINISTRATORS),
    Permission.WEBHOOK_READ: Grant(merchant="TOKEN", roles=frozenset({Role.SUPPORT})),
    Permission.WEBHOOK_MANAGE: Grant(merchant="SIGNED"),
    Permission.WEBHOOK_REPLAY: Grant(merchant="SIGNED", roles=frozenset({Role.SUPPORT})),
    Permission.MERCHANT_REGISTER: Grant(roles=ADMINISTRATORS),
    Permission.MERCHANT_SUSPEND: Grant(roles=frozenset({Role.ADMINISTRATOR, Role.RISK_ANALYST})),
    Permission.OPERATOR_MANAGE: Grant(roles=ADMINISTRATORS),
    Permission.SETTLEMENT_RUN: Grant(roles=frozenset({Role.SETTLEMENT})),
    Permission.REVIEW_DECIDE: Grant(roles=frozenset({Role.RISK_ANALYST})),
    Permission.DECISION_READ: Grant(roles=frozenset({Role.RISK_ANALYST, Role.AUDITOR})),
    Permission.LEDGER_READ: Grant(roles=BOOKKEEPERS),
    Permission.AUDIT_READ: Grant(roles=frozenset({Role.AUDITOR, Role.ADMINISTRATOR})),
    Permission.ORDER_FINISH: Grant(roles=frozenset({Role.SUPPORT, Role.SETTLEMENT})),
    Permission.CUSTOMER_READ: Grant(roles=frozenset({Role.SUPPORT, Role.RISK_ANALYST})),
    Permission.CUSTOMER_SUSPEND: Grant(roles=frozenset({Role.SUPPORT, Role.RISK_ANALYST})),
}


def require(caller: Caller | None, permission: Permission) -> Caller:
    """The caller, who may do this.

    Raises `Unauthenticated` where nobody signed in, `SignatureInvalid` where a merchant used a
    token for what must be signed, and `Forbidden` for all else.
    """
    if caller is None:
        raise Unauthenticated()
    if allows(caller, permission):
        return caller
    grant = GRANTS.get(permission, Grant())
    if caller.principal.kind == "merchant" and grant.merchant == "SIGNED":
        raise SignatureInvalid("This call must be signed; a token alone cannot make it.")
    raise Forbidden()


def allows(caller: Caller | None, permission: Permission) -> bool:
    """Whether the table grants `permission` to this caller; a permission without a row is
    nobody's.
    """
    grant = GRANTS.get(permission)
    if caller is None or grant is None:
        return False
    match caller.principal.kind:
        case "customer":
            return grant.customer and {CUSTOMER_SCOPE, grant.scope} <= caller.scopes
        case "merchant":
            if caller.signed:
                return grant.merchant != "NEVER"
            return grant.merchant == "TOKEN" and MERCHANT_READ_SCOPE in caller.scopes
        case "operator":
            return OPERATOR_SCOPE in caller.scopes and not caller.roles.isdisjoint(grant.roles)
        case _:
            return False
