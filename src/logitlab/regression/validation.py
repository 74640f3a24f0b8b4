"""Checks of the parameters, the weights and the magnitude of the features."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import compute_class_weight

from logitlab import _checks
from logitlab.regression.objective import Engine, Objective
from logitlab.regression.solver import Floats

_MAX_WEIGHT_SUM = 1e300  # its inverse is the least sum, and the least product with C


def check_parameters(C: Any, tol: Any, max_iter: Any, fit_intercept: Any, warm_start: Any) -> None:
    """Raise for a constructor parameter of a wrong type or out of range."""
    for name, value in (("C", C), ("tol", tol)):
        _checks.real(value, name, "> 0", lambda x: x > 0)
    _checks.integer(max_iter, "max_iter", 0)
    _checks.boolean(fit_intercept, "fit_intercept")
    _checks.boolean(warm_start, "warm_start")


def checked_class_weight(
    class_weight: Any, C: float, classes: Any, weight_by_class: Floats
) -> Floats | None:
    """Return the factor of each class, or None; check classes and weights.

    `weight_by_class` is the sum of the weights of the rows of each class.
    """
    names = classes.tolist()
    if len(names) < 2:
        raise ValueError(f"y must have at least 2 classes, got one class, {names[0]!r}")
    factors: Floats | None = None
    if class_weight is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            factors = compute_class_weight(
                class_weight, classes=classes, y=classes, sample_weight=weight_by_class
            )
            weight_by_class = weight_by_class * factors
        for name, factor in zip(names, factors.tolist(), strict=True):
            if factor < 0:
                raise ValueError(f"class_weight must be >= 0, got {factor} for class {name!r}")
    weighted = np.count_nonzero(weight_by_class)
    if weighted < 2:
        raise ValueError(f"y must have at least 2 classes with rows of weight > 0, got {weighted}")
    total = float(weight_by_class.sum())
    if not 1 / _MAX_WEIGHT_SUM <= total <= _MAX_WEIGHT_SUM:
        raise ValueError(
            "the sum of the weights of the rows (sample_weight, class_weight) must be from "
            f"{1 / _MAX_WEIGHT_SUM} to {_MAX_WEIGHT_SUM}, got {total}"
        )
    if C * total < 1 / _MAX_WEIGHT_SUM:
        raise ValueError(
            f"C times the sum of the weights of the rows must be >= {1 / _MAX_WEIGHT_SUM}, "
            f"got C={C} and a sum of {total}"
        )
    return factors


def checked_objective(
    engine: Engine, k: int, C: float, fit_intercept: bool, dtype: Any, names: Sequence[str]
) -> Objective:
    """Return the objective of K classes; refuse columns whose squares overflow or underflow.

    `C` is that of scikit-learn; `names` are those of the columns, for the error.
    """
    # Two rows that share one difference evenly have half of its squared norm.
    with np.errstate(over="ignore", invalid="ignore"):
        objective = Objective(engine, k, C / 2 if k == 2 else C, fit_intercept)
    size = np.hypot(np.sqrt(objective.variances()), objective.mean)
    # Squares are summed in float64, gradients block by block in the type of the features.
    root = math.sqrt(sys.float_info.max / objective.weight_sum)
    largest = min(root, float(np.finfo(dtype).max) / 1e3) / 10
    smallest = 0.0
    if objective.alpha == 0:  # with a penalty the coefficient of such a column is almost 0
        root = math.sqrt(sys.float_info.min / min(objective.weight_sum, 1.0))
        smallest = max(root, float(np.finfo(dtype).tiny) * 1e3) * 10
    for rule, problem, refused in (
        (f"<= {largest:.0e}", "overflow", ~(size <= largest)),
        (f"0 or >= {smallest:.0e}", "underflow", (size < smallest) & ~objective.zero_columns),
    ):
        if refused.any():
            column = int(np.argmax(refused))
            raise ValueError(
                f"the magnitude of column {names[column]} of X must be {rule}, got "
                f"{size[column]:.0e}: its squares {problem}"
            )
    return objective
