"""Minimum of a quadratic function with a penalty: coordinate descent and Newton's method."""

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from logitlab._backends import native
from logitlab.regression.solver import Floats

_SWEEPS = 16  # of coordinate descent between two Newton steps
_ROUNDS = 50
_REDUCTION = 1e-6  # of the largest d' H d, relative to the first sweep
_MAX_HALVINGS = 30


class QuadraticModel(NamedTuple):
    """x' H x / 2 + b' x + l1 times the sum of the Euclidean norms of groups of coordinates.

    The groups come first, each of `group_size` consecutive coordinates; the coordinates after them
    are not penalized.
    """

    hessian: Floats  # (n, n)
    groups: int
    group_size: int
    l1: float

    def blocks(self) -> Floats:
        """Return the diagonal blocks of the Hessian of each group, as a copy."""
        n = self.groups * self.group_size
        shape = self.groups, self.group_size
        blocks = self.hessian[:n, :n].reshape(*shape, *shape)
        return np.ascontiguousarray(np.einsum("gigj->gij", blocks))

    def norms(self, x: Floats) -> Floats:
        """Return the Euclidean norm of each group."""
        grouped = x[: self.groups * self.group_size].reshape(self.groups, self.group_size)
        return abs(grouped[:, 0]) if self.group_size == 1 else np.linalg.norm(grouped, axis=1)


def coordinate_descent(
    model: QuadraticModel,
    x: Floats,
    gradient: Floats,
    values: Floats,
    vectors: Floats | None,
    tol: float,
    max_sweeps: int,
) -> float:
    """Minimize over each group in turn until no change d of a group has d' H d > tol.

    x and its gradient H x + b are changed. `values` and `vectors` are the eigenvalues and
    eigenvectors of the diagonal blocks; None for groups of one coordinate. Returns the largest
    d' H d of the last sweep over all groups.
    """
    sizes = len(x), model.groups, model.group_size
    if native.native_available():
        hessian = model.hessian
        options = model.l1, tol, max_sweeps
        largest: float = native._native.coordinate_descent(
            hessian, x, gradient, *sizes, values, vectors, *options
        )
        return largest
    return coordinate_descent_in_python(model, x, gradient, values, vectors, tol, max_sweeps)


def coordinate_descent_in_python(
    model: QuadraticModel,
    x: Floats,
    gradient: Floats,
    values: Floats,
    vectors: Floats | None,
    tol: float,
    max_sweeps: int,
) -> float:
    """Return what :func:`coordinate_descent` does, without the compiled kernels."""
    size = model.group_size
    vectors = np.ones((model.groups, 1, 1)) if vectors is None else vectors

    def sweep(all_groups: bool) -> float:
        largest = 0.0
        for g in range(model.groups):
            part, e, u = slice(g * size, (g + 1) * size), values[g], vectors[g]
            if e.max() <= 0 or not (all_groups or x[part].any()):
                continue
            rotated = e * (u.T @ x[part]) - u.T @ gradient[part]
            new = np.zeros(size)
            if math.sqrt(rotated @ rotated) > model.l1:
                r = norm_of_minimizer(rotated, e, model.l1)
                new = u @ (rotated * r / (e * r + model.l1))
            change = new - x[part]
            x[part] = new
            gradient[:] += change @ model.hessian[part]
            largest = max(largest, float(e @ (u.T @ change) ** 2))
        for i in range(model.groups * size, len(x)):
            curvature = model.hessian[i, i]
            if curvature > 0:
                step = -gradient[i] / curvature
                x[i] += step
                gradient[:] += step * model.hessian[i]
                largest = max(largest, step * step * curvature)
        return largest

    largest, sweeps = 0.0, 0
    while sweeps < max_sweeps:
        largest = sweep(True)
        sweeps += 1
        if largest <= tol:
            break
        while sweeps < max_sweeps and sweep(False) > tol:
            sweeps += 1
    return largest


def norm_of_minimizer(v: Floats, e: Floats, l1: float) -> float:
    """Return the root r of sum((v / (e r + l1))²) = 1 by Newton steps on its inverse root."""
    r = 0.0
    for _ in range(100):
        term = v / (e * r + l1)
        total, slope = float(term @ term), float(term**2 @ (e / (e * r + l1)))
        if slope <= 0:
            break
        excess = math.sqrt(total) - 1
        r += total * excess / slope
        if abs(excess) < 1e-15:
            break
    return r


def minimize_quadratic(
    model: QuadraticModel, start: Floats, gradient: Floats, tol: float
) -> Floats:
    """Return the minimizer of a model whose quadratic part has a gradient at `start`.

    Coordinate descent finds which groups are 0, a Newton step the other ones, however correlated
    they are. It ends when no change d of a group has d' H d > tol, or more than a small fraction of
    that in the first sweep.
    """
    x, gradient = start.copy(), gradient.copy()
    blocks = model.blocks()
    if model.group_size == 1:
        values, vectors = blocks[:, 0], None
    else:
        values, vectors = np.linalg.eigh(blocks)
        values = np.maximum(values, 0)
    values = np.ascontiguousarray(values)
    # The first sweep shows how far from the minimum the start is.
    largest = coordinate_descent(model, x, gradient, values, vectors, 0.0, 1)
    tol = max(tol, _REDUCTION * largest)
    for _ in range(_ROUNDS):
        if coordinate_descent(model, x, gradient, values, vectors, tol, _SWEEPS) <= tol:
            break
        _newton_step(model, x, gradient)
    return x


def _newton_step(model: QuadraticModel, x: Floats, gradient: Floats) -> None:
    """Move the groups that are not 0 to their minimum, as far as the signs stay."""
    size, n = model.group_size, model.groups * model.group_size
    norms = model.norms(x)
    kept = np.flatnonzero(np.append(np.repeat(norms > 0, size), np.ones(len(x) - n, bool)))
    hessian = model.hessian[np.ix_(kept, kept)]
    slope = gradient[kept].copy()
    active = np.count_nonzero(norms) * size
    radius = np.repeat(norms[norms > 0], size)
    unit = x[kept[:active]] / radius
    slope[:active] += model.l1 * unit
    if size > 1:
        # The curvature of a norm: (I - u u') / |x|.
        diagonal = np.arange(active)
        hessian[diagonal, diagonal] += model.l1 / radius
        for first in range(0, active, size):
            part = slice(first, first + size)
            hessian[part, part] -= np.outer(unit[part], unit[part]) * model.l1 / radius[first]
    scale = np.sqrt(np.maximum(np.diagonal(hessian), np.finfo(float).tiny))
    hessian /= scale
    hessian /= scale[:, None]
    hessian[np.diag_indices(len(kept))] += len(kept) * np.finfo(float).eps
    try:
        factor = cho_factor(hessian, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return
    direction = np.zeros_like(x)
    direction[kept] = -cho_solve(factor, slope / scale, check_finite=False) / scale
    image = direction @ model.hessian
    linear, square = float(gradient @ direction), float(direction @ image)
    before, step = model.l1 * float(norms.sum()), 1.0
    for _ in range(_MAX_HALVINGS):
        trial = x + step * direction
        if size == 1:
            trial[:n][x[:n] * trial[:n] < 0] = 0
            # Coordinates that would change their sign stop at 0.
            moved = trial - x
            image = moved @ model.hessian
            change = float(gradient @ moved) + 0.5 * float(moved @ image)
        else:
            change = step * linear + 0.5 * step**2 * square
            moved = step * direction
        if change + model.l1 * float(model.norms(trial).sum()) <= before:
            x[:] = trial
            gradient += image if size == 1 else step * image
            return
        step /= 2
