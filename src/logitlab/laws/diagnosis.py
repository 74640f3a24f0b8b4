"""The likely cause of failures, found with a few rows that only one kind of defect gets wrong."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._exact.formats import FORMATS, Floats, rounded
from logitlab.laws.cases import explicit_case
from logitlab.laws.law import MAX_RELATIVE, LawResult
from logitlab.laws.tested_function import TestedFunction

_WRONG = 0.02  # a relative error beyond the rounding of a sum of few terms in any dtype
_NARROWER = {"float64": ("bfloat16", "float16", "float32"), "float32": ("bfloat16", "float16")}
_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)
_MAX_SUMMED = 48  # the loss of one of so many terms is beyond _WRONG
_LENGTHS = (*range(1, _MAX_SUMMED + 1), 63, 64, 65, 80, 96, 100, 127, 128, 129)
_LEVELS = ("inaccurate", "fails", "differs")
# Laws that no cause below is about: they need no calls.
_OTHER_LAWS = ("-inf", "NaN", "+inf", "all -inf", "empty", "integers", "dtype", "input unchanged")


class Cause(NamedTuple):
    """A likely cause of failures and the dtypes in which it was found."""

    text: str
    dtypes: tuple[str, ...]


class _Probe:
    """A function called with rows of one dtype; its results as probabilities."""

    def __init__(self, function: TestedFunction, dtype: str) -> None:
        self.function, self.dtype = function, dtype
        self.largest = 1.2 * np.log(FORMATS[dtype].max)  # beyond the range of the exponential
        self.smallest = 1.2 * -np.log(2.0) * (FORMATS[dtype].minexp - FORMATS[dtype].nmant)

    def values(self, rows: Any, **options: float) -> Floats:
        """The result; NaN in every entry where the call raises an error."""
        case = explicit_case(rows, self.dtype, options=options)
        result = self.function(case)
        return np.full(case.z.shape, np.nan) if result.error else result.values

    def __call__(self, rows: Any, **options: float) -> Floats:
        values = self.values(rows, **options)
        with np.errstate(all="ignore"):
            return np.exp(values) if self.function.log else values

    def is_accurate(self, rows: Any, **options: float) -> bool:
        return _close(self(rows, **options), _softmax(rounded(rows, self.dtype)))


def _softmax(z: Any, axis: int | None = -1) -> Floats:
    with np.errstate(all="ignore"):
        e = np.exp(z - np.max(z, axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=axis, keepdims=True))


def _close(a: Floats, b: Floats, tolerance: float = _WRONG) -> bool:
    return bool(np.allclose(a, b, rtol=tolerance, atol=1e-300))


def _constant(probe: _Probe) -> str:
    rows = [[0.0, 1.0, 3.0], [2.0, 0.0, -1.0]]
    p, other = probe(rows), probe(rows[::-1])
    if np.array_equal(p[0], p[1]):
        return "the result does not depend on the logits"
    return "the result is that of an earlier call" if np.array_equal(p, other) else ""


def _axis(probe: _Probe) -> str:
    rows = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, -1.0]])
    p = probe(rows)
    e = np.exp(rows)
    shifted = np.exp(rows - rows.max(axis=-1, keepdims=True))
    if any(_close(p, x / x.sum(axis=0)) for x in (e, shifted)):
        return "normalised over another axis"
    if any(_close(p, x / x.sum()) for x in (e, shifted)):
        return "normalised over all axes"
    return ""


def _maximum(probe: _Probe) -> str:
    """A single large row overflows or underflows; the same row without the shift does not."""
    if not probe.is_accurate([[1.0, 0.0]]):
        return ""
    sizes = [x for x in (13.5, 106.0, probe.largest) if x <= probe.largest]
    for size in sizes:
        p = probe([[size, size - 1.0]])
        if not np.isfinite(p).all() or (p == 0).all():
            return "the maximum is not subtracted"
    return ""


def _maximum_of_all(probe: _Probe) -> str:
    """A row of small logits is wrong beside a row of large ones only."""
    size = 2 * probe.smallest
    p = probe([[0.0, -1.0], [size, size - 1.0]])
    alone = probe.is_accurate([[0.0, -1.0]]) and probe.is_accurate([[size, size - 1.0]])
    lost = not np.isfinite(p[0]).all() or (p[0] == 0).any()
    return (
        "the maximum of the whole array is subtracted, not that of the row"
        if (alone and lost)
        else ""
    )


def _last_entries(probe: _Probe) -> str:
    wrong: dict[int, int] = {}  # the number of entries lost by K; 0 if others are wrong too
    for k in _LENGTHS:
        bad = ~np.isclose(k * probe(np.zeros((1, k)))[0], 1.0, rtol=0, atol=_WRONG)
        if bad.any():
            wrong[k] = int(bad.sum()) * (not bad[: k - bad.sum()].any())
    for m in _MULTIPLES:
        not_written = all(lost == k % m for k, lost in wrong.items())
        not_summed = all(k % m for k in wrong) and all(
            k in wrong for k in range(min(wrong, default=0), _MAX_SUMMED + 1) if k % m
        )
        if wrong and max(wrong) > 32 and (not_written or not_summed):
            return f"the last entries are lost where K is not a multiple of {m} (K = {min(wrong)})"
    return ""


def _batch(probe: _Probe) -> str:
    rows = np.random.default_rng(0).normal(0, 2, (40, 4))
    alone = np.concatenate([probe(row[None]) for row in rows])

    def wrong_rows(n: int) -> NDArray[Any]:
        close = np.isclose(probe(rows[:n]), alone[:n], rtol=_WRONG, atol=0)
        return np.flatnonzero(~close.all(axis=-1))

    if not any(wrong_rows(n).size for n in (2, 5, 16, len(rows))):
        return ""
    n = next(n for n in range(2, len(rows) + 1) if wrong_rows(n).size)
    i = int(wrong_rows(n)[0])
    same = np.flatnonzero(np.isclose(alone, probe(rows[:n])[i], rtol=_WRONG, atol=0).all(axis=-1))
    detail = f"; row {i} gets the result of row {same[0]}" if same.size else ""
    return f"the result of a row depends on the batch size (first at {n} rows{detail})"


def _normalisation(probe: _Probe) -> str:
    """The entries of a row have the right ratios and a wrong sum."""
    rows = np.array([[0.0, -8.0, -8.0], [0.0, 1.0, 0.5]])
    p, exact = probe(rows), _softmax(rounded(rows, probe.dtype))
    total = p.sum(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        proportional = _close(p / total, exact)
    limit = max(5e-3, 4 * FORMATS[probe.dtype].eps)
    wrong = (np.abs(total - 1) > limit).any()
    return "probabilities are not normalised" if proportional and wrong else ""


def _temperature(probe: _Probe) -> str:
    if probe.function.temperature is None:
        return ""
    row, size = np.array([[0.0, -1.0, -2.0]]), probe.smallest
    if _close(probe(row, temperature=2.0), probe(row)):
        return "the temperature has no effect"
    if probe([[0.0, -size]], temperature=size)[0, 1] == 0:
        return "the temperature is applied after rounding: to probabilities that were rounded to 0"
    z = rounded(np.random.default_rng(1).normal(0, 1.5, (4, 20)), probe.dtype)
    p = probe(z, temperature=0.1)
    for dtype in _NARROWER.get(probe.dtype, ()):
        if _close(p, _softmax(rounded(z, dtype) / 0.1), 1e-4):
            return f"the temperature is applied after rounding the logits to {dtype}"
    return ""


def _logarithm(probe: _Probe) -> str:
    """The logarithm of probabilities that were rounded to 0 or to 1."""
    if not probe.function.log:
        return ""
    if np.isneginf(probe.values([[0.0, -probe.smallest]])[0, 1]):
        return "logarithm of a rounded softmax"
    confident = -1.5 * np.log(FORMATS[probe.dtype].eps)
    if probe.values([[0.0, -confident]])[0, 0] == 0:
        return "the logarithm of a sum that was rounded to 1 (log1p keeps it)"
    return ""


def _precision(probe: _Probe) -> str:
    """Rounding to a narrower dtype, from values that only that rounding gives."""
    z = rounded(np.random.default_rng(2).normal(0, 3, (8, 100)), probe.dtype)
    values, p, exact = probe.values(z), probe(z), _softmax(z)
    if not np.isfinite(values).all() or _close(p, exact, 16 * FORMATS[probe.dtype].eps):
        return ""
    top = p.max(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        quantities: dict[str, NDArray[Any]] = {
            "computed in {}": values,
            "the exponentials are computed in {}": p / top,
            "the sum is accumulated in {}": 1 / top,
        }
    for text, x in quantities.items():
        tolerance = 0.0 if x is values else 4 * FORMATS[probe.dtype].eps
        for dtype in _NARROWER.get(probe.dtype, ()):
            if np.allclose(rounded(x, dtype), x, rtol=tolerance, atol=0) and (x != 1).any():
                return text.format(dtype)
    for dtype in _NARROWER.get(probe.dtype, ()):
        if _close(p, _softmax(rounded(z, dtype)), MAX_RELATIVE / 10):
            return f"the logits are rounded to {dtype}"
    return ""


def _half_arithmetic(probe: _Probe) -> str:
    """More than the rounding of a result that was computed in float32, in a long row."""
    if not probe.dtype.endswith("float16"):
        return ""
    for k in (4099, 70_001):  # beyond the integers of a half type, and its largest number
        if not _close(k * probe(np.zeros((1, k))), np.ones((1, k))):
            return f"the sum is accumulated in {probe.dtype}"
    z = rounded(np.random.default_rng(2).normal(0, 3, (8, 100)), probe.dtype)
    limit = 2 * FORMATS[probe.dtype].eps
    exact = _softmax(z)
    p = np.where(exact < 1e-3, exact, probe(z))
    return "" if _close(p, exact, limit) else f"computed in {probe.dtype}"


def _flushed(probe: _Probe) -> str:
    nmant, minexp, _ = FORMATS[probe.dtype]
    subnormal = np.array([[0.0, np.log(2.0) * (minexp - nmant / 2)]])
    normal = np.array([[0.0, np.log(2.0) * (minexp + 2)]])
    if probe(subnormal)[0, 1] == 0 and probe(normal)[0, 1] > 0 and not probe.function.log:
        return "subnormal probabilities are flushed to 0"
    return ""


# In this order: a defect of the first kinds makes the rows of the later ones wrong too.
_FINDERS: tuple[Callable[[_Probe], str], ...] = (
    _constant,
    _axis,
    _maximum,
    _maximum_of_all,
    _last_entries,
    _batch,
    _normalisation,
    _temperature,
    _logarithm,
    _precision,
    _half_arithmetic,
    _flushed,
)


def _deviating_dtypes(function: TestedFunction, results: tuple[LawResult, ...]) -> Iterator[str]:
    """The dtypes in which a law fails, is inaccurate or differs."""
    for dtype in function.dtypes:
        levels = (
            r.by_dtype[dtype][0]
            for r in results
            if dtype in r.by_dtype and r.law.name not in _OTHER_LAWS
        )
        if any(level in _LEVELS for level in levels):
            yield dtype


def diagnose(function: TestedFunction, results: tuple[LawResult, ...]) -> tuple[Cause, ...]:
    """The likely causes of the results, those that are found in the most dtypes first."""
    causes: dict[str, list[str]] = {}
    for dtype in _deviating_dtypes(function, results):
        probe = _Probe(function, dtype)
        text = next((text for find in _FINDERS if (text := find(probe))), "")
        if text:
            causes.setdefault(text, []).append(dtype)
    found = [Cause(text, tuple(dtypes)) for text, dtypes in causes.items()]
    return tuple(sorted(found, key=lambda cause: -len(cause.dtypes)))
