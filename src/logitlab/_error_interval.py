"""Confidence interval of the calibration error, by inversion of a test on sums over bins."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._bins import effective_counts, error_from_sums
from logitlab._rows import Floats

FLAT_CUT = 2.0  # gaps of the flattest vector are at least |gap| - FLAT_CUT standard errors
SPARSE_CUT = 3.0  # gaps of the sparsest vector are 0 below SPARSE_CUT standard errors
_FEW_EVENTS = 10.0  # expected events below which binomial numbers are exact
_MAX_EVENTS = 48  # a binomial variable of mean 10 is larger with probability < 1e-15
_ROUNDING = 1e-9  # relative: errors that differ by less are equal
_TINY = 1e-12


class _Simulation:
    """Simulates the calibration error of samples from populations with given gaps.

    The gap of a bin is its share of the rows times |confidence - accuracy|; the gaps sum to the
    calibration error. All populations have the confidences of the data and share random numbers.
    """

    def __init__(self, sums: Floats, n_resamples: int, rng: np.random.Generator) -> None:
        sums = sums[:, sums[0] > 0]
        weights, confidence_sum, correct = sums[:3]
        self.error = float(error_from_sums(sums, 1))
        self._n = np.maximum(np.rint(effective_counts(sums)), 1)
        self.share, self._confidence = weights / weights.sum(), confidence_sum / weights
        difference = self.share * (confidence_sum - correct) / weights
        p = np.clip(self._confidence, 0, 1)
        overconfident = difference > 0
        self.gap, self._sign = np.abs(difference), np.where(overconfident, 1, -1)
        # One expected error at least: without it, no confidence of 1 could be wrong.
        variance = np.maximum(p * (1 - p), 1 / self._n) / self._n
        self.standard_error = self.share * np.sqrt(variance)
        self.clear = self.gap > SPARSE_CUT * self.standard_error
        # The largest gaps with the signs of the data, and with either sign where it is not clear.
        self._signed_limit = self.share * np.where(overconfident, p, 1 - p)
        self.limit = np.where(self.clear, self._signed_limit, self.share * np.maximum(p, 1 - p))
        self._uniform = rng.random((len(p), n_resamples))
        self._normal = rng.standard_normal((len(p) + 1, n_resamples))
        self._skewness = (self._normal[:-1] ** 2 - 1) / 6

    def errors(self, gap: Floats) -> Floats:
        """Calibration errors of simulated samples of a population with these gaps."""
        sign = np.where(gap <= self._signed_limit, self._sign, -self._sign)
        accuracy = np.clip(self._confidence - sign * gap / self.share, 0, 1)
        rate = self._binomial(accuracy) / self._n[:, None]
        errors: Floats = self.share @ np.abs(rate - self._confidence[:, None])
        # The shares of the bins vary, too.
        variance = self.share @ (gap / self.share - gap.sum()) ** 2
        errors += math.sqrt(variance / self._n.sum()) * self._normal[-1]
        return errors

    def _binomial(self, p: Floats) -> Floats:
        """Binomial numbers: by inversion for few events, else by Cornish-Fisher expansion."""
        n, rare = self._n, np.minimum(p, 1 - p)
        p_column, n_column = p[:, None], n[:, None]
        scale = np.sqrt(n * p * (1 - p))[:, None]
        expanded = n_column * p_column + scale * self._normal[:-1]
        expanded += (1 - 2 * p_column) * self._skewness
        numbers: Floats = np.rint(np.clip(expanded, 0, n_column))
        few = np.flatnonzero(n * rare < _FEW_EVENTS)
        n, rare = n[few], rare[few]
        events = np.arange(_MAX_EVENTS)[:, None]
        ratios = np.maximum(n - events, 0) / (events + 1) * (rare / (1 - rare))
        probabilities = np.cumprod(np.vstack([(1 - rare) ** n, ratios[:-1]]), axis=0)
        for b, cumulative in zip(few, np.cumsum(probabilities, axis=0).T, strict=True):
            numbers[b] = np.searchsorted(cumulative, self._uniform[b])
            if p[b] > 0.5:
                numbers[b] = self._n[b] - numbers[b]
        return numbers


def _path(base: Floats, slope: Floats, limit: Floats) -> Callable[[float], Floats]:
    """The vector min(max(base, x slope), limit) as a function of its sum.

    Where the sum is smaller than that of `base`, the vector is proportional to `base`.
    """

    def filled(x: Any) -> Floats:
        vectors: Floats = np.minimum(np.maximum(base, x * slope), limit)
        return vectors

    knots = np.unique(np.concatenate([[0], base / slope, limit / slope]))
    totals = filled(knots[:, None]).sum(axis=1)

    def vector(total: float) -> Floats:
        if total < totals[0]:
            scaled: Floats = base * (total / totals[0])
            return scaled
        return filled(np.interp(total, totals, knots))

    return vector


def _boundary(
    below: Callable[[float], bool], low: float, high: float, guess: float, reach: float
) -> float:
    """The value in [low, high] up to which `below` is true, found by bisection.

    It is searched first within `reach` of a guess; its error is at most reach / 1000.
    """
    near_low, near_high = max(low, guess - reach), min(high, guess + reach)
    if near_low > low and not below(near_low):
        near_low, near_high = low, near_low
    elif near_high < high and below(near_high):
        near_low, near_high = near_high, high
    if below(near_high):
        return near_high
    while near_high - near_low > reach / 500:
        middle = (near_low + near_high) / 2
        if below(middle):
            near_low = middle
        else:
            near_high = middle
    return (near_low + near_high) / 2


def least_resamples(confidence_level: float) -> int:
    """The number of simulations of which one is half of 1 - `confidence_level`."""
    return math.ceil(2 / (1 - confidence_level) * (1 - _ROUNDING))


def error_interval(
    sums: NDArray[np.float64],
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator | int = 0,
) -> tuple[float, float]:
    """Bounds of the interval of :func:`logitlab.calibration_error_interval`.

    `sums` are as of :meth:`logitlab._bins.Bins.sums`.
    """
    data = _Simulation(sums, n_resamples, np.random.default_rng(rng))
    alpha, error, most = 1 - confidence_level, data.error, float(data.limit.sum())
    base = np.maximum(data.gap - FLAT_CUT * data.standard_error, 0)
    flattest = _path(np.minimum(base, data.limit), data.standard_error, data.limit)
    clear = data.clear | (data.gap == data.gap.max())
    # The other gaps grow only after the clear ones have reached their limits.
    slope = np.where(clear, np.maximum(data.gap, _TINY), _TINY * data.standard_error)
    sparsest = _path(np.zeros_like(base), slope, data.limit)
    reach = 8 * float(np.sqrt(np.sum(data.standard_error**2)))

    def highest(error: float) -> float:
        """The largest calibration error with which one as small as `error` is not too rare."""
        limit = error * (1 + _ROUNDING)
        return _boundary(
            lambda total: bool(np.mean(data.errors(flattest(total)) <= limit) >= alpha / 2),
            0,
            most,
            error,
            reach,
        )

    def lowest(tail: float) -> float:
        """The smallest calibration error with which one as large as `error` is not too rare."""
        limit = error * (1 - _ROUNDING)
        return _boundary(
            lambda total: bool(np.mean(data.errors(sparsest(total)) >= limit) < tail),
            0,
            most,
            error,
            reach,
        )

    calibrated = data.errors(np.zeros_like(base))
    median = float(np.median(calibrated))
    high = highest(max(error, median))
    if np.mean(calibrated >= error * (1 - _ROUNDING)) >= alpha:
        return 0.0, high
    # Errors below the median of calibrated samples count as the median. So no value up to
    # highest(median) is rejected because the error is too small, and its test can use all of
    # alpha for errors that are too large.
    low = lowest(alpha / 2)
    if np.mean(data.errors(flattest(low)) <= median) >= alpha / 2:
        low = min(lowest(alpha), highest(median))
    return low, max(low, high)
