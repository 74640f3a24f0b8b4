"""cross_entropy and linear_cross_entropy of classes that are sharded, and their arguments."""

from collections.abc import Sequence
from typing import Any

import torch
from array_api_compat import array_namespace
from torch import Tensor

from logitlab import _arrays, _checks, _labels
from logitlab._loss_arguments import (
    Reduction,
    check_class_weight,
    check_options,
    check_sample_weight,
    reduce_losses,
    weigh_labels,
)
from logitlab.parallel._group import Shards, agreed, digest, shape_of, shards_of
from logitlab.parallel._losses import RowLosses, ShardTargets
from logitlab.parallel._rows import (
    check_request,
    check_tensor,
    describe,
    own_classes,
    row_temperatures,
    shard_rows,
    wide,
)


def _is_distribution(y: Any, z: Tensor) -> bool:
    """Whether y has the target probabilities of the classes of this rank."""
    return isinstance(y, Tensor) and y.is_floating_point() and tuple(y.shape) == tuple(z.shape)


def _settings(label_smoothing: Any, ignore_index: Any, reduction: Any, **weights: Any) -> Any:
    smoothing = check_options(label_smoothing, reduction)
    ignored = None if ignore_index is None else _checks.integers(ignore_index, "ignore_index")
    texts = {name: digest(weight) for name, weight in weights.items()}
    texts |= {"label_smoothing": repr(smoothing), "ignore_index": repr(ignored)}
    return smoothing, texts | {"reduction": reduction}


def _reduced(
    inputs: tuple[Any, ...],
    t: Tensor,
    y: Any,
    batch: tuple[int, ...],
    shards: Shards,
    smoothing: float,
    weights: tuple[str, Any, Any],
    ignore_index: Any,
    reduction: str,
    dtype: torch.dtype,
) -> Tensor:
    """The reduced loss; y is labels, or the distributions of rows with the classes last."""
    x = inputs[0]
    xp = array_namespace(x)
    name, class_weight, sample_weight = weights
    label = None
    if not (isinstance(y, Tensor) and y.is_floating_point()):
        label = _labels.labels(y, x, batch, shards.classes, ignore_index)
    row_weight = check_sample_weight(sample_weight, batch, x, label, ignore_index, xp)
    divisor = None
    if class_weight is not None:
        class_weight = check_class_weight(class_weight, name, shards.classes, x, xp)
        if label is not None:
            weighed = weigh_labels(class_weight, label, row_weight, reduction, xp)
            class_weight, divisor = weighed
            if not smoothing:
                class_weight, row_weight, divisor = None, divisor, None
    flat = None if label is None else label.reshape(-1)
    targets = ShardTargets(flat, None if label is not None else y, smoothing, class_weight)
    loss = RowLosses.apply(*inputs, t, targets, shards).view(batch)
    result: Tensor = reduce_losses(loss, row_weight, reduction, dtype, xp, divisor)
    return result


