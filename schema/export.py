"""`python -m schema.export` writes the committed `schema.graphql`; `--check` only compares.

The file is sorted, so that a change of the API reads as a change of the file and nothing else.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from graphql import build_schema, lexicographic_sort_schema, print_schema

SNAPSHOT = Path(__file__).with_name("schema.graphql")


def current_sdl() -> str:
    """The SDL of the schema that the server would run, sorted.

    The root types live with the resolvers, which this package may not know: the command alone,
    which stands outside of both, brings the two together.
    """
    schema = importlib.import_module("resolvers.root").make_schema()
    return print_schema(lexicographic_sort_schema(build_schema(schema.as_str()))) + "\n"


def main() -> int:
    """0 if the snapshot is (or is now) the present schema, 1 if `--check` found another."""
    present = current_sdl()
    if "--check" not in sys.argv[1:]:
        SNAPSHOT.write_text(present)
        return 0
    if SNAPSHOT.exists() and SNAPSHOT.read_text() == present:
        return 0
    print("schema.graphql is not the present schema; run `make schema` and look at the difference")
    return 1


if __name__ == "__main__":
    sys.exit(main())
