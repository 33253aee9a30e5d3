"""The channels that exist, found by name: every module of this folder that declares a `CHANNEL`.

A file that declares one and lacks a function, or takes another's code, stops the start.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import cast

import channels as package
from channels.contract import Channel, ChannelProfile

COROUTINES = ("invoke", "query", "close")
FUNCTIONS = ("parse_callback", "acknowledge", "parse_statement")


@cache
def channels() -> dict[str, Channel]:
    """Every channel by its code. Raises `RuntimeError` for an incomplete or doubled one."""
    found = [module for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    names = sorted(module.name for module in found)
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return checked([module for module in modules if hasattr(module, "CHANNEL")])


def channel(code: str) -> Channel | None:
    """The channel with this code, if there is one."""
    return channels().get(code)


def checked(modules: list[ModuleType]) -> dict[str, Channel]:
    """The modules by the code that each declares, if all of them are complete."""
    by_code: dict[str, Channel] = {}
    for module in modules:
        profile = module.CHANNEL
        if not isinstance(profile, ChannelProfile):
            raise RuntimeError(f"{module.__name__}.CHANNEL is not a channel profile")
        for name in COROUTINES + FUNCTIONS:
            function = getattr(module, name, None)
            if inspect.iscoroutinefunction(function) != (name in COROUTINES) or not callable(
                function
            ):
                raise RuntimeError(f"{module.__name__} has no function {name}")
        if profile.code in by_code:
            raise RuntimeError(f"two channels have the code {profile.code}")
        by_code[profile.code] = cast("Channel", module)
    if not by_code:
        raise RuntimeError("there is no channel")
    return by_code
