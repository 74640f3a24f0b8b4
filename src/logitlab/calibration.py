"""Calibration: probabilities that come true as often as they say."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from logitlab.probabilities import softmax
from logitlab.scores import Integers, as_rows, blocks

Labelled = tuple[NDArray[Any], Integers]  # logits (rows, K) and labels (rows,)
_TOLERANCE = 1e-10  # of log T; a Newton step of that size leaves an error of its square
_PASSES = 200


def _magnitude(chunks: Callable[[], Iterable[Labelled]]) -> float:
    """The largest absolute finite logit; refuses rows that no temperature can explain."""
    largest, start = 0.0, 0
    for z, y in chunks():
        true = np.take_along_axis(z, y[:, None], axis=-1)[:, 0]
        top = z.max(axis=-1)
        for bad, why in (
            (np.isnan(top) | (top == -np.inf), "holds NaN, or -inf alone: it has no distribution"),
            (true == -np.inf, "gives its label the logit -inf: the log-loss is always infinite"),
            ((top == np.inf) & (true < np.inf), "has +inf beside its label: as above"),
        ):
            if bad.any():
                raise ValueError(f"row {start + int(bad.argmax())} of z {why}")
        start += len(y)
        finite = np.abs(z[np.isfinite(z)])
        largest = max(largest, float(finite.max(initial=0.0)))
    return largest


def minimise_log_loss(chunks: Callable[[], Iterable[Labelled]]) -> float:
    r"""The temperature with the least mean log-loss; `chunks` gives all rows anew at each call.

    With :math:`\beta = 1/T` the loss of a row is :math:`\log \sum_i e^{\beta z_i} - \beta z_y`,
    convex in beta: its slope is :math:`E_p[z] - z_y`, its curvature :math:`\mathrm{Var}_p[z]`.
    The slope's one root is found by Newton steps in log beta, kept inside a shrinking bracket.
    """
    largest = _magnitude(chunks)
    # Logits are taken times 2^-exponent, exactly, so that no difference overflows.
    exponent = math.frexp(largest)[1] if largest else 0

    def slope(t: float) -> tuple[float, float]:
        first = second = 0.0
        rows = 0
        for z, y in chunks():
            rows += len(y)
            determined = np.isposinf(z).any(axis=-1)  # +inf: the same loss at every T
            scaled = np.ldexp(z[~determined].astype(np.float64), -exponent)
            below = scaled - scaled.max(axis=-1, keepdims=True)
            p = softmax(scaled, temperature=t)
            below = np.where(np.isneginf(below), 0.0, below)
            mean = np.sum(p * below, axis=-1, keepdims=True)
            true = np.take_along_axis(below, y[~determined][:, None], axis=-1)
            first += float(np.sum(mean - true))
            second += float(np.sum(p * (below - mean) ** 2))
        return first / rows, second / rows

    if slope(0.0)[0] <= 0:
        raise ValueError(
            "z ranks its label first in every row: the log-loss falls for as long as the "
            "temperature does, and no temperature minimises it"
        )
    flat, spread = slope(math.inf)
    if flat >= 0:
        raise ValueError(
            "z speaks against y: equal shares for all classes have a smaller log-loss than any "
            "positive temperature (are the labels numbered as the columns are?)"
        )
    low, high, reach = 0.0, math.inf, 2.0
    scale = 1 / math.sqrt(spread)
    beta = min(max(math.ldexp(1.0, exponent), 0.1 * scale), 100 * scale)
    for _ in range(_PASSES):
        first, second = slope(1 / beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        step = -first / (beta * second) if second > 0 else math.copysign(math.inf, -first)
        if abs(step) < _TOLERANCE:
            beta *= math.exp(step)
            break
        if abs(step) > reach:
            step = math.copysign(reach, step)
            reach *= 2
        moved = beta * math.exp(step)
        if not low < moved < high:
            moved = math.sqrt(low) * math.sqrt(high)
        beta = moved
    return math.ldexp(1 / beta, exponent)


def split(rows: int, folds: int, rng: Any) -> Integers:
    """The fold of each row, drawn at random; fold sizes differ by at most one."""
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= rows:
        raise ValueError(f"folds is {folds!r}; accepted: 2 to {rows}, the number of rows")
    return np.random.default_rng(rng).permutation(np.arange(rows, dtype=np.int64) % folds)


class TemperatureScaling:
    r"""Calibration by one number: the temperature T that minimises the mean log-loss.

    Dividing all logits by T keeps the order of the classes in every row, so the accuracy stays,
    while confidence falls (T > 1) or rises (T < 1). The log-loss is convex in 1/T, hence the fit
    is the global minimum; it reads the logits in blocks and needs no memory of their size.

    Attributes
    ----------
    temperature_ : float
        The fitted T: positive, in the unit of the logits.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> scaling = logitlab.TemperatureScaling().fit(z, [0, 0, 1, 1])
    >>> round(scaling.temperature_, 4)  # right 3 times of 4: e^(4/T) = 3
    3.641
    >>> scaling.predict_proba(z[:1]).round(4)
    array([[0.75, 0.25]])
    """

    temperature_: float

    def fit(self, z: Any, y: Any) -> Self:
        """Find the temperature on labelled rows.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits. -inf excludes a class; a row with +inf is the same at every temperature.
        y : array of int, shape (...)
            Labels, 0 to K - 1.

        Returns
        -------
        TemperatureScaling
            Itself.

        Raises
        ------
        TypeError
            `y` does not hold integers; `z` is of a type that :func:`logitlab.softmax` does not
            take.
        ValueError
            Labels of another shape or out of range; a row without a distribution, or whose label
            has probability 0; the label ranks first in every row (T would fall to 0); the
            logits speak against the labels (T would be infinite or negative).
        """
        logits, labels = as_rows(z, y)
        self.temperature_ = minimise_log_loss(
            lambda: ((logits[rows], labels[rows]) for rows in blocks(*logits.shape))
        )
        return self

    def transform(self, z: Any) -> Any:
        """Calibrated logits, z / T.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits, of any kind that :func:`logitlab.softmax` takes.

        Returns
        -------
        array, shape of z
            Of z's kind.
        """
        from logitlab.arrays import as_floating

        with np.errstate(over="ignore", under="ignore"):
            return as_floating(z, "z") / self.temperature_

    def predict_proba(self, z: Any) -> Any:
        """Calibrated probabilities, softmax(z / T) as if in exact arithmetic.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits, of any kind that :func:`logitlab.softmax` takes.

        Returns
        -------
        array, shape of z
            Of z's kind.
        """
        return softmax(z, temperature=self.temperature_)


class Calibrator(Protocol):
    """What :func:`cross_fit` needs of a calibrator."""

    def fit(self, z: Any, y: Any) -> Any: ...

    def transform(self, z: Any) -> Any: ...


def cross_fit(
    calibrator: Calibrator, z: Any, y: Any, *, folds: int = 2, rng: Any = 0
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
        As the calibrator's ``fit``; `folds` out of range.

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
    logits, labels = as_rows(z, y)
    fold = split(len(labels), folds, rng)
    calibrated = np.empty_like(logits)
    for k in range(folds):
        held = fold == k
        fitted = copy.deepcopy(calibrator)
        fitted.fit(logits[~held], labels[~held])
        calibrated[held] = fitted.transform(logits[held])
    return calibrated.reshape(np.shape(z))
