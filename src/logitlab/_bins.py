"""Binned probabilities: bin edges, sums over bins, and the calibration error of such sums.

The sums of one set of bins are an array of shape (3, B): the number of rows in each bin, the sum
of their predicted probabilities, and the number of rows in which the event occurred. Sums over
disjoint sets of rows add up.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._rows import Floats, Integers

Strategy = Literal["uniform", "quantile"]
Norm = Literal[1, 2, "max"]


def uniform_edges(n_bins: int) -> Floats:
    """Edges of bins of equal width on [0, 1]."""
    return np.linspace(0, 1, _checks.integer(n_bins, "n_bins", 1) + 1)


def bin_edges(p: Floats, n_bins: int, strategy: Strategy) -> Floats:
    """Edges of bins of equal width, or of the quantiles of p without repeated edges."""
    edges = uniform_edges(n_bins)
    if _checks.choice(strategy, "strategy", ("uniform", "quantile")) == "uniform":
        return edges
    edges = np.unique(np.quantile(p, edges))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def bin_indices(edges: Floats, p: Floats) -> Integers:
    """Index of the bin of each probability; the last bin includes its upper edge."""
    return np.clip(np.searchsorted(edges, p, side="right") - 1, 0, len(edges) - 2)


def bin_sums(edges: Floats, p: Floats, occurred: NDArray[np.bool_]) -> Floats:
    """Number of rows, sum of p and number of events in each bin: shape (3, B)."""
    bins, n_bins = bin_indices(edges, p), len(edges) - 1
    weights = (None, p, occurred)
    return np.stack([np.bincount(bins, w, minlength=n_bins).astype(float) for w in weights])


def classwise_bin_sums(edges: Floats, p: Floats, y: Integers) -> Floats:
    """As :func:`bin_sums`, one class against the rest for each class: shape (3, K, B)."""
    n_classes, n_bins = p.shape[-1], len(edges) - 1
    cells = bin_indices(edges, p) + n_bins * np.arange(n_classes)
    label_cells = np.take_along_axis(cells, y[:, None], axis=-1)[:, 0]
    size = n_classes * n_bins
    counts = np.bincount(cells.reshape(-1), minlength=size)
    sums = np.bincount(cells.reshape(-1), p.reshape(-1), minlength=size)
    events = np.bincount(label_cells, minlength=size)
    return np.stack([counts, sums, events]).astype(float).reshape(3, n_classes, n_bins)


_erf = np.vectorize(math.erf, otypes=[float])


def error_from_sums(sums: Floats, norm: Norm, debiased: bool = False) -> Any:
    """Calibration error of sums as of :func:`bin_sums`, over their last axis."""
    counts, predicted, occurred = sums
    filled = counts > 0
    n = np.where(filled, counts, 1)
    gap, rate = np.abs(predicted - occurred) / n, occurred / n
    if norm == "max":
        return gap.max(axis=-1)
    moment = gap**norm
    if debiased:
        # One row gives no estimate of the variance; 1/4 is the largest of a Bernoulli variable.
        variance = np.where(counts > 1, rate * (1 - rate), 0.25) / np.maximum(n - 1, 1)
        if norm == 2:
            moment = moment - variance
        else:
            # |gap| minus its bias E|X| - |gap|, with X normal around the gap (folded normal).
            sd = np.sqrt(np.where(variance > 0, variance, 1))
            folded_mean = sd * math.sqrt(2 / math.pi) * np.exp(-0.5 * (gap / sd) ** 2)
            folded_mean += gap * _erf(gap / (sd * math.sqrt(2)))
            moment = np.where(variance > 0, 2 * gap - folded_mean, gap)
    mean = np.sum(np.where(filled, counts * moment, 0), axis=-1) / counts.sum(axis=-1)
    return np.maximum(mean, 0) ** (1 / norm)


def check_norm(norm: Norm, debiased: bool = False) -> None:
    """Raise an error for an unknown norm and for a debiased maximum."""
    _checks.choice(norm, "norm", (1, 2, "max"))
    if _checks.boolean(debiased, "debiased") and norm == "max":
        raise ValueError("norm must be 1 or 2 with debiased=True, got 'max'")
