"""Tables of numbers and text, and the encoding of their columns as features."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import UserError, catch_read_errors, pluralize
from logitlab._app.io.tables import check_names, column_as_written, is_tabular, read_csv
from logitlab._rows import Floats

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy import sparse


@dataclass(frozen=True)
class Column:
    """A column of the table, and its encoding."""

    name: str
    categories: tuple[str, ...] | None  # text: one feature per category; None: a number
    base: str | None  # the category without a feature: the others are relative to it
    fill: float | str | None  # replaces missing values; None: missing values are an error

    def features(self) -> list[str]:
        if self.categories is None:
            return [self.name]
        return [f"{self.name}={category}" for category in self.categories]

    def error(self) -> str | None:
        """Why the encoding cannot be used; None if it can."""
        if not isinstance(self.name, str):
            return "the name must be text"
        if self.categories is None:
            is_number = isinstance(self.fill, float) and math.isfinite(self.fill)
            valid = self.base is None and (self.fill is None or is_number)
            return None if valid else "fill must be a finite number, and there must be no base"
        known = [*self.categories, *([] if self.base is None else [self.base])]
        if not all(isinstance(value, str) for value in known) or len(set(known)) != len(known):
            return "the categories must be distinct texts"
        valid = self.fill is None or isinstance(self.fill, str)
        return None if valid else "fill must be text"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Column":
        categories = data["categories"]
        return cls(**{**data, "categories": None if categories is None else tuple(categories)})


def table_files(path: Path) -> list[Path]:
    """The files of a table. Of a folder: its .parquet files, without hidden ones, as in Arrow."""
    if not path.is_dir():
        return [path]
    files = sorted(path.rglob("*.parquet"))
    return [file for file in files if file.is_file() and file.name[0] not in "._"]


def read_table(path: Path) -> "pa.Table":
    """The Arrow table of a .csv or .parquet file, or of a folder of .parquet files."""
    from pyarrow import parquet

    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not table_files(path):
        raise UserError(f"{path}: the folder must contain .parquet files, got none")
    if path.is_file() and not is_tabular(path):
        raise UserError(f"{path}: must be a .csv file, a .parquet file or a folder of .parquet")
    with catch_read_errors(path):
        if path.is_dir():
            table = parquet.read_table(path, schema=_common_schema(path))
        else:
            table = read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    check_names(path, table.column_names)
    if table.num_rows == 0:
        raise UserError(f"{path}: must have at least one row, got none")
    return table


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


def target_values(table: "pa.Table", target: str, path: Path) -> NDArray[Any]:
    """The target column: integers, booleans or text."""
    from pyarrow import types

    if target not in table.column_names:
        columns = ", ".join(table.column_names)
        raise UserError(f"{path}: --target must be one of {columns}, got {target!r}")
    column = _without_dictionary(table.column(target))
    if path.suffix.lower() == ".csv" and not column.null_count:
        column = column_as_written(path, column, target)
    text = _is_text(column.type)
    missing = (_text(column) if text else column).is_null().to_numpy()
    if missing.any():
        raise UserError(f"{path}: target {target!r} is missing in row {int(missing.argmax())}")
    values: NDArray[Any] = column.to_numpy()
    if types.is_floating(column.type):
        if np.isinf(values).any():
            raise UserError(_not_finite(f"{path}: target {target!r}", values))
        if np.array_equal(values, np.trunc(values)):
            return values.astype(np.int64)  # Arrow reads integers beside missing values as floats
    if types.is_integer(column.type) or types.is_boolean(column.type):
        return values
    if text:
        return values.astype(np.str_)
    raise UserError(
        f"{path}: target {target!r} must contain integers, booleans or text, got {column.type}"
    )


def _without_dictionary(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _not_finite(name: str, values: NDArray[Any]) -> str:
    row = int(np.isinf(values).argmax())
    return f"{name} must be finite, got {values[row]} in row {row}"


def _numeric_values(column: "pa.ChunkedArray", name: str, path: Path) -> Floats:
    """The values as float64, NaN where they are missing."""
    import pyarrow as pa

    try:
        values = np.array(column.cast(pa.float64()).to_numpy(), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if pa.types.is_integer(column.type):
            raise UserError(
                f"{path}: column {name!r} must contain integers of at most 2**53, which are exact "
                "as float64, got larger ones; remove the column, or store it as text"
            ) from None
        raise UserError(
            f"{path}: column {name!r} must contain numbers or text, got {column.type}"
        ) from None
    if np.isinf(values).any():
        raise UserError(_not_finite(f"{path}: column {name!r}", values))
    return values


def _text(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """The column as strings; an empty string is missing.

    A .csv file has no other form of a missing text.
    """
    import pyarrow as pa
    from pyarrow import compute

    text = column.cast(pa.string())
    return compute.if_else(compute.equal(text, ""), pa.scalar(None, pa.string()), text)


def _counts(text: "pa.ChunkedArray") -> dict[str, int]:
    """How often each string occurs."""
    found = text.drop_null().value_counts()
    return dict(
        zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    )


def infer_columns(
    table: "pa.Table", target: str, impute: bool, drop_first: bool, path: Path
) -> list[Column]:
    """The encodings of all columns but the target.

    `impute` replaces missing values by the median or the most frequent text. `drop_first` gives
    the first category of a column no feature, so that the features are linearly independent. A
    column without a name (the index of pandas) is ignored.
    """
    columns = []
    for name in table.column_names:
        if name in ("", target):
            continue
        data = _without_dictionary(table.column(name))
        if _is_text(data.type):
            counts = _counts(_text(data))
            known = sorted(counts)
            base = known[0] if drop_first and known else None
            categories: tuple[str, ...] | None = tuple(known)[base is not None :]
            fill: Any = max(known, key=counts.__getitem__, default=None)
        else:
            numbers = _numeric_values(data, name, path)
            base = categories = None
            fill = float(np.nanmedian(numbers)) if not np.isnan(numbers).all() else None
        if fill is None:
            raise UserError(f"{path}: column {name!r} must have values, got none; remove it")
        columns.append(Column(name, categories, base, fill if impute else None))
    if not columns:
        raise UserError(f"{path}: must have a column besides the target {target!r}")
    return columns


def encode(
    table: "pa.Table", columns: Sequence[Column], path: Path
) -> tuple["Floats | sparse.csr_matrix", list[str]]:
    """The features, as a sparse matrix if a column is text; and messages for the user.

    Columns are matched by name. An unknown category is encoded as zeros in all features of its
    column.
    """
    from scipy import sparse

    missing_columns = [column.name for column in columns if column.name not in table.column_names]
    if missing_columns:
        names = ", ".join(map(repr, missing_columns))
        raise UserError(f"{path}: must have all columns of the fit; missing: {names}")
    parts, messages = [], []
    for column in columns:
        data = _without_dictionary(table.column(column.name))
        if column.categories is None:
            parts.append(_numbers(data, column, path)[:, None])
            continue
        part, unknown = _one_hot(_filled_text(data, column, path), column)
        if unknown:
            rows = pluralize(unknown, "row")
            messages.append(
                f"column {column.name!r}: unknown categories in {rows}, encoded as zeros"
            )
        parts.append(part)
    if any(column.categories is not None for column in columns):
        return sparse.csr_matrix(sparse.hstack(parts)), messages
    return np.hstack(parts), messages


def _numbers(data: "pa.ChunkedArray", column: Column, path: Path) -> Floats:
    """The values of a column of numbers, missing ones replaced."""
    if _is_text(data.type):
        raise UserError(
            f"{path}: column {column.name!r} must contain numbers as in the fit, got text"
        )
    values = _numeric_values(data, column.name, path)
    missing = np.isnan(values)
    _check_missing(missing, column, path)
    values[missing] = column.fill
    return values


def _filled_text(data: "pa.ChunkedArray", column: Column, path: Path) -> "pa.ChunkedArray":
    """The values of a column of text, missing ones replaced."""
    text = _text(data)
    _check_missing(text.is_null().to_numpy(), column, path)
    return text if column.fill is None else text.fill_null(column.fill)


def _check_missing(missing: NDArray[np.bool_], column: Column, path: Path) -> None:
    """Refuse missing values that are not replaced."""
    if column.fill is None and missing.any():
        raise UserError(
            f"{path}: column {column.name!r} has missing values in "
            f"{pluralize(int(missing.sum()), 'row')}, first in row {int(missing.argmax())}; "
            "fit with --impute to replace them"
        )


def _one_hot(text: "pa.ChunkedArray", column: Column) -> tuple["sparse.csr_matrix", int]:
    """One-hot features without that of the base category, and the number of unknown values."""
    import pyarrow as pa
    from pyarrow import compute
    from scipy import sparse

    assert column.categories is not None
    base = [] if column.base is None else [column.base]
    known = pa.array([*column.categories, *base], pa.string())
    index = compute.index_in(text, known).fill_null(len(known)).to_numpy()
    has_feature = index < len(column.categories)
    ends = np.concatenate([[0], np.cumsum(has_feature)])
    shape = len(index), len(column.categories)
    part = sparse.csr_matrix((np.ones(ends[-1]), index[has_feature], ends), shape)
    return part, int((index == len(known)).sum())
