"""Checks one law: finds the worst case of each dtype and the smallest counterexample."""

import random
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import Flaky, HypothesisWarning, NoSuchExample

from logitlab._exact.formats import spacing
from logitlab.laws.cases import Case, explicit_case, shortest_repr
from logitlab.laws.context import Context
from logitlab.laws.law import LEVELS, Counterexample, Deviation, Law, LawResult

_MAX_CLASSES = 1000  # up to here, reported deviations are from multiprecision arithmetic


class Severity(NamedTuple):
    """Index of the level in LEVELS, and the deviation in ULP; ordered."""

    level: int
    ulps: float


class WorstRow(NamedTuple):
    """The row of a case with the largest deviation."""

    severity: Severity
    case: Case
    row: int


def evaluate(context: Context, law: Law) -> LawResult:
    """The result of checking one law of a function."""
    reason = law.not_applicable(context)
    if reason:
        return LawResult(law, "not applicable", note=reason)
    by_dtype: dict[str, tuple[str, float]] = {}
    measurements: list[dict[str, Any]] = []
    worst: WorstRow | None = None
    for dtype in law.dtypes or context.function.dtypes:
        dtype_worst = _find_worst_row(context, law, law.cases(context, dtype), measurements)
        if dtype_worst is None:
            continue
        severity = _refined_severity(context, law, dtype_worst.case, dtype_worst.row)
        by_dtype[dtype] = (LEVELS[severity.level], severity.ulps)
        if worst is None or severity > worst.severity:
            worst = dtype_worst._replace(severity=severity)
    if worst is None:
        note = "the function accepts none of the rows of this law"
        return LawResult(law, "not applicable", note=note)
    level, ulps = worst.severity
    counterexample = None
    if LEVELS[level] not in ("exact", "within"):
        case, row = _literal_case(context, law, *_smallest_case(context, law, worst), level)
        counterexample = _counterexample(context, law, case, row)
    return LawResult(law, LEVELS[level], ulps, counterexample, "", by_dtype, measurements)


def _find_worst_row(
    context: Context, law: Law, cases: Iterable[Case], measurements: list[dict[str, Any]]
) -> WorstRow | None:
    """The worst row of the cases that the law covers; appends to the measurements."""
    worst: WorstRow | None = None
    for case in cases:
        deviation = law.measure(context, case)
        severity, row = _severity(law, deviation)
        if row is None:
            continue
        if deviation.mean_ulps is not None:
            measurements.append(
                {
                    "dtype": case.dtype,
                    "n_classes": case.n_classes,
                    "logits": case.label,
                    "worst_ulp": severity.ulps,
                    "mean_ulp": float(np.nanmean(deviation.mean_ulps)),
                }
            )
        if worst is None or severity > worst.severity:
            worst = WorstRow(severity, case, row)
    return worst


def _severity(law: Law, deviation: Deviation) -> tuple[Severity, int | None]:
    """Severity and index of the worst row; the index is None where the law covers no row."""
    pairs = zip(deviation.ulps.tolist(), deviation.relative.tolist(), strict=True)
    severities = [Severity(LEVELS.index(law.level(u, r)), u) for u, r in pairs if not np.isnan(u)]
    if not severities:
        return Severity(0, 0.0), None
    worst = max(severities)
    return worst, int(np.nonzero(deviation.ulps == worst.ulps)[0][0])


def _refined_severity(context: Context, law: Law, case: Case, row: int) -> Severity:
    """The severity of a case, of whose worst row the exact value is in multiprecision."""
    if case.n_classes <= _MAX_CLASSES and len(case.z):
        context.refine_exact_row(case, row)
    return _severity(law, law.measure(context, case))[0]


