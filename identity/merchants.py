"""Merchants: registered and changed by operators, read by themselves."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from core import audit, ids
from core.configuration import PLATFORM_MERCHANT_ID
from core.errors import InvalidArgument, NotFound
from core.money import AMOUNT_MINOR_MAX, MILLIONTHS, exponent
from core.phase import phase, statement
from identity.caller import Caller
from identity.models import Merchant

MerchantStatus = Literal["ACTIVE", "SUSPENDED"]
NAME_LENGTH_MAX = 128


@dataclass(frozen=True, slots=True)
class MerchantView:
    """The fee is a rate per million of each payment, the limit is per payment in minor units."""

    merchant_id: uuid.UUID
    name: str
    status: str
    fee_rate_millionths: int
    currencies: tuple[str, ...]
    payment_limit_minor: int
    created_at: datetime


async def register_merchant(
    name: str,
    *,
    currencies: Sequence[str],
    fee_rate_millionths: int,
    payment_limit_minor: int,
    by: Caller,
) -> MerchantView:
    """Register a merchant; an operator's act. Raises `InvalidArgument` for values that cannot
    be.
    """
    if not 0 < len(name.strip()) <= NAME_LENGTH_MAX or not name.isprintable():
        raise InvalidArgument("A merchant needs a name that can be shown.", field=("name",))
    if not 0 <= fee_rate_millionths <= MILLIONTHS:
        raise InvalidArgument("The fee is a rate per million.", field=("feeRateMillionths",))
    if not 0 < payment_limit_minor <= AMOUNT_MINOR_MAX:
        raise InvalidArgument("The limit must be positive.", field=("paymentLimitMinor",))
    if not currencies:
        raise InvalidArgument("A merchant needs a currency.", field=("currencies",))
    for currency in currencies:
        exponent(currency)
    merchant_id = ids.new_id()
    async with phase(by.principal):
        await statement(
            """INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies,
                payment_limit_minor)
            VALUES ($1, $2, 'ACTIVE', $3, $4::jsonb, $5)""",
            merchant_id,
            name.strip(),
            fee_rate_millionths,
            sorted(set(currencies)),
            payment_limit_minor,
        )
        await audit.record(
            by.principal,
            "MERCHANT_REGISTERED",
            f"merchant:{merchant_id}",
            fee_rate_millionths=fee_rate_millionths,
            payment_limit_minor=payment_limit_minor,
        )
        return _view(await Merchant.get(merchant_id=merchant_id))


async def read_merchant(caller: Caller, merchant_id: uuid.UUID) -> MerchantView:
    """One merchant, if the caller may see it; raises `NotFound` alike for a foreign and an unknown
    id.
    """
    async with phase(caller.principal):
        row = await Merchant.get_or_none(merchant_id=merchant_id)
    if row is None:
        raise NotFound()
    return _view(row)


async def set_merchant_status(
    merchant_id: uuid.UUID, status: MerchantStatus, *, by: Caller
) -> MerchantView:
    """Suspend a merchant's trade, or take that back; an operator's act."""
    if merchant_id == PLATFORM_MERCHANT_ID:
        raise InvalidArgument("The platform itself cannot be suspended.")
    async with phase(by.principal):
        if not await Merchant.filter(merchant_id=merchant_id).update(status=status):
            raise NotFound()
        await audit.record(by.principal, f"MERCHANT_{status}", f"merchant:{merchant_id}")
        return _view(await Merchant.get(merchant_id=merchant_id))


async def set_fee_rate(
    merchant_id: uuid.UUID, fee_rate_millionths: int, *, by: Caller
) -> MerchantView:
    """Change what later payments cost a merchant; orders keep the rate they were made with."""
    if not 0 <= fee_rate_millionths <= MILLIONTHS:
        raise InvalidArgument("The fee is a rate per million.", field=("feeRateMillionths",))
    async with phase(by.principal):
        changed = Merchant.filter(merchant_id=merchant_id)
        if not await changed.update(fee_rate_millionths=fee_rate_millionths):
            raise NotFound()
        await audit.record(
            by.principal,
            "MERCHANT_FEE_SET",
            f"merchant:{merchant_id}",
            fee_rate_millionths=fee_rate_millionths,
        )
        return _view(await Merchant.get(merchant_id=merchant_id))


async def merchant_names(merchant_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The public names, by id; unknown ids are left out."""
    rows = await statement("SELECT * FROM merchant_names($1)", list(merchant_ids), writes=False)
    return {row["merchant_id"]: row["name"] for row in rows}


def _view(row: Merchant) -> MerchantView:
    return MerchantView(
        merchant_id=row.merchant_id,
        name=row.name,
        status=row.status,
        fee_rate_millionths=row.fee_rate_millionths,
        currencies=tuple(row.currencies),
        payment_limit_minor=row.payment_limit_minor,
        created_at=row.created_at,
    )
