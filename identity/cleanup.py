"""What nobody can use any more is deleted: nonces, counters, codes, tokens, registrations never
confirmed.
"""

from __future__ import annotations

from core.phase import phase, statement
from core.principal import SYSTEM

EXPIRED = (
    """DELETE FROM request_nonce WHERE nonce_id IN (
        SELECT nonce_id FROM request_nonce WHERE expires_at < purser_now() LIMIT $1)
    RETURNING 1""",
    """DELETE FROM limit_counter WHERE counter_id IN (
        SELECT counter_id FROM limit_counter
        WHERE window_ends_at < purser_now() - interval '1 day' LIMIT $1)
    RETURNING 1""",
    """DELETE FROM one_time_code WHERE code_id IN (
        SELECT code_id FROM one_time_code
        WHERE expires_at < purser_now() - interval '1 day' LIMIT $1)
    RETURNING 1""",
    """DELETE FROM credential WHERE owner_id IN (
        SELECT customer_id FROM customer
        WHERE status = 'PENDING' AND created_at < purser_now() - interval '1 day' LIMIT $1)
    RETURNING 1""",
    """DELETE FROM customer WHERE customer_id IN (
        SELECT customer_id FROM customer c
        WHERE status = 'PENDING' AND created_at < purser_now() - interval '1 day'
          AND NOT EXISTS (SELECT FROM credential WHERE owner_id = c.customer_id) LIMIT $1)
    RETURNING 1""",
    """DELETE FROM login WHERE login_id IN (
        SELECT login_id FROM login WHERE expires_at < purser_now() - interval '30 days' LIMIT $1)
    RETURNING 1""",
    """DELETE FROM signing_key WHERE signing_key_id IN (
        SELECT signing_key_id FROM signing_key
        WHERE retires_at < purser_now() - interval '1 day' LIMIT $1)
    RETURNING 1""",
)
"""A refresh token goes with its login, by its foreign key. Each statement takes a bounded bite."""


async def forget_expired(limit: int = 1_000) -> int:
    """Delete up to `limit` rows of each kind; how many went. For the sweeper, once a minute."""
    deleted = 0
    for sql in EXPIRED:
        async with phase(SYSTEM):
            deleted += len(await statement(sql, limit))
    return deleted
