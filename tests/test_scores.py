"""Scores, held to their definitions, to scikit-learn and to published figures."""

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import brier_score_loss

import arrays
import exact
import logitlab

inf, nan = np.inf, np.nan


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
    with pytest.raises(ValueError, match=r"y must be from 0 to 2, .* got 3 in row 2"):
        logitlab.accuracy(z, [0, 1, 3, -1])
    with pytest.raises(TypeError, match="y must be integer labels, got float64"):
        logitlab.accuracy(z, [0.0, 1, 2, 0])
    with pytest.raises(TypeError, match="y must be integer labels, got str"):
        logitlab.accuracy(z, ["a", "b", "c", "d"])
    with pytest.raises(TypeError, match=r"z must be a real array .* got bytes"):
        logitlab.accuracy(b"abc", 0)
    with pytest.raises(ValueError, match=r"y must be labels of shape \(4,\), got shape \(3,\)"):
        logitlab.accuracy(z, [0, 1, 2])
    with pytest.raises(ValueError, match="row 1 of z has no distribution"):
        logitlab.accuracy([[0.0, 1.0], [nan, 1.0]], [0, 0])
    with pytest.raises(ValueError, match="at least one row"):
        logitlab.accuracy(np.empty((0, 3)), np.empty(0, int))


def test_bad_options():
    """One line each."""
    z, y = np.zeros((4, 3)), [0, 1, 2, 0]
    with pytest.raises(ValueError, match="n_bins must be >= 1, got 0"):
        logitlab.calibration_error(z, y, n_bins=0)
    with pytest.raises(ValueError, match="norm is 3"):
        logitlab.calibration_error(z, y, norm=3)
    with pytest.raises(ValueError, match="strategy is 'other'"):
        logitlab.calibration_error(z, y, strategy="other")


def exact_kl(z, other):
    """In 60 digits."""
    with mpmath.workdps(60):
        a, b = [mpmath.mpf(float(x)) for x in z], [mpmath.mpf(float(x)) for x in other]
        log_a, log_b = (mpmath.log(sum(map(mpmath.exp, row))) for row in (a, b))
        return float(
            sum(mpmath.exp(x - log_a) * (x - log_a - y + log_b) for x, y in zip(a, b, strict=True))
        )


@pytest.mark.parametrize("distance", [10, 1, 0.1, 1e-3, 1e-6])
def test_kl_divergence(distance):
    """Exact arithmetic, down to distributions that nearly agree."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((20, 7)) * 3
    other = z + distance * rng.standard_normal(z.shape)
    expected = [exact_kl(*rows) for rows in zip(z, other, strict=True)]
    found = logitlab.kl_divergence(z, other)
    np.testing.assert_allclose(found, expected, rtol=1e-14 + 1e-14 / distance)
    np.testing.assert_allclose(logitlab.kl_divergence(z.T, other.T, axis=0), found, rtol=1e-12)
    tensor = logitlab.kl_divergence(torch.from_numpy(z), torch.from_numpy(other))
    np.testing.assert_allclose(tensor, found, rtol=1e-12)
    warm = logitlab.kl_divergence(z, other, temperature=2.0)
    np.testing.assert_allclose(warm, logitlab.kl_divergence(z / 2, other / 2), rtol=1e-9)


def test_kl_divergence_limits():
    """0 of itself; infinite where q excludes what p does not; masks; types."""
    assert logitlab.kl_divergence([1e300, 0.0, -inf], [1e300, 0.0, -inf]) == 0
    assert logitlab.kl_divergence([0.0, 0.0], [0.0, -inf]) == inf
    assert logitlab.kl_divergence([0.0, -inf], [0.0, 0.0]) == pytest.approx(np.log(2))
    assert np.isnan(logitlab.kl_divergence([nan, 0.0], [0.0, 0.0]))
    masked = logitlab.kl_divergence([0.0, 1.0, 9.0], [0.0, 1.0, 5.0], where=[True, True, False])
    assert masked == 0
    assert logitlab.kl_divergence(np.ones(3, np.float16), np.ones(3)).dtype == np.float16
    with pytest.raises(ValueError, match=r"other has shape \(3,\); accepted: z's \(2,\)"):
        logitlab.kl_divergence([0.0, 1.0], [0.0, 1.0, 2.0])
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.kl_divergence([0.0, 1.0], [0.0, 1.0], axis=None)


@pytest.mark.parametrize("ignore_index", ["a", 1.7, True])
def test_the_label_of_ignored_rows_is_an_int(ignore_index):
    with pytest.raises(TypeError, match="ignore_index must be an int"):
        logitlab.cross_entropy([[0.0, 1.0]], [1], ignore_index=ignore_index)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("apart", [0, 1e-12, 1e-6, 1e-3, 0.2, 3, 40, 95, 700])
def test_divergence_in_exact_arithmetic(dtype, apart):
    """From logits that are all but equal to ones that are worlds apart."""
    rng = np.random.default_rng(0)
    for k, t in ((2, 1.0), (7, 0.5), (50, 3.0)):
        z = rng.standard_normal(k).astype(dtype)
        other = (z + apart * rng.standard_normal(k)).astype(dtype)
        scaled = [[exact.mp.mpf(float(v)) / t for v in row] for row in (z, other)]
        log_p, log_q = (exact.log_softmax(row) for row in scaled)
        with mpmath.workdps(50):
            true = sum(mpmath.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
        found = logitlab.kl_divergence(z, other, temperature=t)
        assert found == pytest.approx(float(true), rel=60 * float(np.finfo(dtype).eps), abs=1e-36)
