"""Objectives without a unique minimum: linearly dependent features, separated classes."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from logitlab.regression.objective import Objective
from logitlab.regression.solver import MAX_HESSIAN_SIZE, Floats, Solution

DEPENDENT = (
    "the features are linearly dependent: single coefficients have no standard errors; drop the "
    "columns that are linear combinations of others"
)

_FLAT = 1e-5  # a curvature that counts as 0, relative to that at equal probabilities
_ROWS_OF_PARAMETER = 4  # rows of a sample for each parameter: enough to be curved everywhere


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
    unit, tolerance = covariance / scale / scale[:, None], d * np.finfo(float).eps
    if _is_positive(unit - 10 * tolerance * np.trace(unit) * np.eye(d)):
        return theta  # the trace is at least the largest eigenvalue
    values, vectors = np.linalg.eigh(unit)
    flat = vectors[:, values <= tolerance * max(float(values[-1]), 1.0)]
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
    if objective.has_minimum or theta.size > MAX_HESSIAN_SIZE:
        return False
    k, size = theta.shape
    variance = objective.variances()
    scale = np.tile(np.sqrt(np.append(np.where(variance > 0, variance, 1.0), 1.0)[:size] / k), k)
    # The Hessian of some of the rows is a lower bound of that of all.
    step = objective.rows // (_ROWS_OF_PARAMETER * (theta.size - size))
    sample = objective.sample(step) if step > 1 else None
    if sample is not None:
        share = sample.weight_sum / objective.weight_sum
        if _is_curved(sample.hessian(theta) / scale / scale[:, None] * share, k):
            return False
    hessian = objective.hessian(theta) / scale / scale[:, None]
    if _is_curved(hessian, k):
        return False
    values, vectors = np.linalg.eigh(hessian)
    coordinates = vectors.T @ (theta.ravel() * scale)
    flat = (values < _FLAT) & (values * coordinates**2 < _FLAT)
    direction = (vectors[:, flat] @ coordinates[flat] / scale).reshape(theta.shape)
    least, largest = objective.engine.margins(*objective.from_centred(direction))
    return largest > 1 and least > -1e-3 * largest


def warn_not_converged(objective: Objective, solution: Solution, tol: float) -> None:
    """Warn where there is no optimum, or where the solver did not reach it."""
    ended = solution.converged or solution.limited_by_rounding
    if solution.separated or (ended and has_recession_direction(objective, solution.theta)):
        kind = "completely" if solution.separated else "quasi-completely"
        warnings.warn(
            f"The classes are {kind} separated by the features: without a penalty the "
            "likelihood increases without bound as the coefficients grow, so that there is no "
            "optimum. The coefficients of the last iterate are kept; choose a finite C, "
            "or firth=True.",
            ConvergenceWarning,
            stacklevel=5,
        )
    elif not solution.converged:
        advice = "increase max_iter or tol"
        if solution.limited_by_rounding:
            advice = "rounding prevents further progress: centre X, or pass it as float64"
        warnings.warn(
            f"The fit did not converge after {solution.iterations} iterations: the norm of "
            f"the gradient, in the metric of the solver, is {solution.decrement:.1e}, above "
            f"tol={tol}; {advice}.",
            ConvergenceWarning,
            stacklevel=5,
        )


def _is_curved(hessian: Floats, k: int) -> bool:
    """Return whether only equal shifts of all classes are flat in a Hessian at unit scale."""
    size = len(hessian) // k
    shifts = np.kron(np.full((k, k), 1 / k), np.eye(size))
    return _is_positive(hessian + shifts - _FLAT * np.eye(k * size))


def _is_positive(matrix: Floats) -> bool:
    """Return whether a symmetric matrix is positive definite."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
