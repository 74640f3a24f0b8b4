"""What array is this, where is the class axis, is the request sensible."""

import functools
import math
import operator
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_torch_array, is_writeable_array
from numpy.typing import NDArray

from logitlab import _checks

_HELD = frozenset({"float16", "bfloat16", "float32", "float64"})
_PLAIN = frozenset(np.dtype(name) for name in ("float16", "float32", "float64"))
_LONG = frozenset({"longdouble", "float80", "float96", "float128"})


class Request(NamedTuple):
    """A checked call: what every backend function takes."""

    z: Any  # floating, at least one class axis
    axes: tuple[int, ...]  # sorted, non-negative
    temperature: Any  # a float, or an array that broadcasts against z
    where: Any  # None, or a boolean array that broadcasts to z
    no_axis: bool  # z stands with an axis of length 1 appended: every element is a row of its own

    def restore(self, result: Any) -> Any:
        return result[..., 0] if self.no_axis else result


@functools.cache
def _numpy_name(dtype: np.dtype[Any]) -> str:
    # The name of a text's type is its width in bits.
    return dtype.type.__name__.rstrip("_") if dtype.kind in "US" else dtype.name


@functools.cache
def _other_name(dtype: Any) -> str:
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def dtype_name(dtype: Any) -> str:
    """The type's name as NumPy spells it, of any library's dtype."""
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else _other_name(dtype)


def native_type(dtype: Any) -> Any:
    """The type of results: the byte order is the machine's."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def widest_float(xp: Any, like: Any = None) -> Any:
    """The widest standard real type that a namespace has enabled (on the device of `like`)."""
    if like is not None and is_torch_array(like):
        return xp.float32 if like.device.type == "mps" else xp.float64
    kinds = xp.__array_namespace_info__().dtypes(kind="real floating")
    return kinds.get("float64", kinds["float32"])


def as_array(x: Any, name: str) -> Any:
    """An array of a known kind: whatever is no array becomes a NumPy array."""
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; pass {name}.data with where=~mask instead")
    if is_array_api_obj(x) and not isinstance(x, np.ndarray | np.generic):
        return x
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array: {error}") from None


def as_floating(x: Any, name: str) -> Any:
    """As :func:`as_array`; integers and booleans are converted to float64 before any arithmetic."""
    x = as_array(x, name)
    kind = dtype_name(x.dtype)
    if kind in _HELD or kind in _LONG:
        return x
    if kind.startswith(("int", "uint", "bool")):
        if isinstance(x, np.ndarray):
            return x.astype(np.float64)
        xp = array_namespace(x)
        return xp.astype(x, widest_float(xp, x))
    raise TypeError(
        f"{name} has type {kind}; accepted: float16, bfloat16, float32, float64, longdouble, "
        "integers and booleans"
    )


def list_of_reals(x: Any, name: str, length: int | None = None) -> NDArray[np.float64]:
    """A list of real numbers as float64, of so many where a length is given."""
    found = on_host(as_floating(x, name)).astype(np.float64)
    if found.ndim != 1 or length not in (None, len(found)):
        wanted = "a list of numbers" if length is None else f"{length} numbers in a list"
        raise ValueError(f"{name} has shape {found.shape}; accepted: {wanted}")
    return found


def on_host(x: Any) -> NDArray[Any]:
    """The values as NumPy sees them: a view where they lie in this machine's memory."""
    if is_torch_array(x):
        x = x.detach().cpu().resolve_neg()
        # NumPy has no bfloat16; in float32 its values are the same.
        x = x.float() if dtype_name(x.dtype) == "bfloat16" else x
    return np.asarray(x)


