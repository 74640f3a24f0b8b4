"""Arguments that are no arrays: each has one error that names it."""

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np


def whole(n: Any, name: str, least: int | None = None) -> int:
    """An int, of at least so much."""
    try:
        if isinstance(n, bool):
            raise TypeError
        found = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {n!r}") from None
    if least is not None and found < least:
        raise ValueError(f"{name} is {found}; accepted: {least} and up")
    return found


def real(x: Any, name: str, accepted: str, inside: Callable[[float], bool]) -> float:
    """A real number that lies where it is accepted."""
    if not isinstance(x, Real) or isinstance(x, bool):
        raise TypeError(f"{name} must be a real number, not {x!r}")
    value = float(x)
    if not inside(value):
        raise ValueError(f"{name} is {value}; accepted: {accepted}")
    return value


def generator(rng: Any) -> np.random.Generator:
    """NumPy's generator of a seed."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng is {rng!r}; accepted: None, an int from 0 up, or a numpy.random.Generator"
        ) from None
