"""The entries of sharded rows that a first stage of truncation may keep, gathered on all ranks."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitlab.parallel._group import Shards
from logitlab.parallel._rows import wide
from logitlab.parallel._sums import row_blocks

_ROUNDS = 10  # of the search for a lower bound of top-p
_WEIGHT_SLACK = 1e-5  # relative, of sums of weights in float32
_SLACK = 1e-9  # relative, of bounds that candidates may be beyond


class Candidates(NamedTuple):
    """Entries of some rows, in the order of the classes."""

    z: Tensor  # (R, W), padded with -inf
    classes: Tensor  # (R, W)
    own: slice  # of W: those of this rank
    local: Tensor  # (R, length of own): the columns in this shard


def gather_entries(z: Tensor, mask: Tensor, shards: Shards) -> Candidates:
    """The entries of the mask, (R, K of this rank)."""
    counts = mask.sum(-1)
    width = int(shards.gather(counts.max() if len(counts) else counts.sum()).max())
    row, column = torch.nonzero(mask, as_tuple=True)
    place = torch.arange(len(row), device=z.device) - (counts.cumsum(0) - counts)[row]
    local = torch.zeros(len(z), width, dtype=torch.int64, device=z.device)
    local[row, place] = column
    values = torch.full((len(z), width), -torch.inf, dtype=z.dtype, device=z.device)
    values[row, place] = z[row, column]
    n = len(shards.sizes)
    all_values = shards.gather(values).movedim(0, 1).reshape(len(z), n * width)
    numbers = local + shards.start
    if shards.classes < 2**31:
        numbers = numbers.int()
    classes = shards.gather(numbers).movedim(0, 1).reshape(len(z), n * width).long()
    own = slice(shards.rank * width, (shards.rank + 1) * width)
    return Candidates(all_values, classes, own, local)


def largest_entries(z: Tensor, shards: Shards) -> Tensor:
    """The largest entry of each whole row, (R,); NaN where there is one."""
    if z.shape[1]:
        top = z.amax(-1)
    else:
        top = torch.full((len(z),), -torch.inf, dtype=z.dtype, device=z.device)
    return shards.gather(top).amax(0)


def _local_largest(z: Tensor, n: int, shards: Shards) -> Tensor:
    """The n largest entries of each shard, (R, ranks * n), with -inf where it has fewer."""
    values = torch.topk(z, min(n, z.shape[1]), dim=-1).values
    values = torch.nn.functional.pad(values, (0, n - values.shape[1]), value=-torch.inf)
    return shards.gather(values).movedim(0, 1).reshape(len(z), -1)


def top_k_mask(z: Tensor, k: Tensor, shards: Shards) -> Tensor:
    """The entries that are at least the k-th largest of their row."""
    n = min(int(k.max()), max(shards.sizes))
    values = _local_largest(z, n, shards).sort(-1, descending=True).values
    at = (k - 1).clamp(max=values.shape[1] - 1)[:, None]
    return (z >= values.gather(1, at)) & (z > -torch.inf)


def min_p_mask(z: Tensor, min_p: Tensor, t: Tensor, m: Tensor) -> Tensor:
    """The entries whose weight is at least about min_p times that of m, the largest entry."""
    reach = -t * torch.log(min_p)
    # The subtraction of T log min_p is rounded to the digits of m.
    bound = m - reach * (1 + _SLACK) - 1e-6 * m.abs()
    return (z >= bound[:, None]) & (z > -torch.inf)


def _weights(z: Tensor, m: Tensor, t: Tensor) -> Tensor:
    """exp((z - m)/T) in float64."""
    return torch.exp((z.double() - m[:, None]) / t[:, None])


def top_p_candidates(
    z: Tensor, p: Tensor, t: Tensor, m: Tensor, shards: Shards
) -> tuple[Candidates, NDArray[np.bool_]]:
    """Entries that hold those of top-p, and which of them it keeps.

    For rows whose largest entry, m, is finite, and 0 < T < inf.
    """
    total = torch.empty_like(m)
    for rows in row_blocks(*z.shape):
        total[rows] = _weights(z[rows], m[rows], t[rows]).sum(-1)
    wanted = p * shards.gather(total).sum(0)
    bound = _lower_bound(z, p, t, m, wanted, shards)
    found = gather_entries(z, (z >= bound[:, None]) & (z > -torch.inf), shards)
    return found, _prefix(found, wanted, m, t)


def _lower_bound(
    z: Tensor, p: Tensor, t: Tensor, m: Tensor, wanted: Tensor, shards: Shards
) -> Tensor:
    """A value of each row that is at most a little below the smallest entry of top-p."""
    x = wide(z)
    weights = torch.exp(((x - m[:, None].to(x.dtype)) / t[:, None].to(x.dtype)).float())
    # All entries below the share (1 - p)/K of the largest weight together are less than 1 - p.
    low = m - t * (torch.log1p(shards.classes / (1 - p)) + 1)
    high = m
    for _ in range(_ROUNDS):
        middle = ((low + high) / 2).to(z.dtype)
        above = torch.where(z >= middle[:, None], weights, 0.0).sum(-1, dtype=torch.float64)
        middle = middle.double()
        enough = shards.gather(above).sum(0) > wanted * (1 + _WEIGHT_SLACK)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low


def _prefix(found: Candidates, wanted: Tensor, m: Tensor, t: Tensor) -> NDArray[np.bool_]:
    """The smallest sets of largest entries, of equal ones those of the first classes, whose weights
    are at least `wanted`."""
    # The candidates are in the order of the classes, but for padding.
    z, order = torch.sort(found.z, dim=-1, descending=True, stable=True)
    weights = _weights(z, m, t)
    mass = weights.cumsum(-1)
    is_kept = weights > 0
    is_kept[:, 1:] &= mass[:, :-1] < wanted[:, None]
    kept = torch.zeros_like(is_kept).scatter(1, order, is_kept & (z > -torch.inf))
    result: NDArray[np.bool_] = kept.cpu().numpy()
    return result


def rows_of_setting(value: Any, rows: Tensor) -> Tensor:
    """The values of a setting in some rows, float64."""
    if not isinstance(value, np.ndarray):
        return torch.full((len(rows),), float(value), dtype=torch.float64, device=rows.device)
    return torch.from_numpy(value).to(rows.device)[rows]
