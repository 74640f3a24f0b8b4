"""Structured vector and matrix scaling: affine maps of the log-probabilities near the identity."""

import functools
import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._distributed import Block, Rows
from logitlab._rows import Floats
from logitlab.calibration.affine import (
    Prepare,
    affine_rows,
    check_finite,
    check_ridge,
    check_rows,
)
from logitlab.calibration.base import Calibrator, as_type_of, check_below_infinity
from logitlab.calibration.objectives import (
    AffineRows,
    MatrixObjective,
    MatrixRows,
    PenalizedLoss,
    VectorObjective,
    VectorRows,
    minimum,
)
from logitlab.calibration.temperature import fit_temperature
from logitlab.probabilities import log_softmax


def _log_probabilities(t: float, total: float, block: Block, kind: type[AffineRows]) -> AffineRows:
    """Rows of log-probabilities at T."""
    x = log_softmax(block.z.astype(np.float64), temperature=t)
    return affine_rows(kind, x, block, total)


class _StructuredScaling(Calibrator):
    """An affine map of the log-probabilities after temperature scaling.

    The penalty of the deviation from the identity falls with the number of rows.
    """

    temperature_: float
    bias_: Floats

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    @staticmethod
    @abstractmethod
    def _check_entries(z: Any, xp: Any) -> None:
        """Raise for the first row with an entry that the map does not support."""

    @abstractmethod
    def _objective(self, rows: Rows, prepare: Prepare, ridge: float) -> PenalizedLoss:
        """Return the objective on rows, made of log-probabilities by `prepare`."""

    @abstractmethod
    def _set_fitted(self, theta: Floats) -> None:
        """Set the fitted attributes from the parameters of the objective."""

    @abstractmethod
    def _apply(self, x: Any, xp: Any) -> Any:
        """Return the calibrated logits of log-probabilities."""

    def _check_saved(self, name: str, array: NDArray[Any]) -> None:
        super()._check_saved(name, array)
        if name == "temperature_" and not array > 0:
            raise ValueError(f"{name} must be > 0, got {array}")

    def _fit(self, rows: Rows) -> None:
        total = check_rows(rows, self._check_entries)
        ridge = check_ridge(self.strength, "strength") * rows.classes / rows.count
        t = fit_temperature(rows)
        self.temperature_ = t if 0 < t < math.inf else 1.0
        prepare = functools.partial(_log_probabilities, self.temperature_, total)
        self._set_fitted(minimum(self._objective(rows, prepare, ridge), self._tolerance))

    def _transform(self, z: Any, xp: Any) -> Any:
        self._check_entries(z, xp)
        wide = _arrays.at_least_float32(z, xp)
        x = log_softmax(wide, temperature=self.temperature_)
        with np.errstate(invalid="ignore", over="ignore"):
            return xp.astype(self._apply(x, xp), z.dtype, copy=False)


class StructuredVectorScaling(_StructuredScaling):
    r"""Calibration by a scale and a bias for each class, with a penalty that falls with the rows.

    The calibrated logits are :math:`(1 + v) \log p + b`, with p the probabilities after
    :class:`TemperatureScaling`. Minimizes the mean log-loss plus :math:`s K / n \left(\sum_i v_i^2
    + \sum_i b_i^2\right)`, with n the number of rows of positive weight. It may change the order
    of the classes, and so the accuracy. -inf excludes a class.

    Parameters
    ----------
    strength : float
        s, >= 0.

    Attributes
    ----------
    temperature_ : float
        T; 1 where the log-loss has no minimum at a positive finite T.
    scale_, bias_ : array, shape (K,)
        1 + v, and b.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    References
    ----------
    E. Berta, D. Holzmüller, M. I. Jordan and F. Bach, "Structured matrix scaling for multi-class
    calibration", AISTATS 2026.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> z = rng.standard_normal((1000, 3))
    >>> y = (z * [1, 2, 3] + rng.gumbel(size=z.shape)).argmax(axis=1)
    >>> scaling = logitlab.StructuredVectorScaling().fit(z, y)
    >>> bool(logitlab.cross_entropy(scaling.transform(z), y) < logitlab.cross_entropy(z, y))
    True
    """

    scale_: Floats
    _fitted: ClassVar = {"temperature_": (), "scale_": ("K",), "bias_": ("K",)}

    _check_entries = staticmethod(check_below_infinity)

    def _objective(self, rows: Rows, prepare: Prepare, ridge: float) -> PenalizedLoss:
        sums = rows.prepare(prepare, VectorRows)
        return VectorObjective(sums, rows.count, rows.classes, ridge)

    def _set_fitted(self, theta: Floats) -> None:
        self.scale_, self.bias_ = theta

    def _apply(self, x: Any, xp: Any) -> Any:
        scale, bias = (as_type_of(v, x, xp) for v in (self.scale_, self.bias_))
        return xp.where(x == -xp.inf, x, x * scale + bias)


class StructuredMatrixScaling(_StructuredScaling):
    r"""Calibration by a matrix and a bias, with a penalty that falls with the rows.

    The calibrated logits are :math:`(I + V) \log p + b`, with p the probabilities after
    :class:`TemperatureScaling`. Minimizes the mean log-loss plus :math:`s K / n \left(\sum_i
    V_{ii}^2 + (K - 1) \sum_{i \neq j} V_{ij}^2 + \sum_i b_i^2\right)`, with n the number of rows of
    positive weight. It may change the order of the classes, and so the accuracy. Logits must be
    finite: clip the exact zeros of probabilities first.

    Parameters
    ----------
    strength : float
        s, >= 0.

    Attributes
    ----------
    temperature_ : float
        T; 1 where the log-loss has no minimum at a positive finite T.
    weight_ : array, shape (K, K)
        I + V.
    bias_ : array, shape (K,)
        b.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    References
    ----------
    E. Berta, D. Holzmüller, M. I. Jordan and F. Bach, "Structured matrix scaling for multi-class
    calibration", AISTATS 2026.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> z = rng.standard_normal((1000, 3))
    >>> true = z @ [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]  # class 1 also where class 0 is likely
    >>> y = (true + rng.gumbel(size=z.shape)).argmax(axis=1)
    >>> scaling = logitlab.StructuredMatrixScaling().fit(z, y)
    >>> bool(logitlab.cross_entropy(scaling.transform(z), y) < logitlab.cross_entropy(z, y))
    True
    """

    weight_: Floats
    _fitted: ClassVar = {"temperature_": (), "weight_": ("K", "K"), "bias_": ("K",)}

    _check_entries = staticmethod(check_finite)

    def _objective(self, rows: Rows, prepare: Prepare, ridge: float) -> PenalizedLoss:
        k = rows.classes
        sums = rows.prepare(prepare, MatrixRows)
        return MatrixObjective(sums, rows.count, k, (k - 1) * ridge, ridge, diagonal=ridge)

    def _set_fitted(self, theta: Floats) -> None:
        self.weight_, self.bias_ = theta[:, :-1].copy(), theta[:, -1].copy()

    def _apply(self, x: Any, xp: Any) -> Any:
        weight, bias = (as_type_of(v, x, xp) for v in (self.weight_.T, self.bias_))
        return x @ weight + bias
