"""The champion of this process: loaded when the process starts, or at its first payment."""

from __future__ import annotations

import logging
from pathlib import Path

from core import configuration
from risk_model.registry import load_champion
from risk_model.scoring import Scorer, Unavailable

log = logging.getLogger(__name__)

_loaded: tuple[Path, Scorer | Unavailable] | None = None


def current() -> Scorer | Unavailable:
    """The champion of the configured directory, or why there is none."""
    directory = configuration.current().risk_model_directory
    if _loaded is None or _loaded[0] != directory:
        return reload()
    return _loaded[1]


def reload() -> Scorer | Unavailable:
    """Load the champion anew, as it is now; called at start-up, so that no payer waits for it."""
    global _loaded
    directory = configuration.current().risk_model_directory
    found = load_champion(directory)
    if isinstance(found, Unavailable):
        log.warning("no risk model, rules decide: %s %s", found.reason, found.detail)
    else:
        log.info("risk model %s is loaded", found.model.version)
    _loaded = (directory, found)
    return found
