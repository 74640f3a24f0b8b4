"""Laws of a sampler."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from logitlab._arrays import bincount
from logitlab._exact import multiprecision
from logitlab._exact.formats import Floats
from logitlab.laws import array_libraries
from logitlab.laws.cases import (
    Case,
    Strategies,
    equal_case,
    explicit_case,
    normal_case,
    short_cases,
)
from logitlab.laws.context import Context
from logitlab.laws.law import Deviation, Law, from_condition, from_error, not_covered
from logitlab.laws.tested_function import call_quietly, error_text

Integers = NDArray[np.int64]
Measure = Callable[[Context, Case], Deviation]

mp = multiprecision.mp
_N_SAMPLES = 40_000
_N_REPRODUCED = 1000
_MIN_P_VALUE = 1e-9


def _no_sampler(context: Context) -> str:
    return "" if context.sampler else "no sampler is available; pass sampler="


def _sample(context: Context, case: Case, seed: int = 0, n: int = _N_SAMPLES) -> Integers | str:
    """n categories sampled from the row of a case; or the text of the error."""
    function, sampler = context.function, context.sampler
    assert sampler is not None
    try:
        row = function.make_array(np.array(case.z[0]), case.dtype)
        samples = call_quietly(lambda: sampler(row, n, rng=context.seed + seed))
        return array_libraries.to_float64(samples)[0].reshape(n).astype(np.int64)
    except Exception as error:  # the sampler may raise any class
        return error_text(error)


def _on_samples(deviation: Callable[[Case, Integers], Deviation]) -> Measure:
    """The deviation of a law from a function of the samples."""

    def measure(context: Context, case: Case) -> Deviation:
        if not (case.z > -np.inf).any():
            return not_covered()
        samples = _sample(context, case)
        return from_error(samples) if isinstance(samples, str) else deviation(case, samples)

    return measure


def _support(case: Case, samples: Integers) -> Deviation:
    """Whether every sample is a category of positive probability."""
    valid = (samples >= 0) & (samples < case.n_classes)
    wrong = ~valid | (case.z[0][np.where(valid, samples, 0)] == -np.inf)
    if not wrong.any():
        return from_condition(False, "", "")
    category = samples[wrong][0]
    result = f"{samples.size} samples, {wrong.sum()} of them of category {category}"
    return from_condition(True, result, f"0 of category {category}")


def _counts(case: Case, samples: Integers) -> tuple[Floats, Floats]:
    """Counts and expected counts; categories expected fewer than 5 times are merged."""
    p = multiprecision.softmax(case.z[0].tolist())
    expected = np.array([float(x) for x in p]) * samples.size
    counts = bincount(samples, minlength=case.n_classes)[: case.n_classes]
    rare = expected < 5
    return (
        np.append(counts[~rare], counts[rare].sum()).astype(float),
        np.append(expected[~rare], expected[rare].sum()),
    )


def _chi_square(case: Case, samples: Integers) -> Deviation:
    """Whether Pearson's test accepts the counts."""
    outside = (samples < 0) | (samples >= case.n_classes)
    if outside.any():
        return from_error(f"a sample of category {samples[outside][0]}, which does not exist")
    counts, expected = _counts(case, samples)
    possible = expected > 0
    statistic = ((counts[possible] - expected[possible]) ** 2 / expected[possible]).sum()
    dof = max(1, int(possible.sum()) - 1)
    p = mp.gammainc(mp.mpf(dof) / 2, mp.mpf(float(statistic)) / 2, mp.inf, regularized=True)
    text = f"samples with the counts {counts[:6].astype(int).tolist()}, p-value {mp.nstr(p, 2)}"
    return from_condition(
        bool(p < _MIN_P_VALUE), text, f"expected counts {expected[:6].round(1).tolist()}"
    )


