"""softmax in double-double arithmetic: rows of any length to about 100 bits.

An unevaluated sum hi + lo of two float64 numbers. T. J. Dekker, "A floating-point technique for
extending the available precision", Numerische Mathematik 18, 1971; Y. Hida, X. S. Li, D. H. Bailey,
"Algorithms for quad-double precision floating point arithmetic", ARITH-15, 2001.
"""

from fractions import Fraction
from math import factorial
from typing import Any

import numpy as np

from logitlab._exact.formats import Exact, normalised

Pair = Any  # hi and lo

_LN2 = Fraction(
    "0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863327"
)
_LEAST = -30000.0  # exp of it is below the least float64 number by 2^42000


def _pair(x: Fraction) -> tuple[float, float]:
    hi = float(x)
    return hi, float(x - Fraction(hi))


# ln 2 in three parts; the first has 32 bits, so that its product with an exponent is exact.
_LN2_A = float(Fraction(int(_LN2 * 2**32), 2**32))
_LN2_B, _LN2_C = _pair(_LN2 - Fraction(_LN2_A))
_TAYLOR = [_pair(Fraction(1, factorial(n))) for n in range(10, 0, -1)]
_HALVINGS = 9


def two_sum(a: Any, b: Any) -> Pair:
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


def _quick(a: Any, b: Any) -> Pair:
    s = a + b
    return s, b - (s - a)


def _add(x: Pair, y: Pair) -> Pair:
    s, e = two_sum(x[0], y[0])
    t, f = two_sum(x[1], y[1])
    s, e = _quick(s, e + t)
    return _quick(s, e + f)


def _multiply(x: Pair, y: Pair) -> Pair:
    p, e = _two_product(x[0], y[0])
    return _quick(p, e + (x[0] * y[1] + x[1] * y[0]))


def _divide(x: Pair, y: Pair) -> Pair:
    q = x[0] / y[0]
    p, e = _two_product(q, y[0])
    s, t = two_sum(x[0], -p)
    r = (s, t - e + x[1] - q * y[1])
    q2 = (r[0] + r[1]) / y[0]
    p, e = _two_product(q2, y[0])
    q3 = ((r[0] - p) - e + r[1] - q2 * y[1]) / y[0]
    q, q2 = _quick(q, q2)
    return _quick(q, q2 + q3)


def exp(x: Pair) -> tuple[Any, Any, Any]:
    """hi, lo and exponent: e^x = (hi + lo)·2^exponent, for x from -30000 to 700."""
    k = np.rint(x[0] / float(_LN2))
    r = two_sum(x[0], -k * _LN2_A)
    r = _add(r, (x[1], np.zeros_like(k)))
    b, b_low = _two_product(k, _LN2_B)
    r = _add(r, (-b, -b_low - k * _LN2_C))
    r = (np.ldexp(r[0], -_HALVINGS), np.ldexp(r[1], -_HALVINGS))
    # e^r - 1 by Taylor's series, then e^2r - 1 = 2 (e^r - 1) + (e^r - 1)^2.
    s: Pair = (np.full_like(k, _TAYLOR[0][0]), np.full_like(k, _TAYLOR[0][1]))
    for c in _TAYLOR[1:]:
        s = _add(_multiply(s, r), c)
    s = _multiply(s, r)
    for _ in range(_HALVINGS):
        square = _multiply(s, s)
        s = _add((2 * s[0], 2 * s[1]), square)
    hi, lo = _add((np.ones_like(k), np.zeros_like(k)), s)
    return hi, lo, k.astype(np.int64)


