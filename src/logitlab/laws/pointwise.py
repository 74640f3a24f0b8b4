"""Laws of single rows: axioms, order, translation, scaling, temperature, accuracy, range."""

from typing import Any

import numpy as np

from logitlab._exact import doubledouble
from logitlab._exact.formats import FORMATS, Floats, errors, spacing
from logitlab.laws.cases import Case
from logitlab.laws.context import Context
from logitlab.laws.law import MAX_ULP, Deviation, from_error, not_covered
from logitlab.laws.row_checks import order_violations, sort_by_logit, tie_violations

_TAIL = 1e-6  # the law "accuracy" covers probabilities from here up, "tail" those below


def worst_entry_deviation(
    ulps: Floats, relative: Floats, covered: Any, result: Floats, expected: Floats
) -> Deviation:
    """The deviation of the worst covered entry of each row; NaN where none is covered."""
    if result.shape[1] == 0:
        none = np.full(len(result), np.nan)
        return Deviation(none, none, result, expected)
    at = np.where(covered, ulps, -1.0).argmax(axis=-1)[:, None]
    any_covered = covered.any(axis=-1)

    def at_worst(x: Floats) -> Floats:
        return np.where(any_covered, np.take_along_axis(x, at, -1)[:, 0], np.nan)

    n_covered = np.where(any_covered, covered.sum(axis=-1), np.nan)
    with np.errstate(all="ignore"):
        means = np.where(covered, ulps, 0.0).sum(axis=-1) / n_covered
    return Deviation(
        at_worst(ulps),
        at_worst(relative),
        result,
        expected,
        mean_ulps=means,
        worst_entries=at[:, 0],
    )


def _is_max(case: Case) -> Any:
    return case.z == case.z.max(axis=-1, keepdims=True)


def _from_exact(context: Context, case: Case, covered: Any = None) -> Deviation:
    """The error of every entry, or of those that `covered(exact values, dtype)` selects."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    exact = context.exact(case)
    dtype = result.coarser_dtype(case.dtype)
    ulps, relative = errors(result.values, exact, dtype)
    expected = exact.to_float64()
    mask = np.ones(expected.shape, bool) if covered is None else covered(expected, dtype)
    return worst_entry_deviation(ulps, relative, mask, result.values, expected)


def all_entries(context: Context, case: Case) -> Deviation:
    """The error of every entry."""
    return _from_exact(context, case)


def values(context: Context, case: Case) -> Deviation:
    """The error of every entry; of log-probabilities without a single maximum."""
    if not context.function.log:
        return _from_exact(context, case)
    # A single maximum has a law of its own.
    top = _is_max(case)
    covered = ~top | (top.sum(axis=-1, keepdims=True) > 1)
    return _from_exact(context, case, lambda expected, dtype: covered)


def accuracy(context: Context, case: Case) -> Deviation:
    """The error of probabilities >= 1e-6; of log-probabilities without a single maximum."""
    if context.function.log:
        return values(context, case)
    return _from_exact(context, case, lambda expected, dtype: expected >= _TAIL)


def tail(context: Context, case: Case) -> Deviation:
    """The error of probabilities from the smallest normal number to 1e-6."""

    def covered(expected: Floats, dtype: str) -> Any:
        return (expected < _TAIL) & (expected >= np.ldexp(1.0, FORMATS[dtype].minexp))

    return _from_exact(context, case, covered)


def maximum(context: Context, case: Case) -> Deviation:
    """The error at the largest logit."""
    return _from_exact(context, case, lambda expected, dtype: _is_max(case))


def bounds(context: Context, case: Case) -> Deviation:
    """By how much p is outside [0, 1], or log p above 0; in ULP of 1."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    p = result.values
    top = 0.0 if context.function.log else 1.0
    low = -np.inf if context.function.log else 0.0
    with np.errstate(invalid="ignore"):
        off = np.maximum(np.where(p < low, low - p, 0.0), p - top)
        off = np.where(np.isnan(p), np.inf, np.maximum(off, 0.0))
    ulps = off / spacing(1.0, result.coarser_dtype(case.dtype))
    expected = context.exact(case).to_float64()
    return worst_entry_deviation(ulps, off, np.ones(p.shape, bool), p, expected)


