"""The laws of softmax, looked for on given rows: what holds, and by how many ULP it misses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._exact.formats import FORMATS, spacing
from logitlab._rows import blocks
from logitlab.probabilities import softmax

Long = NDArray[np.longdouble]


@dataclass(frozen=True)
class Laws:
    """What was found on `rows` rows; a worst value is the largest over all entries.

    ULP is the distance of two neighbouring numbers of `dtype` at the exact value; of a row's sum,
    at 1. `worst_ulp` is None where the machine has no type wider than `dtype` to judge it by.
    """

    rows: int
    dtype: str
    order_broken_rows: int
    tie_rows: int
    ties_broken_rows: int
    sum_worst_ulp: float
    shift_exact_rows: int
    shift_exact_worst_ulp: float
    shift_rounded_rows: int
    shift_rounded_worst: float  # the largest change of a probability
    shift_broken_rows: int  # changed by more than the rounding of z + c explains
    worst_ulp: float | None


def _long(x: NDArray[Any]) -> Long:
    # By way of float64: bfloat16 has no direct conversion.
    return (x if x.dtype == np.longdouble else x.astype(np.float64)).astype(np.longdouble)


def _exact(z: NDArray[Any]) -> Long:
    wide = _long(z)
    top = wide.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", under="ignore"):
        e = np.exp(np.where(wide == top, 0, wide - top))
    p: Long = e / e.sum(axis=-1, keepdims=True)
    return p


def _shift(z: NDArray[Any]) -> tuple[NDArray[Any], Long]:
    """z + c in z's type, c a power of two of the row's size, and the rounding errors of that."""
    wide = _long(z)
    size = np.where(np.isfinite(wide), np.abs(wide), 0)
    largest = np.take_along_axis(wide, size.argmax(axis=-1)[:, None], axis=-1)
    power = np.ldexp(np.longdouble(1), np.frexp(size.max(axis=-1, keepdims=True))[1] - 1)
    c = np.where(np.isfinite(largest) & (largest > 0), -power, power)
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = z + c.astype(np.float64).astype(z.dtype)
        error = np.where(np.isinf(wide), 0, _long(shifted) - c - wide)
    return shifted, error


def look(z: NDArray[Any]) -> Laws:
    """Look for each law on floating rows of logits, all of which have a distribution."""
    dtype = "longdouble" if z.dtype == np.longdouble else z.dtype.name
    wider = dtype != "longdouble" and np.finfo(np.longdouble).nmant > FORMATS[dtype].nmant
    measured = "float64" if dtype == "longdouble" else dtype
    one = spacing(1.0, measured)
    order = ties = tied = exact_rows = rounded_rows = broken = 0
    off_sum = off_shift = off_rounded = off_exact = 0.0
    for part in blocks(*z.shape):
        rows = z[part]
        p = _long(softmax(rows))
        wide = _long(rows)
        rank = np.argsort(wide, axis=-1)
        ascending, p_ascending = (np.take_along_axis(x, rank, axis=-1) for x in (wide, p))
        equal = ascending[:, 1:] == ascending[:, :-1]
        step = np.diff(p_ascending, axis=-1)
        order += int((step < 0).any(axis=-1).sum())
        tied += int(equal.any(axis=-1).sum())
        ties += int((equal & (step != 0)).any(axis=-1).sum())
        off_sum = max(off_sum, float(np.max(np.abs(p.sum(axis=-1) - 1) / one)))

        shifted, error = _shift(rows)
        usable = np.isfinite(error).all(axis=-1)
        moved = np.abs(error[usable]).max(axis=-1, keepdims=True)
        before, after = p[usable], _long(softmax(shifted[usable]))
        unit = spacing(before, measured)
        change = np.abs(after - before)
        exactly = moved[:, 0] == 0
        exact_rows += int(exactly.sum())
        rounded_rows += int((~exactly).sum())
        off_shift = max(off_shift, float(np.max((change / unit)[exactly], initial=0)))
        off_rounded = max(off_rounded, float(np.max(change[~exactly], initial=0)))
        # Rounding errors of at most d in z move log p by at most 2 d; p itself is a unit off.
        with np.errstate(over="ignore"):
            allowed = (before + unit) * np.expm1(2 * moved) + 8 * unit
        broken += int((change > allowed).any(axis=-1).sum())
        if wider:
            exact = _exact(rows)
            off_exact = max(off_exact, float(np.max(np.abs(p - exact) / spacing(exact, dtype))))
    return Laws(
        rows=len(z),
        dtype=dtype,
        order_broken_rows=order,
        tie_rows=tied,
        ties_broken_rows=ties,
        sum_worst_ulp=off_sum,
        shift_exact_rows=exact_rows,
        shift_exact_worst_ulp=off_shift,
        shift_rounded_rows=rounded_rows,
        shift_rounded_worst=off_rounded,
        shift_broken_rows=broken,
        worst_ulp=off_exact if wider else None,
    )
