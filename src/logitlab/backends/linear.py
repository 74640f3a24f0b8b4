"""The loss of labels with linear logits, by blocks of rows: they never exist as a whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace

_ROWS = 256
_BYTES = 1 << 26  # of a block of logits, at most
_SHARE = 13  # a block has at most this part of the rows
_CLASSES = 2048  # of which a product is added up at a time


def _steps(rows: int, classes: int, itemsize: int) -> list[slice]:
    size = min(_ROWS, _BYTES // max(1, classes * itemsize), -(-rows // _SHARE))
    size = max(size, 16)
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


def _smooth(z: Any, gradient: Any, at: Any, t: Any, scale: Any, smoothing: float, xp: Any) -> Any:
    """What label smoothing adds to the losses; its part of the gradient is added in place."""
    k = z.shape[-1]
    z_y = xp.take_along_axis(z, at[:, None], axis=-1)[:, 0]
    added = smoothing * (z_y - xp.sum(z, axis=-1) / k) / t
    if gradient is not None:
        part = xp.astype(smoothing * scale, gradient.dtype)
        gradient -= part[:, None] / k
        rows = xp.arange(z.shape[0], device=getattr(z, "device", None))
        gradient[rows, at] += part
    return added


def linear_label_loss(
    x: Any,
    weight: Any,
    bias: Any,
    label: Any,
    t: Any,
    scale: Any,
    smoothing: float,
    label_loss: Callable[..., tuple[Any, Any]],
) -> tuple[Any, Any]:
    """The loss of every row, and unless `scale` is None the gradients by x, weight and bias.

    `label_loss` is called as that of a backend, on a block of logits that it may write over.
    """
    xp = array_namespace(x)
    plain = isinstance(x, np.ndarray)
    n, k = x.shape[0], weight.shape[0]
    losses = []
    dx: Any = None
    dweight: Any = None
    dbias: Any = None
    if scale is not None:
        dx, dweight = xp.empty_like(x), xp.zeros_like(weight)
        dbias = None if bias is None else xp.zeros_like(bias)
    for rows in _steps(n, k, x.dtype.itemsize):
        z = x[rows] @ weight.T
        if bias is not None:
            z += bias
        kept = label[rows] >= 0
        at = xp.where(kept, label[rows], 0)
        t_rows = t if isinstance(t, float) else t[rows]
        t_flat = t if isinstance(t, float) else t[rows][:, 0]
        s = None if scale is None else scale[rows]
        added = 0.0
        if smoothing:
            # The logits are still needed when their gradient is there.
            loss, gradient = label_loss(
                z.copy() if plain else z, (1,), t_rows, None, label[rows], s
            )
            part = None if s is None else xp.where(kept, s, 0.0)
            added = _smooth(z, gradient, at, t_flat, part, smoothing, xp)
        else:
            loss, gradient = label_loss(z, (1,), t_rows, None, label[rows], s)
        losses.append(xp.where(kept, loss + added, 0.0))
        if gradient is None:
            continue
        dx[rows] = gradient @ weight
        # By tiles, so that the product to be added is small.
        for first in range(0, k, _CLASSES):
            classes = slice(first, first + _CLASSES)
            dweight[classes] += gradient[:, classes].T @ x[rows]
        if dbias is not None:
            dbias += xp.sum(gradient, axis=0)
    loss = xp.concat(losses) if losses else xp.zeros(0, dtype=x.dtype)
    return loss, None if scale is None else (dx, dweight, dbias)
