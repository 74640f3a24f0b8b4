"""Cases: rows of logits to check a function on, and Hypothesis strategies of simpler ones."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import FORMATS, Floats, rounded

Strategies = list[st.SearchStrategy["Case"]]


@dataclass(frozen=True, eq=False)
class Case:
    """Rows of logits of a dtype, and the Python source of their values."""

    z: Floats  # (N, K), values of the dtype
    dtype: str
    source: str  # of an (N, K) array, as float64
    parameter: Any = None  # what the law applies: a shift, a scale, a memory layout
    options: dict[str, float] = field(default_factory=dict)  # further arguments of the function
    label: str = ""  # the distribution of the logits

    @property
    def n_classes(self) -> int:
        return int(self.z.shape[1])


def list_source(z: Any) -> str:
    """The Python source of a nested list of numbers."""
    if isinstance(z, list):
        return f"[{', '.join(list_source(x) for x in z)}]"
    names = {np.inf: "np.inf", -np.inf: "-np.inf"}
    return "np.nan" if z != z else names.get(z) or repr(z)


def shortest_repr(x: float, dtype: str) -> str:
    """A value of a dtype in the fewest digits that identify it."""
    if dtype == "bfloat16" or not np.isfinite(x) or dtype not in FORMATS:
        return repr(float(x)).removesuffix(".0") if abs(x) < 1e15 else repr(float(x))
    return str(np.dtype(dtype).type(x))


def explicit_case(rows: Any, dtype: str, **kwargs: Any) -> Case:
    """A case of given values, rounded to the dtype."""
    z = rounded(np.atleast_2d(np.asarray(rows, np.float64)), dtype)
    if dtype in ("float16", "float32"):
        narrow = z.astype(dtype)
        text = list_source([[float(str(x)) for x in row] for row in narrow])
    else:
        text = list_source(z.tolist())
    return Case(z, dtype, f"np.array({text})", **kwargs)


def normal_case(n: int, k: int, sd: float, seed: int, dtype: str, **kwargs: Any) -> Case:
    """n rows of k normal logits."""
    z = rounded(np.random.default_rng(seed).normal(0, sd, (n, k)), dtype)
    text = f"np.random.default_rng({seed}).normal(0, {sd:g}, ({n}, {k}))"
    return Case(z, dtype, text, label=f"normal, sd {sd:g}", **kwargs)


def equal_case(k: int, dtype: str, **kwargs: Any) -> Case:
    """One row of k zeros."""
    return Case(np.zeros((1, k)), dtype, f"np.zeros((1, {k}))", label="equal", **kwargs)


def evenly_spaced_case(k: int, lowest: float, dtype: str) -> Case:
    """One row of k logits, evenly spaced from 0 down to `lowest`."""
    z = rounded(np.linspace(0, lowest, k)[None, :], dtype)
    text = f"np.linspace(0, {lowest:g}, {k})[None, :]"
    return Case(z, dtype, text, label=f"evenly spaced to {lowest:g}")


STANDARD_DEVIATIONS = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
N_CLASSES: tuple[int, ...] = (2, 3, 4, 5, 7, 8, 10, 13, 15, 16, 17, 31, 33, 63, 64, 65)
N_CLASSES += (100, 127, 128, 129, 255, 257)
MANY_CLASSES = (1000, 4099, 20000, 70000, 128256)
MOST_CLASSES = (500_000, 1_000_000)


@functools.lru_cache(maxsize=8)
def ordinary_cases(dtype: str, seed: int, full: bool) -> tuple[Case, ...]:
    """Normal rows of every length and standard deviation, equal and evenly spaced rows."""
    return tuple(_ordinary_cases(dtype, seed, full))


def _ordinary_cases(dtype: str, seed: int, full: bool) -> Iterator[Case]:
    entries = 20_000 if full else 1500
    seeds = itertools.count(1000 * seed)
    for k, sd in itertools.product(N_CLASSES, STANDARD_DEVIATIONS):
        yield normal_case(max(2, entries // k), k, sd, next(seeds), dtype)
    for k in MANY_CLASSES + (MOST_CLASSES if full else ()):
        for sd in (1.0, 3.0, 10.0) if full or k < 50_000 else (1.0,):
            yield normal_case(1, k, sd, next(seeds), dtype)
        yield equal_case(k, dtype)
        if full or k < 50_000:
            yield evenly_spaced_case(k, -20.0, dtype)


_SIMPLE = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, 5.0, 9.0, 10.0, -10.0, -20.0, 20.0, 50.0, -50.0]
_SIMPLE += [88.0, -88.0, 100.0, -100.0, -103.0, 127.0, -128.0, 300.0, -700.0, -745.0, 1000.0, -1e4]


def short_rows(dtype: str, z: Floats) -> st.SearchStrategy[list[float]]:
    """Rows of up to six entries: simple numbers and entries of z."""
    values = z.ravel()[:200].tolist()
    simple = [x for x in rounded(_SIMPLE, dtype).tolist() if np.isfinite(x)]
    entry = st.sampled_from(simple) | st.sampled_from(values) if values else st.sampled_from(simple)
    return st.lists(entry, min_size=1, max_size=6)


def short_cases(case: Case) -> Strategies:
    """Single short rows with the options of a case."""
    kwargs: dict[str, Any] = {"options": case.options, "parameter": case.parameter}
    rows = short_rows(case.dtype, case.z)
    return [rows.map(lambda row: explicit_case([row], case.dtype, **kwargs))]


def simpler_cases(case: Case) -> Strategies:
    """Cases simpler than a given one, the simplest first."""
    dtype, n, k = case.dtype, len(case.z), case.n_classes
    kwargs: dict[str, Any] = {"options": case.options, "parameter": case.parameter}
    if n == 1 and k <= 6:
        return short_cases(case)
    lengths = st.integers(1, min(2 * k, 200_000))
    equal = lengths.map(lambda k: equal_case(k, dtype, **kwargs))

    def normal(rows: st.SearchStrategy[int]) -> st.SearchStrategy[Case]:
        return st.builds(
            lambda k, sd, seed, n: normal_case(n, k, sd, seed, dtype, **kwargs),
            st.integers(min(2, k), k),
            st.sampled_from(STANDARD_DEVIATIONS),
            st.integers(0, 3),
            rows,
        )

    return [*short_cases(case), equal, normal(st.just(1)), normal(st.integers(1, n))]
