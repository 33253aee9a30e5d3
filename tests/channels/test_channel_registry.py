"""Channels are found by name, and an incomplete or doubled one stops the start."""

from __future__ import annotations

from types import ModuleType

import pytest

from channels import bank, registry
from channels.contract import InstructionKind
from core.money import Money


def module_like(name: str, **changes: object) -> ModuleType:
    """A module with all names of the bank's, some of them changed or (None) removed."""
    module = ModuleType(name)
    vars(module).update(vars(bank))
    for attribute, value in changes.items():
        setattr(module, attribute, value)
    module.__name__ = name
    return module


def test_the_bank_is_found_and_its_simulator_is_not_imported_for_it():
    assert set(registry.channels()) == {"bank"}
    assert registry.channel("bank") is bank
    assert registry.channel("none") is None


def test_two_channels_with_one_code_stop_the_start():
    with pytest.raises(RuntimeError, match="two channels have the code bank"):
        registry.checked([bank, module_like("channels.other")])


@pytest.mark.parametrize("name", [*registry.COROUTINES, *registry.FUNCTIONS])
def test_a_channel_without_one_of_its_functions_stops_the_start(name):
    with pytest.raises(RuntimeError, match=name):
        registry.checked([module_like("channels.other", **{name: None})])


def test_a_channel_whose_call_is_not_a_coroutine_stops_the_start():
    with pytest.raises(RuntimeError, match="invoke"):
        registry.checked([module_like("channels.other", invoke=lambda instruction: None)])


def test_a_profile_of_another_kind_and_no_channel_at_all_stop_the_start():
    with pytest.raises(RuntimeError):
        registry.checked([module_like("channels.other", CHANNEL="bank")])
    with pytest.raises(RuntimeError):
        registry.checked([])


@pytest.mark.parametrize(
    ("amount_minor", "currency", "carried"),
    [
        (1, "CNY", True),
        (0, "CNY", False),
        (5_000_000_00, "CNY", True),
        (5_000_000_01, "CNY", False),
        (1, "JPY", False),
    ],
)
def test_a_channel_carries_what_its_profile_says(amount_minor, currency, carried):
    money = Money(amount_minor, currency)
    assert bank.CHANNEL.carries(InstructionKind.PAY_IN, money) is carried
