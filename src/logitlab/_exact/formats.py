"""Floating-point formats, and the error of a value in ULP of a format.

Logits and results are float64 arrays of values that the format of their dtype represents exactly;
the name of the dtype is passed beside them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Format(NamedTuple):
    """Parameters of a floating-point format, named as in `numpy.finfo`."""

    nmant: int  # stored bits of the significand
    minexp: int  # exponent of the smallest normal number
    max: float

    @property
    def eps(self) -> float:
        """The spacing of the numbers from 1 to 2."""
        return float(np.ldexp(1.0, -self.nmant))


FORMATS = {
    "float16": Format(10, -14, 65504.0),
    "bfloat16": Format(7, -126, float.fromhex("0x1.fep127")),
    "float32": Format(23, -126, float.fromhex("0x1.fffffep127")),
    "float64": Format(52, -1022, float.fromhex("0x1.fffffffffffffp1023")),
}


class Exact(NamedTuple):
    """Arrays of the values (hi + lo)·2^exponent, known to about 100 bits at any magnitude."""

    hi: Any
    lo: Any
    exponent: Any

    def to_float64(self) -> Floats:
        """The values rounded to float64."""
        with np.errstate(under="ignore", over="ignore"):
            return np.asarray(np.ldexp(self.hi + self.lo, self.exponent), np.float64)


def normalize(hi: Any, lo: Any, exponent: Any) -> Exact:
    """Exact values whose hi is in [1, 2), 0 or not finite."""
    shift = np.frexp(hi)[1].astype(np.int64) - 1
    shift = np.where(np.isfinite(hi) & (hi != 0), shift, 0)
    return Exact(np.ldexp(hi, -shift), np.ldexp(lo, -shift), np.where(hi == 0, 0, exponent + shift))


def rounded(x: Any, dtype: str) -> Floats:
    """The nearest values of a dtype (through float32 for bfloat16), as float64."""
    wide = np.asarray(x, np.float64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if dtype != "bfloat16":
            return wide.astype(dtype).astype(np.float64)
        single = wide.astype(np.float32)
        bits = single.view(np.uint32)
        # Rounds the upper half of the word to nearest, ties to even.
        even = ((bits + (0x7FFF + ((bits >> 16) & 1))) & 0xFFFF0000).astype(np.uint32)
        return np.where(np.isfinite(single), even.view(np.float32), single).astype(np.float64)


def spacing(x: Any, dtype: str) -> Floats:
    """One ULP at x: the distance of two adjacent numbers of a dtype."""
    nmant, minexp, _ = FORMATS[dtype]
    wide = np.asarray(x, np.float64)
    exponent = np.where(wide == 0, minexp, np.frexp(wide)[1] - 1)
    return np.asarray(np.ldexp(1.0, np.maximum(exponent, minexp) - nmant), np.float64)


def errors(value: Floats, exact: Exact, dtype: str) -> tuple[Floats, Floats]:
    """Errors of values, in ULP of a dtype at the exact value and relative to it.

    The error of a special value (NaN, infinity) is 0 where both are equal, else infinite. An exact
    value beyond the largest number of the dtype is expected to be rounded to infinity.
    """
    nmant, minexp, largest = FORMATS[dtype]
    # An exact value far below the smallest subnormal number counts as 0.
    negligible = (exact.hi == 0) | (exact.exponent < minexp - nmant - 100)
    exponent = np.where(negligible, minexp, exact.exponent)
    hi, lo = np.where(negligible, 0.0, exact.hi), np.where(negligible, 0.0, exact.lo)
    with np.errstate(all="ignore"):
        difference = np.abs((np.ldexp(value, -exponent) - hi) - lo)
        unit = np.ldexp(1.0, np.maximum(exponent, minexp) - nmant - exponent)
        ulps = difference / unit
        relative = np.where(ulps == 0, 0.0, difference / np.abs(hi))
        overflows = np.abs(np.ldexp(hi, exponent)) > largest * (1 + FORMATS[dtype].eps / 4)
        expected = np.where(overflows, np.copysign(np.inf, hi), hi)
        special = ~np.isfinite(expected) | ~np.isfinite(value)
        equal = (value == expected) | (np.isnan(value) & np.isnan(expected))
    special_error = np.where(equal, 0.0, np.inf)
    return np.where(special, special_error, ulps), np.where(special, special_error, relative)
