"""Residuals of the rows, and their influence on the coefficients."""

from dataclasses import dataclass

import numpy as np

from logitlab.probabilities import log_softmax, softmax
from logitlab.regression.inference_sums import centred_rows
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats


@dataclass(frozen=True)
class Residuals:
    """Residuals of the rows, without their weights.

    Attributes
    ----------
    response : numpy.ndarray, shape (N, K)
        1 for the class of the row and 0 for the others, less the probability of the class.
    pearson : numpy.ndarray, shape (N, K)
        The response residual over the standard deviation, sqrt(p (1 - p)).
    deviance : numpy.ndarray, shape (N,)
        sqrt(-2 log p) of the class of the row: the sum of squares is -2 times the log-likelihood.
        Of two classes it is negative on rows of the first.
    """

    response: Floats
    pearson: Floats
    deviance: Floats


@dataclass(frozen=True)
class Influence:
    """What a row changes; M is the number of classes except the base.

    Each row is deleted with its whole weight, and one Newton step is made from the coefficients of
    all rows: Pregibon's approximation, for several classes that of Lesaffre and Albert. Standard
    errors are those of the inverse information, for any ``cov_type``.

    Attributes
    ----------
    leverage : numpy.ndarray, shape (N,)
        The trace of the diagonal block of the hat matrix. The sum over the rows is the number of
        parameters.
    coef_change : numpy.ndarray, shape (N, M, D + 1)
        The coefficients of all rows less those without the row.
    dfbetas : numpy.ndarray, shape (N, M, D + 1)
        `coef_change` over the standard errors.
    cooks_distance : numpy.ndarray, shape (N,)
        The squared norm of the change in the metric of the information, over the number of
        parameters.

    References
    ----------
    D. Pregibon, "Logistic regression diagnostics", Annals of Statistics 9, 1981. E. Lesaffre and
    A. Albert, "Multiple-group logistic regression diagnostics", Applied Statistics 38, 1989.
    """

    leverage: Floats
    coef_change: Floats
    dfbetas: Floats
    cooks_distance: Floats


def residuals(objective: Objective, theta: Floats, rows: Rows) -> Residuals:
    """Return the residuals at the parameters theta of centred features."""
    n, k = len(rows.y), objective.classes
    z = np.empty((n, k))
    start = 0
    for part in centred_rows(rows, *objective.from_centred(theta), objective.mean):
        z[start : start + len(part.z)] = part.z
        start += len(part.z)
    log_p, of_row = log_softmax(z), np.arange(n)
    p = np.exp(log_p)
    response = -p
    # 1 - p of the class of the row, without cancellation
    others = p.copy()
    others[of_row, rows.y] = 0
    response[of_row, rows.y] = others.sum(axis=1)
    complement = 1 - p
    complement[of_row, rows.y] = response[of_row, rows.y]
    with np.errstate(divide="ignore", invalid="ignore"):
        pearson = np.sign(response) * np.sqrt(
            np.where(response > 0, complement / p, p / complement)
        )
    deviance = np.sqrt(-2 * np.minimum(log_p[of_row, rows.y], 0.0))
    if k == 2:
        deviance *= 2 * rows.y - 1
    return Residuals(response, pearson, deviance)


def influence(
    objective: Objective, theta: Floats, others: list[int], root: Floats, rows: Rows
) -> Influence:
    """Return the influence of the rows; root (n, M, D + 1) is that of the inverse information.

    With X the block of a row in the design of all parameters, V that of the information by the
    logits, B = X C X' and r the residual, the change is C X' (I - V B)^-1 r.
    """
    n, m, size = root.shape
    leverage, distance, changes = [np.empty(0)], [np.empty(0)], [np.empty((0, m, size))]
    arguments = *objective.from_centred(theta), objective.mean
    for part in centred_rows(rows, *arguments, width=n):
        w = part.weight[:, None]
        p = softmax(part.z)[:, others]
        residual = w * ((part.y[:, None] == np.array(others)) - p)
        v = w[:, :, None] * (p[:, :, None] * np.eye(m) - p[:, :, None] * p[:, None, :])
        u = np.einsum("ne,rme->nrm", part.x[:, :size], root)
        b = np.swapaxes(u, 1, 2) @ u
        vb = v @ b
        leverage.append(np.trace(vb, axis1=1, axis2=2))
        scaled = np.linalg.solve(np.eye(m) - vb, residual[:, :, None])
        step = (u @ scaled)[:, :, 0]
        distance.append(np.sum(step * step, axis=1) / n)
        changes.append(np.einsum("nr,rme->nme", step, root))
    change = np.concatenate(changes)
    if objective.fit_intercept:
        change[:, :, -1] -= change[:, :, :-1] @ objective.mean
        root = root.copy()
        root[:, :, -1] -= root[:, :, :-1] @ objective.mean
    errors = np.sqrt(np.sum(root * root, axis=0))
    return Influence(np.concatenate(leverage), change, change / errors, np.concatenate(distance))
