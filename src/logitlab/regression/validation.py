"""Checks of the parameters, the weights and the magnitude of the features."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import compute_class_weight

from logitlab import _arrays, _checks, _labels
from logitlab.regression.firth import FirthObjective
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Engine
from logitlab.regression.solver import Floats

# Takes the classes and the sum of the weights of each; returns the factor of each class, or None.
ClassWeight = Callable[[Any, Floats], Floats | None]

_EXACT = 2.0**53  # the integers up to it are floats

_MAX_WEIGHT_SUM = 1e300  # its inverse is the least sum, and the least product with C


def check_parameters(
    C: Any, tol: Any, max_iter: Any, fit_intercept: Any, warm_start: Any, firth: Any
) -> None:
    """Raise for a constructor parameter of a wrong type or out of range."""
    for name, value in (("C", C), ("tol", tol)):
        _checks.real(value, name, "> 0", lambda x: x > 0)
    _checks.integer(max_iter, "max_iter", 0)
    _checks.boolean(fit_intercept, "fit_intercept")
    _checks.boolean(warm_start, "warm_start")
    if _checks.boolean(firth, "firth") and not math.isinf(C):
        raise ValueError(f"firth=True needs C=math.inf, got C={C}: two penalties have no use")


def check_penalty(l1_ratio: Any, grouped: Any, C: float) -> None:
    """Raise for an elastic net of a wrong type or out of range."""
    _checks.real(l1_ratio, "l1_ratio", "from 0 to 1", lambda x: 0 <= x <= 1)
    _checks.boolean(grouped, "grouped")
    if l1_ratio > 0 and math.isinf(C):
        raise ValueError(
            f"l1_ratio must be 0 without a penalty (C=math.inf), got {l1_ratio}; choose a finite C"
        )


def checked_labels(y: Any) -> NDArray[Any]:
    """Return labels as an array of their own type; refuse missing, mixed and inexact ones."""
    exact = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    if exact is not None and hasattr(y, "isna"):
        # The types of pandas with missing values; NumPy would convert them to floats.
        y = y.to_numpy(object if y.isna().any() else exact)
    labels = _arrays.on_host(_arrays.as_array(y, "y"))
    if labels.dtype == object:
        kinds = sorted({type(label).__name__ for label in labels.flat})
        if len(kinds) > 1:
            raise TypeError(f"y must hold labels of one type, got {' and '.join(kinds)}")
        if kinds in (["int"], ["bool"]):
            labels = np.asarray(labels.tolist())
    if labels.dtype.kind == "f":
        _arrays.check_none_missing(labels, "y")
        inexact = np.isfinite(labels) & (np.abs(labels) >= _EXACT)
        if inexact.any():
            raise ValueError(
                "y must hold labels below 2**53 if they are floats, which merge larger integers, "
                f"got {labels[inexact][0]}; pass an array of integers or of text"
            )
    return labels


def checked_weights(sample_weight: Any, rows: int) -> Floats | None:
    """Return the weights of the rows, or None; a number is the weight of every row."""
    if sample_weight is None:
        return None
    weights = _arrays.on_host(_arrays.as_array(sample_weight, "sample_weight"))
    if weights.ndim == 0:
        weights = np.full(rows, weights)
    checked: Floats = _labels.row_weights(weights, (rows,), weights)
    return checked


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
    if weighted == 0:
        raise ValueError("the weights of the rows must not be zero in every row")
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


def times_class_weight(
    weight: Floats | None, factors: Floats | None, codes: NDArray[Any]
) -> Floats | None:
    """Return the weights of rows times the factors of their classes."""
    if factors is None:
        return weight
    by_row: Floats = factors[codes]
    return by_row if weight is None else by_row * weight


def checked_objective(
    engine: Engine,
    k: int,
    C: float,
    fit_intercept: bool,
    firth: bool,
    dtype: Any,
    names: Sequence[str],
) -> Objective:
    """Return the objective of K classes; refuse columns whose squares overflow or underflow.

    `C` is that of scikit-learn; `names` are those of the columns, for the error.
    """
    # Two rows that share one difference evenly have half of its squared norm.
    with np.errstate(over="ignore", invalid="ignore"):
        objective = (
            FirthObjective(engine, k, fit_intercept)
            if firth
            else Objective(engine, k, C / 2 if k == 2 else C, fit_intercept)
        )
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
