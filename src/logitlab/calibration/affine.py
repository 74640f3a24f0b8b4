"""Vector and matrix scaling: affine maps of the logits, at the minimum of a ridged log-loss."""

import math
from abc import abstractmethod
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _checks
from logitlab._rows import Floats, Integers, blocks
from logitlab.calibration.base import Calibrator, RowError, labelled, numbered
from logitlab.calibration.temperature import fit_temperature
from logitlab.probabilities import softmax

_GRADIENT = 1e-6  # largest entry of the gradient of the mean loss, at which to stop
_ITERATIONS = 1000


def _centred(z: Any, xp: Any) -> Any:
    """Rows less their mean over the finite entries, of which -inf stays: the same for z + c."""
    left = xp.isfinite(z)
    zero = xp.zeros_like(z)
    count = xp.sum(xp.astype(left, z.dtype), axis=-1, keepdims=True)
    # Divided first: the sum of huge logits may overflow.
    part = z / xp.where(count == 0, xp.ones_like(count), count)
    mean = xp.sum(xp.where(left, part, zero), axis=-1, keepdims=True)
    return xp.where(left, z - mean, z)


def _ridge(x: Any, name: str) -> float:
    return _checks.real(x, name, "finite and >= 0", lambda x: 0 <= x < math.inf)


