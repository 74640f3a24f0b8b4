"""The backend of NumPy arrays: the compiled kernels, and the reference where they do not apply."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._arrays import Array, Axes, DType, Shape, dtype_name, native_type
from logitlab._backends import linear_loss as linear
from logitlab._backends import plain_numpy, reference
from logitlab._backends.linear_loss import Gradients
from logitlab._backends.reference import (
    centred,
    logits,
    one_minus,
    signed_logsumexp,
)
from logitlab._backends.targets import Targets

try:
    import logitlab._native as _native
except ModuleNotFoundError:  # installed without a C++ compiler
    _native = None  # type: ignore[assignment]

__all__ = [
    "_native",
    "centred",
    "get_num_threads",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "linear_loss",
    "log_softmax",
    "logits",
    "logsumexp",
    "native_available",
    "one_minus",
    "plain",
    "set_num_threads",
    "signed_logsumexp",
    "softmax",
    "target_loss",
]

# The kernels take the memory of an array and one of these type codes, as in module.cpp.
KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}


def native_available() -> bool:
    """Whether the compiled kernels are installed.

    Returns
    -------
    bool
        False where the package was installed without a C++ compiler: all results then come from
        the slower NumPy formulas.

    Examples
    --------
    >>> import logitlab
    >>> isinstance(logitlab.native_available(), bool)
    True
    """
    return _native is not None


def get_num_threads() -> int:
    """The maximum number of threads of a call.

    The initial value follows the CPU affinity, the CPU quota of the cgroup and OMP_NUM_THREADS.

    Returns
    -------
    int
        1 without the compiled kernels.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.get_num_threads() >= 1
    True
    """
    return 1 if _native is None else int(_native.get_num_threads())


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads of a call. Results are bitwise independent of it.

    Parameters
    ----------
    n : int
        >= 1.

    Raises
    ------
    TypeError
        `n` is not an int; a boolean is not one.
    ValueError
        `n` is below 1.

    Examples
    --------
    >>> import logitlab
    >>> before = logitlab.get_num_threads()
    >>> logitlab.set_num_threads(before)
    """
    n = _checks.integer(n, "n", 1)
    if _native is not None:
        _native.set_num_threads(min(n, _native.MAX_THREADS))


def _memory(x: Array, kind: str) -> Array:
    """`x` aligned and in native byte order, for the kernels.

    bfloat16, which has no buffer format, is viewed as uint16.
    """
    if not (x.dtype.isnative and x.flags.aligned):
        x = x.astype(x.dtype.newbyteorder("="))
    return x.view(np.uint16) if kind == "bfloat16" else x


def contiguous(x: Array, dtype: DType) -> Array:
    """`x` of this type, contiguous and aligned."""
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.aligned else x.copy()


def _merge_axes(x: Array, axis: Axes) -> Array:
    """`x` with the class axes merged into one, the last; a view if the layout allows."""
    batch = [a for a in range(x.ndim) if a not in axis]
    size = math.prod(x.shape[a] for a in axis)
    return x.transpose(*batch, *axis).reshape([x.shape[a] for a in batch] + [size])


def _split_axes(x: Array, shape: Shape, axis: Axes) -> Array:
    """The inverse of :func:`_merge_axes` for an array of `shape`."""
    order = [a for a in range(len(shape)) if a not in axis] + list(axis)
    return x.reshape([shape[a] for a in order]).transpose(np.argsort(order))


def _one_axis(
    z: Array, axis: Axes, t: float | Array, where: Array | None
) -> tuple[Any, int, Any, Any]:
    """z with a single class axis, that axis, T broadcast to the batch and `where` to z."""
    if where is not None:
        where = np.broadcast_to(where, z.shape)
    if len(axis) > 1:
        z = _merge_axes(z, axis)
        where = None if where is None else _merge_axes(where, axis)
        t = t if isinstance(t, float) else _merge_axes(t, axis)
        axis = (z.ndim - 1,)
    if not isinstance(t, float):
        t = np.broadcast_to(t, (*z.shape[: axis[0]], 1, *z.shape[axis[0] + 1 :]))
    return z, axis[0], t, where


