"""Checks of arguments that are not arrays. The errors name the argument, the rule and the value."""

import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np


def is_boolean(x: Any) -> bool:
    """Whether x is a Python or NumPy boolean: those are refused where a number is asked for."""
    return isinstance(x, bool | np.bool_)


def integer(n: Any, name: str, minimum: int | None = None) -> int:
    """Return n as an int, checked to be at least `minimum`."""
    try:
        # A boolean tensor of one entry has an index.
        if is_boolean(n) or str(getattr(n, "dtype", "")).endswith("bool"):
            raise TypeError
        value = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {n!r}") from None
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {value}")
    return value


def integers(n: Any, name: str) -> tuple[int, ...]:
    """Return an int, or a sequence of ints, as a tuple."""
    if isinstance(n, list | tuple | range) or getattr(n, "ndim", 0) == 1:
        return tuple(integer(i, name) for i in n)
    return (integer(n, name),)


def real(x: Any, name: str, rule: str, valid: Callable[[float], bool]) -> float:
    """Return x as a float, checked to be `valid`; `rule` states the condition in words."""
    if not isinstance(x, Real) or is_boolean(x):
        raise TypeError(f"{name} must be a real number, got {x!r}")
    try:
        value = float(x)
    except OverflowError:
        raise ValueError(f"{name} must be {rule}, got a number too large for a float") from None
    if not valid(value):
        raise ValueError(f"{name} must be {rule}, got {value}")
    return value


def boolean(x: Any, name: str) -> bool:
    """Return x, checked to be True or False."""
    if not is_boolean(x):
        raise TypeError(f"{name} must be True or False, got {x!r}")
    return bool(x)


def row_label(index: tuple[int, ...]) -> str:
    """The words for the row at this index of a batch."""
    return f"row {index[0] if len(index) == 1 else index}"


def between_0_and_1(x: Any, name: str) -> float:
    """Return x as a float, checked to be between 0 and 1, without both."""
    return real(x, name, "between 0 and 1", lambda value: 0 < value < 1)


def choice(x: Any, name: str, choices: tuple[Any, ...]) -> Any:
    """Return x, checked to be one of `choices`."""
    if not any(x is c or (type(x) is type(c) and x == c) for c in choices):
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {listed}, got {x!r}")
    return x


def names(values: Any, argument: str, known: Iterable[str]) -> None:
    """Raise an error unless `values` is a list of known names or None."""
    if values is None:
        return
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be a list of names, got {values!r}")
    known = list(known)
    for value in values:
        if value not in known:
            raise ValueError(f"{argument} must be some of {', '.join(known)}, got {value!r}")


def generator(rng: Any) -> np.random.Generator:
    """Return the NumPy generator of a seed, or a generator unchanged."""
    try:
        if is_boolean(rng):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng must be None, an int >= 0 or a numpy.random.Generator, got {rng!r}"
        ) from None
