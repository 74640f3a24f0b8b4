"""softmax in multiprecision arithmetic (mpmath, 50 digits), one row at a time.

The oracle that the double-double arithmetic is held to, and the one for every temperature and every
special value. The rules are those of the library's contract.
"""

import math
from collections.abc import Sequence
from typing import Any

import mpmath
import numpy as np

from logitlab._exact.formats import Exact

mp = mpmath.mp.clone()
mp.dps = 50
_LEAST = -(10**6)


def _weights(row: Sequence[float], temperature: float) -> dict[int, Any] | None:
    """The kept entries and e^((z - m)/T) of each; None: there is no distribution."""
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
    """The logarithms of the probabilities; by log1p, which keeps the digits of a tiny rest."""
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
    """T log Σ e^(z/T)."""
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
    """log Σ w, where the largest weight is 1."""
    rest = sorted(weights.values())[:-1]
    return mp.log1p(mp.fsum(rest))


def exact(numbers: Sequence[Any]) -> Exact:
    """mpmath numbers as one row of exact values."""
    values: list[tuple[float, float, int]] = []
    for x in numbers:
        if x == 0 or not mp.isfinite(x):
            parts = (float(x), 0.0, 0)
        else:
            power = mpmath.frexp(x)[1] - 1
            m = mp.ldexp(x, -power)
            first = float(m)
            # Far below every type, how far is of no interest.
            parts = (first, float(m - first), max(power, _LEAST))
        values.append(parts)
    hi, lo, exponent = zip(*values, strict=True) if values else ((), (), ())
    return Exact(np.array([hi]), np.array([lo]), np.array([exponent], np.int64))
