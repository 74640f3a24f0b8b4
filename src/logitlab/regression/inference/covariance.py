"""Covariance of the coefficients: of the likelihood, robust, and robust to clusters."""

import math
from typing import Any

import numpy as np

from logitlab import _arrays
from logitlab._rows import Integers
from logitlab.regression import inference_sums
from logitlab.regression.degeneracy import DEPENDENT, has_recession_direction
from logitlab.regression.objective import Objective
from logitlab.regression.partitions import sum_arrays
from logitlab.regression.solver import Floats, inverse_root

COV_TYPES = ("nonrobust", "HC0", "HC1", "cluster")

_MAX_GRADIENT = 1e-3  # in standard errors; a larger gradient shows other rows than those fitted


def information_root(
    objective: Objective, theta: Floats, others: list[int]
) -> tuple[float, Floats]:
    """Return the log-likelihood, and R with R' R the inverse information, (n, n).

    theta are the parameters of centred features, `others` the numbers of the classes except the
    base; n is the number of their parameters.
    """
    k, size = theta.shape
    total = objective.weight_sum
    value, gradient = objective.value_and_gradient(theta)
    if objective.is_separated(value) or has_recession_direction(objective, theta):
        raise ValueError(
            "the classes are separated by the features: the likelihood has no maximum, and the "
            "coefficients have no standard errors"
        )
    # With the base class fixed, the Hessian by the other classes is that by the differences.
    hessian = objective.hessian(theta).reshape(k, size, k, size)[others][:, :, others]
    n = len(others) * size
    root = inverse_root(hessian.reshape(n, n) * total)
    if len(root) < n:
        raise ValueError(DEPENDENT)
    check_maximum(objective, root, gradient[others])
    return objective.log_likelihood(theta), root


def check_maximum(objective: Objective, root: Floats, gradient: Floats) -> None:
    """Raise an error where the gradient at the coefficients is not 0 up to the tolerance of a fit.

    `root` is a root of the inverse Hessian of the sum over the rows, `gradient` that of the mean.
    """
    norm = float(np.linalg.norm(root @ (gradient * objective.weight_sum).ravel()))
    if norm > _MAX_GRADIENT * math.sqrt(len(root)):
        raise ValueError(
            "the coefficients are not the optimum of these rows; pass the rows (and weights) of "
            "the fit, with its parameters, or fit with a smaller tol"
        )


def checked_groups(groups: Any, rows: int, cov_type: str) -> Integers | None:
    """Return the number of the cluster of each row, or None where the covariance has none."""
    if (groups is None) == (cov_type == "cluster"):
        rule = "given" if groups is None else "None"
        got = "none" if groups is None else f"a {type(groups).__name__}"
        raise ValueError(f"groups must be {rule} with cov_type={cov_type!r}, got {got}")
    if groups is None:
        return None
    if _arrays.is_dask(groups):
        groups = groups.compute()
    labels = _arrays.on_host(_arrays.as_array(groups, "groups"))
    if labels.shape != (rows,):
        raise ValueError(
            f"groups must have a label for each of the {rows} rows, shape ({rows},), got shape "
            f"{labels.shape}"
        )
    if labels.dtype.kind in "fO":
        _arrays.check_none_missing(labels, "groups")
    try:
        return np.unique(labels, return_inverse=True)[1]
    except TypeError:
        kinds = sorted({type(label).__name__ for label in labels.flat})
        raise TypeError(f"groups must hold labels of one type, got {' and '.join(kinds)}") from None


def robust_root(
    objective: Objective,
    theta: Floats,
    others: list[int],
    root: Floats,
    cov_type: str,
    groups: Integers | None,
) -> tuple[Floats, int | None]:
    """Return R with R' R the sandwich covariance, (n, n), and the number of clusters."""
    k, size = theta.shape
    arguments = *objective.from_centred(theta), objective.mean
    count, factor = None, 1.0
    total, n = objective.weight_sum, len(root)
    engine = objective.engine
    if groups is None:
        products = sum_arrays(engine.map_parts(inference_sums.score_products, *arguments))
    else:
        scores = np.zeros((groups.max() + 1, k * (objective.features + 1)))
        weights = np.zeros(len(scores))
        for part in engine.map_parts(inference_sums.score_sums, *arguments, by_row=groups):
            present, part_scores, part_weights = part
            scores[present] += part_scores
            weights[present] += part_weights
        count = int(np.count_nonzero(weights))
        if count < 2:
            raise ValueError(f"groups must have at least 2 groups of weight > 0, got {count}")
        products = scores.T @ scores
        factor = count / (count - 1) * (total - 1)
    if cov_type in ("HC1", "cluster"):
        if total <= n:
            raise ValueError(
                f"cov_type={cov_type!r} needs a sum of weights above the number of parameters, "
                f"{n}, got {total:g}; use cov_type='HC0'"
            )
        factor *= (total if groups is None else 1) / (total - n)
    products = np.reshape(products, (k, objective.features + 1, k, objective.features + 1))
    products = products[others][:, :size][:, :, others][..., :size].reshape(n, n)
    # The scores have unit covariance in the metric of the information where the model is true.
    values, vectors = np.linalg.eigh(root @ products @ root.T)
    half = np.sqrt(factor * np.maximum(values, 0.0))[:, None] * vectors.T
    return half @ root, count


def null_log_likelihood(objective: Objective) -> float:
    """Return the log-likelihood of a model without features."""
    from scipy.special import xlogy

    k = objective.classes
    if not objective.fit_intercept:
        return -objective.weight_sum * math.log(k)
    # At equal probabilities the gradient by an intercept is the sum of all weights over K, less
    # the sum of the weights of that class.
    start = np.zeros((k, objective.features))
    _, _, by_intercept = objective.engine.loss_and_gradient(start, np.zeros(k))
    weights = np.maximum(objective.weight_sum / k - by_intercept, 0.0)
    return float(np.sum(xlogy(weights, weights / objective.weight_sum)))
