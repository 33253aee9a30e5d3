"""One-time codes. The API only asks for one; the digits are made by the worker that sends them.

So no row, job or log ever holds a code in clear: here stands a keyed digest. A code is bound to
what it confirms, is good for one use, few tries and five minutes, and a new one replaces the old.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from core import audit, ids, outbox
from core.errors import CredentialsInvalid
from core.phase import phase, statement
from core.principal import SYSTEM, customer
from core.secretbox import derived_key
from identity.addresses import Address, AddressKind, address_of, masked, prefix
from identity.limits import Guesses, Permits, clear_guesses, take_guess, take_permit
from identity.models import Customer

CODE_DIGITS = 6
CODE_SECONDS = 300
ISSUES_MAX = 3
"""A worker that died after making a code makes another one; more often than this it gives up."""

GUESSES = Guesses("code", guesses_max=10)
TO_ONE_ADDRESS = Permits("code:address", permits_max=10, window_seconds=3_600)
TO_ONE_PREFIX = Permits("code:prefix", permits_max=100, window_seconds=3_600)
"""For phones: messages to a block of numbers may earn somebody money, mails to a domain do not."""

SEND_CODE_JOB = "send_code"


class CodePurpose(StrEnum):
    """What a code confirms; one made for one purpose is worth nothing for another."""

    REGISTER = "REGISTER"
    RESET_PASSWORD = "RESET_PASSWORD"
    RESET_PAYMENT_PASSWORD = "RESET_PAYMENT_PASSWORD"
    CHALLENGE = "CHALLENGE"


OPEN_TO_STRANGERS = frozenset({CodePurpose.REGISTER, CodePurpose.RESET_PASSWORD})
"""Counted apart, so that a stranger who knows an address cannot use up or lock what its owner needs
to pay."""


class CodeGone(CredentialsInvalid):
    """There is no code to guess at: used, replaced, expired, or never made.

    From outside it looks like a wrong one; whoever counts wrong answers need not count it.
    """


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """A code that is on its way."""

    code_id: uuid.UUID
    destination_masked: str
    expires_seconds: int = CODE_SECONDS


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """A fresh code, for the SMS and nothing else."""

    destination: Address
    code: str = field(repr=False)
    purpose: CodePurpose
    expires_seconds: int = CODE_SECONDS


def binding_of(*parts: object) -> str:
    """SHA-256 of what a code confirms (order, amount, currency, payee): any change makes another
    one.
    """
    joined = "\x00".join(f"{len(text)}:{text}" for text in map(str, parts))
    return hashlib.sha256(joined.encode()).hexdigest()


async def request_code(
    customer_id: uuid.UUID,
    purpose: CodePurpose,
    *,
    resource_id: uuid.UUID | None = None,
    binding: str = "",
    tries_max: int = 5,
) -> CodeRequest:
    """Ask for a code to the customer's own address; it replaces an earlier one for the same.

    Raises `Throttled` beyond the limits of the address or its prefix, `CredentialsInvalid` for a
    customer without an address.
    """
    async with phase(customer(customer_id)):
        row = await Customer.get_or_none(customer_id=customer_id)
        destination = address_of(row.phone, row.email) if row is not None else None
        if destination is None:
            raise CredentialsInvalid("There is no address to send a code to.")
        return await add_request(
            customer_id,
            purpose,
            destination,
            resource_id=resource_id,
            binding=binding,
            tries_max=tries_max,
        )


async def add_request(
    customer_id: uuid.UUID,
    purpose: CodePurpose,
    destination: Address,
    *,
    resource_id: uuid.UUID | None = None,
    binding: str = "",
    tries_max: int = 5,
    addressed: bool = True,
) -> CodeRequest:
    """The same in the customer's phase that is open, to an address that is given.

    With `addressed=False` everything looks alike but no code is ever made: the answer to a stranger
    who asks about an address that nobody has.
    """
    # The permit of the address is a row lock until the commit: requests for one address queue here.
    await take_permit(TO_ONE_ADDRESS, _counted(destination.value, purpose))
    if destination.kind == "PHONE":
        await take_permit(TO_ONE_PREFIX, prefix(destination.value))
    code_id = ids.new_id()
    await statement(
        """UPDATE one_time_code SET state = 'REPLACED'
        WHERE customer_id = $1 AND purpose = $2 AND resource_id = $3
          AND state IN ('REQUESTED', 'ISSUED', 'UNADDRESSED')""",
        customer_id,
        purpose,
        resource_id or customer_id,
    )
    await statement(
        """INSERT INTO one_time_code (code_id, customer_id, purpose, resource_id, binding,
            destination_kind, destination, state, tries_count, tries_max, issues_count, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, 0,
            purser_now() + $10 * interval '1 second')""",
        code_id,
        customer_id,
        purpose,
        resource_id or customer_id,
        binding,
        destination.kind,
        destination.value,
        "REQUESTED" if addressed else "UNADDRESSED",
        tries_max,
        CODE_SECONDS,
    )
    await outbox.add(
        outbox.Event(
            topic="code.requested",
            resource_kind="code",
            resource_id=code_id,
            customer_ids=(customer_id,),
            job=SEND_CODE_JOB if addressed else None,
        )
    )
    return CodeRequest(code_id, masked(destination))


async def issue(code_id: uuid.UUID) -> IssuedCode | None:
    """Make the digits for a requested code, keep their digest and return them for the SMS port.

    A second call makes other digits, which replace the first. None: there is nothing to send any
    more.
    """
    code = ids.random_digits(CODE_DIGITS)
    async with phase(SYSTEM):
        rows = await statement(
            """UPDATE one_time_code
            SET state = 'ISSUED', code_digest = $2, issues_count = issues_count + 1,
                expires_at = purser_now() + $3 * interval '1 second'
            WHERE code_id = $1 AND state IN ('REQUESTED', 'ISSUED') AND issues_count < $4
              AND expires_at > purser_now()
            RETURNING destination_kind, destination, purpose""",
            code_id,
            _digest(code_id, code),
            CODE_SECONDS,
            ISSUES_MAX,
        )
    if not rows:
        return None
    kind, destination, purpose = rows[0]
    return IssuedCode(Address(cast("AddressKind", kind), destination), code, CodePurpose(purpose))


async def check_code(
    customer_id: uuid.UUID,
    purpose: CodePurpose,
    unchecked_code: str,
    *,
    resource_id: uuid.UUID | None = None,
    binding: str = "",
) -> None:
    """Use up the code, or raise `CredentialsInvalid` with `remaining_attempts` (of this code), its
    kind `CodeGone` where there is none, or `CredentialsLocked` after ten wrong ones, when it is not
    looked at any more.

    The try is committed before the digits are compared, and only one caller can use a code. A code
    that was made for another binding is void from then on.
    """
    principal = customer(customer_id)
    async with phase(principal):
        rows = await statement(
            """UPDATE one_time_code
            SET tries_count = tries_count + 1,
                state = CASE WHEN binding = $4 THEN state ELSE 'VOID' END
            WHERE customer_id = $1 AND purpose = $2 AND resource_id = $3
              AND state IN ('REQUESTED', 'ISSUED', 'UNADDRESSED')
              AND expires_at > purser_now() AND tries_count < tries_max
            RETURNING code_id, code_digest, state, tries_max - tries_count AS tries_left""",
            customer_id,
            purpose,
            resource_id or customer_id,
            binding,
        )
        if rows:
            await take_guess(GUESSES, _counted(customer_id, purpose))
    if not rows:
        raise CodeGone("The code is wrong or has expired.", remaining_attempts=0)
    code_id, code_digest, state, tries_left = rows[0]
    expected = code_digest if state == "ISSUED" else None
    given = _digest(code_id, unchecked_code)
    if hmac.compare_digest(expected or "nothing", given):
        await clear_guesses(GUESSES, _counted(customer_id, purpose))
        if await _use(customer_id, code_id):
            return
        raise CodeGone("The code is wrong or has expired.", remaining_attempts=0)
    await audit.record_security_event("CODE_WRONG", str(principal), "REFUSED", purpose=purpose)
    left = 0 if state == "VOID" else tries_left
    raise CredentialsInvalid("The code is wrong or has expired.", remaining_attempts=left)


async def _use(customer_id: uuid.UUID, code_id: uuid.UUID) -> bool:
    """Whether this caller is the one that used the code; a replaced one cannot be used any more."""
    async with phase(customer(customer_id)):
        return bool(
            await statement(
                """UPDATE one_time_code SET state = 'USED'
                WHERE code_id = $1 AND state = 'ISSUED' RETURNING code_id""",
                code_id,
            )
        )


def _counted(subject: object, purpose: CodePurpose) -> str:
    return f"{subject} {'strangers' if purpose in OPEN_TO_STRANGERS else 'owner'}"


def _digest(code_id: uuid.UUID, code: str) -> str:
    text = f"{code_id}:{code}".encode("utf-8", "surrogatepass")
    return hmac.new(derived_key("one-time-code"), text, hashlib.sha256).hexdigest()