def cross_entropy(
    z: Tensor,
    y: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    weight: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
    group: Any = None,
) -> Tensor:
    """Cross-entropy of logits whose classes are sharded, the same on all ranks.

    Parameters
    ----------
    z : Tensor, shape (..., K of this rank, ...)
        The logits of the classes of this rank, as in :func:`logitlab.parallel.softmax`.
    y : array of int, or Tensor of float with the shape of z
        Labels of all classes, the same on all ranks; or the target probabilities of the classes of
        this rank.
    axis, temperature, where
        As in :func:`logitlab.parallel.softmax`.
    weight : array, shape (K,), optional
        Weight of each of all classes, finite and >= 0; the same on all ranks.
    label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`logitlab.cross_entropy`; the same on all ranks.
    group : torch.distributed.ProcessGroup, optional
        The ranks; by default, all.

    Returns
    -------
    Tensor
        As of :func:`logitlab.cross_entropy` of all classes; gradients as in
        :func:`logitlab.parallel.logsumexp`.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.cross_entropy` and :func:`logitlab.parallel.softmax`.
    """

    def check() -> Any:
        request = check_request(z, axis, temperature, where)
        is_soft = _is_distribution(y, request.z)
        if is_soft:
            _arrays.check_nonnegative(y, "y")
            if ignore_index is not None:
                raise ValueError("ignore_index must be None for target probabilities")
        smoothing, settings = _settings(
            label_smoothing, ignore_index, reduction, weight=weight, sample_weight=sample_weight
        )
        common = describe("cross_entropy", request) | settings
        common["y"] = shape_of(y, request.axes[0]) if is_soft else digest(y)
        return (request, smoothing, is_soft), common, own_classes(request)

    (request, smoothing, is_soft), ranks = agreed(group, check)
    shards = shards_of(group, ranks)
    rows = shard_rows(request, shards)
    targets = y
    if is_soft:
        targets = y.detach().movedim(request.axes[0], -1).reshape(rows.z.shape).double()
    return _reduced(
        (wide(rows.z), None, None, None),
        rows.t,
        targets,
        rows.batch,
        shards,
        smoothing,
        ("weight", weight, sample_weight),
        ignore_index,
        reduction,
        request.z.dtype,
    )


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
    group: Any = None,
) -> Tensor:
    r"""Cross-entropy of the logits :math:`z = x\,W^\top + b` with the rows of W sharded.

    The logits are computed by blocks of at most 256 rows and 16 MiB (16 rows at least), once
    more in the backward pass.

    Parameters
    ----------
    x : Tensor, shape (..., D)
        Inputs of the layer, the same on all ranks.
    weight : Tensor, shape (K of this rank, D)
        The rows of the classes of this rank, in the type of x.
    y : array of int, shape of x without the last axis
        Labels of all classes, the same on all ranks.
    bias : Tensor, shape (K of this rank,), optional
        Added to the logits.
    temperature : float or array
        T: a scalar, or one for each row.
    class_weight : array, shape (K,), optional
        Weight of each of all classes, as in :func:`logitlab.linear_cross_entropy`.
    label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`logitlab.cross_entropy`; the same on all ranks.
    group : torch.distributed.ProcessGroup, optional
        The ranks; by default, all.

    Returns
    -------
    Tensor
        As of :func:`logitlab.linear_cross_entropy` of all classes, the same on all ranks. The
        gradient by x is that of all classes on every rank, those by weight and bias are of the
        classes of this rank; for the upstream gradient of the rank itself, which must be the same
        on all ranks.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.linear_cross_entropy` and :func:`logitlab.parallel.softmax`.
    """

    def check() -> Any:
        for name, a in (("x", x), ("weight", weight), ("bias", bias)):
            if a is not None:
                _arrays.as_floating(check_tensor(a, name), name)
                if a.dtype != x.dtype:
                    raise TypeError(
                        f"{name} must have the type of x, {_arrays.dtype_name(x.dtype)}, "
                        f"got {_arrays.dtype_name(a.dtype)}"
                    )
        if weight.ndim != 2 or not x.ndim or weight.shape[1] != x.shape[-1]:
            raise ValueError(
                f"weight must have shape (K, {x.shape[-1] if x.ndim else 'D'}), as x has the shape "
                f"{tuple(x.shape)}, got {tuple(weight.shape)}"
            )
        if bias is not None and tuple(bias.shape) != (len(weight),):
            raise ValueError(f"bias must have shape ({len(weight)},), got {tuple(bias.shape)}")
        request = check_request(x, -1, temperature, None)
        smoothing, settings = _settings(
            label_smoothing,
            ignore_index,
            reduction,
            class_weight=class_weight,
            sample_weight=sample_weight,
        )
        common = describe("linear_cross_entropy", request, y=y) | settings
        common |= {"x": shape_of(x), "bias": repr(bias is not None)}
        return (request, smoothing), common, {"classes": str(len(weight))}

    (request, smoothing), ranks = agreed(group, check)
    batch = tuple(x.shape[:-1])
    t = row_temperatures(request.temperature, x, batch, x.ndim - 1)
    sign = torch.where(t < 0, -1.0, 1.0) if bool((t < 0).any()) else None
    rows = wide(x.reshape(t.numel(), x.shape[-1]))
    inputs = (rows, wide(weight), None if bias is None else wide(bias), sign)
    return _reduced(
        inputs,
        t.abs(),
        y,
        batch,
        shards_of(group, ranks),
        smoothing,
        ("class_weight", class_weight, sample_weight),
        ignore_index,
        reduction,
        x.dtype,
    )
