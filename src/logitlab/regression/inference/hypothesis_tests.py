"""Tests of hypotheses about the coefficients: Wald, score, likelihood ratio."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import hstack
from sklearn.utils.validation import check_array

from logitlab.regression.inference.estimates import Estimates
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats, inverse_root


class HypothesisTest(NamedTuple):
    """The result of a test.

    Attributes
    ----------
    statistic : float
        Under the hypothesis its distribution is, for many rows, chi-squared.
    df : int
        The degrees of freedom: the number of restrictions.
    p_value : float
        The probability of a statistic at least as large under the hypothesis.
    """

    statistic: float
    df: int
    p_value: float


def chi_squared_test(statistic: float, df: int) -> HypothesisTest:
    """Return the test of a statistic that is chi-squared under the hypothesis."""
    from scipy.stats import chi2

    return HypothesisTest(float(statistic), df, float(chi2.sf(statistic, df)))


def restriction_matrix(restriction: Any, names: Sequence[str], classes: int) -> Floats:
    """Return the matrix of linear restrictions of `classes` times the named coefficients.

    `restriction` is a matrix, or names whose coefficients are 0 in all classes.
    """
    size = classes * len(names)
    if isinstance(restriction, str):
        restriction = [restriction]
    if isinstance(restriction, Sequence) and all(isinstance(name, str) for name in restriction):
        unknown = [name for name in restriction if name not in names]
        if unknown or not restriction:
            got = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"restriction must name some of {', '.join(names)}, got {got}")
        chosen = [list(names).index(name) for name in dict.fromkeys(restriction)]
        rows = np.arange(size).reshape(classes, len(names))[:, chosen].ravel()
        return np.eye(size)[rows]
    try:
        matrix = np.atleast_2d(np.asarray(restriction, float))
    except (TypeError, ValueError):
        raise TypeError(
            f"restriction must be a matrix of numbers or names of features, got {restriction!r}"
        ) from None
    if matrix.ndim != 2 or matrix.shape[1] != size or not np.isfinite(matrix).all():
        raise ValueError(
            f"restriction must be a finite matrix with {size} columns, one for each coefficient, "
            f"got shape {matrix.shape}"
        )
    return matrix


def wald_test(coef: Floats, root: Floats, matrix: Floats, values: Any) -> HypothesisTest:
    """Return the test of matrix @ coef = values; R' R is the covariance of the coefficients."""
    values = np.asarray(values, float)
    if values.ndim > 1 or values.shape not in ((), (1,), (len(matrix),)):
        raise ValueError(
            f"values must be a number or have shape ({len(matrix)},), got shape {values.shape}"
        )
    restricted = root @ matrix.T
    inverse = inverse_root(restricted.T @ restricted)
    if len(inverse) < len(matrix):
        raise ValueError(
            f"restriction must have linearly independent rows and a covariance of full rank, got "
            f"{len(matrix)} rows and rank {len(inverse)}"
        )
    difference = inverse @ (matrix @ coef - values)
    return chi_squared_test(float(difference @ difference), len(matrix))


def score_test(
    objective: Objective, theta: Floats, others: list[int], rows: Rows, added: Any
) -> HypothesisTest:
    """Return the test of features that the model does not have; theta is its maximum."""
    k, size = theta.shape
    count = added.shape[1]
    x = hstack([rows.x, added], "csr") if _any_sparse(rows.x, added) else np.hstack([rows.x, added])
    dtype = np.result_type(rows.x.dtype, added.dtype)
    engine = Rows(x.astype(dtype, copy=False), rows.y, rows.weight, k)
    larger = Objective(engine, k, np.inf, objective.fit_intercept)
    full = np.insert(theta, [objective.features] * count, 0.0, axis=1)
    _, gradient = larger.value_and_gradient(full)
    width = size + count
    hessian = larger.hessian(full).reshape(k, width, k, width)[others][:, :, others]
    n = len(others) * width
    root = inverse_root(hessian.reshape(n, n))
    if len(root) < n:
        raise ValueError(
            "X_added must have columns that are no linear combinations of each other and of the "
            "features of the model"
        )
    scaled = root @ gradient[others].ravel()
    return chi_squared_test(float(scaled @ scaled) * objective.weight_sum, len(others) * count)


def likelihood_ratio_test(a: Estimates, b: Estimates) -> HypothesisTest:
    """Return the test of the model with fewer parameters against the other one."""
    if not isinstance(b, Estimates):
        raise TypeError(f"other must be an Inference, got {type(b).__name__}")
    same = math.isclose(a.rows, b.rows) and math.isclose(
        a.null_log_likelihood, b.null_log_likelihood, rel_tol=1e-9
    )
    intercepts = a.has_intercept == b.has_intercept
    if sorted(map(str, a.all_classes)) != sorted(map(str, b.all_classes)) or (
        intercepts and not same
    ):
        raise ValueError("other must be a model of the same rows, weights and classes, got others")
    small, large = sorted((a, b), key=lambda model: model.parameters)
    df = large.parameters - small.parameters
    statistic = 2 * (large.log_likelihood - small.log_likelihood)
    if df == 0 or statistic < -1e-6 * abs(large.log_likelihood):
        raise ValueError(
            "one of the models must be a special case of the other, with fewer parameters, got "
            f"{small.parameters} parameters with log-likelihood {small.log_likelihood:.6g} and "
            f"{large.parameters} with {large.log_likelihood:.6g}"
        )
    return chi_squared_test(max(statistic, 0.0), df)


def checked_columns(x: Any, rows: int) -> Any:
    """Return columns to add to X, checked."""
    shape = np.shape(x)
    if len(shape) != 2 or shape[0] != rows:
        raise ValueError(
            f"X_added must have the {rows} rows of the fit, shape ({rows}, Q), got shape {shape}"
        )
    return check_array(x, accept_sparse="csr", dtype=[np.float64, np.float32], input_name="X_added")


def _any_sparse(*arrays: Any) -> bool:
    return not all(isinstance(x, np.ndarray) for x in arrays)
