"""Conversion and checks of array arguments: library, type, class axis, temperature and mask."""

import functools
import math
import sys
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_torch_array
from numpy.typing import NDArray

from logitlab import _checks, _tracing

Array: TypeAlias = Any  # an array of NumPy, torch or any library of the array API standard
Namespace: TypeAlias = Any  # the functions of an array library, as array_namespace() returns them
DType: TypeAlias = Any  # the data type of any array library
Shape: TypeAlias = tuple[int, ...]
Axes: TypeAlias = tuple[int, ...]

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_LONG_DOUBLES = frozenset({"longdouble", "float80", "float96", "float128"})
_NUMPY_FLOATS = frozenset(np.dtype(name) for name in ("float16", "float32", "float64"))


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> NDArray[Any]:
    """As ``numpy.bincount``, of int64 on 32-bit systems too, which NumPy refuses there."""
    counted = np.asarray(x).astype(np.intp, casting="same_kind", copy=False)
    return np.bincount(counted, weights, minlength)


def repeat(x: Any, counts: Any) -> NDArray[Any]:
    """As ``numpy.repeat``, of int64 counts on 32-bit systems too, which NumPy refuses there."""
    return np.repeat(x, np.asarray(counts).astype(np.intp, casting="same_kind", copy=False))


class Request(NamedTuple):
    """The checked arguments that every backend function takes."""

    z: Array  # floating, at least one class axis
    axes: Axes  # sorted, non-negative
    temperature: float | Array  # an array broadcasts against z
    where: Array | None  # boolean, broadcasts to z
    no_axis: bool  # z had no class axis; here it has one of length 1, appended

    def restore(self, result: Array) -> Array:
        """`result` without the appended axis."""
        return result[..., 0] if self.no_axis else result


@functools.cache
def _numpy_name(dtype: np.dtype[Any]) -> str:
    # The name of a string type is followed by its width in bits.
    return dtype.type.__name__.rstrip("_") if dtype.kind in "US" else dtype.name


@functools.cache
def _other_name(dtype: DType) -> str:
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def dtype_name(dtype: DType) -> str:
    """The name of a data type of any library, as NumPy spells it."""
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else _other_name(dtype)


def native_type(dtype: DType) -> DType:
    """The data type in the byte order of the machine, which is that of results."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def widest_float(xp: Namespace, like: Array = None) -> DType:
    """The widest standard real type that a library has enabled, on the device of `like`."""
    if isinstance(like, np.ndarray):  # NumPy 2.0 has no __array_namespace_info__
        return np.dtype(np.float64)
    if like is not None and is_torch_array(like):
        return xp.float32 if like.device.type == "mps" else xp.float64
    dtypes = xp.__array_namespace_info__().dtypes(kind="real floating")
    return dtypes.get("float64", dtypes["float32"])


def is_dask(x: Any) -> bool:
    """Whether x is a Dask collection, without importing Dask."""
    return hasattr(x, "__dask_graph__")


def _check_layout(x: Array, name: str) -> None:
    """Refuse a sparse or nested tensor: the entries that it lacks would be logits of 0."""
    if x.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, got a nested tensor; convert it with to_padded_tensor"
        )
    if x.layout is not sys.modules["torch"].strided:
        raise TypeError(
            f"{name} must be a dense tensor, got layout {x.layout}; convert it with to_dense"
        )


def as_array(x: Any, name: str) -> Array:
    """An array of any library unchanged; a Dask table as a Dask array, else a NumPy array.

    NumPy makes objects of the nullable columns of pandas and of the lists in columns of polars
    and Arrow: those that are numbers become an array of numbers.
    """
    if type(x) is np.ndarray and x.dtype.kind != "O":
        return x
    if isinstance(x, np.ma.MaskedArray):
        instead = f"{name}.data with where=~mask" if name == "z" else "the rows without the mask"
        raise TypeError(f"{name} must not be a masked array; pass {instead} instead")
    if is_array_api_obj(x) and not isinstance(x, np.ndarray | np.generic):
        if is_torch_array(x):
            _check_layout(x, name)
        return x
    if is_dask(x) and hasattr(x, "to_dask_array"):
        return x.to_dask_array(lengths=True)
    try:
        array = np.asarray(x)
        if array.dtype == object:
            check_none_missing(array, name)
            if not isinstance(x, np.ndarray):
                numbers = np.array(array.tolist())
                array = numbers if numbers.dtype.kind in "biuf" else array
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name} must be a rectangular array, got: {error}") from None
    return array


def check_none_missing(x: NDArray[Any], name: str) -> None:
    """Refuse NaN and, in an array of objects, None and the missing value of pandas."""
    if x.dtype == object:
        missing = np.array([_is_missing(value) for value in x.flat], bool).reshape(x.shape)
    else:
        missing = np.isnan(x)
    if missing.any():
        index = tuple(map(int, np.argwhere(missing)[0]))
        place = f"row {index[0]}" if len(index) == 1 else f"index {index}"
        raise ValueError(f"{name} must have no missing values, got {x[index]} in {place}")


def _is_missing(value: Any) -> bool:
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def as_floating(x: Any, name: str) -> Array:
    """As :func:`as_array`; integers and booleans are converted to float64 before any arithmetic."""
    x = as_array(x, name)
    dtype = dtype_name(x.dtype)
    if dtype in _FLOATS or dtype in _LONG_DOUBLES:
        return x
    if dtype.startswith(("int", "uint", "bool")):
        if isinstance(x, np.ndarray):
            return x.astype(np.float64)
        xp = array_namespace(x)
        return xp.astype(x, widest_float(xp, x))
    raise TypeError(
        f"{name} must be a real array (float16, bfloat16, float32, float64, longdouble, integer or "
        f"boolean), got {dtype}"
    )


def scalar(x: Array) -> Array:
    """A 0-d NumPy array as a scalar, as NumPy's reductions return it; others unchanged."""
    return x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x


