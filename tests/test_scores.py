"""Scores, held to their definitions, to scikit-learn and to published figures."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import brier_score_loss

import arrays
import logitlab

inf, nan = np.inf, np.nan


@pytest.fixture
def labelled():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((500, 6)) * 2
    y = np.array([rng.choice(6, p=p) for p in logitlab.softmax(z * 0.6)])
    return z, y


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


def test_published_figures(predictions):
    """Accuracy, ECE and Brier score of two wide residual networks, from their probabilities."""
    path, p, y = predictions
    z = logitlab.logits(p)
    expected = {"10": (0.9109, 0.0537, 0.1439), "100": (None, 0.0581, None)}
    accuracy, ece, brier = expected[path.stem.rpartition("-")[2]]
    assert logitlab.calibration_error(z, y) == pytest.approx(ece, abs=5e-5)
    assert accuracy is None or logitlab.accuracy(z, y) == accuracy
    assert brier is None or logitlab.brier_score(z, y) == pytest.approx(brier, abs=5e-5)


def test_entropy():
    """SciPy's, and the limits."""
    z = arrays.normal((20, 7), np.float64)
    np.testing.assert_allclose(
        logitlab.entropy(z), scipy.stats.entropy(logitlab.softmax(z), axis=-1), rtol=1e-14
    )
    np.testing.assert_allclose(logitlab.entropy(z, temperature=inf), np.log(7), rtol=1e-15)
    np.testing.assert_array_equal(logitlab.entropy(z, temperature=0), 0)
    np.testing.assert_allclose(logitlab.entropy([0.0, 0.0, -inf]), np.log(2), rtol=1e-15)
    assert np.isnan(logitlab.entropy([nan, 1.0]))
    # The entropy of a nearly certain row is not lost: -q log q + q of a tiny q.
    q = np.exp(-40.0)
    assert logitlab.entropy([40.0, 0.0]) == pytest.approx(q * 40 + q, rel=1e-12)
    half = logitlab.entropy(np.zeros((2, 1000), np.float16))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, np.float16(np.log(1000)))
    tensor = logitlab.entropy(torch.from_numpy(z))
    np.testing.assert_allclose(tensor, logitlab.entropy(z), rtol=1e-14)


def test_accuracy_ties():
    """Of equal largest logits the first is the prediction."""
    assert logitlab.accuracy([[1.0, 1.0], [1.0, 1.0]], [0, 1]) == 0.5


def test_brier_is_scikit_learns(labelled):
    """The sum over classes, the mean over rows."""
    z, y = labelled
    theirs = brier_score_loss(y, logitlab.softmax(z), labels=range(6), scale_by_half=False)
    assert logitlab.brier_score(z, y) == pytest.approx(theirs, rel=1e-13)


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


def test_confidence_of_one_is_in_the_last_bin():
    """No bin beside the others."""
    curve = logitlab.reliability_curve([[1000.0, 0.0], [0.0, 0.0]], [1, 0])
    assert len(curve.counts) == 15
    assert curve.counts[-1] == 1
    assert curve.accuracy[-1] == 0


def test_equal_mass_bins(labelled):
    """The same number of rows in each; equal confidences stay together."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y, n_bins=10, binning="mass")
    np.testing.assert_array_equal(curve.counts, 50)
    same = logitlab.reliability_curve(np.zeros((9, 2)), [0] * 9, binning="mass")
    np.testing.assert_array_equal(same.counts, [9])


def test_band_covers(labelled):
    """The accuracy lies within its own bootstrap band, which a fixed seed repeats."""
    z, y = labelled
    curve = logitlab.reliability_curve(z, y)
    some = curve.counts > 0
    assert (curve.low <= curve.accuracy)[some].all()
    assert (curve.accuracy <= curve.high)[some].all()
    np.testing.assert_array_equal(curve.low, logitlab.reliability_curve(z, y).low)


def test_tensors(labelled):
    """Tensors of any type, as NumPy arrays."""
    z, y = labelled
    for dtype in (torch.float64, torch.bfloat16):
        tensor = torch.from_numpy(z).to(dtype)
        ours = logitlab.brier_score(tensor, torch.from_numpy(y))
        assert ours == pytest.approx(logitlab.brier_score(tensor.double().numpy(), y), rel=1e-12)


def test_bad_labels():
    """The first bad row is named."""
    z = np.zeros((4, 3))
    with pytest.raises(ValueError, match="y is 3 in row 2; accepted: 0 to 2"):
        logitlab.accuracy(z, [0, 1, 3, -1])
    with pytest.raises(TypeError, match="y has type float64"):
        logitlab.accuracy(z, [0.0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
        logitlab.accuracy(z, [0, 1, 2])
    with pytest.raises(ValueError, match="row 1 of z has no distribution"):
        logitlab.accuracy([[0.0, 1.0], [nan, 1.0]], [0, 0])
    with pytest.raises(ValueError, match="at least one row"):
        logitlab.accuracy(np.empty((0, 3)), np.empty(0, int))


def test_bad_options():
    """One line each."""
    z, y = np.zeros((4, 3)), [0, 1, 2, 0]
    with pytest.raises(ValueError, match="n_bins is 0"):
        logitlab.calibration_error(z, y, n_bins=0)
    with pytest.raises(ValueError, match="norm is 3"):
        logitlab.calibration_error(z, y, norm=3)
    with pytest.raises(ValueError, match="binning is 'other'"):
        logitlab.calibration_error(z, y, binning="other")
