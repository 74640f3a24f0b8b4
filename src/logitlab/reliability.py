"""How honest probabilities are: confidence held against what came true, bin by bin."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from logitlab import _checks, _registry
from logitlab._bins import (
    Norm,
    Strategy,
    bin_sums,
    bins_of,
    check_norm,
    class_sums,
    edges_of,
    equal_width,
    gap_norm,
)
from logitlab._rows import Floats, Integers, as_rows, blocks, probabilities
from logitlab.scores import confidences

_RESAMPLES = 1000
_DRAWN = 1 << 20  # random numbers held at a time


@dataclass(frozen=True)
class ReliabilityCurve:
    """Confidence and accuracy of the rows in each bin of confidence; NaN in a bin without rows.

    Attributes
    ----------
    edges : array, shape (B + 1,)
        Bin b holds confidences in [edges[b], edges[b + 1]); the last one also its upper edge.
    counts : array of int, shape (B,)
        Rows in the bin.
    confidence, accuracy : array, shape (B,)
        Mean top probability, and share of right predictions.
    low, high : array, shape (B,)
        Central 95 % of the accuracy under resampling of the rows (bootstrap with fixed seed).
    """

    edges: Floats
    counts: Integers
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats

    def plot(self, ax: Any = None) -> Any:
        """The reliability diagram: :func:`logitlab.plot.reliability_diagram`."""
        return _registry.module("plot").reliability_diagram(self, ax=ax)


def curve_of(edges: Floats, sums: Floats) -> ReliabilityCurve:
    """The curve of what :func:`bin_sums` summed up."""
    rows, stated, right = sums
    total = round(rows.sum())
    # Drawing all rows anew is one multinomial draw over the cells (bin, right or wrong).
    cells = np.concatenate([right, rows - right]) / total
    drawn = np.random.default_rng(0).multinomial(total, cells, size=_RESAMPLES)
    again_right, again_wrong = np.split(drawn, 2, axis=1)
    low, high = np.full((2, len(rows)), np.nan)
    filled = rows > 0
    with np.errstate(invalid="ignore"):
        again = again_right / (again_right + again_wrong)
        low[filled], high[filled] = np.nanquantile(again[:, filled], [0.025, 0.975], axis=0)
        return ReliabilityCurve(
            edges, rows.astype(np.int64), stated / rows, right / rows, low, high
        )


def reliability_curve(
    z: Any, y: Any, *, n_bins: int = 15, strategy: Strategy = "uniform"
) -> ReliabilityCurve:
    """Accuracy against confidence: of the rows that say 80 %, are 80 % right?

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins : int
        Number of bins; with ``strategy="quantile"`` there can be fewer, since equal confidences
        share a bin.
    strategy : {"uniform", "quantile"}
        Bins of equal width on [0, 1], or of equal numbers of rows.

    Returns
    -------
    ReliabilityCurve
        Counts, confidence, accuracy with a bootstrap band; ``.plot()`` draws it.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; another `strategy`; `n_bins` below 1.

    References
    ----------
    M. H. DeGroot and S. E. Fienberg, "The comparison and evaluation of forecasters", The
    Statistician 32 (1983) 12-22.

    Examples
    --------
    >>> import logitlab
    >>> z = [[0.0, 0.0], [3.0, 0.0], [4.0, 0.0]]
    >>> curve = logitlab.reliability_curve(z, [0, 0, 1], n_bins=2)
    >>> curve.counts, curve.accuracy.round(4)
    (array([0, 3]), array([   nan, 0.6667]))
    """
    z, y = as_rows(z, y)
    confidence, predicted = confidences(z)
    edges = edges_of(confidence, n_bins, strategy)
    return curve_of(edges, bin_sums(edges, confidence, predicted == y))


def calibration_error(
    z: Any,
    y: Any,
    *,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    norm: Norm = 1,
    classwise: bool = False,
    debiased: bool = False,
) -> float:
    r"""Expected calibration error: how far the stated confidence is from the accuracy.

    :math:`\left(\sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|^q\right)^{1/q}` over bins
    of the top probability, for q = `norm`. Chance alone makes it positive: of perfectly calibrated
    rows it is about the size of :math:`\sqrt{B/N}`. :func:`calibration_test` says whether it is
    larger than that.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins : int
        Number of bins.
    strategy : {"uniform", "quantile"}
        Bins of equal width on [0, 1] (a confidence of exactly 1 is in the last one), or of equal
        numbers of rows.
    norm : {1, 2, "max"}
        The mean gap, the root mean square gap, or the largest gap.
    classwise : bool
        Judge the probability of every class against whether that class came true, each class by
        itself, and give the mean over classes.
    debiased : bool
        Subtract what chance adds to the gap of each bin, for norm 1 and 2. 0 where nothing is left.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; another `strategy` or `norm`; `n_bins` below 1; `debiased` with norm
        "max".

    References
    ----------
    M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015. Class-wise: M. Kull et al., "Beyond temperature scaling",
    NeurIPS 2019. Debiased: A. Kumar, P. Liang and T. Ma, "Verified uncertainty calibration",
    NeurIPS 2019 (norm 2), and for norm 1 the same with the mean of a folded normal.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.calibration_error([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    0.0
    """
    check_norm(norm, debiased)
    z, y = as_rows(z, y)
    if not classwise:
        confidence, predicted = confidences(z)
        edges = edges_of(confidence, n_bins, strategy)
        return float(gap_norm(bin_sums(edges, confidence, predicted == y), norm, debiased))
    if strategy == "uniform":
        edges = equal_width(n_bins)
        sums = np.zeros((3, z.shape[1], n_bins))
        for rows in blocks(*z.shape):
            sums += class_sums(edges, probabilities(z, rows), y[rows])
        return float(np.mean(gap_norm(sums, norm, debiased)))
    p = np.concatenate([probabilities(z, rows) for rows in blocks(*z.shape)])
    errors = (
        gap_norm(bin_sums(edges_of(q, n_bins, strategy), q, y == k), norm, debiased)
        for k, q in enumerate(p.T)
    )
    return float(np.mean(list(errors)))


class CalibrationTest(NamedTuple):
    """What :func:`calibration_test` found."""

    error: float  #: the calibration error
    expected: float  #: its mean if every confidence were honest
    p_value: float  #: how often it would be as large or larger if they were


def consistency(
    cells: Floats, edges: Floats, norm: Norm = 1, n_resamples: int = _RESAMPLES, rng: Any = 0
) -> CalibrationTest:
    """The consistency test of rows in cells, each of rows of one confidence (nearly).

    `cells` of shape (3, n), as :func:`bin_sums`: rows, summed confidence, and right ones.
    """
    cells = cells[:, cells[0] > 0]
    counts, stated = cells[0].astype(np.int64), cells[1] / cells[0]
    bins = bins_of(edges, stated)
    order, size = np.argsort(bins, kind="stable"), len(edges) - 1
    ends = np.cumsum(np.bincount(bins, minlength=size))
    observed: Floats = np.stack(
        [np.bincount(bins, row, minlength=size).astype(np.float64) for row in cells]
    )
    counts, stated = counts[order], np.minimum(stated[order], 1)
    generator = np.random.default_rng(rng)
    step, simulated = max(1, _DRAWN // len(counts)), []
    for start in range(0, n_resamples, step):
        number = min(step, n_resamples - start)
        hits = np.zeros((number, len(counts) + 1), np.int64)
        np.cumsum(
            generator.binomial(counts, stated, (number, len(counts))), axis=1, out=hits[:, 1:]
        )
        again = np.broadcast_to(observed[:, None], (3, number, size)).copy()
        again[2] = np.diff(hits[:, ends], axis=1, prepend=0)
        simulated.append(gap_norm(again, norm))
    null, error = np.concatenate(simulated), float(gap_norm(observed, norm))
    # An error equal to one simulated counts as equal however both were rounded.
    larger = int(np.sum(null >= error * (1 - 1e-9)))
    return CalibrationTest(error, float(null.mean()), (1 + larger) / (1 + n_resamples))


def calibration_test(
    z: Any,
    y: Any,
    *,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    norm: Norm = 1,
    n_resamples: int = 1000,
    rng: Any = 0,
) -> CalibrationTest:
    """Whether the calibration error is larger than chance makes it: a consistency test.

    If the stated confidences were honest, each row would be right with the probability that it
    states. Outcomes are drawn so, `n_resamples` times, and the error of each draw is held against
    the one observed.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins, strategy, norm
        As :func:`calibration_error`.
    n_resamples : int
        Number of draws; the smallest possible p-value is 1 / (1 + n_resamples).
    rng : None, int or numpy.random.Generator
        Seed of the draws.

    Returns
    -------
    CalibrationTest
        ``error``, ``expected`` (its mean if all were honest) and ``p_value``.

    Raises
    ------
    TypeError, ValueError
        As :func:`calibration_error`; `n_resamples` below 1.

    References
    ----------
    J. Bröcker and L. A. Smith, "Increasing the reliability of reliability diagrams", Weather and
    Forecasting 22 (2007) 651-661; J. Vaicenavicius et al., "Evaluating model calibration in
    classification", AISTATS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.tile([2.0, 0.0], (1000, 1))  # says 88 %
    >>> found = logitlab.calibration_test(z, [0] * 880 + [1] * 120)
    >>> found.p_value > 0.5
    True
    >>> logitlab.calibration_test(z, [0] * 800 + [1] * 200).p_value < 0.01
    True
    """
    check_norm(norm)
    n_resamples, rng = _checks.integer(n_resamples, "n_resamples", 1), _checks.generator(rng)
    z, y = as_rows(z, y)
    confidence, predicted = confidences(z)
    edges = edges_of(confidence, n_bins, strategy)
    cells = np.stack([np.ones(len(y)), confidence, predicted == y])
    return consistency(cells, edges, norm, n_resamples, rng)
