"""Secrets at rest: only the same key and the same purpose open what was sealed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag

from core import configuration as installed
from core import secretbox
from core.configuration import Configuration

SECRET = b"whsec_canary"


def test_what_was_sealed_opens_for_its_purpose_alone(configuration: Configuration) -> None:
    sealed = secretbox.seal(SECRET, "webhook")
    assert SECRET not in sealed
    assert secretbox.open_sealed(sealed, "webhook") == SECRET
    with pytest.raises(InvalidTag):
        secretbox.open_sealed(sealed, "webhook2")


def test_every_byte_that_is_changed_is_noticed(configuration: Configuration) -> None:
    sealed = secretbox.seal(SECRET, "webhook")
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1
        with pytest.raises(InvalidTag):
            secretbox.open_sealed(bytes(flipped), "webhook")
    for length in range(len(sealed)):
        with pytest.raises((InvalidTag, ValueError)):
            secretbox.open_sealed(sealed[:length], "webhook")


def test_another_master_key_opens_nothing(configuration: Configuration) -> None:
    sealed = secretbox.seal(SECRET, "webhook")
    installed.install(replace(configuration, master_key=b"k" * 32))
    with pytest.raises(InvalidTag):
        secretbox.open_sealed(sealed, "webhook")


def test_the_same_secret_is_sealed_differently_each_time(configuration: Configuration) -> None:
    assert len({secretbox.seal(SECRET, "webhook") for _ in range(100)}) == 100


def test_each_purpose_has_a_key_of_its_own(configuration: Configuration) -> None:
    keys = {secretbox.derived_key(purpose) for purpose in ("a", "b", "seal:a", "")}
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)
    assert secretbox.derived_key("a") == secretbox.derived_key("a")


def test_a_configuration_shows_no_key_in_its_repr(configuration: Configuration) -> None:
    shown = repr(configuration)
    for secret in (configuration.master_key, configuration.sms_key, configuration.bank_private_key):
        assert repr(secret) not in shown
    assert configuration.database_url not in shown
