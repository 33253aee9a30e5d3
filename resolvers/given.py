"""What a client gave, in the form that the domain takes. Nothing here trusts any of it."""

from __future__ import annotations

import unicodedata
import uuid
from datetime import datetime

from core.errors import InvalidArgument, NotFound
from identity.addresses import Address, parse_address
from identity.caller import Caller
from payments.queries import Keyset, OrderFilter
from schema.connections import Page
from schema.cursors import read_cursor
from schema.inputs import AddressInput, OrderFilterInput
from schema.node import key_of, node_id

TEXT_MAX = 4_096
FILTER_VALUES_MAX = 20


def text(unchecked: str, field: str, length_max: int = TEXT_MAX) -> str:
    """A text that PostgreSQL can keep: no NUL, no lone surrogate, not too long.

    Secrets pass through here too, so that no later step meets what it cannot encode.
    """
    if len(unchecked) > length_max:
        raise InvalidArgument("This is too long.", field=(field,))
    if "\x00" in unchecked or any(unicodedata.category(each) == "Cs" for each in unchecked):
        raise InvalidArgument("Control characters are not allowed.", field=(field,))
    return unchecked


def optional_text(unchecked: str | None, field: str, length_max: int = TEXT_MAX) -> str | None:
    """The same for a text that may be absent."""
    return None if unchecked is None else text(unchecked, field, length_max)


def address_of(given: AddressInput) -> Address:
    """The address in its canonical form; raises `InvalidArgument` for a malformed one."""
    phone = text(given.phone.value, "phone") if given.phone else None
    email = text(given.email.value, "email") if given.email else None
    return parse_address(phone, email)


def merchant_of(caller: Caller, unchecked_id: str | None) -> uuid.UUID:
    """The merchant that is meant: the caller itself, or the one an operator names.

    A merchant that names another gets `NotFound`, as for one that does not exist.
    """
    if caller.merchant_id is not None:
        if unchecked_id not in (None, node_id("Merchant", caller.merchant_id)):
            raise NotFound(field=("merchantId",))
        return caller.merchant_id
    if unchecked_id is None:
        raise InvalidArgument("Which merchant?", field=("merchantId",))
    return key_of("Merchant", unchecked_id, "merchantId")


def order_filter(given: OrderFilterInput | None) -> OrderFilter:
    """The conditions; each list of values has an end."""
    if given is None:
        return OrderFilter()
    for name, values in (("states", given.states), ("types", given.types)):
        if values is not None and len(values) > FILTER_VALUES_MAX:
            raise InvalidArgument("Too many values.", field=("filter", name))
    return OrderFilter(
        states=tuple(given.states or ()),
        types=tuple(given.types or ()),
        currency=given.currency,
        merchant_id=(
            None
            if given.merchant_id is None
            else key_of("Merchant", given.merchant_id, "merchantId")
        ),
        created_from=given.created_from,
        created_before=given.created_before,
    )


def keyset(name: str, page: Page, *, newest_first: bool) -> Keyset:
    """The page as the database takes it: one from the end is one from the start, reversed."""
    direction = newest_first != page.backwards
    if page.cursor is None:
        return Keyset(size=page.size, newest_first=direction)
    instant, key = read_cursor(name, page.cursor, "before" if page.backwards else "after")
    return Keyset(
        size=page.size,
        newest_first=direction,
        instant=datetime.fromisoformat(str(instant)),
        key=uuid.UUID(str(key)),
    )
