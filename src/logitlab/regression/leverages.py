"""How the Fisher information of the rows depends on their logits."""

import numpy as np

from logitlab.probabilities import softmax
from logitlab.regression.inference_sums import centred_rows
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats


def log_det_gradient(
    part: Rows, coef: Floats, intercept: Floats, centre: Floats, inverse: Floats
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
    by_column = inverse.transpose(1, 0, 2, 3).reshape(size, others * others * size)
    result = np.zeros((k, size))
    for rows in centred_rows(part, coef, intercept, centre, width=others):
        p = softmax(rows.z)
        products = (rows.x @ by_column).reshape(len(p), others, others, size)
        q = np.einsum("nija,na->nij", products, rows.x)
        h = np.zeros_like(p)
        h[:, 1:] = np.einsum("nii->ni", q) - 2 * np.einsum("nij,nj->ni", q, p[:, 1:])
        h -= np.einsum("nk,nk->n", p, h)[:, None]
        h *= p * rows.weight[:, None]
        result += h.T @ rows.x
    return result
