"""Secrets at rest: sealed with AES-256-GCM under keys derived from the master key.

Each purpose has a key of its own and is bound to the ciphertext, so that a value sealed for one use
cannot be opened for another.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core import configuration, ids

NONCE_SIZE = 12


def seal(plaintext: bytes, purpose: str) -> bytes:
    """Nonce and ciphertext of `plaintext`; only `open_sealed` with the same purpose reads it."""
    nonce = ids.random_bytes(NONCE_SIZE)
    cipher = AESGCM(derived_key(f"seal:{purpose}"))
    return nonce + cipher.encrypt(nonce, plaintext, purpose.encode())


def open_sealed(sealed: bytes, purpose: str) -> bytes:
    """What was sealed; raises `cryptography.exceptions.InvalidTag` for another key or a changed
    byte.
    """
    cipher = AESGCM(derived_key(f"seal:{purpose}"))
    return cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], purpose.encode())


def derived_key(purpose: str) -> bytes:
    """A 32-byte key for `purpose` (HKDF-SHA256 of the master key), for seals, HMACs and cursors."""
    return _derived(configuration.current().master_key, purpose)


@lru_cache(maxsize=64)
def _derived(master_key: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=f"purser:{purpose}".encode()).derive(
        master_key
    )