def _event_masses(context: Context, case: Case, events: dict[str, Any]) -> Deviation:
    """The error of the probability of each event, given by name as a mask of the entries."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    if case.n_classes == 0:
        return Deviation(*(np.full(len(case.z), np.nan),) * 2, case.z, case.z)
    dtype = result.coarser_dtype(case.dtype)
    with np.errstate(all="ignore"):
        p, unit = result.values, spacing(result.values, dtype)
        exact = context.exact(case)
        exact_hi, exact_lo = (np.ldexp(part, exact.exponent) for part in exact[:2])
        if context.function.log:
            inside = np.maximum(np.nan_to_num(p, nan=1.0), -30000.0)
            hi, lo, k = doubledouble.exp((np.minimum(inside, 700.0), np.zeros_like(p)))
            hi, lo = np.ldexp(hi, k), np.ldexp(lo, k)
            hi, unit = np.where(np.isnan(p), np.nan, hi), unit * hi
            exact_hi, exact_lo = np.exp(exact_hi), np.zeros_like(p)
        else:
            hi, lo = p, np.zeros_like(p)

        def mass(event: Any, hi: Any, lo: Any) -> tuple[Any, Any]:
            parts = (np.where(event, hi, 0.0), np.where(event, lo, 0.0))
            return doubledouble.pairwise_sum(parts)

        columns = []
        for event in events.values():
            total = mass(event, hi, lo)
            one = (np.ones(len(p)), np.zeros(len(p)))
            expected = one if event.all() else mass(event, exact_hi, exact_lo)
            off = np.abs((total[0] - expected[0]) + (total[1] - expected[1]))
            off = np.where(np.isfinite(off), off, np.inf)
            # The mass of an event without entries is exact.
            scale = np.where(event, unit, 0.0).sum(axis=-1)
            ulps = np.where(off == 0, 0.0, off / scale)
            relative = np.where(off == 0, 0.0, off / expected[0])
            columns.append((ulps, relative, total[0], expected[0]))
    ulps, relative, masses, expected_masses = (
        np.stack(column, axis=-1) for column in zip(*columns, strict=True)
    )
    covered = np.ones(ulps.shape, bool)
    deviation = worst_entry_deviation(ulps, relative, covered, masses, expected_masses)
    return deviation._replace(values=result.values, quantities=tuple(events))


def total(context: Context, case: Case) -> Deviation:
    """The error of the sum of a row."""
    log = context.function.log
    deviation = _event_masses(
        context, case, {"sum of exp" if log else "sum": np.ones(case.z.shape, bool)}
    )
    if log and deviation.texts is None:
        # An error of one ULP in a logarithm is many ULP of p: only the error in ULP of the
        # logarithm counts, not the relative error of the sum.
        within = deviation.ulps <= MAX_ULP
        return deviation._replace(relative=np.where(within, 0.0, deviation.relative))
    return deviation


def additivity(context: Context, case: Case) -> Deviation:
    """The error of the sums over half the classes, every other one and all but the largest."""
    index = np.broadcast_to(np.arange(case.n_classes), case.z.shape)
    top = case.z.max(axis=-1, keepdims=True) if case.n_classes else 0.0
    events = {
        "sum over the first half": 2 * index < case.n_classes,
        "sum over every other class": index % 2 == 0,
        "sum over all but the largest": case.z < top,
    }
    return _event_masses(context, case, events)


def _adjacent(context: Context, case: Case, ties: bool) -> Deviation:
    """Violations between logits that are adjacent in ascending order, in ULP."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    z, p = sort_by_logit(case.z, result.values)
    off = tie_violations(z, p) if ties else order_violations(p)
    covered = z[:, 1:] == z[:, :-1] if ties else np.ones(off.shape, bool)
    with np.errstate(all="ignore"):
        unit = spacing(p[:, 1:], result.coarser_dtype(case.dtype))
        ulps = np.where(off == 0, 0.0, off / np.where(np.isfinite(unit), unit, 1.0))
    deviation = worst_entry_deviation(ulps, off, covered, off, off)
    return deviation._replace(
        result=result.values,
        expected=context.exact(case).to_float64(),
        worst_entries=None,
        mean_ulps=None,
    )


def order(context: Context, case: Case) -> Deviation:
    """By how much a probability is below one of a smaller logit, in ULP."""
    return _adjacent(context, case, ties=False)


def ties(context: Context, case: Case) -> Deviation:
    """The difference of the probabilities of equal logits, in ULP."""
    return _adjacent(context, case, ties=True)


def resolution(context: Context, case: Case) -> Deviation:
    """Half the exact difference of two different logits that get equal results, in ULP."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    exact = context.exact(case)
    p, expected = result.values, exact.to_float64()
    with np.errstate(all="ignore"):
        # The difference of the two exact values in units of 2^exponent of the first.
        shift = exact.exponent - exact.exponent[:, :1]
        difference = (np.ldexp(exact.hi[:, 1], shift[:, 1]) - exact.hi[:, 0]) + (
            np.ldexp(exact.lo[:, 1], shift[:, 1]) - exact.lo[:, 0]
        )
        off = np.abs(np.ldexp(difference, exact.exponent[:, 0])) / 2
        unit = spacing(expected, result.coarser_dtype(case.dtype)).max(axis=-1)
        equal = (p[:, 0] == p[:, 1]) | np.isnan(p).any(axis=-1)
    ulps = np.where(equal, off / unit, 0.0)
    return Deviation(ulps, np.where(equal, off / np.abs(expected[:, 0]), 0.0), p, expected)


def lipschitz(context: Context, case: Case) -> Deviation:
    """By how much the distance of the results of rows 2i and 2i + 1 exceeds the bound.

    The deviation is that of the first row of each pair.
    """
    if len(case.z) % 2:
        return not_covered(len(case.z))
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    p = result.values
    log = context.function.log
    norm: Any = np.inf if log else 2
    with np.errstate(all="ignore"):
        distance = np.linalg.norm(p[1::2] - p[::2], ord=norm, axis=-1)
        bound = (2.0 if log else 0.5) * np.linalg.norm(case.z[1::2] - case.z[::2], norm, axis=-1)
        unit = np.linalg.norm(spacing(p[::2], result.coarser_dtype(case.dtype)), norm, axis=-1)
        excess = np.where(np.isnan(distance), np.inf, np.maximum(distance - bound, 0.0))
        size = np.linalg.norm(p[::2], ord=norm, axis=-1)
    ulps, relative = np.full(len(p), np.nan), np.full(len(p), np.nan)
    ulps[::2] = np.where(excess == 0, 0.0, excess / (2 * unit))
    relative[::2] = np.where(excess == 0, 0.0, excess / size)
    distances, bounds = (np.repeat(x, 2)[:, None] for x in (distance, bound))
    pairs = np.repeat(p.reshape(-1, 2, case.n_classes), 2, axis=0)
    quantity = "largest difference" if log else "distance of the two rows"
    return Deviation(
        ulps, relative, distances, bounds, values=pairs, quantities=(quantity,), n_rows=2
    )
