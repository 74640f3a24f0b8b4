"""Vector and matrix scaling: affine maps of the logits with the least ridge-penalized log-loss."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from logitlab import _arrays, _checks
from logitlab._distributed import Block, Rows
from logitlab._rows import Floats
from logitlab.calibration.base import (
    Calibrator,
    as_type_of,
    check_below_infinity,
    original_row_numbers,
    refuse_rows,
)
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


def _centre_rows(z: Any, xp: Any) -> Any:
    """Return rows less the mean of their finite entries; infinite entries stay."""
    finite = xp.isfinite(z)
    if xp is np and finite.all():
        return z - np.sum(z / z.dtype.type(z.shape[-1]), axis=-1, keepdims=True)
    zero = xp.zeros_like(z)
    count = xp.sum(xp.astype(finite, z.dtype), axis=-1, keepdims=True)
    # Divided before the sum, because the sum of huge logits may overflow.
    shares = z / xp.where(count == 0, xp.ones_like(count), count)
    mean = xp.sum(xp.where(finite, shares, zero), axis=-1, keepdims=True)
    return xp.where(finite, z - mean, z)


def check_finite(z: Any, xp: Any) -> None:
    """Raise for the first row with an infinite logit, which a matrix does not support."""
    reason = (
        "holds an infinite logit; logits must be finite, as each output mixes all classes: "
        "clip them, or the probabilities that they are the logarithms of"
    )
    refuse_rows(xp.isinf(z), reason, xp)


def check_ridge(x: Any, name: str) -> float:
    """Return the factor of a penalty."""
    return _checks.real(x, name, "finite and >= 0", lambda x: 0 <= x < math.inf)


# Makes the rows of a block for the sums of an objective.
Prepare = Callable[[Block, type[AffineRows]], AffineRows]
Check = Callable[[Any, Any], None]


def _check_block(block: Block, check: Check) -> tuple[float]:
    with original_row_numbers(block.numbers):
        check(block.z, np)
    return (float(len(block.y) if block.weight is None else block.weight.sum()),)


def check_rows(rows: Rows, check: Check) -> float:
    """Check the entries of all rows; return the sum of the weights."""
    (total,) = rows.reduce(_check_block, check)
    return float(total)


def affine_rows(kind: type[AffineRows], x: Floats, block: Block, total: float) -> AffineRows:
    """Rows of x with the labels of a block, and weights over their sum over all rows."""
    weight = np.full(len(x), 1 / total) if block.weight is None else block.weight / total
    return kind(x, block.y, weight)


def _centred(t: float, total: float, block: Block, kind: type[AffineRows]) -> AffineRows:
    """Rows of centred logits over T."""
    return affine_rows(kind, _centre_rows(block.z.astype(np.float64) / t, np), block, total)


class _AffineScaling(Calibrator):
    """An affine map of centred logits over T.

    The fit ends where the estimated excess of the objective over its minimum is at most
    5e-19 times the objective. The log-loss bounds the squared error of the probabilities.
    """

    bias_: Floats

    @abstractmethod
    def _objective(self, rows: Rows, prepare: Prepare) -> PenalizedLoss:
        """Return the objective on rows, made of centred logits over T by `prepare`."""

    @abstractmethod
    def _set_fitted(self, theta: Floats, temperature: float) -> None:
        """Set the fitted attributes from the parameters of the objective."""

    @abstractmethod
    def _apply(self, z: Any, xp: Any) -> Any:
        """Return the calibrated logits of centred logits."""

    @staticmethod
    @abstractmethod
    def _check_entries(z: Any, xp: Any) -> None:
        """Raise for the first row with an entry that the map does not support."""

    def _fit(self, rows: Rows) -> None:
        total = check_rows(rows, self._check_entries)
        t = fit_temperature(rows)
        t = t if 0 < t < math.inf else 1.0
        objective = self._objective(rows, functools.partial(_centred, t, total))
        self._set_fitted(minimum(objective, self._tolerance), t)

    def _transform(self, z: Any, xp: Any) -> Any:
        self._check_entries(z, xp)
        wide = _arrays.at_least_float32(z, xp)
        with np.errstate(invalid="ignore", over="ignore"):
            return xp.astype(self._apply(_centre_rows(wide, xp), xp), z.dtype, copy=False)


class VectorScaling(_AffineScaling):
    r"""Calibration by a scale and a bias for each class: softmax(w * z + b).

    Minimizes the mean log-loss plus :math:`\rho \left(\sum_i (T w_i - 1)^2 + \sum_i
    b_i^2\right)`, where T is the temperature of :class:`TemperatureScaling`. A large ridge
    approaches temperature scaling; 0 is vector scaling as first published. It may change the
    order of the classes, and so the accuracy. Rows are centred first, so that adding a constant
    to a row changes nothing. -inf excludes a class.

    Parameters
    ----------
    ridge : float
        :math:`\rho`, >= 0.

    Attributes
    ----------
    scale_, bias_ : array, shape (K,)
        w, in the inverse unit of the logits, and b.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.array([[1.0, -1.0]] * 4 + [[-1.0, 1.0]] * 4)
    >>> scaling = logitlab.VectorScaling(ridge=0).fit(z, [0, 0, 0, 1, 0, 0, 1, 1])
    >>> scaling.predict_proba(z[[0, 4]]).round(3)
    array([[0.75, 0.25],
           [0.5 , 0.5 ]])
    """

    scale_: Floats
    _fitted: ClassVar = {"scale_": ("K",), "bias_": ("K",)}

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    _check_entries = staticmethod(check_below_infinity)

    def _objective(self, rows: Rows, prepare: Prepare) -> VectorObjective:
        ridge = check_ridge(self.ridge, "ridge")
        sums = rows.prepare(prepare, VectorRows)
        return VectorObjective(sums, rows.count, rows.classes, ridge)

    def _set_fitted(self, theta: Floats, temperature: float) -> None:
        self.scale_, self.bias_ = theta[0] / temperature, theta[1]

    def _apply(self, z: Any, xp: Any) -> Any:
        scale, bias = (as_type_of(x, z, xp) for x in (self.scale_, self.bias_))
        return xp.where(z == -xp.inf, z, z * scale + bias)


class MatrixScaling(_AffineScaling):
    r"""Calibration by an affine map of the logits with a ridge penalty: softmax(W z + b).

    Minimizes the mean log-loss plus :math:`\lambda \sum_{i \neq j} (T W_{ij})^2 + \mu \sum_i
    b_i^2`, where T is the temperature of :class:`TemperatureScaling`. This is the off-diagonal and
    intercept regularization (ODIR) of Dirichlet calibration, whose authors write the weights as
    :math:`\lambda K (K - 1)` and :math:`\mu K`. Without a ridge, K (K + 1) parameters overfit. It
    may change the order of the classes, and so the accuracy. Rows are centred first, so that
    adding a constant to a row changes nothing. Logits must be finite: clip the exact zeros of
    probabilities first, for example ``logits(np.clip(p, 1e-7, 1))``.

    Parameters
    ----------
    off_diagonal, bias : float
        :math:`\lambda` and :math:`\mu`, >= 0.

    Attributes
    ----------
    weight_ : array, shape (K, K)
        W, in the inverse unit of the logits.
    bias_ : array, shape (K,)
        b.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    References
    ----------
    M. Kull, M. Perello-Nieto, M. Kängsepp, T. Silva Filho, H. Song and P. Flach, "Beyond
    temperature scaling: obtaining well-calibrated multiclass probabilities with Dirichlet
    calibration", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> z = rng.standard_normal((1000, 3))
    >>> true = z @ [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]  # class 1 also where class 0 is likely
    >>> y = (true + rng.gumbel(size=z.shape)).argmax(axis=1)
    >>> scaling = logitlab.MatrixScaling().fit(z, y)
    >>> bool(logitlab.cross_entropy(scaling.transform(z), y) < logitlab.cross_entropy(z, y))
    True
    """

    weight_: Floats
    _fitted: ClassVar = {"weight_": ("K", "K"), "bias_": ("K",)}

    def __init__(self, off_diagonal: float = 1e-2, bias: float = 1e-2) -> None:
        self.off_diagonal = off_diagonal
        self.bias = bias

    _check_entries = staticmethod(check_finite)

    def _objective(self, rows: Rows, prepare: Prepare) -> MatrixObjective:
        ridges = check_ridge(self.off_diagonal, "off_diagonal"), check_ridge(self.bias, "bias")
        sums = rows.prepare(prepare, MatrixRows)
        return MatrixObjective(sums, rows.count, rows.classes, *ridges)

    def _set_fitted(self, theta: Floats, temperature: float) -> None:
        self.weight_, self.bias_ = theta[:, :-1] / temperature, theta[:, -1].copy()

    def _apply(self, z: Any, xp: Any) -> Any:
        weight, bias = (as_type_of(x, z, xp) for x in (self.weight_.T, self.bias_))
        return z @ weight + bias
