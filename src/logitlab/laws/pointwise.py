"""Laws of single rows: the axioms, order, translation, scaling, temperature, accuracy, range."""

from typing import Any

import numpy as np

from logitlab._exact import doubledouble
from logitlab._exact.formats import FORMATS, errors, spacing
from logitlab.laws.cases import Case
from logitlab.laws.context import Context
from logitlab.laws.law import WITHIN, Measured, failed, silent

_BODY = 1e-6  # the probability below which the tail begins


def worst(ulps: Any, relative: Any, keep: Any, came: Any, wanted: Any) -> Measured:
    """The worst of the kept entries of each row; NaN where none is kept."""
    if came.shape[1] == 0:
        none = np.full(len(came), np.nan)
        return Measured(none, none, came, wanted)
    ranked = np.where(keep, ulps, -1.0)
    at = ranked.argmax(axis=-1)[:, None]
    found, of = (np.take_along_axis(x, at, -1)[:, 0] for x in (ranked, relative))
    none = found < 0
    with np.errstate(all="ignore"):
        means = np.where(keep, ulps, 0.0).sum(axis=-1) / np.where(none, np.nan, keep.sum(axis=-1))
    found, of = np.where(none, np.nan, found), np.where(none, np.nan, of)
    return Measured(found, of, came, wanted, means=means, entries=at[:, 0])


def against_exact(context: Context, case: Case, part: str = "all") -> Measured:
    """The distance from the exact answer, of every entry or of a part of them."""
    result = context.result(case)
    if result.error:
        return failed(result.error)
    exact = context.exact(case)
    dtype = result.coarser(case.dtype)
    ulps, relative = errors(result.values, exact, dtype)
    wide = exact.wide()
    if part == "all":
        keep = np.ones(wide.shape, bool)
    elif part == "top":
        keep = case.z == case.z.max(axis=-1, keepdims=True)
    elif context.subject.log:
        # A largest entry that stands alone has a law of its own.
        top = case.z == case.z.max(axis=-1, keepdims=True)
        keep = ~top | (top.sum(axis=-1, keepdims=True) > 1)
    elif part == "rest":
        keep = np.ones(wide.shape, bool)
    elif part == "body":
        keep = wide >= _BODY
    else:
        keep = (wide < _BODY) & (wide >= np.ldexp(1.0, FORMATS[dtype].smallest))
    return worst(ulps, relative, keep, result.values, wide)


def values(context: Context, case: Case) -> Measured:
    """Of every entry but a logarithm at the maximum."""
    return against_exact(context, case, "rest")


def accuracy(context: Context, case: Case) -> Measured:
    """In the body."""
    return against_exact(context, case, "body")


def tail(context: Context, case: Case) -> Measured:
    """Below 1e-6."""
    return against_exact(context, case, "tail")


def maximum(context: Context, case: Case) -> Measured:
    """At the largest logit."""
    return against_exact(context, case, "top")


def bounds(context: Context, case: Case) -> Measured:
    """0 <= p <= 1; log p <= 0."""
    result = context.result(case)
    if result.error:
        return failed(result.error)
    p = result.values
    top = 0.0 if context.subject.log else 1.0
    low = -np.inf if context.subject.log else 0.0
    with np.errstate(invalid="ignore"):
        off = np.maximum(np.where(p < low, low - p, 0.0), p - top)
        off = np.where(np.isnan(p), np.inf, np.maximum(off, 0.0))
    ulps = off / spacing(1.0, result.coarser(case.dtype))
    return worst(ulps, off, np.ones(p.shape, bool), p, context.exact(case).wide())


def _mass(context: Context, case: Case, events: dict[str, Any]) -> Measured:
    """The probability of each event (rows of booleans, by name) against the exact one."""
    result = context.result(case)
    if result.error:
        return failed(result.error)
    if case.classes == 0:
        return Measured(*(np.full(len(case.z), np.nan),) * 2, case.z, case.z)
    dtype = result.coarser(case.dtype)
    with np.errstate(all="ignore"):
        p, unit = result.values, spacing(result.values, dtype)
        if context.subject.log:
            inside = np.maximum(np.nan_to_num(p, nan=1.0), -30000.0)
            hi, lo, k = doubledouble.exp((np.minimum(inside, 700.0), np.zeros_like(p)))
            hi, lo = np.ldexp(hi, k), np.ldexp(lo, k)
            hi, unit = np.where(np.isnan(p), np.nan, hi), unit * hi
        else:
            hi, lo = p, np.zeros_like(p)
        exact = context.exact(case)
        low = [np.ldexp(part, exact.exponent) for part in exact[:2]]
        if context.subject.log:
            low = [np.exp(low[0]), np.zeros_like(p)]
        columns = []
        for event in events.values():
            came = doubledouble.total((np.where(event, hi, 0.0), np.where(event, lo, 0.0)))
            if event.all():
                true: Any = (np.ones(len(p)), np.zeros(len(p)))
            else:
                true = doubledouble.total([np.where(event, part, 0.0) for part in low])
            off = np.abs((came[0] - true[0]) + (came[1] - true[1]))
            off = np.where(np.isfinite(off), off, np.inf)
            # An event of no weight is right if it gets none.
            scale = np.where(event, unit, 0.0).sum(axis=-1)
            ulps = np.where(off == 0, 0.0, off / scale)
            columns.append((ulps, np.where(off == 0, 0.0, off / true[0]), came[0], true[0]))
    parts = [np.stack(column, axis=-1) for column in zip(*columns, strict=True)]
    found = worst(parts[0], parts[1], np.ones(parts[0].shape, bool), parts[2], parts[3])
    return found._replace(of=result.values, made=tuple(events))