def class_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """`axis` as sorted non-negative integers; a 0-d array has none (K = 1)."""
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        axes = [operator.index(a) for a in given]
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, not {axis!r}") from None
    # As in NumPy, a 0-d array takes axis 0 and -1.
    extent = max(ndim, 1)
    for a in axes:
        if not -extent <= a < extent:
            raise ValueError(
                f"axis {a} is out of bounds for z with {ndim} dimensions; "
                f"accepted: {-extent} to {extent - 1}"
            )
    axes = sorted(a % extent for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis={axis!r} names the same axis twice")
    return tuple(axes) if ndim else ()


def one_axis(axis: Any, ndim: int) -> tuple[int, ...]:
    """As :func:`class_axes`, for a function that takes one int."""
    if axis is None or isinstance(axis, tuple):
        raise TypeError(f"axis must be an int, not {axis!r}")
    return class_axes(axis, ndim)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False)
    )


def like(x: Any, z: Any, xp: Any, name: str) -> Any:
    """`x` as an array of z's kind, on z's device."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; accepted: a plain array")
    if type(x) is type(z):
        return x
    if is_array_api_obj(x) and not isinstance(x, np.ndarray | np.generic):
        try:
            if array_namespace(x, z) is xp:
                return x
        except TypeError:
            raise TypeError(
                f"{name} is a {type(x).__name__} where z is a {type(z).__name__}; "
                "accepted: arrays of one library"
            ) from None
    x = np.asarray(x)
    return x if xp is np else xp.asarray(x, device=getattr(z, "device", None))


def any_of(condition: Any, xp: Any) -> bool:
    """Whether a condition holds anywhere; False where that is not known yet."""
    try:
        return bool(xp.any(condition))
    except (TypeError, RuntimeError):
        return False  # a traced array has no values to look at


def first_true(condition: Any, xp: Any) -> int:
    """The flat index of the first place where a condition holds."""
    return int(xp.argmax(xp.astype(xp.reshape(condition, (-1,)), xp.int8)))


def integers(x: Any, xp: Any) -> Any:
    """In the integer type that an array library has by default: int64, or JAX's int32."""
    if dtype_name(x.dtype) == "int64":
        return x
    return xp.astype(x, xp.__array_namespace_info__().default_dtypes()["integral"], copy=False)


def _within(y: Any, k: int, xp: Any) -> bool:
    """Whether integers are 0 to k - 1, by their ends, which are quicker to find than a place."""
    if not math.prod(y.shape):
        return True
    try:
        return int(xp.min(y)) >= 0 and int(xp.max(y)) < k
    except (TypeError, RuntimeError):
        return False  # a traced array has no values to look at


def labels(
    y: Any,
    batch: tuple[int, ...],
    k: int,
    ignore_index: int | None,
    xp: Any,
    or_else: str = "",
    of: str = "z",
) -> Any:
    """Integer labels of the batch shape, of the rows `of`; -1 where a row is ignored."""
    kind = dtype_name(y.dtype)
    if not kind.startswith(("int", "uint")):
        raise TypeError(f"y has type {kind}; accepted: integer labels{or_else}")
    if tuple(y.shape) != batch:
        raise ValueError(
            f"y has shape {tuple(y.shape)}; accepted: labels of shape {batch}{or_else}"
        )
    y = integers(y, xp)
    if ignore_index is None and _within(y, k, xp):
        return y
    bad = (y < 0) | (y >= k)
    if ignore_index is not None:
        ignored = y == _checks.integer(ignore_index, "ignore_index")
        bad &= ~ignored
    if any_of(bad, xp):
        row = first_true(bad, xp)
        value = int(xp.reshape(y, (-1,))[row])
        raise ValueError(
            f"y is {value} in row {row}; accepted: 0 to {k - 1}, as {of} has {k} classes"
        )
    return y if ignore_index is None else xp.where(ignored, xp.full_like(y, -1), y)


def moved(x: Any, axis: int, to: int, xp: Any) -> Any:
    """As ``moveaxis``, which torch does not batch."""
    order = [a for a in range(x.ndim) if a != axis % x.ndim]
    order.insert(to % x.ndim, axis % x.ndim)
    return xp.permute_dims(x, tuple(order))