def list_of_reals(x: Any, name: str, length: int | None = None) -> NDArray[np.float64]:
    """A list of real numbers as a float64 array of shape (length,)."""
    numbers = on_host(as_floating(x, name), name).astype(np.float64)
    if numbers.ndim != 1 or length not in (None, len(numbers)):
        count = "" if length is None else f"{length} "
        raise ValueError(f"{name} must be a list of {count}numbers, got shape {numbers.shape}")
    return numbers


def on_host(x: Array, name: str = "z") -> NDArray[Any]:
    """The values as a NumPy array: a view if they are in the memory of this machine."""
    if isinstance(x, np.ndarray):
        return x
    _tracing.check_values(x, name)
    if is_torch_array(x):
        x = x.detach().cpu().resolve_neg()
        # NumPy has no bfloat16; float32 represents its values exactly.
        x = x.float() if dtype_name(x.dtype) == "bfloat16" else x
    return np.asarray(x)


def class_axes(axis: Any, ndim: int) -> Axes:
    """`axis` as sorted non-negative integers; empty for a 0-d array, where K = 1."""
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        axes = [_checks.integer(a, "axis") for a in given]
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
    # As in NumPy, a 0-d array takes axis 0 and -1.
    extent = max(ndim, 1)
    for a in axes:
        if not -extent <= a < extent:
            raise ValueError(
                f"axis must be from {-extent} to {extent - 1} for z with {ndim} dimensions, got {a}"
            )
    axes = sorted(a % extent for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis must not name the same axis twice, got {axis!r}")
    return tuple(axes) if ndim else ()


def one_axis(axis: Any, ndim: int) -> Axes:
    """As :func:`class_axes`, for a function that takes a single int."""
    if axis is None or isinstance(axis, tuple):
        raise TypeError(f"axis must be an int, got {axis!r}")
    return class_axes(axis, ndim)


def _broadcasts(shape: Shape, to: Shape) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False)
    )


