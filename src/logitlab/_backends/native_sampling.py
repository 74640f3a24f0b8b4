"""Truncation and sampling of NumPy arrays: the compiled kernels, or the reference."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._arrays import dtype_name, native_type
from logitlab._backends import reference_sampling
from logitlab._backends.native import (
    KINDS,
    _covers,
    _memory,
    _native,
    _one_axis,
    contiguous,
    empty,
    large_bytes,
    native_available,
)
from logitlab._backends.reference_sampling import (
    STAGES,
    Stage,
    Words,
    is_dynamic,
    truncates,
)

KernelStages = list[tuple[Any, ...]]  # the number of each stage and its parameters
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


def _on_kernel(
    name: str, z: Any, axis: int, t: Any, where: Any, stages: list[Stage], *rest: Any
) -> bool:
    """Run the kernel `name` on z; False if it does not apply."""
    dtype = dtype_name(z.dtype)
    if not _covers(dtype) or (truncates(stages) and z.shape[axis] >= _MAX_CLASSES):
        return False
    x, axis, t, where = _one_axis(_memory(z, dtype), (axis,), t, where)
    getattr(_native, name)(KINDS[dtype], x, axis, t, where, kernel_stages(stages), *rest)
    return True


def kernel_stages(stages: list[Stage]) -> KernelStages:
    """The stages as the kernels take them: none where nothing is truncated."""
    if not truncates(stages):
        return []
    return [(STAGES.index(stage.name), *stage.values) for stage in stages]


def plain_sample(
    z: Any,
    axis: Any,
    temperature: Any,
    stages: KernelStages,
    key_of: Callable[[Any], tuple[int, int]],
    rng: Any,
    n: Any,
) -> Any:
    """One class of each row, along a new last axis if n is 1.

    None where another function must be called: before a key is drawn, unless a row has no
    distribution.
    """
    if not (n is None or (type(n) is int and n == 1)) or type(z) is not np.ndarray:
        return None
    if not native_available():
        return None
    found = _native.plain_sample(z, axis, temperature, stages, key_of, rng)
    return found if n is None or found is None else found[..., None]


def keep(
    z: Any, axis: int, t: Any, where: Any, stages: list[Stage]
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Mask, of z's shape, of the entries that the truncation keeps.

    Also the temperature of each row, if it is dynamic.
    """
    shape = np.moveaxis(z, axis, -1).shape
    kept = np.empty(shape, bool)
    temperatures = np.empty(math.prod(shape[:-1])) if is_dynamic(stages) else None
    if _on_kernel("keep", z, axis, t, where, stages, kept, temperatures):
        if where is not None:
            kept &= np.moveaxis(np.broadcast_to(where, z.shape), axis, -1)
    else:
        kept, temperatures = reference_sampling.keep(*_rows(z, axis, t, where), stages)
    return np.moveaxis(kept.reshape(shape), -1, axis), temperatures


def sample(
    z: Any,
    axis: int,
    t: Any,
    where: Any,
    stages: list[Stage],
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
    if not _on_kernel("sample", z, axis, t, where, stages, replacement, *key, row_keys, indices):
        rows = _rows(z, axis, t, where)
        return reference_sampling.sample(*rows, stages, n, replacement, key, row_keys)
    return indices


def penalize(
    z: Any, bias: Any, tokens: tuple[Any, Any, Any, Any], settings: tuple[Any, Any, Any]
) -> Any:
    """A copy of z, (N, K), with a bias of each logit and with penalties of tokens.

    The bias is (N, K), (1, K) or None. None if the kernel does not apply.
    """
    dtype = dtype_name(z.dtype)
    bias_dtype = dtype if bias is None else dtype_name(bias.dtype)
    if not (_covers(dtype) and _covers(bias_dtype)):
        return None
    out = empty(z.shape, native_type(z.dtype))
    x = contiguous(z, out.dtype)
    if bias is not None:
        bias = _memory(contiguous(bias, native_type(bias.dtype)), bias_dtype)
    rows, k = z.shape
    memory = _memory(x, dtype), _memory(out, dtype)
    biases = bias, KINDS[bias_dtype]
    _native.penalize(KINDS[dtype], rows, k, *memory, False, *tokens, *biases, *settings)
    return out


def find_repeats(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: NDArray[np.int64],
    limit: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """As `histories.repeats`, of these lists; None without the kernels."""
    if not native_available():
        return None
    found, lengths = np.empty_like(tokens), np.empty_like(tokens)
    n = _native.find_repeats((tokens, offsets), len(least), least, limit, found, lengths)
    return found[:n], lengths[:n]