def scaled(x: Any, by: Any, xp: Any) -> Any:
    """x times a factor that may be infinite, as 1/T of a tiny T: 0 stays 0."""
    return xp.where(x == 0, x, x * by)


def at_least_float32(x: Any, xp: Any) -> Any:
    """Half types are worked on in float32 and rounded once."""
    half = dtype_name(x.dtype) in ("float16", "bfloat16")
    return xp.astype(x, xp.float32) if half else x


def check_differentiable(temperature: Any, xp: Any) -> None:
    """Refuse a checked temperature at which softmax has no derivative."""
    zero = temperature == 0
    if zero if isinstance(zero, bool) else any_of(zero, xp):
        raise ValueError(
            "temperature is 0, where softmax jumps and has no derivative; accepted: any other"
        )


def check_not_negative(x: Any, name: str) -> None:
    """Refuse an array with an entry below 0, naming the first."""
    xp = array_namespace(x)
    # The least is quicker to find than a place; it is NaN where one is.
    if not math.prod(x.shape) or not any_of(~(xp.min(x) >= 0), xp):
        return
    negative = x < 0
    if any_of(negative, xp):
        place = first_true(negative, xp)
        where = tuple(int(i) for i in np.unravel_index(place, tuple(x.shape)))
        raise ValueError(
            f"{name} is negative at index {where}: {float(x[where])}; accepted: values of 0 and up"
        )


def _temperature(temperature: Any, z: Any, axes: tuple[int, ...]) -> Any:
    if isinstance(temperature, float | int | Real):
        value = float(temperature)
        if math.isnan(value):
            raise ValueError("temperature is NaN; accepted: any real number, 0 and ±inf included")
        return value
    xp = np if isinstance(z, np.ndarray) else array_namespace(z)
    t = like(temperature, z, xp, "temperature")
    kind = dtype_name(t.dtype)
    if not kind.startswith(("float", "bfloat", "int", "uint")):
        raise TypeError(f"temperature has type {kind}; accepted: real numbers")
    batch = tuple(n for i, n in enumerate(z.shape) if i not in axes)
    shape = tuple(t.shape)
    if not _broadcasts(shape, batch):
        hint = (
            "; temperature[:, 0] has that shape" if shape == (*batch, 1) and len(batch) == 1 else ""
        )
        raise ValueError(
            f"temperature has shape {shape}; accepted: a scalar, or an array that broadcasts to "
            f"the batch shape {batch} of z{hint}"
        )
    wide = np.float64 if xp is np else widest_float(xp, z)
    # A copy for NumPy: out= may be the caller's temperature.
    t = np.array(t, dtype=wide) if xp is np else xp.astype(t, wide)
    if any_of(xp.isnan(t), xp):
        raise ValueError("temperature holds NaN; accepted: real numbers, 0 and ±inf included")
    sizes = iter((1,) * (len(batch) - len(shape)) + shape)
    return xp.reshape(t, tuple(1 if i in axes else next(sizes) for i in range(z.ndim)))


def _where(where: Any, z: Any) -> Any:
    xp = np if isinstance(z, np.ndarray) else array_namespace(z)
    w = like(where, z, xp, "where")
    if not dtype_name(w.dtype).startswith("bool"):
        raise TypeError(f"where has type {dtype_name(w.dtype)}; accepted: booleans")
    if not _broadcasts(tuple(w.shape), tuple(z.shape)):
        raise ValueError(
            f"where has shape {tuple(w.shape)}; accepted: what broadcasts to the shape "
            f"{tuple(z.shape)} of z"
        )
    return w


