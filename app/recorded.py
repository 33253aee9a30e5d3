"""Reads recorded transactions from Parquet or CSV, in the order in which they took place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from core.errors import InvalidArgument
from core.money import minor_units

COLUMNS = {
    "TRANSACTION_ID": pa.int64(),
    "TX_DATETIME": pa.timestamp("us"),
    "CUSTOMER_ID": pa.string(),
    "TERMINAL_ID": pa.string(),
    "TX_AMOUNT": pa.string(),
    "TX_FRAUD": pa.int8(),
}


class RecordingInvalid(Exception):
    """The file is missing or is not a recording; the text is the one line to show."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded transaction; `amount_minor` in the currency of the replay."""

    transaction_id: int
    effective_at: datetime
    customer: str
    terminal: str
    amount_minor: int
    is_fraud: bool


def read_recording(file: Path, currency: str, limit: int | None) -> list[Recorded]:
    """The first `limit` transactions by time (all when None).

    Raises `RecordingInvalid` for a file, a column or a value that is missing or wrong.
    """
    table = _typed(_read(file), file)
    order = pa.compute.sort_indices(
        table, sort_keys=[("TX_DATETIME", "ascending"), ("TRANSACTION_ID", "ascending")]
    )
    first = table.take(order[:limit] if limit is not None else order)
    try:
        return list(_rows(first, currency))
    except InvalidArgument as invalid:
        raise RecordingInvalid(f"{file}: {invalid.message} ({currency})") from None


def _read(file: Path) -> pa.Table:
    suffix = file.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise RecordingInvalid(f"{file}: a recording is a .parquet or a .csv file")
    try:
        if suffix == ".parquet":
            present = pa.parquet.read_schema(file).names
            return pa.parquet.read_table(
                file, columns=[name for name in COLUMNS if name in present]
            )
        return pa.csv.read_csv(file)
    except FileNotFoundError:
        raise RecordingInvalid(f"{file}: there is no such file") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordingInvalid(f"{file} cannot be read: {_first_line(error)}") from None


def _typed(table: pa.Table, file: Path) -> pa.Table:
    """The six columns with their types. Amounts become text, so that none is ever a float again."""
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise RecordingInvalid(f"{file} has no column {', '.join(missing)}")
    columns = []
    for name, kind in COLUMNS.items():
        column = table.column(name)
        if column.null_count:
            raise RecordingInvalid(f"{file}: {column.null_count} rows have no {name}")
        try:
            if pa.types.is_floating(column.type):
                column = _decimal_text(column)
            columns.append(column.cast(kind, safe=name != "TX_DATETIME"))
        except pa.ArrowInvalid as error:
            raise RecordingInvalid(f"{file}: wrong {name}: {_first_line(error)}") from None
        except pa.ArrowNotImplementedError:
            raise RecordingInvalid(f"{file}: {name} is {column.type}, not {kind}") from None
    return pa.table(columns, names=list(COLUMNS))


def _decimal_text(column: pa.ChunkedArray) -> pa.Array:
    """What a binary fraction stands for: a double holds 15 decimal digits, the rest is noise."""
    return pa.array([f"{value:.15g}" for value in column.to_pylist()], pa.string())


def _rows(table: pa.Table, currency: str) -> Iterator[Recorded]:
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        transaction_id, effective_at, customer, terminal, amount, fraud = row
        yield Recorded(
            transaction_id,
            effective_at.replace(tzinfo=UTC),
            customer,
            terminal,
            minor_units(amount, currency),
            bool(fraud),
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
