"""Numerical checks of softmax on given rows: order, ties, sum, shift invariance and accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._exact.formats import FORMATS, spacing
from logitlab._rows import blocks
from logitlab.laws.row_checks import order_violations, sort_by_logit, tie_violations
from logitlab.probabilities import softmax

Long = NDArray[np.longdouble]


@dataclass(frozen=True)
class NumericalChecks:
    """Results on `rows` rows; every maximum is over all entries.

    One ULP is the spacing of the numbers of `dtype` at the exact value; for the sum of a row, at 1.
    `max_ulp` is None where the machine has no type wider than `dtype` for the exact value.
    """

    rows: int
    dtype: str
    order_violation_rows: int  # a larger logit has a smaller probability
    tie_rows: int
    tie_violation_rows: int  # equal logits have different probabilities
    sum_max_ulp: float
    shift_exact_rows: int  # z + c is exact
    shift_exact_max_ulp: float
    shift_rounded_rows: int  # z + c is rounded
    shift_rounded_max_change: float  # of a probability
    shift_violation_rows: int  # changed by more than the rounding of z + c explains
    max_ulp: float | None


def _long(x: NDArray[Any]) -> Long:
    # bfloat16 has no direct conversion to longdouble, but one to float64.
    return (x if x.dtype == np.longdouble else x.astype(np.float64)).astype(np.longdouble)


def _long_softmax(z: NDArray[Any]) -> Long:
    wide = _long(z)
    largest = wide.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", under="ignore"):
        e = np.exp(np.where(wide == largest, 0, wide - largest))
    p: Long = e / e.sum(axis=-1, keepdims=True)
    return p


def _shift(z: NDArray[Any]) -> tuple[NDArray[Any], Long]:
    """z + c in z's type, and its rounding errors; c is a power of two of the size of the row."""
    wide = _long(z)
    size = np.where(np.isfinite(wide), np.abs(wide), 0)
    largest = np.take_along_axis(wide, size.argmax(axis=-1)[:, None], axis=-1)
    power = np.ldexp(np.longdouble(1), np.frexp(size.max(axis=-1, keepdims=True))[1] - 1)
    c = np.where(np.isfinite(largest) & (largest > 0), -power, power)
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = z + c.astype(np.float64).astype(z.dtype)
        error = np.where(np.isinf(wide), 0, _long(shifted) - c - wide)
    return shifted, error


def _check_block(z: NDArray[Any], dtype: str, measured: str, wider: bool) -> NumericalChecks:
    """The checks of one block of rows; ULP are those of the type `measured`."""
    result = softmax(z)
    p = _long(result)
    z_sorted, p_sorted = sort_by_logit(z, result)
    shifted, error = _shift(z)
    usable = np.isfinite(error).all(axis=-1)
    largest_error = np.abs(error[usable]).max(axis=-1, keepdims=True)
    before, after = p[usable], _long(softmax(shifted[usable]))
    unit = spacing(before, measured)
    change = np.abs(after - before)
    exact = largest_error[:, 0] == 0
    # Rounding errors of at most d in z move log p by at most 2 d; p itself is off by a unit.
    with np.errstate(over="ignore"):
        allowed = (before + unit) * np.expm1(2 * largest_error) + 8 * unit
    max_ulp = None
    if wider:
        p_exact = _long_softmax(z)
        max_ulp = float(np.max(np.abs(p - p_exact) / spacing(p_exact, dtype)))
    return NumericalChecks(
        rows=len(z),
        dtype=dtype,
        order_violation_rows=int((order_violations(p_sorted) > 0).any(axis=-1).sum()),
        tie_rows=int((z_sorted[:, 1:] == z_sorted[:, :-1]).any(axis=-1).sum()),
        tie_violation_rows=int((tie_violations(z_sorted, p_sorted) > 0).any(axis=-1).sum()),
        sum_max_ulp=float(np.max(np.abs(p.sum(axis=-1) - 1) / spacing(1.0, measured))),
        shift_exact_rows=int(exact.sum()),
        shift_exact_max_ulp=float(np.max((change / unit)[exact], initial=0)),
        shift_rounded_rows=int((~exact).sum()),
        shift_rounded_max_change=float(np.max(change[~exact], initial=0)),
        shift_violation_rows=int((change > allowed).any(axis=-1).sum()),
        max_ulp=max_ulp,
    )


def _combine(parts: Sequence[NumericalChecks]) -> NumericalChecks:
    """The checks of all blocks: the sums of numbers of rows, the largest of the maxima."""
    combined: dict[str, Any] = {}
    for name in (field.name for field in fields(NumericalChecks)):
        values = [getattr(part, name) for part in parts]
        if name.endswith("rows"):
            combined[name] = sum(values)
        else:
            combined[name] = values[0] if len(set(values)) == 1 else max(values)
    return NumericalChecks(**combined)


def check_rows(z: NDArray[Any]) -> NumericalChecks:
    """Check softmax on rows of floating-point logits, each of which has a distribution."""
    dtype = "longdouble" if z.dtype == np.longdouble else z.dtype.name
    wider = dtype != "longdouble" and np.finfo(np.longdouble).nmant > FORMATS[dtype].nmant
    measured = "float64" if dtype == "longdouble" else dtype
    return _combine([_check_block(z[part], dtype, measured, wider) for part in blocks(*z.shape)])
