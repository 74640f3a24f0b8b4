"""Cross-entropy of a linear layer, without an array of its logits."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _dispatch
from logitlab._arrays import Array, DType, Namespace
from logitlab._backends.targets import Targets
from logitlab.losses import (
    Reduction,
    check_options,
    check_sample_weight,
    reduce_losses,
    row_shares,
)


class LinearLossArguments(NamedTuple):
    """The checked arguments of a linear cross-entropy; x, weight and bias in at least float32."""

    x: Array
    weight: Array
    bias: Array | None
    targets: Targets  # labels
    temperature: float | Array  # an array has the shape (N, 1)
    row_weight: Array | None  # None where every row has weight 1
    dtype: DType  # of the result
    xp: Namespace


def _as_native_floating(x: Any, name: str) -> Array:
    """`x` as a floating array in the byte order of the machine."""
    x = _arrays.as_floating(x, name)
    return x.astype(_arrays.native_type(x.dtype), copy=False) if isinstance(x, np.ndarray) else x


def _check_matrix(x: Any, name: str) -> Array:
    x = _as_native_floating(x, name)
    if x.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions, got {x.ndim}")
    return x


@np.errstate(all="ignore")
def check_arguments(
    x: Any,
    weight: Any,
    y: Any,
    bias: Any,
    temperature: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: int | None,
    reduction: str,
) -> LinearLossArguments:
    """Check the arguments of a linear cross-entropy and convert them to arrays of x's library."""
    smoothing = check_options(label_smoothing, reduction)
    x = _check_matrix(x, "x")
    xp = array_namespace(x)
    weight = _arrays.like(_check_matrix(weight, "weight"), x, xp, "weight")
    (n, d), (k, columns) = x.shape, weight.shape
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
    t = _arrays.request(x, 1, temperature, None).temperature
    if not isinstance(t, float):
        t = xp.broadcast_to(t, (n, 1))
    y = _arrays.like(_arrays.as_array(y, "y"), x, xp, "y")
    label = _arrays.labels(y, (n,), k, ignore_index, xp)
    row_weight = check_sample_weight(sample_weight, (n,), x, label, ignore_index, xp)
    dtype = x.dtype
    x, weight = _arrays.at_least_float32(x, xp), _arrays.at_least_float32(weight, xp)
    bias = None if bias is None else _arrays.at_least_float32(bias, xp)
    targets = Targets(label, smoothing=smoothing)
    return LinearLossArguments(x, weight, bias, targets, t, row_weight, dtype, xp)


@np.errstate(all="ignore")
def _loss_and_gradients(
    arguments: LinearLossArguments,
    reduction: str,
    upstream: float | Array | None,
    by_temperature: bool = False,
) -> tuple[Array, Any]:
    """The reduced loss, and unless `upstream` is None its gradients times that."""
    x, weight, bias, targets, t, row_weight, dtype, xp = arguments
    scale: Any = None
    if upstream is not None:
        shares = row_shares(row_weight, x.shape[:1], reduction, xp)
        scale = shares / (t if isinstance(t, float) else t[:, 0]) * upstream
        if hasattr(scale, "shape"):
            scale = xp.broadcast_to(scale, x.shape[:1])
    loss, gradients = _dispatch.backend(x).linear_loss(
        x, weight, bias, targets, t, scale, by_temperature
    )
    value = reduce_losses(loss, row_weight, reduction, dtype, xp)
    if gradients is not None:
        gradients = tuple(g if g is None else xp.astype(g, dtype, copy=False) for g in gradients)
    return value, gradients


@np.errstate(all="ignore")
def loss_value(arguments: LinearLossArguments, reduction: str) -> Array:
    """The reduced loss."""
    x, weight, bias, targets, t, row_weight, dtype, xp = arguments
    fused_loss = _dispatch.fused_loss(x, "reduced_linear_loss")
    if fused_loss is not None and reduction != "none":
        shares = row_shares(row_weight, x.shape[:1], reduction, xp)
        value = fused_loss(x, weight, bias, targets, t, shares)
        if value is not None:
            return xp.astype(value, dtype, copy=False)
    return _loss_and_gradients(arguments, reduction, None)[0]


def loss_gradients(
    arguments: LinearLossArguments, reduction: str, upstream: Array, by_temperature: bool
) -> Any:
    """The gradients by x, weight, bias and, if `by_temperature`, by the T of each row, (N, 1)."""
    return _loss_and_gradients(arguments, reduction, upstream, by_temperature)[1]


def linear_cross_entropy(
    x: Any,
    weight: Any,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy of labels and the logits :math:`z = x\,W^\top + b`, which are not stored.

    The logits are computed by blocks of rows: the memory used is a small part of that of all
    N x K logits.

    Parameters
    ----------
    x : array, shape (N, D)
        Inputs of the layer.
    weight : array, shape (K, D)
        One row for each class; of the library and the type of x.
    y : array of int, shape (N,)
        Labels, 0 to K - 1.
    bias : array, shape (K,), optional
        Added to the logits.
    temperature : float or array, shape (N,)
        T, as in :func:`logitlab.softmax`.
    label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`logitlab.cross_entropy`.

    Returns
    -------
    array
        0-d, or with "none" of shape (N,); in nats, in x's type. A tensor is differentiable.

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
    if (compiled := _dispatch.compiled_functions(x)) is not None:
        return compiled.linear_cross_entropy(
            x,
            weight,
            y,
            bias,
            temperature,
            label_smoothing,
            sample_weight,
            ignore_index,
            reduction,
        )
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
    )
    return loss_value(arguments, reduction)


def linear_cross_entropy_and_grad(
    x: Any,
    weight: Any,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, tuple[Any, Any, Any]]:
    r"""The loss of :func:`linear_cross_entropy` and its gradients, computed together.

    With :math:`G = \partial L/\partial z` as in :func:`logitlab.cross_entropy_and_grad`, the
    gradient is :math:`G W` by x, :math:`G^\top x` by weight and the sum of the rows of G by bias.

    Parameters
    ----------
    x, weight, y, bias, temperature, label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`linear_cross_entropy`; T is not 0. With "none" the gradients are those of the
        sum of the losses.

    Returns
    -------
    loss : array
        As :func:`linear_cross_entropy`.
    gradients : tuple of array
        By x, (N, D); by weight, (K, D); by bias, (K,), or None without one.

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
    )
    _arrays.check_differentiable(arguments.temperature, arguments.xp)
    loss, gradients = _loss_and_gradients(arguments, reduction, 1.0)
    return loss, gradients[:3]
