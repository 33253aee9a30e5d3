"""Passwords as Argon2id hashes of a peppered form, made and checked off the event loop.

The pepper is derived from the master key and never enters the database. Hashing is dear on purpose,
so it has a small pool of threads and a short queue: what does not fit is refused, nothing happened.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import unicodedata
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

from core import ids
from core.errors import InvalidArgument, ServerBusy
from core.phase import statement
from core.principal import Principal
from core.secretbox import derived_key
from identity.models import Credential

CredentialKind = Literal["LOGIN", "PAYMENT"]
PASSWORD_LENGTH_MIN = 8
PASSWORD_LENGTH_MAX = 256
THREADS = 2
WAITING_MAX = 64
TOO_COMMON = frozenset(
    {
        "password",
        "password1",
        "password123",
        "passw0rd",
        "qwerty123",
        "qwertyuiop",
        "1q2w3e4r",
        "1qaz2wsx",
        "iloveyou",
        "letmein1",
        "welcome1",
        "administrator",
        "superman",
        "football",
        "baseball",
        "trustno1",
        "sunshine",
        "princess",
        "woaini1314",
        "a123456789",
        "asdfghjkl",
        "zxcvbnm123",
        "changeme",
        "secret123",
    }
)

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
_threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="argon2")
_waiting_count = 0
_Result = TypeVar("_Result")


def checked_password(unchecked_password: str, *, field: str = "password") -> str:
    """The password in its canonical form, if it is long enough and not one that is tried first."""
    if len(unchecked_password) > PASSWORD_LENGTH_MAX:
        raise InvalidArgument("The password is too long.", field=(field,))
    password = unicodedata.normalize("NFKC", unchecked_password)
    if len(password) < PASSWORD_LENGTH_MIN:
        raise InvalidArgument("The password needs at least 8 characters.", field=(field,))
    sequence = password in "01234567890123456789" or password in "98765432109876543210"
    if len(set(password)) < 3 or sequence or password.lower() in TOO_COMMON:
        raise InvalidArgument("This password is too easy to guess.", field=(field,))
    return password


async def hashed(password: str, kind: CredentialKind) -> str:
    """The hash to keep. Raises `ServerBusy` when too many are waiting."""
    peppered = _peppered(password, kind)
    return await _off_the_loop(lambda: _hasher.hash(peppered))


async def matches(password_hash: str | None, unchecked_password: str, kind: CredentialKind) -> bool:
    """Whether the password fits. With no hash the same work is done for nothing, and the answer is
    no.
    """
    peppered = _peppered(unchecked_password[: PASSWORD_LENGTH_MAX + 1], kind)
    known = password_hash is not None
    to_check = password_hash if password_hash is not None else _nobodys_hash()
    return await _off_the_loop(lambda: _verify(to_check, peppered)) and known


async def read_hash(owner: Principal, kind: CredentialKind) -> str | None:
    """The owner's hash, in a phase of the owner or the system; None where there is none."""
    row = await Credential.get_or_none(credential_id=_credential_id(owner, kind))
    return row.password_hash if row is not None else None


async def store_hash(owner: Principal, kind: CredentialKind, password_hash: str) -> None:
    """Set or replace the owner's hash, in a phase of the owner or the system."""
    await statement(
        """INSERT INTO credential (credential_id, owner_kind, owner_id, kind, password_hash)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (credential_id)
        DO UPDATE SET password_hash = excluded.password_hash, changed_at = purser_now()""",
        _credential_id(owner, kind),
        owner.kind,
        owner.id,
        kind,
        password_hash,
    )


def _credential_id(owner: Principal, kind: CredentialKind) -> uuid.UUID:
    return ids.hashed_id("credential", str(owner), kind)


def _peppered(password: str, kind: CredentialKind) -> bytes:
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return hmac.digest(derived_key(f"password-pepper:{kind}"), text, hashlib.sha256)


def _verify(password_hash: str, peppered: bytes) -> bool:
    try:
        return _hasher.verify(password_hash, peppered)
    except VerifyMismatchError:
        return False


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    """A hash with our parameters that no password fits, for the time that a check takes."""
    return _hasher.hash(ids.random_bytes(32))


async def _off_the_loop(work: Callable[[], _Result]) -> _Result:
    global _waiting_count
    if _waiting_count >= WAITING_MAX:
        raise ServerBusy()
    _waiting_count += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, work)
    finally:
        _waiting_count -= 1
