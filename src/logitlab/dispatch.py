"""Array type -> backend module. A framework is imported only when the caller brought its arrays."""

from types import ModuleType
from typing import Any

from logitlab.backends import reference


def backend(z: Any) -> ModuleType:
    """The module whose functions take arrays of the kind of `z`."""
    return reference
