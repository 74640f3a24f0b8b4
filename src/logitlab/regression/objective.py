"""The objective of softmax regression."""

import copy
import math
from functools import cached_property

import numpy as np

from logitlab._arrays import bincount
from logitlab.regression.rows import Engine
from logitlab.regression.solver import Floats, InverseHessian, hessian_cost, inverse_root

MAX_COVARIANCE_FEATURES = 1024  # of more features only the variances are computed

_MIN_SPREAD = 1e-3  # relative to the largest: classes without rows keep a bounded step
_MIN_SAMPLE_OF_CLASS = 5  # rows of each class


class Objective:
    r"""Mean loss and ridge penalty, as a function of the parameters of centred features.

    .. math:: F(W, c) = \frac1S \sum_n w_n \ell\big(W (x_n - \mu) + c,\; y_n\big)
              + \frac{\alpha}{2} \|W\|^2, \qquad \alpha = \frac{1}{C S}

    with S the sum of the weights. The parameters are one array (K, D + 1), the c last; without
    intercepts (K, D), and the mean is replaced by 0. Where F without penalty is below
    `separation_bound`, the label of every row has a probability above 1/2: the classes are
    separated.
    """

    method = "MLE"  # of a fit without penalty

    def __init__(self, engine: Engine, classes: int, C: float, fit_intercept: bool) -> None:
        self.engine, self.classes, self.fit_intercept = engine, classes, fit_intercept
        self.rows, self.weight_sum, least, sums, sizes = engine.totals()
        self.separation_bound = least * math.log(2) / self.weight_sum
        self.features = len(sums)
        self.zero_columns = sizes == 0
        self.alpha = 1 / (C * self.weight_sum)
        self.mean, self.covariance = self._moments(sums / self.weight_sum)

    def _moments(self, mean: Floats) -> tuple[Floats, Floats]:
        """Return the mean of the features, and their covariance (D, D) or, of many, variances (D,).

        The second pass corrects the rounding error of the first (Chan, Golub and LeVeque,
        "Algorithms for computing the sample variance", American Statistician 37, 1983).
        """
        full = self.features <= MAX_COVARIANCE_FEATURES
        mean = mean if self.fit_intercept else np.zeros_like(mean)
        error, covariance = (part / self.weight_sum for part in self.engine.scatter(mean, full))
        if self.fit_intercept:
            mean = mean + error
            covariance -= np.outer(error, error) if full else error * error
        variance = np.diagonal(covariance) if full else covariance
        constant = variance <= (8 * np.finfo(float).eps * mean) ** 2  # up to rounding
        covariance[constant] = 0
        if full:
            covariance[:, constant] = 0
        return mean, covariance

    def with_penalty(self, alpha: float) -> "Objective":
        """Return F of the same rows with another penalty."""
        result = copy.copy(self)
        result.alpha = alpha
        for name in ("_root", "_spectrum"):
            result.__dict__.pop(name, None)
        return result

    @cached_property
    def null_gradient(self) -> Floats:
        """The gradient at equal probabilities, where the penalty has none."""
        return self.value_and_gradient(np.zeros((self.classes, self.size)))[1]

    @property
    def size(self) -> int:
        """The number of parameters of a class."""
        return self.features + self.fit_intercept

    def variances(self) -> Floats:
        """Return the variances of the features; 0 for a constant feature."""
        c = self.covariance
        return np.diagonal(c) if c.ndim == 2 else c

    def to_centred(self, coef: Floats, intercept: Floats) -> Floats:
        """Return the parameters of the logits x W' + b."""
        if not self.fit_intercept:
            return coef.copy()
        return np.hstack([coef, (intercept + coef @ self.mean)[:, None]])

    def from_centred(self, theta: Floats) -> tuple[Floats, Floats]:
        """Return W and b of the logits x W' + b."""
        if not self.fit_intercept:
            return theta, np.zeros(self.classes)
        coef = theta[:, :-1]
        return coef, theta[:, -1] - coef @ self.mean

    def cancellation(self, theta: Floats) -> float:
        """Return the magnitude of the terms that cancel in the logits.

        They do because the features are not centred in memory.
        """
        return float((np.abs(theta[:, : self.features]) @ np.abs(self.mean)).max())

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        """Return F and its gradient."""
        coef, intercept = self.from_centred(theta)
        loss, by_coef, by_intercept = self.engine.loss_and_gradient(coef, intercept)
        gradient = np.empty_like(theta)
        gradient[:, : self.features] = by_coef
        if self.fit_intercept:
            gradient[:, :-1] -= np.outer(by_intercept, self.mean)
            gradient[:, -1] = by_intercept
        gradient /= self.weight_sum
        gradient[:, : self.features] += self.alpha * coef
        return loss / self.weight_sum + 0.5 * self.alpha * float(np.vdot(coef, coef)), gradient

    @property
    def has_minimum(self) -> bool:
        """Whether F has a minimum for any rows, separated ones included."""
        return self.alpha > 0

    def log_likelihood(self, theta: Floats) -> float:
        """Return the log-likelihood, without penalty."""
        return -self.engine.loss_and_gradient(*self.from_centred(theta))[0]

    def is_separated(self, value: float) -> bool:
        """Return whether a value of F shows that F has no minimum."""
        return self.alpha == 0 and value < self.separation_bound

    def sample(self, step: int) -> "Objective | None":
        """Return F of about one of every `step` rows, with the same parameters and penalty.

        None where the sample has few rows of some class.
        """
        engine = self.engine.sample(step)
        weighted = engine.y if engine.weight is None else engine.y[engine.weight > 0]
        if bincount(weighted, minlength=self.classes).min() < _MIN_SAMPLE_OF_CLASS:
            return None
        result = copy.copy(self)
        result.engine, result.rows = engine, len(engine.y)
        result.weight_sum = float(result.rows if engine.weight is None else engine.weight.sum())
        result.separation_bound = self.separation_bound * self.weight_sum / result.weight_sum
        return result

    def hessian_cost(self, size: int) -> float:
        """Return the cost of the Hessian and its factor, in gradient evaluations."""
        return hessian_cost(size, self.rows)

    def hessian(self, theta: Floats) -> Floats:
        """Return the Hessian of F, (theta.size, theta.size); equal shifts of all classes are in its
        kernel where they are not penalized."""
        coef, intercept = self.from_centred(theta)
        k, d = self.classes, self.features
        full = self.engine.hessian(coef, intercept, self.mean).reshape(k, d + 1, k, d + 1)
        size = theta.shape[1]
        result: Floats = np.ascontiguousarray(full[:, :size, :, :size]) / self.weight_sum
        diagonal = np.einsum("iaia->ia", result)
        diagonal[:, :d] += self.alpha
        return result.reshape(theta.size, theta.size)

    def initial_inverse_hessian(self) -> InverseHessian:
        """Return the inverse of the Hessian at equal probabilities, or of its diagonal.

        The Hessian is (1/K) (I - 11'/K) times the covariance of the features, plus the penalty. The
        factor I - 11'/K does not change a gradient.
        """
        k, d = self.classes, self.features
        if self.covariance.ndim == 1:
            return self._diagonal_inverse_hessian(np.full(k, 1 / k))
        root = self._root

        def apply(gradient: Floats) -> Floats:
            result = gradient * k  # the intercepts
            result[:, :d] = (gradient[:, :d] @ root.T) @ root
            return result

        return apply

    @cached_property
    def _root(self) -> Floats:
        """The inverse root of C / K + alpha I, with C the covariance of the features."""
        return inverse_root(self.covariance / self.classes + self.alpha * np.eye(self.features))

    @cached_property
    def _spectrum(self) -> tuple[Floats, Floats]:
        """T with T (C / K + alpha I) T' = I and T C T' diagonal: the diagonal, and T."""
        values, vectors = np.linalg.eigh(self._root @ self.covariance @ self._root.T)
        return np.clip(values, 0, self.classes), vectors.T @ self._root

    def approximate_inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return the inverse of the blocks of the Hessian of each class, or of their diagonal.

        A block is about a C + alpha I with a the mean of p (1 - p) and C the covariance of the
        features.
        """
        k, d = self.classes, self.features
        spread = self.engine.spread(*self.from_centred(theta)) / self.weight_sum
        spread = np.maximum(spread, _MIN_SPREAD * spread.max())
        if self.covariance.ndim == 1:
            return self._diagonal_inverse_hessian(spread)
        values, root = self._spectrum
        inverse = 1 / (spread[:, None] * values + (1 - values / k))

        def apply(gradient: Floats) -> Floats:
            result: Floats = gradient / spread[:, None]  # the intercepts
            result[:, :d] = ((gradient[:, :d] @ root.T) * inverse) @ root
            return result

        return apply

    def _diagonal_inverse_hessian(self, spread: Floats) -> InverseHessian:
        k, d = self.classes, self.features
        curvature = spread[:, None] * self.covariance + self.alpha
        if self.alpha == 0:
            # Steps along the gradient stay in the span of the features: the least norm.
            curvature = np.broadcast_to(curvature.max(axis=1, keepdims=True), (k, d))
        inverse = np.divide(1.0, curvature, out=np.zeros((k, d)), where=curvature > 0)

        def apply(gradient: Floats) -> Floats:
            result: Floats = gradient / spread[:, None]
            result[:, :d] = gradient[:, :d] * inverse
            return result

        return apply

    def inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return the inverse of the Hessian at theta."""
        if self.classes == 2:
            return self._binary_inverse_hessian(theta)
        hessian = self.hessian(theta)
        # Equal shifts of all classes are in the kernel where they are not penalized. No gradient
        # has a component there, so any curvature may be added.
        k, size = theta.shape
        blocks = hessian.reshape(k, size, k, size)
        mean = np.einsum("iaia->a", blocks) / k**2
        for a in range(size):
            blocks[:, a, :, a] += mean[a]
        if self.alpha == 0:
            constant = np.flatnonzero(self.variances() == 0)
            blocks[:, constant] = 0
            blocks[:, :, :, constant] = 0
        root = inverse_root(hessian)
        return lambda gradient: ((root @ gradient.ravel()) @ root).reshape(theta.shape)

    def _binary_inverse_hessian(self, theta: Floats) -> InverseHessian:
        """As :meth:`inverse_hessian`: the rows of a gradient are the negatives of each other.

        The Hessian of the loss is [[G, -G], [-G, G]], and maps (-v, v) to (-2 G v, 2 G v).
        """
        size = theta.shape[1]
        hessian = self.hessian(theta)[size:, size:]
        hessian *= 2
        penalized = np.arange(self.features)
        hessian[penalized, penalized] -= self.alpha
        if self.alpha == 0:
            constant = np.flatnonzero(self.variances() == 0)
            hessian[constant] = 0
            hessian[:, constant] = 0
        root = inverse_root(hessian)

        def apply(gradient: Floats) -> Floats:
            step = (root @ gradient[1]) @ root
            return np.stack([-step, step])

        return apply
