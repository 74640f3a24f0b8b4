"""Modules of higher layers that lower layers load on first use.

The ``plot`` method of a result uses :mod:`logitlab.plot`; a call traced by torch.compile uses the
operators of ``_torch_compile``, and one of a DTensor :mod:`logitlab.parallel`; a formula uses a
subclass of the regression. These modules import what needs them, so the package registers here how
to load them.
"""

from collections.abc import Callable
from types import ModuleType

_loaders: dict[str, Callable[[], ModuleType]] = {}


def register(name: str, load: Callable[[], ModuleType]) -> None:
    """Register the function that imports a module."""
    _loaders[name] = load


def module(name: str) -> ModuleType:
    """The module registered under a name, imported on the first call."""
    return _loaders[name]()
