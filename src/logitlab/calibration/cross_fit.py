"""Cross-fitting: out-of-fold calibrated logits of every row."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._distributed import DaskRows, check_chunks
from logitlab._estimators import check_dense
from logitlab._rows import Floats, Integers, check_not_empty, labelled_rows
from logitlab.calibration.base import Calibrator, original_row_numbers

_FOLD_TOLERANCE = 1e-4  # of probabilities that only serve to fit or to select a calibrator


class Splitter(Protocol):
    """A splitter with scikit-learn's interface."""

    def split(self, X: Any, y: Any = None) -> Iterable[tuple[Any, Any]]: ...


def random_folds(n: int, cv: Any, rng: Any) -> Integers:
    """Return a random fold, 0 to cv - 1, for each of n rows; fold sizes differ by at most one."""
    if not 2 <= _checks.integer(cv, "cv") <= n:
        raise ValueError(f"cv must be from 2 to {n}, the number of rows, got {cv!r}")
    return _checks.generator(rng).permutation(np.arange(n, dtype=np.int64) % cv)


def _splits(
    cv: int | Splitter, z: NDArray[Any], y: Integers, rng: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield the training and the test rows of every fold; each row is in one test fold."""
    if not hasattr(cv, "split"):
        folds = random_folds(len(y), cv, rng)
        yield from ((folds != k, folds == k) for k in range(int(folds.max()) + 1))
        return
    test_counts = np.zeros(len(y), np.int64)
    for train, test in cv.split(z, y):
        np.add.at(test_counts, test, 1)
        yield train, test
    if (test_counts != 1).any():
        row = int((test_counts != 1).argmax())
        raise ValueError(
            f"cv must have every row in exactly one test fold, got row {row} in "
            f"{test_counts[row]} test folds"
        )


class FittableTransformer(Protocol):
    """The methods of a calibrator that :func:`cross_fit` calls."""

    @property
    def fit(self) -> Callable[..., Any]: ...

    def transform(self, z: Any) -> Any: ...


def cross_fit(
    calibrator: FittableTransformer,
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    cv: int | Splitter = 2,
    rng: Any = 0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> Any:
    """Return out-of-fold calibrated logits for every row.

    The rows are split into folds. The rows of each fold are calibrated by a copy of `calibrator`
    fitted on the other folds, so that scores of the result are not biased by the fit.

    Parameters
    ----------
    calibrator : object with fit(z, y) and transform(z)
        For example ``TemperatureScaling()``. It is copied, and not changed.
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis : int
        The class axis.
    cv : int or splitter of scikit-learn
        Number of random folds, from 2 to the number of rows that are not left out; or an object
        whose ``split(z, y)`` yields pairs of training and test rows, with every row in exactly one
        test fold, such as :class:`sklearn.model_selection.StratifiedKFold`.
    rng : None, int or numpy.random.Generator
        Seed of the random folds; not used with a splitter.
    sample_weight, ignore_index
        As in :func:`accuracy`. Weights are passed to ``fit`` as `sample_weight`.

    Returns
    -------
    numpy.ndarray, shape of z
        Calibrated logits; NaN in the rows that are left out, which are in no fold. Of a Dask array
        it is a Dask array.

    Raises
    ------
    TypeError, ValueError
        As the calibrator's ``fit``; `calibrator` is a class, or has no ``fit`` or ``transform``;
        `cv` is out of range, or a splitter with a row in no test fold or in several; of Dask
        arrays, `calibrator` is not one of logitlab, or `cv` is a splitter.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = 9 * np.eye(3)[[0, 1, 2] * 200]
    >>> y = np.array([0, 1, 2] * 160 + [1, 2, 0] * 40)  # overconfident: accuracy 80 %
    >>> calibrated = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    >>> logitlab.brier_score(z, y) > logitlab.brier_score(calibrated, y)
    True
    """
    if isinstance(calibrator, type):
        raise TypeError(
            f"calibrator must be an instance, {calibrator.__name__}(), got the class "
            f"{calibrator.__name__}"
        )
    if not (hasattr(calibrator, "fit") and hasattr(calibrator, "transform")):
        raise TypeError(
            "calibrator must have the methods fit(z, y) and transform(z), got a "
            f"{type(calibrator).__name__}"
        )
    z, y = _arrays.as_array(check_dense(z), "z"), _arrays.as_array(y, "y")
    if _arrays.is_dask(z) and z.ndim > 1:
        return _cross_fit_chunks(calibrator, z, y, axis, cv, rng, sample_weight, ignore_index)
    logits, labels, weight, numbers = labelled_rows(z, y, sample_weight, axis, ignore_index)
    numbers = np.arange(len(labels)) if numbers is None else numbers
    calibrated = np.full((math.prod(y.shape), logits.shape[1]), np.nan, logits.dtype)
    for train, test in _splits(cv, logits, labels, rng):
        fitted = copy.deepcopy(calibrator)
        weights = {} if weight is None else {"sample_weight": weight[train]}
        with original_row_numbers(numbers[train]):
            fitted.fit(logits[train], labels[train], **weights)
        with original_row_numbers(numbers[test]):
            calibrated[numbers[test]] = fitted.transform(logits[test])
    return np.moveaxis(calibrated.reshape(*y.shape, -1), -1, axis)


def _cross_fit_chunks(
    calibrator: FittableTransformer,
    z: Any,
    y: Any,
    axis: int,
    cv: int | Splitter,
    rng: Any,
    sample_weight: Any,
    ignore_index: int | Sequence[int] | None,
) -> Any:
    """As :func:`cross_fit`, of a Dask array; only the folds of all rows are in this process."""
    import dask.array as da

    if not isinstance(calibrator, Calibrator):
        raise TypeError(
            "calibrator must be one of logitlab for a Dask array, got a "
            f"{type(calibrator).__name__}"
        )
    if hasattr(cv, "split"):
        raise TypeError(f"cv must be an int for a Dask array, got {cv!r}")
    check_chunks(z, "z")
    check_not_empty(z, "z")
    z = da.moveaxis(_arrays.as_floating(z, "z"), _arrays.one_axis(axis, z.ndim)[0], -1)
    z = z.rechunk({z.ndim - 1: -1})
    rows = DaskRows(z, y, sample_weight, -1, ignore_index, "z")
    counted = rows.counted()
    folds = np.full(len(counted), -1, np.int32)  # -1: a row that is left out
    folds[counted] = random_folds(rows.count, cv, rng)
    fits = [copy.deepcopy(calibrator)._fit_rows(rows.without(folds == k)) for k in range(int(cv))]
    of_rows = da.from_array(folds.reshape(z.shape[:-1]), z.chunks[:-1])
    calibrated = da.map_blocks(_transform_folds, z, of_rows[..., None], fits, dtype=z.dtype)
    return da.moveaxis(calibrated, -1, axis)


def _transform_folds(z: NDArray[Any], folds: NDArray[Any], fits: list[Any]) -> NDArray[Any]:
    """The rows of each fold, transformed by its calibrator; NaN in the others."""
    folds = folds[..., 0]
    calibrated = np.full(z.shape, np.nan, z.dtype)
    for k, fitted in enumerate(fits):
        calibrated[folds == k] = fitted.transform(z[folds == k])
    return calibrated


def out_of_fold_logits(
    calibrator: Calibrator, z: NDArray[Any], y: Integers, weight: Floats | None, folds: Integers
) -> NDArray[Any]:
    """Return checked rows, those of each fold calibrated by a copy fitted on the other folds.

    The probabilities of iterative fits are exact to 1e-4.
    """
    calibrated = np.empty(z.shape, np.result_type(z, np.float32))
    for k in range(int(folds.max()) + 1):
        train, test = np.flatnonzero(folds != k), folds == k
        fitted = copy.deepcopy(calibrator)
        fitted._tolerance = _FOLD_TOLERANCE
        with original_row_numbers(train):
            fitted.fit(z[train], y[train], None if weight is None else weight[train])
        calibrated[test] = fitted.transform(z[test].astype(np.float64))
    return calibrated
