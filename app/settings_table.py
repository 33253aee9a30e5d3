"""`python -m app.settings_table` writes the README's table of settings; `--check` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from app.settings import settings_table

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN = "<!-- settings: written by `make schema` -->\n"
END = "<!-- end of settings -->\n"


def with_table(text: str) -> str:
    """The README with the present table; raises `ValueError` where its two marks are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README needs the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{settings_table()}{END}{after}"


def main() -> int:
    """0 if the table is (or is now) the present one, 1 if `--check` found another."""
    text = README.read_text()
    present = with_table(text)
    if text == present:
        return 0
    if "--check" in sys.argv[1:]:
        print("the README's table of settings is not the present one; run `make schema`")
        return 1
    README.write_text(present)
    return 0


if __name__ == "__main__":
    sys.exit(main())