def _smallest_case(context: Context, law: Law, worst: WorstRow) -> tuple[Case, int]:
    """The smallest case at least as severe and its worst row, found and shrunk by Hypothesis."""
    _, case, row = worst
    if law.simpler is None:
        return case, row
    budget = 4.0 if context.full else 0.5  # seconds for each strategy
    deadline = time.monotonic() + budget
    cache: dict[str, bool] = {}  # Hypothesis requires repeatable results, after the deadline too

    def is_as_severe(simpler: Case) -> bool:
        key = f"{simpler.source} {simpler.options}"
        if key not in cache and time.monotonic() <= deadline:
            severity, at = _severity(law, law.measure(context, simpler))
            cache[key] = at is not None and severity.level >= worst.severity.level
        return cache.get(key, False)

    quiet = settings(
        max_examples=400,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    for strategy in law.simpler(case):
        deadline = time.monotonic() + budget
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)
            try:
                smallest = find(
                    strategy, is_as_severe, settings=quiet, random=random.Random(context.seed)
                )
            except (NoSuchExample, Flaky):
                continue
        _refined_severity(context, law, smallest, 0)
        return smallest, _severity(law, law.measure(context, smallest))[1] or 0
    # Without a simpler case, the row alone, if it is as severe.
    single = replace(case, z=case.z[row : row + 1], source=f"{case.source}[{row}:{row + 1}]")
    if len(case.z) > 1 and single.n_classes <= 16:
        single = explicit_case(single.z, case.dtype, options=case.options, parameter=case.parameter)
    deadline = time.monotonic() + budget
    return (single, 0) if is_as_severe(single) else (case, row)


def _literal_case(context: Context, law: Law, case: Case, row: int, level: int) -> tuple[Case, int]:
    """A case of few classes with its numbers written out, in as few decimals as possible."""
    if case.n_classes > 8 or case.z.size > 128 or case.source.startswith("np.array("):
        return case, row
    for decimals in (0, 1, 2, 3, 17):
        literal = explicit_case(
            np.round(case.z, decimals), case.dtype, parameter=case.parameter, options=case.options
        )
        severity, at = _severity(law, law.measure(context, literal))
        if at is not None and severity.level >= level:
            return literal, at
    return case, row


def _counterexample(context: Context, law: Law, case: Case, row: int) -> Counterexample:
    """A row of a case as Python code, its result and the expected result."""
    deviation = law.measure(context, case)
    code = law.code(context, case, row) if law.code else context.function.code(case)
    if deviation.texts is not None:
        return Counterexample(code, *deviation.texts, case.dtype)
    result, expected = deviation.result[row], deviation.expected[row]
    dtype = context.result(case).coarser_dtype(case.dtype)
    prefix = deviation.prefix
    if len(case.z) > deviation.n_rows:
        rows = range(row, row + deviation.n_rows)
        prefix += f"row{'s' * (len(rows) > 1)} {' and '.join(map(str, rows))}: "
    if deviation.quantities or result.size > 8:
        unit = spacing(np.nan_to_num(expected), dtype)
        with np.errstate(invalid="ignore"):
            ulps = np.nan_to_num(np.abs(result - expected) / unit, nan=np.inf)
        worst = ulps.argmax() if deviation.worst_entries is None else deviation.worst_entries[row]
        entry = int(worst)
        if deviation.values is not None:
            prefix += f"{_text(deviation.values[row], dtype)}; {deviation.quantities[entry]} = "
        else:
            index = np.unravel_index(entry, result.shape)
            prefix += f"entry {', '.join(map(str, index))}: "
        result, expected = result.flat[entry], expected.flat[entry]
    return Counterexample(code, prefix + _text(result, dtype), _text(expected, "float64"), dtype)


def _text(values: Any, dtype: str) -> str:
    """Values as nested lists, the middle of a long one left out; a single value as a number."""
    if np.size(values) == 1:
        return shortest_repr(float(np.ravel(values)[0]), dtype)
    parts = [_text(x, dtype) for x in (values if len(values) <= 8 else values[[0, 1, 2, -1]])]
    return f"[{', '.join(parts if len(values) <= 8 else [*parts[:3], '...', parts[3]])}]"
