"""The cross-entropy of rows whose classes are sharded, from logits or from a linear layer."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitlab import losses
from logitlab._backends.linear_loss import _row_blocks
from logitlab._backends.torch_autograd import divide_by_temperature
from logitlab.parallel import _sums
from logitlab.parallel._group import Shards
from logitlab.parallel._rows import gather_sums, out_of_range

_WHOLE_ROWS = 256  # gathered at a time


class ShardTargets(NamedTuple):
    """The targets of all rows: a y + b [not excluded], times the weights of the classes, with
    a = 1 - smoothing and b = smoothing over the number of classes that are not excluded."""

    label: Tensor | None  # (R,): of all classes, below 0 in an ignored row
    y: Tensor | None  # (R, K of this rank), float64: instead of labels
    smoothing: float
    class_weight: Tensor | None  # (K,): of all classes

    def of_rows(self, rows: slice | Tensor) -> "ShardTargets":
        label = None if self.label is None else self.label[rows]
        return self._replace(label=label, y=None if self.y is None else self.y[rows])

    @property
    def is_label_only(self) -> bool:
        return self.y is None and not self.smoothing and self.class_weight is None


class Layer(NamedTuple):
    """The logits of a shard: x itself, or x weight^T + bias; times the sign of each row."""

    x: Tensor  # (R, K of this rank) or (R, D)
    weight: Tensor | None
    bias: Tensor | None
    sign: Tensor | None

    @property
    def classes(self) -> int:
        return (self.x.shape[1] if self.weight is None else self.weight.shape[0]) or 1

    def blocks(self) -> Iterator[slice]:
        # A quarter of the usual blocks, as logits and gradient are in memory at the same time.
        return iter(_row_blocks(len(self.x), 4 * self.classes, self.x.itemsize))

    def logits(self, rows: slice | Tensor) -> Tensor:
        if self.weight is None:
            return self.x[rows]
        z = self.x[rows] @ self.weight.T
        if self.bias is not None:
            z += self.bias
        if self.sign is not None:
            z *= self.sign[rows, None].to(z.dtype)
        return z


class Losses(NamedTuple):
    """What the backward pass needs of the losses."""

    rows: Tensor  # (R,): the losses, float64
    sums: Tensor  # of all chunks
    first_chunk: int
    total: Tensor | None  # (R, 1): the sum of the targets, if they are more than a label
    spread: Tensor | None  # (R, 1): b
    outside: Tensor  # the numbers of the rows out of range


def _of_label(z: Tensor, label: Tensor, shards: Shards) -> Tensor:
    """The logits at the labels, 0 where another rank has them."""
    if not z.shape[1]:
        return torch.zeros(len(z), dtype=torch.float64, device=z.device)
    column, is_own = shards.columns(label)
    return torch.where(is_own, z.gather(1, column[:, None])[:, 0].double(), 0.0)


def _local_weight(targets: ShardTargets, shards: Shards) -> Tensor | float:
    return 1.0 if targets.class_weight is None else shards.local(targets.class_weight)


def _target_sums(z: Tensor, targets: ShardTargets, top: Tensor, shards: Shards) -> Tensor:
    """Sums over a shard, (R, 6): the logit at the label; the classes that are not excluded; and the
    sums of w and of w (top - z) for the weights w of those classes and for their targets."""
    columns = torch.zeros(len(z), 6, dtype=torch.float64, device=z.device)
    if targets.label is not None:
        columns[:, 0] = _of_label(z, targets.label, shards)
    if targets.is_label_only or not z.shape[1]:
        return columns
    included = z > -torch.inf
    columns[:, 1] = included.sum(-1)
    distance = torch.where(top == -torch.inf, 0.0, top)[:, None] - z.double()
    weight = _local_weight(targets, shards)
    for column, w in (
        (2, included * weight),
        (4, None if targets.y is None else targets.y * weight),
    ):
        if w is not None:
            w = w.double()
            columns[:, column] = w.sum(-1)
            columns[:, column + 1] = torch.where(w == 0, 0.0, w * distance).sum(-1)
    return columns


def row_losses(layer: Layer, t: Tensor, targets: ShardTargets, shards: Shards) -> Losses:
    """The losses of all rows: one exchange of the sums of the chunks, one of those of targets."""
    n = len(layer.x)
    # Made first, so that the freed memory of a block has the size of the next one.
    sums = t.new_empty(n, _sums.chunks_of(shards.size), _sums.SUMS)
    columns = t.new_empty(n, 7)
    for rows in layer.blocks():
        z = layer.logits(rows)
        sums[rows] = _sums.chunk_sums("loss", z, t[rows])
        top = sums[rows, :, 0].amax(-1) if shards.size else t.new_full((len(z),), -torch.inf)
        columns[rows, :6] = _target_sums(z, targets.of_rows(rows), top, shards)
        columns[rows, 6] = top
        del z
    all_sums, first = gather_sums(sums, shards)
    parts = shards.gather(columns)  # (ranks, R, 7)
    empty = layer.x.new_empty(n, 0)
    if shards.classes > _sums.CHUNK:
        totals = _sums.results("loss", empty, t, all_sums, first, shards.classes)[1]
        outside = out_of_range(totals)
    else:
        # A row of one chunk has other sums.
        totals, outside = t.new_zeros(n, 4), torch.arange(n, device=t.device)
    loss, total, spread = _combined(totals, parts, t, targets)
    if targets.label is not None:
        loss = torch.where(targets.label < 0, 0.0, loss)
    if len(outside):
        loss[outside] = _whole_losses(layer, t, targets, shards, outside)
    return Losses(loss, all_sums, first, total, spread, outside)


def _combined(
    totals: Tensor, parts: Tensor, t: Tensor, targets: ShardTargets
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The losses, the sums of the targets and b."""
    m, log_sum, log_sum_low, _ = totals.unbind(-1)
    of_label = log_sum + ((m - parts[..., 0].sum(0)) / t + log_sum_low)
    if targets.is_label_only:
        return of_label, None, None

    def cost(column: int) -> tuple[Tensor, Tensor]:
        """The sum of some weights w, and that of -w log p."""
        mass, distance, top = parts[..., column], parts[..., column + 1], parts[..., 6]
        below = torch.where(mass == 0, 0.0, mass * (m - top))
        total = mass.sum(0)
        return total, total * log_sum + (distance + below).sum(0) / t

    weight, spread_cost = cost(2)
    count = parts[..., 1].sum(0)
    spread = torch.where(count > 0, targets.smoothing / count, 0.0)
    if targets.label is not None:
        mass = torch.ones_like(m)
        if targets.class_weight is not None:
            mass = targets.class_weight[targets.label.clamp(min=0)]
        target_cost = mass * of_label
    else:
        mass, target_cost = cost(4)
    a = 1 - targets.smoothing
    loss = a * target_cost + (spread * spread_cost if targets.smoothing else 0.0)
    return loss, (a * mass + spread * weight)[:, None], spread[:, None]


