"""The context of a check: the function, its options, cached results and exact values."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from logitlab._exact import doubledouble, multiprecision
from logitlab._exact.formats import Exact
from logitlab.laws.cases import Case, ordinary_cases
from logitlab.laws.tested_function import Result, TestedFunction

_SMALL = 64  # entries; up to here multiprecision arithmetic is fast enough


class Context:
    """A function to check, with its results and the exact values of the cases.

    Parameters
    ----------
    function : TestedFunction
    seed : int
        The seed of the random rows.
    full : bool
        Whether to check more and longer rows.
    jacobian : callable, optional
        Returns the Jacobian of the function at a row.
    sampler : callable, optional
        Samples categories from a row of logits.
    """

    def __init__(
        self,
        function: TestedFunction,
        *,
        seed: int = 0,
        full: bool = False,
        jacobian: Callable[..., Any] | None = None,
        sampler: Callable[..., Any] | None = None,
    ) -> None:
        self.function = function
        self.seed = seed
        self.full = full
        self.jacobian = jacobian
        self.sampler = sampler
        self._ordinary: set[Case] = set()  # the cases that several laws share
        self._results: dict[Case, Result] = {}
        self._exact: dict[Case, Exact] = {}

    def ordinary_cases(self, dtype: str) -> tuple[Case, ...]:
        """Ordinary rows of a dtype, of every length and standard deviation."""
        cases = ordinary_cases(dtype, self.seed, self.full)
        self._ordinary.update(cases)
        return cases

    def result(self, case: Case) -> Result:
        """The result of the function on a case; cached for the ordinary cases."""
        if case in self._results:
            return self._results[case]
        result = self.function(case)
        if case in self._ordinary:
            self._results[case] = result
        return result

    def exact(self, case: Case) -> Exact:
        """The exact result: probabilities, or log-probabilities if the function returns those."""
        if case in self._exact:
            return self._exact[case]
        log = self.function.log
        finite = np.isfinite(case.z).all()
        if case.n_classes > _SMALL and (case.z == case.z[:, :1]).all() and finite:
            probability = multiprecision.mp.mpf(1) / case.n_classes
            value = multiprecision.mp.log(probability) if log else probability
            exact = multiprecision.to_exact([value])
            return Exact(*(np.broadcast_to(part, case.z.shape) for part in exact))
        special = np.isnan(case.z).any() or (case.z == np.inf).any()
        all_excluded = (case.z == -np.inf).all(axis=-1).any()
        if case.options or special or all_excluded or case.z.size <= _SMALL:
            rows = [self._multiprecision_row(case, i) for i in range(len(case.z))]
            return Exact(*(np.concatenate(part) for part in zip(*rows, strict=True)))
        return _doubledouble_rows(case, log)

    def refine_exact_row(self, case: Case, row: int) -> None:
        """Replace one row of the exact result of a case by its multiprecision value."""
        exact = Exact(*(part.copy() for part in self.exact(case)))
        for part, new in zip(exact, self._multiprecision_row(case, row), strict=True):
            part[row] = new[0]
        self._exact[case] = exact

    def _multiprecision_row(self, case: Case, i: int) -> Exact:
        softmax = multiprecision.log_softmax if self.function.log else multiprecision.softmax
        temperature = case.options.get("temperature", 1.0)
        return multiprecision.to_exact(softmax(case.z[i].tolist(), temperature))


@functools.lru_cache(maxsize=2000)
def _doubledouble_rows(case: Case, log: bool) -> Exact:
    # Cached across functions, which are all checked on the same ordinary cases.
    return doubledouble.log_softmax(case.z) if log else doubledouble.softmax(case.z)
