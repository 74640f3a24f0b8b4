"""Cross-entropy of a linear layer, without an array of its logits."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _dispatch, _labels
from logitlab._arrays import Array, DType, Namespace, Shape
from logitlab._backends.targets import Targets
from logitlab._loss_arguments import (
    Reduction,
    check_class_weight,
    check_options,
    check_sample_weight,
    reduce_losses,
    row_shares,
    weigh_labels,
)
from logitlab.support import Support, kept_classes


class LinearLossArguments(NamedTuple):
    """The checked arguments of a linear cross-entropy; x, weight and bias in at least float32."""

    x: Array  # (N, D)
    weight: Array
    bias: Array | None
    targets: Targets  # labels
    temperature: float | Array  # an array has the shape (N, 1)
    row_weight: Array | None  # None where every row has weight 1
    divisor: Array | None  # of the rows: the mean divides by its sum; None where it is the weight
    batch: Shape  # of the labels, N in total
    dtype: DType  # of the result
    xp: Namespace


def _as_native_floating(x: Any, name: str) -> Array:
    """`x` as a floating array in the byte order of the machine."""
    x = _arrays.as_floating(x, name)
    return x.astype(_arrays.native_type(x.dtype), copy=False) if isinstance(x, np.ndarray) else x


@np.errstate(all="ignore")
def check_arguments(
    x: Any,
    weight: Any,
    y: Any,
    bias: Any,
    temperature: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: int | Sequence[int] | None,
    reduction: str,
    class_weight: Any = None,
    support: Support | None = None,
) -> LinearLossArguments:
    """Check the arguments of a linear cross-entropy and convert them to arrays of x's library."""
    smoothing = check_options(label_smoothing, reduction)
    x, weight = _as_native_floating(x, "x"), _as_native_floating(weight, "weight")
    if not x.ndim:
        raise ValueError("x must have at least 1 dimension, got 0")
    if weight.ndim != 2:
        raise ValueError(f"weight must have 2 dimensions, got {weight.ndim}")
    xp = array_namespace(x)
    weight = _arrays.like(weight, x, xp, "weight")
    (*leading, d), (k, columns) = x.shape, weight.shape
    batch, n = tuple(leading), math.prod(leading)
    if columns != d:
        raise ValueError(
            f"weight must have shape (K, {d}), as x has {d} columns, got {(k, columns)}"
        )
    if bias is not None:
        bias = _arrays.like(_as_native_floating(bias, "bias"), x, xp, "bias")
        if tuple(bias.shape) != (k,):
            raise ValueError(
                f"bias must have shape ({k},), one for each class, got {tuple(bias.shape)}"
            )
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != x.dtype:
            raise TypeError(
                f"{name} must have the type of x, {_arrays.dtype_name(x.dtype)}, "
                f"got {_arrays.dtype_name(other.dtype)}"
            )
    t = _arrays.request(x, -1, temperature, None).temperature
    if not isinstance(t, float):
        t = xp.reshape(xp.broadcast_to(t, (*batch, 1)), (n, 1))
    label = xp.reshape(_labels.labels(y, x, batch, k, ignore_index), (n,))
    row_weight = check_sample_weight(sample_weight, batch, x, label, ignore_index, xp)
    row_weight = row_weight if row_weight is None else xp.reshape(row_weight, (n,))
    kept = None if support is None else kept_classes(x, batch, k, support)
    targets, divisor = Targets(label, smoothing=smoothing, kept=kept), None
    if class_weight is not None:
        class_weight = check_class_weight(class_weight, "class_weight", k, x, xp)
        class_weight, of_label = weigh_labels(class_weight, label, row_weight, reduction, xp)
        if not smoothing:
            row_weight = of_label
        else:
            targets, divisor = targets._replace(class_weight=class_weight), of_label
    dtype = x.dtype
    x = xp.reshape(_arrays.at_least_float32(x, xp), (n, d))
    weight = _arrays.at_least_float32(weight, xp)
    bias = None if bias is None else _arrays.at_least_float32(bias, xp)
    return LinearLossArguments(x, weight, bias, targets, t, row_weight, divisor, batch, dtype, xp)


@np.errstate(all="ignore")
def _loss_and_gradients(
    arguments: LinearLossArguments, reduction: str, upstream: Any, by_temperature: bool = False
) -> tuple[Array, Any]:
    """The reduced loss, and unless `upstream` is None its gradients times that."""
    x, weight, bias, targets, t, row_weight, divisor, batch, dtype, xp = arguments
    n = x.shape[0]
    scale: Any = None
    if upstream is not None:
        if reduction == "none" and hasattr(upstream, "shape"):
            upstream = xp.reshape(upstream, (n,))
        shares = row_shares(row_weight, (n,), reduction, xp, divisor)
        scale = shares / (t if isinstance(t, float) else t[:, 0]) * upstream
        if hasattr(scale, "shape"):
            scale = xp.broadcast_to(scale, (n,))
    loss, gradients = _dispatch.backend(x).linear_loss(
        x, weight, bias, targets, t, scale, by_temperature
    )
    value = reduce_losses(loss, row_weight, reduction, dtype, xp, divisor)
    if reduction == "none":
        value = xp.reshape(value, batch)
    if gradients is not None:
        gradients = [g if g is None else xp.astype(g, dtype, copy=False) for g in gradients]
        gradients[0] = xp.reshape(gradients[0], (*batch, x.shape[1]))
    return value, gradients


