"""L-BFGS preconditioned by the covariance of the features, and later by the exact Hessian.

Chosen by measurement on the cases of ``python -m bench regression``: truncated Newton (conjugate
gradients with the same preconditioner) read the rows 1.2 to 1.7 times as often in every case.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from logitlab.regression.objective import Floats, Objective

_MAX_HESSIAN_SIZE = 1500  # number of parameters up to which the exact Hessian is factored
_HISTORY = 20  # pairs of L-BFGS
_ARMIJO = 1e-4
_MAX_HALVINGS = 40
_FLAT = 1e-5  # a curvature that counts as 0, relative to that at equal probabilities

Callback = Callable[[int, float, float, Floats], object]
InverseHessian = Callable[[Floats], Floats]  # applied to a gradient


class Solution(NamedTuple):
    """The result of :func:`minimize`."""

    theta: Floats
    iterations: int
    decrement: float  # norm of the gradient in the metric of the solver
    converged: bool
    limited_by_rounding: bool
    separated: bool  # completely
    loss_curve: list[float]


def inverse_root(matrix: Floats) -> Floats:
    """Return R with R' R the (pseudo-)inverse of a positive semi-definite matrix of any scale."""
    diagonal = np.diagonal(matrix)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    unit = matrix / scale / scale[:, None]
    tolerance = len(matrix) * np.finfo(float).eps
    try:
        factor = np.linalg.cholesky(unit)
        if np.diagonal(factor).min() ** 2 > tolerance * 10:
            root: Floats = np.linalg.inv(factor) / scale
            return root
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(unit)
    kept = values > tolerance * max(float(values[-1]), 1.0)
    return np.asarray(vectors[:, kept].T / np.sqrt(values[kept])[:, None] / scale)


def initial_inverse_hessian(objective: Objective) -> InverseHessian:
    """Return the inverse of the Hessian at equal probabilities, or of its diagonal.

    The Hessian is (1/K) (I - 11'/K) times the covariance of the features, plus the penalty. The
    factor I - 11'/K does not change a gradient.
    """
    k, d = objective.classes, objective.features
    covariance = objective.covariance / k
    if covariance.ndim == 2:
        root = inverse_root(covariance + objective.alpha * np.eye(d))

        def apply(gradient: Floats) -> Floats:
            result = gradient * k  # the intercepts
            result[:, :d] = (gradient[:, :d] @ root.T) @ root
            return result
    else:
        curvature = covariance + objective.alpha
        if objective.alpha == 0:
            # Steps along the gradient stay in the span of the features, which gives the least norm.
            curvature = np.full(d, curvature.max())
        inverse = np.divide(1.0, curvature, out=np.zeros(d), where=curvature > 0)

        def apply(gradient: Floats) -> Floats:
            result = gradient * k
            result[:, :d] = gradient[:, :d] * inverse
            return result

    return apply


def exact_inverse_hessian(objective: Objective, theta: Floats) -> InverseHessian:
    """Return the inverse of the Hessian at theta."""
    hessian = objective.hessian(theta)
    # Equal shifts of all classes are in the kernel where they are not penalized. No gradient has a
    # component there, so any curvature may be added.
    k, size = theta.shape
    blocks = hessian.reshape(k, size, k, size)
    mean = np.einsum("iaia->a", blocks) / k**2
    for a in range(size):
        blocks[:, a, :, a] += mean[a]
    if objective.alpha == 0:
        constant = np.flatnonzero(objective.variances() == 0)
        blocks[:, constant] = 0
        blocks[:, :, :, constant] = 0
    root = inverse_root(hessian)
    return lambda gradient: ((root @ gradient.ravel()) @ root).reshape(theta.shape)


class _QuasiNewton:
    """The inverse Hessian of L-BFGS: an initial one, and pairs of steps and gradient changes."""

    def __init__(self, initial: InverseHessian) -> None:
        self.initial = initial
        self.pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=_HISTORY)
        self.scale = 1.0

    def update(self, step: Floats, change: Floats) -> None:
        product = float(np.vdot(step, change))
        if product > 0:
            self.pairs.append((step, change, product))
            self.scale = product / float(np.vdot(change, self.initial(change)))

    def direction(self, gradient: Floats) -> Floats:
        """Return minus the inverse Hessian times the gradient, by the two-loop recursion."""
        q, coefficients = gradient.copy(), []
        for step, change, product in reversed(self.pairs):
            a = float(np.vdot(step, q)) / product
            coefficients.append(a)
            q -= a * change
        d = self.scale * self.initial(q)
        for (step, change, product), a in zip(self.pairs, reversed(coefficients), strict=True):
            d += (a - float(np.vdot(change, d)) / product) * step
        return -d


