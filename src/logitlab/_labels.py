"""Checked labels and weights of rows."""

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from logitlab import _checks, _tracing
from logitlab._arrays import (
    Array,
    Namespace,
    Shape,
    any_of,
    as_array,
    as_floating,
    check_none_missing,
    check_nonnegative,
    dtype_name,
    first_true,
    like,
    widest_float,
)


def _as_default_integer(x: Array, xp: Namespace) -> Array:
    """`x` in the default integer type of its library: int64, or int32 in JAX without x64."""
    if dtype_name(x.dtype) == "int64":
        return x
    if isinstance(x, np.ndarray):
        return x.astype(np.int64)
    return xp.astype(x, xp.__array_namespace_info__().default_dtypes()["integral"], copy=False)


def _all_in_range(y: Array, k: int, xp: Namespace) -> bool:
    """Whether all integers are in [0, k): by their extremes, faster than by a mask."""
    if not math.prod(y.shape):
        return True
    if xp is not np and not _tracing.has_values(y):
        return False
    try:
        return int(xp.min(y)) >= 0 and int(xp.max(y)) < k
    except (TypeError, RuntimeError):
        return False  # a traced array has no values


def _is_one_of(y: Array, values: tuple[int, ...], unsigned: bool, xp: Namespace) -> Array:
    """Mask of the entries of y that are among the values."""
    info = xp.iinfo(y.dtype)
    mask = xp.zeros_like(y, dtype=xp.bool)
    for value in values:
        # A large unsigned label is negative after its conversion to a signed type.
        if (0 if unsigned else info.min) <= value <= info.max:
            mask = mask | (y == value)
    return mask


def labels(
    y: Any,
    z: Array,
    batch: Shape,
    k: int,
    ignore_index: Any = None,
    alternative: str = "",
    of: str = "z",
    start: int = 0,
) -> Array:
    """Checked integer labels in the library of z and of the batch shape, -1 in ignored rows.

    For the messages: `alternative` is what else y may be, `of` the argument with the classes,
    `start` the number of the first row.
    """
    y = as_array(y, "y")
    xp = array_namespace(z)
    # Those of NumPy are checked before the conversion, in which JAX without x64 drops digits.
    y_xp = np if isinstance(y, np.ndarray) else xp
    y = y if y_xp is np else like(y, z, xp, "y")
    check_label_shape(y, batch, alternative)
    ignore = None if ignore_index is None else _checks.integers(ignore_index, "ignore_index")
    y = _checked_labels(y, k, ignore, y_xp, of, start)
    return y if y_xp is xp else like(y, z, xp, "y")


def check_label_shape(y: Array, batch: Shape, alternative: str = "") -> None:
    """Refuse labels that are not integers, or not of the batch shape."""
    dtype = dtype_name(y.dtype)
    if not dtype.startswith(("int", "uint")):
        if dtype.startswith("float") and isinstance(y, np.ndarray) and y.shape == batch:
            check_none_missing(y, "y")
        raise TypeError(f"y must be integer labels{alternative}, got {dtype}")
    if tuple(y.shape) != batch:
        raise ValueError(
            f"y must be labels of shape {batch}{alternative}, got shape {tuple(y.shape)}"
        )


def _checked_labels(
    y: Array, k: int, ignore: tuple[int, ...] | None, xp: Namespace, of: str, start: int
) -> Array:
    unsigned = dtype_name(y.dtype).startswith("uint")
    y = _as_default_integer(y, xp)
    if ignore is None and _all_in_range(y, k, xp):
        return y
    invalid = (y < 0) | (y >= k)
    if ignore is not None:
        ignored = _is_one_of(y, ignore, unsigned, xp)
        invalid = invalid & ~ignored
    if any_of(invalid, xp):
        row = first_true(invalid, xp)
        value = int(xp.reshape(y, (-1,))[row])
        if value < 0 and unsigned:
            value += 2 ** xp.iinfo(y.dtype).bits
        row += start
        raise ValueError(
            f"y must be from 0 to {k - 1}, as {of} has {k} classes, got {value} in row {row}"
        )
    return y if ignore is None else xp.where(ignored, xp.full_like(y, -1), y)


def row_weights(sample_weight: Any, batch: Shape, z: Array) -> Array:
    """Checked weights of the rows of z, of the batch shape, in the widest real type."""
    xp = array_namespace(z)
    weight = like(as_floating(sample_weight, "sample_weight"), z, xp, "sample_weight")
    check_weight_shape(weight, batch)
    check_nonnegative(weight, "sample_weight", finite=True)
    return xp.astype(weight, widest_float(xp, z))


def check_weight_shape(weight: Array, batch: Shape) -> None:
    """Refuse weights that are not of the batch shape."""
    if tuple(weight.shape) != batch:
        raise ValueError(
            f"sample_weight must have shape {batch}, one weight for each row, "
            f"got {tuple(weight.shape)}"
        )


def weight_scale(weight: Array, xp: Namespace) -> tuple[float, float]:
    """Two powers of two that together bring the largest weight to [1/2, 1).

    A mean does not depend on a common factor of its weights, and with these their sum stays in
    range. One such power alone may be out of range. Both are 1 for a traced array.
    """
    if not math.prod(weight.shape) or not _tracing.has_values(weight):
        return 1.0, 1.0
    largest = xp.max(weight)
    exponent = -math.frexp(float(largest.detach() if is_torch_array(largest) else largest))[1]
    half = exponent // 2
    return 2.0**half, 2.0 ** (exponent - half)
