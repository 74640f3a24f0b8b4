"""Calibrators of two classes: beta calibration and Platt scaling."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._arrays import bincount
from logitlab._distributed import rows_in_memory
from logitlab._rows import Floats, Integers
from logitlab.calibration.base import InMemoryCalibrator, check_below_infinity
from logitlab.calibration.objectives import VectorObjective, VectorRows, minimum
from logitlab.calibration.temperature import fit_temperature


def _log_odds(z: Any, xp: Any) -> Any:
    """Return the logit of class 1 less that of class 0; 0 where one is -inf."""
    excluded = xp.any(z == -xp.inf, axis=-1, keepdims=True)
    finite = xp.where(excluded, xp.zeros_like(z), z)
    largest = xp.finfo(z.dtype).max
    with np.errstate(over="ignore"):
        return xp.clip(finite[..., 1] - finite[..., 0], -largest, largest)


def _log_sigmoid(x: Any, xp: Any) -> Any:
    """Return log(1 / (1 + exp(-x)))."""
    zero = xp.zeros_like(x)
    return xp.where(x < 0, x, zero) - xp.log1p(xp.exp(-xp.abs(x)))


class _BinaryCalibration(InMemoryCalibrator):
    """A function of the log-odds of class 1 of two classes."""

    @abstractmethod
    def _fit_log_odds(self, s: Floats, y: Integers, weight: Floats, temperature: float) -> None:
        """Set the fitted attributes, from the log-odds of rows where both classes are possible."""

    @abstractmethod
    def _calibrate(self, s: Any, xp: Any) -> Any:
        """Return the calibrated log-odds."""

    def _fit_in_memory(self, z: NDArray[Any], y: Integers, weight: Floats | None) -> None:
        if z.shape[1] != 2:
            raise ValueError(
                f"z must have shape (..., 2): {type(self).__name__} is for two classes, got "
                f"{z.shape[1]} classes"
            )
        check_below_infinity(z, np)
        t = fit_temperature(rows_in_memory(z, y, weight))
        # The loss of a row with an excluded class is 0.
        rows = (z > -np.inf).all(axis=1)
        if not rows.any():
            raise ValueError("z must have a row without -inf")
        w = np.ones(len(y)) if weight is None else weight
        s = _log_odds(z[rows].astype(np.float64), np)
        self._fit_log_odds(s, y[rows], w[rows] / w.mean(), t if 0 < t < math.inf else 1.0)

    def _transform(self, z: Any, xp: Any) -> Any:
        check_below_infinity(z, xp)
        wide = _arrays.at_least_float32(z, xp)
        undefined = xp.any(xp.isnan(wide), axis=-1, keepdims=True)
        with np.errstate(over="ignore"):
            s = self._calibrate(_log_odds(wide, xp), xp)
            calibrated = xp.where(z == -xp.inf, wide, xp.stack([xp.zeros_like(s), s], axis=-1))
            calibrated = xp.where(undefined, xp.nan, calibrated)
            return xp.astype(calibrated, z.dtype, copy=False)


class BetaCalibration(_BinaryCalibration):
    r"""Calibration of two classes by three parameters: beta calibration.

    With p the probability of class 1, the calibrated log-odds are :math:`a \log p - b \log(1 - p)
    + c`. The parameters minimize the mean log-loss with a, b >= 0, so that the map is ascending.
    a = b is Platt scaling of the log-odds; a = b = 1, c = 0 changes nothing. The predicted class
    may change. -inf excludes a class.

    Attributes
    ----------
    a_, b_, c_ : float
        The parameters.
    classes_ : array of int, shape (2,)
        0 and 1.
    n_features_in_ : int
        2.

    References
    ----------
    M. Kull, T. Silva Filho and P. Flach, "Beta calibration: a well-founded and easily implemented
    improvement on logistic calibration for binary classifiers", AISTATS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> p = np.array([0.5, 0.8, 0.9])[[0] * 4 + [1] * 4 + [2] * 4]
    >>> beta = logitlab.BetaCalibration()
    >>> z = logitlab.logits(np.stack([1 - p, p], axis=1))
    >>> beta.fit(z, [0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1]).predict_proba(z[[0, 4, 8]]).round(3)
    array([[0.76 , 0.24 ],
           [0.477, 0.523],
           [0.263, 0.737]])
    """

    a_: float
    b_: float
    c_: float
    _fitted: ClassVar = {"a_": (), "b_": (), "c_": ()}

    def _fit_log_odds(self, s: Floats, y: Integers, weight: Floats, temperature: float) -> None:
        logs = np.stack([_log_sigmoid(-s, np), _log_sigmoid(s, np)], axis=1) / temperature
        fits = []
        for used in ([1, 1], [0, 1], [1, 0], [0, 0]):
            # A class with probability 1 has no influence on the scale of its logit.
            rows = VectorRows(logs * used, y, weight / weight.sum())
            objective = VectorObjective(rows.sums, len(s), 2, 0.0)
            theta = minimum(objective, self._tolerance)
            scale = theta[0] * used / temperature
            if (scale >= 0).all():
                loss = objective.value_and_gradient(theta)[0]
                fits.append((loss, float(scale[1]), float(scale[0]), float(theta[1] @ [-1, 1])))
                if used[0] == used[1]:
                    break
        _, self.a_, self.b_, self.c_ = min(fits)

    def _calibrate(self, s: Any, xp: Any) -> Any:
        return self.a_ * _log_sigmoid(s, xp) - self.b_ * _log_sigmoid(-s, xp) + self.c_


class PlattScaling(_BinaryCalibration):
    r"""Calibration of two classes by logistic regression of the log-odds: Platt scaling.

    The calibrated log-odds of class 1 are its log-odds times a slope plus an intercept, which
    minimize the mean log-loss. In place of the labels 1 and 0 it has Platt's targets,
    :math:`(n_1 + 1) / (n_1 + 2)` and :math:`1 / (n_0 + 2)`, with :math:`n_1` and :math:`n_0` the
    rows of each class: they keep the parameters finite where the classes are separable. Weights
    are scaled to a mean of 1. The predicted class may change. -inf excludes a class.

    Attributes
    ----------
    slope_, intercept_ : float
        The parameters.
    classes_ : array of int, shape (2,)
        0 and 1.
    n_features_in_ : int
        2.

    References
    ----------
    J. Platt, "Probabilistic outputs for support vector machines and comparisons to regularized
    likelihood methods", Advances in Large Margin Classifiers, 1999.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> score = np.array([-2.0, 0.0, 2.0])[[0] * 4 + [1] * 4 + [2] * 4]
    >>> z = np.stack([np.zeros(12), score], axis=1)  # a score of class 1
    >>> platt = logitlab.PlattScaling().fit(z, [0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1])
    >>> platt.predict_proba(z[[0, 4, 8]]).round(3)
    array([[0.687, 0.313],
           [0.5  , 0.5  ],
           [0.313, 0.687]])
    """

    slope_: float
    intercept_: float
    _fitted: ClassVar = {"slope_": (), "intercept_": ()}

    def _fit_log_odds(self, s: Floats, y: Integers, weight: Floats, temperature: float) -> None:
        n0, n1 = bincount(y, weight, 2)
        # The loss of a target is that of both labels with its probabilities as weights.
        target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
        both = np.concatenate([weight * (1 - target), weight * target]) / weight.sum()
        x = np.stack([np.zeros(len(s)), s / temperature], axis=1)
        labels = np.repeat([0, 1], len(s))
        rows = VectorRows(np.concatenate([x, x]), labels, both)
        objective = VectorObjective(rows.sums, len(labels), 2, 0.0)
        theta = minimum(objective, self._tolerance)
        self.slope_, self.intercept_ = float(theta[0, 1] / temperature), float(theta[1] @ [-1, 1])

    def _calibrate(self, s: Any, xp: Any) -> Any:
        return self.slope_ * s + self.intercept_
