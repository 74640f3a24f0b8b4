"""The contract in exact arithmetic: mpmath at 50 digits, one row at a time, and ULP distances."""

import math

import ml_dtypes
import mpmath

mp = mpmath.mp.clone()
mp.dps = 50
INF, NAN = mp.inf, mp.nan


def _weights(row, temperature):
    """Sign and size of T, kept entries, and exp((z - m)/T) for each of them; None: undefined."""
    if any(math.isnan(x) for x in row):
        return None
    sign = -1 if temperature < 0 else 1
    kept = [i for i, x in enumerate(row) if x != -math.inf and not (sign < 0 and x == math.inf)]
    if not kept:
        return None
    top = max(sign * row[i] for i in kept)
    if top == math.inf or temperature == 0:
        return {i: mp.mpf(1) for i in kept if sign * row[i] == top}
    if math.isinf(temperature):
        return {i: mp.mpf(1) for i in kept}
    m, t = mp.mpf(top), abs(mp.mpf(temperature))
    return {i: mp.exp((sign * mp.mpf(row[i]) - m) / t) for i in kept}


def softmax(row, temperature=1.0):
    w = _weights(row, temperature)
    if w is None:
        return [NAN] * len(row)
    total = mp.fsum(w.values())
    return [w[i] / total if i in w else mp.mpf(0) for i in range(len(row))]


def log_softmax(row, temperature=1.0):
    """log(1 + x) of a tiny x needs more than 50 digits of 1 + x, hence log1p."""
    w = _weights(row, temperature)
    if w is None:
        return [NAN] * len(row)
    log_total = _log_sum(w)
    sign = -1 if temperature < 0 else 1
    limit = temperature == 0 or math.isinf(temperature) or max(sign * row[i] for i in w) == math.inf
    m = max(sign * row[i] for i in w)

    def log_weight(i):
        if limit:
            return mp.mpf(0)
        return (sign * mp.mpf(row[i]) - mp.mpf(m)) / abs(mp.mpf(temperature))

    return [log_weight(i) - log_total if i in w else -INF for i in range(len(row))]


def _log_sum(w):
    rest = sorted(w.values())[:-1]
    return mp.log1p(mp.fsum(rest))


def logsumexp(row, temperature=1.0):
    if any(math.isnan(x) for x in row):
        return NAN
    sign = -1 if temperature < 0 else 1
    w = _weights(row, temperature)
    if w is None:
        return -sign * INF
    m = max(sign * row[i] for i in w)
    if m == math.inf:
        return INF
    if math.isinf(temperature):
        return sign * INF if len(w) > 1 else mp.mpf(row[next(iter(w))])
    if temperature == 0:
        return mp.mpf(m)
    return sign * (mp.mpf(m) + abs(mp.mpf(temperature)) * _log_sum(w))


def ulp(x, dtype):
    """The spacing of the numbers of `dtype` at the exact value x (of the binade that holds x)."""
    info = ml_dtypes.finfo(dtype)
    exponent = mpmath.frexp(x)[1] - 1 if x else info.minexp
    return mp.mpf(2) ** (max(exponent, info.minexp) - info.nmant)


def distance(value, exact, dtype, scale=None):
    """ULP between a number and the exact value; 0 where both are the same special value."""
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
