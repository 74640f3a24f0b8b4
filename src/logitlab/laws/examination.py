"""One function before the laws: hunting the worst case, then the smallest one."""

import functools
import random
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from logitlab.laws import doubledouble, multiprecision
from logitlab.laws.cases import Case, body, explicit, shortest
from logitlab.laws.formats import Exact, spacing
from logitlab.laws.law import LEVELS, Counterexample, Law, Measured, Verdict
from logitlab.laws.subject import Result, Subject

_SMALL = 64  # entries up to which multiprecision arithmetic is the faster one
_JUDGED_ANEW = 1000  # classes up to which what is reported comes from multiprecision arithmetic


class Examination:
    """A function, the rows it is tried on, and what it gave for them."""

    def __init__(self, subject: Subject, *, seed: int = 0, effort: str = "quick", **extra: Any):
        self.subject = subject
        self.seed = seed
        self.full = effort == "full"
        self.differentiate: Any = extra.get("differentiate")
        self.sampler: Any = extra.get("sampler")
        self._held: set[Case] = set()  # cases that every law looks at
        self._results: dict[Case, Result] = {}
        self._exact: dict[Case, Exact] = {}

    def body(self, dtype: str) -> tuple[Case, ...]:
        """Ordinary rows of a type, of every length and spread."""
        cases = body(dtype, self.seed, self.full)
        self._held.update(cases)
        return cases

    def result(self, case: Case) -> Result:
        """What the function gives."""
        if case in self._results:
            return self._results[case]
        result = self.subject(case)
        if case in self._held:
            self._results[case] = result
        return result

    def exact(self, case: Case) -> Exact:
        """The exact answer, of probabilities or of their logarithms."""
        if case in self._exact:
            return self._exact[case]
        if case.classes > _SMALL and (case.z == case.z[:, :1]).all() and np.isfinite(case.z).all():
            share = multiprecision.mp.mpf(1) / case.classes
            one = multiprecision.mp.log(share) if self.subject.log else share
            shares = multiprecision.exact([one])
            return Exact(*(np.broadcast_to(part, case.z.shape) for part in shares))
        special = np.isnan(case.z).any() or (case.z == np.inf).any()
        nothing = (case.z == -np.inf).all(axis=-1).any()
        if case.options or special or nothing or case.z.size <= _SMALL:
            rows = [self._anew(case, i) for i in range(len(case.z))]
            exact = Exact(*(np.concatenate(part) for part in zip(*rows, strict=True)))
        else:
            exact = _long_rows(case, self.subject.log)
        return exact

    def _anew(self, case: Case, i: int) -> Exact:
        """One row of the exact answer in multiprecision arithmetic."""
        function = multiprecision.log_softmax if self.subject.log else multiprecision.softmax
        temperature = case.options.get("temperature", 1.0)
        return multiprecision.exact(function(case.z[i].tolist(), temperature))

    def _judged_anew(self, law: Law, case: Case, row: int) -> tuple[int, float]:
        """The severity of a case whose worst row is judged by multiprecision arithmetic."""
        if case.classes <= _JUDGED_ANEW and len(case.z):
            exact = Exact(*(part.copy() for part in self.exact(case)))
            for part, new in zip(exact, self._anew(case, row), strict=True):
                part[row] = new[0]
            self._exact[case] = exact
        return self._severity(law, law.measure(self, case))[0]

    def judge(self, law: Law) -> Verdict:
        """How far the function keeps a law."""
        reason = law.absent(self)
        if reason:
            return Verdict(law, "not applicable", note=reason)
        by_dtype: dict[str, tuple[str, float]] = {}
        measures: list[dict[str, Any]] = []
        worst: tuple[tuple[int, float], Case, int] | None = None
        for dtype in law.dtypes or self.subject.dtypes:
            found = self._worst(law, law.cases(self, dtype), measures)
            if found is None:
                continue
            rank, ulps = self._judged_anew(law, *found[1:])
            by_dtype[dtype] = (LEVELS[rank], ulps)
            if worst is None or (rank, ulps) > worst[0]:
                worst = (rank, ulps), *found[1:]
        if worst is None:
            return Verdict(law, "not applicable", note="the function takes none of its rows")
        (rank, ulps), case, row = worst
        counterexample = None
        if LEVELS[rank] not in ("exact", "within"):
            case, row = self._smallest(law, rank, case, row)
            counterexample = self.show(law, case, row)
        return Verdict(law, LEVELS[rank], ulps, counterexample, "", by_dtype, measures)

    def _worst(
        self, law: Law, cases: Iterable[Case], measures: list[dict[str, Any]]
    ) -> tuple[tuple[int, float], Case, int] | None:
        worst: tuple[tuple[int, float], Case, int] | None = None
        for case in cases:
            measured = law.measure(self, case)
            severity, row = self._severity(law, measured)
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

    @staticmethod
    def _severity(law: Law, measured: Measured) -> tuple[tuple[int, float], int]:
        """Rank of the level and ULP of the worst row; row -1: the law does not speak of any."""
        pairs = zip(measured.ulps.tolist(), measured.relative.tolist(), strict=True)
        ranked = [(LEVELS.index(law.level(u, r)), u) for u, r in pairs if not np.isnan(u)]
        if not ranked:
            return (0, 0.0), -1
        worst = max(ranked)
        return worst, int(np.nonzero(measured.ulps == worst[1])[0][0])

    def _smallest(self, law: Law, rank: int, case: Case, row: int) -> tuple[Case, int]:
        """The smallest case as bad, searched for and shrunk by Hypothesis for a few seconds."""
        from hypothesis import HealthCheck, Phase, find, settings
        from hypothesis.errors import Flaky, HypothesisWarning, NoSuchExample

        if law.near is None:
            return case, row
        given = 4.0 if self.full else 0.5  # seconds for each strategy
        last = time.monotonic() + given
        known: dict[str, bool] = {}  # what was answered once stays, out of time or not

        def as_bad(simpler: Case) -> bool:
            key = f"{simpler.source} {simpler.options}"
            if key not in known and time.monotonic() <= last:
                found, at = self._severity(law, law.measure(self, simpler))
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
                    found = find(strategy, as_bad, settings=quiet, random=random.Random(self.seed))
                except (NoSuchExample, Flaky):
                    continue
            self._judged_anew(law, found, 0)
            return found, self._severity(law, law.measure(self, found))[1]
        # None was found: the row by itself, if it is as bad.
        alone = f"{case.source}[{row}:{row + 1}]"
        single = replace(case, z=case.z[row : row + 1], source=alone)
        if len(case.z) > 1 and single.classes <= 16:
            single = explicit(single.z, case.dtype, options=case.options, parameter=case.parameter)
        last = time.monotonic() + given
        return (single, 0) if as_bad(single) else (case, row)

    def show(self, law: Law, case: Case, row: int) -> Counterexample:
        """A case as a line of Python, with what it gives beside what the law wants."""
        measured = law.measure(self, case)
        line = law.line(self, case, row) if law.line else self.subject.line(case)
        if measured.texts is not None:
            return Counterexample(line, *measured.texts, case.dtype)
        came, wanted = measured.came[row], measured.wanted[row]
        dtype = self.result(case).coarser(case.dtype)
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


@functools.lru_cache(maxsize=2000)
def _long_rows(case: Case, log: bool) -> Exact:
    """The exact answer in double-double arithmetic; every function is tried on the same rows."""
    return doubledouble.log_softmax(case.z) if log else doubledouble.softmax(case.z)


def _text(values: Any, dtype: str) -> str:
    """As lists, of which the middle of a long one is left out; a single value by itself."""
    if np.size(values) == 1:
        return shortest(float(np.ravel(values)[0]), dtype)
    parts = [_text(x, dtype) for x in (values if len(values) <= 8 else values[[0, 1, 2, -1]])]
    return f"[{', '.join(parts if len(values) <= 8 else [*parts[:3], '...', parts[3]])}]"
