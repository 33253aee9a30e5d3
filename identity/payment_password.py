"""The six-digit payment password: the proof that the one who pays holds more than an unlocked
phone.

There are only a million of them, so what protects it is the counter: each guess is counted before
it is checked, over all orders and devices, and the fifth wrong one locks for half an hour.
"""

from __future__ import annotations

import uuid
from itertools import pairwise

from core import audit
from core.errors import CredentialsInvalid, InvalidArgument
from core.phase import phase
from core.principal import customer
from identity import codes
from identity.codes import CodePurpose, CodeRequest
from identity.customers import prove_password
from identity.limits import Guesses, clear_guesses, take_guess
from identity.passwords import hashed, matches, read_hash, store_hash

DIGITS = 6
GUESSES = Guesses("payment password", guesses_max=5)
TRIED_FIRST = frozenset(
    {"112233", "223344", "332211", "123321", "147258", "159753", "520131", "521131", "131452"}
)


def checked_payment_password(unchecked_payment_password: str) -> str:
    """The six digits, if they are six and not among those that are tried first."""
    digits = unchecked_payment_password
    if len(digits) != DIGITS or not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument("A payment password has six digits.", field=("paymentPassword",))
    if _is_weak(digits):
        raise InvalidArgument("This one is too easy to guess.", field=("paymentPassword",))
    return digits


async def set_payment_password(
    customer_id: uuid.UUID,
    unchecked_new: str,
    *,
    unchecked_current: str | None = None,
    unchecked_login_password: str | None = None,
) -> None:
    """Set the first one, proved by the login password, or change it, proved by the current one.

    Raises `InvalidArgument` for a weak one or a missing proof, `CredentialsInvalid` and
    `CredentialsLocked` for a wrong proof.
    """
    digits = checked_payment_password(unchecked_new)
    if await _read_hash(customer_id) is not None:
        if unchecked_current is None:
            raise InvalidArgument("The current payment password is needed.", field=("current",))
        await verify_payment_password(customer_id, unchecked_current)
    else:
        if unchecked_login_password is None:
            raise InvalidArgument("The login password is needed.", field=("loginPassword",))
        await prove_password(customer_id, unchecked_login_password)
    await _store(customer_id, digits, "PAYMENT_PASSWORD_SET")


async def request_payment_password_reset(customer_id: uuid.UUID) -> CodeRequest:
    """Send a code with which a forgotten payment password can be replaced."""
    return await codes.request_code(customer_id, CodePurpose.RESET_PAYMENT_PASSWORD)


async def reset_payment_password(
    customer_id: uuid.UUID, unchecked_code: str, unchecked_new: str, unchecked_login_password: str
) -> None:
    """Replace a forgotten one, proved by a code and the login password together."""
    digits = checked_payment_password(unchecked_new)
    await prove_password(customer_id, unchecked_login_password)
    await codes.check_code(customer_id, CodePurpose.RESET_PAYMENT_PASSWORD, unchecked_code)
    await _store(customer_id, digits, "PAYMENT_PASSWORD_RESET")


async def verify_payment_password(customer_id: uuid.UUID, unchecked_payment_password: str) -> None:
    """Return, or raise `CredentialsInvalid` with `remaining_attempts` for a wrong one, and
    `CredentialsLocked` while locked: then it was not looked at.
    """
    principal = customer(customer_id)
    password_hash = await _read_hash(customer_id)
    if password_hash is None:
        raise CredentialsInvalid("No payment password is set.")
    left = await take_guess(GUESSES, str(principal))
    if await matches(password_hash, unchecked_payment_password, "PAYMENT"):
        await clear_guesses(GUESSES, str(principal))
        return
    outcome = "LOCKED" if left == 0 else "REFUSED"
    await audit.record_security_event("PAYMENT_PASSWORD_WRONG", str(principal), outcome)
    raise CredentialsInvalid("The payment password is wrong.", remaining_attempts=left)


async def _read_hash(customer_id: uuid.UUID) -> str | None:
    principal = customer(customer_id)
    async with phase(principal):
        return await read_hash(principal, "PAYMENT")


async def _store(customer_id: uuid.UUID, digits: str, action: str) -> None:
    principal = customer(customer_id)
    password_hash = await hashed(digits, "PAYMENT")
    async with phase(principal):
        await store_hash(principal, "PAYMENT", password_hash)
        await audit.record(principal, action, str(principal))
    await clear_guesses(GUESSES, str(principal))


def _is_weak(digits: str) -> bool:
    """One digit six times, a run up or down, a part that repeats, or one of those tried first."""
    steps = {(int(after) - int(before)) % 10 for before, after in pairwise(digits)}
    repeats = digits[:2] * 3 == digits or digits[:3] * 2 == digits
    return steps <= {0} or steps == {1} or steps == {9} or repeats or digits in TRIED_FIRST