def request(z: Any, axis: Any, temperature: Any, where: Any) -> Request:
    """Check a call and put it into the form that every backend takes."""
    # What most calls are, without a detour.
    if (
        type(z) is np.ndarray
        and z.dtype in _PLAIN
        and type(axis) is int
        and -z.ndim <= axis < z.ndim
        and type(temperature) is float
        and temperature == temperature
        and where is None
    ):
        return Request(z, (axis % z.ndim,), temperature, None, False)
    z = as_floating(z, "z")
    axes = class_axes(axis, z.ndim)
    temperature = _temperature(temperature, z, axes)
    if where is not None:
        where = _where(where, z)
    if axes:
        return Request(z, axes, temperature, where, False)
    if not isinstance(temperature, float):
        temperature = temperature[..., None]
    if where is not None:
        where = where[..., None]
    return Request(z[..., None], (z.ndim,), temperature, where, True)


def _numpy_view(x: Any) -> Any:
    """A NumPy view of the same memory, or None where there is none on this machine."""
    if isinstance(x, np.ndarray):
        return x
    if is_torch_array(x) and x.device.type == "cpu":
        import torch

        # NumPy has no bfloat16: any integer of the same width shows the same bytes.
        width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        return x.detach().view(width).numpy()
    return None


def _disjoint_or_same(out: Any, z: Any) -> bool:
    if out is z:
        return True
    a, b = _numpy_view(out), _numpy_view(z)
    if a is None or not np.may_share_memory(a, b):
        return True
    same = a.__array_interface__["data"] == b.__array_interface__["data"]
    return (same and a.strides == b.strides) or not np.shares_memory(a, b)


def _check_kind(out: Any, z: Any) -> None:
    """Refuse an `out` that is no writeable array of z's kind."""
    if not is_array_api_obj(out) or isinstance(out, np.ma.MaskedArray | np.generic):
        raise TypeError(f"out is a {type(out).__name__}; accepted: an array of z's kind")
    if isinstance(out, np.ndarray) != isinstance(z, np.ndarray) or (
        array_namespace(out) is not array_namespace(z)
    ):
        raise TypeError(
            f"out is a {type(out).__name__} where z is a {type(z).__name__}; "
            "accepted: an array of z's kind"
        )
    if not is_writeable_array(out) and not isinstance(out, np.ndarray):
        raise TypeError(f"out is an immutable {type(out).__name__}; omit out=")
    if is_torch_array(out) and (out.requires_grad or z.requires_grad):
        raise ValueError("out= does not take part in autograd; omit out=, or detach z and out")
    if getattr(out, "device", None) != getattr(z, "device", None):
        raise ValueError(f"out is on device {out.device}; accepted: z's device {z.device}")


def _spoken(dtype: Any) -> str:
    swapped = isinstance(dtype, np.dtype) and not dtype.isnative
    return dtype_name(dtype) + (" in the other byte order" if swapped else "")


def check_out(out: Any, call: Request) -> Any:
    """`out` as the backends take it: of z's kind, type and shape, and z itself or disjoint."""
    if out is None:
        return None
    z = call.z
    shape = z.shape[:-1] if call.no_axis else z.shape
    if not (type(out) is type(z) is np.ndarray):
        _check_kind(out, z)
    expected: Any = z.dtype
    if isinstance(out, np.ndarray):
        if not out.flags.writeable:
            raise ValueError("out is read-only; accepted: a writeable array")
        if not z.dtype.isnative:
            expected = z.dtype.newbyteorder("=")
    if out.dtype != expected or out.shape != shape:
        raise ValueError(
            f"out has type {_spoken(out.dtype)} and shape {tuple(out.shape)}; accepted: "
            f"type {_spoken(expected)} and shape {tuple(shape)}"
        )
    if call.no_axis:
        out = out[..., None]
    if not _disjoint_or_same(out, z):
        raise ValueError("out overlaps z; accepted: z itself, or memory disjoint from it")
    if call.where is not None and not _disjoint_or_same(out, call.where):
        raise ValueError("out overlaps where; accepted: memory disjoint from it")
    return out
