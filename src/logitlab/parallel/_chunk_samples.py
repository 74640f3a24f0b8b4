"""Samples of sharded rows without truncation, by the inverse CDF over the chunks of a row."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitlab import _arrays
from logitlab._backends import native, torch_kernels
from logitlab.parallel import _sums
from logitlab.parallel._group import Shards
from logitlab.parallel._rows import gather_sums

_DRAWS_AT_ONCE = 256


def align(z: Tensor, shards: Shards) -> tuple[Tensor, Shards]:
    """The rows with shards that begin at multiples of the chunk.

    The entries before the first multiple in a shard go to the rank that has the chunk's beginning.
    """
    starts = shards.starts
    heads = [
        min(-start % _sums.CHUNK, size)
        for start, size in zip(starts[:-1], shards.sizes, strict=True)
    ]
    if not any(heads):
        return z, shards
    own = heads[shards.rank]
    padded = torch.nn.functional.pad(z[:, :own], (0, max(heads) - own))
    parts = shards.gather(padded)
    sizes = [size - head for size, head in zip(shards.sizes, heads, strict=True)]
    pieces = [z[:, own:]]
    target = 0  # the rank that the next head goes to
    for rank, head in enumerate(heads):
        if head:
            if target == shards.rank:
                pieces.append(parts[rank][:, :head])
            sizes[target] += head
        if shards.sizes[rank] > head or not starts[rank]:
            target = rank
    return torch.cat(pieces, -1), Shards(shards.group, shards.rank, tuple(sizes))


def _masses(sums: Tensor, t: Tensor, is_native: bool) -> NDArray[np.float64]:
    """The masses of the chunks, relative to a common weight; NaN in rows out of range."""
    chunk_max, exponent, total, _, _ = _arrays.on_host(sums.movedim(-1, 0), "sums")
    with np.errstate(all="ignore"):
        if is_native:
            drop = exponent - exponent.max(-1, keepdims=True)
            scale = np.where(drop < -1100, 0.0, np.ldexp(1.0, np.maximum(drop, -1100).astype(int)))
        else:
            m = chunk_max.max(-1, keepdims=True)
            scale = np.exp((chunk_max - m) / _arrays.on_host(t, "t")[:, None])
            scale = np.where(chunk_max == -np.inf, 0.0, scale)
        masses = np.where(total == 0, 0.0, total * scale)
        in_range = np.isfinite(total).all(-1) & (chunk_max > -np.inf).any(-1)
    return np.where(in_range[:, None], masses, np.nan)


def sample_chunks(
    z: Tensor, t: Tensor, uniforms: NDArray[np.float64], shards: Shards
) -> NDArray[np.int64]:
    """The classes of the uniform numbers, (R, n); -1 in rows out of range."""
    is_native = torch_kernels.readable(z)
    z, shards = align(z, shards)
    z = z.contiguous()
    sums, first = gather_sums(_sums.chunk_sums("softmax", z, t), shards)
    masses = _masses(sums, t, is_native)
    found = np.full(uniforms.shape, -1, np.int64)
    draws, chunks, rest = _find_chunks(masses, uniforms)
    last = first + _sums.chunks_of(shards.size)
    own = np.flatnonzero((chunks >= first) & (chunks < last))
    for i in range(0, len(own), _DRAWS_AT_ONCE):
        part = own[i : i + _DRAWS_AT_ONCE]
        rows = draws[part] // uniforms.shape[1]
        maxima = sums[rows, chunks[part], 0]
        within = _within(z, t[rows], rows, chunks[part] - first, maxima, rest[part], is_native)
        found.reshape(-1)[draws[part]] = within + chunks[part] * _sums.CHUNK
    gathered = shards.gather(torch.from_numpy(found).to(z.device))
    result: NDArray[np.int64] = gathered.amax(0).cpu().numpy()
    return result


def _find_chunks(masses: NDArray[Any], uniforms: NDArray[Any]) -> Any:
    """The flat numbers of the draws, their chunks, and how far they are in these, in [0, 1]."""
    draws, chunks, rest = [], [], []
    n = uniforms.shape[1]
    for row in np.flatnonzero(~np.isnan(masses[:, :1]).any(-1)):
        before = np.concatenate([[0.0], np.cumsum(masses[row])])
        total = before[-1]
        target = uniforms[row] * total
        chunk = np.searchsorted(before[1:], target, side="right")
        # If the product is rounded up to the total: the last chunk above 0.
        chunk = np.where(chunk == len(masses[row]), np.searchsorted(before, total) - 1, chunk)
        draws.append(row * n + np.arange(n))
        chunks.append(chunk)
        rest.append((target - before[chunk]) / (before[chunk + 1] - before[chunk]))
    if not draws:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return np.concatenate(draws), np.concatenate(chunks), np.concatenate(rest)


def _within(
    z: Tensor,
    t: Tensor,
    rows: NDArray[np.int64],
    chunks: NDArray[np.int64],
    maxima: Tensor,
    uniforms: NDArray[np.float64],
    is_native: bool,
) -> NDArray[np.int64]:
    """The entries within chunks of this shard, one for each uniform number."""
    sizes = np.minimum(_sums.CHUNK, z.shape[1] - chunks * _sums.CHUNK)
    block = torch.full((len(rows), _sums.CHUNK), -torch.inf, dtype=z.dtype, device=z.device)
    for i, (row, chunk, size) in enumerate(zip(rows, chunks, sizes, strict=True)):
        block[i, :size] = z[row, chunk * _sums.CHUNK : chunk * _sums.CHUNK + size]
    found = np.empty(len(rows), np.int64)
    if is_native:
        native._native.shard_samples(
            _sums._kind(z),
            len(block),
            _sums.CHUNK,
            block.data_ptr(),
            t.contiguous().numpy(),
            sizes.astype(np.int64),
            maxima.contiguous().numpy(),
            np.ascontiguousarray(uniforms),
            found,
        )
        return found
    weights = torch.exp((block.double() - maxima[:, None]) / t[:, None])
    cumulative = torch.where(block == -torch.inf, 0.0, weights).cumsum(-1).cpu().numpy()
    for i, row in enumerate(cumulative):
        at = np.searchsorted(row, uniforms[i] * row[-1], side="right")
        found[i] = min(at, np.searchsorted(row, row[-1]))
    return found
