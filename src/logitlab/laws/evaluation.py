"""Evaluating one law: the search for the worst case, then for the smallest counterexample."""

import random
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from logitlab._exact.formats import spacing
from logitlab.laws.cases import Case, explicit, shortest
from logitlab.laws.context import Context
from logitlab.laws.law import LEVELS, Counterexample, Law, Measured, Verdict

_MULTIPRECISION = 1000  # classes up to which what is reported comes from multiprecision arithmetic


def _exact_severity(context: Context, law: Law, case: Case, row: int) -> tuple[int, float]:
    """The severity of a case whose worst row is compared with multiprecision arithmetic."""
    if case.classes <= _MULTIPRECISION and len(case.z):
        context.replace_exact(case, row)
    return _severity(law, law.measure(context, case))[0]


def evaluate(context: Context, law: Law) -> Verdict:
    """How far the function keeps a law."""
    reason = law.absent(context)
    if reason:
        return Verdict(law, "not applicable", note=reason)
    by_dtype: dict[str, tuple[str, float]] = {}
    measures: list[dict[str, Any]] = []
    worst: tuple[tuple[int, float], Case, int] | None = None
    for dtype in law.dtypes or context.subject.dtypes:
        found = _worst_case(context, law, law.cases(context, dtype), measures)
        if found is None:
            continue
        rank, ulps = _exact_severity(context, law, *found[1:])
        by_dtype[dtype] = (LEVELS[rank], ulps)
        if worst is None or (rank, ulps) > worst[0]:
            worst = (rank, ulps), *found[1:]
    if worst is None:
        return Verdict(law, "not applicable", note="the function takes none of its rows")
    (rank, ulps), case, row = worst
    counterexample = None
    if LEVELS[rank] not in ("exact", "within"):
        case, row = _smallest_case(context, law, rank, case, row)
        counterexample = _counterexample(context, law, case, row)
    return Verdict(law, LEVELS[rank], ulps, counterexample, "", by_dtype, measures)


def _worst_case(
    context: Context, law: Law, cases: Iterable[Case], measures: list[dict[str, Any]]
) -> tuple[tuple[int, float], Case, int] | None:
    worst: tuple[tuple[int, float], Case, int] | None = None
    for case in cases:
        measured = law.measure(context, case)
        severity, row = _severity(law, measured)
        if row >= 0 and measured.means is not None:
            measures.append(
                {
                    "dtype": case.dtype,
                    "classes": case.classes,
                    "rows": case.label,
                    "worst": severity[1],
                    "mean": float(np.nanmean(measured.means)),
                }
            )
        if row >= 0 and (worst is None or severity > worst[0]):
            worst = severity, case, row
    return worst


def _severity(law: Law, measured: Measured) -> tuple[tuple[int, float], int]:
    """Rank of the level and ULP of the worst row; row -1: the law does not speak of any."""
    pairs = zip(measured.ulps.tolist(), measured.relative.tolist(), strict=True)
    ranked = [(LEVELS.index(law.level(u, r)), u) for u, r in pairs if not np.isnan(u)]
    if not ranked:
        return (0, 0.0), -1
    worst = max(ranked)
    return worst, int(np.nonzero(measured.ulps == worst[1])[0][0])


def _smallest_case(context: Context, law: Law, rank: int, case: Case, row: int) -> tuple[Case, int]:
    """The smallest case as bad, searched for and shrunk by Hypothesis for a few seconds."""
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis.errors import Flaky, HypothesisWarning, NoSuchExample

    if law.near is None:
        return case, row
    given = 4.0 if context.full else 0.5  # seconds for each strategy
    last = time.monotonic() + given
    known: dict[str, bool] = {}  # what was answered once stays, out of time or not

    def as_bad(simpler: Case) -> bool:
        key = f"{simpler.source} {simpler.options}"
        if key not in known and time.monotonic() <= last:
            found, at = _severity(law, law.measure(context, simpler))
            known[key] = at >= 0 and found[0] >= rank
        return known.get(key, False)

    quiet = settings(
        max_examples=400,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    strategies = law.near(case)
    for strategy in strategies if isinstance(strategies, list) else [strategies]:
        last = time.monotonic() + given
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)
            try:
                found = find(strategy, as_bad, settings=quiet, random=random.Random(context.seed))
            except (NoSuchExample, Flaky):
                continue
        _exact_severity(context, law, found, 0)
        return found, _severity(law, law.measure(context, found))[1]
    # None was found: the row by itself, if it is as bad.
    alone = f"{case.source}[{row}:{row + 1}]"
    single = replace(case, z=case.z[row : row + 1], source=alone)
    if len(case.z) > 1 and single.classes <= 16:
        single = explicit(single.z, case.dtype, options=case.options, parameter=case.parameter)
    last = time.monotonic() + given
    return (single, 0) if as_bad(single) else (case, row)


def _counterexample(context: Context, law: Law, case: Case, row: int) -> Counterexample:
    """A case as a line of Python, with what it gives beside what the law wants."""
    measured = law.measure(context, case)
    line = law.line(context, case, row) if law.line else context.subject.line(case)
    if measured.texts is not None:
        return Counterexample(line, *measured.texts, case.dtype)
    came, wanted = measured.came[row], measured.wanted[row]
    dtype = context.result(case).coarser(case.dtype)
    place = measured.place
    if len(case.z) > measured.span:
        rows = range(row, row + measured.span)
        place += f"row{'s' * (len(rows) > 1)} {' and '.join(map(str, rows))}: "
    if measured.made or came.size > 8:
        unit = spacing(np.nan_to_num(wanted), dtype)
        with np.errstate(invalid="ignore"):
            off = np.nan_to_num(np.abs(came - wanted) / unit, nan=np.inf)
        entry = int(off.argmax() if measured.entries is None else measured.entries[row])
        if measured.of is not None:
            place += f"{_text(measured.of[row], dtype)}; {measured.made[entry]} "
        else:
            at = np.unravel_index(entry, came.shape)
            place += f"entry {', '.join(map(str, at))}: "
        came, wanted = came.flat[entry], wanted.flat[entry]
    return Counterexample(line, place + _text(came, dtype), _text(wanted, "float64"), dtype)


def _text(values: Any, dtype: str) -> str:
    """As lists, of which the middle of a long one is left out; a single value by itself."""
    if np.size(values) == 1:
        return shortest(float(np.ravel(values)[0]), dtype)
    parts = [_text(x, dtype) for x in (values if len(values) <= 8 else values[[0, 1, 2, -1]])]
    return f"[{', '.join(parts if len(values) <= 8 else [*parts[:3], '...', parts[3]])}]"
