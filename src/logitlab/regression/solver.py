"""L-BFGS preconditioned by an approximate inverse Hessian, and later by a better one.

Chosen by measurement on the cases of ``python -m bench regression``: truncated Newton (conjugate
gradients with the same preconditioner) read the rows 1.2 to 1.7 times as often in every case.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]  # float32 or float64

MAX_HESSIAN_SIZE = 1500  # number of parameters up to which the exact Hessian is factored
_REPLACE_AFTER = 16  # evaluations after which an approximate inverse Hessian is replaced
_HISTORY = 20  # pairs of L-BFGS
_ARMIJO = 1e-4
_MAX_HALVINGS = 40

Callback = Callable[[int, float, float, Floats], object]
InverseHessian = Callable[[Floats], Floats]  # applied to a gradient


class SmoothObjective(Protocol):
    """A convex function F >= 0 of an array of parameters."""

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        """Return F and its gradient."""

    def initial_inverse_hessian(self) -> InverseHessian:
        """Return an approximate inverse of the Hessian, positive on every gradient."""

    def inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return the inverse of the Hessian at theta."""

    def approximate_inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return an approximate inverse of the Hessian at theta, positive on every gradient."""

    def hessian_cost(self, size: int) -> float:
        """Return the cost of the Hessian and its factor, in gradient evaluations."""

    def cancellation(self, theta: Floats) -> float:
        """Return the magnitude of the terms that cancel in the value."""

    def is_separated(self, value: float) -> bool:
        """Return whether a value of F shows that F has no minimum."""


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


def hessian_cost(size: int, rows: int) -> float:
    """Return the measured cost of a Hessian and its factor, in gradient evaluations."""
    return 10 + 0.1 * size + size**2 / (3 * rows)


def _dot(a: Floats, b: Floats) -> float:
    """Return the inner product, without the threads of BLAS: here they cost more than they save."""
    return float(np.einsum("ij,ij->", a, b))


class _QuasiNewton:
    """The inverse Hessian of L-BFGS: an initial one, and pairs of steps and gradient changes."""

    def __init__(self, initial: InverseHessian) -> None:
        self.initial = initial
        self.pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=_HISTORY)
        self.scale = 1.0

    def update(self, step: Floats, change: Floats, image: Floats) -> None:
        """Add a step and the change of the gradient; `image` is the initial matrix times it."""
        product, squared_norm = _dot(step, change), _dot(change, image)
        if product > 0 and squared_norm > 0:
            self.pairs.append((step, change, product))
            self.scale = product / squared_norm

    def direction(self, gradient: Floats) -> Floats:
        """Return minus the inverse Hessian times the gradient, by the two-loop recursion."""
        q, coefficients = gradient.copy(), []
        multiple = np.empty_like(q)
        for step, change, product in reversed(self.pairs):
            a = _dot(step, q) / product
            coefficients.append(a)
            q -= np.multiply(a, change, out=multiple)
        d = self.scale * self.initial(q)
        for (step, change, product), a in zip(self.pairs, reversed(coefficients), strict=True):
            d += np.multiply(a - _dot(change, d) / product, step, out=multiple)
        return -d


def minimize(
    objective: SmoothObjective,
    theta: Floats,
    tol: float,
    max_iter: int,
    *,
    rounding: float,
    inverse_hessian: InverseHessian | None = None,
    callback: Callback = lambda iteration, value, decrement, theta: None,
) -> Solution:
    r"""Minimize the objective from theta by preconditioned L-BFGS.

    With d = -B g the quasi-Newton step, :math:`\lambda = \sqrt{-g \cdot d}` is the norm of the
    gradient in the metric B, and :math:`\lambda^2 / 2` estimates F - F*. The solver stops at
    :math:`\lambda \le \mathrm{tol} \sqrt F`. Where the exact Hessian is small enough to factor, it
    replaces the initial one as soon as the steps since the last replacement cost as much. Where it
    is larger, its approximation is replaced by that at the current parameters.

    `rounding` is the unit roundoff of the features: differences of F below `noise` are rounding
    errors, and the slope along d decides (the approximate Wolfe condition of Hager and Zhang,
    2005).
    """
    value, gradient = objective.value_and_gradient(theta)
    loss_curve = [value]
    quasi_newton = _QuasiNewton(inverse_hessian or objective.initial_inverse_hessian())
    image = quasi_newton.initial(gradient)
    replaced_at, evaluations, stalled = 0, 1, 0
    least_decrement = least_value = math.inf
    best = theta
    iteration = 0
    while True:
        direction = quasi_newton.direction(gradient)
        slope = _dot(gradient, direction)
        squared_norm = _dot(gradient, image)
        decrement = math.sqrt(max(-slope, squared_norm, 0.0))
        callback(iteration, value, decrement, theta)
        noise = 8 * rounding * (value + objective.cancellation(theta))
        separated = objective.is_separated(value)
        within_tol = decrement <= tol * math.sqrt(value)
        # The expected gain is below the rounding error of F, and neither F nor the gradient falls
        # any more. (F alone may be more exact than `noise`.)
        stalled = 0 if decrement < 0.5 * least_decrement or value < least_value else stalled + 1
        if decrement < least_decrement:
            least_decrement, best = decrement, theta
        least_value = min(least_value, value)
        limited = decrement**2 / 2 <= noise and stalled >= 10
        if limited:  # rounding errors may have led away
            theta, decrement = best, least_decrement
        # Features centred in memory, or of a type with more digits, would allow a better result.
        improvable = decrement**2 / 2 > 8 * rounding * value
        if within_tol or separated or limited or iteration >= max_iter:
            converged = within_tol or (limited and not improvable)
            return Solution(theta, iteration, decrement, converged, limited, separated, loss_curve)
        exact = theta.size <= MAX_HESSIAN_SIZE
        cost = objective.hessian_cost(theta.size) if exact else _REPLACE_AFTER
        if evaluations - replaced_at >= cost:
            inverse = objective.inverse_hessian if exact else objective.approximate_inverse_hessian
            quasi_newton.initial, quasi_newton.scale = inverse(theta), 1.0
            image = quasi_newton.initial(gradient)
            replaced_at = evaluations
            continue
        step = 1.0
        for _ in range(_MAX_HALVINGS):
            trial = theta + step * direction
            new_value, new_gradient = objective.value_and_gradient(trial)
            evaluations += 1
            new_slope = _dot(new_gradient, direction)
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
        new_image = quasi_newton.initial(new_gradient)
        quasi_newton.update(step * direction, new_gradient - gradient, new_image - image)
        theta, value, gradient, image = trial, new_value, new_gradient, new_image
        loss_curve.append(value)
        iteration += 1
