"""Bootstrap confidence intervals of scores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from logitlab import _arrays, _checks
from logitlab._bins import binned_sums, check_bins, uniform_bins
from logitlab._rows import Floats, Integers, blocks, labelled_rows, row_max, softmax_rows
from logitlab.probabilities import log_softmax, softmax
from logitlab.scores import squared_errors

SCORES = ("accuracy", "log_loss", "brier_score", "confidence", "calibration_error")
_MAX_GROUPS = 1 << 14
_BLOCK = 1 << 20  # random integers held at a time
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
    bin_sums : array, shape (3, n_bins)
        Sums over all rows, as of :meth:`logitlab._bins.Bins.sums`.
    """

    def __init__(self, rows: int, n_bins: int, dtype: np.dtype[Any]) -> None:
        """`dtype` is the type of the logits, whose rounding the bins tolerate."""
        self.bins = uniform_bins(n_bins, dtype)
        self.group_sums = np.zeros((min(rows, _MAX_GROUPS), 6 + n_bins))
        self.bin_sums = np.zeros((3, n_bins))
        self._group = (
            np.random.default_rng(0).integers(0, _MAX_GROUPS, rows, np.uint16)
            if rows > _MAX_GROUPS
            else np.arange(rows, dtype=np.uint16)
        )

    def add(
        self, rows: Integers | slice, z: Floats, y: Integers, weight: Floats | None = None
    ) -> RowScores:
        """Add rows that have a distribution; return their scores.

        `rows` are the numbers of the rows of z among all rows. `bin_sums` are without weights.
        """
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
        columns += self._group[rows][:, None] * np.int64(self.group_sums.shape[1])
        np.add.at(self.group_sums.reshape(-1), columns.reshape(-1), values.reshape(-1))
        self.bin_sums += binned_sums(bins, len(self.bins), confidence, correct)
        return RowScores(p, loss, confidence, predicted)


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
        counts = np.bincount(sampled.reshape(-1), minlength=size * n).reshape(size, n)
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


def _group_sums(
    z: Any, y: Any, axis: Any, n_bins: int, name: str, weight: Any, ignore_index: Any
) -> Floats:
    z, y, weight, numbers = labelled_rows(z, y, weight, axis, ignore_index, name)
    sums = ScoreSums(len(y), n_bins, z.dtype)
    for rows in blocks(*z.shape):
        softmax_rows(z, rows, name, numbers)  # raises an error for rows without a distribution
        of_rows = None if weight is None else weight[rows]
        sums.add(rows, z[rows].astype(np.float64), y[rows], of_rows)
    return sums.group_sums


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

    The intervals of accuracy, log-loss and Brier score have their nominal coverage. The interval
    of the calibration error does not if the true error is near 0, because resampling biases it
    upwards. Use :func:`calibration_test` to test whether a classifier is calibrated.

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
        infinite log-loss are infinite too.

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
    level = _checks.real(
        confidence_level, "confidence_level", "between 0 and 1", lambda x: 0 < x < 1
    )
    n_resamples = _checks.integer(n_resamples, "n_resamples", 1)
    check_bins(n_bins)
    generator = _checks.generator(rng)
    sums = [_group_sums(z, y, axis, n_bins, "z", sample_weight, ignore_index)]
    if other is not None:
        other = _arrays.as_array(other, "other")
        batch = tuple(np.shape(y))
        class_axis = _arrays.one_axis(axis, other.ndim)
        if tuple(n for i, n in enumerate(other.shape) if i not in class_axis) != batch:
            raise ValueError(
                f"other must have the batch shape {batch} of z and a class axis, "
                f"got shape {tuple(other.shape)}"
            )
        sums.append(_group_sums(other, y, axis, n_bins, "other", sample_weight, ignore_index))
    resampled = np.split(resampled_sums(np.hstack(sums), n_resamples, generator), len(sums), axis=1)
    value, *other_value = (scores_from_sums(s.sum(axis=0)) for s in sums)
    replicates, *other_replicates = map(scores_from_sums, resampled)
    if other is not None:
        with np.errstate(invalid="ignore"):
            value = value - other_value[0]
            replicates = replicates - other_replicates[0]
    return percentile_intervals(value, replicates, level)
