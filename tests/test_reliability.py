"""Reliability curve, calibration error and its test, against definitions and simulations."""

import numpy as np
import pytest

import logitlab


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
