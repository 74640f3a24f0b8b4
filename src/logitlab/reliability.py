"""Calibration: reliability curves, calibration errors and a test of calibration."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from logitlab import _checks, _registry
from logitlab._bins import (
    CELLS,
    Norm,
    Strategy,
    check_bins,
    check_norm,
    error_from_sums,
    make_bins,
    uniform_bins,
)
from logitlab._rows import Floats, Integers, as_rows, blocks, softmax_rows
from logitlab.scores import confidences

_N_RESAMPLES = 1000
_BLOCK = 1 << 20  # random numbers held at a time


@dataclass(frozen=True)
class ReliabilityCurve:
    """Mean confidence and accuracy in each bin of confidence; NaN in a bin without rows.

    Attributes
    ----------
    edges : array, shape (B + 1,)
        Bin edges. Bin b is [edges[b], edges[b + 1]); the last bin includes its upper edge.
    counts : array of int, shape (B,)
        Number of rows in each bin.
    confidence, accuracy : array, shape (B,)
        Mean confidence (the largest probability of a row), and fraction of correct predictions.
    low, high : array, shape (B,)
        Bounds of the 95 % bootstrap interval of the accuracy (percentile method, fixed seed).
    """

    edges: Floats
    counts: Integers
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with :func:`logitlab.plot.reliability_diagram`."""
        return _registry.module("plot").reliability_diagram(self, ax=ax)


def curve_from_sums(edges: Floats, sums: Floats) -> ReliabilityCurve:
    """The reliability curve of sums as of :meth:`logitlab._bins.Bins.sums`."""
    counts, confidence_sum, correct = sums
    total = round(counts.sum())
    # Resampling all rows is one multinomial sample over the cells (bin, correct or wrong).
    shares = np.concatenate([correct, counts - correct]) / total
    resampled = np.random.default_rng(0).multinomial(total, shares, size=_N_RESAMPLES)
    resampled_correct, resampled_wrong = np.split(resampled, 2, axis=1)
    low, high = np.full((2, len(counts)), np.nan)
    filled = counts > 0
    with np.errstate(invalid="ignore"):
        accuracy = resampled_correct / (resampled_correct + resampled_wrong)
        low[filled], high[filled] = np.nanquantile(accuracy[:, filled], [0.025, 0.975], axis=0)
        return ReliabilityCurve(
            edges,
            counts.astype(np.int64),
            confidence_sum / counts,
            correct / counts,
            low,
            high,
        )


