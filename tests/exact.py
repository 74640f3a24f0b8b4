"""Reference values by mpmath at 50 digits, for one row at a time, and distances in ULP."""

import math

import ml_dtypes
import mpmath

from logitlab._exact.multiprecision import log_softmax, logsumexp, mp, softmax

__all__ = ["INF", "NAN", "distance", "log_softmax", "logsumexp", "mp", "softmax", "ulp"]
INF, NAN = mp.inf, mp.nan


def ulp(x, dtype):
    """The spacing of the numbers of `dtype` in the binade of the exact value x."""
    info = ml_dtypes.finfo(dtype)
    exponent = mpmath.frexp(x)[1] - 1 if x else info.minexp
    return mp.mpf(2) ** (max(exponent, info.minexp) - info.nmant)


def distance(value, exact, dtype, scale=None):
    """The distance of a number from the exact value in ULP; 0 for the same special value."""
    value = float(value)
    if mp.isnan(exact):
        return 0.0 if math.isnan(value) else math.inf
    largest = mp.mpf(float(ml_dtypes.finfo(dtype).max))
    if mp.isinf(exact) or abs(exact) > largest * (
        1 + mp.mpf(float(ml_dtypes.finfo(dtype).eps)) / 4
    ):
        return 0.0 if value == math.copysign(math.inf, exact) else math.inf
    if not math.isfinite(value):
        return math.inf
    return float(abs(mp.mpf(value) - exact) / ulp(exact if scale is None else scale, dtype))
