"""Rows to try a function on: batches to find a fault in, small rows to show it with."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import FORMATS, Values, rounded


@dataclass(frozen=True, eq=False)
class Case:
    """Rows of logits of a type, and the source text of their values."""

    z: Values  # (N, K), values of the type
    dtype: str
    source: str  # of an (N, K) array, as float64
    parameter: Any = None  # what a law does to them
    options: dict[str, float] = field(default_factory=dict)  # further arguments of the function
    label: str = ""  # what kind of rows they are

    @property
    def classes(self) -> int:
        return int(self.z.shape[1])


def listing(z: Any) -> str:
    """The source of a nested list of numbers."""
    if isinstance(z, list):
        return f"[{', '.join(listing(x) for x in z)}]"
    names = {np.inf: "np.inf", -np.inf: "-np.inf"}
    return "np.nan" if z != z else names.get(z) or repr(z)


def shortest(x: float, dtype: str) -> str:
    """A value of a type in the fewest digits that stand for it."""
    if dtype == "bfloat16" or not np.isfinite(x) or dtype not in FORMATS:
        return repr(float(x)).removesuffix(".0") if abs(x) < 1e15 else repr(float(x))
    return str(np.dtype(dtype).type(x))


def explicit(rows: Any, dtype: str, **kwargs: Any) -> Case:
    """A case of given values (rounded to the type)."""
    z = rounded(np.atleast_2d(np.asarray(rows, np.float64)), dtype)
    if dtype in ("float16", "float32"):
        narrow = z.astype(dtype)
        text = listing([[float(str(x)) for x in row] for row in narrow])
    else:
        text = listing(z.tolist())
    return Case(z, dtype, f"np.array({text})", **kwargs)


def normal(n: int, k: int, spread: float, seed: int, dtype: str, **kwargs: Any) -> Case:
    """Normal logits."""
    z = rounded(np.random.default_rng(seed).normal(0, spread, (n, k)), dtype)
    text = f"np.random.default_rng({seed}).normal(0, {spread:g}, ({n}, {k}))"
    return Case(z, dtype, text, label=f"normal, sd {spread:g}", **kwargs)


def patterned(name: str, k: int, size: float, dtype: str, **kwargs: Any) -> Case:
    """One row without chance in it: all equal, or evenly spaced down to -size."""
    if name == "equal":
        text = f"np.zeros((1, {k}))"
        return Case(np.zeros((1, k)), dtype, text, label="equal", **kwargs)
    z = rounded(np.linspace(0, -size, k)[None, :], dtype)
    text = f"np.linspace(0, {-size:g}, {k})[None, :]"
    return Case(z, dtype, text, label=f"evenly spaced to {-size:g}", **kwargs)


SPREADS = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
CLASSES = (2, 3, 4, 5, 7, 8, 10, 13, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 255, 257)
LONG = (1000, 4099, 20000, 70000, 128256)
LONGEST = (500_000, 1_000_000)


@functools.lru_cache(maxsize=8)
def body(dtype: str, seed: int, full: bool) -> tuple[Case, ...]:
    """Normal rows of every length and spread, and rows without chance in them."""
    return tuple(_body(dtype, seed, full))


def _body(dtype: str, seed: int, full: bool) -> Iterator[Case]:
    entries = 20_000 if full else 1500
    numbers = itertools.count(1000 * seed)
    for k, spread in itertools.product(CLASSES, SPREADS):
        yield normal(max(2, entries // k), k, spread, next(numbers), dtype)
    for k in LONG + (LONGEST if full else ()):
        for spread in (1.0, 3.0, 10.0) if full or k < 50_000 else (1.0,):
            yield normal(1, k, spread, next(numbers), dtype)
        yield patterned("equal", k, 0, dtype)
        if full or k < 50_000:
            yield patterned("even", k, 20.0, dtype)


NICE = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, 5.0, 9.0, 10.0, -10.0, -20.0, 20.0, 50.0, -50.0]
NICE += [88.0, -88.0, 100.0, -100.0, -103.0, 127.0, -128.0, 300.0, -700.0, -745.0, 1000.0, -1e4]


def short_rows(dtype: str, found: Values) -> st.SearchStrategy[list[float]]:
    """Rows of up to six entries: simple numbers, and those of a row that was found."""
    values = found.ravel()[:200].tolist()
    simple = [x for x in rounded(NICE, dtype).tolist() if np.isfinite(x)]
    entry = st.sampled_from(simple) | st.sampled_from(values) if values else st.sampled_from(simple)
    return st.lists(entry, min_size=1, max_size=6)


def similar(case: Case) -> list[st.SearchStrategy[Case]]:
    """Cases simpler than the one that was found: what is searched first is the simplest."""
    dtype, n, k = case.dtype, len(case.z), case.classes
    kwargs = {"options": case.options, "parameter": case.parameter}
    short = short_rows(dtype, case.z).map(lambda row: explicit([row], dtype, **kwargs))
    if n == 1 and k <= 6:
        return [short]
    lengths = st.integers(1, min(2 * k, 200_000))
    equal = lengths.map(lambda k: patterned("equal", k, 0, dtype, **kwargs))

    def random(rows: st.SearchStrategy[int]) -> st.SearchStrategy[Case]:
        return st.builds(
            lambda k, spread, seed, n: normal(n, k, spread, seed, dtype, **kwargs),
            st.integers(min(2, k), k),
            st.sampled_from(SPREADS),
            st.integers(0, 3),
            rows,
        )

    return [short, equal, random(st.just(1)), random(st.integers(1, n))]
