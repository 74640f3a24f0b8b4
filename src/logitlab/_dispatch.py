"""The backend module for each type of array. A framework is imported only for its own arrays."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from logitlab import _registry
from logitlab._arrays import Array

# The array libraries with a backend of their own: (top-level package, class) -> module.
_BACKENDS = {
    ("numpy", "ndarray"): "native",
    ("torch", "Tensor"): "torch",
}


_backend_of_type: dict[type, ModuleType] = {}


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
        _backend_of_type[array_type] = _import_backend(array_type)
    return _backend_of_type[array_type]


def fused_loss(z: Array, name: str) -> Callable[..., Array | None] | None:
    """A backend's function for a reduced loss, if it has one that computes gradients with it."""
    return getattr(backend(z), name, None)


def compiled_functions(z: Any) -> ModuleType | None:
    """The module of the operators for torch.compile while that traces the call, else None."""
    if type(z) is np.ndarray:
        return None
    torch = sys.modules.get("torch")
    if torch is None or not torch.compiler.is_compiling():
        return None
    return _registry.module("torch_compile")
