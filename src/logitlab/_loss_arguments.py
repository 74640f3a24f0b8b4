"""Checked arguments of a cross-entropy, and the reduction of the losses of rows."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _checks, _labels
from logitlab._arrays import Array, DType, Namespace, Shape
from logitlab._backends.targets import Targets

Reduction = Literal["mean", "sum", "none"]


class LossArguments(NamedTuple):
    """The checked arguments of a cross-entropy."""

    request: _arrays.Request
    targets: Targets
    rows: Shape  # of the losses
    weight: Array | None  # of the rows, 0 in an ignored row; None where every row has weight 1
    divisor: Array | None  # of the rows: the mean divides by its sum; None where it is `weight`
    xp: Namespace

    def without_class_axis(self, x: float | Array) -> float | Array:
        """A number, or an array that broadcasts against z, in the shape of the rows."""
        return x if isinstance(x, float) else self.xp.squeeze(x, axis=self.request.axes[0])


def check_options(label_smoothing: float, reduction: str) -> float:
    """The label smoothing, after a check of it and of the reduction."""
    _checks.choice(reduction, "reduction", ("mean", "sum", "none"))
    return _checks.real(label_smoothing, "label_smoothing", "in [0, 1]", lambda x: 0 <= x <= 1)


def check_sample_weight(
    sample_weight: Any,
    batch: Shape,
    z: Array,
    label: Array | None,
    ignore_index: Any,
    xp: Namespace,
) -> Array | None:
    """A weight for each row, 0 in an ignored row; None where every row has weight 1."""
    included = None if label is None or ignore_index is None else label >= 0
    if sample_weight is None:
        return None if included is None else xp.astype(included, _arrays.widest_float(xp, z))
    weight = _labels.row_weights(sample_weight, batch, z)
    return weight if included is None else xp.where(xp.reshape(included, batch), weight, 0.0)


def check_class_weight(weight: Any, name: str, k: int, z: Array, xp: Namespace) -> Array:
    """A weight for each class, in the widest real type."""
    weight = _arrays.like(_arrays.as_floating(weight, name), z, xp, name)
    if tuple(weight.shape) != (k,):
        raise ValueError(
            f"{name} must have shape ({k},), one weight for each class, got {tuple(weight.shape)}"
        )
    _arrays.check_nonnegative(weight, name, finite=True)
    return xp.astype(weight, _arrays.widest_float(xp, z))


def weigh_labels(
    class_weight: Array, label: Array, row_weight: Array | None, reduction: str, xp: Namespace
) -> tuple[Array, Array]:
    """The weights of the classes, and the weight of each row times that of its label.

    In a mean a common factor of the former cancels: the largest is brought to [1/2, 1).
    """
    if reduction == "mean":
        a, b = _labels.weight_scale(class_weight, xp)
        class_weight = class_weight * a * b
    known = xp.reshape(xp.where(label < 0, xp.zeros_like(label), label), (-1,))
    of_label = xp.reshape(xp.take(class_weight, known, axis=0), label.shape)
    return class_weight, of_label if row_weight is None else row_weight * of_label


def _weigh_classes(arguments: LossArguments, class_weight: Array, reduction: str) -> LossArguments:
    """The arguments with the target of each class multiplied by its weight."""
    request, targets, _, weight, divisor, xp = arguments
    if targets.label is not None:
        class_weight, divisor = weigh_labels(class_weight, targets.label, weight, reduction, xp)
        if not targets.smoothing:
            return arguments._replace(weight=divisor)
    z = _arrays.move_axis(_arrays.at_least_float32(request.z, xp), request.axes[0], -1, xp)
    where = request.where
    if where is not None:
        where = _arrays.move_axis(xp.broadcast_to(where, request.z.shape), request.axes[0], -1, xp)
    y = targets.probabilities(z, where, xp) * xp.astype(class_weight, z.dtype)
    return arguments._replace(targets=Targets(targets.label, y), divisor=divisor)


@np.errstate(all="ignore")
def check_arguments(
    z: Any,
    y: Any,
    axis: int,
    temperature: Any,
    where: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: int | Sequence[int] | None,
    reduction: str,
    weight: Any = None,
    shards: int = 1,
) -> LossArguments:
    """Check the arguments of a cross-entropy and convert them to arrays of z's library.

    The class axis of z is one of as many equal parts as there are `shards`.
    """
    smoothing = check_options(label_smoothing, reduction)
    if ignore_index is not None:
        ignore_index = _checks.integers(ignore_index, "ignore_index")
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    request = _arrays.request(z, axis, temperature, where)
    shape, class_axis = request.z.shape, request.axes[0]
    rows, k = (*shape[:class_axis], *shape[class_axis + 1 :]), shape[class_axis]
    y = _arrays.as_array(y, "y")
    dtype = _arrays.dtype_name(y.dtype)
    if tuple(y.shape) == tuple(z.shape) and dtype.startswith(("float", "bfloat")):
        y = _arrays.like(y, z, xp, "y")
        _arrays.check_nonnegative(y, "y")
        if ignore_index is not None:
            raise ValueError(
                f"ignore_index must be None for target probabilities, got {ignore_index[0]}"
            )
        distribution = _arrays.move_axis(xp.reshape(y, shape), class_axis, -1, xp)
        targets = Targets(distribution=distribution, smoothing=smoothing)
    else:
        alternative = ", or target probabilities of z's shape"
        label = _labels.labels(y, z, rows, k * shards, ignore_index, alternative)
        targets = Targets(label, smoothing=smoothing)
    row_weight = check_sample_weight(sample_weight, rows, z, targets.label, ignore_index, xp)
    arguments = LossArguments(request, targets, rows, row_weight, None, xp)
    if weight is None:
        return arguments
    class_weight = check_class_weight(weight, "weight", k, z, xp)
    return _weigh_classes(arguments, class_weight, reduction)


def _scale_weights(
    weight: Array | None, divisor: Array | None, rows: Shape, xp: Namespace
) -> tuple[Array | None, float | Array]:
    """The weights of the rows, and what the mean divides their sum by: of any common factor."""
    if divisor is None:
        if weight is None:
            return None, math.prod(rows)
        divisor = weight
    a, b = _labels.weight_scale(divisor, xp)
    total = xp.sum(divisor * a * b)
    return (xp.ones_like(divisor) if weight is None else weight) * a * b, total


def reduce_losses(
    loss: Array,
    weight: Array | None,
    reduction: str,
    dtype: DType,
    xp: Namespace,
    divisor: Array | None = None,
) -> Array:
    """The weighted losses of the rows, their sum or their weighted mean."""
    dtype = _arrays.native_type(dtype)
    total_weight: float | Array = 1
    if reduction == "mean":
        weight, total_weight = _scale_weights(weight, divisor, loss.shape, xp)
    # A row of weight 0 is left out, even if its loss is infinite or NaN.
    weighted = loss if weight is None else xp.where(weight == 0, 0.0, weight * loss)
    if reduction == "none":
        return xp.astype(weighted, dtype, copy=False)
    total = xp.sum(weighted)
    if reduction == "mean":
        if _arrays.any_of(xp.isinf(total), xp):  # their mean may be in range
            unit = 2.0 ** -math.prod(loss.shape).bit_length()
            total = xp.sum(weighted * unit) / total_weight / unit
        else:
            total = total / total_weight
    return xp.astype(total, dtype, copy=False)


def reduce_rows(arguments: LossArguments, loss: Array, reduction: str) -> Array:
    """The losses of the rows as :func:`reduce_losses` returns them, in the type of z."""
    dtype = arguments.request.z.dtype
    return reduce_losses(loss, arguments.weight, reduction, dtype, arguments.xp, arguments.divisor)


def row_shares(
    weight: Array | None,
    rows: Shape,
    reduction: str,
    xp: Namespace,
    divisor: Array | None = None,
) -> float | Array:
    """The factor of each row's loss in the reduced loss: one number for all, or one for each."""
    if reduction != "mean":
        return 1.0 if weight is None else weight
    weight, total = _scale_weights(weight, divisor, rows, xp)
    if weight is None:
        return 1 / total if total else math.nan
    return weight / total
