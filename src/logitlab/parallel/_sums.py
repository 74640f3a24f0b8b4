"""The sums of the chunks of a shard, and the results of its rows from the sums of all chunks.

By the kernels for tensors on the CPU, whose results then have the bits of the unsharded row in
shards that begin at multiples of `CHUNK`; else by the formulas, in float64. Rows have the classes
last and T >= 0. The five sums of a chunk are those of shard_args.h; in the formulas its weights are
exp((z - m)/T), and N is 0.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from logitlab._arrays import dtype_name
from logitlab._backends import native, torch_kernels

CHUNK = 4096
SUMS = 5
_OPS = {"softmax": 0, "log_softmax": 1, "logsumexp": 2, "loss": 3, "gradient": 4}
_BLOCK_ENTRIES = 1 << 22  # of the formulas


def chunks_of(size: int) -> int:
    return -(-size // CHUNK)


def _kind(z: Tensor) -> int:
    return native.KINDS[dtype_name(z.dtype)]


def row_blocks(rows: int, classes: int) -> Iterator[slice]:
    size = max(1, _BLOCK_ENTRIES // max(1, classes))
    for i in range(0, rows, size):
        yield slice(i, min(i + size, rows))


def chunk_sums(name: str, z: Tensor, t: Tensor) -> Tensor:
    """The sums of the chunks of z, (R, chunks, 5), for the results of this name."""
    z = z.detach()
    sums = torch.zeros(len(z), chunks_of(z.shape[1]), SUMS, dtype=torch.float64, device=z.device)
    if not sums.numel():
        return sums
    if torch_kernels.readable(z):
        z = z.contiguous()
        native._native.shard_sums(
            _OPS[name], _kind(z), len(z), z.shape[1], z.data_ptr(), t.numpy(), sums.numpy()
        )
        return sums
    with_max = name == "softmax"
    for rows in row_blocks(*z.shape):
        padding = -z.shape[1] % CHUNK
        block = torch.nn.functional.pad(z[rows].double(), (0, padding), value=-torch.inf)
        sums[rows] = _formula_sums(block.view(len(block), -1, CHUNK), t[rows], with_max)
    return sums


def _formula_sums(z: Tensor, t: Tensor, with_max: bool) -> Tensor:
    m = z.amax(-1, keepdim=True)
    at_max = (z == m) & (z > -torch.inf)
    e = torch.where(z == -torch.inf, 0.0, torch.exp((z - m) / t[:, None, None]))
    total = torch.where(at_max, float(with_max), e).sum(-1)
    m = m[..., 0]
    ties = at_max.sum(-1).double() * (not with_max)
    zero = torch.zeros_like(m)
    in_range = (m < torch.inf) & (t > 0)[:, None] & (t < torch.inf)[:, None] & ~total.isnan()
    total = torch.where(m == -torch.inf, 0.0, torch.where(in_range, total, torch.inf))
    return torch.stack([m, zero, total, zero, ties], -1)


def results(
    name: str, z: Tensor, t: Tensor, sums: Tensor, first_chunk: int, classes: int
) -> tuple[Any, Tensor]:
    """The results of a shard of `classes` classes from the sums of all chunks, and of each row
    [m, log sum exp((z - m)/T), its rounding error, 1]; the last is 0 where the row has no result.

    Of "loss" there is no other result; that of "gradient" is the softmax. For the elements of
    log_softmax, z may be any entries of the rows.
    """
    z = z.detach()
    totals = torch.zeros(len(z), 4, dtype=torch.float64, device=z.device)
    if name == "loss":
        out = None
    else:
        out = z.new_empty(len(z)) if name == "logsumexp" else torch.empty_like(z)
    if not len(z):
        return out, totals
    if torch_kernels.readable(z):
        z = z.contiguous()
        if out is not None:
            out = out.contiguous()
        native._native.shard_results(
            _OPS[name],
            _kind(z),
            len(z),
            z.shape[1],
            z.data_ptr() if z.numel() else None,
            out.data_ptr() if out is not None and out.numel() else None,
            t.numpy(),
            sums.contiguous().numpy(),
            sums.shape[1],
            first_chunk,
            classes,
            totals.numpy(),
        )
        return out, totals
    _formula_totals(sums, t, name == "softmax", totals)
    m, log_sum = totals[:, :1], totals[:, 1:2]
    if name == "logsumexp":
        return (m[:, 0] + t * log_sum[:, 0]).to(z.dtype), totals
    if out is None:
        return out, totals
    for rows in row_blocks(*z.shape):
        x = (z[rows].double() - m[rows]) / t[rows, None] - log_sum[rows]
        out[rows] = x if name == "log_softmax" else x.exp()
    return out, totals


def _formula_totals(sums: Tensor, t: Tensor, with_max: bool, totals: Tensor) -> None:
    chunk_max, _, total, _, ties = sums.unbind(-1)
    m = chunk_max.amax(-1, keepdim=True)
    finite = m.isfinite()[:, 0]
    e = torch.where(chunk_max == -torch.inf, 0.0, torch.exp((chunk_max - m) / t[:, None]))
    rest = (e * total).sum(-1)
    if with_max:
        rest = rest - 1
    else:
        rest = rest + torch.where(chunk_max == m, 0.0, e * ties).sum(-1)
        rest = rest + torch.where(chunk_max == m, ties, 0.0).sum(-1) - 1
    in_range = finite & total.isfinite().all(-1)
    totals[:, 0] = m[:, 0]
    totals[:, 1] = torch.log1p(rest)
    totals[:, 3] = in_range
