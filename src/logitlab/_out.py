"""Checks of ``out=``, the memory that a result is written to."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_torch_array, is_writeable_array
from numpy.typing import NDArray

from logitlab import _tracing
from logitlab._arrays import Array, DType, Request, dtype_name, native_type


def _numpy_view(x: Array) -> NDArray[Any] | None:
    """A NumPy view of the same memory, or None if that is not in the memory of this machine."""
    if isinstance(x, np.ndarray):
        return x
    if is_torch_array(x):
        if x.device.type != "cpu" or not _tracing.has_values(x):
            return None
        import torch

        # NumPy has no bfloat16; an integer type of the same width has the same bytes.
        same_width = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        view: NDArray[Any] = x.detach().view(same_width[x.element_size()]).numpy()
        return view
    try:
        return np.from_dlpack(x)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return None


def _may_overlap(out: Array, x: Array) -> bool:
    """Whether an entry of `out` is in the memory of x, but not at the place of the same entry."""
    a, b = _numpy_view(out), _numpy_view(x)
    if a is None or b is None or not np.may_share_memory(a, b):
        return False
    same = a.__array_interface__["data"] == b.__array_interface__["data"]
    same = same and a.strides == b.strides and a.itemsize == b.itemsize
    return not same and np.shares_memory(a, b)


def _entries_share_memory(x: Array) -> bool:
    """Whether two entries of an array are at the same place, as in a broadcast array."""
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        return False
    if is_torch_array(x):
        strides, itemsize = x.stride(), 1
    else:
        view = _numpy_view(x)
        strides, itemsize = (None, 0) if view is None else (view.strides, view.itemsize)
        strides = getattr(x, "strides", None) if strides is None else strides
    if strides is None or 0 in x.shape:
        return False
    steps = sorted((abs(s), n) for s, n in zip(strides, x.shape, strict=True) if n > 1)
    extent = itemsize
    for step, n in steps:
        if step < extent:
            break
        extent += step * (n - 1)
    else:
        return False
    # No slice of an array reaches this: the places are compared one by one.
    places = np.zeros(1, np.int64)
    for step, n in steps:
        places = np.add.outer(places, np.arange(n) * step).reshape(-1)
    places.sort()
    return bool((np.diff(places) < itemsize).any())


def _check_library_of_out(out: Any, z: Array) -> None:
    """Refuse an `out` that is not a writeable array of z's library, on z's device."""
    if (
        not is_array_api_obj(out)
        or isinstance(out, np.ma.MaskedArray | np.generic)
        or isinstance(out, np.ndarray) != isinstance(z, np.ndarray)
        or array_namespace(out) is not array_namespace(z)
    ):
        raise TypeError(
            f"out must be an array of the same library as z, a {type(z).__name__}, "
            f"got {type(out).__name__}"
        )
    if not is_writeable_array(out) and not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a writeable array, got an immutable {type(out).__name__}")
    if is_torch_array(out) and (out.requires_grad or z.requires_grad):
        raise ValueError("out must be None where autograd is active; omit it, or detach z and out")
    if getattr(out, "device", None) != getattr(z, "device", None):
        raise ValueError(f"out must be on the device of z, {z.device}, got {out.device}")


def _dtype_label(dtype: DType) -> str:
    swapped = isinstance(dtype, np.dtype) and not dtype.isnative
    return dtype_name(dtype) + (" in the other byte order" if swapped else "")


def check_out(out: Any, request: Request) -> Array | None:
    """`out` as the backends take it: writeable, of the result's library, type and shape."""
    if out is None:
        return None
    z = request.z
    shape = z.shape[:-1] if request.no_axis else z.shape
    if not (type(out) is type(z) is np.ndarray):
        _check_library_of_out(out, z)
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    dtype = native_type(z.dtype)
    if out.dtype != dtype or out.shape != shape:
        raise ValueError(
            f"out must have type {_dtype_label(dtype)} and shape {tuple(shape)}, "
            f"got {_dtype_label(out.dtype)} and {tuple(out.shape)}"
        )
    if request.no_axis:
        out = out[..., None]
    if _entries_share_memory(out):
        raise ValueError("out must have its own memory for each entry, got entries that share it")
    if out is not z and _may_overlap(out, z):
        raise ValueError("out must be z itself or disjoint from z, got overlapping memory")
    if request.where is not None and _may_overlap(out, request.where):
        raise ValueError("out must be disjoint from where, got overlapping memory")
    return out
