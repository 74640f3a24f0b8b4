"""Where rows lie when they are not in one memory: on the workers of a Dask cluster."""

import time
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array

from logitlab.regression.objective import Floats, Rows

_NOTICE = 20.0  # seconds until a scheduler has noticed that a worker is gone


def is_dask(x: Any) -> bool:
    """Whether x is a Dask collection; Dask is not imported for it."""
    return hasattr(x, "__dask_graph__")


class WorkersLostError(RuntimeError):
    """The rows cannot be had any more."""


class _Holder:
    """The actor of a worker: adds up over the partitions that lie there.

    It knows them by their keys alone: Dask may have put some of them on disk.
    """

    def __init__(self, keys: dict[int, Any]) -> None:
        self.keys = keys

    def call(self, method: str, arguments: Any) -> dict[int, Any]:
        from distributed import get_worker

        data = get_worker().data
        return {number: getattr(data[key], method)(*arguments) for number, key in self.keys.items()}


class OnDask:
    """The engine of partitions on Dask's workers: one actor on each adds up over its own.

    The sums of partitions are added in the order of the partitions, whoever holds them. When a
    worker is lost, Dask computes its partitions again on those that are left.
    """

    def __init__(self, client: Any, partitions: list[Any]) -> None:
        """Of delayed :class:`Rows`."""
        self._client = client
        self._partitions = client.compute(partitions)
        self._holders: dict[str, Any] = {}
        self._place()

    def _place(self) -> None:
        from distributed import wait

        self._holders = {}
        try:
            self._client.wait_for_workers(1, timeout=_NOTICE)
        except TimeoutError:
            raise WorkersLostError("no Dask worker is left") from None
        wait(self._partitions)
        for partition in self._partitions:
            if partition.status != "finished":
                self._say(partition)
        where = self._client.who_has(self._partitions)
        shares: dict[str, dict[int, Any]] = {}
        for number, partition in enumerate(self._partitions):
            holders = sorted(where[partition.key])
            if not holders:
                raise KeyError(partition.key)  # lost just now
            shares.setdefault(holders[0], {})[number] = partition.key
        made = {
            address: self._client.submit(_Holder, keys, workers=[address], actor=True, pure=False)
            for address, keys in shares.items()
        }
        self._holders = {address: future.result() for address, future in made.items()}

    def _say(self, partition: Any) -> None:
        """Raise what went wrong with a partition."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        try:
            partition.result()
        except (CancelledError, KilledWorker) as error:
            raise WorkersLostError(f"Dask cannot compute a partition again: {error}") from error

    def _parts(self, method: str, *arguments: Any) -> list[Any]:
        """What a method of every partition gives, in their order."""
        while True:
            try:
                if not self._holders:
                    self._place()
                calls = [h.call(method, arguments) for h in self._holders.values()]
                found: dict[int, Any] = {}
                for call in calls:
                    found |= call.result()
                return [found[number] for number in range(len(self._partitions))]
            except Exception as error:
                self._after(error)

    def _after(self, error: Exception) -> None:
        """Forget the actors if one of their workers is gone; else the error stands."""
        held = set(self._holders)
        self._holders = {}
        end = time.monotonic() + _NOTICE
        while held <= set(self._client.scheduler_info(n_workers=-1)["workers"]):
            if time.monotonic() > end or not isinstance(error, OSError | ValueError | KeyError):
                raise error
            time.sleep(0.1)

    def totals(self) -> tuple[int, float, float, Floats, Floats]:
        rows, total, least, sums, sizes = zip(*self._parts("totals"), strict=True)
        return sum(rows), sum(total), min(least), _added(sums), _added(sizes)

    def scatter(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        sums, products = zip(*self._parts("scatter", centre, full), strict=True)
        return _added(sums), _added(products)

    def loss_and_gradient(self, coef: Floats, intercept: Floats) -> tuple[float, Floats, Floats]:
        parts = self._parts("loss_and_gradient", coef, intercept)
        loss, by_coef, by_intercept = zip(*parts, strict=True)
        return sum(loss), _added(by_coef), _added(by_intercept)

    def hessian(self, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
        return _added(self._parts("hessian", coef, intercept, centre))

    def margins(self, coef: Floats, intercept: Floats) -> tuple[float, float]:
        least, largest = zip(*self._parts("margins", coef, intercept), strict=True)
        return min(least), max(largest)


def _added(parts: Any) -> Floats:
    """In order."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total += part
    return np.asarray(total)