def total(context: Context, case: Case) -> Measured:
    """The sum of a row."""
    name = "the sum of exp" if context.subject.log else "the sum"
    found = _mass(context, case, {name: np.ones(case.z.shape, bool)})
    if context.subject.log and found.texts is None:
        # One ULP of a logarithm moves p by many of its own: only those of the logarithm count.
        return found._replace(relative=np.where(found.ulps <= WITHIN, 0.0, found.relative))
    return found


def additivity(context: Context, case: Case) -> Measured:
    """The first half of the classes, every other one, and all but the largest."""
    place = np.broadcast_to(np.arange(case.classes), case.z.shape)
    top = case.z.max(axis=-1, keepdims=True) if case.classes else 0.0
    events = {
        "the sum over the first half": 2 * place < case.classes,
        "the sum over every other class": place % 2 == 0,
        "the sum over all but the largest": case.z < top,
    }
    return _mass(context, case, events)


def _ascending(z: Any, p: Any) -> tuple[Any, Any]:
    """Sorted by logit, equal logits by probability."""
    rank = np.lexsort((p, z), axis=-1)
    return tuple(np.take_along_axis(x, rank, -1) for x in (z, p))  # type: ignore[return-value]


def _steps(context: Context, case: Case, equal: bool) -> Measured:
    result = context.result(case)
    if result.error:
        return failed(result.error)
    z, p = _ascending(case.z, result.values)
    with np.errstate(all="ignore"):
        if equal:
            same = z[:, 1:] == z[:, :-1]
            off = np.where(same & (p[:, 1:] != p[:, :-1]), p[:, 1:] - p[:, :-1], 0.0)
        else:
            same = np.ones((len(z), max(0, z.shape[1] - 1)), bool)
            off = np.maximum(np.maximum.accumulate(p, axis=-1)[:, :-1] - p[:, 1:], 0.0)
        off = np.where(same & np.isnan(p[:, 1:] + p[:, :-1]), np.inf, np.abs(np.nan_to_num(off)))
        unit = spacing(p[:, 1:], result.coarser(case.dtype))
        ulps = np.where(off == 0, 0.0, off / np.where(np.isfinite(unit), unit, 1.0))
    found = worst(ulps, off, same, off, off)
    wide = context.exact(case).wide()
    return found._replace(came=result.values, wanted=wide, entries=None, means=None)


def order(context: Context, case: Case) -> Measured:
    """Inversions, as the drop of probability in ULP."""
    return _steps(context, case, equal=False)


def ties(context: Context, case: Case) -> Measured:
    """The difference between equal logits, in ULP."""
    return _steps(context, case, equal=True)


def resolution(context: Context, case: Case) -> Measured:
    """Of two different logits with equal results: half of what their exact ones differ by."""
    result = context.result(case)
    if result.error:
        return failed(result.error)
    exact = context.exact(case)
    p, wide = result.values, exact.wide()
    with np.errstate(all="ignore"):
        power = exact.exponent - exact.exponent[:, :1]
        apart = (np.ldexp(exact.hi[:, 1], power[:, 1]) - exact.hi[:, 0]) + (
            np.ldexp(exact.lo[:, 1], power[:, 1]) - exact.lo[:, 0]
        )
        off = np.abs(np.ldexp(apart, exact.exponent[:, 0])) / 2
        unit = spacing(wide, result.coarser(case.dtype)).max(axis=-1)
        hidden = (p[:, 0] == p[:, 1]) | np.isnan(p).any(axis=-1)
    ulps = np.where(hidden, off / unit, 0.0)
    return Measured(ulps, np.where(hidden, off / np.abs(wide[:, 0]), 0.0), p, wide)


def lipschitz(context: Context, case: Case) -> Measured:
    """Rows 2i and 2i + 1 are a pair; the excess stands on the first of them."""
    if len(case.z) % 2:
        return silent(len(case.z))
    result = context.result(case)
    if result.error:
        return failed(result.error)
    p = result.values
    log = context.subject.log
    norm: Any = np.inf if log else 2
    with np.errstate(all="ignore"):
        came = np.linalg.norm(p[1::2] - p[::2], ord=norm, axis=-1)
        bound = (2.0 if log else 0.5) * np.linalg.norm(case.z[1::2] - case.z[::2], norm, axis=-1)
        unit = np.linalg.norm(spacing(p[::2], result.coarser(case.dtype)), ord=norm, axis=-1)
        excess = np.where(np.isnan(came), np.inf, np.maximum(came - bound, 0.0))
        size = np.linalg.norm(p[::2], ord=norm, axis=-1)
    ulps, relative = np.full(len(p), np.nan), np.full(len(p), np.nan)
    ulps[::2] = np.where(excess == 0, 0.0, excess / (2 * unit))
    relative[::2] = np.where(excess == 0, 0.0, excess / size)
    columns = [np.repeat(x, 2)[:, None] for x in (came, bound)]
    pairs = np.repeat(p.reshape(-1, 2, case.classes), 2, axis=0)
    made = ("the largest difference" if log else "the distance of the two",)
    return Measured(ulps, relative, columns[0], columns[1], of=pairs, made=made, span=2)
