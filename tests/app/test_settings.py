"""Settings come from the environment; what is missing or wrong is one line, without the secret."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app import settings
from app.settings import Settings, SettingsInvalid

Given = dict[str, str]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """Settings that hold, set in the environment of a test that has no others."""
    for name in list(os.environ):
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)
    key = Ed25519PrivateKey.generate()
    private = tmp_path / "private.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = tmp_path / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    shared = tmp_path / "shared"
    shared.write_text("a key shared with the provider\n")
    values = {
        "PURSER_HOME": str(tmp_path / "home"),
        "PURSER_ENVIRONMENT": "sandbox",
        "PURSER_PUBLIC_URL": "https://pay.example.com/",
        "PURSER_DATABASE_URL": "postgresql://purser_app:hunter2@db.example.com/purser",
        "PURSER_REDIS_URL": "redis://:hunter2@cache.example.com/0",
        "PURSER_MASTER_KEY": base64.b64encode(bytes(range(32))).decode(),
        "PURSER_BANK_URL": "https://bank.example.com",
        "PURSER_BANK_PRIVATE_KEY_FILE": str(private),
        "PURSER_BANK_PUBLIC_KEY_FILE": str(public),
        "PURSER_SMS_URL": "https://sms.example.com/messages",
        "PURSER_SMS_KEY_FILE": str(shared),
        "PURSER_RISK_MODEL_DIRECTORY": str(tmp_path / "models"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def test_settings_become_the_configuration_of_the_packages(given: Given) -> None:
    configuration = settings.read(Settings).configuration()
    assert configuration.master_key == bytes(range(32))
    assert configuration.public_url == configuration.token_issuer == "https://pay.example.com"
    assert configuration.sms_key == b"a key shared with the provider"
    assert configuration.order_expiry_seconds == 1_800
    assert not configuration.replay_allowed


def test_a_configuration_shows_no_secret(given: Given) -> None:
    read = settings.read(Settings)
    assert "hunter2" not in f"{read!r} {read.configuration()!r}"


def test_all_that_is_missing_stands_in_one_line(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PURSER_DATABASE_URL")
    monkeypatch.delenv("PURSER_BANK_URL")
    assert _problem() == "PURSER_DATABASE_URL is missing; PURSER_BANK_URL is missing"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PURSER_ENVIRONMENT", "production", "PURSER_ENVIRONMENT Input should be 'development'"),
        ("PURSER_DATABASE_URL", "mysql://u:hunter2@h/d", "PURSER_DATABASE_URL must look like"),
        ("PURSER_REDIS_URL", "http://:hunter2@h", "PURSER_REDIS_URL must look like"),
        ("PURSER_PUBLIC_URL", "pay.example.com", "PURSER_PUBLIC_URL must be an http or https URL"),
        ("PURSER_MASTER_KEY", "hunter2", "PURSER_MASTER_KEY is not base64"),
        ("PURSER_MASTER_KEY", "aHVudGVyMg==", "PURSER_MASTER_KEY must hold 32 bytes, not 7"),
        ("PURSER_POOL_SIZE", "many", "PURSER_POOL_SIZE Input should be a valid integer"),
        ("PURSER_POOL_SIZE", "0", "PURSER_POOL_SIZE Input should be greater than or equal to 1"),
        ("PURSER_BANK_PRIVATE_KEY_FILE", "/nowhere", "PURSER_BANK_PRIVATE_KEY_FILE names a file"),
        ("PURSER_POOLSIZE", "5", "PURSER_POOLSIZE is not a setting of Purser"),
    ],
)
def test_a_malformed_setting_is_named_and_its_value_is_not_shown(
    given: Given, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    problem = _problem()
    assert problem.startswith(says)
    assert "\n" not in problem
    assert "hunter2" not in problem
    assert "aHVudGVyMg" not in problem


def test_the_master_key_is_given_once(
    given: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PURSER_MASTER_KEY_FILE", str(tmp_path / "key"))
    assert "only one of them" in _problem()
    (tmp_path / "key").write_text(given["PURSER_MASTER_KEY"] + "\n")
    monkeypatch.delenv("PURSER_MASTER_KEY")
    assert settings.read(Settings).configuration().master_key == bytes(range(32))
    monkeypatch.delenv("PURSER_MASTER_KEY_FILE")
    assert "must be set" in _problem()


def test_a_key_of_another_kind_is_refused(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURSER_BANK_PUBLIC_KEY_FILE", given["PURSER_BANK_PRIVATE_KEY_FILE"])
    assert "PURSER_BANK_PUBLIC_KEY_FILE does not hold an Ed25519 public key" in _problem()
    monkeypatch.setenv("PURSER_BANK_PUBLIC_KEY_FILE", given["PURSER_BANK_PUBLIC_KEY_FILE"])
    monkeypatch.setenv("PURSER_BANK_PRIVATE_KEY_FILE", given["PURSER_SMS_KEY_FILE"])
    assert "PURSER_BANK_PRIVATE_KEY_FILE does not hold" in _problem()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PURSER_REPLAY_ALLOWED", "true"),
        ("PURSER_WEBHOOK_LOOPBACK_ADDRESSES", "127.0.0.1:9000"),
        ("PURSER_CRASH_POINT", "outbox_leased"),
        ("PURSER_PUBLIC_URL", "http://pay.example.com"),
    ],
)
def test_a_live_environment_refuses_what_is_made_for_tests(
    given: Given, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    settings.read(Settings)
    monkeypatch.setenv("PURSER_ENVIRONMENT", "live")
    assert _problem().startswith(name)


def test_a_running_stack_tells_other_terminals_its_settings(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(given["PURSER_HOME"])
    home.mkdir()
    (home / "environment").write_text("PURSER_POOL_SIZE='33'\nPURSER_BANK_URL='https://other'\n")
    monkeypatch.delenv("PURSER_BANK_URL")
    read = settings.read(Settings)
    assert read.pool_size == 33
    assert read.bank_url == "https://other"
    monkeypatch.setenv("PURSER_POOL_SIZE", "44")
    assert settings.read(Settings).pool_size == 44


def test_lists_are_written_with_commas(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURSER_WEBHOOK_LOOPBACK_ADDRESSES", "127.0.0.1:9000, 127.0.0.1:9001")
    addresses = settings.read(Settings).webhook_loopback_addresses
    assert addresses == ("127.0.0.1:9000", "127.0.0.1:9001")


def _problem() -> str:
    with pytest.raises(SettingsInvalid) as caught:
        settings.read(Settings).configuration()
    return str(caught.value)
