"""Reliability curve, calibration error and its test, against definitions and simulations."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats

import logitlab
from logitlab import reliability
from logitlab._bins import (
    CELLS,
    Bins,
    check_norm,
    error_from_sums,
    make_bins,
    uniform_bins,
)

pytestmark = pytest.mark.slow


def error_by_definition(confidence, correct, n_bins, norm=1):
    """Calibration error, computed bin by bin; a confidence of exactly 1 is in the last bin."""
    gaps, weights = [], []
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = (confidence >= low) & (
            (confidence < high) | ((b == n_bins - 1) & (confidence == 1))
        )
        if inside.any():
            gaps.append(abs(confidence[inside].mean() - correct[inside].mean()))
            weights.append(inside.mean())
    gaps, weights = np.array(gaps), np.array(weights)
    return gaps.max() if norm == "max" else (weights @ gaps**norm) ** (1 / norm)


@pytest.mark.parametrize("norm", [1, 2, "max"])
@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_calibration_error_by_definition(labelled, norm, n_bins):
    """Of the predicted class, and classwise."""
    z, y = labelled
    p = logitlab.softmax(z)
    expected = error_by_definition(p.max(-1), p.argmax(-1) == y, n_bins, norm)
    assert logitlab.calibration_error(z, y, n_bins=n_bins, norm=norm) == pytest.approx(expected)
    classes = [error_by_definition(p[:, k], y == k, n_bins, norm) for k in range(6)]
    assert logitlab.calibration_error(
        z, y, n_bins=n_bins, norm=norm, classwise=True
    ) == pytest.approx(np.mean(classes))


@pytest.mark.parametrize(("norm", "name"), [(1, "l1"), (2, "l2"), ("max", "max")])
def test_calibration_error_against_torchmetrics(labelled, norm, name):
    """In float64, with every norm."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    z, y = labelled
    expected = metrics.multiclass_calibration_error(
        torch.from_numpy(logitlab.softmax(z)), torch.from_numpy(y), 6, n_bins=15, norm=name
    )
    assert logitlab.calibration_error(z, y, norm=norm) == pytest.approx(float(expected), rel=1e-6)


def test_calibration_error_against_netcal(labelled):
    """Skipped if netcal, which has many dependencies, is not installed."""
    metrics = pytest.importorskip("netcal.metrics")
    z, y = labelled
    expected = metrics.ECE(bins=15).measure(logitlab.softmax(z), y)
    assert logitlab.calibration_error(z, y) == pytest.approx(float(expected), rel=1e-6)


def test_confidence_of_one_is_in_the_last_bin():
    """There is no additional bin for it."""
    curve = logitlab.reliability_curve([[1000.0, 0.0], [0.0, 0.0]], [1, 0])
    assert len(curve.counts) == 15
    assert curve.counts[-1] == 1
    assert curve.accuracy[-1] == 0


def test_quantile_bins(labelled):
    """Bins have equal numbers of rows; equal confidences are in one bin."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y, n_bins=10, strategy="quantile")
    np.testing.assert_array_equal(curve.counts, 50)
    same = logitlab.reliability_curve(np.zeros((9, 2)), [0] * 9, strategy="quantile")
    np.testing.assert_array_equal(same.counts, [9])


def test_interval_contains_the_accuracy(labelled):
    """In every bin with rows; the intervals are reproducible."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y)
    filled = curve.counts > 0
    assert (curve.low <= curve.accuracy)[filled].all()
    assert (curve.accuracy <= curve.high)[filled].all()
    np.testing.assert_array_equal(curve.low, logitlab.reliability_curve(z, y).low)


def calibrated(n, seed, k=4):
    """Logits, and labels sampled from their softmax."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 1.5
    return z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def test_debiased_by_definition(labelled):
    """Norm 2: the estimator of Kumar, Liang and Ma, bin by bin."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y, n_bins=5, strategy="quantile")
    variance = curve.accuracy * (1 - curve.accuracy) / (curve.counts - 1)
    gaps = (curve.accuracy - curve.confidence) ** 2 - variance
    expected = np.sqrt(np.sum(curve.counts * gaps) / 500)
    result = logitlab.calibration_error(z, y, n_bins=5, strategy="quantile", norm=2, debiased=True)
    assert result == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("options", [{}, {"strategy": "quantile"}, {"classwise": True}])
def test_debiased_error_is_smaller_under_perfect_calibration(norm, options):
    """By at least 40 % on average."""
    biased, debiased = np.mean(
        [
            [
                logitlab.calibration_error(*calibrated(400, s), norm=norm, debiased=d, **options)
                for d in (False, True)
            ]
            for s in range(40)
        ],
        axis=0,
    )
    assert debiased < 0.6 * biased


def test_debiased_error_of_many_rows():
    """It is close to the biased estimate."""
    z, y = calibrated(100_000, 0)
    z *= 2  # overconfident
    biased = logitlab.calibration_error(z, y)
    assert logitlab.calibration_error(z, y, debiased=True) == pytest.approx(biased, rel=2e-3)
    with pytest.raises(ValueError, match="norm must be 1 or 2 with debiased=True, got 'max'"):
        logitlab.calibration_error(z, y, norm="max", debiased=True)


