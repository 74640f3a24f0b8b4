"""Array type -> backend module. A framework is imported only when the caller brought its arrays."""

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np

from logitlab import _registry

# One row per array library with a backend of its own: (top-level package, class) -> module.
_BACKENDS = {
    ("numpy", "ndarray"): "native",
    ("torch", "Tensor"): "torch",
}


_of_type: dict[type, ModuleType] = {}


def _find(kind: type) -> ModuleType:
    for base in kind.__mro__:
        name = _BACKENDS.get((base.__module__.partition(".")[0], base.__name__))
        if name is not None:
            return importlib.import_module(f"logitlab._backends.{name}")
    return importlib.import_module("logitlab._backends.reference")


def backend(z: Any) -> ModuleType:
    """The module whose functions take arrays of the kind of `z`."""
    kind = type(z)
    if kind not in _of_type:
        _of_type[kind] = _find(kind)
    return _of_type[kind]


def total(z: Any, name: str) -> Any:
    """A backend's function of a whole loss, where it has one: with gradients in one sweep."""
    return getattr(backend(z), name, None)


def graph(z: Any) -> Any:
    """The functions for a graph while torch.compile is tracing one, else None."""
    if type(z) is np.ndarray:
        return None
    torch = sys.modules.get("torch")
    if torch is None or not torch.compiler.is_compiling():
        return None
    return _registry.module("torch_compile")