class _Affine(Calibrator):
    """An affine map of centred logits over T, fitted as a departure from the identity."""

    classes_: Integers
    bias_: Floats

    @abstractmethod
    def _ridges(self, k: int) -> Floats:
        """The weight of the square of each parameter, the bias last."""

    @abstractmethod
    def _move(self, x: Floats, v: Floats) -> Floats:
        """Calibrated logits of x under the parameters v."""

    @abstractmethod
    def _gradient(self, x: Floats, g: Floats) -> Floats:
        """The derivative in the parameters, of g that in the calibrated logits."""

    @abstractmethod
    def _keep(self, v: Floats, temperature: float) -> None:
        """Set the fitted attributes."""

    @abstractmethod
    def _apply(self, z: Any, xp: Any) -> Any:
        """Calibrated logits of centred ones."""

    @abstractmethod
    def _refused(self, z: Any, xp: Any) -> Any:
        """The entries that the map cannot take."""

    _why: str

    def _check(self, z: Any, xp: Any) -> None:
        """Refuse rows with such entries."""
        rows = xp.any(self._refused(z, xp), axis=-1)
        if _arrays.any_of(rows, xp):
            raise RowError(_arrays.first_true(rows, xp), self._why)

    def fit(self, z: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the map on labelled rows.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits.
        y : array of int, shape (...)
            Labels, 0 to K - 1.
        sample_weight : array, shape (...), optional
            Weights of the rows, 0 and up; only their proportions count.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As :meth:`TemperatureScaling.fit`; rows with entries that the map cannot take; a ridge
            below 0.
        ModuleNotFoundError
            SciPy, whose L-BFGS-B finds the minimum, is not installed.
        """
        from scipy.optimize import minimize

        logits, labels, weights, numbers = labelled(z, y, sample_weight)
        ridges = self._ridges(logits.shape[1])
        with numbered(numbers):
            self._check(logits, np)
            t = fit_temperature(logits, labels, weights)
        t = t if 0 < t < math.inf else 1.0
        x = _centred(logits.astype(np.float64) / t, np)
        w = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()

        def loss(v: Floats) -> tuple[float, Floats]:
            total, slope = float(ridges @ v**2), 2 * ridges * v
            for rows in blocks(*x.shape):
                part, place = x[rows], np.arange(len(labels[rows]))
                u = self._move(part, v)
                u -= u.max(axis=-1, keepdims=True)
                true = u[place, labels[rows]]
                np.exp(u, out=u)
                sums = u.sum(axis=-1)
                total += float(w[rows] @ (np.log(sums) - true))
                u *= (w[rows] / sums)[:, None]
                u[place, labels[rows]] -= w[rows]
                slope += self._gradient(part, u)
            return total, slope

        options = {"maxiter": _ITERATIONS, "ftol": 0, "gtol": _GRADIENT, "maxcor": 20}
        found = minimize(loss, np.zeros(len(ridges)), jac=True, method="L-BFGS-B", options=options)
        self._keep(found.x, t)
        self.classes_ = np.arange(logits.shape[1])
        return self

    def transform(self, z: Any) -> Any:
        """Calibrated logits.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits, of any kind that :func:`logitlab.softmax` takes.

        Returns
        -------
        array, shape of z
            Of z's kind.

        Raises
        ------
        ValueError
            Another number of classes than in ``fit``; entries that the map cannot take.
        """
        self._check_fitted("classes_")
        z = _arrays.as_floating(z, "z")
        xp = array_namespace(z)
        if z.ndim == 0 or z.shape[-1] != len(self.classes_):
            raise ValueError(
                f"z has shape {tuple(z.shape)}; accepted: rows of {len(self.classes_)} classes"
            )
        self._check(z, xp)
        wide = _arrays.at_least_float32(z, xp)
        with np.errstate(invalid="ignore"):
            return xp.astype(self._apply(_centred(wide, xp), xp), z.dtype, copy=False)

    def predict_proba(self, z: Any) -> Any:
        """Calibrated probabilities: the softmax of :meth:`transform`.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits, of any kind that :func:`logitlab.softmax` takes.

        Returns
        -------
        array, shape of z
            Of z's kind.
        """
        return softmax(self.transform(z))


class VectorScaling(_Affine):
    r"""Calibration by a factor and a bias for each class: softmax(w * z + b).

    The minimum of the mean log-loss plus :math:`\rho \left(\sum_i (T w_i - 1)^2 + \sum_i
    b_i^2\right)`, with T the temperature of :class:`TemperatureScaling`: a large ridge leaves
    temperature scaling, 0 is vector scaling as first described. It may change the order of the
    classes, and so the accuracy. Rows are centred first, so that adding a constant to a row
    changes nothing. -inf excludes a class.

    Parameters
    ----------
    ridge : float
        :math:`\rho`, 0 and up.

    Attributes
    ----------
    scale_, bias_ : array, shape (K,)
        w, in one over the unit of the logits, and b.
    classes_ : array of int, shape (K,)
        0 to K - 1.

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

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def _ridges(self, k: int) -> Floats:
        return np.full(2 * k, _ridge(self.ridge, "ridge"))

    _why = "holds +inf; accepted: finite, -inf"

    def _refused(self, z: Any, xp: Any) -> Any:
        return z == xp.inf

    def _move(self, x: Floats, v: Floats) -> Floats:
        a, b = np.split(v, 2)
        # 0 times -inf, and a negative factor of it, are still an excluded class.
        return np.where(np.isneginf(x), x, np.where(np.isneginf(x), 0, x) * (1 + a) + b)

    def _gradient(self, x: Floats, g: Floats) -> Floats:
        return np.concatenate([np.einsum("nk,nk->k", g, np.where(g == 0, 0, x)), g.sum(axis=0)])

    def _keep(self, v: Floats, temperature: float) -> None:
        a, self.bias_ = np.split(v, 2)
        self.scale_ = (1 + a) / temperature

    def _apply(self, z: Any, xp: Any) -> Any:
        scale = xp.astype(_arrays.like(self.scale_, z, xp, "scale"), z.dtype)
        bias = xp.astype(_arrays.like(self.bias_, z, xp, "bias"), z.dtype)
        return xp.where(z == -xp.inf, z, z * scale + bias)


class MatrixScaling(_Affine):
    r"""Calibration by an affine map of the logits: softmax(W z + b), with a ridge.

    The minimum of the mean log-loss plus :math:`\lambda \sum_{i \neq j} (T W_{ij})^2 + \mu \sum_i
    b_i^2`, with T the temperature of :class:`TemperatureScaling`: the off-diagonal and intercept
    regularisation (ODIR) of Dirichlet calibration, where the weights stand as
    :math:`\lambda K (K - 1)` and :math:`\mu K`. Without a ridge, K (K + 1) parameters overfit. It
    may change the order of the classes, and so the accuracy. Rows are centred first, so that
    adding a constant to a row changes nothing.

    Parameters
    ----------
    off_diagonal, bias : float
        :math:`\lambda` and :math:`\mu`, 0 and up.

    Attributes
    ----------
    weight_ : array, shape (K, K)
        W, in one over the unit of the logits.
    bias_ : array, shape (K,)
        b.
    classes_ : array of int, shape (K,)
        0 to K - 1.

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
    >>> seen = z @ [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]  # class 1 also where class 0 is likely
    >>> y = (seen + rng.gumbel(size=z.shape)).argmax(axis=1)
    >>> scaling = logitlab.MatrixScaling().fit(z, y)
    >>> bool(logitlab.cross_entropy(scaling.transform(z), y) < logitlab.cross_entropy(z, y))
    True
    """

    weight_: Floats

    def __init__(self, off_diagonal: float = 1e-2, bias: float = 1e-2) -> None:
        self.off_diagonal = off_diagonal
        self.bias = bias

    def _ridges(self, k: int) -> Floats:
        off = _ridge(self.off_diagonal, "off_diagonal") * (1 - np.eye(k))
        return np.concatenate([off.reshape(-1), np.full(k, _ridge(self.bias, "bias"))])

    _why = "holds an infinite logit, and every class has a share in every other; accepted: finite"

    def _refused(self, z: Any, xp: Any) -> Any:
        return xp.isinf(z)

    def _move(self, x: Floats, v: Floats) -> Floats:
        k = x.shape[1]
        return x + x @ v[: k * k].reshape(k, k).T + v[k * k :]

    def _gradient(self, x: Floats, g: Floats) -> Floats:
        return np.concatenate([(g.T @ x).reshape(-1), g.sum(axis=0)])

    def _keep(self, v: Floats, temperature: float) -> None:
        k = math.isqrt(len(v))
        self.weight_ = (np.eye(k) + v[: k * k].reshape(k, k)) / temperature
        self.bias_ = v[k * k :]

    def _apply(self, z: Any, xp: Any) -> Any:
        weight, bias = (
            xp.astype(_arrays.like(x, z, xp, "weight"), z.dtype)
            for x in (self.weight_.T, self.bias_)
        )
        return z @ weight + bias
