"""How the Fisher information of the rows depends on their logits."""

from typing import Any

import numpy as np

from logitlab.probabilities import softmax
from logitlab.regression.solver import Floats

_BLOCK_SIZE = 1 << 18  # products of a part of a block


def log_det_gradient(
    blocks: Any, coef: Floats, intercept: Floats, centre: Floats, inverse: Floats
) -> Floats:
    r"""Return the gradient of log det of the Fisher information, (K, D + 1), the intercept last.

    The information I is that by the differences from the first class, of centred features and
    intercepts; `inverse` is its inverse, (K - 1, D + 1, K - 1, D + 1). With
    :math:`Q_{ij} = x^T (I^{-1})_{ij} x` for a row x (0 for the first class) the derivative by
    logit k of that row is the third moment

    .. math:: w \sum_{ij} Q_{ij} \frac{\partial^3 \log \sum_c e^{z_c}}
              {\partial z_i \partial z_j \partial z_k} = w\, p_k \Big(h_k - \sum_c p_c h_c\Big),
              \qquad h_c = Q_{cc} - 2 \sum_j Q_{cj} p_j.
    """
    k, size = len(coef), len(centre) + 1
    others = k - 1
    to_logits = coef.T
    by_column = inverse.transpose(1, 0, 2, 3).reshape(size, others * others * size)
    result = np.zeros((k, size))
    step = max(16, _BLOCK_SIZE // by_column.shape[1])
    for block, _, weights in blocks:
        for start in range(0, block.shape[0], step):
            rows = block[start : start + step]
            z = rows @ to_logits.astype(rows.dtype) + intercept.astype(rows.dtype)
            p = softmax(z).astype(np.float64)
            x = np.ones((len(p), size))
            x[:, :-1] = (rows if isinstance(rows, np.ndarray) else rows.toarray()) - centre
            products = (x @ by_column).reshape(len(p), others, others, size)
            q = np.einsum("nija,na->nij", products, x)
            h = np.zeros_like(p)
            h[:, 1:] = np.einsum("nii->ni", q) - 2 * np.einsum("nij,nj->ni", q, p[:, 1:])
            h -= np.einsum("nk,nk->n", p, h)[:, None]
            h *= p
            if weights is not None:
                h *= weights[start : start + step, None]
            result += h.T @ x
    return result
