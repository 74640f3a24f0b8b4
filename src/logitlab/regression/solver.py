"""L-BFGS in a metric that knows the scale of the features, renewed by the exact Hessian.

Chosen by measurement on the cases of ``python -m bench regression``: truncated Newton, by conjugate
gradients under the same metric, read the rows 1.2 to 1.7 times as often on every one.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from logitlab.regression.objective import Floats, Objective

_NEWTON_SIZE = 1500  # up to here the exact Hessian may be factored
_MEMORY = 20
_ARMIJO = 1e-4
_HALVINGS = 40
_FLAT = 1e-5  # a curvature, of one where all classes are equally likely

Watch = Callable[[int, float, float, Floats], Any]
Apply = Callable[[Floats], Floats]


class Solution(NamedTuple):
    theta: Floats
    value: float
    iterations: int
    decrement: float
    converged: bool
    rounded: bool  # rounding ended it
    separated: bool
    curve: list[float]


def inverse_root(matrix: Floats) -> Floats:
    """R with R' R the (pseudo-)inverse of a positive semi-definite matrix of any scale."""
    diagonal = np.diagonal(matrix)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    unit = matrix / scale / scale[:, None]
    slack = len(matrix) * np.finfo(float).eps
    try:
        factor = np.linalg.cholesky(unit)
        if np.diagonal(factor).min() ** 2 > slack * 10:
            root: Floats = np.linalg.inv(factor) / scale
            return root
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(unit)
    kept = values > slack * max(float(values[-1]), 1.0)
    return np.asarray(vectors[:, kept].T / np.sqrt(values[kept])[:, None] / scale)


def metric(objective: Objective) -> Apply:
    """The inverse of the Hessian where all classes are equally likely, or of its diagonal.

    There it is (1/K) (I - 11'/K) times the covariance of the features, plus the penalty; the
    factor I - 11'/K leaves a gradient as it is.
    """
    k, d = objective.classes, objective.features
    spread = objective.covariance / k
    if spread.ndim == 2:
        root = inverse_root(spread + objective.alpha * np.eye(d))

        def apply(gradient: Floats) -> Floats:
            result = gradient * k  # the intercepts
            result[:, :d] = (gradient[:, :d] @ root.T) @ root
            return result
    else:
        curvature = spread + objective.alpha
        if objective.alpha == 0:
            # Steps along the gradient stay in the span of the features: the least norm.
            curvature = np.full(d, curvature.max())
        inverse = np.divide(1.0, curvature, out=np.zeros(d), where=curvature > 0)

        def apply(gradient: Floats) -> Floats:
            result = gradient * k
            result[:, :d] = gradient[:, :d] * inverse
            return result

    return apply


def newton_metric(objective: Objective, theta: Floats) -> Apply:
    """The inverse of the Hessian at theta."""
    hessian = objective.hessian(theta)
    # Equal shifts of all classes are in the kernel where nothing penalises them; no gradient has
    # a part there, so a curvature may stand in.
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


class _Memory:
    """The pairs of L-BFGS, and the metric under them."""

    def __init__(self, apply: Apply) -> None:
        self.apply = apply
        self.pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)
        self.scale = 1.0

    def learn(self, step: Floats, change: Floats) -> None:
        product = float(np.vdot(step, change))
        if product > 0:
            self.pairs.append((step, change, product))
            self.scale = product / float(np.vdot(change, self.apply(change)))

    def direction(self, gradient: Floats) -> Floats:
        q, parts = gradient.copy(), []
        for step, change, product in reversed(self.pairs):
            part = float(np.vdot(step, q)) / product
            parts.append(part)
            q -= part * change
        d = self.scale * self.apply(q)
        for (step, change, product), part in zip(self.pairs, reversed(parts), strict=True):
            d += (part - float(np.vdot(change, d)) / product) * step
        return -d


