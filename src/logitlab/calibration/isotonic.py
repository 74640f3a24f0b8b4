"""Isotonic calibration: isotonic regression of the probability of the predicted class."""

import copy
import math
from typing import Any, ClassVar

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from logitlab import _arrays, _saved
from logitlab._arrays import bincount
from logitlab._bins import isotonic_regression
from logitlab._distributed import rows_in_memory
from logitlab._rows import Floats, Integers, blocks
from logitlab.calibration.base import (
    Calibrator,
    InMemoryCalibrator,
    as_type_of,
    check_below_infinity,
)
from logitlab.calibration.cross_fit import out_of_fold_logits, random_folds
from logitlab.calibration.temperature import fit_temperature

_CV, _SEED = 5, 0  # folds of the logits of the base
_BASE = "base."  # prefix of the names of its arrays in a file
MIN_MARGIN = 2.0**-10  # between the calibrated logits of the predicted class and any other


def isotonic_frequencies(x: Floats, events: Floats, rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the distinct values of x, their rows, and the isotonic regression of the frequency
    of the events on them."""
    values, number = np.unique(x, return_inverse=True)
    total: Floats = bincount(number, rows).astype(np.float64, copy=False)
    return values, total, isotonic_regression(bincount(number, events) / total, total)


class IsotonicCalibration(InMemoryCalibrator):
    r"""Calibration by isotonic regression of the probability of the predicted class.

    The logits are divided by the T of :class:`TemperatureScaling`. Then the accuracy is fitted as
    an ascending function of the probability of the predicted class, by isotonic regression, and
    replaces that probability. The probabilities of the other classes are scaled by a common factor
    to sum to 1. The function has as many values as the rows support, so that it corrects any shape
    of over- or underconfidence; it needs some thousand rows.

    The predicted class, the order of the other classes and the accuracy do not change: where the
    calibrated probability of the predicted class would fall below that of another class, it is
    clipped such that its logit is :math:`2^{-10}` above the next. Of equal largest logits, the
    first is the predicted class. Adding a constant to a row changes nothing. -inf excludes a class.

    Parameters
    ----------
    base : calibrator, optional
        A calibrator that is applied to the logits first, for example ``MatrixScaling()``. It is
        copied, and fitted on all rows. The isotonic regression is fitted on 5-fold cross-fitted
        logits of `base`, because those of the rows of its fit are overconfident. "The predicted
        class" above is then that of the logits after `base`.

    Attributes
    ----------
    base_ : calibrator or None
        The fitted `base`.
    temperature_ : float
        T; 1 where the log-loss has no minimum at a positive finite T.
    log_odds_, calibrated_log_odds_ : array, shape (M,)
        The function, ascending, between the log-odds :math:`\log(p / (1 - p))` of the predicted
        class: for each group of rows with equal fitted accuracy, the mean log-odds before, and
        the log-odds of the accuracy. It is linear between these points and constant beyond them. In
        place of an accuracy of 1, a group has its log-odds before, or those of the group below it
        if they are larger; in place of 0, the accuracy 1 / K, or that of the group above it if it
        is smaller. So no probability is 0.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    References
    ----------
    B. Zadrozny and C. Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates", KDD 2002.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.array([[4.0, 1.0, 0.0]] * 4 + [[0.0, 1.0, 0.0]] * 4)
    >>> isotonic = logitlab.IsotonicCalibration().fit(z, [0, 0, 0, 1, 0, 1, 1, 2])
    >>> isotonic.predict_proba(z[[0, 4]]).round(3)  # 3 of 4 and 2 of 4 predictions are correct
    array([[0.75, 0.16, 0.09],
           [0.25, 0.5 , 0.25]])
    """

    base_: Calibrator | None
    temperature_: float
    log_odds_: Floats
    calibrated_log_odds_: Floats
    _fitted: ClassVar = {"temperature_": (), "log_odds_": ("M",), "calibrated_log_odds_": ("M",)}

    def __init__(self, base: Calibrator | None = None) -> None:
        self.base = base

    def _state(self) -> tuple[_saved.Arrays, dict[str, Any]]:
        arrays, parameters = super()._state()
        if self.base_ is not None:
            base_arrays, base_parameters = self.base_._state()
            arrays |= {f"{_BASE}{name}": array for name, array in base_arrays.items()}
            parameters["base"] = {"kind": type(self.base_).__name__, "parameters": base_parameters}
        return arrays, parameters

    def _set_saved(self, arrays: _saved.Arrays, k: int) -> None:
        own = {name: array for name, array in arrays.items() if not name.startswith(_BASE)}
        self.base_ = copy.deepcopy(self.base)
        if self.base_ is None:
            own = arrays
        else:
            of_base = {name.removeprefix(_BASE): arrays[name] for name in arrays.keys() - own}
            self.base_._set_saved(of_base, k)
        super()._set_saved(own, k)

    def _check_saved(self, name: str, array: NDArray[Any]) -> None:
        super()._check_saved(name, array)
        if name == "temperature_" and not array > 0:
            raise ValueError(f"{name} must be > 0, got {array}")
        if array.ndim and (not array.size or (np.diff(array) < 0).any()):
            raise ValueError(f"{name} must be ascending, with at least one number")

    def _fit_in_memory(self, z: NDArray[Any], y: Integers, weight: Floats | None) -> None:
        if self.base is None:
            self.base_ = None
            check_below_infinity(z, np)
        else:
            z = self._fit_base(self.base, z, y, weight)
        t = fit_temperature(rows_in_memory(z, y, weight))
        self.temperature_ = t if 0 < t < math.inf else 1.0
        log_odds, correct = np.empty(len(y)), np.empty(len(y))
        for rows in blocks(*z.shape):
            top, gap, rest, _ = self._split(z[rows].astype(np.float64), np)
            log_odds[rows] = (gap - rest)[:, 0]
            correct[rows] = top[np.arange(len(gap)), y[rows]]
        # A single class that is not excluded has infinite log-odds.
        finite = np.isfinite(log_odds)
        w = np.ones(len(y)) if weight is None else weight
        if not finite.any():
            self.log_odds_ = self.calibrated_log_odds_ = np.zeros(1)
            return
        self.log_odds_, self.calibrated_log_odds_ = _fit_function(
            log_odds[finite], correct[finite], w[finite], z.shape[1]
        )

    def _fit_base(
        self, base: Any, z: NDArray[Any], y: Integers, weight: Floats | None
    ) -> NDArray[Any]:
        """Fit a copy of `base` on all rows, and return its cross-fitted logits."""
        if not isinstance(base, Calibrator):
            raise TypeError(f"base must be a calibrator or None, got {base!r}")
        if len(y) < 2:
            raise ValueError(f"z must have at least 2 rows for cross-fitting of base, got {len(y)}")
        self.base_ = copy.deepcopy(base).fit(z, y, weight)
        return out_of_fold_logits(base, z, y, weight, random_folds(len(y), min(_CV, len(y)), _SEED))

    def _split(self, z: Any, xp: Any) -> tuple[Any, Any, Any, Any]:
        """Return what defines the distribution of a row, at the temperature.

        The mask of the predicted class; the difference of its logit and the second largest; the
        logsumexp of the other classes less their largest logit; and their logits less that one.
        """
        classes = xp.arange(z.shape[-1], device=device(z))
        top = xp.argmax(z, axis=-1, keepdims=True) == classes
        others = xp.where(top, -xp.inf, z)
        largest = xp.max(others, axis=-1, keepdims=True)
        alone = largest == -xp.inf  # no other class has a probability
        second = xp.where(alone, xp.zeros_like(largest), largest)
        with np.errstate(over="ignore"):
            others = (others - second) / self.temperature_
            gap = (xp.max(z, axis=-1, keepdims=True) - second) / self.temperature_
        with np.errstate(divide="ignore"):
            rest = xp.log(xp.sum(xp.exp(others), axis=-1, keepdims=True))
        return top, gap, rest, others

    def _transform(self, z: Any, xp: Any) -> Any:
        wide = _arrays.at_least_float32(z, xp)
        if self.base_ is None:
            check_below_infinity(z, xp)
        else:
            wide = self.base_.transform(wide)
        with np.errstate(invalid="ignore"):
            top, gap, rest, others = self._split(wide, xp)
            margin = self._interpolate(gap - rest, xp) + rest
        margin = xp.where(margin < MIN_MARGIN, MIN_MARGIN, margin)
        return xp.astype(xp.where(top, margin, others), z.dtype, copy=False)

    def _interpolate(self, x: Any, xp: Any) -> Any:
        """Return the fitted function of log-odds."""
        at, value = (as_type_of(v, x, xp) for v in (self.log_odds_, self.calibrated_log_odds_))
        flat = xp.reshape(xp.clip(x, at[0], at[-1]), (-1,))
        if at.shape == (1,):
            return xp.where(xp.isnan(x), x, value[0])
        i = xp.clip(xp.searchsorted(at, flat, side="right"), 1, at.shape[0] - 1)
        low, high, start, end = (xp.take(v, j) for v in (at, value) for j in (i - 1, i))
        # Values that are distinct in float64 may be equal in the type of z.
        rising = high > low
        share = xp.where(rising, flat - low, 1) / xp.where(rising, high - low, 1)
        return xp.reshape(start + share * (end - start), x.shape)


def _fit_function(
    x: Floats, correct: Floats, weight: Floats, classes: int
) -> tuple[Floats, Floats]:
    """Return the mean x and the log-odds of the accuracy of the groups of equal fitted accuracy."""
    # Rounded, so that the same logits in another order of the classes are tied.
    with np.errstate(over="ignore"):
        rounded = np.round(x, 10)
    rounded = np.where(np.isfinite(rounded), rounded, x)
    values, total, accuracy = isotonic_frequencies(rounded, weight * correct, weight)
    p, group = np.unique(accuracy, return_inverse=True)
    share = total / bincount(group, total)[group]  # divided first: huge logits may overflow
    mean = bincount(group, share * values).astype(np.float64, copy=False)
    with np.errstate(divide="ignore"):
        log_odds = np.log(p) - np.log1p(-p)
    if p[0] == 0:
        log_odds[0] = min([-math.log(classes - 1), *log_odds[1:2]])
    if p[-1] == 1:
        log_odds[-1] = max([mean[-1], *log_odds[-2:-1]])
    return mean, log_odds
