"""Recordings are read exactly and in order; a file that is none is explained in a line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from app.recorded import Recorded, RecordingInvalid, read_recording

NANOSECONDS = pa.timestamp("ns")
TABLE = pa.table(
    {
        "TRANSACTION_ID": pa.array([7, 3, 5], pa.int32()),
        "TX_DATETIME": pa.array(
            [datetime(2018, 4, 1, 0, 2), datetime(2018, 4, 1, 0, 1), datetime(2018, 4, 1, 0, 1)],  # noqa: DTZ001
            NANOSECONDS,
        ),
        "CUSTOMER_ID": pa.array([596, 12, 12], pa.int32()),
        "TERMINAL_ID": pa.array([3156, 1, 2], pa.int32()),
        "TX_AMOUNT": pa.array([57.160000000000004, 0.29, 1234567.0], pa.float64()),
        "TX_FRAUD": pa.array([1, 0, 0], pa.int8()),
        "TX_FRAUD_SCENARIO": pa.array([2, 0, 0], pa.int8()),
    }
)
EXPECTED = [
    Recorded(3, datetime(2018, 4, 1, 0, 1, tzinfo=UTC), "12", "1", 29, False),
    Recorded(5, datetime(2018, 4, 1, 0, 1, tzinfo=UTC), "12", "2", 123_456_700, False),
    Recorded(7, datetime(2018, 4, 1, 0, 2, tzinfo=UTC), "596", "3156", 5_716, True),
]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_recording_is_read_in_the_order_of_time_with_exact_amounts(
    tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"recording.{suffix}"
    if suffix == "parquet":
        pa.parquet.write_table(TABLE, file)
    else:
        pa.csv.write_csv(TABLE, file)
    assert read_recording(file, "EUR", None) == EXPECTED
    assert read_recording(file, "EUR", 2) == EXPECTED[:2]


def test_a_missing_file_and_another_kind_of_file_are_explained(tmp_path: Path) -> None:
    assert _problem(tmp_path / "none.parquet").endswith("there is no such file")
    assert _problem(tmp_path / "none.xlsx").endswith("a recording is a .parquet or a .csv file")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"this is no Parquet")
    assert "cannot be read" in _problem(broken)


def test_a_missing_or_wrong_column_is_named(tmp_path: Path) -> None:
    file = tmp_path / "recording.parquet"
    pa.parquet.write_table(TABLE.drop_columns(["TX_AMOUNT", "TERMINAL_ID"]), file)
    assert _problem(file).endswith("has no column TERMINAL_ID, TX_AMOUNT")
    wrong = TABLE.set_column(1, "TX_DATETIME", pa.array(["yesterday", "today", "now"]))
    pa.parquet.write_table(wrong, file)
    assert "TX_DATETIME" in _problem(file)
    empty = TABLE.set_column(5, "TX_FRAUD", pa.array([1, None, 0], pa.int8()))
    pa.parquet.write_table(empty, file)
    assert _problem(file).endswith("1 rows have no TX_FRAUD")


def test_an_amount_finer_than_the_currency_is_refused_and_not_rounded(tmp_path: Path) -> None:
    file = tmp_path / "recording.parquet"
    pa.parquet.write_table(TABLE, file)
    assert "finer than the currency's minor unit" in _problem(file, "JPY")
    assert "not supported" in _problem(file, "EURO")


def _problem(file: Path, currency: str = "EUR") -> str:
    with pytest.raises(RecordingInvalid) as caught:
        read_recording(file, currency, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)
