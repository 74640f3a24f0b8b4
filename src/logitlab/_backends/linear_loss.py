"""The loss of labels with linear logits, by blocks of rows: they never exist as a whole."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_writeable_array

from logitlab._arrays import any_of
from logitlab._backends.targets import Targets

_ROWS = 256
_BYTES = 1 << 26  # of a block of logits, at most
_SHARE = 12  # a block has at most this part of the rows
_CLASSES = 1024  # of which a product is added up at a time


class Gradients(NamedTuple):
    """By the arguments; None where there is none or none is wanted."""

    x: Any
    weight: Any
    bias: Any
    temperature: Any  # (N, 1)


def _steps(rows: int, classes: int, itemsize: int) -> list[slice]:
    size = min(_ROWS, _BYTES // max(1, classes * itemsize), -(-rows // _SHARE))
    size = max(16, -(-size // 4) * 4)  # BLAS is slow at odd numbers of rows
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


def _replaced(a: Any, part: slice, value: Any, xp: Any) -> Any:
    """`a` with other rows in one part: in place where it can be written to."""
    if is_writeable_array(a):
        a[part] = value
        return a
    return xp.concat([a[: part.start], value, a[part.stop :]])


def _added(a: Any, part: slice, value: Any, xp: Any) -> Any:
    """`a` with something added to one part."""
    if is_writeable_array(a):
        view = a[part]
        view += value
        return a
    return _replaced(a, part, a[part] + value, xp)


@np.errstate(all="ignore")
def linear_loss(
    x: Any,
    weight: Any,
    bias: Any,
    targets: Targets,
    t: Any,
    scale: Any,
    by_temperature: bool,
    target_loss: Callable[..., tuple[Any, Any]],
) -> tuple[Any, Gradients | None]:
    """The loss of every row, and unless `scale` is None the gradients.

    The targets are labels. T is a float, or of shape (N, 1). `target_loss` is called as that of a
    backend, on a block of logits that it may write over.
    """
    xp = array_namespace(x)
    n, k = x.shape[0], weight.shape[0]
    losses, slopes = [], []
    dx: Any = None
    dweight: Any = None
    dbias: Any = None
    if scale is not None:
        dx, dweight = xp.zeros_like(x), xp.zeros_like(weight)
        dbias = None if bias is None else xp.zeros_like(bias)
    for rows in _steps(n, k, x.dtype.itemsize):
        x_rows, here = x[rows], targets._replace(label=targets.label[rows])
        kept = here.label >= 0
        if any_of(~kept, xp):
            # What counts for nothing may hold anything.
            x_rows = xp.where(kept[:, None], x_rows, 0.0)
        z = x_rows @ weight.T
        if bias is not None:
            z += bias
        t_rows: Any = t if isinstance(t, float) else t[rows]
        s = scale if scale is None or isinstance(scale, float) else scale[rows]
        block = xp.asarray(z, copy=True) if by_temperature else z
        loss, gradient = target_loss(block, (1,), t_rows, None, here, s)
        losses.append(loss)
        if gradient is None:
            continue
        if by_temperature:
            # sum dz (m - z)/T: the gradient of a row sums to 0, from wherever z is counted.
            away = xp.max(z, axis=-1, keepdims=True) - z
            away = xp.where(gradient == 0, 0.0, away)
            slopes.append(xp.sum(gradient * away, axis=-1, keepdims=True) / t_rows)
        dx = _replaced(dx, rows, gradient @ weight, xp)
        # By tiles, so that the product to be added is small.
        for first in range(0, k, _CLASSES):
            part = slice(first, min(k, first + _CLASSES))
            dweight = _added(dweight, part, gradient[:, part].T @ x_rows, xp)
        if dbias is not None:
            dbias = dbias + xp.sum(gradient, axis=0)
        del z, block, gradient  # two blocks never exist at a time
    loss = xp.concat(losses) if losses else xp.zeros(0, dtype=x.dtype)
    if scale is None:
        return loss, None
    if by_temperature and not slopes:
        slopes = [xp.zeros((n, 1), dtype=x.dtype)]
    return loss, Gradients(dx, dweight, dbias, xp.concat(slopes) if slopes else None)
