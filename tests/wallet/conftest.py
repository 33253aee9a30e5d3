"""The books of one test."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wallet.books import Books


@pytest.fixture
def books(database: Any) -> Books:
    return Books(database)
