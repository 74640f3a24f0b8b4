"""softmax in multiprecision arithmetic (mpmath, 50 digits), one row at a time.

The reference for the double-double arithmetic, and for every temperature and special value, which
follow the contract of the library.
"""

import math
from collections.abc import Sequence
from typing import Any

import mpmath
import numpy as np

from logitlab._exact.formats import Exact

mp = mpmath.mp.clone()
mp.dps = 50
_MIN_EXPONENT = -(10**6)


def _weights(row: Sequence[float], temperature: float) -> dict[int, Any] | None:
    """e^((z - max)/T) by index of entries not excluded; None where there is no distribution."""
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


def softmax(row: Sequence[float], temperature: float = 1.0) -> list[Any]:
    """The probabilities of a row, as mpmath numbers."""
    weights = _weights(row, temperature)
    if weights is None:
        return [mp.nan] * len(row)
    total = mp.fsum(weights.values())
    return [weights[i] / total if i in weights else mp.mpf(0) for i in range(len(row))]


def log_softmax(row: Sequence[float], temperature: float = 1.0) -> list[Any]:
    """The log-probabilities of a row, as mpmath numbers; log1p keeps the digits at the maximum."""
    weights = _weights(row, temperature)
    if weights is None:
        return [mp.nan] * len(row)
    log_total = log_sum(weights)
    sign = -1 if temperature < 0 else 1
    top = max(sign * row[i] for i in weights)
    limit = temperature == 0 or math.isinf(temperature) or top == math.inf

    def log_weight(i: int) -> Any:
        if limit:
            return mp.mpf(0)
        return (sign * mp.mpf(row[i]) - mp.mpf(top)) / abs(mp.mpf(temperature))

    return [log_weight(i) - log_total if i in weights else -mp.inf for i in range(len(row))]


def logsumexp(row: Sequence[float], temperature: float = 1.0) -> Any:
    """T log Σ e^(z/T), as an mpmath number."""
    if any(math.isnan(x) for x in row):
        return mp.nan
    sign = -1 if temperature < 0 else 1
    weights = _weights(row, temperature)
    if weights is None:
        return -sign * mp.inf
    m = max(sign * row[i] for i in weights)
    if m == math.inf:
        return mp.inf
    if math.isinf(temperature):
        return sign * mp.inf if len(weights) > 1 else mp.mpf(row[next(iter(weights))])
    if temperature == 0:
        return mp.mpf(m)
    return sign * (mp.mpf(m) + abs(mp.mpf(temperature)) * log_sum(weights))


def log_sum(weights: dict[int, Any]) -> Any:
    """log Σ w of weights of which the largest is 1."""
    rest = sorted(weights.values())[:-1]
    return mp.log1p(mp.fsum(rest))


def to_exact(numbers: Sequence[Any]) -> Exact:
    """One row of exact values from mpmath numbers."""
    values: list[tuple[float, float, int]] = []
    for x in numbers:
        if x == 0 or not mp.isfinite(x):
            parts = (float(x), 0.0, 0)
        else:
            power = mpmath.frexp(x)[1] - 1
            m = mp.ldexp(x, -power)
            hi = float(m)
            # The exponents of every dtype are far above the limit.
            parts = (hi, float(m - hi), max(power, _MIN_EXPONENT))
        values.append(parts)
    his, los, exponents = zip(*values, strict=True) if values else ((), (), ())
    return Exact(np.array([his]), np.array([los]), np.array([exponents], np.int64))
