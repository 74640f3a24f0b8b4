"""The functions of Dask arrays: the kernels on each chunk, with all classes of a row in one chunk.

A call over several axes, or with gradients, uses the formulas of the reference.
"""

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np

from logitlab._arrays import Array, Axes, native_type
from logitlab._backends import native, reference
from logitlab._backends.reference import (
    centred,
    hessian_product,
    jacobian,
    jacobian_product,
    linear_loss,
    logits,
    one_minus,
    signed_logsumexp,
)
from logitlab._backends.targets import Targets

__all__ = [
    "centred",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "linear_loss",
    "log_softmax",
    "logits",
    "logsumexp",
    "one_minus",
    "signed_logsumexp",
    "softmax",
    "target_loss",
]


def _are_covered(z: Array, axes: Axes, out: Any = None) -> bool:
    return len(axes) == 1 and out is None and isinstance(z._meta, np.ndarray)


def _map_chunks(
    function: Callable[..., Any],
    z: Array,
    axes: Axes,
    others: Sequence[Any],
    dtype: Any,
    *,
    drops_classes: bool = False,
) -> Any:
    """function(axes, *chunks) of the chunks of z and of what broadcasts against it: arrays, numbers
    or None. With `drops_classes`, it returns one number for each row, on an axis of length 1.
    """
    axis = axes[0]
    operands: list[Any] = []
    for x in (z, *others):
        if not isinstance(x, da.Array):
            operands += [x, None]
            continue
        first = z.ndim - x.ndim
        x = x.rechunk({axis - first: -1}) if axis >= first else x
        operands += [x, tuple(range(first, z.ndim))]
    return da.blockwise(
        function,
        tuple(range(z.ndim)),
        axes,
        None,
        *operands,
        adjust_chunks={axis: 1} if drops_classes else None,
        dtype=dtype,
        meta=np.empty((0,) * z.ndim, dtype),
    )


def _softmax(axes: Axes, z: Any, t: Any, where: Any) -> Any:
    return native.softmax(z, axes, t, where, None)


def _log_softmax(axes: Axes, z: Any, t: Any, where: Any) -> Any:
    return native.log_softmax(z, axes, t, where, None)


def _logsumexp(axes: Axes, z: Any, t: Any, where: Any) -> Any:
    return native.logsumexp(z, axes, t, where, True)


def _label_loss(axes: Axes, z: Any, t: Any, where: Any, label: Any, smoothing: float) -> Any:
    targets = Targets(np.squeeze(label, axes[0]), smoothing=smoothing)
    loss, _ = native.target_loss(z, axes, t, where, targets, None)
    return np.expand_dims(loss, axes[0]).astype(np.float64)


def softmax(z: Array, axis: Axes, temperature: Any, where: Any, out: Any) -> Array:
    if not _are_covered(z, axis, out):
        return reference.softmax(z, axis, temperature, where, out)
    return _map_chunks(_softmax, z, axis, (temperature, where), native_type(z.dtype))


def log_softmax(z: Array, axis: Axes, temperature: Any, where: Any, out: Any) -> Array:
    if not _are_covered(z, axis, out):
        return reference.log_softmax(z, axis, temperature, where, out)
    return _map_chunks(_log_softmax, z, axis, (temperature, where), native_type(z.dtype))


def logsumexp(z: Array, axis: Axes, temperature: Any, where: Any, keepdims: bool) -> Array:
    if not _are_covered(z, axis):
        return reference.logsumexp(z, axis, temperature, where, keepdims)
    result = _map_chunks(
        _logsumexp, z, axis, (temperature, where), native_type(z.dtype), drops_classes=True
    )
    return result if keepdims else da.squeeze(result, axis=axis[0])


def target_loss(
    z: Array, axis: Axes, temperature: Any, where: Any, targets: Targets, scale: Any
) -> tuple[Array, Array | None]:
    label, distribution, smoothing, *_ = targets
    if distribution is not None or scale is not None or not _are_covered(z, axis):
        return reference.target_loss(z, axis, temperature, where, targets, scale)
    others = temperature, where, da.expand_dims(label, axis[0]), smoothing
    result = _map_chunks(_label_loss, z, axis, others, np.dtype(np.float64), drops_classes=True)
    return da.squeeze(result, axis=axis[0]), None
