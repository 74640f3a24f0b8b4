"""Truncation and sampling of NumPy arrays: the compiled kernels, or the reference."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._arrays import dtype_name
from logitlab._backends import reference_sampling
from logitlab._backends.native import (
    KINDS,
    _covers,
    _memory,
    _native,
    _one_axis,
    are_plain,
    large_bytes,
)
from logitlab._backends.reference_sampling import STAGES, Cut, Words

_MAX_CLASSES = 1 << 32  # of a row that the kernels truncate


def _rows(z: Any, axis: int, t: Any, where: Any) -> tuple[Any, Any, Any]:
    """z as rows by classes, and T and `where` of its rows."""
    batch = z.shape[:axis] + z.shape[axis + 1 :]
    shape = (math.prod(batch), z.shape[axis])

    def flat(x: Any) -> Any:
        return np.moveaxis(x, axis, -1).reshape(shape)

    if not isinstance(t, float):
        t = np.broadcast_to(np.moveaxis(t, axis, -1), (*batch, 1)).reshape(-1)
    return flat(z), t, None if where is None else flat(np.broadcast_to(where, z.shape))


def _on_kernel(name: str, z: Any, axis: int, t: Any, where: Any, cut: Cut, *rest: Any) -> bool:
    """Run the kernel `name` on z; False if it does not apply."""
    dtype = dtype_name(z.dtype)
    stages = cut.filters()
    if not _covers(dtype) or (stages and z.shape[axis] >= _MAX_CLASSES):
        return False
    if stages:
        stages = [stage for stage in cut.order if stage in ("temperature", *stages)]
    numbers = [STAGES.index(stage) for stage in stages]
    values = min(cut.top_k or 1, _MAX_CLASSES), cut.top_p or 1.0, cut.min_p or 0.0
    x, axis, t, where = _one_axis(_memory(z, dtype), (axis,), t, where)
    getattr(_native, name)(KINDS[dtype], x, axis, t, where, numbers, *values, *rest)
    return True


def covers_plain_sample(z: Any, axis: Any, temperature: Any) -> bool:
    """Whether :func:`plain_sample` fails only for a row without a distribution."""
    return are_plain((z,), axis, temperature) and z.nbytes < _native.LARGE_RESULT


def plain_sample(z: Any, axis: Any, temperature: Any, key: tuple[int, int]) -> Any:
    """One class of each row, or None where a row has no distribution."""
    return _native.plain_sample(z, axis, temperature, *key)


def keep(z: Any, axis: int, t: Any, where: Any, cut: Cut) -> NDArray[np.bool_]:
    """Mask, of z's shape, of the entries that the truncation keeps."""
    shape = np.moveaxis(z, axis, -1).shape
    kept = np.empty(shape, bool)
    if _on_kernel("keep", z, axis, t, where, cut, kept):
        if where is not None:
            kept &= np.moveaxis(np.broadcast_to(where, z.shape), axis, -1)
    else:
        kept = reference_sampling.keep(*_rows(z, axis, t, where), cut).reshape(shape)
    return np.moveaxis(kept, -1, axis)


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
    """Sampled indices of shape (rows, n); -1 where a row has no distribution or no entry left."""
    size = len(row_keys) * n
    large = large_bytes(8 * size)
    indices = (np.empty(size, np.int64) if large is None else large.view(np.int64)).reshape(-1, n)
    if z.shape[axis] == 0:
        indices.fill(-1)
    if not _on_kernel("sample", z, axis, t, where, cut, replacement, *key, row_keys, indices):
        rows = _rows(z, axis, t, where)
        return reference_sampling.sample(*rows, cut, n, replacement, key, row_keys)
    return indices
