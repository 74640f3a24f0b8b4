"""How sure a score is: confidence intervals by drawing the rows anew."""

from typing import Any, NamedTuple

import numpy as np

from logitlab import _arrays, _checks
from logitlab._bins import bin_sums, bins_of, equal_width
from logitlab._rows import Floats, Integers, as_rows, blocks, probabilities
from logitlab.probabilities import log_softmax, softmax

SCORES = ("accuracy", "log_loss", "brier_score", "confidence", "calibration_error")
_CELLS = 1 << 14
_DRAWN = 1 << 20  # random numbers held at a time


class Interval(NamedTuple):
    """A score and what it may be."""

    value: float
    low: float
    high: float


class Tally:
    """What the scores of rows are made of, added up block by block in memory that is bounded.

    Up to 16384 rows each have a cell of their own. More rows share as many cells, drawn at random:
    cells of independent rows are independent, so drawing cells anew does what drawing rows does.
    The columns of ``cells``: rows, right ones, log-loss, rows whose log-loss is infinite, Brier
    score, confidence, and of each bin of confidence the summed confidence less the right ones.
    """

    def __init__(self, rows: int, n_bins: int = 15) -> None:
        self._edges = equal_width(n_bins)
        self.cells = np.zeros((min(rows, _CELLS), 6 + n_bins))
        self.bins = np.zeros((3, n_bins))
        self._cell = (
            np.random.default_rng(0).integers(0, _CELLS, rows, np.uint16)
            if rows > _CELLS
            else np.arange(rows, dtype=np.uint16)
        )

    def add(
        self, rows: Any, z: Floats, y: Integers, temperature: Any = 1.0
    ) -> tuple[Floats, Floats]:
        """Score rows that have a distribution, given their numbers (or a slice of them).

        Their probabilities and log-losses are given back.
        """
        place = np.arange(len(y))
        p: Floats = softmax(z, temperature=temperature)
        loss = -log_softmax(z, temperature=temperature)[place, y]
        top, hit, infinite = p.max(axis=-1), z.argmax(axis=-1) == y, loss == np.inf
        true = p[place, y]
        values = np.zeros((len(y), self.cells.shape[1]))
        values[:, 0], values[:, 1] = 1, hit
        values[:, 2], values[:, 3] = np.where(infinite, 0, loss), infinite
        values[:, 4] = np.maximum(np.einsum("nk,nk->n", p, p) - true**2, 0) + (1 - true) ** 2
        values[:, 5] = top
        values[place, 6 + bins_of(self._edges, top)] = top - hit
        np.add.at(self.cells, self._cell[rows], values)
        self.bins += bin_sums(self._edges, top, hit)
        return p, loss


def scores_of(sums: Floats) -> Floats:
    """:data:`SCORES` of sums of cells: shape (..., columns) to (5, ...)."""
    rows = sums[..., 0]
    loss = np.where(sums[..., 3] > 0, np.inf, sums[..., 2] / rows)
    error = np.abs(sums[..., 6:]).sum(axis=-1) / rows
    return np.stack([sums[..., 1] / rows, loss, sums[..., 4] / rows, sums[..., 5] / rows, error])


def redrawn(cells: Floats, n_resamples: int, rng: Any) -> Floats:
    """Sums over cells that hold rows, drawn anew with replacement: shape (n_resamples, columns)."""
    cells = cells[cells[:, 0] > 0]
    generator, n = np.random.default_rng(rng), len(cells)
    step, found = max(1, _DRAWN // n), []
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * n).reshape(size, n)
        found.append(counts.astype(np.float64) @ cells)
    return np.concatenate(found)


def percentile(value: Floats, again: Floats, level: float = 0.95) -> dict[str, Interval]:
    """Percentile intervals of :data:`SCORES`: of shape (5,), and (5, n_resamples) drawn anew."""
    tail = (1 - level) / 2
    found = {}
    for name, x, drawn in zip(SCORES, value, again, strict=True):
        finite = np.isfinite(x) and np.isfinite(drawn).all()
        low, high = np.quantile(drawn, [tail, 1 - tail]) if finite else (x, x)
        found[name] = Interval(float(x), float(low), float(high))
    return found


def _tally(z: Any, y: Any, n_bins: int, name: str) -> Floats:
    z, y = as_rows(z, y, name)
    tally = Tally(len(y), n_bins)
    for rows in blocks(*z.shape):
        probabilities(z, rows, name)  # refuses rows without a distribution
        tally.add(rows, z[rows].astype(np.float64), y[rows])
    return tally.cells


def bootstrap(
    z: Any,
    y: Any,
    *,
    other: Any = None,
    n_bins: int = 15,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    rng: Any = 0,
) -> dict[str, Interval]:
    """Scores with confidence intervals, or the differences of two models on the same rows.

    The rows are resampled with replacement `n_resamples` times; an interval holds the central
    `confidence_level` of the resampled scores (percentile method). For two models the same rows
    are resampled for both (paired bootstrap): an interval that excludes 0 shows a difference.

    Intervals of accuracy, log-loss and Brier score cover as they promise. That of the calibration
    error does not near zero: the error of rows drawn anew is biased upwards.
    :func:`calibration_test` says whether it is larger than chance makes it.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    other : array, shape (..., K'), optional
        Logits of another model for the same rows. Every score becomes that of `z` less that of
        `other`.
    n_bins : int
        Bins of the calibration error, of equal width.
    confidence_level : float
        Of confidence, between 0 and 1.
    n_resamples : int
        How often the rows are drawn anew.
    rng : None, int or numpy.random.Generator
        Seed of the draws.

    Returns
    -------
    dict of str to Interval
        ``accuracy``, ``log_loss`` (nats), ``brier_score``, ``confidence`` (mean top probability)
        and ``calibration_error``, each with ``value``, ``low`` and ``high``. An infinite log-loss
        has no interval: its bounds repeat it.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; the batch shapes of `z` and `other` differ; `confidence_level` is
        outside (0, 1); `n_resamples` is below 1.

    Notes
    -----
    More than 16384 rows are put into that many groups at random, and groups are drawn: memory and
    time do not grow further, and the spread of the scores is the same.

    References
    ----------
    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979)
    1-26.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.tile([2.0, 0.0], (100, 1))
    >>> found = logitlab.bootstrap(z, [0] * 80 + [1] * 20)
    >>> found["accuracy"]
    Interval(value=0.8, low=0.72, high=0.88)
    """
    level = _checks.real(
        confidence_level, "confidence_level", "between 0 and 1", lambda x: 0 < x < 1
    )
    n_resamples = _checks.integer(n_resamples, "n_resamples", 1)
    generator = _checks.generator(rng)
    cells = [_tally(z, y, n_bins, "z")]
    if other is not None:
        other = _arrays.as_array(other, "other")
        rows = tuple(np.shape(y))
        if tuple(other.shape[:-1]) != rows:
            raise ValueError(
                f"other has shape {tuple(other.shape)}; accepted: logits for the rows of z, "
                f"shape {rows} and an axis of classes"
            )
        cells.append(_tally(other, y, n_bins, "other"))
    width = 6 + n_bins
    again = redrawn(np.hstack(cells), n_resamples, generator)
    value = scores_of(cells[0].sum(axis=0))
    drawn = scores_of(again[:, :width])
    if other is not None:
        with np.errstate(invalid="ignore"):
            value = value - scores_of(cells[1].sum(axis=0))
            drawn = drawn - scores_of(again[:, width:])
    return percentile(value, drawn, level)