def elementwise(
    name: str,
    kind: str,
    z: Array,
    axis: Axes,
    t: float | Array,
    where: Array | None,
    out: Array,
) -> None:
    """Write softmax or log_softmax of z to `out`; both are as :func:`_memory` returns them."""
    function = getattr(_native, name)
    if len(axis) == 1 and isinstance(t, float) and where is None:
        function(KINDS[kind], z, out, axis[0], t, None)
        return
    x, k, t, where = _one_axis(z, axis, t, where)
    if len(axis) == 1:
        function(KINDS[kind], x, out, k, t, where)
    else:
        result = np.empty_like(x)
        function(KINDS[kind], x, result, k, t, where)
        out[...] = _split_axes(result, z.shape, axis)


def reduce_logsumexp(
    kind: str, z: Array, axis: Axes, t: float | Array, where: Array | None, keepdims: bool
) -> Array:
    """logsumexp of z, which is as :func:`_memory` returns it."""
    shape = tuple(1 if a in axis else n for a, n in enumerate(z.shape))
    z, k, t, where = _one_axis(z, axis, t, where)
    out = np.empty((*z.shape[:k], 1, *z.shape[k + 1 :]), dtype=z.dtype)
    _native.logsumexp(KINDS[kind], z, out, k, t, where)
    return out.reshape(shape) if keepdims else out.squeeze(k)


def _covers(kind: str) -> bool:
    return _native is not None and kind in KINDS


# plain_softmax, plain_log_softmax and plain_logsumexp: the results of the most common calls, whose
# arguments need no further checks (a NumPy array of a standard type, an axis within its bounds and
# a float temperature), and None for any other call.
plain: Any = plain_numpy if _native is None else _native


def plain_cross_entropy(z: Array, y: Any, axis: Any, t: Any, with_gradient: bool) -> Any:
    """The mean loss of int64 labels, or that and its gradient, for contiguous arrays of standard
    types, the classes last, and a finite float temperature above 0; None for any other call."""
    if _native is None:
        return None
    return _native.plain_cross_entropy(z, y, axis, t, with_gradient)


def large_bytes(size: int) -> NDArray[np.uint8] | None:
    """Memory for a large result, reused from earlier results; None if the result is not large."""
    if _native is None or size < _native.LARGE_RESULT:
        return None
    memory: NDArray[np.uint8] = _native.empty(size)
    return memory


def empty(shape: Shape, dtype: DType) -> NDArray[Any]:
    """As :func:`numpy.empty`, from :func:`large_bytes` if it is large."""
    try:
        memory = large_bytes(math.prod(shape) * dtype.itemsize)
    except MemoryError:
        memory = None  # the error of NumPy names the shape
    return np.empty(shape, dtype) if memory is None else memory.view(dtype).reshape(shape)


def _empty_like(z: Array) -> Array:
    """An uninitialized array like z, in native byte order."""
    if type(z) is np.ndarray and z.dtype.isnative:
        return empty(z.shape, z.dtype) if z.flags.c_contiguous else np.empty_like(z)
    return np.empty_like(z, dtype=native_type(z.dtype), subok=False)


def _elementwise(
    name: str, z: Array, axis: Axes, t: float | Array, where: Array | None, out: Array | None
) -> Array:
    kind = dtype_name(z.dtype)
    if not _covers(kind):
        return getattr(reference, name)(z, axis, t, where, out)
    result = _empty_like(z) if out is None or not out.flags.aligned else out
    elementwise(name, kind, _memory(z, kind), axis, t, where, _memory(result, kind))
    if out is None or result is out:
        return result
    out[...] = result
    return out


def softmax(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, out: Array | None
) -> Array:
    return _elementwise("softmax", z, axis, temperature, where, out)


def log_softmax(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, out: Array | None
) -> Array:
    return _elementwise("log_softmax", z, axis, temperature, where, out)


