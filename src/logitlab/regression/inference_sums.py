"""Sums over rows that inference needs: scores, probabilities, marginal effects.

The functions take the rows of one part of an engine, and coefficients (K, D) with intercepts (K,)
of features that are not centred. Derivatives are by the coefficients of centred features and the
intercepts, class by class, the intercept last. All is computed in float64 from centred features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from logitlab._arrays import bincount
from logitlab._rows import Integers
from logitlab.probabilities import softmax
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats

_BLOCK_SIZE = 1 << 18  # features times classes of a block


class CentredRows(NamedTuple):
    """Some rows in float64: centred features and a column of ones (n, D + 1), their logits."""

    x: Floats
    z: Floats  # (n, K)
    y: Integers
    weight: Floats  # (n,)


def centred_rows(
    part: Rows, coef: Floats, intercept: Floats, centre: Floats, width: int = 1
) -> Iterator[CentredRows]:
    """Yield the rows, a few at a time; `width` times the parameters is the memory of a row."""
    theta = np.hstack([coef, (intercept + coef @ centre)[:, None]])
    step = max(16, _BLOCK_SIZE // (width * theta.size))
    for block, y, weight in part.blocks():
        for start in range(0, len(y), step):
            some = slice(start, start + step)
            dense = block[some] if isinstance(block, np.ndarray) else block[some].toarray()
            x = np.ones((len(dense), theta.shape[1]))
            np.subtract(dense, centre, out=x[:, :-1])
            w = np.ones(len(x)) if weight is None else weight[some]
            yield CentredRows(x, x @ theta.T, y[some], w)


def _scores(rows: CentredRows) -> Floats:
    """Return the derivative of the loss of each row, without its weight, (n, K (D + 1))."""
    residual = softmax(rows.z)
    residual[np.arange(len(residual)), rows.y] -= 1
    scores: Floats = residual[:, :, None] * rows.x[:, None, :]
    return scores.reshape(len(residual), -1)


def score_products(part: Rows, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
    """Return the sum of w s s', s being the score of a row and w its weight."""
    size = coef.size + len(coef)
    total = np.zeros((size, size))
    for rows in centred_rows(part, coef, intercept, centre):
        scores = _scores(rows) * np.sqrt(rows.weight)[:, None]
        total += scores.T @ scores
    return total


def score_sums(
    part: Rows,
    coef: Floats,
    intercept: Floats,
    centre: Floats,
    groups: Integers,
) -> tuple[Integers, Floats, Floats]:
    """Return the groups of the rows, and for each the sums of w s (G, K (D + 1)) and of w (G,)."""
    present, codes = np.unique(groups, return_inverse=True)
    count = len(present)
    scores, weights = np.zeros((count, coef.size + len(coef))), np.zeros(count)
    start = 0
    for rows in centred_rows(part, coef, intercept, centre):
        n = len(rows.y)
        code = codes[start : start + n]
        indicator = csr_array((rows.weight, (code, np.arange(n))), shape=(count, n))
        scores += indicator @ _scores(rows)
        weights += bincount(code, rows.weight, minlength=count)
        start += n
    return present, scores, weights


def probability_sums(part: Rows, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
    """Return the sum of w p_j over the rows of class i, (K, K)."""
    total = np.zeros((len(coef), len(coef)))
    for rows in centred_rows(part, coef, intercept, centre):
        np.add.at(total, rows.y, softmax(rows.z) * rows.weight[:, None])
    return total


def counts_of_0_and_1(part: Rows) -> Integers:
    """Return how many values of each column are 0, and how many are 1, (2, D)."""
    x = part.x
    if isinstance(x, np.ndarray):
        return np.stack([np.count_nonzero(x == value, axis=0) for value in (0, 1)])
    stored, d = x.data != 0, x.shape[1]
    nonzero = bincount(x.indices[stored], minlength=d)
    ones = bincount(x.indices[x.data == 1], minlength=d)
    return np.stack([x.shape[0] - nonzero, ones])


def effect_sums(
    part: Rows, coef: Floats, intercept: Floats, centre: Floats, discrete: Integers
) -> tuple[Floats, Floats]:
    r"""Return the sum of the effects of the features on the probabilities, and its derivative.

    Their shapes are (K, D) and (K, D, K, D + 1). The effect of feature d on p_k is

    .. math:: \frac{\partial p_k}{\partial x_d} = a_{kd}
              = p_k \Big(W_{kd} - \sum_j p_j W_{jd}\Big), \qquad
              \frac{\partial a_{kd}}{\partial z_m}
              = (\delta_{km} - p_m) a_{kd} - p_k a_{md}

    and for the columns `discrete` the difference of p_k at x_d = 1 and at x_d = 0.
    """
    k, d = coef.shape
    effects, derivative = np.zeros((k, d)), np.zeros((k, d, k, d + 1))
    differences, by_differences = np.zeros_like(effects), np.zeros_like(derivative)
    for rows in centred_rows(part, coef, intercept, centre, width=k):
        x, z, _, w = rows
        p = softmax(z)
        a = p[:, :, None] * (coef - (p @ coef)[:, None, :]) * w[:, None, None]
        effects += a.sum(axis=0)
        px = (p[:, :, None] * x[:, None, :]).reshape(len(p), -1)
        products = (a.reshape(len(p), -1).T @ px).reshape(derivative.shape)
        derivative -= products + products.transpose(2, 1, 0, 3)
        jacobian = np.diag(w @ p) - p.T @ (w[:, None] * p)
        for j in range(k):
            derivative[j, :, j] += a[:, j].T @ x
        for feature in range(d):
            derivative[:, feature, :, feature] += jacobian
        for feature in discrete:
            for value, sign in ((1, 1), (0, -1)):
                at = x.copy()
                at[:, feature] = value - centre[feature]
                p = softmax(z + np.outer(at[:, feature] - x[:, feature], coef[:, feature]))
                wp = sign * w[:, None] * p
                differences[:, feature] += wp.sum(axis=0)
                px = (p[:, :, None] * at[:, None, :]).reshape(len(p), -1)
                change = (-wp.T @ px).reshape(k, k, d + 1)
                for j in range(k):
                    change[j, j] += wp[:, j] @ at
                by_differences[:, feature] += change
    effects[:, discrete], derivative[:, discrete] = (
        differences[:, discrete],
        by_differences[:, discrete],
    )
    return effects, derivative
