"""Bootstrap confidence intervals of scores."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from logitlab import _arrays, _checks
from logitlab._arrays import bincount
from logitlab._bins import (
    Strategy,
    bin_confidences,
    binned_sums,
    check_bins,
    error_from_sums,
    uniform_bins,
)
from logitlab._distributed import Block, RowShard, open_rows
from logitlab._error_interval import error_interval, least_resamples
from logitlab._rows import Floats, Integers, blocks, row_max, softmax_rows
from logitlab.probabilities import log_softmax, softmax
from logitlab.scores import squared_errors

SCORES = ("accuracy", "log_loss", "brier_score", "confidence", "calibration_error")
_MAX_GROUPS = 1 << 14
_BLOCK = 1 << 20  # random integers held at a time
_MAX_SIMULATIONS = 100_000  # for each bin
_MAX_SUMS = 1 << 27  # of all resamples: 1 GiB


class Interval(NamedTuple):
    """A score and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


class RowScores(NamedTuple):
    """Probabilities (n, K), log-losses, largest probabilities and predicted classes of rows."""

    p: Floats
    loss: Floats
    confidence: Floats
    predicted: Integers


def row_groups(rows: int, part: slice) -> Any:
    """The numbers of the groups of some of the rows; see :class:`ScoreSums`."""
    if rows <= _MAX_GROUPS:
        return np.arange(part.start, part.stop, dtype=np.uint16)
    generator = np.random.default_rng(0)
    # Each 64-bit number gives the groups of four rows.
    generator.bit_generator.advance(part.start // 4)  # type: ignore[attr-defined]
    skipped = part.start % 4
    size = part.stop - part.start + skipped
    return generator.integers(0, _MAX_GROUPS, size, np.uint16)[skipped:]


class ScoreSums:
    """Sums of the scores of rows, accumulated block by block in bounded memory.

    Up to 16384 rows, each row is a group. More rows are assigned to 16384 groups at random: groups
    of independent rows are independent, so resampling groups estimates the same variance as
    resampling rows.

    Attributes
    ----------
    group_sums : array, shape (groups, 6 + n_bins)
        Sums over the rows of each group: number of rows, correct predictions, finite log-losses,
        infinite log-losses (their number), Brier scores, confidences; and, for each bin of
        confidence, confidence minus correct predictions. Weights multiply all of them.
    bin_sums : array, shape (3, n_bins), or (4, n_bins) of weighted rows
        Sums over all rows, as of :meth:`logitlab._bins.Bins.sums`.
    """

    def __init__(
        self,
        rows: int,
        n_bins: int,
        dtype: np.dtype[Any],
        weighted: bool = False,
        part: slice | None = None,
    ) -> None:
        """`dtype` is the type of the logits, whose rounding the bins tolerate.

        With `part`, only these of the rows are added, numbered from 0.
        """
        part = slice(0, rows) if part is None else part
        self.bins = uniform_bins(n_bins, dtype)
        self.group_sums = np.zeros((min(rows, _MAX_GROUPS), 6 + n_bins))
        self.bin_sums = np.zeros((4 if weighted else 3, n_bins))
        self._group = row_groups(rows, part)

    def __getstate__(self) -> dict[str, Any]:
        """The sums, without the groups of the rows: copies get no further rows."""
        return {**self.__dict__, "_group": None}

    def add(
        self, rows: Integers | slice, z: Floats, y: Integers, weight: Floats | None = None
    ) -> RowScores:
        """Add rows that have a distribution; return their scores.

        `rows` are the numbers of the rows of z among all rows.
        """
        return self.add_to(self._group[rows], z, y, weight)

    def add_to(
        self, groups: Any, z: Floats, y: Integers, weight: Floats | None = None
    ) -> RowScores:
        """As :meth:`add`, of rows with these groups."""
        p: Floats = softmax(z)
        loss: Floats = -log_softmax(z)[np.arange(len(y)), y]
        confidence, predicted, infinite = row_max(p), z.argmax(axis=-1), loss == np.inf
        correct, bins = predicted == y, self.bins.indices(confidence)
        values = np.empty((len(y), 7))
        values[:, 0], values[:, 1] = 1, correct
        values[:, 2], values[:, 3] = np.where(infinite, 0, loss), infinite
        values[:, 4] = squared_errors(p, y).sum(axis=-1)
        values[:, 5] = confidence
        values[:, 6] = confidence - correct
        if weight is not None:
            values *= weight[:, None]
        # One index into the flat array: NumPy has a fast loop for that.
        columns = np.broadcast_to(np.arange(7), values.shape).copy()
        columns[:, 6] += bins
        columns += groups[:, None] * np.int64(self.group_sums.shape[1])
        np.add.at(self.group_sums.reshape(-1), columns.reshape(-1), values.reshape(-1))
        self.bin_sums += binned_sums(bins, len(self.bins), confidence, correct, weight)
        return RowScores(p, loss, confidence, predicted)

    def merge(self, other: "ScoreSums") -> None:
        """Add the sums over other rows."""
        self.group_sums += other.group_sums
        self.bin_sums += other.bin_sums


def scores_from_sums(sums: Floats) -> Floats:
    """:data:`SCORES` of summed groups: from shape (..., 6 + n_bins) to shape (5, ...)."""
    rows = sums[..., 0]
    log_loss = np.where(sums[..., 3] > 0, np.inf, sums[..., 2] / rows)
    error = np.abs(sums[..., 6:]).sum(axis=-1) / rows
    accuracy, brier_score, confidence = (sums[..., i] / rows for i in (1, 4, 5))
    return np.stack([accuracy, log_loss, brier_score, confidence, error])


def resampled_sums(group_sums: Floats, n_resamples: int, rng: Any) -> Floats:
    """Sums over the groups, resampled with replacement: shape (n_resamples, columns).

    Groups without rows are excluded.
    """
    group_sums = group_sums[group_sums[:, 0] > 0]
    limit = _MAX_SUMS // group_sums.shape[1]
    if n_resamples > limit:
        raise ValueError(f"n_resamples must be <= {limit}, got {n_resamples}")
    generator, n = np.random.default_rng(rng), len(group_sums)
    step, sums = max(1, _BLOCK // n), []
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        sampled = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = bincount(sampled.reshape(-1), minlength=size * n).reshape(size, n)
        sums.append(counts.astype(np.float64) @ group_sums)
    return np.concatenate(sums)


def percentile_intervals(
    values: Floats, resampled: Floats, confidence_level: float = 0.95
) -> dict[str, Interval]:
    """Percentile intervals of :data:`SCORES`.

    `values` has shape (5,), `resampled` has shape (5, n_resamples).
    """
    tail = (1 - confidence_level) / 2
    intervals = {}
    for name, value, replicates in zip(SCORES, values, resampled, strict=True):
        finite = np.isfinite(value) and np.isfinite(replicates).all()
        low, high = np.quantile(replicates, [tail, 1 - tail]) if finite else (value, value)
        intervals[name] = Interval(float(value), float(low), float(high))
    return intervals


def score_intervals(
    tally: ScoreSums,
    resampled: Floats,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int = 0,
) -> dict[str, Interval]:
    """Intervals of :data:`SCORES` of one model, from the sums over its resampled groups."""
    values = scores_from_sums(tally.group_sums.sum(axis=0))
    intervals = percentile_intervals(values, scores_from_sums(resampled), confidence_level)
    error = intervals["calibration_error"].value
    n_resamples = min(max(1000, least_resamples(confidence_level)), _MAX_SIMULATIONS)
    bounds = error_interval(tally.bin_sums, confidence_level, n_resamples, rng)
    return {**intervals, "calibration_error": Interval(error, *bounds)}


def _check_level(confidence_level: float) -> float:
    return _checks.between_0_and_1(confidence_level, "confidence_level")


def _tally_block(block: Block, rows: int, n_bins: int, name: str) -> ScoreSums:
    z, y, weight, numbers, first = block
    part = slice(first, first + len(y))
    sums = ScoreSums(rows, n_bins, z.dtype, weight is not None, part)
    for part in blocks(*z.shape):
        softmax_rows(z, part, name, numbers)  # raises an error for rows without a distribution
        of_rows = None if weight is None else weight[part]
        sums.add(part, z[part].astype(np.float64), y[part], of_rows)
    return sums


def _merged(a: ScoreSums, b: ScoreSums) -> ScoreSums:
    """The sums over the rows of both. Dask may need a result again: neither is changed."""
    merged = copy.deepcopy(a)
    merged.merge(b)
    return merged


def _tally(
    z: Any, y: Any, axis: Any, n_bins: int, name: str, weight: Any, ignore_index: Any
) -> ScoreSums:
    rows = open_rows(z, y, weight, axis, ignore_index, name)
    tally: ScoreSums = rows.reduce(_tally_block, rows.count, n_bins, name, merge=_merged)
    return tally


def calibration_error_interval(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    rng: Any = 0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> Interval:
    r"""Confidence interval of the calibration error, with its coverage near zero too.

    The interval is that of the calibration error of the population from which the rows were
    sampled, :math:`\sum_b P(B_b) |P(\text{correct} \mid B_b) - E(\text{confidence} \mid B_b)|`,
    with :math:`B_b` the event that the confidence (the largest probability of a row) is in bin b.
    The bins are those of :func:`calibration_error`: of equal width, or with
    ``strategy="quantile"`` those with the edges found in the data, taken as fixed.

    The calibration error of the data estimates it with an upward bias. It is returned as
    ``value`` and can be above the interval. The lower bound is 0 unless a test of perfect
    calibration at the level 1 - `confidence_level` rejects.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis, n_bins, strategy
        As :func:`calibration_error`.
    confidence_level : float
        Confidence level of the interval, between 0 and 1.
    n_resamples : int
        Number of simulated samples, from 2 / (1 - `confidence_level`) to 100000.
    rng : None, int or numpy.random.Generator
        Seed or generator of the simulations.
    sample_weight, ignore_index
        As :func:`calibration_error`. A bin counts as many rows as have, equally weighted, the same
        variance: the squared sum of its weights over the sum of their squares.

    Returns
    -------
    Interval
        ``value`` (the calibration error of the data), ``low`` and ``high``, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`calibration_error`; `confidence_level` outside (0, 1); `n_resamples` out of
        range.

    Notes
    -----
    The interval contains the values that a test does not reject. The test of a value simulates
    samples of a population with this calibration error, with binomial numbers of correct
    predictions, and compares their calibration errors with that of the data. Their bias depends
    on the unknown gaps between confidence and accuracy of the bins: it is large for gaps near 0.
    The upper bound uses the flattest gaps (equal in standard errors) that are within 2 standard
    errors of those of the data, which have a small bias; the lower bound uses the sparsest gaps,
    0 in all bins in which the data are within 3 standard errors of 0, which have the largest. So
    the coverage is at least nominal, and close to it where the gaps are 0 or clear.

    References
    ----------
    Intervals by simulation under plug-in values of the nuisance parameters: C.-S. Chuang and T. L.
    Lai, "Hybrid resampling methods for confidence intervals", Statistica Sinica 10 (2000) 1-50.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.tile([2.0, 0.0], (1000, 1))  # confidence 88 %
    >>> logitlab.calibration_error_interval(z, [0] * 880 + [1] * 120).low
    0.0
    >>> value, low, high = logitlab.calibration_error_interval(z, [0] * 800 + [1] * 200)
    >>> round(value, 2), round(low, 2), round(high, 2)
    (0.08, 0.06, 0.11)
    """
    check_bins(n_bins, strategy)
    level = _check_level(confidence_level)
    n_resamples = _checks.integer(n_resamples, "n_resamples", least_resamples(level))
    rng = _checks.generator(rng)
    if n_resamples > _MAX_SIMULATIONS:
        raise ValueError(f"n_resamples must be <= {_MAX_SIMULATIONS}, got {n_resamples}")
    rows = open_rows(z, y, sample_weight, axis, ignore_index)
    sums = bin_confidences(rows, n_bins, strategy).sums
    bounds = error_interval(sums, level, n_resamples, rng)
    return Interval(float(error_from_sums(sums, 1)), *bounds)


def bootstrap(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    other: Any = None,
    n_bins: int = 15,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    rng: Any = 0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> dict[str, Interval]:
    """Bootstrap confidence intervals of scores, or of the score differences of two models.

    The rows are resampled with replacement `n_resamples` times; an interval contains the central
    `confidence_level` of the resampled scores (percentile method). For two models, the same rows
    are resampled for both (paired bootstrap): an interval that excludes 0 shows a difference.

    The interval of the calibration error of one model is that of
    :func:`calibration_error_interval`, which contains the true error with the probability
    `confidence_level` also near 0, where resampling is biased upwards; it has its own simulations,
    1000 or more, whatever `n_resamples` is. The difference of two
    calibration errors has a percentile interval; its coverage is too small if both are near 0.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis : int
        The class axis, of `other` as well.
    other : array, shape (..., K', ...), optional
        Logits of another model for the same rows. The result then holds the score of `z` minus
        the score of `other`.
    n_bins : int
        Number of bins of the calibration error, of equal width.
    confidence_level : float
        Confidence level of the intervals, between 0 and 1.
    n_resamples : int
        Number of bootstrap resamples.
    rng : None, int or numpy.random.Generator
        Seed or generator of the resampling.
    sample_weight, ignore_index
        As in :func:`accuracy`. Rows are resampled with equal probabilities, together with their
        weights.

    Returns
    -------
    dict of str to Interval
        ``accuracy``, ``log_loss`` (nats), ``brier_score``, ``confidence`` (mean top probability)
        and ``calibration_error``, each with ``value``, ``low`` and ``high``. The bounds of an
        infinite log-loss are infinite too. The calibration error of the data is biased upwards,
        and near 0 it can be above its interval.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; the batch shapes of `z` and `other` differ; `confidence_level` is
        outside (0, 1); `n_resamples` is below 1 or too large for the memory; `n_bins` is outside
        1 to 10000.

    Notes
    -----
    More than 16384 rows are assigned to 16384 groups at random, and groups are resampled instead
    of rows. This bounds memory and time, and estimates the same variance.

    References
    ----------
    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979)
    1-26.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.tile([2.0, 0.0], (100, 1))
    >>> intervals = logitlab.bootstrap(z, [0] * 80 + [1] * 20)
    >>> intervals["accuracy"]
    Interval(value=0.8, low=0.72, high=0.88)
    """
    level = _check_level(confidence_level)
    n_resamples = _checks.integer(n_resamples, "n_resamples", 1)
    check_bins(n_bins)
    generator = _checks.generator(rng)
    tally = _tally(z, y, axis, n_bins, "z", sample_weight, ignore_index)
    if other is None:
        resampled = resampled_sums(tally.group_sums, n_resamples, generator)
        return score_intervals(tally, resampled, level, generator)
    if isinstance(other, RowShard) != isinstance(z, RowShard):
        raise TypeError("other must be a RowShard where z is one, and only there")
    if not isinstance(other, RowShard):
        other = _arrays.as_array(other, "other")
        batch = tuple(_arrays.as_array(y, "y").shape)
        class_axis = _arrays.one_axis(axis, other.ndim)
        if tuple(n for i, n in enumerate(other.shape) if i not in class_axis) != batch:
            raise ValueError(
                f"other must have the batch shape {batch} of z and a class axis, "
                f"got shape {tuple(other.shape)}"
            )
    other_tally = _tally(other, y, axis, n_bins, "other", sample_weight, ignore_index)
    sums = [tally.group_sums, other_tally.group_sums]
    resampled = resampled_sums(np.hstack(sums), n_resamples, generator)
    value, other_value = (scores_from_sums(s.sum(axis=0)) for s in sums)
    replicates, other_replicates = map(scores_from_sums, np.split(resampled, 2, axis=1))
    with np.errstate(invalid="ignore"):
        differences = value - other_value, replicates - other_replicates
    return percentile_intervals(*differences, level)
