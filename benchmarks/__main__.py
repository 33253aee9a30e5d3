"""`make bench`: everything, in at most ten minutes, with one table and all ratios at the end."""

from __future__ import annotations

import sys

import uvloop

from benchmarks import api, ledger
from benchmarks.figures import Figures, show, tell
from benchmarks.servers import Failed, started


def main() -> int:
    figures = Figures()
    try:
        with started() as stack:
            uvloop.run(ledger.measure(stack, figures, ledger.arguments()))
        with started() as stack:
            uvloop.run(api.measure(stack, figures, api.arguments().parse_args()))
    except (Failed, KeyboardInterrupt) as failed:
        tell(f"stopped: {failed}")
        return 1
    return show(figures)


if __name__ == "__main__":
    sys.exit(main())
