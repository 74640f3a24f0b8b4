"""Bounds of the probability of observed counts, for tests that may not give false alarms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._exact.formats import Floats

_MIN_EXPECTED = 5.0  # categories expected less often are merged


def softmax(z: Any, temperature: float = 1.0) -> Floats:
    """The probabilities of rows in float64, by the formula; entries of -inf get 0."""
    shifted = (z - np.max(z, axis=-1, keepdims=True)) / temperature
    e = np.exp(shifted)
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def tail_bound(counts: NDArray[Any], p: Floats) -> float:
    r"""A bound of the probability of counts as far from n p, or farther, under multinomial(n, p).

    For the relative entropy D of the frequencies of k categories,
    :math:`P(D \ge d) \le e^{-nd} (e n d / (k - 1))^{k - 1}` where n d > k - 1: R. Agrawal,
    Finite-sample concentration of the multinomial in relative entropy, IEEE Trans. Inf. Theory
    66, 2020. It holds for every n, so that rare categories cannot cause false alarms. A count in a
    category of probability 0 gives 0.
    """
    counts, p = np.ravel(counts), np.ravel(p)
    if counts[p == 0].any():
        return 0.0
    counts, p = counts[p > 0], p[p > 0]
    rare = p * counts.sum() < _MIN_EXPECTED
    counts = np.append(counts[~rare], counts[rare].sum())
    p = np.append(p[~rare], p[rare].sum())
    counts, p = counts[p > 0].astype(float), p[p > 0]
    if len(p) < 2:
        return 1.0
    some = counts > 0
    divergence = float((counts[some] * np.log(counts[some] / (counts.sum() * p[some]))).sum())
    freedom = len(p) - 1
    if divergence <= freedom:
        return 1.0
    return float(np.exp(-divergence + freedom * (1 + np.log(divergence / freedom))))


def show(counts: NDArray[Any]) -> str:
    """The first eight counts as text."""
    numbers = [round(float(x), 1) for x in np.ravel(counts)[:8]]
    texts = [str(int(x)) if x == int(x) else str(x) for x in numbers]
    return f"[{', '.join(texts)}{', ...' if np.size(counts) > 8 else ''}]"
