"""Features of the columns of a table: numbers, indicators of missing values, one-hot levels."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from logitlab.tables.columns import OTHER, TEXT, Column, Part
from logitlab.tables.values import WrongTypeError, column_values

if TYPE_CHECKING:
    import pyarrow as pa


def _named_parts(columns: Sequence[Column]) -> list[tuple[str, Part]]:
    return [(column.part_name(part), part) for column in columns for part in column.parts]


def feature_names(columns: Sequence[Column], drop_first: bool) -> list[str]:
    """The names of the features, in the order of :func:`features`."""
    parts = _named_parts(columns)
    numbers = [name for name, part in parts if part.levels is None]
    missing = [f"{name}=(missing)" for name, part in parts if part.indicator]
    levels = [f"{n}={level}" for n, p in parts for level in (p.levels or ())[drop_first:]]
    return [*numbers, *missing, *levels]


def _transformer(parts: Sequence[Part], drop_first: bool) -> ColumnTransformer:
    """The transformer of the values of the parts, in the state that fits these parts."""
    fills = np.array([part.fill for part in parts])
    incomplete = np.where([part.indicator for part in parts], np.nan, fills)
    numbers = [i for i, part in enumerate(parts) if part.levels is None]
    levels = [i for i, part in enumerate(parts) if part.levels is not None]
    one_hot = OneHotEncoder(
        categories=[np.arange(float(len(parts[i].levels or ()))) for i in levels],
        drop="first" if drop_first else None,
        handle_unknown="ignore",
    )
    impute = SimpleImputer(strategy="median")
    blocks = [
        ("numbers", SimpleImputer(strategy="median", add_indicator=True), numbers),
        ("levels", make_pipeline(impute, one_hot), levels),
    ]
    # These three rows have the medians and the missing values of the plan.
    return ColumnTransformer([b for b in blocks if b[2]]).fit(np.stack([fills, fills, incomplete]))


def features(
    table: "pa.Table", columns: Sequence[Column], drop_first: bool
) -> tuple[Any, list[str]]:
    """The features, shape (N, D), sparse if most are 0; and messages on values that are new.

    Raises ValueError with all columns that are missing or of a wrong type.
    """
    missing = [column.name for column in columns if column.name not in table.column_names]
    problems, messages = [], []
    if missing:
        problems.append(
            f"must have all columns of the fit; missing: {', '.join(map(repr, missing))}"
        )
    parts = [part for column in columns for part in column.parts]
    values = np.empty((table.num_rows, len(parts)), order="F")
    end = 0
    for column in columns:
        start, end = end, end + len(column.parts)
        if column.name in missing:
            continue
        try:
            arrays, unreadable = column_values(column, table.column(column.name))
        except WrongTypeError as error:
            problems.append(f"column {column.name!r} {error}")
            continue
        values[:, start:end] = np.stack(arrays, axis=1)
        messages += _new_values(column, unreadable)
    if problems:
        raise ValueError("; ".join(problems))
    if table.num_rows == 0:
        return np.empty((0, len(feature_names(columns, drop_first)))), []
    if all(p.levels is None and not p.indicator for p in parts) and not np.isnan(values).any():
        return values, messages  # as the transformer would, which copies them
    with warnings.catch_warnings():
        # The messages say what scikit-learn warns of.
        warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)
        return _transformer(parts, drop_first).transform(values), messages


def _new_values(column: Column, n: int) -> list[str]:
    """The message on n values that cannot be read, or n levels that are new."""
    if n == 0:
        return []
    rows = "1 row" if n == 1 else f"{n} rows"
    if column.kind != TEXT:
        return [f"column {column.name!r}: not a {column.kind} in {rows}, read as missing"]
    encoded = OTHER if OTHER in (column.parts[0].levels or ()) else "zeros"
    return [f"column {column.name!r}: unknown levels in {rows}, encoded as {encoded}"]
