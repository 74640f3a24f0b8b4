"""The backend module for each type of array. A framework is imported only for its own arrays."""

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from logitlab import _registry
from logitlab._arrays import Array
from logitlab._backends import native, plain_numpy

# The array libraries with a backend of their own: (top-level package, class) -> module.
_BACKENDS = {
    ("numpy", "ndarray"): "native",
    ("torch", "Tensor"): "torch",
    ("jaxlib", "ArrayImpl"): "jax",
    ("jax", "Tracer"): "jax",
    ("dask", "Array"): "dask",
}


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_backend_of_type: dict[type, ModuleType] = {}
# As `native.plain`, for the arrays of other libraries.
_plain_of_type: dict[type, ModuleType] = {}


def _import_backend(array_type: type) -> ModuleType:
    for base in array_type.__mro__:
        name = _BACKENDS.get((base.__module__.partition(".")[0], base.__name__))
        if name is not None:
            return importlib.import_module(f"logitlab._backends.{name}")
    return importlib.import_module("logitlab._backends.reference")


def backend(z: Array) -> ModuleType:
    """The module whose functions take arrays of the type of z."""
    array_type = type(z)
    if array_type not in _backend_of_type:
        _backend_of_type[array_type] = module = _import_backend(array_type)
        if hasattr(module, "plain_softmax"):
            _plain_of_type[array_type] = module
    return _backend_of_type[array_type]


def plain(z: Any) -> Any:
    """The module whose functions plain_softmax, ... take the most common calls, or return None."""
    if type(z) is np.ndarray:
        return native.plain
    # torch.compile can trace the Python functions.
    return _plain_of_type.get(type(z), plain_numpy)


def plain_loss(z: Any, y: Any, axis: Any, temperature: Any, with_gradient: bool) -> Any:
    """The mean loss of labels, or that and its gradient, of the most common calls; else None."""
    if type(z) is np.ndarray:
        return native.plain_cross_entropy(z, y, axis, temperature, with_gradient)
    if (module := _plain_of_type.get(type(z))) is None:
        return None
    return module.plain_cross_entropy(z, y, axis, temperature, with_gradient)


def fused_loss(z: Array, name: str) -> Callable[..., Array | None] | None:
    """A backend's function for a reduced loss, if it has one that computes gradients with it."""
    return getattr(backend(z), name, None)


def _is_compiling() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def compiled_functions(z: Any) -> ModuleType | None:
    """The module of the operators for torch.compile while that traces the call, else None."""
    if type(z) is np.ndarray or not _is_compiling():
        return None
    return _registry.module("torch_compile")


def sharded(name: str, z: Any, axis: Any) -> Callable[..., Any] | None:
    """The function of this name for a torch DTensor with this axis sharded, else None."""
    if type(z) is np.ndarray or type(z).__name__ != "DTensor":
        return None
    tensors = sys.modules.get("torch.distributed.tensor")
    is_tensor = tensors is not None and isinstance(z, tensors.DTensor)
    if not is_tensor or type(axis) is not int or not -z.ndim <= axis < z.ndim:
        return None
    if not any(placement.is_shard(axis % z.ndim) for placement in z.placements):
        return None
    return functools.partial(_registry.module("parallel").call, name)


def breaks_graph(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A function that reads values: torch.compile calls it between two graphs."""

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if _is_compiling():
            result: Result = _registry.module("torch_compile").call_eagerly(
                function, *args, **kwargs
            )
            return result
        return function(*args, **kwargs)

    return call


# The functions that torch's autocast computes in float32 on CPUs; on other devices, in
# `_AUTOCAST` as well.
_AUTOCAST_CPU = frozenset({"cross_entropy", "kl_divergence", "linear_cross_entropy"})
_AUTOCAST = _AUTOCAST_CPU | {"softmax", "log_softmax", "logsumexp"}


def autocast(name: str, x: Array) -> Array:
    """`x`, under torch.autocast converted to float32 for the functions that this computes in it."""
    if type(x) is np.ndarray:
        return x
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor) or x.is_meta or x.itemsize > 2:
        return x
    device = x.device.type
    covered = _AUTOCAST_CPU if device == "cpu" else _AUTOCAST
    is_half = x.dtype in (torch.float16, torch.bfloat16)
    return x.float() if is_half and name in covered and torch.is_autocast_enabled(device) else x