def _delayed(x: Any, like: Any, name: str) -> list[Any]:
    """The partitions of x, as those of `like` where x can be cut."""
    import dask.array as da

    if not is_dask(x):
        raise TypeError(f"{name} is a {type(x).__name__}; accepted: a Dask collection, as X is one")
    if isinstance(x, da.Array) and x.ndim == 2:
        x = x.rechunk({1: -1})
    if isinstance(x, da.Array) and isinstance(like, da.Array) and x is not like:
        sizes = like.chunks[0]
        if not any(np.isnan(sizes)) and not any(np.isnan(x.chunks[0])):
            if sum(sizes) != x.shape[0]:
                raise ValueError(f"{name} has {x.shape[0]} rows, X has {sum(sizes)}")
            x = x.rechunk({0: sizes})
    # Optimising a data frame may merge partitions, of X in another way than of y.
    return list(np.ravel(x.to_delayed(optimize_graph=False)))


def _counts(y: Any, weight: Any) -> tuple[Any, Any]:
    """The labels of a partition and the weight of each."""
    from sklearn.utils.multiclass import check_classification_targets

    y = np.asarray(y)
    if len(y):
        check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    weight = None if weight is None else np.asarray(weight, float)
    if weight is not None and not (weight >= 0).all():
        raise ValueError("sample_weight holds values below 0 or NaN; accepted: 0 and up")
    return classes, np.bincount(codes, weight, minlength=len(classes))


def _rows(x: Any, y: Any, weight: Any, classes: Any, by_class: Any, dtype: Any) -> Rows:
    """A partition, checked."""
    if x.shape[0]:
        x = check_array(x, accept_sparse="csr", dtype=dtype)
    else:
        x = np.empty((0, x.shape[1]), dtype)
    y = np.asarray(y)
    if len(y) != x.shape[0] or (weight is not None and len(weight) != len(y)):
        raise ValueError(f"a partition of X has {x.shape[0]} rows where that of y has {len(y)}")
    codes = np.searchsorted(classes, y).astype(np.int64)
    if by_class is not None:
        weight = by_class[codes] if weight is None else by_class[codes] * np.asarray(weight)
    weight = None if weight is None else np.asarray(weight, float)
    return Rows(x, codes, weight, len(classes))


def on_dask(X: Any, y: Any, sample_weight: Any, weigh: Any) -> tuple[OnDask, Any, Any]:
    """The engine of Dask collections, the labels of their classes, and the type of the features.

    `weigh` takes the labels and the weight of each, and gives the factor of each class or None.
    """
    from dask import delayed
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        raise ValueError(
            "X is a Dask collection and there is no Dask client; make one first: "
            "distributed.Client()"
        ) from None
    parts = _delayed(X, X, "X")
    labels = _delayed(y, X, "y")
    weights = (
        [None] * len(parts)
        if sample_weight is None
        else _delayed(sample_weight, X, "sample_weight")
    )
    if not len(parts) == len(labels) == len(weights):
        raise ValueError(
            f"X has {len(parts)} partitions, y {len(labels)}; accepted: the same partitions"
        )
    counted = client.gather(
        client.compute([delayed(_counts)(a, w) for a, w in zip(labels, weights, strict=True)])
    )
    classes, codes = np.unique(np.concatenate([c for c, _ in counted]), return_inverse=True)
    share = np.bincount(codes, np.concatenate([n for _, n in counted]), minlength=len(classes))
    by_class = weigh(classes, share)
    kinds = getattr(X, "dtypes", None)
    kind = X.dtype if kinds is None else np.result_type(*kinds)
    dtype = np.dtype(np.float32 if kind == np.float32 else np.float64)
    partitions = [
        delayed(_rows)(x, a, w, classes, by_class, dtype)
        for x, a, w in zip(parts, labels, weights, strict=True)
    ]
    return OnDask(client, partitions), classes, dtype