def _whole_targets(targets: ShardTargets, rows: Tensor, shards: Shards) -> Any:
    """The labels or distributions of some rows, with all classes."""
    part = targets.of_rows(rows)
    return part.label if part.y is None else shards.gather_classes(part.y)


def _ordinary(function: Any, z: Tensor, y: Any, t: Tensor, targets: ShardTargets) -> Any:
    """A loss of whole rows, each by itself."""
    return function(
        z,
        y,
        temperature=t,
        weight=targets.class_weight,
        label_smoothing=targets.smoothing,
        ignore_index=-1 if targets.y is None else None,
        reduction="none",
    )


def _whole_losses(
    layer: Layer, t: Tensor, targets: ShardTargets, shards: Shards, rows: Tensor
) -> Tensor:
    parts = []
    for part in rows.split(_WHOLE_ROWS):
        z = shards.gather_classes(layer.logits(part)).double()
        y = _whole_targets(targets, part, shards)
        parts.append(_ordinary(losses.cross_entropy, z, y, t[part], targets))
    return torch.cat(parts)


def _whole_gradients(
    layer: Layer, t: Tensor, targets: ShardTargets, shards: Shards, rows: Tensor
) -> Tensor:
    """The gradients by the logits of this rank; 0 at T = 0."""
    parts = []
    for part in rows.split(_WHOLE_ROWS):
        z = shards.gather_classes(layer.logits(part)).double()
        y = _whole_targets(targets, part, shards)
        is_limit = t[part] == 0
        divisor = torch.where(is_limit, 1.0, t[part])
        gradient = _ordinary(losses.cross_entropy_and_grad, z, y, divisor, targets)[1]
        local = shards.local(torch.where(is_limit[:, None], 0.0, gradient))
        parts.append(local.to(layer.x.dtype))
    return torch.cat(parts)


