"""Cross-fitting: every row calibrated by what never saw it."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._rows import Integers, as_rows


class Splitter(Protocol):
    """A splitter of scikit-learn."""

    def split(self, X: Any, y: Any = None) -> Iterable[tuple[Any, Any]]: ...


def random_folds(n: int, cv: Any, rng: Any) -> Integers:
    """The fold of each of n rows, at random; fold sizes differ by at most one."""
    if not 2 <= _checks.integer(cv, "cv") <= n:
        raise ValueError(f"cv must be from 2 to {n}, the number of rows, got {cv!r}")
    return _checks.generator(rng).permutation(np.arange(n, dtype=np.int64) % cv)


def _splits(
    cv: int | Splitter, z: NDArray[Any], y: Integers, rng: Any
) -> Iterator[tuple[Any, Any]]:
    """Training and test rows of every fold; each row is in one test fold."""
    if not hasattr(cv, "split"):
        folds = random_folds(len(y), cv, rng)
        yield from ((folds != k, folds == k) for k in range(int(folds.max()) + 1))
        return
    tested = np.zeros(len(y), np.int64)
    for train, test in cv.split(z, y):
        np.add.at(tested, test, 1)
        yield train, test
    if (tested != 1).any():
        row = int((tested != 1).argmax())
        raise ValueError(
            f"cv must have every row in exactly one test fold, got row {row} in {tested[row]}"
        )


class Fittable(Protocol):
    """What :func:`cross_fit` needs of a calibrator."""

    def fit(self, z: Any, y: Any) -> Any: ...

    def transform(self, z: Any) -> Any: ...


def cross_fit(
    calibrator: Fittable, z: Any, y: Any, *, cv: int | Splitter = 2, rng: Any = 0
) -> NDArray[Any]:
    """Calibrated logits for every row, from a calibrator that never saw the row.

    The rows are split at random; the rows of each fold are calibrated by a copy of `calibrator`
    fitted on the other folds. Scores of the result are honest: nothing is judged on what it was
    fitted to.

    Parameters
    ----------
    calibrator : object with fit(z, y) and transform(z)
        For example :class:`TemperatureScaling`. It is copied, and left as it is.
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    cv : int or splitter of scikit-learn
        Number of folds, from 2 to the number of rows, which are assigned at random; or an object
        whose ``split(z, y)`` gives training and test rows, with every row in one test fold, such
        as :class:`sklearn.model_selection.StratifiedKFold`.
    rng : None, int or numpy.random.Generator
        Seed of the random folds.

    Returns
    -------
    numpy.ndarray, shape of z
        Calibrated logits.

    Raises
    ------
    TypeError, ValueError
        As the calibrator's ``fit``; `calibrator` is a class, or has no ``fit`` and ``transform``;
        `cv` out of range, or a splitter that leaves a row out or tests it twice.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = 9 * np.eye(3)[[0, 1, 2] * 200]
    >>> y = np.array([0, 1, 2] * 160 + [1, 2, 0] * 40)  # certain, and wrong in every fifth row
    >>> honest = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    >>> logitlab.brier_score(z, y) > logitlab.brier_score(honest, y)
    True
    """
    if isinstance(calibrator, type):
        raise TypeError(
            f"calibrator is the class {calibrator.__name__}; accepted: an object of it, "
            f"{calibrator.__name__}()"
        )
    if not (hasattr(calibrator, "fit") and hasattr(calibrator, "transform")):
        raise TypeError(
            f"calibrator is a {type(calibrator).__name__}; accepted: an object with fit(z, y) and "
            "transform(z)"
        )
    logits, labels = as_rows(z, y)
    calibrated = np.empty_like(logits)
    for train, test in _splits(cv, logits, labels, rng):
        fitted = copy.deepcopy(calibrator)
        fitted.fit(logits[train], labels[train])
        calibrated[test] = fitted.transform(logits[test])
    return calibrated.reshape(np.shape(z))
