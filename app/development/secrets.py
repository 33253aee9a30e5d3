"""The keys and passwords of one home: made at its first run, kept in files that we alone read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from app.development.home import Home, write_private
from core import ids


@dataclass(frozen=True, slots=True)
class Secrets:
    """Files with keys; passwords as text, safe in a URL."""

    master_key: Path
    bank_private_key: Path
    bank_public_key: Path
    client_private_key: Path
    client_public_key: Path
    sms_key: Path
    admin_token: Path
    owner_password: str
    application_password: str
    valkey_password: str


def secrets_of(home: Home) -> Secrets:
    """The secrets of a home; what is missing is made."""
    bank_private_key, bank_public_key = _key_pair(home, "bank")
    client_private_key, client_public_key = _key_pair(home, "client")
    return Secrets(
        master_key=home.secret("master_key", lambda: base64.b64encode(ids.random_bytes(32))),
        bank_private_key=bank_private_key,
        bank_public_key=bank_public_key,
        client_private_key=client_private_key,
        client_public_key=client_public_key,
        sms_key=home.secret("sms_key", _token),
        admin_token=home.secret("simulator_admin_token", _token),
        owner_password=_text(home, "postgres_owner_password", _token),
        application_password=_text(home, "postgres_application_password", _token),
        valkey_password=_text(home, "valkey_password", _token),
    )


def _key_pair(home: Home, name: str) -> tuple[Path, Path]:
    private = home.secret(f"{name}_private_key.pem", _private_document)
    public = private.with_name(f"{name}_public_key.pem")
    if not public.exists():
        key = load_pem_private_key(private.read_bytes(), None)
        document = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_private(public, document)
    return private, public


def _private_document() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _text(home: Home, name: str, make: Callable[[], bytes]) -> str:
    return home.secret(name, make).read_text()


def _token() -> bytes:
    return ids.random_token(32).encode()
