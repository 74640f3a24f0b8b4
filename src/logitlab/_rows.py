"""Blocks of rows, checked labels, and the array types of the modules above."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab.probabilities import softmax

Floats = NDArray[np.float64]


Integers = NDArray[np.int64]


_BLOCK = 1 << 18  # elements worked on at a time: 2 MiB as float64


def blocks(rows: int, classes: int, size: int = _BLOCK) -> Iterator[slice]:
    """Slices of rows that cover all, each of up to `size` entries: that many stay in a cache."""
    step = max(1, size // max(1, classes))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def check_labels(y: Any, shape: tuple[int, ...], classes: int, of: str = "z") -> Integers:
    """Labels as a flat int64 array, one for each row `of`, each in [0, classes)."""
    labels = _arrays.on_host(_arrays.as_array(y, "y"))
    found: Integers = _arrays.labels(labels, shape, classes, None, array_namespace(labels), of=of)
    return found.reshape(-1)


def as_rows(z: Any, y: Any, name: str = "z") -> tuple[NDArray[Any], Integers]:
    """Logits as a NumPy array of rows by classes (a view where it can be), and checked labels."""
    z = _arrays.on_host(_arrays.as_floating(z, name))
    if z.ndim == 0 or z.size == 0:
        raise ValueError(f"{name} has shape {z.shape}; accepted: at least one row of one class")
    labels = check_labels(y, z.shape[:-1], z.shape[-1], name)
    return z.reshape(-1, z.shape[-1]), labels


def probabilities(z: NDArray[Any], rows: slice, name: str = "z") -> Floats:
    p: Floats = softmax(z[rows].astype(np.float64))
    none = np.isnan(p[:, 0])
    if none.any():
        row = rows.start + int(none.argmax())
        raise ValueError(f"row {row} of {name} has no distribution: it holds NaN, or -inf alone")
    return p
