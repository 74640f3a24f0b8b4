"""Reads the tables of `logitlab fit` and `logitlab predict`; the text of a .csv file is kept."""

import contextlib
import csv as text_csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import UserError, catch_read_errors
from logitlab._app.io.tables import check_names

if TYPE_CHECKING:
    import pyarrow as pa

_TEXT_FILES = (".csv", ".tsv")
_DELIMITERS = (",", ";", "\t", "|")
_NAMED_DELIMITERS = {"tab": "\t", r"\t": "\t"}
_SNIFFED_BYTES = 1 << 16
_SNIFFED_LINES = 50


def table_files(path: Path) -> list[Path]:
    """The files of a table. Of a folder: its .parquet files, without hidden ones, as in Arrow."""
    if not path.is_dir():
        return [path]
    files = sorted(path.rglob("*.parquet"))
    return [file for file in files if file.is_file() and file.name[0] not in "._"]


def read_table(path: Path, delimiter: str | None = None) -> "pa.Table":
    """The Arrow table of a .csv or .parquet file, or of a folder of .parquet files.

    The columns of a .csv file are text.
    """
    from pyarrow import parquet

    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not table_files(path):
        raise UserError(f"{path}: the folder must contain .parquet files, got none")
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (*_TEXT_FILES, ".parquet"):
        raise UserError(f"{path}: must be a .csv file, a .parquet file or a folder of .parquet")
    is_text = path.is_file() and suffix in _TEXT_FILES
    if delimiter is not None and not is_text:
        raise UserError(f"{path}: --delimiter is for .csv files")
    with catch_read_errors(path):
        if path.is_dir():
            table = parquet.read_table(path, schema=_common_schema(path))
        else:
            table = _read_text(path, delimiter) if is_text else parquet.read_table(path)
    check_names(path, table.column_names)
    if table.num_rows == 0:
        raise UserError(f"{path}: must have at least one row, got none")
    return table


def _read_text(path: Path, delimiter: str | None, encoding: str | None = None) -> "pa.Table":
    """The columns of a .csv file as text, without names if the first line has numbers.

    0, 1, 2, ... are names: the header that pandas writes. The encoding is detected.
    """
    import pyarrow as pa
    from pyarrow import csv

    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    encoding = encoding or _encoding(start)
    lines = start.decode(encoding, errors="ignore").removeprefix("\ufeff").splitlines()
    if len(start) == _SNIFFED_BYTES:
        lines = lines[:-1] or lines  # the last line may be cut
    if not lines:
        raise UserError(f"{path}: must have a header and rows, got an empty file")
    delimiter = _NAMED_DELIMITERS.get(delimiter or "", delimiter) or detect_delimiter(lines)
    if len(delimiter) != 1:
        raise UserError(f"--delimiter must be one character or tab, got {delimiter!r}")
    header = [name.strip() for name in next(text_csv.reader(lines, delimiter=delimiter))]
    check_names(path, header)
    has_names = not all(map(_is_number, header)) or header == [str(i) for i in range(len(header))]
    names = header if has_names else [f"f{i}" for i in range(len(header))]
    read = csv.ReadOptions(
        encoding=encoding, column_names=names, skip_rows_after_names=int(has_names)
    )
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    try:
        return csv.read_csv(path, read_options=read, parse_options=parse, convert_options=text)
    except pa.ArrowInvalid as error:
        if encoding != "utf-8" or "UTF8" not in str(error):
            raise
    return _read_text(path, delimiter, "cp1252")


def _encoding(start: bytes) -> str:
    """UTF-8, UTF-16 by its mark, or the code page of Windows in western Europe."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return "utf-8" if error.start >= len(start) - 3 else "cp1252"
    return "utf-8"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def detect_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that gives each of the first lines as many fields as the header."""
    lines = [line for line in lines[:_SNIFFED_LINES] if line.strip()]
    fields = {}
    for delimiter in _DELIMITERS:
        counts = [len(row) for row in text_csv.reader(lines, delimiter=delimiter)]
        equal = counts.count(counts[0]) / len(counts)
        fields[delimiter] = (counts[0] > 1, equal > 0.9, counts[0])
    return max(_DELIMITERS, key=lambda delimiter: fields[delimiter])


def _common_schema(folder: Path) -> "pa.Schema":
    """The columns of the files of a folder, in types that hold the values of all files."""
    import pyarrow as pa
    from pyarrow import parquet

    for file in table_files(folder):
        check_names(file, parquet.read_schema(file).names)
    dataset = parquet.ParquetDataset(folder)
    first = dataset.fragments[0]
    in_file = set(first.physical_schema.names)
    # Columns from names of folders (x=1/) are dictionaries; the files do not contain them.
    schema = pa.schema(
        [f if f.name in in_file else f.with_type(f.type.value_type) for f in dataset.schema]
    )
    for fragment in dataset.fragments:
        names = set(fragment.physical_schema.names)
        for column in sorted(in_file ^ names):
            paths = (first.path, fragment.path)
            having, lacking = paths if column in in_file else paths[::-1]
            raise UserError(f"{lacking}: column {column!r} is missing, but {having} has it")
        with catch_read_errors(Path(fragment.path)):
            schema = pa.unify_schemas(
                [schema, fragment.physical_schema], promote_options="permissive"
            )
    return schema


def target_values(
    table: "pa.Table", target: str, path: Path
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The target of the rows that have one: integers, booleans or text; and a mask of these rows.

    Text that is integers as Python writes them is read as integers; `01` is text.
    """
    from pyarrow import types

    from logitlab.tables.values import is_text, plain_values

    column = plain_values(table.column(target))
    if is_text(column.type):
        column = _numbers_or_text(column)
    present = column.is_valid().to_numpy()
    values: NDArray[Any] = column.drop_null().to_numpy(zero_copy_only=False)
    if types.is_floating(column.type):
        finite = np.isfinite(values)
        if np.isinf(values).any():
            row = int(np.flatnonzero(present)[np.isinf(values)][0])
            raise UserError(
                f"{path}: target {target!r} must be finite, got {values[~finite][0]} in row {row}"
            )
        values, present[present] = values[finite], finite
        if np.array_equal(values, np.trunc(values)):
            return values.astype(np.int64), present  # integers beside missing values are floats
    if types.is_integer(column.type) or types.is_boolean(column.type):
        return values, present
    if is_text(column.type):
        return values.astype(np.str_), present
    raise UserError(
        f"{path}: target {target!r} must contain integers, booleans or text, got {column.type}"
    )


def _numbers_or_text(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Integers if all values that are not missing are written as Python writes integers.

    Fractions are numbers too, which are no classes. Of other text only an empty one is missing: a
    class may be called NA or None.
    """
    import pyarrow as pa
    from pyarrow import compute

    from logitlab.tables.text import cleaned, matches

    text = cleaned(column)
    is_integer = compute.all(matches(text, r"^(0|-?[1-9]\d{0,18})$")).as_py()
    with contextlib.suppress(pa.ArrowInvalid), np.errstate(invalid="ignore"):
        if is_integer and text.null_count < len(text):
            return text.cast(pa.int64())
        numbers = text.cast(pa.float64())
        # Infinite numbers are unequal to this too.
        if (np.mod(numbers.drop_null().to_numpy(), 1) != 0).any():
            return numbers
    column = column.cast(pa.string())
    empty = compute.equal(compute.utf8_trim_whitespace(column), "")
    return compute.if_else(empty, pa.scalar(None, pa.string()), column)
