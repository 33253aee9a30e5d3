"""Parameter validation: everything that can be refused before anything is written.

Input that is wrong in itself raises and is not stored with the key. What the business refuses comes
as an answer that is stored.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from core import money as moneys
from core.configuration import PLATFORM_MERCHANT_ID
from core.errors import (
    Forbidden,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    OperationNotSupported,
)
from payments.group import Known
from payments.products.registry import product_module
from payments.states import OPENING_TYPES, OperationType
from payments.values import OpenOrder

NUMBER_MAX = 64
TEXT_MAX = 256
URL_MAX = 2_048


def validate_parameters(request: OpenOrder, known: Known) -> tuple[ModuleType, dict[str, Any]]:
    """The product's module and the details to store.

    In this order: fields, merchant and payer may trade, limits. Raises a `Refused`; changes
    nothing.
    """
    module = _checked_fields(request)
    merchant = _trading_merchant(request, known)
    _trading_customers(request, known)
    limit = merchant["payment_limit_minor"]
    if limit is not None and request.money.amount_minor > limit:
        raise LimitExceeded(
            "The amount is over the limit of one payment.",
            field=("amount", "amountMinor"),
            limit_minor=limit,
        )
    return module, module.check(request)


def text(unchecked: str, name: str, length_max: int = TEXT_MAX) -> str:
    """The text, if it is short enough and free of control characters and lone surrogates."""
    if len(unchecked) > length_max:
        raise InvalidArgument(f"At most {length_max} characters.", field=(name,))
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in unchecked):
        raise InvalidArgument("Control characters are not allowed.", field=(name,))
    return unchecked


def number(unchecked: str, name: str) -> str:
    """A merchant's number: 1 to 64 visible ASCII characters."""
    if not (0 < len(unchecked) <= NUMBER_MAX and all("!" <= each <= "~" for each in unchecked)):
        raise InvalidArgument("1 to 64 visible ASCII characters.", field=(name,))
    return unchecked


def _checked_fields(request: OpenOrder) -> ModuleType:
    module = product_module(request.product)
    if request.type not in OPENING_TYPES or request.type not in module.PRODUCT.operations:
        raise OperationNotSupported("This product cannot do that.", field=("method",))
    moneys.positive(request.money)
    number(request.merchant_order_no, "merchantOrderNo")
    text(request.description, "description")
    if request.return_url is not None:
        text(request.return_url, "returnUrl", URL_MAX)
        if not request.return_url.startswith(("https://", "http://")):
            raise InvalidArgument("This is not a web address.", field=("returnUrl",))
    return module


def _trading_merchant(request: OpenOrder, known: Known) -> Mapping[str, Any]:
    merchant = known.merchant
    if merchant is None:
        raise NotFound("There is no such merchant.", field=("merchantId",))
    own = request.type in (OperationType.TOP_UP, OperationType.TRANSFER)
    if own != (request.merchant_id == PLATFORM_MERCHANT_ID):
        raise NotFound("There is no such merchant.", field=("merchantId",))
    if merchant["status"] != "ACTIVE":
        raise Forbidden("This merchant does not trade at present.")
    if request.money.currency not in merchant["currencies"]:
        raise InvalidArgument(
            "The merchant does not take this currency.", field=("amount", "currency")
        )
    return merchant


def _trading_customers(request: OpenOrder, known: Known) -> None:
    if request.type is OperationType.PAYOUT:
        if request.caller.kind != "merchant" or request.caller.id != request.merchant_id:
            raise Forbidden()
        return
    if request.caller.kind != "customer" or known.payer_status is None:
        raise Forbidden()
    if known.payer_status != "ACTIVE":
        raise Forbidden("Your account cannot pay at present.")
    if request.type is OperationType.TRANSFER and (known.payee_status != "ACTIVE"):
        raise NotFound("There is no such payee.", field=("payee",))