def minimize(
    objective: Objective,
    theta: Floats,
    tol: float,
    max_iter: int,
    *,
    rounding: float,
    callback: Callback = lambda iteration, value, decrement, theta: None,
) -> Solution:
    r"""Minimize the objective from theta by preconditioned L-BFGS.

    With d = -B g the quasi-Newton step, :math:`\lambda = \sqrt{-g \cdot d}` is the norm of the
    gradient in the metric B, and :math:`\lambda^2 / 2` estimates F - F*. The solver stops at
    :math:`\lambda \le \mathrm{tol} \sqrt F`. Where the exact Hessian is small enough to factor, it
    replaces the initial one as soon as the steps since the last replacement cost as much.

    `rounding` is the unit roundoff of the features: differences of F below `noise` are rounding
    errors, and the slope along d decides (the approximate Wolfe condition of Hager and Zhang,
    2005).
    """
    value, gradient = objective.value_and_gradient(theta)
    loss_curve = [value]
    quasi_newton = _QuasiNewton(initial_inverse_hessian(objective))
    replaced_at, evaluations, stalled = 0, 1, 0
    least_decrement = least_value = math.inf
    iteration = 0
    while True:
        direction = quasi_newton.direction(gradient)
        slope = float(np.vdot(gradient, direction))
        squared_norm = float(np.vdot(gradient, quasi_newton.initial(gradient)))
        decrement = math.sqrt(max(-slope, squared_norm, 0.0))
        callback(iteration, value, decrement, theta)
        noise = 8 * rounding * (value + objective.cancellation(theta))
        separated = objective.alpha == 0 and value < objective.separation_bound
        within_tol = decrement <= tol * math.sqrt(value)
        # The expected gain is below the rounding error of F, and neither F nor the gradient falls
        # any more. (F alone may be more exact than `noise`.)
        stalled = 0 if decrement < 0.5 * least_decrement or value < least_value else stalled + 1
        least_decrement, least_value = min(least_decrement, decrement), min(least_value, value)
        limited = decrement**2 / 2 <= noise and stalled >= 10
        # Features centred in memory, or of a type with more digits, would allow a better result.
        improvable = decrement**2 / 2 > 8 * rounding * value
        if within_tol or separated or limited or iteration >= max_iter:
            converged = within_tol or (limited and not improvable)
            return Solution(theta, iteration, decrement, converged, limited, separated, loss_curve)
        cost = objective.hessian_cost(theta.size)
        if theta.size <= _MAX_HESSIAN_SIZE and evaluations - replaced_at >= cost:
            quasi_newton.initial, quasi_newton.scale = exact_inverse_hessian(objective, theta), 1.0
            replaced_at = evaluations
            continue
        step = 1.0
        for _ in range(_MAX_HALVINGS):
            trial = theta + step * direction
            new_value, new_gradient = objective.value_and_gradient(trial)
            evaluations += 1
            new_slope = float(np.vdot(new_gradient, direction))
            if new_value <= value + _ARMIJO * step * slope or (
                new_value <= value + noise and abs(new_slope) <= 0.9 * abs(slope)
            ):
                break
            step /= 2
        else:
            if quasi_newton.pairs:
                quasi_newton.pairs.clear()
                quasi_newton.scale = 1.0
                continue
            limited = decrement**2 / 2 <= noise
            converged = limited and not improvable
            return Solution(theta, iteration, decrement, converged, limited, False, loss_curve)
        quasi_newton.update(step * direction, new_gradient - gradient)
        theta, value, gradient = trial, new_value, new_gradient
        loss_curve.append(value)
        iteration += 1


def minimum_norm(objective: Objective, theta: Floats) -> Floats:
    """Return the parameters with the same logits on all rows and the least norm of coefficients.

    With a penalty these are theta itself. Without, the preconditioner moves theta out of the span
    of the features, along directions in which they are constant. Where only variances are
    computed, the preconditioner is a number and does not.
    """
    d, covariance = objective.features, objective.covariance
    if objective.alpha > 0 or covariance.ndim == 1:
        return theta
    scale = np.sqrt(np.diagonal(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(covariance / scale / scale[:, None])
    flat = vectors[:, values <= d * np.finfo(float).eps * max(float(values[-1]), 1.0)]
    kernel, _ = np.linalg.qr(flat / scale[:, None])
    result = theta.copy()
    result[:, :d] -= (theta[:, :d] @ kernel) @ kernel.T
    return result


def has_recession_direction(objective: Objective, theta: Floats) -> bool:
    """Return whether F without penalty decreases without bound along a direction (separation).

    theta is an iterate at which the solver stopped. Along such a direction the curvature is almost
    0, the iterate is far from the origin, and on no row the logit of another class grows relative
    to that of the label. A direction may also be flat because a few outlying rows make up the
    variance. Hence the curvature times the squared distance of the iterate must be almost 0 too.
    """
    if theta.size > _MAX_HESSIAN_SIZE:
        return False
    k, size = theta.shape
    variance = objective.variances()
    scale = np.tile(np.sqrt(np.append(np.where(variance > 0, variance, 1.0), 1.0)[:size] / k), k)
    values, vectors = np.linalg.eigh(objective.hessian(theta) / scale / scale[:, None])
    coordinates = vectors.T @ (theta.ravel() * scale)
    flat = (values < _FLAT) & (values * coordinates**2 < _FLAT)
    direction = (vectors[:, flat] @ coordinates[flat] / scale).reshape(theta.shape)
    least, largest = objective.engine.margins(*objective.from_centred(direction))
    return largest > 1 and least > -1e-3 * largest
