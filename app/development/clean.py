"""`make clean`: remove the home of the development stack, with the data it keeps elsewhere."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from app import settings
from app.development.home import locked
from app.development.refusal import CannotStart


def clean(folder: Path) -> None:
    """Stop what a killed run left and remove everything. Raises `CannotStart` while a run is up."""
    if not folder.exists():
        return
    with locked(folder) as home:
        home.stop_leftovers()
        elsewhere = home.folder / "postgres-folder"
        if elsewhere.exists():
            shutil.rmtree(elsewhere.read_text().strip(), ignore_errors=True)
        shutil.rmtree(home.folder)


if __name__ == "__main__":
    try:
        clean(settings.place().home)
    except CannotStart as refusal:
        print(f"purser: {refusal}", file=sys.stderr)
        sys.exit(1)
