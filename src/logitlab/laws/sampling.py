"""Laws of a sampler."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact import multiprecision
from logitlab.laws import array_types
from logitlab.laws.cases import Case, explicit, normal, patterned, short_rows
from logitlab.laws.context import Context
from logitlab.laws.law import Law, Measured, failed, silent, stated
from logitlab.laws.subject import quietly

mp = multiprecision.mp
_DRAWS = 40_000
_FEW = 1000
_P_VALUE = 1e-9  # below it, chance is no explanation


def _no_sampler(context: Context) -> str:
    return "" if context.sampler else "no sampler is given (sampler=)"


def _draw(context: Context, case: Case, seed: int = 0, n: int = _DRAWS) -> Any:
    """n categories of the case's row; or the error."""
    subject = context.subject
    try:
        row = subject.make(np.array(case.z[0]), case.dtype)
        drawn = quietly(lambda: context.sampler(row, n, rng=context.seed + seed))
        found, _ = array_types.to_values(drawn)
        return found.reshape(n).astype(np.int64)
    except Exception as error:  # a stranger's function
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _on_draws(
    judge: Callable[[Context, Case, Any], Measured],
) -> Callable[[Context, Case], Measured]:
    def measure(context: Context, case: Case) -> Measured:
        if not (case.z > -np.inf).any():
            return silent()
        drawn = _draw(context, case)
        return failed(drawn) if isinstance(drawn, str) else judge(context, case, drawn)

    return measure


def _support(context: Context, case: Case, drawn: Any) -> Measured:
    inside = (drawn >= 0) & (drawn < case.classes)
    wrong = ~inside | (case.z[0][np.where(inside, drawn, 0)] == -np.inf)
    if not wrong.any():
        return stated(False, "", "")
    came = f"{drawn.size} draws, {wrong.sum()} of them of category {drawn[wrong][0]}"
    return stated(True, came, "never that category")


def _counted(case: Case, drawn: Any) -> tuple[Any, Any]:
    """Counts and expected counts, of the rare categories together."""
    p = multiprecision.softmax(case.z[0].tolist())
    expected = np.array([float(x) for x in p]) * drawn.size
    counts = np.bincount(drawn, minlength=case.classes)[: case.classes]
    rare = expected < 5
    return (
        np.append(counts[~rare], counts[rare].sum()).astype(float),
        np.append(expected[~rare], expected[rare].sum()),
    )


def _chi_square(context: Context, case: Case, drawn: Any) -> Measured:
    none = (drawn < 0) | (drawn >= case.classes)
    if none.any():
        return failed(f"a draw of category {drawn[none][0]}, which there is not")
    counts, expected = _counted(case, drawn)
    some = expected > 0
    statistic = ((counts[some] - expected[some]) ** 2 / expected[some]).sum()
    freedom = max(1, int(some.sum()) - 1)
    p = mp.gammainc(mp.mpf(freedom) / 2, mp.mpf(float(statistic)) / 2, mp.inf, regularized=True)
    text = f"draws with the counts {counts[:6].astype(int).tolist()}, p-value {mp.nstr(p, 2)}"
    return stated(bool(p < _P_VALUE), text, f"expected {expected[:6].round(1).tolist()}")


def _share(context: Context, case: Case, drawn: Any) -> Measured:
    """The draws from the second half of the row."""
    half = case.classes // 2
    p = multiprecision.softmax(case.z[0].tolist()) if case.z.any() else None
    share = float(mp.fsum(p[half:])) if p else 1 - half / case.classes
    count, expected = int((drawn >= half).sum()), share * drawn.size
    deviation = np.sqrt(expected * (1 - share))
    off = abs(count - expected) > 6.2 * deviation + 1
    text = f"draws, {count} of them from the upper half"
    return stated(bool(off), text, f"{expected:.1f} ± {deviation:.1f}")


def _reproducible(context: Context, case: Case) -> Measured:
    found = [_draw(context, case, seed, _FEW) for seed in (0, 0, 1)]
    errors = [x for x in found if isinstance(x, str)]
    if errors:
        return failed(errors[0])
    first, again, other = found
    if not np.array_equal(first, again):
        return stated(True, "other draws for the same seed", "the same draws")
    same = np.array_equal(first, other) and case.classes > 1
    return stated(same, "the same draws for another seed", "other draws")


def _excluded(context: Context, dtype: str) -> Iterator[Case]:
    yield explicit([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]], dtype)
    middle = np.where(np.arange(81) == 40, 0.0, -np.inf)[None, :]
    yield Case(middle, dtype, "np.where(np.arange(81) == 40, 0.0, -np.inf)[None, :]")


def _ordinary(context: Context, dtype: str) -> Iterator[Case]:
    for k, spread in ((2, 1.0), (10, 1.0), (100, 2.0), (1000, 1.0)):
        yield normal(1, k, spread, 3, dtype)


def _rare(context: Context, dtype: str) -> Iterator[Case]:
    for k in (50, 500):
        text = f"np.repeat([[0.0, -7.0]], {k}, axis=1)"
        yield Case(np.repeat([[0.0, -7.0]], k, axis=1), dtype, text)
    yield patterned("equal", 1 << (25 if context.full else 18), 0, dtype)


def _near(case: Case) -> Any:
    return short_rows(case.dtype, case.z).map(lambda row: explicit([row], case.dtype))


def _near_excluded(case: Case) -> Any:
    entry = st.sampled_from([0.0, 1.0, -np.inf])
    return st.lists(entry, min_size=1, max_size=5).map(lambda row: explicit([row], case.dtype))


def _calls(n: int, *seeds: int) -> Callable[[Context, Case, int], str]:
    def line(context: Context, case: Case, row: int) -> str:
        rest = [f", {n}, rng={context.seed + seed}" for seed in seeds]
        return context.subject.line_of(context.sampler, "sampler", case, *rest)

    return line


def _law(
    name: str,
    statement: str,
    reason: str,
    measure: Any,
    cases: Any,
    near: Any,
    line: Any = None,
) -> Law:
    return Law(
        name,
        statement,
        "the distribution that softmax stands for",
        reason,
        cases,
        measure,
        near=near,
        absent=_no_sampler,
        line=line or _calls(_DRAWS, 0),
        never=True,
    )


LAWS = (
    _law(
        "support",
        "a category of probability 0 is never drawn, nor one that there is not",
        "What is excluded must stay out.",
        _on_draws(_support),
        _excluded,
        _near_excluded,
    ),
    _law(
        "chi-square",
        f"the counts of {_DRAWS} draws have a p-value of at least {_P_VALUE:g}",
        "K. Pearson's test: draws follow the probabilities.",
        _on_draws(_chi_square),
        _ordinary,
        _near,
    ),
    _law(
        "rare draws",
        "the second half of a row is drawn as often as its probability says, within 6.2 σ",
        "A cumulative sum in few digits never reaches the last categories.",
        _on_draws(_share),
        _rare,
        None,
    ),
    _law(
        "reproducibility",
        "the same seed draws the same, another seed does not",
        "What cannot be repeated cannot be tested.",
        _reproducible,
        _ordinary,
        None,
        _calls(_FEW, 0, 0, 1),
    ),
)
