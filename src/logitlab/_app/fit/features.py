"""Tables of numbers and text, and the features that a model makes of their columns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import UserError, catch_read_errors, pluralize
from logitlab._app.io.tables import check_names, is_tabular, read_csv


@dataclass(frozen=True)
class Column:
    """A column of the table, as the model takes it."""

    name: str
    categories: tuple[str, ...] | None  # of text: one feature each; None: a number
    base: str | None  # the one text that has no feature: the others are differences from it
    fill: float | str | None  # what a missing value counts as; None: missing values are refused

    def features(self) -> list[str]:
        if self.categories is None:
            return [self.name]
        return [f"{self.name}={category}" for category in self.categories]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, held: dict[str, Any]) -> "Column":
        categories = held["categories"]
        return cls(**{**held, "categories": None if categories is None else tuple(categories)})


def files_of(path: Path) -> list[Path]:
    """The files of a table; in a folder Arrow takes those that are not hidden."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.parquet"))
    return [file for file in found if file.is_file() and file.name[0] not in "._"]


def read_table(path: Path) -> Any:
    """The Arrow table of a .csv or .parquet file, or of a folder of .parquet files."""
    from pyarrow import parquet

    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not files_of(path):
        raise UserError(f"{path}: no .parquet file in this folder")
    if path.is_file() and not is_tabular(path):
        raise UserError(f"{path}: unknown kind of file; accepted: .csv, .parquet, a folder of them")
    with catch_read_errors(path):
        if path.is_dir():
            table = parquet.read_table(path, schema=_common_schema(path))
        else:
            table = read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    check_names(path, table.column_names)
    if table.num_rows == 0:
        raise UserError(f"{path}: no rows")
    return table


def _common_schema(folder: Path) -> Any:
    """The columns that all files of a folder have, in types that hold the values of all."""
    import pyarrow as pa
    from pyarrow import parquet

    for file in files_of(folder):
        check_names(file, parquet.read_schema(file).names)
    whole = parquet.ParquetDataset(folder)
    first = whole.fragments[0]
    known = set(first.physical_schema.names)
    # Those that names of folders give, x=1/, are dictionaries that no file holds.
    schema = pa.schema(
        [f if f.name in known else f.with_type(f.type.value_type) for f in whole.schema]
    )
    for part in whole.fragments:
        names = set(part.physical_schema.names)
        for column in sorted(known ^ names):
            here, there = (first.path, part.path) if column in known else (part.path, first.path)
            raise UserError(f"{there}: has no column {column!r}, but {here} has it")
        with catch_read_errors(Path(part.path)):
            schema = pa.unify_schemas([schema, part.physical_schema], promote_options="permissive")
    return schema


def labels(table: Any, target: str, path: Path) -> NDArray[Any]:
    """The target column: integers, booleans or text."""
    from pyarrow import types

    if target not in table.column_names:
        raise UserError(f"{path}: no column {target!r}; it has {', '.join(table.column_names)}")
    column = _plain(table.column(target))
    text = _is_text(column.type)
    missing = _is_none(_text(column)) if text else column.is_null().to_numpy()
    if missing.any():
        raise UserError(f"{path}: target {target!r} is missing in row {int(missing.argmax())}")
    values: NDArray[Any] = column.to_numpy()
    if types.is_floating(column.type) and np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise UserError(f"{path}: target {target!r} is infinite in row {row}")
    if types.is_floating(column.type) and np.array_equal(values, np.trunc(values)):
        return values.astype(np.int64)  # integers beside a gap elsewhere
    if types.is_integer(column.type) or types.is_boolean(column.type):
        return values
    if text:
        return values.astype(np.str_)
    raise UserError(f"{path}: target {target!r} holds {column.type}; a class is an integer or text")


