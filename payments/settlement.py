"""Settlement: what is pending for a merchant becomes available, when an operator says so.

The amount is decided by the ledger under its locks; a refund that runs meanwhile comes before or
after, never in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core import audit, ids
from core import money as moneys
from core.errors import Forbidden, IdempotencyKeyReused, NotFound
from core.money import Money
from core.phase import phase, statement
from core.principal import Principal
from core.records import from_row
from payments.idempotency import Key, idempotency
from payments.models import IdempotencyRow, SettlementRow
from wallet import ledger
from wallet.ledger import PendingSettlement

MARKED_ORDERS_MAX = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """One run for one merchant and currency; nothing pending makes one of amount 0."""

    settlement_id: UUID
    merchant_id: UUID
    currency: str
    amount_minor: int
    entry_id: UUID
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementAnswer:
    """The settlement as committed, or the stored one of the same key."""

    settlement: Settlement
    replay: bool


async def run_settlement(
    caller: Principal, unchecked_key: str, merchant_id: UUID, currency: str
) -> SettlementAnswer:
    """Move all that is pending to available, once per key; audited.

    One phase: key, entry, settlement row and the audit row commit together. Locks the key's index
    entry, then the merchant's accounts. Raises `Forbidden` for anyone but an
    operator, `NotFound` for an unknown merchant, `IdempotencyKeyReused`.
    """
    if caller.kind != "operator":
        raise Forbidden()
    moneys.positive(Money(1, currency), ())
    canonical = {"merchant_id": str(merchant_id), "currency": currency}
    key = idempotency(caller, "SETTLEMENT", unchecked_key, canonical)
    settlement_id = ids.derived_id(key.idempotency_id, "settlement")
    async with phase(caller):
        if not await _take(key, caller):
            stored = await IdempotencyRow.get(idempotency_id=key.idempotency_id)
            if stored.input_hash != key.input_hash:
                raise IdempotencyKeyReused(field=("idempotencyKey",))
            row = await SettlementRow.get(settlement_id=settlement_id)
            return SettlementAnswer(settlement=from_row(Settlement, row), replay=True)
        if not await statement("SELECT 1 FROM merchant WHERE merchant_id = $1", merchant_id):
            raise NotFound("There is no such merchant.", field=("merchantId",))
        settled = (
            await ledger.settle_pending(
                caller,
                [
                    PendingSettlement(
                        entry_id=settlement_id, merchant_id=merchant_id, currency=currency
                    )
                ],
            )
        )[0]
        row = await SettlementRow.create(
            settlement_id=settlement_id,
            merchant_id=merchant_id,
            currency=currency,
            amount_minor=settled.settled_minor,
            entry_id=settlement_id,
            run_by=str(caller),
            created_at=(await statement("SELECT purser_now() AS now"))[0]["now"],
        )
        await audit.record(
            caller,
            "SETTLEMENT_RUN",
            f"merchant:{merchant_id}",
            currency=currency,
            amount_minor=settled.settled_minor,
        )
    settlement = from_row(Settlement, row)
    await _mark_orders(caller, settlement)
    return SettlementAnswer(settlement=settlement, replay=False)


async def _mark_orders(caller: Principal, settlement: Settlement) -> None:
    """Mark the orders whose money this run moved, in short pieces.

    The mark is for people: no amount depends on it. What a crash leaves unmarked, and orders that
    changed meanwhile, the next run marks.
    """
    marked_count = MARKED_ORDERS_MAX
    while marked_count == MARKED_ORDERS_MAX:
        async with phase(caller):
            rows = await statement(
                """UPDATE payment_order SET settlement_progress = 'SETTLED', version = version + 1
                WHERE order_id IN (
                    SELECT order_id FROM payment_order
                    WHERE merchant_id = $1 AND currency = $2
                      AND settlement_progress = 'ELIGIBLE' AND updated_at <= $3
                    ORDER BY order_id LIMIT $4 FOR NO KEY UPDATE)
                RETURNING order_id""",
                settlement.merchant_id,
                settlement.currency,
                settlement.created_at,
                MARKED_ORDERS_MAX,
            )
        marked_count = len(rows)


async def _take(key: Key, caller: Principal) -> bool:
    rows = await statement(
        """INSERT INTO idempotency (idempotency_id, principal, operation, key, input_hash, result)
        VALUES ($1, $2, $3, $4, $5, '{}') ON CONFLICT DO NOTHING RETURNING idempotency_id""",
        key.idempotency_id,
        str(caller),
        key.operation,
        key.key,
        key.input_hash,
    )
    return bool(rows)