@np.errstate(all="ignore")
def loss_value(arguments: LinearLossArguments, reduction: str) -> Array:
    """The reduced loss."""
    x, weight, bias, targets, t, row_weight, divisor, _, dtype, xp = arguments
    fused_loss = _dispatch.fused_loss(x, "reduced_linear_loss")
    if fused_loss is not None and reduction != "none":
        shares = row_shares(row_weight, x.shape[:1], reduction, xp, divisor)
        value = fused_loss(x, weight, bias, targets, t, shares)
        if value is not None:
            return xp.astype(value, dtype, copy=False)
    return _loss_and_gradients(arguments, reduction, None)[0]


def loss_gradients(
    arguments: LinearLossArguments, reduction: str, upstream: Array, by_temperature: bool
) -> Any:
    """The gradients by x, weight, bias and, if `by_temperature`, by the T of each row, (N, 1)."""
    return _loss_and_gradients(arguments, reduction, upstream, by_temperature)[1]


def _autocast(*arrays: Any) -> list[Any]:
    """Under torch.autocast half types beside float32, as of a layer, are computed in float32."""
    return [_dispatch.autocast("linear_cross_entropy", x) for x in arrays]


def linear_cross_entropy(
    x: Any,
    weight: Any,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    support: Support | None = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy of labels and the logits :math:`z = x\,W^\top + b`, computed by blocks.

    The logits are computed by blocks of at most 256 rows and 64 MiB (16 rows at least).

    Parameters
    ----------
    x : array, shape (..., D)
        Inputs of the layer: N rows of any batch shape.
    weight : array, shape (K, D)
        One row for each class; of the library and the type of x.
    y : array of int, shape of x without the last axis
        Labels, 0 to K - 1.
    bias : array, shape (K,), optional
        Added to the logits.
    temperature : float or array
        T: a scalar, or one for each row, as in :func:`logitlab.softmax`.
    support : Support, optional
        The classes of each row that a truncation kept, as in :func:`logitlab.cross_entropy`. A
        block of rows reads only the rows of `weight` that one of them keeps.
    class_weight : array, shape (K,), optional
        Weight of each class, finite and >= 0: the target of a class is multiplied by it, and "mean"
        divides by the sum of the weights of the labels, as in :class:`torch.nn.CrossEntropyLoss`.
    label_smoothing, sample_weight
        As in :func:`logitlab.cross_entropy`.
    ignore_index : int or sequence of int, optional
        Rows with this label, or with one of these, are ignored.
    reduction
        As in :func:`logitlab.cross_entropy`.

    Returns
    -------
    array
        0-d, or with "none" of the shape of y; in nats, in x's type. A tensor is differentiable.
        Under :class:`torch.autocast` x, weight and bias may be of float32 and half types, and the
        loss is of float32.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.cross_entropy`; shapes or types that do not fit together.

    References
    ----------
    E. Wijmans et al., "Cut your losses in large-vocabulary language models", ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> x, weight = np.eye(2), np.array([[2.0, 0.0], [0.0, 2.0]])
    >>> float(logitlab.linear_cross_entropy(x, weight, [0, 1]).round(4))
    0.1269
    """
    sharded = _dispatch.sharded("linear_cross_entropy", weight, 0)
    if sharded is not None and support is None:
        return sharded(
            x,
            weight,
            y,
            bias=bias,
            temperature=temperature,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            reduction=reduction,
        )
    x, weight, bias = _autocast(x, weight, bias)
    arguments = (
        x,
        weight,
        y,
        bias,
        temperature,
        label_smoothing,
        sample_weight,
        ignore_index,
        reduction,
        class_weight,
        support,
    )
    if (compiled := _dispatch.compiled_functions(x)) is not None:
        return compiled.linear_cross_entropy(*arguments)
    return loss_value(check_arguments(*arguments), reduction)


def linear_cross_entropy_and_grad(
    x: Any,
    weight: Any,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    support: Support | None = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, tuple[Any, Any, Any]]:
    r"""The loss of :func:`linear_cross_entropy` and its gradients, computed together.

    With :math:`G = \partial L/\partial z` as in :func:`logitlab.cross_entropy_and_grad`, the
    gradient is :math:`G W` by x, :math:`G^\top x` by weight and the sum of the rows of G by bias.

    Parameters
    ----------
    x, weight, y, bias
        As in :func:`linear_cross_entropy`.
    temperature
        As in :func:`linear_cross_entropy`, not 0.
    support, class_weight, label_smoothing, sample_weight, ignore_index
        As in :func:`linear_cross_entropy`.
    reduction
        As in :func:`linear_cross_entropy`. With "none" the gradients are those of the sum of the
        losses.

    Returns
    -------
    loss : array
        As :func:`linear_cross_entropy`.
    gradients : tuple of array
        By x, of its shape; by weight, (K, D); by bias, (K,), or None without one.

    Raises
    ------
    TypeError, ValueError
        As :func:`linear_cross_entropy`; a temperature of 0.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> x, weight = np.eye(2), np.zeros((2, 2))
    >>> loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(x, weight, [0, 1])
    >>> dweight
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    given = x, weight, bias
    x, weight, bias = _autocast(*given)
    arguments = check_arguments(
        x,
        weight,
        y,
        bias,
        temperature,
        label_smoothing,
        sample_weight,
        ignore_index,
        reduction,
        class_weight,
        support,
    )
    _arrays.check_differentiable(arguments.temperature, arguments.xp)
    loss, gradients = _loss_and_gradients(arguments, reduction, 1.0)
    dx, dweight, dbias = (
        g if a is b else g.to(a.dtype)
        for g, a, b in zip(gradients[:3], given, (x, weight, bias), strict=True)
    )
    return loss, (dx, dweight, dbias)