def logsumexp(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, keepdims: bool
) -> Array:
    kind = dtype_name(z.dtype)
    if not _covers(kind):
        return reference.logsumexp(z, axis, temperature, where, keepdims)
    result = reduce_logsumexp(kind, _memory(z, kind), axis, temperature, where, keepdims)
    return result.view(z.dtype.newbyteorder("="))


def row_losses(
    kind: str,
    z: Array,
    axis: Axes,
    t: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
    out: Array | None,
) -> Array:
    """The losses of the rows, in float64; their gradient is written to `out` if that is not None.

    z and `out` are as :func:`_memory` returns them.
    """
    z, k, t, where = _one_axis(z, axis, t, where)
    batch = z.shape[:k] + z.shape[k + 1 :]
    loss = np.empty(batch)

    def per_row(x: Array, dtype: DType) -> Any:
        if isinstance(x, float):
            return np.full(loss.size, x)
        if x.shape != batch:
            x = np.broadcast_to(x, batch)
        return contiguous(x, dtype).reshape(-1)

    label, distribution, smoothing = targets[:3]
    label = None if label is None else per_row(label, np.dtype(np.int64))
    if distribution is not None:
        distribution = contiguous(distribution, np.dtype("f8" if kind == "float64" else "f4"))
    scales = per_row(1.0 if scale is None else scale, np.dtype(np.float64))
    rest = (label, distribution, smoothing, scales, loss.reshape(-1))
    _native.cross_entropy(KINDS[kind], z, out, k, t, where, *rest)
    return loss


def covers_losses(kind: str, classes: int, t: float | Array, targets: Targets) -> bool:
    """Whether the kernels compute the losses of such arguments."""
    if not _covers(kind) or not classes:
        return False
    # At T < 0 the kernels replace +inf by -inf, which smoothing would leave out.
    return not targets.smoothing or bool(np.all(np.asarray(t) >= 0))