def test_classwise_quantile_bins(labelled):
    """The bins of a class are quantiles of its probabilities."""
    z, y = labelled
    p = logitlab.softmax(z)
    errors = []
    for k in range(6):
        edges = np.quantile(p[:, k], np.linspace(0, 1, 6))
        bins = np.clip(np.searchsorted(edges, p[:, k], side="right") - 1, 0, 4)
        gaps = [abs(p[bins == b, k].sum() - (y[bins == b] == k).sum()) for b in range(5)]
        errors.append(sum(gaps) / 500)
    result = logitlab.calibration_error(z, y, n_bins=5, strategy="quantile", classwise=True)
    assert result == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_p_value_under_perfect_calibration(strategy):
    """It is uniform: the test rejects one of twenty samples at the 5 % level."""
    p = [
        logitlab.calibration_test(
            *calibrated(300, s), n_resamples=199, strategy=strategy, rng=s
        ).p_value
        for s in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_overconfident_logits_are_rejected():
    """Their error is far above the one expected under perfect calibration."""
    z, y = calibrated(2000, 1)
    result = logitlab.calibration_test(2 * z, y)
    assert result.p_value == 1 / 1001
    assert result.expected_error < result.error / 2
    assert result.error == logitlab.calibration_error(2 * z, y)
    assert result == logitlab.calibration_test(2 * z, y)
    with pytest.raises(ValueError, match="n_resamples must be >= 1, got 0"):
        logitlab.calibration_test(z, y, n_resamples=0)


def test_correct_rows_of_confidence_one():
    """The error and its expected value are 0 and the p-value is 1."""
    assert logitlab.calibration_test([[9000.0, 0.0]] * 5, [0] * 5) == (0, 0, 1)


def exact_error(p, y, n_bins):
    """The calibration error of rows of fractions, in exact arithmetic."""
    sums = {}
    for row, label in zip(p, y, strict=True):
        confidence = max(row)
        b = min(int(confidence * n_bins), n_bins - 1)
        sums[b] = sums.get(b, 0) + confidence - (row.index(confidence) == label)
    return float(sum(map(abs, sums.values())) / len(p))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_bins", [1, 2, 3, 7, 10, 15, 24, 25, 49])
def test_confidences_on_edges_against_exact_arithmetic(n_bins, dtype):
    """Fractions of small denominators: many are equal, and many are on edges of bins."""
    rng = np.random.default_rng(n_bins)
    shares = rng.integers(1, 12, (400, 4))
    rows = [[Fraction(int(i), int(row.sum())) for i in row] for row in shares]
    y = rng.integers(0, 4, 400)
    z = logitlab.logits(np.array(rows, dtype=np.float64)).astype(dtype)
    offset = rng.normal(size=(400, 1)).astype(dtype)
    expected = exact_error(rows, y, n_bins)
    assert logitlab.calibration_error(z, y, n_bins=n_bins) == pytest.approx(expected, abs=1e-6)
    assert logitlab.calibration_error(z + offset, y, n_bins=n_bins) == pytest.approx(
        expected, abs=1e-6
    )
    assert logitlab.calibration_test(z, y, n_bins=n_bins, n_resamples=1).error == pytest.approx(
        expected, abs=1e-6
    )
    interval = logitlab.bootstrap(z, y, n_bins=n_bins, n_resamples=1)["calibration_error"]
    assert interval.value == pytest.approx(expected, abs=1e-6)
    curve = logitlab.reliability_curve(z, y, n_bins=n_bins)
    bins = [min(int(max(row) * n_bins), n_bins - 1) for row in rows]
    np.testing.assert_array_equal(curve.counts, np.bincount(bins, minlength=n_bins))


def equal_confidences():
    """50 rows (.4, .4, .2) and 50 rows (.4, .3, .3), of which 40 are correct."""
    z = logitlab.logits(np.repeat([[0.4, 0.4, 0.2], [0.4, 0.3, 0.3]], 50, axis=0))
    return z, np.repeat([0, 2], [40, 60])


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_equal_confidences_share_a_bin(strategy):
    """Their softmax differs by rounding, on either side of the edge 6/15."""
    z, y = equal_confidences()
    assert len(np.unique(logitlab.softmax(z).max(axis=1))) > 1
    assert logitlab.calibration_error(z, y, strategy=strategy) == pytest.approx(0, abs=1e-12)
    assert logitlab.calibration_error(z, y, norm="max", strategy=strategy) < 1e-12
    curve = logitlab.reliability_curve(z, y, strategy=strategy)
    assert curve.counts.max() == 100
    result = logitlab.calibration_test(z, y, strategy=strategy)
    assert result.error < 1e-12
    assert result.p_value == 1


def test_equal_probabilities_share_a_bin_classwise():
    """The probability 0.4 of the first class, in rows of different other classes."""
    z, y = equal_confidences()
    sums = {"0.4": 50 * 0.4 + 50 * 0.4 - 40, "0.3": 50 * 0.3, "0.2": 50 * 0.2}
    second = abs(50 * 0.4) + abs(50 * 0.3)  # in the bins of 0.4 and 0.3; no labels
    third = abs(sums["0.2"] - 10) + abs(sums["0.3"] - 50)
    expected = (abs(sums["0.4"]) + second + third) / 300
    for strategy in ("uniform", "quantile"):
        result = logitlab.calibration_error(z, y, classwise=True, strategy=strategy)
        assert result == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("low", "high", "side"), [(1e-9, 0, 5), (0, 0, 6), (0, 1e-9, 6)])
def test_probabilities_near_an_edge(low, high, side):
    """Only rounding errors are tolerated: 0.4 - 1e-9 is in the bin below the edge 0.4."""
    p = 0.4 - low + high
    curve = logitlab.reliability_curve(logitlab.logits([[p, 0.3, 0.7 - p]]), [0])
    assert np.flatnonzero(curve.counts) == [side]


def test_quantile_bins_with_a_dominating_tie():
    """60 of 100 rows have confidence 1: they are a bin, and the other rows are another."""
    p = np.r_[np.linspace(0.6, 0.9, 40), np.ones(60)]
    y = np.r_[np.zeros(40, int), np.repeat([0, 1], [20, 40])]  # 40 of the 60 are wrong
    z = logitlab.logits(np.stack([p, 1 - p], axis=1))
    curve = logitlab.reliability_curve(z, y, n_bins=2, strategy="quantile")
    np.testing.assert_array_equal(curve.counts, [40, 60])
    expected = 0.4 * 0.25 + 0.6 * (2 / 3)
    result = logitlab.calibration_error(z, y, n_bins=2, strategy="quantile")
    assert result == pytest.approx(expected, rel=1e-12)
    test = logitlab.calibration_test(z, y, n_bins=2, strategy="quantile")
    assert test.error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("counts", [(30, 50, 20), (49, 2, 49), (1, 98, 1), (25, 25, 50)])
