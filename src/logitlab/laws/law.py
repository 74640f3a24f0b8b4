"""A law, the deviation of a function from it, and the result of checking it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from logitlab._exact.formats import Floats

if TYPE_CHECKING:  # they need Hypothesis and mpmath, which `import logitlab.laws` does not load
    from logitlab.laws.cases import Case, Strategies
    from logitlab.laws.context import Context

LEVELS = ("exact", "within", "inaccurate", "differs", "fails")
MAX_ULP = 16.0  # of the level "within"
MAX_RELATIVE = 1e-3  # of the level "inaccurate"
SHOWN_ULP = 1e15  # a larger number says no more than the level
_ROUNDED_ONCE = 0.505  # ULP: a result in wider arithmetic, rounded once


class Deviation(NamedTuple):
    """The deviation of each row of a case from a law, and the numbers to show for it.

    `result` and `expected` are the values of the function and those that the law requires. Where
    `result` is derived from the values of the function (a sum, a distance), `values` holds those
    values and `quantities` the name of each entry of `result`.
    """

    ulps: Floats  # (N,); NaN where the law does not cover the row
    relative: Floats  # (N,)
    result: Floats  # (N, M)
    expected: Floats  # (N, M)
    texts: tuple[str, str] | None = None  # result and expected, where they are not numbers
    mean_ulps: Floats | None = None  # (N,)
    worst_entries: Any = None  # (N,) flat index in the row of `result`
    values: Floats | None = None  # (N, ...)
    quantities: tuple[str, ...] = ()
    n_rows: int = 1  # rows that one deviation concerns
    prefix: str = ""  # where in the output of the code the result is found


def from_condition(violated: bool, result: str, expected: str) -> Deviation:
    """The deviation of a whole call from a condition that holds or does not."""
    one = np.full(1, np.inf if violated else 0.0)
    return Deviation(one, one, np.zeros((1, 1)), np.zeros((1, 1)), (result, expected))


def from_error(error: str) -> Deviation:
    """The deviation of a call that raised an error."""
    return from_condition(True, error, "a result")


def not_covered(n: int = 1) -> Deviation:
    """The deviation of n rows that the law does not cover."""
    return Deviation(*(np.full(n, np.nan),) * 2, *(np.zeros((n, 1)),) * 2)


@dataclass(frozen=True)
class Law:
    """A law of softmax, stated for floating-point arithmetic.

    Attributes
    ----------
    name, statement, source, reason : str
        What the law says, where it comes from and why it matters.
    cases : callable
        The cases of a dtype on which the law is checked.
    measure : callable
        The deviation of the function on a case.
    simpler : callable, optional
        The Hypothesis strategies of cases simpler than a given one.
    convention : bool
        Whether the law is a convention, not a law of mathematics.
    zero_tolerance : bool
        Whether any deviation is a failure.
    limits_relative : bool
        Whether a relative error beyond 1e-3 is a failure even within 16 ULP.
    allows_rounding : bool
        Whether the convention is about rounding alone: a deviation beyond 16 ULP and 1e-3 fails.
    code : callable, optional
        The Python code that shows a row of a case; by default the call.
    not_applicable : callable
        The reason why the law is not applicable to the function; empty if it is.
    dtypes : tuple of str
        The dtypes to check; by default the floating dtypes that the function takes.
    """

    name: str
    statement: str
    source: str
    reason: str
    cases: Callable[["Context", str], Iterable["Case"]]
    measure: Callable[["Context", "Case"], Deviation]
    simpler: Callable[["Case"], "Strategies"] | None = None
    convention: bool = False
    zero_tolerance: bool = False
    limits_relative: bool = False
    allows_rounding: bool = False
    code: Callable[["Context", "Case", int], str] | None = None
    not_applicable: Callable[["Context"], str] = lambda context: ""
    dtypes: tuple[str, ...] = ()

    def level(self, ulps: float, relative: float) -> str:
        """The level of a deviation."""
        if ulps <= 0.5 and not (self.zero_tolerance and ulps > 0):
            return "exact"
        if self.limits_relative and ulps > _ROUNDED_ONCE and relative > MAX_RELATIVE:
            return "fails"
        if not self.zero_tolerance and ulps <= MAX_ULP:
            return "within"
        beyond_rounding = ulps > MAX_ULP and relative > MAX_RELATIVE
        if self.convention and not (self.allows_rounding and beyond_rounding):
            return "differs"
        return "inaccurate" if not self.zero_tolerance and relative <= MAX_RELATIVE else "fails"


class Finding(NamedTuple):
    """One test: a bound of the probability of what was seen, and the text to show for it.

    `p_value` is 0 or 1 in a test that needs no statistics.
    """

    p_value: float
    code: str
    result: str
    expected: str
    statistical: bool = True
    note: str = ""


def certain(holds: bool, code: str, result: str, expected: str) -> Finding:
    """A test that needs no statistics."""
    return Finding(float(holds), code, result, expected, statistical=False)


@dataclass(frozen=True)
class SamplerLaw:
    """A law of samplers or of verifiers.

    Attributes
    ----------
    name, statement, source, reason : str
        What the law says, where it comes from and why it matters.
    tests : callable
        The findings for a function and a seed.
    requires : tuple of str
        What the function must have a parameter for: ``seed``, ``temperature``, ``top_k``.
    convention : bool
        Whether the law is a convention, not a law of mathematics.
    """

    name: str
    statement: str
    source: str
    reason: str
    tests: Callable[[Any, int], Iterable[Finding]]
    requires: tuple[str, ...] = ()
    convention: bool = False


class Counterexample(NamedTuple):
    """Python code that shows a deviation, its result and the expected result.

    Attributes
    ----------
    code : str
        One line of Python to paste.
    result : str
        What the code returns, or the error that it raises. Where the law is about a number derived
        from it, such as a sum, that number follows.
    expected : str
        The exact result.
    dtype : str
        The dtype in which the deviation is measured.
    """

    code: str
    result: str
    expected: str
    dtype: str


@dataclass(frozen=True)
class LawResult:
    """The result of checking one law.

    Attributes
    ----------
    law : Law or SamplerLaw
    level : str
        ``exact``, ``within`` (at most 16 ULP), ``inaccurate`` (more than 16 ULP, at most 1e-3
        relative) or ``fails``; ``differs`` where a convention is not followed; ``not applicable``;
        ``passes`` for a law of samplers.
    worst_ulp : float or None
        The largest deviation in ULP, where there is one.
    counterexample : Counterexample or None
        The smallest one found; None where the level is exact or within.
    note : str
        Why the law is not applicable.
    by_dtype : dict of str to (str, float)
        Level and largest deviation of each dtype.
    measurements : list of dict
        Largest and mean error by dtype, number of classes and distribution of the logits, for the
        laws that have them.
    """

    law: Law | SamplerLaw
    level: str
    worst_ulp: float | None = None
    counterexample: Counterexample | None = None
    note: str = ""
    by_dtype: dict[str, tuple[str, float]] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the function neither fails the law nor differs from the convention."""
        return self.level not in ("fails", "differs")

    def __str__(self) -> str:
        if self.level == "within" and self.worst_ulp is not None:
            return f"within {three_digits(self.worst_ulp)} ULP"
        finite = self.worst_ulp is not None and 0 < self.worst_ulp < SHOWN_ULP
        if self.level == "inaccurate" or (finite and self.level in ("fails", "differs")):
            return f"{self.level} ({three_digits(self.worst_ulp or 0)} ULP)"
        return self.level


def three_digits(x: float) -> str:
    """A positive number with three significant digits, two from 10000 on."""
    return f"{x:.2g}" if x >= 1e4 else f"{x:.3g}"