def _gradient(
    z: Tensor,
    rows: slice,
    t: Tensor,
    targets: ShardTargets,
    found: Losses,
    shards: Shards,
) -> Tensor:
    """The gradient of each loss by the logits of a block of rows, times T."""
    n, first = shards.classes, found.first_chunk
    p = _sums.results("gradient", z, t[rows], found.sums[rows], first, n)[0]
    part = targets.of_rows(rows)
    label: Any = part.label
    has_label = label is not None and z.shape[1] > 0
    if has_label:
        column, is_own = (x[:, None] for x in shards.columns(label))
    if targets.is_label_only:
        if has_label:
            # p - 1 at the label, from the loss -log p.
            value = torch.expm1(-found.rows[rows]).to(p.dtype)[:, None]
            p.scatter_(1, column, torch.where(is_own, value, p.gather(1, column)))
        return p
    a, weight = 1 - targets.smoothing, _local_weight(targets, shards)
    total, spread = found.total, found.spread
    y = spread[rows] * (z > -torch.inf) * weight if targets.smoothing else z.new_zeros(z.shape)  # type: ignore[index]
    if part.y is not None:
        y = y + a * part.y * weight
    elif has_label:
        at_label = a * is_own.double()
        if targets.class_weight is not None:
            at_label = at_label * targets.class_weight[label.clamp(min=0)][:, None]
        y = y.double().scatter_add(1, column, at_label)
    return (p * total[rows] - y).to(p.dtype)  # type: ignore[index]


class RowLosses(torch.autograd.Function):  # type: ignore[misc]
    """The loss of each row, float64."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        sign: Tensor | None,
        t: Tensor,
        targets: ShardTargets,
        shards: Shards,
    ) -> Tensor:
        layer = Layer(*(None if a is None else a.detach() for a in (x, weight, bias, sign)))
        found = row_losses(layer, t, targets, shards)
        ctx.save_for_backward(x, weight, bias, sign, t)
        ctx.targets, ctx.shards, ctx.found = targets, shards, found
        return found.rows.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> Any:
        x, weight, bias, sign, t = ctx.saved_tensors
        targets, shards, found = ctx.targets, ctx.shards, ctx.found
        layer = Layer(x, weight, bias, sign)
        if targets.label is not None:
            upstream = torch.where(targets.label < 0, 0.0, upstream)
        scale = divide_by_temperature(upstream, t)[:, None]
        outside = found.outside
        whole = None
        if len(outside):
            whole = _whole_gradients(layer, t, targets, shards, outside)
        dx = torch.zeros_like(x)
        dweight: Any = None if weight is None else torch.zeros_like(weight)
        dbias = None if bias is None else torch.zeros_like(bias)
        for rows in layer.blocks():
            z = layer.logits(rows)
            if shards.classes > _sums.CHUNK:
                g = _gradient(z, rows, t, targets, found, shards)
                g *= scale[rows].to(g.dtype)
                g[scale[rows, 0] == 0] = 0.0
            else:
                g = torch.zeros_like(z)
            if whole is not None:
                inside = (outside >= rows.start) & (outside < rows.stop)
                value = whole[inside] * upstream[outside[inside], None]
                g[outside[inside] - rows.start] = value.to(g.dtype)
            if weight is None:
                dx[rows] = g
                continue
            del z
            if sign is not None:
                g *= sign[rows, None].to(g.dtype)
            dx[rows] = g @ weight
            dweight.addmm_(g.T, x[rows])
            if dbias is not None:
                dbias += g.sum(0)
        if weight is not None:
            dx = shards.sum(dx)
        return dx, dweight, dbias, None, None, None, None
