"""Arrow tables that are written one after another: to a file, or as CSV to standard output."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitlab._app.io.outputs import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa


def is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def print_csv(tables: Iterable["pa.Table"]) -> None:
    from pyarrow import csv

    _write(tables, lambda schema: csv.CSVWriter(sys.stdout.buffer, schema))


def write_file(tables: Iterable["pa.Table"], path: Path) -> int:
    """Write a .csv or .parquet file, atomically; return the number of rows."""
    from pyarrow import csv, parquet

    writer = csv.CSVWriter if is_csv(path) else parquet.ParquetWriter
    with atomic_write(path) as temporary:
        return _write(tables, lambda schema: writer(temporary, schema))


def _write(tables: Iterable["pa.Table"], open_writer: Callable[[Any], Any]) -> int:
    """Write tables of one schema; return the number of their rows."""
    count, writer = 0, None
    try:
        for table in tables:
            writer = writer or open_writer(table.schema)
            writer.write_table(table)
            count += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return count
