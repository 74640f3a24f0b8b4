"""Calibration error and its test, held to their definitions and to simulations."""

import numpy as np
import pytest

import logitlab


def plain_error(confidence, right, n_bins, norm=1):
    """The definition, bin by bin; a confidence of exactly 1 is in the last bin."""
    gaps, weights = [], []
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = (confidence >= low) & (
            (confidence < high) | ((b == n_bins - 1) & (confidence == 1))
        )
        if inside.any():
            gaps.append(abs(confidence[inside].mean() - right[inside].mean()))
            weights.append(inside.mean())
    gaps, weights = np.array(gaps), np.array(weights)
    return gaps.max() if norm == "max" else (weights @ gaps**norm) ** (1 / norm)


@pytest.mark.parametrize("norm", [1, 2, "max"])
@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_calibration_error_by_definition(labelled, norm, n_bins):
    """Top label and class by class."""
    z, y = labelled
    p = logitlab.softmax(z)
    expected = plain_error(p.max(-1), p.argmax(-1) == y, n_bins, norm)
    assert logitlab.calibration_error(z, y, n_bins=n_bins, norm=norm) == pytest.approx(expected)
    classes = [plain_error(p[:, k], y == k, n_bins, norm) for k in range(6)]
    assert logitlab.calibration_error(
        z, y, n_bins=n_bins, norm=norm, classwise=True
    ) == pytest.approx(np.mean(classes))


@pytest.mark.parametrize(("norm", "theirs"), [(1, "l1"), (2, "l2"), ("max", "max")])
def test_torchmetrics_agrees(labelled, norm, theirs):
    """In float64, with every norm."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    z, y = labelled
    found = metrics.multiclass_calibration_error(
        torch.from_numpy(logitlab.softmax(z)), torch.from_numpy(y), 6, n_bins=15, norm=theirs
    )
    assert logitlab.calibration_error(z, y, norm=norm) == pytest.approx(float(found), rel=1e-6)


def test_netcal_agrees(labelled):
    """Where it is installed: it brings many other libraries."""
    metrics = pytest.importorskip("netcal.metrics")
    z, y = labelled
    found = metrics.ECE(bins=15).measure(logitlab.softmax(z), y)
    assert logitlab.calibration_error(z, y) == pytest.approx(float(found), rel=1e-6)


def test_confidence_of_one_is_in_the_last_bin():
    """No bin beside the others."""
    curve = logitlab.reliability_curve([[1000.0, 0.0], [0.0, 0.0]], [1, 0])
    assert len(curve.counts) == 15
    assert curve.counts[-1] == 1
    assert curve.accuracy[-1] == 0


def test_equal_mass_bins(labelled):
    """The same number of rows in each; equal confidences stay together."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y, n_bins=10, strategy="quantile")
    np.testing.assert_array_equal(curve.counts, 50)
    same = logitlab.reliability_curve(np.zeros((9, 2)), [0] * 9, strategy="quantile")
    np.testing.assert_array_equal(same.counts, [9])


def test_band_covers(labelled):
    """The accuracy lies within its own bootstrap band, which a fixed seed repeats."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y)
    some = curve.counts > 0
    assert (curve.low <= curve.accuracy)[some].all()
    assert (curve.accuracy <= curve.high)[some].all()
    np.testing.assert_array_equal(curve.low, logitlab.reliability_curve(z, y).low)


def calibrated(n, seed, k=4):
    """Logits whose labels are drawn from the very probabilities that they state."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 1.5
    return z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def test_debiased_by_definition(labelled):
    """Norm 2: Kumar, Liang and Ma's estimator, bin by bin."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y, n_bins=5, strategy="quantile")
    variance = curve.accuracy * (1 - curve.accuracy) / (curve.counts - 1)
    gaps = (curve.accuracy - curve.confidence) ** 2 - variance
    expected = np.sqrt(np.sum(curve.counts * gaps) / 500)
    found = logitlab.calibration_error(z, y, n_bins=5, strategy="quantile", norm=2, debiased=True)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("options", [{}, {"strategy": "quantile"}, {"classwise": True}])
def test_debiased_is_nearer_to_nothing(norm, options):
    """Of honest rows the plain error is far from 0 and the debiased one is not."""
    plain, debiased = np.mean(
        [
            [
                logitlab.calibration_error(*calibrated(400, s), norm=norm, debiased=d, **options)
                for d in (False, True)
            ]
            for s in range(40)
        ],
        axis=0,
    )
    assert debiased < 0.6 * plain


def test_debiased_agrees_where_there_is_no_chance():
    """With many rows the two estimators meet."""
    z, y = calibrated(100_000, 0)
    z *= 2  # over-confident
    plain = logitlab.calibration_error(z, y)
    assert logitlab.calibration_error(z, y, debiased=True) == pytest.approx(plain, rel=2e-3)
    with pytest.raises(ValueError, match="norm is 'max' with debiased"):
        logitlab.calibration_error(z, y, norm="max", debiased=True)


def test_classwise_mass(labelled):
    """Class by class, in bins of the class's own probabilities."""
    z, y = labelled
    p = logitlab.softmax(z)
    each = []
    for k in range(6):
        edges = np.quantile(p[:, k], np.linspace(0, 1, 6))
        bins = np.clip(np.searchsorted(edges, p[:, k], side="right") - 1, 0, 4)
        gaps = [abs(p[bins == b, k].sum() - (y[bins == b] == k).sum()) for b in range(5)]
        each.append(sum(gaps) / 500)
    found = logitlab.calibration_error(z, y, n_bins=5, strategy="quantile", classwise=True)
    assert found == pytest.approx(np.mean(each), rel=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_consistency_of_honest_rows(strategy):
    """The p-value is uniform: at 5 % one of twenty is refused."""
    p = [
        logitlab.calibration_test(
            *calibrated(300, s), n_resamples=199, strategy=strategy, rng=s
        ).p_value
        for s in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_consistency_finds_dishonest_rows():
    """Over-confident logits are refused; the error expected by chance is far below theirs."""
    z, y = calibrated(2000, 1)
    found = logitlab.calibration_test(2 * z, y)
    assert found.p_value == 1 / 1001
    assert found.expected < found.error / 2
    assert found.error == logitlab.calibration_error(2 * z, y)
    assert found == logitlab.calibration_test(2 * z, y)
    with pytest.raises(ValueError, match="n_resamples must be >= 1, got 0"):
        logitlab.calibration_test(z, y, n_resamples=0)


def test_certain_rows_are_consistent_with_themselves():
    """Confidence 1 and always right: nothing to refuse."""
    found = logitlab.calibration_test([[9000.0, 0.0]] * 5, [0] * 5)
    assert found == (0, 0, 1)
