"""Truncation and draws of NumPy arrays: the compiled kernels, or the reference."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab.backends import reference_sampling
from logitlab.backends.reference_sampling import Cut, Words


def _rows(z: Any, axis: int, t: Any, where: Any) -> tuple[Any, Any, Any]:
    """z as rows by classes, T and `where` to match."""
    batch = z.shape[:axis] + z.shape[axis + 1 :]
    shape = (math.prod(batch), z.shape[axis])

    def flat(x: Any) -> Any:
        return np.moveaxis(x, axis, -1).reshape(shape)

    if not isinstance(t, float):
        t = np.broadcast_to(np.moveaxis(t, axis, -1), (*batch, 1)).reshape(-1)
    return flat(z), t, None if where is None else flat(np.broadcast_to(where, z.shape))


def keep(z: Any, axis: int, t: Any, where: Any, cut: Cut) -> NDArray[np.bool_]:
    """Of z's shape: the entries that the truncation leaves."""
    kept = reference_sampling.keep(*_rows(z, axis, t, where), cut)
    moved = np.moveaxis(z, axis, -1)
    return np.moveaxis(kept.reshape(moved.shape), -1, axis)


def sample(
    z: Any,
    axis: int,
    t: Any,
    where: Any,
    cut: Cut,
    n: int,
    replacement: bool,
    key: tuple[int, int],
    row_keys: Words,
) -> NDArray[np.int64]:
    """Indices of shape (rows, n); -1 where a row has nothing to draw, or nothing more."""
    rows = _rows(z, axis, t, where)
    return reference_sampling.sample(*rows, cut, n, replacement, key, row_keys)
