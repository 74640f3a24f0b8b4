"""softmax in double-double arithmetic: rows of any length to about 100 bits.

A double-double number is an unevaluated sum hi + lo of two float64 numbers. T. J. Dekker, "A
floating-point technique for extending the available precision", Numerische Mathematik 18, 1971;
Y. Hida, X. S. Li, D. H. Bailey, "Algorithms for quad-double precision floating point arithmetic",
ARITH-15, 2001.
"""

from fractions import Fraction
from math import factorial
from typing import Any

import numpy as np

from logitlab._exact.formats import Exact, normalize

Pair = tuple[Any, Any]  # hi and lo

_LN2 = Fraction(
    "0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863327"
)
_MIN_EXPONENT = -30000.0  # of e: exp of it is below the smallest float64 number by 2^42000


def _pair(x: Fraction) -> tuple[float, float]:
    """hi and lo of a fraction."""
    hi = float(x)
    return hi, float(x - Fraction(hi))


# ln 2 in three parts; the first has 32 bits, so that its product with an exponent is exact.
_LN2_A = float(Fraction(int(_LN2 * 2**32), 2**32))
_LN2_B, _LN2_C = _pair(_LN2 - Fraction(_LN2_A))
_TAYLOR = [_pair(Fraction(1, factorial(n))) for n in range(10, 0, -1)]
_HALVINGS = 9


def _two_sum(a: Any, b: Any) -> Pair:
    """a + b and its rounding error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _split(a: Any) -> Pair:
    t = 134217729.0 * a  # 2^27 + 1
    hi = t - (t - a)
    return hi, a - hi


def _two_product(a: Any, b: Any) -> Pair:
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _fast_two_sum(a: Any, b: Any) -> Pair:
    s = a + b
    return s, b - (s - a)


def _add(x: Pair, y: Pair) -> Pair:
    s, e = _two_sum(x[0], y[0])
    t, f = _two_sum(x[1], y[1])
    s, e = _fast_two_sum(s, e + t)
    return _fast_two_sum(s, e + f)


def _multiply(x: Pair, y: Pair) -> Pair:
    p, e = _two_product(x[0], y[0])
    return _fast_two_sum(p, e + (x[0] * y[1] + x[1] * y[0]))


def _divide(x: Pair, y: Pair) -> Pair:
    q = x[0] / y[0]
    p, e = _two_product(q, y[0])
    s, t = _two_sum(x[0], -p)
    r = (s, t - e + x[1] - q * y[1])
    q2 = (r[0] + r[1]) / y[0]
    p, e = _two_product(q2, y[0])
    q3 = ((r[0] - p) - e + r[1] - q2 * y[1]) / y[0]
    q, q2 = _fast_two_sum(q, q2)
    return _fast_two_sum(q, q2 + q3)


def exp(x: Pair) -> tuple[Any, Any, Any]:
    """e^x as hi, lo and exponent, (hi + lo)·2^exponent, for x from -30000 to 700."""
    k = np.rint(x[0] / float(_LN2))
    r = _two_sum(x[0], -k * _LN2_A)
    r = _add(r, (x[1], np.zeros_like(k)))
    b, b_low = _two_product(k, _LN2_B)
    r = _add(r, (-b, -b_low - k * _LN2_C))
    r = (np.ldexp(r[0], -_HALVINGS), np.ldexp(r[1], -_HALVINGS))
    # The Taylor series of e^r - 1, then e^2r - 1 = 2 (e^r - 1) + (e^r - 1)^2.
    s: Pair = (np.full_like(k, _TAYLOR[0][0]), np.full_like(k, _TAYLOR[0][1]))
    for c in _TAYLOR[1:]:
        s = _add(_multiply(s, r), c)
    s = _multiply(s, r)
    for _ in range(_HALVINGS):
        square = _multiply(s, s)
        s = _add((2 * s[0], 2 * s[1]), square)
    hi, lo = _add((np.ones_like(k), np.zeros_like(k)), s)
    return hi, lo, k.astype(np.int64)


def pairwise_sum(x: Pair) -> Pair:
    """The sum over the last axis, by pairwise summation."""
    hi, lo = x
    if hi.shape[-1] == 0:
        zero = np.zeros(hi.shape[:-1])
        return zero, zero
    while (n := hi.shape[-1]) > 1:
        half = n // 2
        a = (hi[..., :half], lo[..., :half])
        b = (hi[..., half : 2 * half], lo[..., half : 2 * half])
        s = _add(a, b)
        hi = np.concatenate([s[0], hi[..., 2 * half :]], -1)
        lo = np.concatenate([s[1], lo[..., 2 * half :]], -1)
    return hi[..., 0], lo[..., 0]


def _log1p(x: Exact) -> Exact:
    """log(1 + x) for x >= 0."""
    # Below 2^-110 the result is x; below 2^-20 eight terms of the series suffice; elsewhere one
    # Newton step from the float64 logarithm y of s = 1 + x: y + log1p(s e^-y - 1).
    hi, lo = (np.where(x.exponent < -110, 0.0, np.ldexp(part, x.exponent)) for part in x[:2])
    r: Pair = (hi, lo)
    series: Pair = (np.full_like(r[0], -1 / 8), np.zeros_like(r[0]))
    for n in range(7, 0, -1):
        series = _add(_multiply(series, r), _pair(Fraction((-1) ** (n + 1), n)))
    series = _multiply(series, r)
    one = (np.ones_like(r[0]), np.zeros_like(r[0]))
    s = _add(one, r)
    y = np.log(s[0])
    hi, lo, k = exp((-y, np.zeros_like(y)))
    t = _add(_multiply(s, (np.ldexp(hi, k), np.ldexp(lo, k))), (-one[0], one[1]))
    square = _multiply(t, t)
    newton = _add((y, np.zeros_like(y)), _add(t, (-square[0] / 2, -square[1] / 2)))
    wide = x.exponent >= -20
    hi, lo = (np.where(wide, a, b) for a, b in zip(newton, series, strict=True))
    log = normalize(hi, lo, 0)
    tiny = x.exponent < -110
    return Exact(
        np.where(tiny, x.hi, log.hi),
        np.where(tiny, x.lo, log.lo),
        np.where(tiny, x.exponent, log.exponent),
    )


def _weights(z: Any) -> tuple[Pair, tuple[Any, Any, Any]]:
    """z - max without rounding error, and its exponential; excluded entries have weight 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        x = _two_sum(z, -z.max(axis=-1, keepdims=True))
        tiny = ~(x[0] >= _MIN_EXPONENT)
        hi, lo, k = exp((np.where(tiny, _MIN_EXPONENT, x[0]), np.where(tiny, 0.0, x[1])))
    excluded = z == -np.inf
    return x, (np.where(excluded, 0.0, hi), np.where(excluded, 0.0, lo), k)


