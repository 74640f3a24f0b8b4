"""Two classes: the sums over rows as functions of the log-odds of the second class."""

from typing import Any

import numpy as np

from logitlab._rows import Integers
from logitlab.regression.solver import Floats


def loss_and_residual(log_odds: Floats, y: Integers) -> tuple[Floats, Floats]:
    """Return the loss of each row, and its derivative by the log-odds.

    With m the logit of the label less the other one, the loss is log(1 + exp(-m)) and the
    probability of the other class 1 / (1 + exp(m)). Both are computed from exp(-|m|).
    """
    sign = (2 * y - 1).astype(log_odds.dtype)
    m = sign * log_odds
    with np.errstate(under="ignore"):
        e = np.exp(-np.abs(m))
        losses: Floats = np.log1p(e) - np.minimum(m, 0)
        residual: Floats = np.where(m > 0, e, 1) / (1 + e)
    residual *= -sign
    return losses, residual


def hessian(blocks: Any, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
    """Return the Hessian by the parameters of both classes, as :meth:`Engine.hessian` does."""
    to_log_odds, shift = coef[1] - coef[0], intercept[1] - intercept[0]
    size = len(centre) + 1
    by_log_odds = np.zeros((size, size))
    for block, _, weights in blocks:
        dtype = block.dtype
        log_odds = block @ to_log_odds.astype(dtype) + shift.astype(dtype)
        with np.errstate(under="ignore"):
            e = np.exp(-np.abs(log_odds.astype(np.float64)))
            root = np.sqrt(e) / (1 + e)  # of p (1 - p)
        if weights is not None:
            root *= np.sqrt(weights)
        x = np.empty((len(root), size))
        x[:, :-1] = block if isinstance(block, np.ndarray) else block.toarray()
        x[:, :-1] -= centre
        x[:, :-1] *= root[:, None]
        x[:, -1] = root
        by_log_odds += x.T @ x
    return np.kron(np.array([[1.0, -1.0], [-1.0, 1.0]]), by_log_odds)
