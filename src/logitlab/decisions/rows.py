"""Checks of rows and parameters of the functions for decisions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _rows
from logitlab._estimators import check_dense
from logitlab._rows import Floats, Integers, LabelledRows, blocks
from logitlab.probabilities import log_softmax


def as_wide(z: Any, xp: Any) -> Any:
    """Return a floating array in the widest real type of its library."""
    return xp.astype(z, xp.result_type(z.dtype, _arrays.widest_float(xp, z)), copy=False)


def with_classes(z: Any, axis: Any = -1) -> tuple[Any, int, Any]:
    """Return z as a floating array, its class axis, counted from 0, and its array namespace."""
    z = _arrays.as_floating(z, "z")
    axes = _arrays.one_axis(axis, z.ndim)
    if not axes or not z.shape[axes[0]]:
        raise ValueError(f"z must hold at least one class, got shape {tuple(z.shape)}")
    return z, axes[0], array_namespace(z)


def check_distributions(
    undefined: Any, xp: Any, numbers: Sequence[int] | Integers | None = None
) -> None:
    """Raise for the first row that is marked as one without a distribution.

    Row i of a selection has the number `numbers[i]` in the whole array.
    """
    if _arrays.any_of(undefined, xp):
        row = _arrays.first_true(undefined, xp)
        row = row if numbers is None else int(numbers[row])
        raise ValueError(f"row {row} of z has no distribution: it contains NaN, or only -inf")


def log_frequencies(x: Any, name: str, k: int, positive: bool = False) -> Floats:
    """Return the logarithms of the frequencies of K classes, from checked frequencies or counts."""
    weights = _arrays.list_of_reals(x, name, k)
    invalid = ~((weights > 0 if positive else weights >= 0) & (weights < np.inf))
    if invalid.any():
        rule = "finite and > 0" if positive else "finite and >= 0"
        index = int(invalid.argmax())
        raise ValueError(f"{name} must be {rule}, got {weights[index]} for class {index}")
    if not weights.any():
        raise ValueError(f"{name} must be > 0 for one class at least, got only zeros")
    with np.errstate(divide="ignore"):
        log_frequencies: Floats = log_softmax(np.log(weights))
    return log_frequencies


def labelled_rows(z: Any, y: Any, axis: Any, ignore_index: Any) -> LabelledRows:
    """Return two or more labelled rows of logits, without the ignored ones."""
    rows = _rows.labelled_rows(check_dense(z), y, None, axis, ignore_index)
    check_number_of_rows(len(rows.y))
    return rows


def check_number_of_rows(n: int) -> None:
    """Refuse a single row, of which no distribution of scores can be estimated."""
    if n < 2:
        raise ValueError(f"z must hold at least 2 rows, got {n}")


def map_rows(function: Callable[[Any], Any], z: Any) -> Any:
    """Return function(z), the results of the rows of z, shape (..., K).

    It is called on blocks of the rows of a NumPy array, as it needs several arrays of that size.
    """
    if not isinstance(z, np.ndarray) or not z.size:
        return function(z)
    rows = z.reshape(-1, z.shape[-1])
    result = np.concatenate([function(rows[block]) for block in blocks(*rows.shape)])
    return _arrays.scalar(result.reshape(z.shape[:-1] + result.shape[1:]))
