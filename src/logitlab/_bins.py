"""Binned probabilities: bins, sums over bins, and the calibration error of such sums.

The sums of one set of bins are an array of shape (3, B): the number of rows in each bin, the sum
of their predicted probabilities, and the number of rows in which the event occurred. Of weighted
rows it has shape (4, B): the three sums of the weighted rows, and the sum of the squared weights.
Sums over disjoint sets of rows add up.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._arrays import bincount, repeat
from logitlab._distributed import Block, Rows, join
from logitlab._rows import Floats, Integers
from logitlab.scores import confidences

Strategy = Literal["uniform", "quantile"]
Norm = Literal[1, 2, "max"]


MAX_BINS = 10_000
_FEW_BINS = 32
CELLS = 200  # of a bin: so narrow that the rows of a cell have nearly one probability


@dataclass(frozen=True)
class Bins:
    """Bins of probabilities: bin b is [edges[b], edges[b + 1]), the last includes its upper edge.

    `thresholds` are the inner edges less the rounding error of a probability: equal probabilities
    that differ by rounding are in one bin.
    """

    edges: Floats
    thresholds: Floats

    def __len__(self) -> int:
        return len(self.edges) - 1

    def indices(self, p: Floats) -> Integers:
        """Index of the bin of each probability."""
        if len(self.thresholds) > _FEW_BINS:
            return np.searchsorted(self.thresholds, p, side="right")
        # Comparisons of all, which the processor predicts, take a quarter of the time of a search.
        indices = np.zeros(p.shape, np.uint8)
        for threshold in self.thresholds:
            indices += ~(p < threshold)
        return indices.astype(np.int64)

    def sums(self, p: Floats, occurred: NDArray[np.bool_], weight: Floats | None = None) -> Floats:
        """Number of rows, sum of p and number of events in each bin: shape (3, B) or (4, B)."""
        return binned_sums(self.indices(p), len(self), p, occurred, weight)

    def cells(self, p: Floats) -> Integers:
        """Index of the cell of each probability; every bin is divided into CELLS cells."""
        bins = self.indices(p)
        low, width = self.edges[bins], np.diff(self.edges)[bins]
        part = (p - low) / np.where(width > 0, width, 1)
        return bins * CELLS + np.clip(part * CELLS, 0, CELLS - 1).astype(np.int64)

    def cell_sums(
        self, p: Floats, occurred: NDArray[np.bool_], weight: Floats | None = None
    ) -> Floats:
        """As :meth:`sums`, of the cells: shape (3 or 4, B * CELLS)."""
        return binned_sums(self.cells(p), len(self) * CELLS, p, occurred, weight)

    def classwise_sums(self, p: Floats, y: Integers, weight: Floats | None = None) -> Floats:
        """As :meth:`sums`, one class against the rest for each class: shape (3 or 4, K, B)."""
        n_classes, n_bins = p.shape[-1], len(self)
        cells = self.indices(p) + n_bins * np.arange(n_classes)
        label_cells = np.take_along_axis(cells, y[:, None], axis=-1)[:, 0]
        size = n_classes * n_bins
        cells, weights = cells.reshape(-1), None
        if weight is not None:
            weights, p = np.repeat(weight, n_classes), weight[:, None] * p
        sums = [
            bincount(cells, weights, minlength=size),
            bincount(cells, p.reshape(-1), minlength=size),
            bincount(label_cells, weight, minlength=size),
        ]
        if weights is not None:
            sums.append(bincount(cells, weights**2, minlength=size))
        return np.stack(sums).astype(float).reshape(-1, n_classes, n_bins)


def binned_sums(
    group: Integers,
    size: int,
    p: Floats,
    occurred: NDArray[np.bool_],
    weight: Floats | None = None,
) -> Floats:
    """Number of rows, sum of p and number of events in each of `size` groups: shape (3, size).

    Of weighted rows, their weighted sums and the sum of the squared weights: shape (4, size).
    """
    terms: tuple[Any, ...] = (None, p, occurred)
    if weight is not None:
        terms = (weight, weight * p, weight * occurred, weight**2)
    return np.stack([bincount(group, w, minlength=size).astype(float) for w in terms])


def effective_counts(sums: Floats) -> Floats:
    """Number of rows in each bin; of weighted rows, the number of equally weighted rows whose mean
    has the same variance, (sum of weights)^2 / (sum of squared weights).
    """
    counts, _, _, *squares = sums
    if not squares:
        return np.asarray(counts)
    return np.asarray(counts**2 / np.where(squares[0] > 0, squares[0], 1))


def _rounding_error(p: Floats, dtype: np.dtype[Any]) -> Floats:
    """Bound of the rounding error of a probability, in float64, of logits of type `dtype`."""
    # dp = p (1 - p) dz; logits are rounded by less than |z| eps, and |z| is rarely above 16.
    eps, logit_eps = (
        float(np.finfo(t).eps)
        for t in (np.float64, np.float64 if dtype.itemsize >= 8 else np.float32)
    )
    return 16 * p * ((1 - p) * logit_eps + eps)


def check_bins(n_bins: int, strategy: Strategy = "uniform") -> None:
    """Raise an error for a wrong number of bins or an unknown strategy."""
    if _checks.integer(n_bins, "n_bins", 1) > MAX_BINS:
        raise ValueError(f"n_bins must be <= {MAX_BINS}, got {n_bins}")
    _checks.choice(strategy, "strategy", ("uniform", "quantile"))


def uniform_bins(n_bins: int, dtype: np.dtype[Any]) -> Bins:
    """Bins of equal width on [0, 1], for probabilities of logits of type `dtype`."""
    check_bins(n_bins)
    edges = np.linspace(0, 1, n_bins + 1)
    return Bins(edges, edges[1:-1] - _rounding_error(edges[1:-1], dtype))


def make_bins(
    p: Floats,
    n_bins: int,
    strategy: Strategy,
    dtype: np.dtype[Any],
    weight: Floats | None = None,
) -> Bins:
    """Bins of equal width, or bins of p with equal numbers of rows or equal sums of weights.

    Equal probabilities are in one of the latter: in that to which the middle one of them, in
    ascending order, belongs. There are fewer bins if some would be empty.
    """
    check_bins(n_bins, strategy)
    if strategy == "uniform":
        return uniform_bins(n_bins, dtype)
    if weight is None:
        p, below = np.sort(p), np.arange(len(p) + 1.0)
    else:
        order = np.argsort(p)
        p, below = p[order], np.concatenate([[0], np.cumsum(weight[order])])
    ranks = np.arange(1, n_bins) * (below[-1] / n_bins)
    at = p[np.minimum(np.searchsorted(below[1:], ranks), len(p) - 1)]
    error = _rounding_error(at, dtype)
    first = np.searchsorted(p, at - error)
    end = np.searchsorted(p, at + error, side="right")
    starts = np.unique(np.where(below[first] + below[end] >= 2 * ranks, first, end))
    starts = starts[(starts > 0) & (starts < len(p))]
    return Bins(np.concatenate([p[:1], p[starts], p[-1:]]), p[starts])


class BinnedConfidences(NamedTuple):
    """Sums over the bins of the confidences of rows, and over their cells, if those are wanted."""

    bins: Bins
    sums: Floats
    counts: Integers  # numbers of rows, whatever their weights
    cells: Floats


def confidence_of_rows(block: Block) -> tuple[Floats, NDArray[np.bool_], Floats | None]:
    """The confidence of each row, whether its prediction is correct, and its weight."""
    confidence, predicted = confidences(block.z, block.numbers)
    return confidence, predicted == block.y, block.weight


def _binned(
    bins: Bins,
    with_cells: bool,
    confidence: Floats,
    correct: NDArray[np.bool_],
    weight: Floats | None,
) -> tuple[Floats, Integers, Floats]:
    sums = bins.sums(confidence, correct, weight)
    counts = sums if weight is None else bins.sums(confidence, correct)
    cells = bins.cell_sums(confidence, correct, weight) if with_cells else np.empty(0)
    return sums, counts[0].astype(np.int64), cells


def _binned_block(block: Block, bins: Bins, with_cells: bool) -> tuple[Floats, Integers, Floats]:
    return _binned(bins, with_cells, *confidence_of_rows(block))


def bin_confidences(
    rows: Rows, n_bins: int, strategy: Strategy, with_cells: bool = False
) -> BinnedConfidences:
    """Sums over bins of the confidence of rows in blocks.

    For bins with equal numbers of rows, the confidences of all rows are in this process.
    """
    if strategy == "uniform":
        bins = uniform_bins(n_bins, rows.dtype)
        sums, counts, cells = rows.reduce(_binned_block, bins, with_cells)
    else:
        confidence, correct, weight = rows.reduce(confidence_of_rows, merge=join)
        bins = make_bins(confidence, n_bins, strategy, rows.dtype, weight)
        sums, counts, cells = _binned(bins, with_cells, confidence, correct, weight)
    return BinnedConfidences(bins, sums, counts, cells)


def isotonic_regression(y: Floats, weight: Floats) -> Floats:
    """Return the ascending sequence with the least weighted sum of squared differences from y.

    F. M. T. A. Busing, "Monotone regression: a simple and fast O(n) PAVA implementation", Journal
    of Statistical Software 102 (2022), code snippet 1. Same sums, in the same order, as in SciPy,
    whose function takes 0.3 s to import.
    """
    values, weights = y.tolist(), weight.tolist()
    pools: list[tuple[float, float, int]] = []  # mean, weight and size, with ascending means
    end = 0
    while end < len(values):
        mean, w, start = values[end], weights[end], end
        end += 1
        if pools and pools[-1][0] >= mean:
            last_mean, last_w, last_size = pools.pop()
            total = last_w * last_mean + w * mean
            w += last_w
            start -= last_size
            mean = total / w
            while end < len(values) and mean >= values[end]:
                total += weights[end] * values[end]
                w += weights[end]
                end += 1
                mean = total / w
            while pools and pools[-1][0] >= mean:
                last_mean, last_w, last_size = pools.pop()
                total += last_w * last_mean
                w += last_w
                start -= last_size
                mean = total / w
        pools.append((mean, w, end - start))
    fitted: Floats = repeat([mean for mean, _, _ in pools], [size for _, _, size in pools])
    return fitted


def isotonic_rates(events: Floats, counts: Floats) -> Floats:
    """Isotonic regression of the rates events / counts, one for each group in ascending order.

    A group without rows has the rate of the last one before it, or of the first that has rows.
    """
    filled = np.flatnonzero(counts)
    rates = isotonic_regression(events[filled] / counts[filled], counts[filled])
    return np.asarray(repeat(rates, np.diff(filled[1:], prepend=0, append=len(counts))))


def isotonic_bins(p: Floats, occurred: NDArray[np.bool_], weight: Floats | None) -> Bins:
    """The bins in which isotonic regression of the events on p is constant.

    Probabilities that differ only by rounding in float64 are equal.
    """
    order = np.argsort(p)
    p, occurred = p[order], occurred[order]
    counts = np.ones(len(p)) if weight is None else weight[order]
    starts = np.flatnonzero(np.diff(p, prepend=-1) > _rounding_error(p, p.dtype))
    events = np.add.reduceat(counts * occurred, starts)
    counts = np.add.reduceat(counts, starts)
    starts = starts[np.diff(isotonic_rates(events, counts), prepend=-1) > 0]
    return Bins(np.append(p[starts], p[-1]), p[starts[1:]])


_erf = np.vectorize(math.erf, otypes=[float])


def error_from_sums(sums: Floats, norm: Norm, debiased: bool = False) -> Any:
    """Calibration error of sums as of :meth:`Bins.sums`, over their last axis."""
    counts, predicted, occurred = sums[:3]
    filled = counts > 0
    n = np.where(filled, counts, 1)
    gap, rate = np.abs(predicted - occurred) / n, occurred / n
    if norm == "max":
        return gap.max(axis=-1)
    moment = gap**norm
    if debiased:
        # One row gives no estimate of the variance; 1/4 is the largest of a Bernoulli variable.
        # The number of weighted rows is not whole.
        rows = effective_counts(sums)
        variance = np.where(rows > 1.5, rate * (1 - rate), 0.25) / np.maximum(rows - 1, 1)
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
