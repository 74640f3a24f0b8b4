"""A function under test, the rows it is called with, its results and the exact values."""

import functools
from typing import Any

import numpy as np

from logitlab._exact import doubledouble, multiprecision
from logitlab._exact.formats import Exact
from logitlab.laws.cases import Case, body
from logitlab.laws.subject import Result, Subject

_SMALL = 64  # entries up to which multiprecision arithmetic is the faster one


class Context:
    """A function under test with its cached results and exact values."""

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
            rows = [self.recomputed(case, i) for i in range(len(case.z))]
            exact = Exact(*(np.concatenate(part) for part in zip(*rows, strict=True)))
        else:
            exact = _long_rows(case, self.subject.log)
        return exact

    def recomputed(self, case: Case, i: int) -> Exact:
        """One row of the exact answer in multiprecision arithmetic."""
        function = multiprecision.log_softmax if self.subject.log else multiprecision.softmax
        temperature = case.options.get("temperature", 1.0)
        return multiprecision.exact(function(case.z[i].tolist(), temperature))

    def replace_exact(self, case: Case, row: int) -> None:
        """Replace one row of the exact values by multiprecision arithmetic."""
        exact = Exact(*(part.copy() for part in self.exact(case)))
        for part, new in zip(exact, self.recomputed(case, row), strict=True):
            part[row] = new[0]
        self._exact[case] = exact


@functools.lru_cache(maxsize=2000)
def _long_rows(case: Case, log: bool) -> Exact:
    """The exact answer in double-double arithmetic; every function is tried on the same rows."""
    return doubledouble.log_softmax(case.z) if log else doubledouble.softmax(case.z)
