"""The one error of starting something: a line that says what to do, and no traceback."""

from __future__ import annotations


class CannotStart(Exception):
    """What stands in the way, in one line without a secret in it."""
