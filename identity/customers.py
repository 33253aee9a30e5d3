"""Customers: registration by a proved address, login, and the way back in after a forgotten
password.

Who asks about an address learns nothing: a known and an unknown one get the same answer after the
same work. A customer's rows are touched in a phase of that customer, which is why an id comes
first.
"""

from __future__ import annotations

import unicodedata
import uuid
from dataclasses import dataclass
from datetime import datetime

from tortoise.exceptions import IntegrityError

from core import audit, ids
from core.errors import CredentialsInvalid, Forbidden, InvalidArgument, NotFound
from core.phase import phase, statement
from core.principal import Principal, customer
from identity import codes
from identity.addresses import Address, address_of
from identity.caller import CUSTOMER_SCOPE, Caller
from identity.codes import CodePurpose, CodeRequest
from identity.limits import Guesses, Permits, clear_guesses, take_guess, take_permit
from identity.logins import Tokens, end_all, open_login
from identity.models import Credential, Customer
from identity.passwords import checked_password, hashed, matches, read_hash, store_hash

LOGIN_GUESSES = Guesses("login", guesses_max=10)
PAYEE_LOOKUPS = Permits("payee", permits_max=30, window_seconds=3_600)
DISPLAY_NAME_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration that waits for its code."""

    registration_id: uuid.UUID
    destination_masked: str
    code_expires_seconds: int


@dataclass(frozen=True, slots=True)
class CustomerProfile:
    """What a customer sees of themselves."""

    customer_id: uuid.UUID
    status: str
    phone: str | None
    email: str | None
    display_name: str
    has_payment_password: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Payee:
    """What a payer may see of the one to be paid."""

    customer_id: uuid.UUID
    display_name_masked: str


async def register(
    address: Address, unchecked_password: str, display_name: str = ""
) -> Registration:
    """Start a registration; a code goes to the address. Nothing tells whether it has a login
    already.

    Raises `InvalidArgument` for a weak password, `Throttled` when the address gets too many codes.
    """
    name = checked_name(display_name)
    password_hash = await hashed(checked_password(unchecked_password), "LOGIN")
    customer_id = ids.new_id()
    async with phase(customer(customer_id)):
        await statement(
            """INSERT INTO customer (customer_id, phone, email, display_name, status)
            VALUES ($1, $2, $3, $4, 'PENDING')""",
            customer_id,
            address.value if address.kind == "PHONE" else None,
            address.value if address.kind == "EMAIL" else None,
            name,
        )
        await store_hash(customer(customer_id), "LOGIN", password_hash)
        code = await codes.add_request(customer_id, CodePurpose.REGISTER, address)
    return Registration(customer_id, code.destination_masked, code.expires_seconds)


async def resend_code(registration_id: uuid.UUID) -> None:
    """Send another code, which replaces the first; does nothing for what is not waiting for one."""
    async with phase(customer(registration_id)):
        row = await Customer.get_or_none(customer_id=registration_id, status="PENDING")
        if row is not None and (address := address_of(row.phone, row.email)):
            await codes.add_request(registration_id, CodePurpose.REGISTER, address)


async def confirm_registration(registration_id: uuid.UUID, unchecked_code: str) -> Tokens:
    """Prove the address by its code; the customer exists from here on and is signed in.

    Raises `CredentialsInvalid` or `CredentialsLocked` for the code, and `InvalidArgument` where the
    address has a login already: who holds the code may know that.
    """
    await codes.check_code(registration_id, CodePurpose.REGISTER, unchecked_code)
    principal = customer(registration_id)
    try:
        async with phase(principal):
            rows = Customer.filter(customer_id=registration_id, status="PENDING")
            if not await rows.update(status="ACTIVE"):
                raise CredentialsInvalid()
            await audit.record(principal, "CUSTOMER_REGISTERED", str(principal))
    except IntegrityError:
        raise InvalidArgument(
            "This address has a login already; sign in, or reset the password."
        ) from None
    return await open_login(principal, scopes=frozenset({CUSTOMER_SCOPE}))


async def login(address: Address, unchecked_password: str) -> Tokens:
    """Sign in. Raises `CredentialsInvalid`, after ten wrong ones in a row `CredentialsLocked`.

    An unknown address costs the same statements and the same hash, and locks the same way.
    """
    left = await take_guess(LOGIN_GUESSES, address.value)
    customer_id, known = await _find(address)
    principal = customer(customer_id)
    async with phase(principal):
        password_hash = await read_hash(principal, "LOGIN")
    right = await matches(password_hash, unchecked_password, "LOGIN")
    if not (right and known):
        await audit.record_security_event(
            "LOGIN_FAILED", str(principal), "LOCKED" if left == 0 else "REFUSED"
        )
        raise CredentialsInvalid()
    await clear_guesses(LOGIN_GUESSES, address.value)
    if (await read_customer(customer_id)).status != "ACTIVE":
        raise Forbidden("This login is suspended.")
    return await open_login(principal, scopes=frozenset({CUSTOMER_SCOPE}))


async def request_password_reset(address: Address) -> CodeRequest:
    """Send a code for a new password, if the address has a login; the answer is the same if not."""
    customer_id, known = await _find(address)
    async with phase(customer(customer_id)):
        return await codes.add_request(
            customer_id, CodePurpose.RESET_PASSWORD, address, addressed=known
        )


async def reset_password(address: Address, unchecked_code: str, unchecked_password: str) -> None:
    """Set a new password by the code that was sent, and end all logins of the customer.

    Raises `CredentialsInvalid` or `CredentialsLocked`, alike for an address without a login.
    """
    password_hash = await hashed(checked_password(unchecked_password), "LOGIN")
    customer_id, _ = await _find(address)
    await codes.check_code(customer_id, CodePurpose.RESET_PASSWORD, unchecked_code)
    principal = customer(customer_id)
    async with phase(principal):
        await store_hash(principal, "LOGIN", password_hash)
        await end_all(principal, reason="PASSWORD_RESET", by=principal)
        await audit.record(principal, "PASSWORD_RESET", str(principal))
    await clear_guesses(LOGIN_GUESSES, address.value)


async def change_password(
    customer_id: uuid.UUID, unchecked_current: str, unchecked_new: str
) -> None:
    """Replace the password by proving the current one, and end all logins of the customer."""
    password_hash = await hashed(checked_password(unchecked_new), "LOGIN")
    await prove_password(customer_id, unchecked_current)
    principal = customer(customer_id)
    async with phase(principal):
        await store_hash(principal, "LOGIN", password_hash)
        await end_all(principal, reason="PASSWORD_CHANGED", by=principal)
        await audit.record(principal, "PASSWORD_CHANGED", str(principal))


async def prove_password(customer_id: uuid.UUID, unchecked_password: str) -> None:
    """Check the login password of a customer who is signed in, counted like a login.

    Raises `CredentialsInvalid` or `CredentialsLocked`.
    """
    principal = customer(customer_id)
    subject = str(principal)
    await take_guess(LOGIN_GUESSES, subject)
    async with phase(principal):
        password_hash = await read_hash(principal, "LOGIN")
    if not await matches(password_hash, unchecked_password, "LOGIN"):
        await audit.record_security_event("PASSWORD_WRONG", subject, "REFUSED")
        raise CredentialsInvalid()
    await clear_guesses(LOGIN_GUESSES, subject)


async def read_customer(customer_id: uuid.UUID, *, by: Principal | None = None) -> CustomerProfile:
    """One customer as `by` (by default the customer) may see them; raises `NotFound`."""
    async with phase(by or customer(customer_id)):
        row = await Customer.get_or_none(customer_id=customer_id)
        has_payment_password = await Credential.exists(owner_id=customer_id, kind="PAYMENT")
    if row is None or row.status == "PENDING":
        raise NotFound()
    return CustomerProfile(
        customer_id=customer_id,
        status=row.status,
        phone=row.phone,
        email=row.email,
        display_name=row.display_name,
        has_payment_password=has_payment_password,
        created_at=row.created_at,
    )


async def find_payee(customer_id: uuid.UUID, address: Address) -> Payee | None:
    """Who would be paid at this address; a customer may ask 30 times an hour, then it is
    `Throttled`.
    """
    await take_permit(PAYEE_LOOKUPS, str(customer_id))
    rows = await statement("SELECT * FROM find_payee($1)", address.value, writes=False)
    return Payee(rows[0]["customer_id"], rows[0]["display_name_masked"]) if rows else None


async def suspend(customer_id: uuid.UUID, *, by: Caller) -> None:
    """Stop a customer from signing in and paying, at once; an operator's act."""
    async with phase(by.principal):
        await _set_status(customer_id, "ACTIVE", "SUSPENDED", by)
        await end_all(customer(customer_id), reason="SUSPENDED", by=by.principal)


