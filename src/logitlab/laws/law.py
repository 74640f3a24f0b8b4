"""What a law is, how far a function keeps it, and what is found."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from logitlab._exact.formats import Values
from logitlab.laws.cases import Case
from logitlab.laws.context import Context

LEVELS = ("exact", "within", "weak", "differs", "broken")
WITHIN = 16.0  # ULP
WEAK = 1e-3  # relative
_ROUNDED = 0.505  # ULP of a wide result that is rounded once


class Measured(NamedTuple):
    """How far each row of a case is from a law, and what stands where."""

    ulps: Values  # (N,)
    relative: Values  # (N,)
    came: Values  # (N, M)
    wanted: Values  # (N, M)
    texts: tuple[str, str] | None = None  # instead of these numbers
    means: Values | None = None  # (N,) of the ULPs
    entries: Any = None  # (N,) where in the row the worst one stands
    of: Values | None = None  # (N, ...) the call's own values, where `came` is made of them
    made: tuple[str, ...] = ()  # what each entry of such a `came` is
    span: int = 1  # rows that a finding is about
    place: str = ""  # where it stands in what the line gives


def stated(violated: bool, came: str, wanted: str) -> Measured:
    """A finding about the whole call that is no number."""
    one = np.full(1, np.inf if violated else 0.0)
    return Measured(one, one, np.zeros((1, 1)), np.zeros((1, 1)), (came, wanted))


def failed(error: str) -> Measured:
    """The function raised an error where it owes a result."""
    return stated(True, error, "a result")


def silent(n: int = 1) -> Measured:
    """The law does not speak of these rows."""
    return Measured(*(np.full(n, np.nan),) * 2, *(np.zeros((n, 1)),) * 2)


@dataclass(frozen=True)
class Law:
    """One law.

    `cases` are the rows of a type to look at, `measure` the distance from what the law wants;
    `near` makes the strategy of simpler cases from a found one; `absent` says why the law is not
    applicable, or is empty.
    """

    name: str
    statement: str
    source: str
    reason: str
    cases: Callable[[Context, str], Iterable[Case]]
    measure: Callable[[Context, Case], Measured]
    near: Callable[[Case], Any] | None = None
    convention: bool = False
    never: bool = False  # any violation at all breaks it
    absolute: bool = False  # beyond rounding, more than 1e-3 breaks it whatever the ULP
    # What is to be pasted for a row of a case, where that is not the one call.
    line: Callable[[Context, Case, int], str] | None = None
    absent: Callable[[Context], str] = lambda context: ""
    dtypes: tuple[str, ...] = ()  # by default the floating types that the function takes

    def level(self, ulps: float, relative: float) -> str:
        """The level that a worst distance stands for."""
        if ulps <= 0.5 and not (self.never and ulps > 0):
            return "exact"
        if self.absolute and ulps > _ROUNDED and relative > WEAK:
            return "broken"
        if not self.never and ulps <= WITHIN:
            return "within"
        if self.convention:
            return "differs"
        return "weak" if not self.never and relative <= WEAK else "broken"


class Counterexample(NamedTuple):
    """A line that can be pasted, what it gives, and the exact answer.

    Where a law is about a number made of what the line gives, such as a sum, both are told: the
    values, then what was made of them.
    """

    line: str
    came: str
    exact: str
    dtype: str


@dataclass(frozen=True)
class Verdict:
    """How far one law is kept.

    Attributes
    ----------
    law : Law
    level : str
        ``exact``, ``within`` (n ULP), ``weak`` (beyond 16 ULP but within 1e-3 relative),
        ``broken``; ``differs`` for a convention that is not kept; ``not applicable``.
    ulps : float or None
        The worst distance, where the law has one.
    counterexample : Counterexample or None
        The smallest that was found, unless the law is kept.
    note : str
        Why a law is not applicable, or what else there is to say.
    by_dtype : dict of str to (str, float)
        Level and worst distance of each type.
    measures : list of dict
        Worst and mean error by type, number of classes and spread, where the law has them.
    """

    law: Law
    level: str
    ulps: float | None = None
    counterexample: Counterexample | None = None
    note: str = ""
    by_dtype: dict[str, tuple[str, float]] = field(default_factory=dict)
    measures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Neither broken nor different."""
        return self.level not in ("broken", "differs")

    def __str__(self) -> str:
        if self.level == "within" and self.ulps is not None:
            return f"within {number(self.ulps)} ULP"
        finite = self.ulps is not None and 0 < self.ulps < np.inf
        if self.level == "weak" or (finite and self.level in ("broken", "differs")):
            return f"{self.level} ({number(self.ulps or 0)} ULP)"
        return self.level


def number(x: float) -> str:
    """Three digits."""
    return f"{x:.2g}" if x >= 1e4 else f"{x:.3g}"
