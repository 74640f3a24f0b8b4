"""The engine of rows on the workers of a Dask cluster."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array

from logitlab import _arrays
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

_TIMEOUT = 20.0  # seconds for a scheduler to notice that a worker is lost


class WorkersLostError(RuntimeError):
    """The workers with the rows are lost, and the rows cannot be computed again."""


class _Actor:
    """The actor of a worker: calls methods of the partitions on that worker.

    It keeps only their keys, because Dask may move partitions to disk.
    """

    def __init__(self, keys: dict[int, Any]) -> None:
        self.keys = keys

    def call(self, method: str, arguments: Any) -> dict[int, Any]:
        """Return the results by the number of the partition."""
        from distributed import get_worker

        data = get_worker().data
        return {number: getattr(data[key], method)(*arguments) for number, key in self.keys.items()}


class DaskEngine(PartitionedEngine):
    """The engine of partitions on Dask workers: one actor for each worker.

    The sums of the partitions are added in the order of the partitions, on whatever worker they
    are. When a worker is lost, Dask computes its partitions again on the remaining ones.
    """

    def __init__(self, client: Any, partitions: list[Any]) -> None:
        """Take a client and delayed :class:`Rows`."""
        self._client = client
        self._partitions = client.compute(partitions)
        self._actors: dict[str, Any] = {}
        self._create_actors()

    def _create_actors(self) -> None:
        """Create an actor on each worker with partitions."""
        from distributed import wait

        self._actors = {}
        try:
            self._client.wait_for_workers(1, timeout=_TIMEOUT)
        except TimeoutError:
            raise WorkersLostError("all Dask workers are lost") from None
        wait(self._partitions)
        for partition in self._partitions:
            if partition.status != "finished":
                self._raise_error_of(partition)
        addresses = self._client.who_has(self._partitions)
        keys_by_worker: dict[str, dict[int, Any]] = {}
        for number, partition in enumerate(self._partitions):
            workers = sorted(addresses[partition.key])
            if not workers:
                raise KeyError(partition.key)  # its worker was lost in the meantime
            keys_by_worker.setdefault(workers[0], {})[number] = partition.key
        futures = {
            address: self._client.submit(_Actor, keys, workers=[address], actor=True, pure=False)
            for address, keys in keys_by_worker.items()
        }
        self._actors = {address: future.result() for address, future in futures.items()}

    def _raise_error_of(self, partition: Any) -> None:
        """Raise the error of a partition that was not computed."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        try:
            partition.result()
        except (CancelledError, KilledWorker) as error:
            raise WorkersLostError(f"Dask could not compute a partition again: {error}") from error

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        """Return the results of a method of every partition, in the order of the partitions."""
        while True:
            try:
                if not self._actors:
                    self._create_actors()
                calls = [actor.call(method, arguments) for actor in self._actors.values()]
                results: dict[int, Any] = {}
                for call in calls:
                    results |= call.result()
                return [results[number] for number in range(len(self._partitions))]
            except Exception as error:
                self._handle_error(error)

    def _handle_error(self, error: Exception) -> None:
        """Discard the actors if one of their workers is lost; otherwise raise the error."""
        workers = set(self._actors)
        self._actors = {}
        end = time.monotonic() + _TIMEOUT
        while workers <= set(self._client.scheduler_info(n_workers=-1)["workers"]):
            if time.monotonic() > end or not isinstance(error, OSError | ValueError | KeyError):
                raise error
            time.sleep(0.1)

    def _call_by_row(
        self, function: Callable[..., Any], by_row: Any, *arguments: Any
    ) -> Iterable[Any]:
        ends = np.cumsum([rows for rows, *_ in self._call("totals")])
        # Futures of the partitions are arguments: Dask computes lost ones again.
        pairs = zip(self._partitions, np.split(by_row, ends[:-1]), strict=True)
        futures = [self._client.submit(function, rows, *arguments, part) for rows, part in pairs]
        return list(self._client.gather(futures))


