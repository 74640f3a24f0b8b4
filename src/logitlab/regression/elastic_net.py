"""The objective of softmax regression with an L1 penalty, and its dual."""

import math
from typing import NamedTuple

import numpy as np

from logitlab._rows import Integers
from logitlab.regression.objective import Objective
from logitlab.regression.penalized_sums import DualPoint
from logitlab.regression.solver import Floats

_MIN_SHARE = 1e-9  # of a class in the weights, for the intercept at which a fit starts


class Point(NamedTuple):
    """The objective at some parameters."""

    theta: Floats
    value: float
    by_class: Floats  # the gradient of the mean loss, with a row for each class


class ElasticNet:
    r"""Mean loss and elastic net, as a function of the parameters of centred features.

    .. math:: F(W, c) = \frac1S \sum_n w_n \ell\big(W (x_n - \mu) + c,\; y_n\big)
              + \lambda_1 \Omega(W) + \frac{\lambda_2}{2} \|W\|^2

    with S the sum of the weights, :math:`\lambda_1 = \rho / (C S)` and
    :math:`\lambda_2 = (1 - \rho) / (C S)`. Omega is the sum of the absolute values or, if
    `grouped`, the sum over the features of the Euclidean norm of the coefficients of all classes.
    The parameters are one array (K, D + 1), the c last; without intercepts (K, D). Of two classes
    they have one row, that of the log-odds of the second class.
    """

    def __init__(self, objective: Objective, C: float, l1_ratio: float, grouped: bool) -> None:
        self.loss = objective.with_penalty(0.0)
        self.engine, self.weight_sum = objective.engine, objective.weight_sum
        self.classes, self.features = objective.classes, objective.features
        self.has_intercept = objective.fit_intercept
        self.rows = 1 if self.classes == 2 else self.classes
        self.grouped = grouped and self.rows > 1
        self.l1_ratio = l1_ratio
        alpha = 1 / (C * self.weight_sum)
        self.l1, self.l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
        # Less the residual of the intercept, it is the gradient of the loss wherever all
        # coefficients are 0, as the features are centred.
        self._null_gradient = objective.null_gradient

    def to_classes(self, theta: Floats) -> Floats:
        """Return the parameters with a row for each class."""
        return np.vstack([-theta, theta]) / 2 if self.rows == 1 else theta

    def from_classes(self, theta: Floats) -> Floats:
        """Return the parameters, given a row for each class."""
        return theta[1:] - theta[:1] if self.rows == 1 else theta

    @property
    def _shares(self) -> Floats:
        """The share of each class in the weights."""
        return np.asarray(1 / self.classes - self._null_gradient[:, -1])

    def null_parameters(self) -> Floats:
        """Return the parameters that are optimal where all coefficients are 0."""
        theta = np.zeros(self._null_gradient.shape)
        if self.has_intercept:
            logits = np.log(np.maximum(self._shares, _MIN_SHARE))
            theta[:, -1] = logits - logits.mean()
        return self.from_classes(theta)

    def largest_strength(self) -> float:
        """Return the largest C at which all coefficients are 0."""
        gradient = self.gradient_of_rows(self._null_gradient)[:, : self.features]
        norm = float(self.sizes(gradient).max(initial=0.0))
        return self.l1_ratio / (self.weight_sum * norm) if norm > 0 else math.inf

    def gradient_of_rows(self, by_class: Floats) -> Floats:
        """Return the gradient by the parameters, given a row for each class."""
        return by_class[-self.rows :]

    def sizes(self, w: Floats) -> Floats:
        """Return the absolute values or, if grouped, the norm of each column as one row."""
        return np.linalg.norm(w, axis=0, keepdims=True) if self.grouped else abs(w)

    def penalty(self, theta: Floats) -> float:
        """Return the penalty of the coefficients."""
        w = theta[:, : self.features]
        return self.l1 * float(self.sizes(w).sum()) + 0.5 * self.l2 * float(np.vdot(w, w))

    def evaluate(self, theta: Floats) -> Point:
        """Return the objective and the gradient of the mean loss."""
        value, by_class = self.loss.value_and_gradient(self.to_classes(theta))
        return Point(theta, value + self.penalty(theta), by_class)

    def hessian(self, theta: Floats, columns: list[Integers]) -> Floats:
        """Return the Hessian of the mean loss by the listed parameters of each row."""
        coef, intercept = self.loss.from_centred(self.to_classes(theta))
        result = self.engine.working_hessian(coef, intercept, self.loss.mean, columns)
        return result / self.weight_sum

    def dual_value(self, point: Point) -> float:
        r"""Return the dual objective at a feasible point close to the probabilities of the rows.

        With entropies H and residuals :math:`r_n = p_n - y_n`, it is

        .. math:: \frac1S \sum_n w_n H(p_n) - h^*\Big(-\frac1S \sum_n w_n r_n x_n'\Big)

        with h* the conjugate of the penalty. It is a lower bound of F where the residuals of each
        class add up to 0, as intercepts are not penalized, and where h* is finite. For the first,
        classes with too large a sum give the same share of their probability in every row to the
        others; for the second, the residuals are scaled.
        """
        dual, conjugate = self._dual_point(point)
        coef, intercept = self.loss.from_centred(self.to_classes(point.theta))
        entropy = self.engine.dual_entropy(coef, intercept, dual)
        return entropy / self.weight_sum - conjugate

    def estimated_gap(self, point: Point) -> tuple[float, float]:
        """Return about the least and the largest duality gap that a point may have.

        It takes no pass over the rows: the entropies are concave in the scale of the residuals, 0
        at scale 0, and known with their slope at 1. The shares of the dual point are ignored.
        """
        dual, conjugate = self._dual_point(point)
        product = float(np.vdot(point.by_class, self.to_classes(point.theta)))
        penalty = self.penalty(point.theta)
        least = penalty + dual.scale * product + conjugate
        return least, least + (1 - dual.scale) * (point.value - penalty)

    def _dual_point(self, point: Point) -> tuple[DualPoint, float]:
        """Return a feasible dual point, and h* there."""
        keep, share = np.ones(self.classes), np.zeros(self.classes)
        by_class = point.by_class[:, : self.features]
        if self.has_intercept:
            residual = point.by_class[:, -1]
            surplus, deficit = np.maximum(residual, 0), np.maximum(-residual, 0)
            if deficit.any():
                expected = residual + self._shares
                ratio = np.divide(surplus, expected, out=share.copy(), where=surplus > 0)
                keep, share = np.clip(1 - ratio, 0, 1), deficit / deficit.sum()
                null = self._null_gradient[:, : self.features]
                moments = by_class - null  # sums of p x'
                by_class = keep[:, None] * moments + np.outer(share, (1 - keep) @ moments) + null
        sizes = self.sizes(self.gradient_of_rows(by_class))
        largest = float(sizes.max(initial=0.0))
        scale, conjugate = 1.0, 0.0
        if self.l2 > 0:
            conjugate = float((np.maximum(sizes - self.l1, 0) ** 2).sum()) / (2 * self.l2)
        elif largest > self.l1:
            scale = self.l1 / largest
        return DualPoint(keep, share, scale), conjugate

    def spread(self, theta: Floats) -> Floats:
        """Return the mean of p (1 - p) for each row of the parameters."""
        coef, intercept = self.loss.from_centred(self.to_classes(theta))
        return self.gradient_of_rows(self.engine.spread(coef, intercept)) / self.weight_sum

    def identified(self, theta: Floats) -> Floats:
        """Return the parameters with the same logits and the least penalty.

        The loss does not change where the coefficients w of a feature change by the same number m
        in all classes. The penalty is least where m is the median of w and of
        mean(w) + (K - 2 j) l1 / (K l2), j = 0 ... K (Li and Osher, "A new median formula with
        applications to PDE based denoising", 2009); that of their norm, where m is the mean.
        """
        if self.rows == 1:
            return theta
        d, k = self.features, self.rows
        columns = np.flatnonzero(theta[:, :d].any(axis=0))
        w = theta[:, columns]
        shift = mean = w.mean(axis=0)
        if not self.grouped:
            steps = np.arange(k, -k - 1, -2) / k
            with np.errstate(divide="ignore", over="ignore"):
                steps[steps != 0] *= np.float64(self.l1) / self.l2
            shift = np.median(np.vstack([w, mean + steps[:, None]]), axis=0)
        result = theta.copy()
        result[:, columns] -= shift
        return result