def minimise(
    objective: Objective,
    theta: Floats,
    tol: float,
    max_iter: int,
    *,
    rounding: float,
    watch: Watch = lambda iteration, value, decrement, theta: None,
) -> Solution:
    r"""Minimise from theta, by L-BFGS in the metric of the features.

    With d = -B g the quasi-Newton step, :math:`\lambda = \sqrt{-g \cdot d}` is the norm of the
    gradient in the metric, and :math:`\lambda^2 / 2` estimates F - F*. The end is
    :math:`\lambda \le \mathrm{tol} \sqrt F`. The exact Hessian at the iterate, where it is small
    enough to factor, replaces the metric as soon as the steps since cost as much as it does.

    `rounding` is the unit roundoff of the features: below `slack`, values of F are noise and the
    slope along d decides (the approximate Wolfe condition of Hager and Zhang, 2005).
    """
    value, gradient = objective.value_and_gradient(theta)
    curve = [value]
    memory = _Memory(metric(objective))
    renewed, evaluations, stuck = 0, 1, 0
    best = lowest = math.inf
    iteration = 0
    while True:
        direction = memory.direction(gradient)
        slope = float(np.vdot(gradient, direction))
        decrement = math.sqrt(max(-slope, float(np.vdot(gradient, memory.apply(gradient))), 0.0))
        watch(iteration, value, decrement, theta)
        slack = 8 * rounding * (value + objective.cancelled(theta))
        separated = objective.alpha == 0 and value < objective.separated_below
        settled = decrement <= tol * math.sqrt(value)
        # A gain below the rounding of F, and neither F nor the gradient falls: nothing more can be
        # had. (F alone may be exact to far less than `slack`.)
        stuck = 0 if decrement < 0.5 * best or value < lowest else stuck + 1
        best, lowest = min(best, decrement), min(lowest, value)
        noise = decrement**2 / 2 <= slack and stuck >= 10
        # More is to be had, were the features centred in memory or of a finer type.
        coarse = decrement**2 / 2 > 8 * rounding * value
        if settled or separated or noise or iteration >= max_iter:
            done = settled or (noise and not coarse)
            return Solution(theta, value, iteration, decrement, done, noise, separated, curve)
        if theta.size <= _NEWTON_SIZE and evaluations - renewed >= objective.hessian_cost(
            theta.size
        ):
            memory.apply, memory.scale = newton_metric(objective, theta), 1.0
            renewed = evaluations
            continue
        step = 1.0
        for _ in range(_HALVINGS):
            trial = theta + step * direction
            new_value, new_gradient = objective.value_and_gradient(trial)
            evaluations += 1
            new_slope = float(np.vdot(new_gradient, direction))
            if new_value <= value + _ARMIJO * step * slope or (
                new_value <= value + slack and abs(new_slope) <= 0.9 * abs(slope)
            ):
                break
            step /= 2
        else:
            if memory.pairs:
                memory.pairs.clear()
                memory.scale = 1.0
                continue
            noise = decrement**2 / 2 <= slack
            done = noise and not coarse
            return Solution(theta, value, iteration, decrement, done, noise, False, curve)
        memory.learn(step * direction, new_gradient - gradient)
        theta, value, gradient = trial, new_value, new_gradient
        curve.append(value)
        iteration += 1


def minimum_norm(objective: Objective, theta: Floats) -> Floats:
    """The parameters with the same logits on all rows, and with the least norm of coefficients.

    With a penalty theta is that already. Without, steps in the metric leave the span of the
    features by directions in which these do not vary; where only variances are known the metric is
    a number, and they do not.
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


def recedes(objective: Objective, theta: Floats) -> bool:
    """Whether F without penalty falls for ever along a direction, at an iterate that settled.

    Such a direction has next to no curvature there, and the iterate went far along it; on no row
    does it favour another class over the label. Where a few rows far off make up the variance, a
    direction is flat for that alone: what its curvature adds to F, as far as the iterate went, must
    be next to nothing too.
    """
    if theta.size > _NEWTON_SIZE:
        return False
    k, size = theta.shape
    variance = objective.variances()
    scale = np.tile(np.sqrt(np.append(np.where(variance > 0, variance, 1.0), 1.0)[:size] / k), k)
    values, vectors = np.linalg.eigh(objective.hessian(theta) / scale / scale[:, None])
    way = vectors.T @ (theta.ravel() * scale)
    flat = (values < _FLAT) & (values * way**2 < _FLAT)
    direction = (vectors[:, flat] @ way[flat] / scale).reshape(theta.shape)
    least, largest = objective.engine.margins(*objective.plain(direction))
    return largest > 1 and least > -1e-3 * largest
