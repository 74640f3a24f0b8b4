"""The floating-point types that results come in, and the distance of a result from the exact value.

Logits and results travel as float64 arrays that hold values of a type named beside them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Format(NamedTuple):
    """Stored bits of the significand, exponent of the smallest normal number, largest number."""

    digits: int
    smallest: int
    largest: float

    @property
    def epsilon(self) -> float:
        """The spacing of the numbers from 1 to 2."""
        return float(np.ldexp(1.0, -self.digits))


FORMATS = {
    "float16": Format(10, -14, 65504.0),
    "bfloat16": Format(7, -126, float.fromhex("0x1.fep127")),
    "float32": Format(23, -126, float.fromhex("0x1.fffffep127")),
    "float64": Format(52, -1022, float.fromhex("0x1.fffffffffffffp1023")),
}


class Exact(NamedTuple):
    """(hi + lo)·2^exponent: the exact values to some 100 bits, whatever their size."""

    hi: Any
    lo: Any
    exponent: Any

    def wide(self) -> Values:
        """Rounded to float64."""
        with np.errstate(under="ignore", over="ignore"):
            return np.asarray(np.ldexp(self.hi + self.lo, self.exponent), np.float64)


def normalised(hi: Any, lo: Any, exponent: Any) -> Exact:
    """With hi in [1, 2), or 0, or not finite."""
    shift = np.frexp(hi)[1].astype(np.int64) - 1
    shift = np.where(np.isfinite(hi) & (hi != 0), shift, 0)
    return Exact(np.ldexp(hi, -shift), np.ldexp(lo, -shift), np.where(hi == 0, 0, exponent + shift))


def rounded(x: Any, dtype: str) -> Values:
    """The nearest values of a type (by way of float32 for bfloat16), as float64."""
    wide = np.asarray(x, np.float64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if dtype != "bfloat16":
            return wide.astype(dtype).astype(np.float64)
        single = wide.astype(np.float32)
        bits = single.view(np.uint32)
        # To nearest, ties to even, on the upper half of the word.
        even = ((bits + (0x7FFF + ((bits >> 16) & 1))) & 0xFFFF0000).astype(np.uint32)
        return np.where(np.isfinite(single), even.view(np.float32), single).astype(np.float64)


def spacing(x: Any, dtype: str) -> Values:
    """The distance of two neighbouring numbers of a type at x: one ULP."""
    digits, smallest, _ = FORMATS[dtype]
    wide = np.asarray(x, np.float64)
    exponent = np.where(wide == 0, smallest, np.frexp(wide)[1] - 1)
    return np.asarray(np.ldexp(1.0, np.maximum(exponent, smallest) - digits), np.float64)


def errors(value: Values, exact: Exact, dtype: str) -> tuple[Values, Values]:
    """Distance from the exact value in ULP of a type at that value, and relative to it.

    Equal special values are 0 apart, others infinitely far. An exact value beyond the largest
    number of the type stands for an infinity.
    """
    digits, smallest, largest = FORMATS[dtype]
    # Far below the least number of the type, the exact value is 0 for every purpose.
    gone = (exact.hi == 0) | (exact.exponent < smallest - digits - 100)
    exponent = np.where(gone, smallest, exact.exponent)
    hi, lo = np.where(gone, 0.0, exact.hi), np.where(gone, 0.0, exact.lo)
    with np.errstate(all="ignore"):
        difference = np.abs((np.ldexp(value, -exponent) - hi) - lo)
        unit = np.ldexp(1.0, np.maximum(exponent, smallest) - digits - exponent)
        ulps = difference / unit
        relative = np.where(ulps == 0, 0.0, difference / np.abs(hi))
        top = np.abs(np.ldexp(hi, exponent)) > largest * (1 + FORMATS[dtype].epsilon / 4)
        limit = np.where(top, np.copysign(np.inf, hi), hi)
        special = ~np.isfinite(limit) | ~np.isfinite(value)
        same = (value == limit) | (np.isnan(value) & np.isnan(limit))
    far = np.where(same, 0.0, np.inf)
    return np.where(special, far, ulps), np.where(special, far, relative)
