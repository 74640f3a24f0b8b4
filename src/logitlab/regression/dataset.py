"""The engine of rows in the files of a ``pyarrow.dataset.Dataset``, read anew in every pass."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets

from logitlab._arrays import bincount
from logitlab.regression.partitions import PartitionedEngine
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats
from logitlab.regression.validation import (
    ClassWeight,
    checked_labels,
    checked_weights,
    times_class_weight,
)

_BATCH_BYTES = 1 << 24  # of the features of a batch
_MAX_BATCH_ROWS = 1 << 17


def is_dataset(x: Any) -> bool:
    """Return whether x is a ``pyarrow.dataset.Dataset``, without importing pyarrow."""
    kinds = [(kind.__module__.split(".")[0], kind.__name__) for kind in type(x).__mro__]
    return ("pyarrow", "Dataset") in kinds


class DatasetEngine(PartitionedEngine):
    """The engine of the batches of a dataset, of which a few are in memory at a time.

    The numbers of the classes of all rows are kept: a byte a row, or two above 256 classes.
    """

    def __init__(
        self,
        dataset: Any,
        features: list[str],
        label: str,
        weight: str | None,
        dtype: np.dtype[Any],
        class_weight: ClassWeight,
        sum_dtype: Any,
    ) -> None:
        self._sum_dtype = sum_dtype
        self._dataset, self._features, self._weight = dataset, features, weight
        self._dtype = dtype
        self._checked = False  # whether all features were seen to be finite
        self.classes, self._codes = self._read_labels(label)
        totals, start = np.zeros(len(self.classes)), 0
        for batch in self._batches([] if weight is None else [weight]):
            codes = self._codes[start : start + batch.num_rows]
            totals += bincount(codes, self._row_weights(batch), minlength=len(totals))
            start += batch.num_rows
        self._factors = class_weight(self.classes, totals)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        """Yield the batches that have rows, in the order of the files."""
        from pyarrow import dataset

        options = None
        if isinstance(getattr(self._dataset, "format", None), dataset.ParquetFileFormat):
            # Otherwise whole row groups are read ahead.
            options = dataset.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
        rows = _BATCH_BYTES // (max(len(self._features), 1) * self._dtype.itemsize)
        batches = self._dataset.to_batches(
            columns=columns,
            batch_size=int(np.clip(rows, 1, _MAX_BATCH_ROWS)),
            batch_readahead=1,
            fragment_readahead=1,
            fragment_scan_options=options,
        )
        return (batch for batch in batches if batch.num_rows)

    def _read_labels(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the sorted classes, and the number of the class of each row."""
        found: list[NDArray[Any]] = []
        local: list[NDArray[Any]] = []
        for batch in self._batches([name]):
            y = checked_labels(_values(batch, name))
            check_classification_targets(y)
            classes, codes = np.unique(y, return_inverse=True)
            found.append(classes)
            local.append(codes.astype(np.min_scalar_type(len(classes) - 1)))
        if not found:
            raise ValueError("X must have at least one row, got a dataset without rows")
        classes = np.unique(np.concatenate(found))
        kind = np.min_scalar_type(len(classes) - 1)
        parts = zip(found, local, strict=True)
        numbers = [np.searchsorted(classes, names).astype(kind)[codes] for names, codes in parts]
        return classes, np.concatenate(numbers)

    def _row_weights(self, batch: Any) -> Floats | None:
        if self._weight is None:
            return None
        return checked_weights(_values(batch, self._weight), batch.num_rows)

    def _features_of(self, batch: Any) -> Floats:
        """Return the features in Fortran order: Arrow stores columns too."""
        columns = np.empty((len(self._features), batch.num_rows), self._dtype)
        for row, name in zip(columns, self._features, strict=True):
            row[:] = _values(batch, name)
            if not self._checked:
                assert_all_finite(row, input_name=f"column {name!r} of X")
        return columns.T

    def entries(self) -> int:
        return len(self._codes) * len(self._features)

    def _parts(self) -> Iterator[tuple[int, Rows]]:
        """Yield the number of the first row and the rows of each batch."""
        extra = [] if self._weight is None else [self._weight]
        start = 0
        for batch in self._batches([*self._features, *extra]):
            codes = self._codes[start : start + batch.num_rows].astype(np.int64)
            weight = self._row_weights(batch)
            weight = times_class_weight(weight, self._factors, codes)
            classes = len(self.classes)
            yield start, Rows(self._features_of(batch), codes, weight, classes, self._sum_dtype)
            start += batch.num_rows
        self._checked = True

    def _call(self, method: str, *arguments: Any) -> Iterator[Any]:
        for _, rows in self._parts():
            yield getattr(rows, method)(*arguments)

    def _call_by_row(
        self, function: Callable[..., Any], by_row: Any, *arguments: Any
    ) -> Iterator[Any]:
        for start, rows in self._parts():
            yield function(rows, *arguments, by_row[start : start + len(rows.y)])


def _values(batch: Any, name: str) -> NDArray[Any]:
    """Return a column of a batch; refuse missing values."""
    column = batch.column(name)
    if column.null_count:
        raise ValueError(f"column {name!r} must have a value in every row, got null")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def column_names(dataset: Any, y: Any, sample_weight: Any) -> list[str]:
    """Return the names of the features: all columns but those of the labels and weights."""
    names = dataset.schema.names
    for argument, name in (("y", y), ("sample_weight", sample_weight)):
        if argument == "sample_weight" and name is None:
            continue
        if not isinstance(name, str):
            raise TypeError(
                f"{argument} must be the name of a column, as X is a dataset, got a "
                f"{type(name).__name__}"
            )
        if name not in names:
            raise ValueError(f"{argument} must be a column of X, one of {names}, got {name!r}")
    features = [name for name in names if name not in (y, sample_weight)]
    if not features:
        raise ValueError(f"X must have a column besides those of y and sample_weight, got {names}")
    return features


def make_dataset_engine(
    dataset: Any,
    y: str,
    sample_weight: str | None,
    class_weight: ClassWeight,
    sum_dtype: Any = None,
) -> tuple[DatasetEngine, Any, np.dtype[Any]]:
    """Return the engine of a dataset, the labels of the classes, the type of the features.

    Sums over the rows are computed in `sum_dtype`, by default in the type of the features.
    """
    from pyarrow import types

    features = column_names(dataset, y, sample_weight)
    kinds = [dataset.schema.field(name).type for name in features]
    for name, kind in zip(features, kinds, strict=True):
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise TypeError(f"X must hold numbers, got {kind} in column {name!r}")
    common = np.result_type(*(kind.to_pandas_dtype() for kind in kinds))
    dtype = np.dtype(np.float32 if common == np.float32 else np.float64)
    engine = DatasetEngine(dataset, features, y, sample_weight, dtype, class_weight, sum_dtype)
    return engine, engine.classes, dtype