def test_quantile_bins_of_a_tie(counts):
    """Equal rows are in the bin to which the middle one of them belongs."""
    confidence = np.concatenate(
        [
            np.linspace(0.6, 0.7, counts[0]),
            np.full(counts[1], 0.8),
            np.linspace(0.85, 0.9, counts[2]),
        ]
    )
    z = np.stack([np.log(confidence), np.log1p(-confidence)], axis=1)
    curve = logitlab.reliability_curve(z, np.zeros(100, int), n_bins=4, strategy="quantile")
    middle = np.arange(100) + 0.5
    middle[counts[0] : counts[0] + counts[1]] = counts[0] + counts[1] / 2
    expected = np.bincount((middle / 25).astype(int), minlength=4)
    np.testing.assert_array_equal(curve.counts, expected[expected > 0])


def test_dense_confidences_have_quantile_bins():
    """Rounding errors are not added up along rows of slightly different confidence."""
    z = np.stack([9 + np.arange(20_000) * 1e-6, np.zeros(20_000)], axis=1).astype(np.float32)
    curve = logitlab.reliability_curve(z, np.zeros(20_000, int), n_bins=4, strategy="quantile")
    np.testing.assert_allclose(curve.counts, 5000, atol=30)


def test_number_of_bins_is_bounded():
    """An error comes before any memory is allocated."""
    z, y = np.zeros((3, 2)), [0, 1, 0]
    for function in (
        logitlab.reliability_curve,
        logitlab.calibration_error,
        logitlab.calibration_test,
        logitlab.bootstrap,
    ):
        with pytest.raises(ValueError, match="n_bins must be <= 10000, got 1000000000"):
            function(z, y, n_bins=10**9)
        with pytest.raises(ValueError, match="n_bins must be >= 1, got 0"):
            function(z, y, n_bins=0)
        function(z, y, n_bins=10_000)


def test_expected_error_by_definition():
    """The mean error of labels sampled from the confidences, norm by norm."""
    z, y = calibrated(60, 3)
    for norm in (1, 2, "max"):
        result = logitlab.calibration_test(z, y, norm=norm, n_bins=4, n_resamples=4000)
        rng = np.random.default_rng(1)
        p = logitlab.softmax(z).max(axis=1)
        errors = [error_by_definition(p, rng.random(60) < p, 4, norm) for _ in range(4000)]
        assert result.expected_error == pytest.approx(np.mean(errors), rel=0.02)
        larger = np.mean(np.array(errors) >= result.error)
        assert result.p_value == pytest.approx(larger, abs=0.04)


def test_cells_divide_the_bins():
    """Cells of equal width within each bin; a value below an edge by rounding is in the first."""
    bins = uniform_bins(5, np.dtype(np.float64))
    rng = np.random.default_rng(0)
    p = np.r_[rng.random(1000), 0, 1, 0.2, np.nextafter(0.6, 0), 1 - 1e-9]
    occurred = rng.random(len(p)) < 0.5
    cells = bins.cell_sums(p, occurred)
    index = np.minimum(((p + 1e-15) * 5 * CELLS).astype(int), 5 * CELLS - 1)
    expected = [np.bincount(index, w, minlength=5 * CELLS) for w in (None, p, occurred)]
    np.testing.assert_allclose(cells, expected, rtol=1e-12)
    np.testing.assert_allclose(
        cells.reshape(3, 5, CELLS).sum(axis=-1), bins.sums(p, occurred), rtol=1e-12
    )


def test_cells_of_a_bin_without_width():
    """All of its rows are in the first cell."""
    bins = make_bins(np.r_[[0.5], np.ones(9)], 2, "quantile", np.dtype(np.float64))
    cells = bins.cell_sums(np.array([0.5, 1, 1]), np.array([True, True, False]))
    assert len(bins) == 2
    np.testing.assert_array_equal(np.flatnonzero(cells[0]), [0, CELLS])
    np.testing.assert_array_equal(cells[:, CELLS], [2, 2, 1])


def test_sums_are_numbers_of_float64():
    """Counts are divided and weighted."""
    bins = Bins(np.array([0, 0.5, 1]), np.array([0.5]))
    p, y = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]), np.array([1, 0, 1])
    sums = bins.classwise_sums(p, y)
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums[0], [[1, 2], [2, 1]])
    np.testing.assert_allclose(sums[1], [[0.2, 1.5], [0.5, 0.8]])
    np.testing.assert_allclose(sums[2], [[0, 1], [1, 1]])


def rows_of_confidence(confidence, counts, correct):
    """Logits of two classes and labels: `correct` of the `counts` rows of each confidence."""
    p = np.repeat(confidence, counts)
    wrong = [k for n, c in zip(counts, correct, strict=True) for k in [0] * c + [1] * (n - c)]
    return np.stack([np.log(p), np.log1p(-p)], axis=1), np.array(wrong)


def test_reliability_curve_by_definition():
    """Counts, means and binomial intervals of each bin; NaN without rows."""
    z, y = rows_of_confidence([0.55, 0.7, 0.92], [400, 900, 2000], [200, 720, 1850])
    curve = logitlab.reliability_curve(z, y, n_bins=10)
    np.testing.assert_allclose(curve.edges, np.arange(11) / 10, rtol=1e-15)
    np.testing.assert_array_equal(curve.counts, [0, 0, 0, 0, 0, 400, 0, 900, 0, 2000])
    assert curve.counts.dtype == np.int64
    filled = [5, 7, 9]
    np.testing.assert_allclose(curve.confidence[filled], [0.55, 0.7, 0.92], rtol=1e-12)
    np.testing.assert_allclose(curve.accuracy[filled], [0.5, 0.8, 0.925], rtol=1e-12)
    for name in ("confidence", "accuracy", "low", "high"):
        np.testing.assert_array_equal(np.isnan(getattr(curve, name)), curve.counts == 0)
    for b, n, share in ((5, 400, 0.5), (7, 900, 0.8), (9, 2000, 0.925)):
        expected = scipy.stats.binom(n, share).ppf([0.025, 0.975]) / n
        np.testing.assert_allclose([curve.low[b], curve.high[b]], expected, atol=0.15 / n**0.5)
    quantile = logitlab.reliability_curve(z, y, n_bins=2, strategy="quantile")
    np.testing.assert_allclose(quantile.edges, [0.55, 0.92, 0.92], rtol=1e-12)
    np.testing.assert_array_equal(quantile.counts, [1300, 2000])


