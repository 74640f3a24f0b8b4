"""Confidence intervals and p-values from the profile of the likelihood."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from logitlab.regression.degeneracy import DEPENDENT
from logitlab.regression.inference.tables import EstimateTable
from logitlab.regression.objective import Objective
from logitlab.regression.solver import Floats, InverseHessian, inverse_root, minimize

_TOL = 1e-7  # of the fits with a fixed coefficient
_MAX_ITER = 100
_RIDGE = 1e-8  # the standard error of a direction of separation is 1e4 times that at 0
_MAX_FITS = 100  # of one bound
_ROOT_TOL = 1e-7  # of the bound, in standard errors
_MAX_DISTANCE = 1e3  # in standard errors or inverse deviations of the feature; beyond: infinity


@dataclass(frozen=True, kw_only=True)
class ProfileIntervals(EstimateTable):
    """Intervals and p-values of coefficients relative to a base class, from likelihood ratios.

    A bound is infinite where the profile of the likelihood does not fall far enough. The p-values
    are those of the likelihood-ratio test that a coefficient is 0.

    Attributes
    ----------
    coef : numpy.ndarray
        The coefficients less those of the base class.
    base : label
        The base class.
    """

    _TITLE: ClassVar[str] = "Profile Likelihood Intervals"
    _ESTIMATE: ClassVar[tuple[str, str]] = ("coef", "coef")

    coef: Floats
    base: Any

    def _header(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        return [("Dep. Variable", self.response)], [("Base Class", str(self.base))]


class _Fit(NamedTuple):
    """A maximum with one coefficient fixed."""

    theta: Floats
    fixed: float
    root: float  # of the deviance above that of the estimate
    slope: float  # of the deviance by the fixed coefficient
    tangent: Floats  # change of theta where the fixed coefficient increases by 1


class _FixedCoefficient:
    """A :class:`SmoothObjective` on the parameters with a given product with a vector.

    Along directions of separation the Hessian vanishes. A small multiple of that at equal
    probabilities keeps the steps along them finite.
    """

    def __init__(self, objective: Objective, vector: Floats) -> None:
        self.objective, self.vector = objective, vector
        self._unit = vector / np.vdot(vector, vector)
        self.cancellation = objective.cancellation
        self._ridge = _RIDGE * objective.hessian(np.zeros_like(vector))

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        value, gradient = self.objective.value_and_gradient(theta)
        return value, np.asarray(gradient - np.vdot(self._unit, gradient) * self.vector)

    def is_separated(self, value: float) -> bool:
        return False

    def hessian_cost(self, size: int) -> float:
        return 1.0

    def covariance(self, theta: Floats) -> InverseHessian:
        """Return the inverse of the Hessian at theta, without fixing the coefficient."""
        k, size = theta.shape
        hessian = (self.objective.hessian(theta) + self._ridge).reshape(k, size, k, size)
        n = (k - 1) * size
        root = inverse_root(hessian[1:, :, 1:].reshape(n, n))

        def apply(gradient: Floats) -> Floats:
            result = np.zeros_like(gradient)
            result[1:] = ((root @ gradient[1:].ravel()) @ root).reshape(k - 1, size)
            return np.asarray(result - result.mean(axis=0))

        return apply

    def tangent(self, covariance: InverseHessian) -> Floats:
        """Return the step along which the other parameters stay optimal, of product 1."""
        step = covariance(self.vector)
        return np.asarray(step / np.vdot(self.vector, step))

    def inverse_hessian(self, theta: Floats) -> InverseHessian:
        covariance = self.covariance(theta)
        tangent = self.tangent(covariance)

        def apply(gradient: Floats) -> Floats:
            step = covariance(gradient)
            return np.asarray(step - tangent * np.vdot(self.vector, step))

        return apply

    def initial_inverse_hessian(self) -> InverseHessian:
        return self.inverse_hessian(np.zeros_like(self.vector))

    approximate_inverse_hessian = inverse_hessian


class _Profile:
    """The deviance of the best fit, as a function of one coefficient."""

    def __init__(self, objective: Objective, estimate: Floats, vector: Floats) -> None:
        self.objective, self.vector = objective, vector
        self.within = _FixedCoefficient(objective, vector)
        value, _ = objective.value_and_gradient(estimate)
        covariance = self.within.covariance(estimate)
        variance = float(np.vdot(vector, covariance(vector))) / objective.weight_sum
        self.standard_error = math.sqrt(variance)
        self.value = value
        tangent = self.within.tangent(covariance)
        self.estimate = _Fit(estimate, float(np.vdot(vector, estimate)), 0.0, 0.0, tangent)

    def fit(self, fixed: float, start: _Fit) -> _Fit:
        """Return the best fit with a fixed coefficient, from one with another value of it."""
        theta = start.theta + (fixed - start.fixed) * start.tangent
        solution = minimize(
            self.within,
            theta,
            _TOL,
            _MAX_ITER,
            rounding=np.finfo(float).eps / 2,
            inverse_hessian=self.within.inverse_hessian(theta),
        )
        theta = solution.theta
        value, gradient = self.objective.value_and_gradient(theta)
        scale = 2 * self.objective.weight_sum
        tangent = self.within.tangent(self.within.covariance(theta))
        return _Fit(
            theta,
            fixed,
            math.sqrt(max(scale * (value - self.value), 0.0)),
            scale * float(np.vdot(gradient, tangent)),
            tangent,
        )

    def bound(self, direction: float, root: float, unit: float) -> float:
        """Return where the root of the deviance reaches a value, above or below the estimate.

        Newton's method on the root, which is linear where the likelihood is quadratic, within an
        interval that holds the bound.
        """
        inner = fit = self.estimate
        outer: float | None = None
        centre = self.estimate.fixed
        scale = max(self.standard_error, unit)
        proposal = centre + direction * min(root * self.standard_error, scale)
        for _ in range(_MAX_FITS):
            fit = self.fit(proposal, fit)
            gap = root - fit.root
            if abs(gap) <= _ROOT_TOL * root:
                return fit.fixed
            if gap > 0:
                inner = fit
                if abs(fit.fixed - centre) > _MAX_DISTANCE * scale:
                    return direction * math.inf
            else:
                outer = fit.fixed
            slope = fit.slope / (2 * fit.root) if fit.root > 0 else 0.0
            step = gap / slope if slope * direction > 0 else math.inf
            if outer is None:
                limit = 2 * max(abs(inner.fixed - centre), self.standard_error)
                proposal = inner.fixed + direction * min(abs(step), limit)
            else:
                proposal = fit.fixed + step
                low, high = sorted((inner.fixed, outer))
                if high - low <= _ROOT_TOL * scale:
                    return inner.fixed
                if not low < proposal < high:
                    proposal = (low + high) / 2
        return fit.fixed

    def p_value(self) -> float:
        """Return the p-value of the likelihood ratio test that the coefficient is 0."""
        from scipy.stats import chi2

        return float(chi2.sf(self.fit(0.0, self.estimate).root ** 2, 1))


def profile_intervals(
    objective: Objective,
    theta: Floats,
    classes: Any,
    names: list[str],
    base: Any,
    confidence_level: float,
    response: str,
) -> ProfileIntervals:
    """Return the intervals of the parameters, of centred features, that maximize the likelihood."""
    from scipy.stats import chi2

    if objective.is_separated(objective.value_and_gradient(theta)[0]):
        raise ValueError(
            "the classes are completely separated by the features: the likelihood has no maximum "
            "and no profile; fit with firth=True"
        )
    root = math.sqrt(chi2.ppf(confidence_level, 1))
    labels = list(classes)
    others = [j for j in range(len(labels)) if labels[j] != base]
    if len(inverse_root(objective.covariance)) < objective.features:
        raise ValueError(DEPENDENT)
    deviation = np.append(np.sqrt(objective.variances()), 1.0)
    shape = len(others), theta.shape[1]
    coef, lower, upper, p_value = (np.empty(shape) for _ in range(4))
    for index in np.ndindex(shape):
        j, a = others[index[0]], index[1]
        vector = np.zeros_like(theta)
        vector[j, a] = 1.0
        if a == objective.features:  # the intercept of features that are not centred
            vector[j, :a] = -objective.mean
        vector[labels.index(base)] = -vector[j]
        profile = _Profile(objective, theta, vector)
        coef[index] = profile.estimate.fixed
        lower[index], upper[index] = (
            profile.bound(direction, root, 1 / float(deviation[a])) for direction in (-1.0, 1.0)
        )
        p_value[index] = profile.p_value()
    return ProfileIntervals(
        base=base,
        classes=[labels[j] for j in others],
        names=names,
        coef=coef,
        lower=lower,
        upper=upper,
        p_value=p_value,
        confidence_level=confidence_level,
        response=response,
    )
