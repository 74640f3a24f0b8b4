"""A start from a sample of the rows, where there are many more rows than parameters."""

import math

from logitlab.regression.objective import Objective
from logitlab.regression.solver import MAX_HESSIAN_SIZE, Floats, InverseHessian, minimize

_ROWS_OF_PARAMETER = 20  # rows of a sample for each parameter
_MIN_ROWS = 2000  # of a sample: a smaller one saves nothing
_MIN_STEP = 6  # a sample has at most one of so many rows


def sample_of(objective: Objective, theta: Floats) -> Objective | None:
    """Return the objective of a sample of the rows, or None where it would save nothing."""
    # One class has the same logits for any change that all have in common.
    size = theta.size - theta.shape[1]
    step = objective.rows // max(_ROWS_OF_PARAMETER * size, _MIN_ROWS)
    if step < _MIN_STEP or theta.size > MAX_HESSIAN_SIZE:
        return None
    return objective.sample(step)


def sample_start(
    objective: Objective, theta: Floats, tol: float, max_iter: int, rounding: float
) -> tuple[Floats, InverseHessian | None]:
    """Return a start for the fit of all rows, and the inverse Hessian of a sample there.

    The optimum of the sample is off by its sampling error. Its Hessian is close to that of all
    rows, so that a few steps on them reach their optimum. Theta other than 0, of a warm start, is
    kept. Where there is no sample, return theta and None.
    """
    sample = sample_of(objective, theta)
    if sample is None or max_iter == 0:
        return theta, None
    if not theta.any():
        error = math.sqrt(theta.size / sample.rows)
        tol = max(tol, 0.1 * error)
        theta = minimize(sample, theta, tol, max_iter, rounding=rounding).theta
    return theta, sample.inverse_hessian(theta)
