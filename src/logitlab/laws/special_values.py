"""Laws of special values and dtypes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import Floats
from logitlab.laws.cases import Case, Strategies, explicit_case
from logitlab.laws.context import Context
from logitlab.laws.law import Deviation, from_condition, from_error, not_covered
from logitlab.laws.pointwise import all_entries

inf, nan = np.inf, np.nan

MINUS_INFINITY = [[-inf, 1.0, 2.0], [1.0, -inf, -inf], [0.0, -inf, 0.0], [-inf, -30.0, -30.0]]
NAN = [[nan, 1.0, 2.0], [1.0, nan, -inf], [2.0, 1.0, nan], [nan, nan, nan]]
PLUS_INFINITY = [[inf, 1.0, 2.0], [inf, inf, 0.0], [inf, -inf, 1.0], [0.0, 1.0, inf]]
ALL_EXCLUDED = [[-inf, -inf, -inf]]
INTEGER_ROWS = {
    "int8": [[-128, 127, 0], [0, 5, 9], [-128, -127, -128]],
    "uint8": [[0, 5, 9], [200, 255, 0], [255, 254, 253]],
    "int32": [[-(2**31), 2**31 - 1, 0], [0, 5, 9]],
    "int64": [[-(2**53), 2**53, 0], [0, 5, 9]],
}


def special_rows(rows: list[list[float]]) -> Callable[[Context, str], Iterator[Case]]:
    """Each row as a case of its own, so that one row cannot affect another; and its first two."""

    def cases(context: Context, dtype: str) -> Iterator[Case]:
        for row in rows:
            yield explicit_case([row], dtype)
            yield explicit_case([row[:2]], dtype)

    return cases


def shorter(special: float) -> Callable[[Case], Strategies]:
    """Rows of up to three entries that may be a special value."""

    def simpler(case: Case) -> Strategies:
        entry = st.sampled_from([special, 0.0, 1.0])
        rows = st.lists(entry, min_size=1, max_size=3)
        return [rows.map(lambda row: explicit_case([row], case.dtype))]

    return simpler


def _on_rows(condition: Callable[[Floats], Any]) -> Callable[[Context, Case], Deviation]:
    """The error of every entry of the cases whose rows all meet a condition."""

    def measure(context: Context, case: Case) -> Deviation:
        if not condition(case.z).all():
            return not_covered()
        return all_entries(context, case)

    return measure


def _is_finite_or_excluded(z: Floats) -> Any:
    return (z > -inf).any(axis=-1) & ~np.isnan(z).any(axis=-1) & (z < inf).all(axis=-1)


minus_infinity = _on_rows(lambda z: _is_finite_or_excluded(z) & (z == -inf).any(axis=-1))
not_a_number = _on_rows(lambda z: np.isnan(z).any(axis=-1))
plus_infinity = _on_rows(lambda z: (z == inf).any(axis=-1) & ~np.isnan(z).any(axis=-1))
all_excluded = _on_rows(lambda z: (z == -inf).all(axis=-1))


def empty_rows(context: Context, dtype: str) -> Iterator[Case]:
    """Rows without classes."""
    yield Case(np.zeros((3, 0)), dtype, "np.zeros((3, 0))")


def no_classes(context: Context, case: Case) -> Deviation:
    """Whether the result is an empty array of the same shape."""
    result = context.result(case)
    return from_condition(bool(result.error), result.error, "an empty array of shape (3, 0)")


def integer_rows(context: Context, dtype: str) -> Iterator[Case]:
    """Integers at both ends of their range."""
    for row in INTEGER_ROWS[dtype]:
        yield explicit_case([row], dtype)


def integers(context: Context, case: Case) -> Deviation:
    """The error for integer logits; a dtype that the function refuses is not covered."""
    if context.result(case).error:
        return not_covered()
    return all_entries(context, case)


def shorter_integers(case: Case) -> Strategies:
    """Short rows of integers of the dtype."""
    ends = [int(x) for row in INTEGER_ROWS[case.dtype] for x in row]
    lowest = 0 if case.dtype == "uint8" else -128
    entry = st.integers(0, 9) | st.sampled_from(ends) | st.integers(lowest, 127)
    rows = st.lists(entry, min_size=1, max_size=3)
    return [rows.map(lambda row: explicit_case([row], case.dtype))]


def result_dtype(context: Context, case: Case) -> Deviation:
    """Whether the result has the dtype of the logits."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    text = "an array of {}".format
    return from_condition(result.dtype != case.dtype, text(result.dtype), text(case.dtype))


def single_row(context: Context, dtype: str) -> Iterator[Case]:
    """One ordinary row."""
    yield explicit_case([[0.0, 1.0]], dtype)
