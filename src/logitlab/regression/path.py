"""Softmax regression for a sequence of penalties."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab.regression.elastic_net import ElasticNet
from logitlab.regression.estimator import SoftmaxRegression
from logitlab.regression.objective import Objective
from logitlab.regression.solver import Floats
from logitlab.regression.threads import single_blas_thread
from logitlab.regression.validation import check_parameters, check_penalty

_RANGES = 1e4, 1e2  # from the least C to the largest: more rows than features, or not


@dataclass(frozen=True)
class RegularizationPath:
    """Fits for a sequence of C, from the strongest penalty to the weakest.

    Attributes
    ----------
    Cs : numpy.ndarray, shape (n,)
        Inverse strengths of the penalty, ascending.
    coefs : numpy.ndarray, shape (n, K, D), or (n, 1, D) for two classes
        Coefficients.
    intercepts : numpy.ndarray, shape (n, K) or (n, 1)
        Intercepts.
    classes : numpy.ndarray, shape (K,)
        Labels of the classes.
    n_features : numpy.ndarray of int, shape (n,)
        Number of features with a coefficient that is not 0.
    dual_gaps : numpy.ndarray, shape (n,)
        Duality gap of each fit, as ``SoftmaxRegression.dual_gap_``; NaN where l1_ratio is 0.
    n_iter : numpy.ndarray of int, shape (n,)
        Number of iterations of each fit.
    """

    Cs: Floats
    coefs: Floats
    intercepts: Floats
    classes: Any
    n_features: NDArray[np.int64]
    dual_gaps: Floats
    n_iter: NDArray[np.int64]


def softmax_regression_path(
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    Cs: Any = 100,
    l1_ratio: float = 1.0,
    grouped: bool = False,
    fit_intercept: bool = True,
    tol: float = 1e-6,
    max_iter: int = 1000,
    class_weight: Any = None,
) -> RegularizationPath:
    """Return the fits of :class:`logitlab.SoftmaxRegression` for a sequence of C.

    Each fit starts at the result of the stronger penalty before it, and all of them share what
    depends on the features alone.

    Parameters
    ----------
    X, y, sample_weight
        The arguments of ``SoftmaxRegression.fit``.
    Cs : int or array
        Inverse strengths of the penalty, finite; or their number. In the latter case they are in
        geometric progression from the largest C at which all coefficients are 0 to 10⁴ times as
        much, or 100 times where there are no more rows than features, as in glmnet. With
        `l1_ratio` = 0, which has no such C, they are from 10⁻⁴ to 10⁴, as in scikit-learn.
    l1_ratio, grouped, fit_intercept, tol, max_iter, class_weight
        Parameters of ``SoftmaxRegression``.

    Returns
    -------
    logitlab.regression.path.RegularizationPath

    Raises
    ------
    TypeError, ValueError
        As ``SoftmaxRegression.fit``; Cs that are not > 0 and finite.

    References
    ----------
    J. Friedman, T. Hastie and R. Tibshirani, "Regularization paths for generalized linear models
    via coordinate descent", Journal of Statistical Software 33, 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> import logitlab
    >>> X, y = load_wine(return_X_y=True)
    >>> path = logitlab.softmax_regression_path(X, y, Cs=5, grouped=True)
    >>> path.n_features
    array([0, 1, 1, 6, 7])
    """
    model = SoftmaxRegression(
        l1_ratio=l1_ratio,
        grouped=grouped,
        fit_intercept=fit_intercept,
        tol=tol,
        max_iter=max_iter,
        class_weight=class_weight,
    )
    check_parameters(1.0, tol, max_iter, fit_intercept, False, False)
    check_penalty(l1_ratio, grouped, 1.0)
    Cs = checked_strengths(Cs)
    with single_blas_thread():
        engine, classes, dtype = model._make_engine(X, y, sample_weight, reset=True)
        objective = model._objective(engine, len(classes), dtype)
        if isinstance(Cs, int):
            Cs = default_strengths(objective, Cs, [float(l1_ratio)], grouped)
        return compute_path(model, objective, classes, dtype, Cs)


def checked_strengths(Cs: Any) -> Any:
    """Return the number of Cs, or their values as a sorted array."""
    if np.ndim(Cs) == 0:
        return _checks.integer(Cs, "Cs", 1)
    values = np.sort(_arrays.on_host(_arrays.as_array(Cs, "Cs")).astype(float), axis=None)
    wrong = values[~((values > 0) & np.isfinite(values))]
    if len(wrong) or not len(values):
        got = wrong[0] if len(wrong) else "no value"
        raise ValueError(f"Cs must be > 0 and finite, got {got}")
    return values


def default_strengths(
    objective: Objective, count: int, l1_ratios: list[float], grouped: bool
) -> Floats:
    """Return C in geometric progression from the largest one at which all coefficients are 0."""
    least = [
        ElasticNet(objective, 1.0, ratio, grouped).largest_strength()
        for ratio in l1_ratios
        if ratio > 0
    ]
    least = [C for C in least if np.isfinite(C)]
    if not least:
        return np.logspace(-4, 4, count)
    ratio = _RANGES[0] if objective.rows > objective.features else _RANGES[1]
    return np.geomspace(min(least), max(least) * ratio, count)


def compute_path(
    model: SoftmaxRegression, objective: Objective, classes: Any, dtype: Any, Cs: Floats
) -> RegularizationPath:
    """Return the path of a model; it is left with the last C."""
    theta = np.zeros((objective.classes, objective.size))
    fits = []
    alpha = objective.alpha * model.C
    for C in Cs:
        model.C = float(C)
        theta = model._minimize(objective.with_penalty(alpha / C), theta, classes, dtype)
        gap = model.dual_gap_ if model.l1_ratio > 0 else math.nan
        fits.append((model.coef_, model.intercept_, gap, model.n_iter_[0]))
    coefs, intercepts, gaps, n_iter = (np.array(part) for part in zip(*fits, strict=True))
    n_features = np.count_nonzero(coefs.any(axis=1), axis=1)
    return RegularizationPath(Cs, coefs, intercepts, classes, n_features, gaps, n_iter)