def _plain(column: Any) -> Any:
    """A column without its dictionary."""
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _numbers(column: Any, name: str, path: Path) -> NDArray[np.float64]:
    """As float64, NaN where missing."""
    import pyarrow as pa

    try:
        values = np.array(column.cast(pa.float64()).to_numpy(), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"{path}: column {name!r} holds {column.type}; accepted: numbers and text"
        ) from None
    if np.isinf(values).any():
        raise UserError(
            f"{path}: column {name!r} is infinite in row {int(np.isinf(values).argmax())}"
        )
    return values


def _text(column: Any) -> NDArray[Any]:
    """As strings, None where missing: a .csv file has no other sign of it than an empty cell."""
    import pyarrow as pa

    values = np.array(column.cast(pa.string()).to_numpy(zero_copy_only=False), object)
    values[[value == "" for value in values]] = None
    return values


def _is_none(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.array([value is None for value in values], bool)


def learn_columns(
    table: Any, target: str, impute: bool, independent: bool, path: Path
) -> list[Column]:
    """What the columns beside the target are; a missing value counts as median or mode.

    With `independent` features the first text of a column has none. An unnamed column (pandas'
    index) is left out.
    """
    found = []
    for name in table.column_names:
        if name in ("", target):
            continue
        column = _plain(table.column(name))
        if _is_text(column.type):
            values = _text(column)
            known, counts = np.unique(
                [v for v in values.tolist() if v is not None], return_counts=True
            )
            base = known[0].item() if independent and len(known) else None
            categories: tuple[str, ...] | None = tuple(known.tolist())[base is not None :]
            fill: Any = known[counts.argmax()].item() if len(known) else None
        else:
            numbers = _numbers(column, name, path)
            base = categories = None
            fill = float(np.nanmedian(numbers)) if not np.isnan(numbers).all() else None
        if fill is None:
            raise UserError(f"{path}: column {name!r} is empty")
        found.append(Column(name, categories, base, fill if impute else None))
    if not found:
        raise UserError(f"{path}: no column beside the target {target!r}")
    return found


def encode(table: Any, columns: Sequence[Column], path: Path) -> tuple[Any, list[str]]:
    """The features, CSR where a column is text; and what a reader should know of the rows.

    Columns are matched by name. Text that the fit has not seen has no feature: its row counts
    as none of the categories.
    """
    from scipy import sparse
    from sklearn.preprocessing import OneHotEncoder

    absent = [column.name for column in columns if column.name not in table.column_names]
    if absent:
        raise UserError(f"{path}: no column {', '.join(map(repr, absent))}")
    parts, remarks = [], []
    for column in columns:
        given = _plain(table.column(column.name))
        values: Any
        if column.categories is None:
            if _is_text(given.type):
                raise UserError(f"{path}: column {column.name!r} holds text; the fit had numbers")
            values = _numbers(given, column.name, path)
            missing = np.isnan(values)
        else:
            values = _text(given)
            missing = _is_none(values)
        if missing.any() and column.fill is None:
            raise UserError(
                f"{path}: column {column.name!r} is missing in "
                f"{pluralize(int(missing.sum()), 'row')}, first in row {int(missing.argmax())}; "
                "fit with --impute to fill the gaps"
            )
        values[missing] = column.fill
        if column.categories is None:
            parts.append(values[:, None])
            continue
        skipped = 0 if column.base is None else 1
        known = np.array([column.base, *column.categories][1 - skipped :], object)
        encoder = OneHotEncoder(categories=[known], handle_unknown="ignore").fit(known[:1, None])
        part = encoder.transform(values[:, None])
        unseen = int(part.shape[0] - part.nnz)
        part = part[:, skipped:]
        if unseen:
            hold = f"{pluralize(unseen, 'row')} {'holds' if unseen == 1 else 'hold'}"
            remarks.append(f"column {column.name!r}: {hold} text that the fit has not seen")
        parts.append(part)
    if any(column.categories is not None for column in columns):
        return sparse.csr_matrix(sparse.hstack(parts)), remarks
    return np.hstack(parts), remarks