def test_default_options(labelled):
    """15 bins of equal width, norm 1 and 1000 simulations with the seed 0."""
    z, y = labelled
    options = {"n_bins": 15, "strategy": "uniform"}
    curve = logitlab.reliability_curve(z, y)
    for name, right in vars(logitlab.reliability_curve(z, y, **options)).items():
        np.testing.assert_array_equal(getattr(curve, name), right)
    options["norm"] = 1
    error = logitlab.calibration_error(z, y, **options, classwise=False, debiased=False)
    assert logitlab.calibration_error(z, y) == error
    expected = logitlab.calibration_test(z, y, **options, n_resamples=1000, rng=0)
    assert logitlab.calibration_test(z, y) == expected
    bins = uniform_bins(15, z.dtype)
    p = logitlab.softmax(z)
    rows = p.max(axis=1), p.argmax(axis=1) == y
    result = reliability.consistency_test(bins.sums(*rows), bins.cell_sums(*rows))
    assert result == pytest.approx(expected, rel=1e-12)


def test_options_are_checked_before_arrays():
    for function, more in (
        (logitlab.reliability_curve, ", 'isotonic'"),
        (logitlab.calibration_error, ""),
        (logitlab.calibration_test, ""),
    ):
        with pytest.raises(
            ValueError, match=rf"^strategy must be one of 'uniform', 'quantile'{more}, got 'x'$"
        ):
            function(None, None, strategy="x")
        with pytest.raises(ValueError, match=r"^n_bins must be >= 1, got 0$"):
            function(None, None, n_bins=0)
    for function in (logitlab.calibration_error, logitlab.calibration_test):
        with pytest.raises(ValueError, match=r"^norm must be one of 1, 2, 'max', got 3$"):
            function(None, None, norm=3)
    with pytest.raises(TypeError, match=r"^classwise must be True or False, got 1$"):
        logitlab.calibration_error(None, None, classwise=1)
    with pytest.raises(TypeError, match=r"^debiased must be True or False, got 1$"):
        logitlab.calibration_error(None, None, debiased=1)
    with pytest.raises(ValueError, match=r"^norm must be 1 or 2 with debiased=True, got 'max'$"):
        logitlab.calibration_error(None, None, debiased=True, norm="max")
    with pytest.raises(ValueError, match=r"^n_resamples must be >= 1, got 0$"):
        logitlab.calibration_test(None, None, n_resamples=0)
    with pytest.raises(TypeError, match=r"^n_resamples must be an int, got 1\.5$"):
        logitlab.calibration_test(None, None, n_resamples=1.5)
    with pytest.raises(TypeError, match=r"^rng must be None, an int >= 0 or a .*, got 'a'$"):
        logitlab.calibration_test(None, None, rng="a")


def quantile_error(p, y, n_bins, norm):
    """The calibration error of equally many rows in each bin, of different p."""
    order = np.argsort(p)
    gaps = [abs(p[part].mean() - y[part].mean()) for part in np.split(order, n_bins)]
    return max(gaps) if norm == "max" else np.mean(np.array(gaps) ** norm) ** (1 / norm)


@pytest.mark.parametrize("norm", [1, 2, "max"])
def test_calibration_error_of_many_rows(norm):
    """Over all blocks of rows, of the predicted class and classwise, with bins of both kinds."""
    rng = np.random.default_rng(8)
    z = rng.normal(size=(7000, 60)) * 2
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    p = logitlab.softmax(z)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    for strategy, right in (("uniform", error_by_definition), ("quantile", quantile_error)):
        options = {"n_bins": 10, "norm": norm, "strategy": strategy}
        assert logitlab.calibration_error(z, y, **options) == pytest.approx(
            right(confidence, correct, 10, norm), rel=1e-10
        )
        classes = [right(p[:, k], y == k, 10, norm) for k in range(60)]
        assert logitlab.calibration_error(z, y, **options, classwise=True) == pytest.approx(
            np.mean(classes), rel=1e-10
        )
        test = logitlab.calibration_test(z, y, **options, n_resamples=1)
        assert test.error == logitlab.calibration_error(z, y, **options)


def test_simulations_in_blocks(monkeypatch):
    """The random numbers held at a time change no result."""
    z, y = calibrated(500, 2)
    expected = logitlab.calibration_test(z, y, n_resamples=37)
    assert 0.1 < expected.p_value < 0.9
    assert expected.p_value * 38 == pytest.approx(round(expected.p_value * 38), rel=1e-12)
    for block in (1, 1000, 3000):
        monkeypatch.setattr(reliability, "_BLOCK", block)
        result = logitlab.calibration_test(z, y, n_resamples=37)
        assert result == pytest.approx(expected, rel=1e-12)


def test_p_value_by_definition():
    """Of one row of confidence 3/4: the error is 1/4 with probability 3/4, else 3/4."""
    z = [[np.log(3), 0.0]]
    right = logitlab.calibration_test(z, [0], n_resamples=4000)
    assert right.error == pytest.approx(0.25)
    assert right.expected_error == pytest.approx(3 / 8, abs=0.02)
    assert right.p_value == 1
    wrong = logitlab.calibration_test(z, [1], n_resamples=4000)
    assert wrong.error == pytest.approx(0.75)
    assert wrong.expected_error == right.expected_error
    assert wrong.p_value == pytest.approx(0.25, abs=0.03)
    other = logitlab.calibration_test(z, [1], n_resamples=4000, rng=1)
    assert other.p_value != wrong.p_value


