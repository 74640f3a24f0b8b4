"""Modules that are loaded on first use by the modules below them.

A result draws itself with :mod:`logitlab.plot`, and a call that torch.compile traces goes to the
operators of ``_torch_compile``. Both stand above the functions that need them, so the package
registers here how each of them is loaded.
"""

from collections.abc import Callable
from types import ModuleType

_loaders: dict[str, Callable[[], ModuleType]] = {}


def register(name: str, load: Callable[[], ModuleType]) -> None:
    """Register the function that imports a module."""
    _loaders[name] = load


def module(name: str) -> ModuleType:
    """The registered module of this name, imported if it was not yet."""
    return _loaders[name]()
