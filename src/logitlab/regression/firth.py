"""The likelihood with the Jeffreys penalty, which reduces the bias of the estimate."""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from logitlab.regression.leverages import log_det_gradient
from logitlab.regression.objective import MAX_COVARIANCE_FEATURES, Objective
from logitlab.regression.partitions import sum_arrays
from logitlab.regression.rows import Engine
from logitlab.regression.solver import Floats, InverseHessian, inverse_root

MAX_PARAMETERS = 1500  # of the Fisher information, whose factor each evaluation needs


class _Information(NamedTuple):
    """The Fisher information at some parameters."""

    hessian: Floats  # of the mean loss
    inverse: Floats | None  # (K - 1, A, K - 1, A), A parameters of a class; None if singular
    log_det: float  # relative to that at equal probabilities
    condition: float  # number, about


class FirthObjective(Objective):
    r"""Mean loss less half the log-determinant of the Fisher information over the weight sum.

    .. math:: F(W, c) = \frac1S \Big(\sum_n w_n \ell(z_n, y_n)
              - \frac12 \log \frac{\det I(W, c)}{\det I(0, 0)}\Big)

    I is the information of the free parameters: those of the classes but the first. Equal
    probabilities maximize its determinant, so that F >= 0. The determinant is that in coordinates
    in which the features have the identity as covariance. Where features are linearly dependent,
    these coordinates span the features.

    D. Firth, "Bias reduction of maximum likelihood estimates", Biometrika 80, 1993. I. Kosmidis
    and D. Firth, "Multinomial logit bias reduction via the Poisson log-linear model", Biometrika
    98, 2011: for this model the adjusted score is the gradient of F.
    """

    method = "Firth"

    def __init__(self, engine: Engine, classes: int, fit_intercept: bool) -> None:
        super().__init__(engine, classes, math.inf, fit_intercept)
        size = (classes - 1) * (self.features + bool(fit_intercept))
        if size > MAX_PARAMETERS or self.features > MAX_COVARIANCE_FEATURES:
            raise ValueError(
                f"firth=True needs the determinant of the Fisher information of at most "
                f"{MAX_PARAMETERS} parameters, of at most {MAX_COVARIANCE_FEATURES} features, got "
                f"{size} parameters of {self.features} features"
            )
        self._last: tuple[Floats, _Information] | None = None

    @property
    def has_minimum(self) -> bool:
        return True

    @cached_property
    def _to_unit(self) -> Floats:
        """The rows span the parameters of a class, with the identity as information at 0."""
        root = inverse_root(self.covariance)
        if not self.fit_intercept:
            return root
        result = np.zeros((len(root) + 1, root.shape[1] + 1))
        result[:-1, :-1], result[-1, -1] = root, 1.0
        return result

    def _information_at(self, theta: Floats) -> _Information:
        """Return the information at parameters; the last one is kept."""
        if self._last is None or self._last[0] is not theta:
            self._last = theta, self._compute_information(theta)
        return self._last[1]

    def _compute_information(self, theta: Floats) -> _Information:
        others, size = self.classes - 1, theta.shape[1]
        hessian = super().hessian(theta)
        blocks = hessian.reshape(self.classes, size, self.classes, size)[1:, :, 1:]
        unit = self._to_unit
        information = np.einsum("ia,kalb->kilb", unit, blocks)
        information = np.einsum("kilb,jb->kilj", information, unit)
        n = others * len(unit)
        try:
            factor = np.linalg.cholesky(information.reshape(n, n))
        except np.linalg.LinAlgError:
            return _Information(hessian, None, -math.inf, 0.0)
        smallest = float(np.diagonal(factor).min()) ** 2
        if smallest <= n * np.finfo(float).eps:
            return _Information(hessian, None, -math.inf, 0.0)
        log_det = 2 * float(np.log(np.diagonal(factor)).sum())
        log_det += len(unit) * self.classes * math.log(self.classes)
        root = np.linalg.inv(factor).reshape(n, others, len(unit)) @ unit
        root = root.reshape(n, others * size) / math.sqrt(self.weight_sum)
        inverse = (root.T @ root).reshape(others, size, others, size)
        return _Information(hessian, inverse, log_det, 1 / smallest)

    def hessian(self, theta: Floats) -> Floats:
        """Return the Fisher information over the sum of the weights, as the base class does."""
        return self._information_at(theta).hessian

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        """Return F and its gradient; infinity where the information is 0 up to rounding."""
        value, gradient = super().value_and_gradient(theta)
        information = self._information_at(theta)
        if information.inverse is None:
            return math.inf, gradient
        full = np.zeros((self.classes - 1, self.features + 1) * 2)
        size = theta.shape[1]
        full[:, :size, :, :size] = information.inverse
        arguments = *self.from_centred(theta), self.mean, full
        change = sum_arrays(self.engine.map_parts(log_det_gradient, *arguments))
        gradient -= 0.5 / self.weight_sum * change[:, :size]
        return value - 0.5 / self.weight_sum * information.log_det, gradient

    def cancellation(self, theta: Floats) -> float:
        """Return the magnitude of the terms that cancel in the logits and the determinant."""
        condition = self._information_at(theta).condition
        return super().cancellation(theta) + 0.5 / self.weight_sum * condition

    def is_separated(self, value: float) -> bool:
        """Return False: the penalty is infinite where the coefficients are."""
        return False

    def sample(self, step: int) -> None:
        """Return None: the information of a sample may be singular."""
        return

    def hessian_cost(self, size: int) -> float:
        """Return 1: each evaluation has the information at hand."""
        return 1.0

    def inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return the inverse information over the sum of the weights."""
        inverse = self._information_at(theta).inverse
        if inverse is None:
            return self.initial_inverse_hessian()
        n = inverse.shape[0] * inverse.shape[1]
        matrix = inverse.reshape(n, n) * self.weight_sum

        def apply(gradient: Floats) -> Floats:
            result = np.zeros_like(gradient)
            result[1:] = (matrix @ gradient[1:].ravel()).reshape(gradient[1:].shape)
            return np.asarray(result - result.mean(axis=0))

        return apply
