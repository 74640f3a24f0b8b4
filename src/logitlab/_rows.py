"""Blocks of rows, checked labels, and the array types that the modules above share."""

from collections.abc import Iterator
from typing import Any

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


def as_rows(z: Any, y: Any, name: str = "z") -> tuple[NDArray[Any], Integers]:
    """Logits as a NumPy array of shape (rows, K), a view if possible, and the checked labels."""
    z = _arrays.on_host(_arrays.as_floating(z, name), name)
    if z.ndim == 0 or z.size == 0:
        raise ValueError(f"{name} must hold at least one row of one class, got shape {z.shape}")
    y = _arrays.on_host(_arrays.as_array(y, "y"), "y")
    if z.ndim == 1 and y.ndim == 1:
        raise ValueError(
            f"{name} must have shape ({len(y)}, K), one row of logits for each label, got shape "
            f"{z.shape}; a logit s of two classes is the row [0, s]"
        )
    labels: Integers = _labels.labels(y, z, z.shape[:-1], z.shape[-1], of=name)
    return z.reshape(-1, z.shape[-1]), labels.reshape(-1)


def softmax_rows(z: NDArray[Any], rows: slice, name: str = "z") -> Floats:
    """Softmax, in float64, of some rows of z; an error names the first without a distribution."""
    p: Floats = softmax(z[rows].astype(np.float64))
    undefined = np.isnan(p[:, 0])
    if undefined.any():
        row = rows.start + int(undefined.argmax())
        raise ValueError(f"row {row} of {name} has no distribution: it contains NaN, or only -inf")
    return p
