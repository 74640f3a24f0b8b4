"""Logits and labels in the columns of .csv and .parquet files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import (
    NUMBERS,
    TABLES,
    Logits,
    UserError,
    catch_read_errors,
    select_name,
)


def is_tabular(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def read_csv(path: Path) -> Any:
    """The table of a .csv file.

    A first line of numbers is data, except 0, 1, 2, ..., the header that pandas writes.
    """
    from pyarrow import csv

    table = csv.read_csv(path)
    if table.num_columns == 1:
        _check_no_blank_lines(path)
    header = table.column_names
    try:
        numbers = [float(name) for name in header]
    except ValueError:
        check_names(path, header)
        return table
    if numbers == list(range(len(header))):
        return table
    return csv.read_csv(path, read_options=csv.ReadOptions(autogenerate_column_names=True))


def _check_no_blank_lines(path: Path) -> None:
    """Refuse blank lines in a single column: Arrow skips them, but they may be missing values."""
    for number, line in enumerate(path.read_bytes().rstrip().splitlines(), 1):
        if not line.strip():
            raise UserError(f"{path}: line {number} is blank; remove it or fill in a value")


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse two columns of the same name; columns without a name are not used."""
    repeated = [name for name, n in Counter(names).items() if name and n > 1]
    if repeated:
        raise UserError(f"{path}: column names must be distinct, got {repeated[0]!r} twice")


def _columns(
    path: Path, name: str | None, names: Sequence[str], others: Sequence[str | None]
) -> list[str]:
    """The columns of the logits: those in `name`, or all but `others` and an unnamed index."""
    if name is None:
        columns = [column for column in names if column not in ("", *others)]
    else:
        columns = [name] if name in names else name.split(",")
    for column in columns:
        select_name(path, column, names)
    return columns


def _is_numeric(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_floating(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def table_logits(path: Path, name: str | None, others: Sequence[str | None]) -> Logits:
    """The logits in the columns `name` of a table, or in all columns but `others`."""
    from pyarrow import parquet, types

    with catch_read_errors(path):
        if path.suffix.lower() == ".csv":
            table = read_csv(path)
            schema, rows = table.schema, table.num_rows
        else:
            file = parquet.ParquetFile(path)
            schema, rows = file.schema_arrow, file.metadata.num_rows
            check_names(path, schema.names)
    columns = _columns(path, name, schema.names, others)
    kinds = [schema.field(column).type for column in columns]
    lists = len(kinds) == 1 and (
        types.is_list(kinds[0])
        or types.is_large_list(kinds[0])
        or types.is_fixed_size_list(kinds[0])
    )
    for column, kind in zip(columns, kinds, strict=True):
        if not _is_numeric(kind.value_type if lists else kind):
            raise UserError(
                f"{path}: column {column!r} must contain numbers, got {kind}; "
                f"select the columns of the logits with {path}:A,B,C"
            )

    def dense(batch: Any) -> NDArray[Any]:
        if not lists:
            parts = [batch.column(column).to_numpy(zero_copy_only=False) for column in columns]
            return np.stack([p.astype(float) if p.dtype == object else p for p in parts], axis=-1)
        cells = batch.column(columns[0])
        flat = cells.flatten().to_numpy(zero_copy_only=False)
        width, rest = divmod(len(flat), max(len(cells), 1))
        if rest or cells.null_count or set(cells.value_lengths().unique().to_pylist()) != {width}:
            raise UserError(f"{path}: the lists of column {columns[0]!r} must have one length")
        rows: NDArray[Any] = flat.reshape(-1, width)
        return rows

    def batches(size: int) -> Iterator[NDArray[Any]]:
        with catch_read_errors(path):
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
                raise UserError(f"{path}: the lists of column {columns[0]!r} must have one length")
            # A batch with a missing value in a column of integers is of a floating-point type.
            yield z if z.dtype.kind == "f" and dtype.kind != "f" else z.astype(dtype, copy=False)

    return Logits(str(path), (rows, classes), dtype, None if lists else tuple(columns), read)


def column_as_written(path: Path, column: Any, name: str) -> Any:
    """The text of a column of a .csv file where its values would lose it: `01`, `True`.

    Arrow reads `01` and `1` as one integer, `True` and `true` as one boolean, and integers of more
    than 64 bits as floats.
    """
    from pyarrow import csv, string, types

    if types.is_floating(column.type):
        values = column.to_numpy()
        if not (np.isfinite(values) & (values == np.trunc(values))).all():
            return column
    elif not (types.is_integer(column.type) or types.is_boolean(column.type)):
        return column
    has_header = name in csv.open_csv(path).schema.names
    text = csv.read_csv(
        path,
        read_options=csv.ReadOptions(autogenerate_column_names=not has_header),
        convert_options=csv.ConvertOptions(include_columns=[name], column_types={name: string()}),
    ).column(name)
    return text if len(text) == len(column) and text != column.cast(string()) else column


def table_column(path: Path, name: str | None, content: str) -> NDArray[Any]:
    """A column of a table without missing values; `name` may be None if there is only one column.

    `content` is what one value is, for messages.
    """
    from pyarrow import parquet, types

    with catch_read_errors(path):
        if path.suffix.lower() == ".csv":
            table = read_csv(path)
            names = [column for column in table.column_names if column]
            selected = select_name(path, name, names)
            column = column_as_written(path, table.column(selected), selected)
        else:
            names = parquet.read_schema(path).names
            check_names(path, names)
            selected = select_name(path, name, names)
            column = parquet.read_table(path, columns=[selected]).column(selected)
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"{path}: the {content} of row {row} is missing")
        values: NDArray[Any] = column.to_numpy()
    return values.astype(np.str_) if values.dtype == object else values
