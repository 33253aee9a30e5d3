"""Where a running `make run` listens, and who takes part: read from its home, `.purser` by default.

The examples need this to know an address and a merchant. A client of a real installation does not.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Running:
    """`merchant_key` is the private half of the key whose public half Purser knows as `key_id`."""

    url: str
    simulator_url: str
    merchant_id: str
    key_id: str
    merchant_key: Ed25519PrivateKey = field(repr=False)


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser that knows `--home`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--home", type=Path, default=Path(".purser"), help="PURSER_HOME of the run")
    return parser


def running(home: Path) -> Running:
    """The run that is up in `home`; ends the program with one line where none is."""
    try:
        lines = (home / "environment").read_text().splitlines()
        parties = json.loads((home / "demonstration.json").read_text())
    except FileNotFoundError as missing:
        sys.exit(f"{missing.filename} is not there: start `make run` and wait for `ready`")
    settings = dict(line.split("=", 1) for line in lines)
    key = base64.b64decode(parties["private_key"])
    return Running(
        url=settings["PURSER_PUBLIC_URL"].strip("'"),
        simulator_url=settings["PURSER_SIMULATOR_PUBLIC_URL"].strip("'"),
        merchant_id=parties["merchant_id"],
        key_id=parties["key_id"],
        merchant_key=Ed25519PrivateKey.from_private_bytes(key),
    )
