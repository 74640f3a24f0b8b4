"""Laws of special values and types."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab.laws.cases import Case, explicit
from logitlab.laws.context import Context
from logitlab.laws.law import Measured, failed, silent, stated
from logitlab.laws.pointwise import against_exact

inf, nan = np.inf, np.nan

MINUS_INFINITY = [[-inf, 1.0, 2.0], [1.0, -inf, -inf], [0.0, -inf, 0.0], [-inf, -30.0, -30.0]]
NAN = [[nan, 1.0, 2.0], [1.0, nan, -inf], [2.0, 1.0, nan], [nan, nan, nan]]
PLUS_INFINITY = [[inf, 1.0, 2.0], [inf, inf, 0.0], [inf, -inf, 1.0], [0.0, 1.0, inf]]
NOTHING = [[-inf, -inf, -inf]]
RANGES = {
    "int8": [[-128, 127, 0], [0, 5, 9], [-128, -127, -128]],
    "uint8": [[0, 5, 9], [200, 255, 0], [255, 254, 253]],
    "int32": [[-(2**31), 2**31 - 1, 0], [0, 5, 9]],
    "int64": [[-(2**53), 2**53, 0], [0, 5, 9]],
}
LEAST = {"int8": -128, "uint8": 0, "int32": -128, "int64": -128}


def rows(values: list[list[float]]) -> Callable[[Context, str], Iterator[Case]]:
    """Each row by itself: a special value in one row is no reason to spoil another."""

    def cases(context: Context, dtype: str) -> Iterator[Case]:
        for row in values:
            yield explicit([row], dtype)
            yield explicit([row[:2]], dtype)

    return cases


def shorter(special: list[float]) -> Callable[[Case], Any]:
    """Rows of up to three entries with a special value among them."""

    def near(case: Case) -> Any:
        entry = st.sampled_from([*special, 0.0, 1.0])
        return st.lists(entry, min_size=1, max_size=3).map(lambda row: explicit([row], case.dtype))

    return near


def only(condition: Callable[[Any], Any]) -> Callable[[Context, Case], Measured]:
    """Rows that meet a condition against the exact answer."""

    def measure(context: Context, case: Case) -> Measured:
        if not condition(case.z).all():
            return silent()
        return against_exact(context, case)

    return measure


def _finite_or_excluded(z: Any) -> Any:
    left = (z > -inf).any(axis=-1)
    return left & ~np.isnan(z).any(axis=-1) & (z < inf).all(axis=-1)


minus_infinity = only(lambda z: _finite_or_excluded(z) & (z == -inf).any(axis=-1))
not_a_number = only(lambda z: np.isnan(z).any(axis=-1))
plus_infinity = only(lambda z: (z == inf).any(axis=-1) & ~np.isnan(z).any(axis=-1))
nothing_left = only(lambda z: (z == -inf).all(axis=-1))


def empty_rows(context: Context, dtype: str) -> Iterator[Case]:
    """No classes."""
    yield Case(np.zeros((3, 0)), dtype, "np.zeros((3, 0))")


def no_classes(context: Context, case: Case) -> Measured:
    """An empty result of the same shape."""
    result = context.result(case)
    return stated(bool(result.error), result.error, "an empty array of shape (3, 0)")


def integer_rows(context: Context, dtype: str) -> Iterator[Case]:
    """Integers at both ends of their range."""
    for row in RANGES[dtype]:
        yield explicit([row], dtype)


def integers(context: Context, case: Case) -> Measured:
    """Against the exact answer for the same numbers; a type that is refused is not claimed."""
    if context.result(case).error:
        return silent()
    return against_exact(context, case)


def fewer_integers(case: Case) -> Any:
    """Short rows of integers of the type."""
    ends = [int(x) for row in RANGES[case.dtype] for x in row]
    entry = st.integers(0, 9) | st.sampled_from(ends) | st.integers(LEAST[case.dtype], 127)
    return st.lists(entry, min_size=1, max_size=3).map(lambda row: explicit([row], case.dtype))


def result_type(context: Context, case: Case) -> Measured:
    """That of the logits."""
    result = context.result(case)
    if result.error:
        return failed(result.error)
    of = "an array of {}".format
    return stated(result.dtype != case.dtype, of(result.dtype), of(case.dtype))


def a_row(context: Context, dtype: str) -> Iterator[Case]:
    """One ordinary row."""
    yield explicit([[0.0, 1.0]], dtype)
