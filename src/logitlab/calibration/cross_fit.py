"""Cross-fitting: every row calibrated by what never saw it."""

import copy
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._rows import Integers, as_rows


def split(rows: int, folds: int, rng: Any) -> Integers:
    """The fold of each row, drawn at random; fold sizes differ by at most one."""
    if not 2 <= _checks.whole(folds, "folds") <= rows:
        raise ValueError(f"folds is {folds!r}; accepted: 2 to {rows}, the number of rows")
    return _checks.generator(rng).permutation(np.arange(rows, dtype=np.int64) % folds)


class Fittable(Protocol):
    """What :func:`cross_fit` needs of a calibrator."""

    def fit(self, z: Any, y: Any) -> Any: ...

    def transform(self, z: Any) -> Any: ...


def cross_fit(
    calibrator: Fittable, z: Any, y: Any, *, folds: int = 2, rng: Any = 0
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
    folds : int
        Number of folds, from 2 to the number of rows.
    rng : None, int or numpy.random.Generator
        Seed of the split.

    Returns
    -------
    numpy.ndarray, shape of z
        Calibrated logits.

    Raises
    ------
    TypeError, ValueError
        As the calibrator's ``fit``; `calibrator` is a class, or has no ``fit`` and ``transform``;
        `folds` out of range.

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
    fold = split(len(labels), folds, rng)
    calibrated = np.empty_like(logits)
    for k in range(folds):
        held = fold == k
        fitted = copy.deepcopy(calibrator)
        fitted.fit(logits[~held], labels[~held])
        calibrated[held] = fitted.transform(logits[held])
    return calibrated.reshape(np.shape(z))
