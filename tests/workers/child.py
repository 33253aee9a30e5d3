"""A worker process of a test: installs the configuration it is given and serves."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from pathlib import Path

from core import configuration, phase
from workers.serve import serve


def main() -> int:
    kind, path = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    configuration.install(pickle.loads(Path(path).read_bytes()))
    real_connect = phase.connect

    async def connect(*arguments: object, **named: object) -> None:
        await real_connect(*arguments, **named)  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(0.2, logging.info, "ready")

    phase.connect = connect  # type: ignore[assignment]
    return serve(kind)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