async def resume(customer_id: uuid.UUID, *, by: Caller) -> None:
    """Take a suspension back; an operator's act."""
    async with phase(by.principal):
        await _set_status(customer_id, "SUSPENDED", "ACTIVE", by)


async def _set_status(customer_id: uuid.UUID, before: str, after: str, by: Caller) -> None:
    rows = Customer.filter(customer_id=customer_id, status=before)
    if not await rows.update(status=after):
        raise NotFound()
    await audit.record(by.principal, f"CUSTOMER_{after}", f"customer:{customer_id}")


async def _find(address: Address) -> tuple[uuid.UUID, bool]:
    """The customer at an address, or an id that stands for nobody and is always the same for it."""
    rows = await statement("SELECT find_customer_id($1)", address.value, writes=False)
    found: uuid.UUID | None = rows[0][0]
    return found or ids.hashed_id("nobody", address.value), found is not None


def checked_name(display_name: str) -> str:
    """The name to show to others, trimmed; `InvalidArgument` for what cannot be shown."""
    name = unicodedata.normalize("NFC", display_name).strip()
    if len(name) > DISPLAY_NAME_LENGTH_MAX or any(
        unicodedata.category(character)[0] == "C" for character in name
    ):
        raise InvalidArgument("This name cannot be shown.", field=("displayName",))
    return name
