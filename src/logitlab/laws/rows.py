"""The rows that laws of single rows look at, and smaller ones near a counterexample."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import FORMATS, rounded, spacing
from logitlab.laws.cases import Case, explicit, normal, short_rows
from logitlab.laws.context import Context

SEEDS = st.integers(0, 9)
SHIFTS = (1e-3, 1.0, -1.0, 30.0, 100.0, -100.0, 1000.0, -1e4, 3e4, 1e6, -1e10, 1e30, -1e30)
SCALES = (2.0**-10, 0.1, 0.5, 2.0, 10.0, 2.0**10, 1e30)
TEMPERATURES = (0.5, 2.5, 0.1, 1e-3, 1e3, 1e-5, 1e5, 1e-30, 1e30)


def ordinary(context: Context, dtype: str) -> tuple[Case, ...]:
    """The rows that most laws look at."""
    return context.body(dtype)


def maxima(context: Context, dtype: str) -> Iterator[Case]:
    """One entry far ahead: the logarithm at the maximum is tiny."""
    yield explicit([[0.0, -d] for d in (0.5, 1, 3, 5, 8, 10, 12, 15, 20, 30, 50, 80)], dtype)
    yield explicit([[3.0, 1.0, d] for d in (-1, -5.0, -10.0, -15.0)], dtype)


def tied(n: int, k: int, seed: int, dtype: str) -> Case:
    """Rows in which seven values recur."""
    text = f"np.resize(np.random.default_rng({seed}).normal(0, 3, 7), ({n}, {k}))"
    z = np.resize(np.random.default_rng(seed).normal(0, 3, 7), (n, k))
    return Case(rounded(z, dtype), dtype, text)


def tied_rows(context: Context, dtype: str) -> Iterator[Case]:
    """Equal logits in every part of short and long rows."""
    for k in (2, 3, 8, 9, 15, 16, 17, 23, 31, 33, 65, 100, 129, 1001, 5003):
        yield tied(3, k, k, dtype)
    yield explicit([[-0.0, 0.0, 1.0]], dtype)


def near_ties(case: Case) -> Any:
    """Small rows, or the same values in fewer places."""
    many = st.builds(
        lambda k, seed: tied(1, k, seed, case.dtype), st.integers(2, 2 * case.classes), SEEDS
    )
    return short_rows(case.dtype, case.z).map(lambda row: explicit([row], case.dtype)) | many


def close_pairs(context: Context, dtype: str) -> Iterator[Case]:
    """Two logits of several sizes that differ by little."""
    for size in (0.0, 1.0, -3.0, 100.0, 1000.0):
        step = np.ldexp(float(spacing(size or 2.0**-10, dtype)), np.arange(0, 40, 1))
        pairs = [pair for d in step for pair in rounded([[size, size + d]], dtype) if d <= 1.0]
        if pairs:
            yield explicit(pairs, dtype)


def near_pairs(case: Case) -> Any:
    """One of the pairs of the batch."""
    rows = [row for row in case.z.tolist() if len(row) == 2]
    return st.sampled_from(rows).map(lambda row: explicit([row], case.dtype))


def _moved(z: Any, law: str, by: float) -> Any:
    return z + by if law == "+" else z * by


def _variants(dtype: str, law: str, values: tuple[float, ...]) -> Iterator[Case]:
    for by in values:
        if abs(by) > FORMATS[dtype].largest / 16:
            continue
        for k in (2, 5, 17, 100):
            base = normal(4, k, 3.0, k, dtype)
            z = rounded(_moved(base.z, law, by), dtype)
            cast = f"{base.source}.astype(np.float64)" if dtype == "float64" else base.source
            if dtype != "float64":  # the row itself is of the type, then moved
                name = "ml_dtypes.bfloat16" if dtype == "bfloat16" else f"np.{dtype}"
                cast = f"{base.source}.astype({name}).astype(np.float64)"
            yield Case(z, dtype, f"({cast} {law} {by!r})", parameter=by)


def translated(context: Context, dtype: str) -> Iterator[Case]:
    """z + c, rounded."""
    return _variants(dtype, "+", SHIFTS)


def scaled(context: Context, dtype: str) -> Iterator[Case]:
    """s z, rounded."""
    return _variants(dtype, "*", SCALES)


def near_moved(law: str) -> Any:
    """Short rows of small integers, moved."""

    def near(case: Case) -> Any:
        values = SHIFTS if law == "+" else SCALES
        by = st.sampled_from([v for v in values if abs(v) <= FORMATS[case.dtype].largest / 16])
        entry = st.integers(0, 5) | st.integers(-20, 0)
        rows = st.lists(entry.map(float), min_size=1, max_size=5)
        moved = st.builds(
            lambda row, by: explicit([_moved(np.array(row), law, by)], case.dtype), rows, by
        )
        return [moved, short_rows(case.dtype, case.z).map(lambda row: explicit([row], case.dtype))]

    return near


def at_temperatures(values: tuple[float, ...]) -> Any:
    """Ordinary rows at several temperatures."""

    def rows(context: Context, dtype: str) -> Iterator[Case]:
        for t in values:
            yield normal(3, 5, 3.0, 5, dtype, options={"temperature": t})
            yield explicit([[0.0, 1.0, 3.0, 3.0]], dtype, options={"temperature": t})

    return rows


def overflowing(context: Context, dtype: str) -> Iterator[Case]:
    """Finite logits to the largest there are."""
    top = FORMATS[dtype].largest
    near = [89.0, 712.0, 12.0, 1000.0, 5000.0, 60000.0, top / 4, top / 2, top]
    near = [x for x in near if x <= top]
    yield explicit([[x, x - 1, 0.0] for x in near], dtype)
    yield explicit([[-x, 1 - x, -x] for x in near], dtype)
    yield explicit([[x, -x, 0.0] for x in near], dtype)
    yield explicit([[x, x, -x] for x in near], dtype)


def underflowing(context: Context, dtype: str) -> Iterator[Case]:
    """One entry whose probability is the least normal number or below it."""
    digits, smallest, _ = FORMATS[dtype]
    first, last = (-np.log(2.0) * e for e in (smallest + 2, smallest - digits - 2))
    yield explicit([[0.0, -x] for x in np.linspace(first, last, 40)], dtype)
    yield explicit([[0.0, 0.0, 1.0, -x] for x in np.linspace(first, last, 15)], dtype)
    yield normal(8, 33, round(last / 3), 7, dtype)


def one_class(context: Context, dtype: str) -> Iterator[Case]:
    """Rows of a single finite logit."""
    yield explicit([[0.0], [5.0], [-5.0], [1000.0], [-1000.0]], dtype)


def neighbours(context: Context, dtype: str) -> Iterator[Case]:
    """Pairs of rows at distances from one ULP to 10."""
    rng = np.random.default_rng(context.seed)
    for k in (2, 3, 10):
        a = rounded(rng.normal(0, 2, (40, k)), dtype)
        step = rng.normal(0, 1, (40, k)) * 10.0 ** rng.uniform(-8, 1, (40, 1))
        yield explicit(np.stack([a, rounded(a + step, dtype)], 1).reshape(-1, k), dtype)


def near_neighbours(case: Case) -> Any:
    """Two short rows."""
    simple = [0.0, 1.0, -1.0, 0.5, 1.5, 2.0, 3.0, 2.0**-10, -(2.0**-10)]
    values = st.sampled_from([*simple, *case.z.ravel()[:100].tolist()])
    column = st.tuples(values, values) | values.map(lambda x: (x, x))
    columns = st.lists(column, min_size=1, max_size=4)
    return columns.map(lambda c: explicit(np.array(c).T, case.dtype))
