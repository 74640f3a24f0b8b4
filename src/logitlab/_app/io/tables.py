"""Logits and labels in the columns of .csv and .parquet files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import NUMBERS, TABLES, Logits, UserError, pick, plain_errors


def is_tabular(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def read_csv(path: Path) -> Any:
    """A table; a first line of numbers is data, unless it counts the columns as pandas does."""
    from pyarrow import csv

    table = csv.read_csv(path)
    if table.num_columns == 1:
        _refuse_blank_lines(path)
    header = table.column_names
    try:
        numbers = [float(name) for name in header]
    except ValueError:
        check_names(path, header)
        return table
    if numbers == list(range(len(header))):
        return table
    return csv.read_csv(path, read_options=csv.ReadOptions(autogenerate_column_names=True))


def _refuse_blank_lines(path: Path) -> None:
    """In a single column they could be rows without a value; Arrow would leave them out."""
    for number, line in enumerate(path.read_bytes().rstrip().splitlines(), 1):
        if not line.strip():
            raise UserError(f"{path}: line {number} is blank")


def check_names(path: Path, names: Sequence[str]) -> None:
    """No two columns of one name; those without a name are not used."""
    twice = [name for name, n in Counter(names).items() if name and n > 1]
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0]!r}")


def _columns(path: Path, name: str | None, held: Sequence[str], besides: str | None) -> list[str]:
    """The columns of the logits: those named, or all but the labels and an unnamed index."""
    if name is None:
        chosen = [column for column in held if column not in ("", besides)]
    else:
        chosen = [name] if name in held else name.split(",")
    for column in chosen:
        pick(path, column, held)
    return chosen


def _numeric(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_floating(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def table_logits(path: Path, name: str | None, besides: str | None) -> Logits:
    from pyarrow import parquet, types

    with plain_errors(path):
        if path.suffix.lower() == ".csv":
            table = read_csv(path)
            schema, rows = table.schema, table.num_rows
        else:
            file = parquet.ParquetFile(path)
            schema, rows = file.schema_arrow, file.metadata.num_rows
            check_names(path, schema.names)
    columns = _columns(path, name, schema.names, besides)
    kinds = [schema.field(column).type for column in columns]
    lists = len(kinds) == 1 and (
        types.is_list(kinds[0])
        or types.is_large_list(kinds[0])
        or types.is_fixed_size_list(kinds[0])
    )
    for column, kind in zip(columns, kinds, strict=True):
        if not _numeric(kind.value_type if lists else kind):
            raise UserError(
                f"{path}: column {column!r} holds {kind}, not numbers; "
                f"name the columns of the logits: {path}:A,B,C"
            )

    def dense(batch: Any) -> NDArray[Any]:
        if not lists:
            parts = [batch.column(column).to_numpy(zero_copy_only=False) for column in columns]
            return np.stack([p.astype(float) if p.dtype == object else p for p in parts], axis=-1)
        cells = batch.column(columns[0])
        flat = cells.flatten().to_numpy(zero_copy_only=False)
        width, rest = divmod(len(flat), max(len(cells), 1))
        if rest or cells.null_count or set(cells.value_lengths().unique().to_pylist()) != {width}:
            raise UserError(f"{path}: the lists of column {columns[0]!r} differ in length")
        rows: NDArray[Any] = flat.reshape(-1, width)
        return rows

    def batches(size: int) -> Iterator[NDArray[Any]]:
        with plain_errors(path):
            source = (
                table.select(columns).to_batches(max_chunksize=size)
                if path.suffix.lower() == ".csv"
                else parquet.ParquetFile(path).iter_batches(size, columns=columns)
            )
            yield from (dense(batch) for batch in source if batch.num_rows)

    first = next(batches(1), np.empty((0, len(columns))))
    classes = first.shape[1]
    dtype = (
        np.result_type(*(kind.to_pandas_dtype() for kind in kinds)) if not lists else first.dtype
    )
    dtype = np.dtype(dtype) if dtype.kind in NUMBERS else np.dtype(np.float64)
    step = max(1, (1 << 18) // max(classes, 1))

    def read() -> Iterator[NDArray[Any]]:
        for z in batches(step):
            if z.shape[1] != classes:
                raise UserError(f"{path}: the lists of column {columns[0]!r} differ in length")
            # A gap in a column of integers makes its batch floating.
            yield z if z.dtype.kind == "f" and dtype.kind != "f" else z.astype(dtype, copy=False)

    return Logits(str(path), (rows, classes), dtype, None if lists else tuple(columns), read)


def label_column(path: Path, name: str | None) -> NDArray[Any]:
    from pyarrow import parquet, types

    with plain_errors(path):
        if path.suffix.lower() == ".csv":
            table = read_csv(path)
            held = [column for column in table.column_names if column]
            column = table.column(pick(path, name, held))
        else:
            held = parquet.read_schema(path).names
            check_names(path, held)
            chosen = pick(path, name, held)
            column = parquet.read_table(path, columns=[chosen]).column(chosen)
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"{path}: no label in row {row}")
        values: NDArray[Any] = column.to_numpy()
    return values.astype(np.str_) if values.dtype == object else values