def softmax(z: Any) -> Exact:
    """The softmax of rows without NaN and +inf that have an entry above -inf."""
    if z.shape[-1] == 0:
        return Exact(z, z, z.astype(np.int64))
    _, (hi, lo, k) = _weights(z)
    scaled = np.where(k > -1000, k, -3000)
    with np.errstate(under="ignore"):
        s = pairwise_sum((np.ldexp(hi, scaled), np.ldexp(lo, scaled)))
    p = _divide((hi, lo), (s[0][..., None], s[1][..., None]))
    return normalize(p[0], p[1], k)


def log_softmax(z: Any) -> Exact:
    """The log-softmax of rows without NaN and +inf that have an entry above -inf."""
    if z.shape[-1] == 0:
        return Exact(z, z, z.astype(np.int64))
    x, (hi, lo, k) = _weights(z)
    # log p is -log(1 + rest) at the maximum and x - log(1 + rest) elsewhere.
    first_max = np.arange(z.shape[-1]) == z.argmax(axis=-1)[:, None]
    rest_hi, rest_lo = np.where(first_max, 0.0, hi), np.where(first_max, 0.0, lo)
    largest = np.where(rest_hi == 0, -100000, k).max(axis=-1, keepdims=True)
    scaled = np.maximum(k - largest, -3000)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        s = pairwise_sum((np.ldexp(rest_hi, scaled), np.ldexp(rest_lo, scaled)))
        log_sum = _log1p(normalize(s[0], s[1], largest[:, 0]))
        log_hi, log_lo = (np.ldexp(part, log_sum.exponent)[:, None] for part in log_sum[:2])
        finite = np.isfinite(x[0]) & np.isfinite(x[1])
        shifted = (np.where(finite, x[0], 0.0), np.where(finite, x[1], 0.0))
        value = _add(shifted, (-log_hi, -log_lo))
    log = normalize(np.where(finite, value[0], -np.inf), np.where(finite, value[1], 0.0), 0)
    return Exact(
        np.where(first_max, -log_sum.hi[:, None], log.hi),
        np.where(first_max, -log_sum.lo[:, None], log.lo),
        np.where(first_max, log_sum.exponent[:, None], log.exponent),
    )
