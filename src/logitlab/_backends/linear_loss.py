"""The loss of labels with the logits of a linear layer, which are computed by blocks of rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_dask_array, is_writeable_array

from logitlab import _tracing
from logitlab._arrays import Array, Namespace, any_of, like
from logitlab._backends.targets import Targets

# Of a block of logits, at most. Each block reads and writes the gradient by the weight once.
_BLOCK_ROWS = 256
_BLOCK_BYTES = 1 << 26
_TILE_CLASSES = 1024  # of a product that is added to the gradient by the weight
_PRODUCT_SIZE = 1 << 32  # multiplications of one NumPy product, between which signals are answered


class Gradients(NamedTuple):
    """The gradients by the arguments; None for an argument that is None or not differentiated."""

    x: Array
    weight: Array
    bias: Array | None
    temperature: Array | None  # (N, 1)


def _slices(n: int, size: int) -> list[slice]:
    """Slices of at most `size`; a single one of a number that a trace of torch keeps symbolic."""
    if not isinstance(n, int):
        return [slice(0, n)]
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _row_blocks(rows: int, classes: int, itemsize: int) -> list[slice]:
    size = min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, classes * itemsize))
    size = max(16, -(-size // 4) * 4)  # BLAS is slow at odd numbers of rows
    return _slices(rows, size)


def _product(a: Array, b: Array) -> Array:
    """a @ b, where it is long by tiles of columns."""
    if not isinstance(a, np.ndarray):
        return a @ b
    size = a.shape[0] * a.shape[1] * b.shape[1]
    if size <= _PRODUCT_SIZE:
        return a @ b
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    step = max(1, b.shape[1] * _PRODUCT_SIZE // size)
    for first in range(0, b.shape[1], step):
        columns = slice(first, first + step)
        np.matmul(a, b[:, columns], out=out[:, columns])
    return out


def _replace_rows(a: Array, rows: slice, value: Array, in_place: bool, xp: Namespace) -> Array:
    """`a` with some rows replaced."""
    if in_place:
        a[rows, ...] = value
        return a
    return xp.concat([a[: rows.start, ...], value, a[rows.stop :, ...]])


def _add_to_rows(
    a: Array, rows: slice | Array, value: Array, in_place: bool, xp: Namespace
) -> Array:
    """`a` with a value added to some rows; their numbers, in place only, are distinct."""
    if not isinstance(rows, slice):
        a[rows, ...] += value
        return a
    if in_place:
        view = a[rows, ...]
        view += value
        return a
    return _replace_rows(a, rows, a[rows, ...] + value, False, xp)


class _Layer(NamedTuple):
    """The part of the layer that a block of rows uses."""

    weight: Array
    bias: Array | None
    targets: Targets
    classes: Array | None = None  # their numbers; None for all
    mask: Array | None = None  # (rows, classes): False at the excluded ones

    def rows_of_tile(self, tile: slice) -> slice | Array:
        """The rows of the whole weight that a slice of these classes stands for."""
        return tile if self.classes is None else self.classes[tile]


def _kept_part(layer: _Layer, rows: slice, in_place: bool, xp: Namespace) -> _Layer:
    """The classes that some of these rows keep, or all if they are many, and their mask."""
    weight, bias, targets, *_ = layer
    k = weight.shape[0]
    label: Any = targets.label
    all_kept: Any = targets.kept
    kept = all_kept.of_rows(rows)
    if array_namespace(kept.indices) is not xp:  # NumPy's, for a library that cannot gather them
        return layer._replace(mask=like(kept.mask(k), weight, xp, "support"))
    if not in_place:
        return layer._replace(mask=kept.mask(k))
    present = xp.zeros(k, dtype=xp.bool, device=getattr(weight, "device", None))
    present[kept.indices] = True
    present[label[label >= 0]] = True
    (classes,) = xp.nonzero(present)
    if 2 * classes.shape[0] > k:
        return layer._replace(mask=kept.mask(k))
    number = xp.cumulative_sum(xp.astype(present, xp.int64)) - 1
    class_weight = targets.class_weight
    return _Layer(
        weight[classes, ...],
        None if bias is None else bias[classes],
        targets._replace(
            label=xp.where(label < 0, label, number[label]),
            class_weight=None if class_weight is None else class_weight[classes],
        ),
        classes,
        kept._replace(indices=number[kept.indices]).mask(classes.shape[0]),
    )


@np.errstate(all="ignore")
def linear_loss(
    x: Array,
    weight: Array,
    bias: Array | None,
    targets: Targets,
    t: float | Array,
    scale: float | Array | None,
    by_temperature: bool,
    target_loss: Callable[..., tuple[Array, Array | None]],
) -> tuple[Array, Gradients | None]:
    """The loss of each row, and unless `scale` is None the gradients.

    The targets are labels. T is a float, or of shape (N, 1). `target_loss` is called as that of a
    backend, on a block of logits that it may overwrite.
    """
    xp = array_namespace(x)
    n, k = x.shape[0], weight.shape[0]
    losses, temperature_gradients = [], []
    dx: Any = None
    dweight: Any = None
    dbias: Any = None
    if scale is not None:
        dx, dweight = xp.zeros_like(x), xp.zeros_like(weight)
        dbias = None if bias is None else xp.zeros_like(bias)
    label: Any = targets.label
    factor: Any = scale
    inputs = (x, weight, bias, label, t, scale)
    has_values = all(_tracing.has_values(a) for a in inputs)
    # A slice of a Dask array is a copy.
    in_place = has_values and is_writeable_array(x) and not is_dask_array(x)
    for rows in _row_blocks(n, k, xp.finfo(x.dtype).bits // 8):
        x_rows, label_rows = x[rows, ...], label[rows]
        ignored = label_rows < 0
        if not has_values or any_of(ignored, xp):
            # An ignored row may contain NaN.
            x_rows = xp.where(ignored[:, None], 0.0, x_rows)
        layer = _Layer(weight, bias, targets._replace(label=label_rows))
        if targets.kept is not None:
            layer = _kept_part(layer, rows, in_place, xp)
        z = _product(x_rows, layer.weight.T)
        if layer.bias is not None:
            if in_place:
                z += layer.bias
            else:
                z = z + layer.bias
        if layer.mask is not None:
            z = xp.where(layer.mask, z, -xp.inf)
        t_rows = t if isinstance(t, float) else t[rows, ...]
        scale_rows = factor[rows] if hasattr(factor, "shape") else factor
        block = xp.asarray(z, copy=True) if by_temperature else z
        targets_rows = layer.targets
        if targets.class_weight is not None:
            targets_rows = targets_rows.weighted(z)
        loss, gradient = target_loss(block, (1,), t_rows, None, targets_rows, scale_rows)
        losses.append(loss)
        if gradient is None:
            continue
        if by_temperature:
            # -sum dz z/T. As dz sums to 0, -z may be replaced by max z - z, which does not cancel.
            row_max = xp.max(z, axis=-1, keepdims=True)
            distance = xp.where((gradient == 0) | (z == row_max), 0.0, row_max - z)
            temperature_gradients.append(
                xp.sum(gradient * distance, axis=-1, keepdims=True) / t_rows
            )
        dx = _replace_rows(dx, rows, _product(gradient, layer.weight), in_place, xp)
        # By tiles of classes, so that the temporary product is small.
        for tile in _slices(layer.weight.shape[0], _TILE_CLASSES):
            product = gradient[:, tile].T @ x_rows
            dweight = _add_to_rows(dweight, layer.rows_of_tile(tile), product, in_place, xp)
        if dbias is not None:
            total = xp.sum(gradient, axis=0)
            if layer.classes is None:
                dbias = dbias + total
            else:
                dbias[layer.classes] += total
        del z, block, gradient  # at most one block exists at a time
    device = getattr(x, "device", None)  # a traced JAX array has none
    loss = xp.concat(losses) if losses else xp.zeros(0, dtype=x.dtype, device=device)
    if scale is None:
        return loss, None
    dt = None
    if by_temperature:
        dt = (
            xp.concat(temperature_gradients)
            if n
            else xp.zeros((0, 1), dtype=x.dtype, device=device)
        )
    return loss, Gradients(dx, dweight, dbias, dt)