@pytest.mark.parametrize(
    ("dtype", "eps"),
    [
        (np.float16, 2.0**-23),
        (np.float32, 2.0**-23),
        (np.float64, 2.0**-52),
        (np.longdouble, 2.0**-52),
    ],
)
def test_tolerance_of_bins(dtype, eps):
    """16 units in the last place of a logit and of a probability, below each inner edge."""
    bins = uniform_bins(8, np.dtype(dtype))
    p = np.arange(1, 8) / 8
    np.testing.assert_array_equal(bins.edges, np.arange(9) / 8)
    tolerance = 16 * p * ((1 - p) * eps + 2.0**-52)
    np.testing.assert_allclose(p - bins.thresholds, tolerance, rtol=0.05)
    np.testing.assert_array_equal(bins.indices(p - 0.9 * tolerance), np.arange(1, 8))
    np.testing.assert_array_equal(bins.indices(p - 1.1 * tolerance), np.arange(7))
    np.testing.assert_array_equal(bins.indices(np.array([0.0, 1.0])), [0, 7])


@pytest.mark.parametrize("n_bins", [1, 2, 15, 33, 34, 500])
def test_bin_of_each_probability(n_bins):
    """The index of :func:`numpy.searchsorted`, for few bins and many; NaN is in the last bin."""
    bins = uniform_bins(n_bins, np.dtype(np.float64))
    p = np.random.default_rng(0).random((50, 20))
    p.flat[: len(bins.thresholds)] = bins.thresholds
    p[-1, :3] = 0, 1, np.nan
    indices = bins.indices(p)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, np.searchsorted(bins.thresholds, p, side="right"))
    assert indices[-1, 2] == n_bins - 1


