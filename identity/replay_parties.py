"""The customers and merchants of recorded input, made in bulk, and tokens to pay as them.

Only where the configuration allows a replay, which a live environment never does.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping

from core import configuration, ids
from core.errors import Forbidden
from core.phase import phase, statement
from core.principal import SYSTEM, customer
from identity.caller import CUSTOMER_SCOPE, REPLAY_SCOPE
from identity.logins import LOGIN_SECONDS
from identity.tokens import issue_access

FEE_RATE_MILLIONTHS = 6_000
PAYMENT_LIMIT_MINOR = 10**12
SCOPES = frozenset({CUSTOMER_SCOPE, REPLAY_SCOPE})


async def make_parties(
    customer_names: Mapping[uuid.UUID, str], merchant_names: Mapping[uuid.UUID, str], currency: str
) -> None:
    """Make the customers and merchants that are missing; those that are there stay as they are.

    Such a customer has no address and no password: there is no way to sign in but `replay_tokens`.
    """
    _must_be_allowed()
    async with phase(SYSTEM):
        await statement(
            """INSERT INTO customer (customer_id, display_name, status)
            SELECT unnest($1::uuid[]), unnest($2::text[]), 'ACTIVE'
            ON CONFLICT (customer_id) DO NOTHING""",
            list(customer_names),
            list(customer_names.values()),
        )
        await statement(
            """INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
                payment_limit_minor)
            SELECT unnest($1::uuid[]), unnest($2::text[]), 'ACTIVE', $3,
                   jsonb_build_array($4::text), $5
            ON CONFLICT (merchant_id) DO NOTHING""",
            list(merchant_names),
            list(merchant_names.values()),
            FEE_RATE_MILLIONTHS,
            currency,
            PAYMENT_LIMIT_MINOR,
        )


async def replay_tokens(customer_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """An access token for each, good for ten minutes, with the scope to name a recorded instant."""
    _must_be_allowed()
    login_ids = {customer_id: ids.new_id() for customer_id in customer_ids}
    async with phase(SYSTEM):
        await statement(
            """INSERT INTO login (login_id, principal_kind, principal_id, scopes, roles, expires_at)
            SELECT unnest($1::uuid[]), 'customer', unnest($2::uuid[]), $3::jsonb, '[]',
                   purser_now() + $4 * interval '1 second'""",
            list(login_ids.values()),
            list(login_ids),
            sorted(SCOPES),
            LOGIN_SECONDS["merchant"],
        )
    tokens = {}
    for customer_id, login_id in login_ids.items():
        tokens[customer_id], _ = await issue_access(
            customer(customer_id), login_id=login_id, scopes=SCOPES
        )
    return tokens


def _must_be_allowed() -> None:
    if not configuration.current().replay_allowed:
        raise Forbidden("Recorded input is not replayed in this environment.")