def reliability_curve(
    z: Any, y: Any, *, n_bins: int = 15, strategy: Strategy = "uniform"
) -> ReliabilityCurve:
    """Mean confidence and accuracy in bins of confidence, with bootstrap intervals.

    The confidence of a row is the largest of its probabilities. A classifier is calibrated if the
    accuracy of the rows with confidence c is c.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins : int
        Number of bins, at most 10000. With ``strategy="quantile"`` the curve may have fewer,
        because equal confidences are in the same bin.
    strategy : {"uniform", "quantile"}
        Bins of equal width on [0, 1], or bins with equal numbers of rows.

    Returns
    -------
    ReliabilityCurve
        ``edges``, ``counts``, ``confidence``, ``accuracy`` and the interval ``low``, ``high`` of
        each bin; ``.plot()`` draws the reliability diagram.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; an unknown `strategy`; `n_bins` outside 1 to 10000.

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
    check_bins(n_bins, strategy)
    z, y = as_rows(z, y)
    confidence, predicted = confidences(z)
    bins = make_bins(confidence, n_bins, strategy, z.dtype)
    return curve_from_sums(bins.edges, bins.sums(confidence, predicted == y))


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
    r"""Expected calibration error (ECE): the difference of confidence and accuracy over bins.

    :math:`\left(\sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|^q\right)^{1/q}` over bins b
    of the confidence (the largest probability of a row), with q = `norm`. The value expected under
    perfect calibration is not 0 but of the order of :math:`\sqrt{B/N}` for B bins and N rows. Use
    :func:`calibration_test` to test whether the error is larger than that.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins : int
        Number of bins, at most 10000.
    strategy : {"uniform", "quantile"}
        Bins of equal width on [0, 1] (a confidence of exactly 1 is in the last bin), or bins with
        equal numbers of rows. Confidences that differ only by rounding are in one bin.
    norm : {1, 2, "max"}
        The mean (ECE), the root mean square or the maximum (MCE) of the differences.
    classwise : bool
        Return the mean over classes of each class's error: the probability of the class against
        the frequency of its label.
    debiased : bool
        Subtract an estimate of the bias due to the finite number of rows from the error of each
        bin, for norm 1 and 2. A negative total is returned as 0.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; an unknown `strategy` or `norm`; `n_bins` outside 1 to 10000;
        `debiased` with norm "max".

    References
    ----------
    M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015. Classwise: M. Kull et al., "Beyond temperature scaling",
    NeurIPS 2019. Debiased: A. Kumar, P. Liang and T. Ma, "Verified uncertainty calibration",
    NeurIPS 2019 (norm 2); for norm 1 the bias is that of the mean of a folded normal variable.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.calibration_error([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    0.0
    """
    check_norm(norm, debiased)
    check_bins(n_bins, strategy)
    classwise = _checks.boolean(classwise, "classwise")
    z, y = as_rows(z, y)
    if not classwise:
        confidence, predicted = confidences(z)
        bins = make_bins(confidence, n_bins, strategy, z.dtype)
        return float(error_from_sums(bins.sums(confidence, predicted == y), norm, debiased))
    if strategy == "uniform":
        bins = uniform_bins(n_bins, z.dtype)
        sums = np.zeros((3, z.shape[1], n_bins))
        for rows in blocks(*z.shape):
            sums += bins.classwise_sums(softmax_rows(z, rows), y[rows])
        return float(np.mean(error_from_sums(sums, norm, debiased)))
    p = np.concatenate([softmax_rows(z, rows) for rows in blocks(*z.shape)])
    errors = (
        error_from_sums(make_bins(q, n_bins, strategy, z.dtype).sums(q, y == k), norm, debiased)
        for k, q in enumerate(p.T)
    )
    return float(np.mean(list(errors)))


class CalibrationTest(NamedTuple):
    """Result of :func:`calibration_test`."""

    error: float  #: calibration error of the data
    expected_error: float  #: mean calibration error under perfect calibration
    p_value: float  #: probability of an error at least as large under perfect calibration


def consistency_test(
    sums: Floats, cells: Floats, norm: Norm = 1, n_resamples: int = _N_RESAMPLES, rng: Any = 0
) -> CalibrationTest:
    """The test of :func:`calibration_test` for sums over bins and over their cells.

    `sums` has shape (3, B) and `cells` shape (3, B * CELLS), as :class:`logitlab._bins.Bins`
    returns them.
    """
    bins = np.flatnonzero(cells[0]) // CELLS
    cells = cells[:, cells[0] > 0]
    counts, confidence = cells[0].astype(np.int64), np.minimum(cells[1] / cells[0], 1)
    n_bins = sums.shape[1]
    ends = np.searchsorted(bins, np.arange(n_bins), side="right")
    generator = np.random.default_rng(rng)
    error, expected, larger = float(error_from_sums(sums, norm)), 0.0, 0
    step = max(1, _BLOCK // len(counts))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        cumulative = np.zeros((size, len(counts) + 1), np.int64)
        correct = generator.binomial(counts, confidence, (size, len(counts)))
        np.cumsum(correct, axis=1, out=cumulative[:, 1:])
        simulated = np.broadcast_to(sums[:, None], (3, size, n_bins)).copy()
        simulated[2] = np.diff(cumulative[:, ends], axis=1, prepend=0)
        errors = error_from_sums(simulated, norm)
        expected += float(errors.sum()) / n_resamples
        # The factor counts a simulated error that equals the observed one up to rounding.
        larger += int(np.sum(errors >= error * (1 - 1e-9)))
    return CalibrationTest(error, expected, (1 + larger) / (1 + n_resamples))


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
    """Test of the hypothesis that the classifier is perfectly calibrated (consistency test).

    Under perfect calibration, the prediction of a row is correct with a probability equal to its
    confidence. The test simulates `n_resamples` sets of outcomes under this hypothesis and
    compares their calibration errors with that of the data.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins, strategy, norm
        As :func:`calibration_error`.
    n_resamples : int
        Number of simulations; the smallest possible p-value is 1 / (1 + n_resamples).
    rng : None, int or numpy.random.Generator
        Seed or generator of the simulations.

    Returns
    -------
    CalibrationTest
        ``error`` (of the data), ``expected_error`` (its mean under perfect calibration) and
        ``p_value`` (the probability of an error at least as large under perfect calibration).

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
    >>> z = np.tile([2.0, 0.0], (1000, 1))  # confidence 88 %
    >>> result = logitlab.calibration_test(z, [0] * 880 + [1] * 120)
    >>> result.p_value > 0.5
    True
    >>> logitlab.calibration_test(z, [0] * 800 + [1] * 200).p_value < 0.01
    True
    """
    check_norm(norm)
    check_bins(n_bins, strategy)
    n_resamples, rng = _checks.integer(n_resamples, "n_resamples", 1), _checks.generator(rng)
    z, y = as_rows(z, y)
    confidence, predicted = confidences(z)
    bins, correct = make_bins(confidence, n_bins, strategy, z.dtype), predicted == y
    sums, cells = bins.sums(confidence, correct), bins.cell_sums(confidence, correct)
    return consistency_test(sums, cells, norm, n_resamples, rng)