@pytest.mark.parametrize("seed", range(4))
def test_quantile_bins_by_definition(seed):
    """Equal ones, exact zeros included, are in the bin of the middle one; no bin is empty."""
    rng = np.random.default_rng(seed)
    for n_bins in (1, 2, 3, 5, 6, 7, 10, 49):
        for n in (1, 2, 3, 7, 10, 24, 30, 49, 98):
            p = np.sort(rng.integers(0, rng.integers(2, 60), n) / 64)
            values, first, counts = np.unique(p, return_index=True, return_counts=True)
            middle = [Fraction(int(2 * i + c), 2) for i, c in zip(first, counts, strict=True)]
            bins = [min(int(m * n_bins / n), n_bins - 1) for m in middle]
            expected = np.bincount(bins, counts)
            result = make_bins(rng.permutation(p), n_bins, "quantile", np.dtype(np.float64))
            sums = result.sums(p, p > 0.5)
            np.testing.assert_array_equal(sums[0], expected[expected > 0])
            starts = [values[bins.index(b)] for b in sorted(set(bins))]
            np.testing.assert_array_equal(result.edges, [*starts, p[-1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantile_bins_of_nearly_equal_probabilities(dtype):
    """Those that differ by rounding are in the bin of the middle one."""
    eps = float(np.finfo(dtype).eps)
    for p, expected in (
        ([0.2, 0.4, 0.4 + eps, 0.4 + 2 * eps, 0.6, 0.8], [4, 2]),
        ([0.2, 0.3, 0.4 - 2 * eps, 0.4 - eps, 0.4, 0.8], [2, 4]),
        ([0.2, 0.3, 0.4, 0.4 + 100 * eps, 0.5, 0.6], [3, 3]),
    ):
        bins = make_bins(np.array(p), 2, "quantile", np.dtype(dtype))
        np.testing.assert_array_equal(bins.sums(np.array(p), np.zeros(6, bool))[0], expected)


# Bins of 1, 4, 0, 9 and 10 rows: one row, a gap, no rows, no variance, no gap.
SUMS = np.array([[1, 4, 0, 9, 10], [0.7, 2.5, 0, 6, 5], [1, 2, 0, 9, 5]])


def debiased_by_definition(sums, norm):
    total = 0.0
    for n, predicted, occurred in sums.T:
        if n:
            gap, rate = abs(predicted - occurred) / n, occurred / n
            variance = rate * (1 - rate) / (n - 1) if n > 1 else 0.25
            if norm == 2:
                total += n * (gap**2 - variance)
            elif variance:
                sd = variance**0.5
                total += n * (2 * gap - scipy.stats.foldnorm(gap / sd, scale=sd).mean())
            else:
                total += n * gap
    return max(total / sums[0].sum(), 0) ** (1 / norm)


def test_error_from_sums_by_definition():
    """Of each row of sums, in every norm."""
    gaps, n = np.array([0.3, 0.5 / 4, 3 / 9, 0]), np.array([1, 4, 9, 10])
    assert error_from_sums(SUMS, 1) == pytest.approx(n @ gaps / 24, rel=1e-14)
    assert error_from_sums(SUMS, 2) == pytest.approx(np.sqrt(n @ gaps**2 / 24), rel=1e-14)
    assert error_from_sums(SUMS, "max") == pytest.approx(1 / 3, rel=1e-14)
    for norm in (1, 2):
        for part in (slice(None), slice(1, None), slice(1, 4), slice(3, 4), slice(4, 5)):
            sums = SUMS[:, part]
            expected = debiased_by_definition(sums, norm)
            assert error_from_sums(sums, norm, True) == pytest.approx(expected, rel=1e-12)
        stack = np.stack([SUMS[:, 1:], SUMS[:, :4]], axis=1)
        expected = [debiased_by_definition(s, norm) for s in (SUMS[:, 1:], SUMS[:, :4])]
        np.testing.assert_allclose(error_from_sums(stack, norm, debiased=True), expected)
        # Two rows are enough for an estimate of the variance, which is 0 here.
        for occurred in (0.0, 2.0):
            two = np.array([[2.0], [1.3], [occurred]])
            assert error_from_sums(two, norm, True) == pytest.approx(abs(1.3 - occurred) / 2)
    stack = np.stack([SUMS[:, 1:], SUMS[:, :4]], axis=1)
    for norm in (1, 2, "max"):
        expected = [error_from_sums(SUMS[:, 1:], norm), error_from_sums(SUMS[:, :4], norm)]
        np.testing.assert_allclose(error_from_sums(stack, norm), expected, rtol=1e-14)


def test_strategy_of_bins():
    with pytest.raises(
        ValueError, match=r"^strategy must be one of 'uniform', 'quantile', got 'equal'$"
    ):
        make_bins(np.array([0.2, 0.7]), 2, "equal", np.dtype(np.float64))


def test_check_norm():
    """Every norm without `debiased`; 1 and 2 with it."""
    for norm in (1, 2, "max"):
        check_norm(norm)
    for norm in (1, 2):
        check_norm(norm, True)
    with pytest.raises(ValueError, match=r"^norm must be 1 or 2 with debiased=True, got 'max'$"):
        check_norm("max", True)


def test_mean_confidence_above_one_by_rounding():
    """It is 1."""
    sums = np.array([[3.0], [3 * (1 + 2.0**-52)], [3.0]])
    cells = np.zeros((3, CELLS))
    cells[:, -1:] = sums
    result = reliability.consistency_test(sums, cells)
    assert result == (pytest.approx(0, abs=1e-15), pytest.approx(0, abs=1e-15), 1)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("norm", [1, 2])
def test_debiased_classwise_error_by_definition(labelled, strategy, norm):
    """The mean of the debiased errors of the classes."""
    z, y = labelled
    p = logitlab.softmax(z)
    bins = [make_bins(q, 5, strategy, z.dtype) for q in p.T]
    expected = [
        debiased_by_definition(bins[k].sums(p[:, k], y == k), norm) for k in range(p.shape[1])
    ]
    options = {"n_bins": 5, "strategy": strategy, "norm": norm, "classwise": True}
    result = logitlab.calibration_error(z, y, **options, debiased=True)
    assert result == pytest.approx(np.mean(expected), rel=1e-12)


def sampled(n, k, scale, seed=0):
    """Logits of labels sampled from softmax(z / scale)."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.standard_normal((n, k))
    return scale * z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def smooth_error_by_definition(confidence, correct, weight):
    """The fixed point of the bandwidth, with the reflected kernel summed over all rows."""
    t = np.linspace(0, 1, 4001)[:, None]
    difference = weight * (confidence - correct) / weight.sum()

    def error(bandwidth):
        kernel = sum(
            scipy.stats.norm.pdf(t - sign * confidence - 2 * m, scale=bandwidth)
            for m in range(-3, 4)
            for sign in (1, -1)
        )
        return scipy.integrate.trapezoid(abs(kernel @ difference), t[:, 0])

    if error(2**-10) <= 2**-10:
        return error(2**-10)
    return scipy.optimize.brentq(lambda b: error(b) - b, 2**-10, 1, xtol=1e-8)


@pytest.mark.parametrize(("n", "k", "scale"), [(20, 2, 1), (60, 3, 4), (40, 10, 0.4), (30, 5, 30)])
def test_smooth_calibration_error_by_definition(n, k, scale):
    """Of confidences in the middle and close to 1, without and with weights."""
    z, y = sampled(n, k, scale)
    p = logitlab.softmax(z)
    arguments = p.max(axis=1), p.argmax(axis=1) == y
    weight = np.random.default_rng(0).random(n)
    expected = smooth_error_by_definition(*arguments, np.ones(n))
    assert logitlab.smooth_calibration_error(z, y) == pytest.approx(expected, rel=1e-4)
    expected = smooth_error_by_definition(*arguments, weight)
    result = logitlab.smooth_calibration_error(z, y, sample_weight=weight)
    assert result == pytest.approx(expected, rel=1e-4)


def test_smooth_calibration_error_of_small_errors():
    """Below 1/1024 it is the error at that bandwidth; it is 0 for certain and correct rows."""
    z, y = np.zeros((1000, 2)), np.repeat([0, 1], 500)
    z[:, 0] = np.log(0.5002 / 0.4998)
    assert logitlab.smooth_calibration_error(z, y) == pytest.approx(2e-4, rel=1e-3)
    certain = np.tile([9000.0, 0], (5, 1))
    assert logitlab.smooth_calibration_error(certain, [0] * 5) == 0
    assert logitlab.smooth_calibration_error(certain, [1] * 5) == pytest.approx(1, rel=1e-6)
    assert logitlab.smooth_calibration_error([[0.0]], [0]) == 0


def test_smooth_calibration_error_of_overconfident_rows(predictions):
    """At most the mean of the differences where all have one sign, as of the ten classes."""
    path, p, y = predictions
    gap = p.max(axis=1).mean(dtype=float) - np.mean(p.argmax(axis=1) == y)
    result = logitlab.smooth_calibration_error(logitlab.logits(p), y)
    if path.stem.endswith("-10"):
        assert result == pytest.approx(gap, rel=1e-4)
    else:
        assert gap < result < logitlab.calibration_error(logitlab.logits(p), y)


@pytest.mark.parametrize("scale", [0.5, 1, 2])
@pytest.mark.parametrize("n", [100, 2000, 30_000])
def test_smooth_calibration_error_against_relplot(scale, n):
    """Within the steps of its bandwidth, 1/1024, and its grid of 200 points.

    It counts half of a row with a confidence of 1: there are none here.
    """
    metrics = pytest.importorskip("relplot.metrics")
    z, y = sampled(n, 4, scale)
    p = logitlab.softmax(z)
    keep = p.max(axis=1) < 0.99
    z, y, p = z[keep], y[keep], p[keep]
    expected = metrics.smECE(p.max(axis=1), (p.argmax(axis=1) == y) * 1.0)
    assert logitlab.smooth_calibration_error(z, y) == pytest.approx(expected, abs=1.5e-3)


@pytest.mark.parametrize("score", ["log_loss", "brier_score"])
@pytest.mark.parametrize("pos_label", [None, 0, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_score_decomposition_against_model_diagnostics(score, pos_label, weighted):
    """On the confidence and on the probability of a class, with equal probabilities."""
    scoring = pytest.importorskip("model_diagnostics.scoring")
    z, y = sampled(3000, 4, 1.6)
    z[::5] = np.round(z[::5])
    weight = np.random.default_rng(0).random(len(y)) if weighted else None
    p = logitlab.softmax(z)
    if pos_label is None:
        probability, event = p.max(axis=1), z.argmax(axis=1) == y
    else:
        probability, event = p[:, pos_label], y == pos_label
    function = scoring.LogLoss() if score == "log_loss" else scoring.SquaredError()
    table = scoring.decompose(event * 1.0, probability, weight, scoring_function=function)
    expected = table.row(0, named=True)
    result = logitlab.score_decomposition(
        z, y, score=score, pos_label=pos_label, sample_weight=weight
    )
    for name in result._fields:
        assert getattr(result, name) == pytest.approx(expected[name], rel=1e-12)


def test_score_decomposition_of_two_classes():
    """The score is the log-loss, and half of the Brier score, of either class."""
    z, y = sampled(500, 2, 2)
    for pos_label in (None, 0, 1):
        log_loss = logitlab.score_decomposition(z, y, pos_label=pos_label)
        assert log_loss.score == pytest.approx(logitlab.cross_entropy(z, y), rel=1e-13)
        brier = logitlab.score_decomposition(z, y, score="brier_score", pos_label=pos_label)
        assert brier.score == pytest.approx(logitlab.brier_score(z, y) / 2, rel=1e-13)
        for result in (log_loss, brier):
            assert min(result) > 0
            total = result.miscalibration - result.discrimination + result.uncertainty
            assert result.score == pytest.approx(total, rel=1e-13)


def test_score_decomposition_by_hand():
    """Confidences 0.6, 0.8, 0.9: the events 1, 0, 1 are recalibrated to 1/2, 1/2, 1."""
    p = np.array([0.6, 0.8, 0.9])
    z, y = np.log(np.stack([p, 1 - p], axis=1)), [0, 1, 0]
    result = logitlab.score_decomposition(z, y, score="brier_score")
    value = (0.4**2 + 0.8**2 + 0.1**2) / 3
    assert result == pytest.approx((value, value - 1 / 6, 2 / 9 - 1 / 6, 2 / 9), rel=1e-13)
    result = logitlab.score_decomposition(z, y)
    value, recalibrated = -np.log([0.6, 0.2, 0.9]).mean(), np.log(2) * 2 / 3
    entropy = -(2 / 3 * np.log(2 / 3) + np.log(1 / 3) / 3)
    expected = (value, value - recalibrated, entropy - recalibrated, entropy)
    assert result == pytest.approx(expected, rel=1e-13)
    curve = logitlab.reliability_curve(z, y, strategy="isotonic")
    np.testing.assert_allclose(curve.edges, [0.6, 0.9, 0.9], rtol=1e-15)
    np.testing.assert_array_equal(curve.counts, [2, 1])
    np.testing.assert_allclose(curve.confidence, [0.7, 0.9], rtol=1e-15)
    np.testing.assert_array_equal(curve.accuracy, [0.5, 1])


def test_score_decomposition_of_extreme_rows():
    """The log-loss of saturated rows is finite; with a logit of -inf it is infinite."""
    z = np.array([[50.0, 0], [0, 800], [3, 0]])
    assert logitlab.score_decomposition(z, [1, 0, 0]).score == pytest.approx(
        (850 + np.log1p(np.exp(-3))) / 3, rel=1e-14
    )
    z[0, 1] = -np.inf
    result = logitlab.score_decomposition(z, [1, 0, 0])
    assert result[:2] == (np.inf, np.inf)
    assert np.isfinite(result[2:]).all()
    result = logitlab.score_decomposition(z, [1, 0, 0], score="brier_score")
    assert result.score == pytest.approx((2 + logitlab.softmax(z[2])[1] ** 2) / 3, rel=1e-14)
    for score in ("log_loss", "brier_score"):
        assert logitlab.score_decomposition([[1.0], [2.0]], [0, 0], score=score) == (0, 0, 0, 0)
        assert logitlab.score_decomposition(z, [1, 1, 1], score=score).uncertainty > 0
        assert logitlab.score_decomposition(z, [0, 1, 0], score=score)[2:] == (0, 0)
        infinite = logitlab.score_decomposition([[np.inf, 0], [np.inf, 0]], [0, 0], score=score)
        assert infinite == (0, 0, 0, 0)


def test_score_decomposition_options():
    z, y = np.zeros((2, 3)), [0, 1]
    with pytest.raises(
        ValueError, match=r"^score must be one of 'log_loss', 'brier_score', got 'accuracy'$"
    ):
        logitlab.score_decomposition(None, None, score="accuracy")
    for pos_label in (-1, 3):
        with pytest.raises(ValueError, match=rf"^pos_label must be from 0 to 2, got {pos_label}$"):
            logitlab.score_decomposition(z, y, pos_label=pos_label)
    with pytest.raises(TypeError, match=r"^pos_label must be an int, got 'a'$"):
        logitlab.score_decomposition(z, y, pos_label="a")


@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_curve_against_scikit_learn(weighted):
    """The accuracy of the bin of a row is the value of isotonic regression."""
    isotonic = pytest.importorskip("sklearn.isotonic")
    z, y = sampled(2000, 3, 1.5)
    weight = np.random.default_rng(0).random(2000) if weighted else None
    p = logitlab.softmax(z)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    curve = logitlab.reliability_curve(z, y, strategy="isotonic", sample_weight=weight)
    assert (np.diff(curve.accuracy) > 0).all()
    regression = isotonic.IsotonicRegression().fit(confidence, correct, weight)
    bins = np.searchsorted(curve.edges[1:-1], confidence, side="right")
    np.testing.assert_allclose(curve.accuracy[bins], regression.predict(confidence), rtol=1e-12)
    np.testing.assert_array_equal(curve.counts, np.bincount(bins))
    assert (curve.low <= curve.accuracy).all()
    assert (curve.accuracy <= curve.high).all()


def test_isotonic_bins_of_equal_probabilities():
    """Those that differ by rounding are in one bin."""
    z = np.array([[3.0, 0.1, 0.7, 1.3], [0.1, 3.0, 1.3, 0.7], [1.3, 0.7, 0.1, 3.0]])
    z = np.concatenate([z + shift for shift in np.linspace(-7, 7, 40)])
    y = np.arange(len(z)) % 3 // 2
    curve = logitlab.reliability_curve(z, y, strategy="isotonic")
    np.testing.assert_array_equal(curve.counts, [len(z)])


def test_curve_of_weighted_rows():
    """Equal weights are none; intervals are those of resampled rows; counts are those of rows."""
    z, y = sampled(3000, 3, 1.5)
    expected = logitlab.reliability_curve(z, y)
    equal = logitlab.reliability_curve(z, y, sample_weight=np.full(3000, 0.25))
    for name in ("edges", "counts", "confidence", "accuracy", "low", "high"):
        np.testing.assert_array_equal(getattr(equal, name), getattr(expected, name))
    rng = np.random.default_rng(0)
    weight = rng.exponential(size=3000) ** 2
    curve = logitlab.reliability_curve(z, y, sample_weight=weight, n_bins=4)
    assert curve.counts.dtype == np.int64
    np.testing.assert_array_equal(curve.counts, logitlab.reliability_curve(z, y, n_bins=4).counts)
    p = logitlab.softmax(z)
    correct, bins = p.argmax(axis=1) == y, (p.max(axis=1) * 4).astype(int)
    for b in (2, 3):
        w, c = weight[bins == b], correct[bins == b]
        counts = rng.multinomial(len(w), np.full(len(w), 1 / len(w)), size=2000)
        accuracy = (counts @ (w * c)) / (counts @ w)
        bounds = np.quantile(accuracy, [0.025, 0.975])
        width = np.ptp(bounds)
        np.testing.assert_allclose([curve.low[b], curve.high[b]], bounds, atol=0.12 * width)
        assert curve.accuracy[b] == pytest.approx((w @ c) / w.sum())


@pytest.mark.parametrize("options", [{}, {"classwise": True}, {"norm": 2, "strategy": "quantile"}])
def test_debiased_error_of_weighted_rows(options):
    """Equal weights are none; unequal ones count as fewer rows."""
    z, y = sampled(400, 3, 1)
    expected = logitlab.calibration_error(z, y, debiased=True, **options)
    equal = logitlab.calibration_error(
        z, y, debiased=True, sample_weight=np.full(400, 0.25), **options
    )
    assert equal == pytest.approx(expected, rel=1e-12)
    sums = np.array([[4.0, 0.1], [2.5, 0.07], [1.0, 0.1], [2.0, 0.01]])  # 8 rows, and 1
    variance = (8 * 0.25 * 0.75 / 7 / 8, 0.25)
    gaps = (1.5 / 4) ** 2 - variance[0], 0.3**2 - variance[1]
    expected = np.sqrt((4 * gaps[0] + 0.1 * gaps[1]) / 4.1)
    assert error_from_sums(sums, 2, debiased=True) == pytest.approx(expected, rel=1e-12)


def test_debiased_error_of_weighted_calibrated_rows():
    """It is smaller on average, by at least 40 %, as without weights."""
    errors = []
    for seed in range(60):
        weight = np.random.default_rng(seed).exponential(size=400)
        errors.append(
            [
                logitlab.calibration_error(
                    *calibrated(400, seed), norm=2, debiased=d, sample_weight=weight
                )
                for d in (False, True)
            ]
        )
    biased, debiased = np.mean(errors, axis=0)
    assert debiased < 0.6 * biased


def test_calibration_test_of_ignored_rows_and_class_axis():
    """Ignored rows are removed rows; the moved class axis is that of moveaxis."""
    z, y = sampled(600, 4, 1.2)
    y[::3] = 255
    expected = logitlab.calibration_test(z[y != 255], y[y != 255], n_resamples=50)
    z[::3] = np.nan
    z = np.moveaxis(z.reshape(6, 10, 10, 4), -1, 1)
    result = logitlab.calibration_test(
        z, y.reshape(6, 10, 10), axis=1, n_resamples=50, ignore_index=255
    )
    assert result == expected


def test_isotonic_intervals_of_weighted_rows():
    """Those of isotonic regression on rows resampled with replacement."""
    isotonic = pytest.importorskip("sklearn.isotonic")
    z, y = sampled(300, 3, 1.5)
    rng = np.random.default_rng(0)
    weight = rng.exponential(size=300) ** 2
    curve = logitlab.reliability_curve(z, y, strategy="isotonic", sample_weight=weight)
    p = logitlab.softmax(z)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    regression, accuracies = isotonic.IsotonicRegression(out_of_bounds="clip"), []
    for _ in range(500):
        rows = rng.integers(0, 300, 300)
        regression.fit(confidence[rows], correct[rows], weight[rows])
        accuracies.append(regression.predict(curve.confidence))
    bounds = np.quantile(accuracies, [0.025, 0.975], axis=0)
    assert np.mean(abs(np.stack([curve.low, curve.high]) - bounds)) < 0.03


@pytest.mark.parametrize("score", ["log_loss", "brier_score"])
def test_parts_of_the_score_of_calibrated_rows(score):
    """The miscalibration is 0, and not below by rounding; so is the discrimination."""
    for n in range(3, 60):
        for correct in range(n // 2 + 1, n):
            z = np.tile(np.log([correct, n - correct]), (n, 1))
            y = (np.arange(n) >= correct).astype(int)
            parts = logitlab.score_decomposition(z, y, score=score)
            assert 0 <= parts.miscalibration < 1e-15
            assert 0 <= parts.discrimination < 1e-15