def like(x: Any, z: Array, xp: Namespace, name: str) -> Array:
    """`x` as an array of the library of z, on the device of z."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array")
    if type(x) is type(z):
        return x
    if is_array_api_obj(x) and not isinstance(x, np.ndarray | np.generic):
        try:
            if array_namespace(x, z) is xp:
                return x
        except TypeError:
            raise TypeError(
                f"{name} must be an array of the same library as z, a {type(z).__name__}, "
                f"got {type(x).__name__}"
            ) from None
    x = np.asarray(x)
    if xp is np:
        return x
    # torch warns of read-only memory.
    x = x if x.flags.writeable else x.copy()
    return xp.asarray(x, device=getattr(z, "device", None))


def any_of(condition: Array, xp: Namespace) -> bool:
    """Whether a condition is true anywhere; False for a traced array, which has no values."""
    if xp is not np and not _tracing.has_values(condition):
        return False
    try:
        return bool(xp.any(condition))
    except (TypeError, RuntimeError):
        return False


def first_true(condition: Array, xp: Namespace) -> int:
    """The flat index of the first entry where a condition is true."""
    return int(xp.argmax(xp.astype(xp.reshape(condition, (-1,)), xp.int8)))


def move_axis(x: Array, source: int, destination: int, xp: Namespace) -> Array:
    """As ``moveaxis``, but under ``torch.vmap`` too, which has no batching rule for that."""
    order = [a for a in range(x.ndim) if a != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return xp.permute_dims(x, tuple(order))


def scale_nonzero(x: Array, factor: float | Array, xp: Namespace) -> Array:
    """`x` times a factor that may be infinite, such as 1/T of a tiny T: 0 stays 0."""
    return xp.where(x == 0, x, x * factor)


def at_least_float32(x: Array, xp: Namespace) -> Array:
    """`x`, from half types converted to float32: they are computed in it and rounded once."""
    half = dtype_name(x.dtype) in ("float16", "bfloat16")
    return xp.astype(x, xp.float32) if half else x


def check_differentiable(temperature: float | Array, xp: Namespace) -> None:
    """Refuse a temperature of 0, where softmax is discontinuous."""
    zero = temperature == 0
    if zero if isinstance(zero, bool) else any_of(zero, xp):
        raise ValueError("temperature must not be 0, where softmax has no derivative, got 0")


def check_nonnegative(x: Array, name: str, finite: bool = False) -> None:
    """Refuse an entry below 0 and, if `finite`, one that is infinite or NaN."""
    xp = array_namespace(x)
    if not math.prod(x.shape):
        return
    # The extremes are faster than a mask. They are NaN if an entry is.
    valid = xp.min(x) >= 0
    if finite:
        valid = valid & (xp.max(x) < xp.inf)
    if not any_of(~valid, xp):
        return
    invalid = ~((x >= 0) & (x < xp.inf)) if finite else x < 0
    if any_of(invalid, xp):
        index = tuple(map(int, np.unravel_index(first_true(invalid, xp), tuple(x.shape))))
        rule = "finite and >= 0" if finite else ">= 0"
        raise ValueError(f"{name} must be {rule}, got {float(x[index])} at index {index}")


def _check_temperature(temperature: Any, z: Array, axes: Axes) -> float | Array:
    """T as a float, or as an array of z's library that broadcasts against z."""
    if _checks.is_boolean(temperature):
        raise TypeError(f"temperature must be a real number, got {temperature!r}")
    if isinstance(temperature, float | int | Real):
        value = float(temperature)
        if math.isnan(value):
            raise ValueError("temperature must be a number, 0 and ±inf included, got nan")
        return value
    xp = np if isinstance(z, np.ndarray) else array_namespace(z)
    t = like(temperature, z, xp, "temperature")
    dtype = dtype_name(t.dtype)
    if not dtype.startswith(("float", "bfloat", "int", "uint")):
        raise TypeError(f"temperature must be a real number or array, got {dtype}")
    batch = tuple(n for i, n in enumerate(z.shape) if i not in axes)
    shape = tuple(t.shape)
    if not _broadcasts(shape, batch):
        hint = "; pass temperature[:, 0]" if shape == (*batch, 1) and len(batch) == 1 else ""
        raise ValueError(
            f"temperature must be a scalar or broadcast to the batch shape {batch} of z, "
            f"got shape {shape}{hint}"
        )
    wide = np.float64 if xp is np else widest_float(xp, z)
    # A copy for NumPy: out= may be the caller's temperature.
    t = np.array(t, dtype=wide) if xp is np else xp.astype(t, wide)
    if any_of(nan := xp.isnan(t), xp):
        index = tuple(map(int, np.unravel_index(first_true(nan, xp), shape)))
        raise ValueError(
            f"temperature must hold numbers, 0 and ±inf included, got nan at index {index}"
        )
    sizes = iter((1,) * (len(batch) - len(shape)) + shape)
    return xp.reshape(t, tuple(1 if i in axes else next(sizes) for i in range(z.ndim)))


def _check_where(where: Any, z: Array) -> Array:
    xp = np if isinstance(z, np.ndarray) else array_namespace(z)
    mask = like(where, z, xp, "where")
    if not dtype_name(mask.dtype).startswith("bool"):
        raise TypeError(f"where must be a boolean array, got {dtype_name(mask.dtype)}")
    if not _broadcasts(tuple(mask.shape), tuple(z.shape)):
        raise ValueError(
            f"where must broadcast to the shape {tuple(z.shape)} of z, "
            f"got shape {tuple(mask.shape)}"
        )
    return mask


def broadcast_weights(b: Any, name: str, request: Request) -> Array:
    """Real weights of the entries of z, of its shape in `request`."""
    z = request.z
    xp = array_namespace(z)
    b = like(as_floating(b, name), z, xp, name)
    shape = tuple(z.shape[:-1] if request.no_axis else z.shape)
    if not _broadcasts(tuple(b.shape), shape):
        raise ValueError(
            f"{name} must broadcast to the shape {shape} of z, got shape {tuple(b.shape)}"
        )
    return xp.broadcast_to(b[..., None] if request.no_axis else b, z.shape)


def request(z: Any, axis: Any, temperature: Any, where: Any) -> Request:
    """Check the arguments of a call and convert them to what every backend takes."""
    # The most common calls need no further checks.
    if (
        type(z) is np.ndarray
        and z.dtype in _NUMPY_FLOATS
        and type(axis) is int
        and -z.ndim <= axis < z.ndim
        and type(temperature) is float
        and temperature == temperature
        and where is None
    ):
        return Request(z, (axis % z.ndim,), temperature, None, False)
    z = as_floating(z, "z")
    axes = class_axes(axis, z.ndim)
    temperature = _check_temperature(temperature, z, axes)
    if where is not None:
        where = _check_where(where, z)
    if axes:
        return Request(z, axes, temperature, where, False)
    if not isinstance(temperature, float):
        temperature = temperature[..., None]
    if where is not None:
        where = where[..., None]
    return Request(z[..., None], (z.ndim,), temperature, where, True)