def total(x: Pair) -> Pair:
    """The sum over the last axis, by halves."""
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
    """log(1 + x) of numbers from 0 up."""
    # Below 2^-110 it is x; below 2^-20 eight terms of the series are enough; elsewhere one step
    # of Newton's method from the float64 logarithm y of s = 1 + x: y + log1p(s e^-y - 1).
    r = tuple(np.where(x.exponent < -110, 0.0, np.ldexp(part, x.exponent)) for part in x[:2])
    series: Pair = tuple(np.full_like(r[0], part) for part in _pair(Fraction(-1, 8)))
    for n in range(7, 0, -1):
        series = _add(_multiply(series, (r[0], r[1])), _pair(Fraction((-1) ** (n + 1), n)))
    series = _multiply(series, (r[0], r[1]))
    one = (np.ones_like(r[0]), np.zeros_like(r[0]))
    s = _add(one, (r[0], r[1]))
    y = np.log(s[0])
    hi, lo, k = exp((-y, np.zeros_like(y)))
    t = _add(_multiply(s, (np.ldexp(hi, k), np.ldexp(lo, k))), (-one[0], one[1]))
    square = _multiply(t, t)
    newton = _add((y, np.zeros_like(y)), _add(t, (-square[0] / 2, -square[1] / 2)))
    wide = x.exponent >= -20
    hi, lo = (np.where(wide, a, b) for a, b in zip(newton, series, strict=True))
    found = normalised(hi, lo, 0)
    tiny = x.exponent < -110
    return Exact(
        np.where(tiny, x.hi, found.hi),
        np.where(tiny, x.lo, found.lo),
        np.where(tiny, x.exponent, found.exponent),
    )


def _weights(z: Any) -> tuple[Pair, tuple[Any, Any, Any]]:
    """z - max exactly, and e to it; excluded entries have weight 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        x = two_sum(z, -z.max(axis=-1, keepdims=True))
        tiny = ~(x[0] >= _LEAST)
        hi, lo, k = exp((np.where(tiny, _LEAST, x[0]), np.where(tiny, 0.0, x[1])))
    out = z == -np.inf
    return x, (np.where(out, 0.0, hi), np.where(out, 0.0, lo), k)


def softmax(z: Any) -> Exact:
    """Of rows without NaN and +inf in which something is left."""
    if z.shape[-1] == 0:
        return Exact(z, z, z.astype(np.int64))
    _, (hi, lo, k) = _weights(z)
    scaled = np.where(k > -1000, k, -3000)
    with np.errstate(under="ignore"):
        s = total((np.ldexp(hi, scaled), np.ldexp(lo, scaled)))
    p = _divide((hi, lo), (s[0][..., None], s[1][..., None]))
    return normalised(p[0], p[1], k)


def log_softmax(z: Any) -> Exact:
    """Of rows without NaN and +inf in which something is left."""
    if z.shape[-1] == 0:
        return Exact(z, z, z.astype(np.int64))
    x, (hi, lo, k) = _weights(z)
    top = np.arange(z.shape[-1]) == z.argmax(axis=-1)[:, None]
    rest_hi, rest_lo = np.where(top, 0.0, hi), np.where(top, 0.0, lo)
    largest = np.where(rest_hi == 0, -100000, k).max(axis=-1, keepdims=True)
    scaled = np.maximum(k - largest, -3000)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        s = total((np.ldexp(rest_hi, scaled), np.ldexp(rest_lo, scaled)))
        log_sum = _log1p(normalised(s[0], s[1], largest[:, 0]))
        narrow = (np.ldexp(part, log_sum.exponent)[:, None] for part in log_sum[:2])
        below = np.isfinite(x[0]) & np.isfinite(x[1])
        low = tuple(np.where(below, part, 0.0) for part in x)
        log_hi, log_lo = narrow
        value = _add((low[0], low[1]), (-log_hi, -log_lo))
    found = normalised(np.where(below, value[0], -np.inf), np.where(below, value[1], 0.0), 0)
    return Exact(
        np.where(top, -log_sum.hi[:, None], found.hi),
        np.where(top, -log_sum.lo[:, None], found.lo),
        np.where(top, log_sum.exponent[:, None], found.exponent),
    )
