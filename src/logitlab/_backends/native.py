"""NumPy arrays -> the compiled kernels; what they do not cover goes to the reference."""

import math
import operator
from typing import Any

import numpy as np

from logitlab._arrays import dtype_name
from logitlab._backends import linear_loss as blocks
from logitlab._backends import reference
from logitlab._backends.reference import centred, logits, one_minus
from logitlab._backends.targets import Targets

try:
    import logitlab._native as _native
except ModuleNotFoundError:  # installed without a C++ compiler
    _native = None  # type: ignore[assignment]

__all__ = [
    "_native",
    "centred",
    "get_num_threads",
    "jacobian",
    "jacobian_product",
    "linear_loss",
    "log_softmax",
    "logits",
    "logsumexp",
    "native_available",
    "one_minus",
    "set_num_threads",
    "softmax",
    "target_loss",
]

# The kernels see the memory of an array and one of these codes (module.cpp has the same).
KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}


def native_available() -> bool:
    """Whether the compiled kernels are installed (without a C++ compiler they are not).

    Returns
    -------
    bool
        False where the reference does all the work.

    Examples
    --------
    >>> import logitlab
    >>> isinstance(logitlab.native_available(), bool)
    True
    """
    return _native is not None


def get_num_threads() -> int:
    """The number of threads that a call may use.

    At first what the process may use: its CPU affinity, its cgroup's quota and OMP_NUM_THREADS.

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
    """Let every call use up to n threads. The bits of a result do not depend on it.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        `n` is not an int.
    ValueError
        `n` is below 1.

    Examples
    --------
    >>> import logitlab
    >>> before = logitlab.get_num_threads()
    >>> logitlab.set_num_threads(before)
    """
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"n must be an int, not {n!r}") from None
    if count < 1:
        raise ValueError(f"n is {count}; accepted: 1 and up")
    if _native is not None:
        _native.set_num_threads(min(count, _native.MAX_THREADS))


def _memory(x: Any, kind: str) -> Any:
    """`x` aligned, in native byte order; bfloat16, which has no buffer format, as its bits."""
    if not (x.dtype.isnative and x.flags.aligned):
        x = x.astype(x.dtype.newbyteorder("="))
    return x.view(np.uint16) if kind == "bfloat16" else x


def _merge_axes(x: Any, axis: tuple[int, ...]) -> Any:
    """`x` with the class axes as one, the last; a view where the layout allows."""
    batch = [a for a in range(x.ndim) if a not in axis]
    size = math.prod(x.shape[a] for a in axis)
    return x.transpose(*batch, *axis).reshape([x.shape[a] for a in batch] + [size])


def _split_axes(x: Any, shape: tuple[int, ...], axis: tuple[int, ...]) -> Any:
    """The inverse of :func:`_merge_axes` for an array of `shape`."""
    order = [a for a in range(len(shape)) if a not in axis] + list(axis)
    return x.reshape([shape[a] for a in order]).transpose(np.argsort(order))


def _one_axis(z: Any, axis: tuple[int, ...], t: Any, where: Any) -> tuple[Any, int, Any, Any]:
    """z, its one class axis, T of the shape of the batch and `where` of the shape of z."""
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
    name: str, kind: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, out: Any
) -> None:
    """Write softmax or log_softmax of z to `out`; arrays of memory, as :func:`_memory` gives."""
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


def reduced(kind: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, keepdims: bool) -> Any:
    """logsumexp of z; arrays of memory."""
    shape = tuple(1 if a in axis else n for a, n in enumerate(z.shape))
    z, k, t, where = _one_axis(z, axis, t, where)
    out = np.empty((*z.shape[:k], 1, *z.shape[k + 1 :]), dtype=z.dtype)
    _native.logsumexp(KINDS[kind], z, out, k, t, where)
    return out.reshape(shape) if keepdims else out.squeeze(k)


def _covers(kind: str) -> bool:
    return _native is not None and kind in KINDS


# The types whose memory the kernels read as it is.
_PLAIN = {np.dtype(name): KINDS[name] for name in ("float32", "float64", "float16")}


def _plain(name: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, out: Any) -> Any:
    """The short way of a call without special wishes, or None where it is not one."""
    kind = _PLAIN.get(z.dtype)
    if kind is None or where is not None or type(t) is not float or len(axis) > 1:
        return None
    if _native is None or type(z) is not np.ndarray:
        return None
    if out is None:
        out = np.empty_like(z) if z.nbytes < _LARGE else _new(z)
    return out if getattr(_native, name)(kind, z, out, axis[0], t, None) else None


_LARGE = 1 << 22  # bytes from which a fresh page costs more than a kept one


def large_bytes(size: int) -> Any:
    """Memory for a large result, as bytes; None where the result is not large."""
    return _native.empty(size) if size >= _LARGE else None


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """As :func:`numpy.empty`, of kept memory where it is large."""
    kept = large_bytes(math.prod(shape) * dtype.itemsize)
    return np.empty(shape, dtype) if kept is None else kept.view(dtype).reshape(shape)


def _new(z: Any) -> Any:
    if type(z) is np.ndarray and z.dtype.isnative:
        return empty(z.shape, z.dtype) if z.flags.c_contiguous else np.empty_like(z)
    return np.empty_like(z, dtype=z.dtype.newbyteorder("="), subok=False)


def _result(name: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, out: Any) -> Any:
    done = _plain(name, z, axis, t, where, out)
    if done is not None:
        return done
    kind = dtype_name(z.dtype)
    if not _covers(kind):
        return getattr(reference, name)(z, axis, t, where, out)
    to = _new(z) if out is None or not out.flags.aligned else out
    elementwise(name, kind, _memory(z, kind), axis, t, where, _memory(to, kind))
    if out is None or to is out:
        return to
    out[...] = to
    return out


def softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    return _result("softmax", z, axis, temperature, where, out)


def log_softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    return _result("log_softmax", z, axis, temperature, where, out)


def logsumexp(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, keepdims: bool) -> Any:
    kind = dtype_name(z.dtype)
    if not _covers(kind):
        return reference.logsumexp(z, axis, temperature, where, keepdims)
    result = reduced(kind, _memory(z, kind), axis, temperature, where, keepdims)
    return result.view(z.dtype.newbyteorder("="))


def losses(
    kind: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, targets: Any, scale: Any, out: Any
) -> Any:
    """The losses of targets, in double; their gradient goes to `out`. Arrays of memory."""
    z, k, t, where = _one_axis(z, axis, t, where)
    batch = z.shape[:k] + z.shape[k + 1 :]
    loss = np.empty(batch)

    def a_row(x: Any, dtype: Any) -> Any:
        if isinstance(x, float):
            return np.full(loss.size, x)
        if x.shape != batch:
            x = np.broadcast_to(x, batch)
        return np.ascontiguousarray(x, dtype).reshape(-1)

    label, distribution, smoothing = targets
    label = None if label is None else a_row(label, np.int64)
    if distribution is not None:
        work = np.float64 if kind == "float64" else np.float32
        distribution = np.ascontiguousarray(distribution, work)
    scales = a_row(1.0 if scale is None else scale, np.float64)
    aims = (label, distribution, smoothing, scales, loss.reshape(-1))
    _native.cross_entropy(KINDS[kind], z, out, k, t, where, *aims)
    return loss


def covers_losses(kind: str, classes: int, t: Any, targets: Targets) -> bool:
    """Whether the kernels have the losses of such arguments."""
    if not _covers(kind) or not classes:
        return False
    # At T < 0 the kernels turn +inf to -inf, which has no part in smoothing.
    return not targets.smoothing or bool(np.all(np.asarray(t) >= 0))


def target_loss(
    z: Any, axis: tuple[int, ...], temperature: Any, where: Any, targets: Targets, scale: Any
) -> tuple[Any, Any]:
    kind = dtype_name(z.dtype)
    if not covers_losses(kind, z.shape[axis[0]], temperature, targets):
        return reference.target_loss(z, axis, temperature, where, targets, scale)
    out = None if scale is None else _new(z)
    to = None if out is None else _memory(out, kind)
    return losses(kind, _memory(z, kind), axis, temperature, where, targets, scale, to), out


_PRODUCTS = {"softmax": 0, "log_softmax": 1, "jacobian": 2}
_COLUMNS = 16  # products_args.h has the same


def in_place(shape: tuple[int, ...], axis: int) -> bool:
    """Whether :func:`product` takes the classes on this axis: the last, or before many columns."""
    inner = math.prod(shape[axis + 1 :])
    return inner == 1 or inner >= _COLUMNS


def product(name: str, p: Any, v: Any, z: Any, slope: Any, out: Any, axis: int = -1) -> None:
    """Write slope times the product of v with the derivative of a function, whose probabilities
    are p, to `out` (of "jacobian" the matrix). Contiguous float32 or float64; entries of infinite
    z, unless that is None, get 0."""
    product_at(name, p.dtype.itemsize, p.shape, axis, p, v, z, slope, out)


def product_at(
    name: str,
    itemsize: int,
    shape: tuple[int, ...],
    axis: int,
    p: Any,
    v: Any,
    z: Any,
    slope: Any,
    out: Any,
    t: float = 1.0,
) -> None:
    """As :func:`product` of arrays of this shape, which may be given by their addresses. Where p is
    None it is the softmax of z at temperature t, and the axis is the last."""
    axis %= len(shape)
    before, after = shape[:axis], shape[axis + 1 :]
    if not isinstance(slope, float):
        slope = np.ascontiguousarray(np.broadcast_to(slope, (*before, 1, *after)), np.float64)
    sizes = (math.prod(before), shape[axis], math.prod(after))
    _native.products(_PRODUCTS[name], itemsize == 8, *sizes, p, v, z, out, slope, t)


def _covers_product(p: Any, slope: Any) -> bool:
    """Float32 and float64, and slopes that do not overflow in them."""
    covered = _covers(dtype_name(p.dtype)) and p.dtype.itemsize > 2 and p.size > 0
    return covered and bool(np.all(np.abs(slope) <= np.finfo(p.dtype).max))


def jacobian(p: Any, slope: Any) -> Any:
    if not _covers_product(p, slope):
        return reference.jacobian(p, slope)
    p = np.ascontiguousarray(p)
    out = empty((*p.shape, p.shape[-1]), p.dtype)
    product("jacobian", p, p, None, slope, out)
    return out


def jacobian_product(p: Any, v: Any, slope: Any) -> Any:
    """As the reference's; the result is where p was."""
    if not _covers_product(p, slope):
        return reference.jacobian_product(p, v, slope)
    p, v = np.ascontiguousarray(p), np.ascontiguousarray(v)
    product("softmax", p, v, None, slope, p)
    return p


def _over(z: Any, axis: tuple[int, ...], t: Any, where: Any, targets: Targets, scale: Any) -> Any:
    """As :func:`target_loss`, with the gradient where z was."""
    kind = dtype_name(z.dtype)
    if not covers_losses(kind, z.shape[axis[0]], t, targets):
        return reference.target_loss(z, axis, t, where, targets, scale)
    out = None if scale is None else z
    return losses(kind, z, axis, t, where, targets, scale, out), out


def linear_loss(
    x: Any, weight: Any, bias: Any, targets: Targets, t: Any, scale: Any, by_temperature: bool
) -> tuple[Any, Any]:
    return blocks.linear_loss(x, weight, bias, targets, t, scale, by_temperature, _over)