def _second_half(case: Case, samples: Integers) -> Deviation:
    """Whether the number of samples from the second half of the row agrees with its probability."""
    half = case.n_classes // 2
    p = multiprecision.softmax(case.z[0].tolist()) if case.z.any() else None
    probability = float(mp.fsum(p[half:])) if p else 1 - half / case.n_classes
    count, expected = int((samples >= half).sum()), probability * samples.size
    deviation = np.sqrt(expected * (1 - probability))
    violated = abs(count - expected) > 6.2 * deviation + 1
    text = f"samples, {count} of them from the second half"
    return from_condition(bool(violated), text, f"{expected:.1f} ± {deviation:.1f}")


def _reproducible(context: Context, case: Case) -> Deviation:
    """Whether a seed determines the samples."""
    samples = [_sample(context, case, seed, _N_REPRODUCED) for seed in (0, 0, 1)]
    errors = [x for x in samples if isinstance(x, str)]
    if errors:
        return from_error(errors[0])
    first, repeated, other = samples
    if not np.array_equal(first, repeated):
        return from_condition(True, "different samples for the same seed", "the same samples")
    same = np.array_equal(first, other) and case.n_classes > 1
    return from_condition(same, "the same samples for another seed", "different samples")


def _excluded_rows(context: Context, dtype: str) -> Iterator[Case]:
    yield explicit_case([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]], dtype)
    middle = np.where(np.arange(81) == 40, 0.0, -np.inf)[None, :]
    yield Case(middle, dtype, "np.where(np.arange(81) == 40, 0.0, -np.inf)[None, :]")


def _ordinary_rows(context: Context, dtype: str) -> Iterator[Case]:
    for k, sd in ((2, 1.0), (10, 1.0), (100, 2.0), (1000, 1.0)):
        yield normal_case(1, k, sd, 3, dtype)


def _rare_rows(context: Context, dtype: str) -> Iterator[Case]:
    for k in (50, 500):
        text = f"np.repeat([[0.0, -7.0]], {k}, axis=1)"
        yield Case(np.repeat([[0.0, -7.0]], k, axis=1), dtype, text)
    yield equal_case(1 << (25 if context.full else 18), dtype)


def _shorter_excluded(case: Case) -> Strategies:
    rows = st.lists(st.sampled_from([0.0, 1.0, -np.inf]), min_size=1, max_size=5)
    return [rows.map(lambda row: explicit_case([row], case.dtype))]


def _sampler_code(n: int, *seeds: int) -> Callable[[Context, Case, int], str]:
    """Code that samples n categories, once for each seed."""

    def code(context: Context, case: Case, row: int) -> str:
        arguments = [f", {n}, rng={context.seed + seed}" for seed in seeds]
        return context.function.code_on_row(context.sampler, "sampler", case, *arguments)

    return code


_samples_code = _sampler_code(_N_SAMPLES, 0)


def _law(
    name: str,
    statement: str,
    reason: str,
    measure: Measure,
    cases: Callable[[Context, str], Iterable[Case]],
    simpler: Callable[[Case], Strategies] | None = None,
    code: Callable[[Context, Case, int], str] = _samples_code,
) -> Law:
    return Law(
        name,
        statement,
        "the categorical distribution with the probabilities of softmax",
        reason,
        cases,
        measure,
        simpler=simpler,
        not_applicable=_no_sampler,
        code=code,
        zero_tolerance=True,
    )


LAWS = (
    _law(
        "support",
        "no category of probability 0 is sampled, and none that does not exist",
        "An excluded class must not be sampled.",
        _on_samples(_support),
        _excluded_rows,
        _shorter_excluded,
    ),
    _law(
        "chi-square",
        f"Pearson's test of {_N_SAMPLES} samples has a p-value of at least {_MIN_P_VALUE:g}",
        "Samples follow the probabilities.",
        _on_samples(_chi_square),
        _ordinary_rows,
        short_cases,
    ),
    _law(
        "rare classes",
        "the number of samples from the second half of a row agrees with its probability "
        "within 6.2 σ",
        "A cumulative sum in low precision never reaches the last categories.",
        _on_samples(_second_half),
        _rare_rows,
    ),
    _law(
        "reproducibility",
        "the same seed gives the same samples, another seed gives others",
        "A test must be repeatable.",
        _reproducible,
        _ordinary_rows,
        code=_sampler_code(_N_REPRODUCED, 0, 0, 1),
    ),
)