def target_loss(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> tuple[Array, Array | None]:
    kind = dtype_name(z.dtype)
    if not covers_losses(kind, z.shape[axis[0]], temperature, targets):
        return reference.target_loss(z, axis, temperature, where, targets, scale)
    out = None if scale is None else _empty_like(z)
    gradient = None if out is None else _memory(out, kind)
    loss = row_losses(kind, _memory(z, kind), axis, temperature, where, targets, scale, gradient)
    return loss, out


_PRODUCTS = {"softmax": 0, "log_softmax": 1, "jacobian": 2}
_COLUMNS = 16  # as in products_args.h


def product_takes_axis(shape: Shape, axis: int) -> bool:
    """Whether :func:`product` takes the classes on this axis: the last, or before many columns."""
    inner = math.prod(shape[axis + 1 :])
    return inner == 1 or inner >= _COLUMNS


def product(
    name: str, p: Array, v: Array, z: Array, slope: float | Array, out: Array | None, axis: int = -1
) -> None:
    """Write slope times the product of v with the derivative of softmax or log_softmax to `out`.

    p are the probabilities; "jacobian" writes the matrix. All arrays are contiguous, float32 or
    float64. An entry where z is infinite gets 0, unless z is None.
    """
    product_at(name, p.dtype.itemsize, p.shape, axis, p, v, z, slope, out)


def product_at(
    name: str,
    itemsize: int,
    shape: Shape,
    axis: int,
    p: Array,
    v: Array,
    z: Array,
    slope: float | Array,
    out: Array | int,
    t: float = 1.0,
) -> None:
    """As :func:`product`, of arrays of this shape, which may be given by their addresses.

    Where p is None, it is computed from z at temperature t, and the axis is the last.
    """
    axis %= len(shape)
    before, after = shape[:axis], shape[axis + 1 :]
    if not isinstance(slope, float):
        slope = contiguous(np.broadcast_to(slope, (*before, 1, *after)), np.dtype(np.float64))
    sizes = (math.prod(before), shape[axis], math.prod(after))
    products(name, itemsize == 8, *sizes, p, v, z, out, slope, t)


def products(name: str, *arguments: Any) -> None:
    """The kernel of :func:`product`, of checked arguments."""
    _native.products(_PRODUCTS[name], *arguments)


def _covers_product(p: Array, slope: float | Array) -> bool:
    """Float32 and float64, and slopes that do not overflow in them."""
    covered = _covers(dtype_name(p.dtype)) and p.dtype.itemsize > 2 and p.size > 0
    return covered and bool(np.all(np.abs(slope) <= np.finfo(p.dtype).max))


def jacobian(p: Array, slope: Array) -> Array:
    if not _covers_product(p, slope):
        return reference.jacobian(p, slope)
    p = contiguous(p, p.dtype)
    out = empty((*p.shape, p.shape[-1]), p.dtype)
    product("jacobian", p, p, None, slope, out)
    return out


def jacobian_product(p: Array, v: Array, slope: Array) -> Array:
    """As the reference's; the result may overwrite p."""
    if not _covers_product(p, slope):
        return reference.jacobian_product(p, v, slope)
    p, v = contiguous(p, p.dtype), contiguous(v, v.dtype)
    product("softmax", p, v, None, slope, p)
    return p


def _is_moderate(x: Array) -> bool:
    """Whether products of three such numbers neither overflow nor vanish."""
    largest = np.abs(x).max(initial=0)
    return bool(largest == 0 or 1e-90 < largest < 1e90)


def hessian_product(p: Array, u: Array, v: Array, slope: Array) -> Array:
    covered = _covers_product(p, slope)
    if not covered or (p.dtype == np.float64 and not all(map(_is_moderate, (u, v, slope)))):
        return reference.hessian_product(p, u, v, slope)
    shape = p.shape
    p, u, v = (contiguous(x, p.dtype).reshape(-1, shape[-1]) for x in (p, u, v))
    out = empty(p.shape, p.dtype)
    slopes = contiguous(slope, np.dtype(np.float64)).reshape(-1)
    _native.second_products(KINDS[p.dtype.name], p, u, v, slopes, out)
    return out.reshape(shape)


_PLAIN_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


def are_plain(arrays: tuple[Any, ...], axis: Any, t: Any) -> bool:
    """Whether the kernels take the arrays as they are, contiguous and the classes last, and 1/T."""
    z = arrays[0]
    if type(z) is not np.ndarray or type(t) is not float or not 1e-30 < t < 1e30:
        return False
    return (
        native_available()
        and z.dtype in _PLAIN_TYPES
        and z.size > 0
        and type(axis) is int
        and axis in (-1, z.ndim - 1)
        and all(
            type(a) is np.ndarray
            and a.shape == z.shape
            and a.dtype == z.dtype
            and a.flags.c_contiguous
            and a.flags.aligned
            for a in arrays
        )
    )


def row_scores(z: Array, other: Array | None, t: Array) -> NDArray[np.float64] | None:
    """The entropy of contiguous rows at their temperatures, or the divergence from others, in nats;
    NaN in a row that the kernels do not cover. None where they cover no such array.
    """
    kind = dtype_name(z.dtype)
    if not _covers(kind) or z.dtype.itemsize < 4 or not z.dtype.isnative:
        return None
    out = np.empty(len(z))
    _native.scores(KINDS[kind], z, other, t, out)
    return out


def target_loss_in_place(
    z: Array,
    axis: Axes,
    t: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> Any:
    """As :func:`target_loss`; the gradient overwrites z."""
    kind = dtype_name(z.dtype)
    if not covers_losses(kind, z.shape[axis[0]], t, targets):
        return reference.target_loss(z, axis, t, where, targets, scale)
    out = None if scale is None else z
    return row_losses(kind, z, axis, t, where, targets, scale, out), out


def linear_loss(
    x: Array,
    weight: Array,
    bias: Array | None,
    targets: Targets,
    t: float | Array,
    scale: float | Array | None,
    by_temperature: bool,
) -> tuple[Array, Gradients | None]:
    return linear.linear_loss(
        x, weight, bias, targets, t, scale, by_temperature, target_loss_in_place
    )
