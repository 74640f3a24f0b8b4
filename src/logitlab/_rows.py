"""Blocks of rows, checked labels, and the array types that the modules above share."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _labels
from logitlab.probabilities import softmax

Floats = NDArray[np.float64]


Integers = NDArray[np.int64]


_SHORT = 50  # classes of a row in which a loop over the classes is faster than NumPy's reduction
_BLOCK = 1 << 18  # entries of a block: 2 MiB as float64, which fits in a cache


def blocks(rows: int, classes: int, size: int = _BLOCK) -> Iterator[slice]:
    """Slices of consecutive rows that cover all rows, each of at most `size` entries.

    A row of more than `size` entries is a block of its own.
    """
    step = max(1, size // max(1, classes))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def row_max(z: NDArray[Any]) -> NDArray[Any]:
    """The largest entry of each row: NumPy's reduction of short rows takes four times as long."""
    if z.shape[-1] > _SHORT:
        result: NDArray[Any] = z.max(axis=-1)
        return result
    result = z[..., 0].copy()
    for k in range(1, z.shape[-1]):
        np.maximum(result, z[..., k], out=result)
    return result


def as_row(z: Any) -> Floats:
    """One row of logits as a float64 NumPy array of shape (K,), K >= 1."""
    row = _arrays.on_host(_arrays.as_floating(z, "z")).astype(np.float64)
    if row.ndim != 1 or not row.size:
        raise ValueError(f"z must have shape (K,) with K >= 1, got shape {row.shape}")
    return row


def check_not_empty(z: Any, name: str) -> None:
    """Refuse logits without rows or classes."""
    if z.ndim == 0 or 0 in z.shape:
        shape = tuple(z.shape)
        raise ValueError(f"{name} must hold at least one row of one class, got shape {shape}")


def as_rows(
    z: Any, y: Any, name: str = "z", axis: int = -1, ignore_index: Any = None
) -> tuple[NDArray[Any], Integers]:
    """Logits as a NumPy array of shape (rows, K), a view if possible, and the checked labels.

    The label of an ignored row is -1.
    """
    z = _arrays.on_host(_arrays.as_floating(z, name), name)
    check_not_empty(z, name)
    y = _arrays.on_host(_arrays.as_array(y, "y"), "y")
    if z.ndim == 1 and y.ndim == 1:
        raise ValueError(
            f"{name} must have shape ({len(y)}, K), one row of logits for each label, got shape "
            f"{z.shape}; a logit s of two classes is the row [0, s]"
        )
    class_axis = _arrays.one_axis(axis, z.ndim)[0]
    z = z if class_axis == z.ndim - 1 else np.moveaxis(z, class_axis, -1)
    labels: Integers = _labels.labels(y, z, z.shape[:-1], z.shape[-1], ignore_index, of=name)
    return z.reshape(-1, z.shape[-1]), labels.reshape(-1)


def check_weights(sample_weight: Any, batch: tuple[int, ...]) -> Floats | None:
    """The weights of rows of shape `batch` as a flat float64 array, or None."""
    if sample_weight is None:
        return None
    given = _arrays.on_host(_arrays.as_array(sample_weight, "sample_weight"), "sample_weight")
    weights: Floats = _labels.row_weights(given, batch, given)
    a, b = mean_scale(float(weights.max()))
    return weights.reshape(-1) * a * b


def mean_scale(largest: float) -> tuple[float, float]:
    """Two factors of the weights of a mean, of which the largest is given.

    A common factor changes no mean: with the largest in [1/2, 1) the sums stay in range.
    """
    if not largest:
        raise ValueError("sample_weight must be finite and >= 0, and not zero in every row")
    return _labels.weight_scale(np.array([largest]), np)


def group_labels(groups: Any, batch: tuple[int, ...]) -> NDArray[Any]:
    """Return checked groups of rows of shape `batch` as a flat array of integers or strings."""
    labels = _arrays.on_host(_arrays.as_array(groups, "groups"), "groups")
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind not in "biuU":
        raise TypeError(f"groups must be integers or strings, got {labels.dtype}")
    if labels.shape != batch:
        raise ValueError(
            f"groups must have shape {batch}, one group for each row, got shape {labels.shape}"
        )
    return labels.reshape(-1)


class LabelledRows(NamedTuple):
    """Checked logits (n, K) and labels of the rows that count."""

    z: NDArray[Any]
    y: Integers
    weight: Floats | None  # > 0, up to a common factor; None where every row has weight 1
    numbers: Integers | None  # of the rows among all; None where row i has the number i


def counted_rows(
    z: NDArray[Any], y: Integers, weight: Floats | None, start: int = 0
) -> LabelledRows:
    """The rows without those of label -1 and of weight 0; the number of the first is `start`."""
    counted = y >= 0
    if weight is not None:
        counted &= weight > 0
    if counted.all():
        return LabelledRows(z, y, weight, start + np.arange(len(y)) if start else None)
    rows = np.flatnonzero(counted)
    return LabelledRows(z[rows], y[rows], None if weight is None else weight[rows], start + rows)


def check_some_counted(n: int) -> None:
    """Refuse labels and weights that leave out every row."""
    if not n:
        raise ValueError("y must have a row that is not ignored and has a weight > 0, got none")


def labelled_rows(
    z: Any,
    y: Any,
    sample_weight: Any = None,
    axis: int = -1,
    ignore_index: Any = None,
    name: str = "z",
) -> LabelledRows:
    """Checked rows, labels and weights without the ignored rows and those of weight 0."""
    z, y = _arrays.as_array(z, name), _arrays.as_array(y, "y")
    logits, labels = as_rows(z, y, name, axis, ignore_index)
    weights = check_weights(sample_weight, tuple(y.shape))
    if ignore_index is None and weights is None:
        return LabelledRows(logits, labels, None, None)
    rows = counted_rows(logits, labels, weights)
    check_some_counted(len(rows.y))
    return rows


def softmax_rows(
    z: NDArray[Any], rows: slice, name: str = "z", numbers: Integers | None = None
) -> Floats:
    """Softmax, in float64, of some rows of z; an error names the first without a distribution.

    Row i of z has the number numbers[i], or i.
    """
    p: Floats = softmax(z[rows].astype(np.float64))
    check_distributions(np.isnan(p[:, 0]), rows, name, numbers)
    return p


def check_distributions(
    undefined: NDArray[np.bool_], rows: slice, name: str = "z", numbers: Integers | None = None
) -> None:
    """Raise an error that names the first of some rows that is undefined."""
    if undefined.any():
        row = rows.start + int(undefined.argmax())
        row = row if numbers is None else int(numbers[row])
        raise ValueError(f"row {row} of {name} has no distribution: it contains NaN, or only -inf")