def _delayed_partitions(x: Any, like: Any, name: str) -> list[Any]:
    """Return the partitions of x; arrays are rechunked to the rows of `like`."""
    import dask.array as da

    if not _arrays.is_dask(x):
        raise TypeError(f"{name} must be a Dask collection, as X is one, got a {type(x).__name__}")
    if isinstance(x, da.Array) and x.ndim == 2:
        x = x.rechunk({1: -1})
    if isinstance(x, da.Array) and isinstance(like, da.Array) and x is not like:
        sizes = like.chunks[0]
        if not any(np.isnan(sizes)) and not any(np.isnan(x.chunks[0])):
            if sum(sizes) != x.shape[0]:
                raise ValueError(f"{name} must have {sum(sizes)} rows, as X, got {x.shape[0]}")
            x = x.rechunk({0: sizes})
    # Optimizing a graph may merge partitions, and those of X differently than those of y.
    return list(np.ravel(x.to_delayed(optimize_graph=False)))


def _weight_by_class(y: Any, weight: Any) -> tuple[Any, Any]:
    """Return the classes of a partition and the sum of the weights of each."""
    from sklearn.utils.multiclass import check_classification_targets

    y = checked_labels(y)
    if len(y):
        check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, bincount(codes, checked_weights(weight, len(y)), minlength=len(classes))


def _checked_rows(
    x: Any,
    y: Any,
    weight: Any,
    classes: Any,
    factors: Floats | None,
    dtype: np.dtype[Any],
    sum_dtype: Any,
) -> Rows:
    """Return a checked partition; `factors` are the weights of the classes."""
    if x.shape[0]:
        x = check_array(x, accept_sparse="csr", dtype=dtype)
    else:
        x = np.empty((0, x.shape[1]), dtype)
    y = checked_labels(y)
    if len(y) != x.shape[0] or (weight is not None and len(weight) != len(y)):
        raise ValueError(
            "X, y and sample_weight must have the same rows in each partition, got partitions of "
            f"{x.shape[0]} rows of X and {len(y)} of y"
        )
    codes = np.searchsorted(classes, y).astype(np.int64)
    weight = checked_weights(weight, len(y))
    weight = times_class_weight(weight, factors, codes)
    return Rows(x, codes, weight, len(classes), sum_dtype)


def _column_types(X: Any) -> list[np.dtype[Any]]:
    """Return the NumPy types of the columns, or that of an array; refuse those of no numbers."""
    types = dict(X.dtypes) if hasattr(X, "dtypes") else {"": X.dtype}
    result = []
    for name, given in types.items():
        dtype = getattr(given, "numpy_dtype", given)
        if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf":
            column = f" in column {name!r}" if name != "" else ""
            raise TypeError(f"X must hold numbers, got {given}{column}")
        result.append(dtype)
    return result


def make_dask_engine(
    X: Any, y: Any, sample_weight: Any, class_weight: ClassWeight, sum_dtype: Any = None
) -> tuple[DaskEngine, Any, np.dtype[Any]]:
    """Return the engine of Dask collections, the labels of the classes, the type of the features.

    `class_weight` takes the labels and the sum of the weights of each class, and returns the
    factor of each class or None. Sums over the rows are computed in `sum_dtype`, by default in
    the type of the features.
    """
    from dask import delayed
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        raise ValueError(
            "X is a Dask collection, which needs a Dask client, got none; create one first with "
            "distributed.Client()"
        ) from None
    parts = _delayed_partitions(X, X, "X")
    labels = _delayed_partitions(y, X, "y")
    weights = (
        [None] * len(parts)
        if sample_weight is None
        else _delayed_partitions(sample_weight, X, "sample_weight")
    )
    if not len(parts) == len(labels) == len(weights):
        raise ValueError(
            "X, y and sample_weight must have the same number of partitions, got "
            f"{len(parts)}, {len(labels)} and {len(weights)}"
        )
    pairs = zip(labels, weights, strict=True)
    counted = client.gather(client.compute([delayed(_weight_by_class)(a, w) for a, w in pairs]))
    classes, codes = np.unique(np.concatenate([c for c, _ in counted]), return_inverse=True)
    totals = bincount(codes, np.concatenate([n for _, n in counted]), minlength=len(classes))
    factors = class_weight(classes, totals)
    common = np.result_type(*_column_types(X))
    dtype = np.dtype(np.float32 if common == np.float32 else np.float64)
    partitions = [
        delayed(_checked_rows)(x, a, w, classes, factors, dtype, sum_dtype)
        for x, a, w in zip(parts, labels, weights, strict=True)
    ]
    return DaskEngine(client, partitions), classes, dtype
