"""A model of the loss from the covariance of the features and the last steps, and its minimum."""

from collections import deque
from typing import NamedTuple

import numpy as np

from logitlab._backends import native
from logitlab.regression.quadratic import norm_of_minimizer
from logitlab.regression.solver import Floats

_HISTORY = 10  # pairs of steps and changes of the gradient
_MAX_SWEEPS = 50
_REDUCTION = 1e-4  # of the changes in coordinate descent, relative to the first sweep


class StructuredModel(NamedTuple):
    """b' d + d' B d / 2 + l2 |x|² / 2 + l1 times the sum of |x_ij|, of x = x0 + d.

    x has shape (K, D + 1), the intercepts last, or (K, D). B = diag(a) ⊗ C + U diag(s) U', with C
    (D, D) or its diagonal (D,), and 1 on its diagonal for the intercepts, which are not penalized.
    If `grouped`, |.| is the norm of a column.
    """

    a: Floats  # (K,)
    covariance: Floats
    factors: Floats  # U, of shape (K, D + 1, rank)
    signs: Floats  # s
    l1: float
    l2: float
    grouped: bool


def structured_descent(model: StructuredModel, x: Floats, gradient: Floats) -> None:
    """Minimize from x by coordinate descent; `gradient` is b."""
    if not native.native_available():
        structured_descent_in_python(model, x, gradient)
        return
    features = len(model.covariance)
    native._native.structured_descent(
        x,
        gradient,
        len(x),
        features,
        x.shape[1] > features,
        model.covariance.ndim == 1,
        model.grouped,
        model.a,
        model.covariance,
        len(model.signs),
        model.factors,
        model.signs,
        model.l1,
        model.l2,
        _REDUCTION,
        _MAX_SWEEPS,
    )


def structured_descent_in_python(model: StructuredModel, x: Floats, gradient: Floats) -> None:
    """Do what :func:`structured_descent` does, without the compiled kernels."""
    d, u, signs = len(model.covariance), model.factors, model.signs
    covariance = np.diag(model.covariance) if model.covariance.ndim == 1 else model.covariance
    scatter = np.zeros((x.shape[1], x.shape[1]))
    scatter[:d, :d] = covariance
    scatter[d:, d:] = 1
    l2 = np.where(np.arange(x.shape[1]) < d, model.l2, 0.0)
    exact = np.multiply.outer(model.a, np.diagonal(scatter)) + l2
    curvature = exact + u**2 @ signs
    if model.grouped:
        # An upper bound of the Hessian of each column that is diagonal.
        size = abs(u)
        bound = exact + (size * size.sum(axis=0)) @ np.maximum(signs, 0)
        curvature[:, :d] = bound[:, :d]
    images, changes = np.zeros_like(x), np.zeros(len(signs))

    def move(i: int, j: int, value: float) -> float:
        change = value - x[i, j]
        x[i, j] = value
        images[i] += change * scatter[j]
        changes[:] += change * signs * u[i, j]
        return float(change * change * curvature[i, j])

    def target(i: int, j: int) -> float:
        slope = gradient[i, j] + model.a[i] * images[i, j] + l2[j] * x[i, j] + u[i, j] @ changes
        return float(curvature[i, j] * x[i, j] - slope)

    def update(i: int, j: int, l1: float) -> float:
        if not curvature[i, j] > 0:
            return 0.0
        v = target(i, j)
        return move(i, j, np.sign(v) * max(abs(v) - l1, 0.0) / curvature[i, j])

    def update_column(j: int) -> float:
        if not scatter[j, j] > 0:
            return 0.0
        e, rows = curvature[:, j], range(len(x))
        v = np.array([target(i, j) for i in rows])
        new = np.zeros(len(x))
        if np.sqrt(v @ v) > model.l1:
            r = norm_of_minimizer(v, e, model.l1)
            new = v * r / (e * r + model.l1)
        return max(move(i, j, new[i]) for i in rows)

    def sweep(everywhere: bool) -> float:
        moved = [0.0]
        if model.grouped:
            moved += [update_column(j) for j in range(d) if everywhere or x[:, j].any()]
        for i in range(len(x)):
            if not model.grouped:
                moved += [update(i, j, model.l1) for j in range(d) if everywhere or x[i, j]]
            moved += [update(i, j, 0.0) for j in range(d, x.shape[1])]
        return max(moved)

    tol, sweeps = 0.0, 0
    while sweeps < _MAX_SWEEPS:
        largest = sweep(True)
        if sweeps == 0:
            tol = _REDUCTION * largest
        sweeps += 1
        if largest <= tol:
            return
        while sweeps < _MAX_SWEEPS and sweep(False) > tol:
            sweeps += 1


class QuasiNewton:
    """The matrix B of L-BFGS: an initial one, and pairs of steps and changes of the gradient.

    Its initial matrix has a block for each class, a multiple of the covariance of the features. The
    pairs change it by a matrix of low rank (Byrd, Nocedal and Schnabel, "Representations of
    quasi-Newton matrices and their use in limited memory methods", 1994).
    """

    def __init__(self, covariance: Floats, spread: Floats) -> None:
        self._covariance, self.spread = covariance, spread
        self._pairs: deque[tuple[Floats, Floats, Floats]] = deque(maxlen=_HISTORY)
        self._last_step = 1.0

    def reset(self) -> bool:
        """Forget the pairs; return whether there were any."""
        had_pairs = bool(self._pairs)
        self._pairs.clear()
        return had_pairs

    def update(self, step: Floats, change: Floats, fraction: float) -> None:
        """Add a step, the change of the gradient of the loss, and the fraction that was taken."""
        self._last_step = fraction
        product = float(np.vdot(step, change))
        if product <= 0:
            return
        d, root = len(self._covariance), np.sqrt(product)
        step, change = step / root, change / root
        image = step.copy()
        if self._covariance.ndim == 1:
            image[:, :d] *= self._covariance
        else:
            image[:, :d] = step[:, :d] @ self._covariance
        self._pairs.append((step, change, image))

    def model(self, shape: tuple[int, ...], l1: float, l2: float, grouped: bool) -> StructuredModel:
        """Return the model with this matrix."""
        a = self.spread
        if not self._pairs:
            empty = np.zeros((*shape, 0))
            return StructuredModel(a, self._covariance, empty, np.zeros(0), l1, l2, grouped)
        steps, changes, images = (
            np.stack(part).reshape(len(self._pairs), *shape)
            for part in zip(*self._pairs, strict=True)
        )
        images = images * a[:, None]
        count = len(steps)
        steps, changes, images = (p.reshape(count, -1) for p in (steps, changes, images))
        # The scale of the initial matrix along the last step; it is not reduced after a step that
        # was too long.
        scale = 1 / float(steps[-1] @ images[-1])
        scale = scale if self._last_step == 1 else max(scale, 1.0)
        images = images * scale
        lower = np.tril(steps @ changes.T, -1)
        middle = np.block([[steps @ images.T, lower], [lower.T, -np.eye(count)]])
        values, vectors = np.linalg.eigh(middle)
        kept = abs(values) > 1e-12 * abs(values).max()
        values, vectors = values[kept], vectors[:, kept] / np.sqrt(abs(values[kept]))
        factors = np.vstack([images, changes]).T @ vectors
        factors = np.ascontiguousarray(factors).reshape(*shape, -1)
        return StructuredModel(
            a * scale, self._covariance, factors, -np.sign(values), l1, l2, grouped
        )
