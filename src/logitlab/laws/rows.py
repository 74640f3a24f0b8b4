"""Cases for the laws about single rows, and strategies of simpler ones."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import FORMATS, Floats, rounded, spacing
from logitlab.laws.cases import Case, Strategies, explicit_case, normal_case, short_cases
from logitlab.laws.context import Context

SHIFTS = (1e-3, 1.0, -1.0, 30.0, 100.0, -100.0, 1000.0, -1e4, 3e4, 1e6, -1e10, 1e30, -1e30)
SCALES = (2.0**-10, 0.1, 0.5, 2.0, 10.0, 2.0**10, 1e30)
TEMPERATURES = (0.5, 2.5, 0.1, 1e-3, 1e3, 1e-5, 1e5, 1e-30, 1e30)


def ordinary(context: Context, dtype: str) -> tuple[Case, ...]:
    """Ordinary rows, on which most laws are checked."""
    return context.ordinary_cases(dtype)


def dominant_class(context: Context, dtype: str) -> Iterator[Case]:
    """Rows with one large logit, of which the log-probability is close to 0."""
    yield explicit_case([[0.0, -d] for d in (0.5, 1, 3, 5, 8, 10, 12, 15, 20, 30, 50, 80)], dtype)
    yield explicit_case([[3.0, 1.0, d] for d in (-1, -5.0, -10.0, -15.0)], dtype)


def _tied_case(n: int, k: int, seed: int, dtype: str) -> Case:
    """Rows in which seven values recur."""
    text = f"np.resize(np.random.default_rng({seed}).normal(0, 3, 7), ({n}, {k}))"
    z = np.resize(np.random.default_rng(seed).normal(0, 3, 7), (n, k))
    return Case(rounded(z, dtype), dtype, text)


def tied(context: Context, dtype: str) -> Iterator[Case]:
    """Rows with equal logits at many positions."""
    for k in (2, 3, 8, 9, 15, 16, 17, 23, 31, 33, 65, 100, 129, 1001, 5003):
        yield _tied_case(3, k, k, dtype)
    yield explicit_case([[-0.0, 0.0, 1.0]], dtype)


def simpler_tied(case: Case) -> Strategies:
    """Short rows, or single rows with equal logits."""
    single = st.builds(
        lambda k, seed: _tied_case(1, k, seed, case.dtype),
        st.integers(2, 2 * case.n_classes),
        st.integers(0, 9),
    )
    return [short_cases(case)[0] | single]


def close_pairs(context: Context, dtype: str) -> Iterator[Case]:
    """Rows of two logits with a small difference, at several magnitudes."""
    for z in (0.0, 1.0, -3.0, 100.0, 1000.0):
        step = np.ldexp(float(spacing(z or 2.0**-10, dtype)), np.arange(0, 40, 1))
        pairs = [pair for d in step for pair in rounded([[z, z + d]], dtype) if d <= 1.0]
        if pairs:
            yield explicit_case(pairs, dtype)


def single_rows(case: Case) -> Strategies:
    """One of the rows of a case."""
    rows = st.sampled_from(case.z.tolist())
    return [rows.map(lambda row: explicit_case([row], case.dtype))]


def _apply(z: Floats, operator: str, constant: float) -> Floats:
    return z + constant if operator == "+" else z * constant


def _representable(constants: tuple[float, ...], dtype: str) -> list[float]:
    return [c for c in constants if abs(c) <= FORMATS[dtype].max / 16]


def _transformed(operator: str, constants: tuple[float, ...], dtype: str) -> Iterator[Case]:
    for c in _representable(constants, dtype):
        for k in (2, 5, 17, 100):
            base = normal_case(4, k, 3.0, k, dtype)
            z = rounded(_apply(base.z, operator, c), dtype)
            source = f"{base.source}.astype(np.float64)"
            if dtype != "float64":  # the row is rounded to the dtype before and after
                name = "ml_dtypes.bfloat16" if dtype == "bfloat16" else f"np.{dtype}"
                source = f"{base.source}.astype({name}).astype(np.float64)"
            yield Case(z, dtype, f"({source} {operator} {c!r})", parameter=c)


def translated(context: Context, dtype: str) -> Iterator[Case]:
    """z + c, rounded."""
    return _transformed("+", SHIFTS, dtype)


def scaled(context: Context, dtype: str) -> Iterator[Case]:
    """s z, rounded."""
    return _transformed("*", SCALES, dtype)


def _simpler_transformed(
    operator: str, constants: tuple[float, ...]
) -> Callable[[Case], Strategies]:
    def simpler(case: Case) -> Strategies:
        entry = st.integers(0, 5) | st.integers(-20, 0)
        transformed = st.builds(
            lambda row, c: explicit_case([_apply(np.array(row), operator, c)], case.dtype),
            st.lists(entry.map(float), min_size=1, max_size=5),
            st.sampled_from(_representable(constants, case.dtype)),
        )
        return [transformed, *short_cases(case)]

    return simpler


simpler_translated = _simpler_transformed("+", SHIFTS)
simpler_scaled = _simpler_transformed("*", SCALES)


def at_temperatures(temperatures: tuple[float, ...]) -> Callable[[Context, str], Iterator[Case]]:
    """Ordinary rows at several temperatures."""

    def rows(context: Context, dtype: str) -> Iterator[Case]:
        for t in temperatures:
            options = {"temperature": t}
            yield normal_case(3, 5, 3.0, 5, dtype, options=options)
            yield explicit_case([[0.0, 1.0, 3.0, 3.0]], dtype, options=options)

    return rows


def overflowing(context: Context, dtype: str) -> Iterator[Case]:
    """Finite logits up to the largest number of the dtype, whose exponentials overflow."""
    top = FORMATS[dtype].max
    sizes = [89.0, 712.0, 12.0, 1000.0, 5000.0, 60000.0, top / 4, top / 2, top]
    sizes = [x for x in sizes if x <= top]
    yield explicit_case([[x, x - 1, 0.0] for x in sizes], dtype)
    yield explicit_case([[-x, 1 - x, -x] for x in sizes], dtype)
    yield explicit_case([[x, -x, 0.0] for x in sizes], dtype)
    yield explicit_case([[x, x, -x] for x in sizes], dtype)


def underflowing(context: Context, dtype: str) -> Iterator[Case]:
    """Rows with a probability near or below the smallest normal number."""
    nmant, minexp, _ = FORMATS[dtype]
    first, last = (-np.log(2.0) * e for e in (minexp + 2, minexp - nmant - 2))
    yield explicit_case([[0.0, -x] for x in np.linspace(first, last, 40)], dtype)
    yield explicit_case([[0.0, 0.0, 1.0, -x] for x in np.linspace(first, last, 15)], dtype)
    yield normal_case(8, 33, round(last / 3), 7, dtype)


def one_class(context: Context, dtype: str) -> Iterator[Case]:
    """Rows of a single finite logit."""
    yield explicit_case([[0.0], [5.0], [-5.0], [1000.0], [-1000.0]], dtype)


def neighbours(context: Context, dtype: str) -> Iterator[Case]:
    """Pairs of rows at distances from one ULP to 10: rows 2i and 2i + 1."""
    rng = np.random.default_rng(context.seed)
    for k in (2, 3, 10):
        a = rounded(rng.normal(0, 2, (40, k)), dtype)
        step = rng.normal(0, 1, (40, k)) * 10.0 ** rng.uniform(-8, 1, (40, 1))
        yield explicit_case(np.stack([a, rounded(a + step, dtype)], 1).reshape(-1, k), dtype)


def simpler_neighbours(case: Case) -> Strategies:
    """Two short rows."""
    simple: list[Any] = [0.0, 1.0, -1.0, 0.5, 1.5, 2.0, 3.0, 2.0**-10, -(2.0**-10)]
    values = st.sampled_from([*simple, *case.z.ravel()[:100].tolist()])
    column = st.tuples(values, values) | values.map(lambda x: (x, x))
    columns = st.lists(column, min_size=1, max_size=4)
    return [columns.map(lambda c: explicit_case(np.array(c).T, case.dtype))]
