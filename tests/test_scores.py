"""Scores against their definitions, SciPy, scikit-learn and published values."""

import re
import tracemalloc

import array_api_strict
import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import brier_score_loss, top_k_accuracy_score

import arrays
import exact
import logitlab
from logitlab import scores
from logitlab._rows import row_max

inf, nan = np.inf, np.nan


def test_published_scores(predictions):
    """Accuracy, ECE and Brier score of the probabilities of two wide residual networks."""
    path, p, y = predictions
    z = logitlab.logits(p)
    expected = {"10": (0.9109, 0.0537, 0.1439), "100": (None, 0.0581, None)}
    accuracy, ece, brier = expected[path.stem.rpartition("-")[2]]
    assert logitlab.calibration_error(z, y) == pytest.approx(ece, abs=5e-5)
    assert accuracy is None or logitlab.accuracy(z, y) == accuracy
    assert brier is None or logitlab.brier_score(z, y) == pytest.approx(brier, abs=5e-5)


def test_entropy():
    """Against SciPy; limits of T; half types; nearly certain rows; tensors."""
    z = arrays.normal((20, 7), np.float64)
    np.testing.assert_allclose(
        logitlab.entropy(z), scipy.stats.entropy(logitlab.softmax(z), axis=-1), rtol=1e-14
    )
    np.testing.assert_allclose(logitlab.entropy(z, temperature=inf), np.log(7), rtol=1e-15)
    np.testing.assert_array_equal(logitlab.entropy(z, temperature=0), 0)
    np.testing.assert_allclose(logitlab.entropy([0.0, 0.0, -inf]), np.log(2), rtol=1e-15)
    assert np.isnan(logitlab.entropy([nan, 1.0]))
    # A nearly certain row, whose other class has the probability q: -q log q + q to first order.
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


def test_brier_score_against_scikit_learn(labelled):
    """The sum over classes, the mean over rows."""
    z, y = labelled
    expected = brier_score_loss(y, logitlab.softmax(z), labels=range(6), scale_by_half=False)
    assert logitlab.brier_score(z, y) == pytest.approx(expected, rel=1e-13)


def weighted_problem(seed=0, n=400, k=5):
    """Logits, labels and whole numbers as weights, some of them 0."""
    rng = np.random.default_rng(seed)
    z = 3 * rng.standard_normal((n, k))
    z[::7] = np.round(z[::7])  # equal confidences
    y = (z + rng.gumbel(0, 1.5, z.shape)).argmax(axis=1)
    return z, y, rng.integers(0, 4, n)


SCORES = {
    "accuracy": logitlab.accuracy,
    "top_k_accuracy": lambda z, y, **kw: logitlab.top_k_accuracy(z, y, 2, **kw),
    "brier_score": logitlab.brier_score,
    "calibration_error": logitlab.calibration_error,
    "quantile": lambda z, y, **kw: logitlab.calibration_error(z, y, strategy="quantile", **kw),
    "maximum": lambda z, y, **kw: logitlab.calibration_error(z, y, norm="max", **kw),
    "classwise": lambda z, y, **kw: logitlab.calibration_error(z, y, classwise=True, **kw),
    "classwise quantile": lambda z, y, **kw: logitlab.calibration_error(
        z, y, classwise=True, strategy="quantile", norm=2, **kw
    ),
    "smooth_calibration_error": logitlab.smooth_calibration_error,
    "log-loss parts": lambda z, y, **kw: logitlab.score_decomposition(z, y, **kw)[1:],
    "Brier score parts": lambda z, y, **kw: logitlab.score_decomposition(
        z, y, score="brier_score", pos_label=1, **kw
    )[1:],
    "curve": lambda z, y, **kw: np.nan_to_num(logitlab.reliability_curve(z, y, **kw).accuracy),
    "isotonic curve": lambda z, y, **kw: (
        logitlab.reliability_curve(z, y, strategy="isotonic", **kw).accuracy
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_weights_are_repetitions(name):
    """A row of weight w counts as w equal rows, at any common factor; rows of weight 0 do not.

    The factors are powers of two: others round, and the edge of a bin may be in the middle between
    two confidences.
    """
    score = SCORES[name]
    z, y, weight = weighted_problem()
    expected = score(np.repeat(z, weight, axis=0), np.repeat(y, weight))
    z[weight == 0] = nan
    for factor in (1, 0.25, 2.0**1000, 2.0**-1000):
        result = score(z, y, sample_weight=weight * factor)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)
    equal = score(z[weight > 0], y[weight > 0], sample_weight=np.full((weight > 0).sum(), 0.7))
    np.testing.assert_allclose(equal, score(z[weight > 0], y[weight > 0]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_ignored_rows_are_removed_rows(name):
    """One label or several, inside or outside of the range of labels; their logits may be NaN."""
    score = SCORES[name]
    z, y, weight = weighted_problem()
    for ignored, given in ((-100, -100), (3, 3), ((-1, 77), 77), (np.int64(4), 4)):
        labels = np.where(np.arange(len(y)) % 5 == 0, given, y)
        keep = labels != given
        logits = np.where(keep[:, None], z, nan)
        expected = score(z[keep], labels[keep])
        result = score(logits, labels, ignore_index=ignored)
        np.testing.assert_array_equal(result, expected)
        expected = score(z[keep], labels[keep], sample_weight=weight[keep])
        result = score(logits, labels, ignore_index=ignored, sample_weight=weight)
        np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_class_axis(name, convert):
    """The logits of a segmentation, (N, K, H, W), have the scores of those with K as last axis."""
    score = SCORES[name]
    z, y, weight = weighted_problem()
    z, y, weight = z.reshape(4, 10, 10, 5), y.reshape(4, 10, 10), weight.reshape(4, 10, 10)
    y[0, :3] = 255
    options = {"ignore_index": 255, "sample_weight": convert(weight)}
    expected = score(convert(z), convert(y), **options)
    for axis in (0, 1, 2, -2):
        moved = convert(np.moveaxis(z, -1, axis).copy())
        np.testing.assert_array_equal(score(moved, convert(y), axis=axis, **options), expected)


@pytest.mark.parametrize("name", SCORES)
def test_errors_of_weights_and_ignored_rows(name):
    """They name the argument; rows have the numbers that they have in y."""
    score = SCORES[name]
    z, y = np.zeros((4, 3)), np.array([0, 1, 2, 0])
    for weight, message in (
        ([1, 1, 1], r"^sample_weight must have shape \(4,\), one weight for each row, got \(3,\)$"),
        ([1, 1, -1, 1], r"^sample_weight must be finite and >= 0, got -1.0 at index \(2,\)$"),
        ([1, 1, inf, 1], r"^sample_weight must be finite and >= 0, got inf at index \(2,\)$"),
        ([0] * 4, r"^sample_weight must be finite and >= 0, and not zero in every row$"),
    ):
        with pytest.raises(ValueError, match=message):
            score(z, y, sample_weight=weight)
    message = "^y must have a row that is not ignored and has a weight > 0, got none$"
    with pytest.raises(ValueError, match=message):
        score(z, y, ignore_index=range(3))
    with pytest.raises(ValueError, match=message):
        score(z, y, ignore_index=0, sample_weight=[1, 0, 0, 1])
    with pytest.raises(ValueError, match=r"^y must be from 0 to 2, .* got -100 in row 1$"):
        score(z, [0, -100, 2, 0])
    with pytest.raises(TypeError, match=r"^ignore_index must be an int, got 1\.5$"):
        score(z, y, ignore_index=1.5)
    with pytest.raises(TypeError, match=r"^axis must be an int, got None$"):
        score(z, y, axis=None)
    with pytest.raises(ValueError, match=r"^axis "):
        score(z, y, axis=2)
    z[2] = nan
    with pytest.raises(ValueError, match=r"^row 2 of z has no distribution"):
        score(z, y, ignore_index=1)
    with pytest.raises(ValueError, match=r"^row 2 of z has no distribution"):
        score(z, y, sample_weight=[0, 1, 1, 1])


def test_top_k_accuracy_against_scikit_learn():
    """Without ties, for every k, with weights, in blocks."""
    rng = np.random.default_rng(1)
    for n, k in ((300, 5), (4000, 100)):
        z, y = rng.standard_normal((n, k)), rng.integers(0, k, n)
        z[np.arange(n), y] += 1
        weight = rng.random(n)
        for top in range(1, k, max(1, k // 4)):
            for sample_weight in (None, weight):
                expected = top_k_accuracy_score(
                    y, z, k=top, labels=range(k), sample_weight=sample_weight
                )
                result = logitlab.top_k_accuracy(z, y, top, sample_weight=sample_weight)
                assert result == pytest.approx(expected, rel=1e-12)
        assert logitlab.top_k_accuracy(z, y, k) == 1
        assert logitlab.top_k_accuracy(z, y, 1) == logitlab.accuracy(z, y)


def test_top_k_accuracy_of_ties():
    """The smaller of two classes comes first: of one row, exactly k labels are among the k."""
    z = np.array([2.0, 5, 2, 5, 2, inf, -inf])
    order = [5, 1, 3, 0, 2, 4, 6]
    for k in range(1, 8):
        among = [logitlab.top_k_accuracy(z[None], [y], k) for y in range(7)]
        assert set(np.flatnonzero(among)) == set(order[:k])
    z = np.round(np.random.default_rng(0).standard_normal((300, 4)))
    y = np.arange(300) % 4
    assert logitlab.top_k_accuracy(z, y, 1) == logitlab.accuracy(z, y)
    for k, message in ((0, "got 0"), (8, "got 8")):
        with pytest.raises(ValueError, match=f"^k must be from 1 to 4, the number of .* {message}"):
            logitlab.top_k_accuracy(z, y, k)
    with pytest.raises(TypeError, match=r"^k must be an int, got 2\.0$"):
        logitlab.top_k_accuracy(z, y, 2.0)
    with pytest.raises(ValueError, match=r"^row 1 of z has no distribution"):
        logitlab.top_k_accuracy([[0.0, 1], [-inf, -inf]], [0, 1], 1)


def test_tensors(labelled):
    """A tensor has the score of the NumPy array of its values."""
    z, y = labelled
    for dtype in (torch.float64, torch.bfloat16):
        tensor = torch.from_numpy(z).to(dtype)
        score = logitlab.brier_score(tensor, torch.from_numpy(y))
        assert score == pytest.approx(logitlab.brier_score(tensor.double().numpy(), y), rel=1e-12)


def test_bad_logits_and_labels():
    """The error names the first bad row."""
    z = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"^y .*\b3\b.* row 2"):
        logitlab.accuracy(z, [0, 1, 3, -1])
    with pytest.raises(TypeError, match=r"^y .*float64"):
        logitlab.accuracy(z, [0.0, 1, 2, 0])
    with pytest.raises(TypeError, match=r"^y .*\bstr\b"):
        logitlab.accuracy(z, ["a", "b", "c", "d"])
    with pytest.raises(TypeError, match=r"^z .*\bbytes\b"):
        logitlab.accuracy(b"abc", 0)
    with pytest.raises(ValueError, match=r"^y .*shape \(3,\)"):
        logitlab.accuracy(z, [0, 1, 2])
    with pytest.raises(ValueError, match="row 1 of z has no distribution"):
        logitlab.accuracy([[0.0, 1.0], [nan, 1.0]], [0, 0])
    with pytest.raises(
        ValueError, match=r"z must hold at least one row of one class, got shape \(0, 3\)"
    ):
        logitlab.accuracy(np.empty((0, 3)), np.empty(0, int))


def test_bad_options():
    """Each message has the argument, the rule and the value."""
    z, y = np.zeros((4, 3)), [0, 1, 2, 0]
    with pytest.raises(ValueError, match="n_bins must be >= 1, got 0"):
        logitlab.calibration_error(z, y, n_bins=0)
    for n_bins in (True, [5], 2.0):
        with pytest.raises(TypeError, match=re.escape(f"n_bins must be an int, got {n_bins!r}")):
            logitlab.calibration_error(z, y, n_bins=n_bins)
    for norm in (3, True):
        with pytest.raises(ValueError, match=f"norm must be one of 1, 2, 'max', got {norm}"):
            logitlab.calibration_error(z, y, norm=norm)
    with pytest.raises(
        ValueError, match="strategy must be one of 'uniform', 'quantile', got 'other'"
    ):
        logitlab.calibration_error(z, y, strategy="other")
    for name in ("classwise", "debiased"):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 'yes'"):
            logitlab.calibration_error(z, y, **{name: "yes"})


def exact_kl(z, other):
    """KL(p || q) with 60 digits."""
    with mpmath.workdps(60):
        a, b = [mpmath.mpf(float(x)) for x in z], [mpmath.mpf(float(x)) for x in other]
        log_a, log_b = (mpmath.log(sum(map(mpmath.exp, row))) for row in (a, b))
        return float(
            sum(mpmath.exp(x - log_a) * (x - log_a - y + log_b) for x, y in zip(a, b, strict=True))
        )


@pytest.mark.parametrize("distance", [10, 1, 0.1, 1e-3, 1e-6])
def test_kl_divergence(distance):
    """Against exact arithmetic, down to nearly equal distributions; other axes and tensors."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((20, 7)) * 3
    other = z + distance * rng.standard_normal(z.shape)
    expected = [exact_kl(*rows) for rows in zip(z, other, strict=True)]
    result = logitlab.kl_divergence(z, other)
    np.testing.assert_allclose(result, expected, rtol=1e-14 + 1e-14 / distance)
    np.testing.assert_allclose(logitlab.kl_divergence(z.T, other.T, axis=0), result, rtol=1e-12)
    tensor = logitlab.kl_divergence(torch.from_numpy(z), torch.from_numpy(other))
    np.testing.assert_allclose(tensor, result, rtol=1e-12)
    warm = logitlab.kl_divergence(z, other, temperature=2.0)
    np.testing.assert_allclose(warm, logitlab.kl_divergence(z / 2, other / 2), rtol=1e-9)


def test_kl_divergence_limits():
    """0 for equal rows; infinite if q is 0 where p is not; masks; dtypes; errors."""
    assert logitlab.kl_divergence([1e300, 0.0, -inf], [1e300, 0.0, -inf]) == 0
    assert logitlab.kl_divergence([0.0, 0.0], [0.0, -inf]) == inf
    assert logitlab.kl_divergence([0.0, -inf], [0.0, 0.0]) == pytest.approx(np.log(2))
    assert np.isnan(logitlab.kl_divergence([nan, 0.0], [0.0, 0.0]))
    masked = logitlab.kl_divergence([0.0, 1.0, 9.0], [0.0, 1.0, 5.0], where=[True, True, False])
    assert masked == 0
    assert logitlab.kl_divergence(np.ones(3, np.float16), np.ones(3)).dtype == np.float16
    with pytest.raises(
        ValueError, match=r"other must have the shape \(2,\) of z, got shape \(3,\)"
    ):
        logitlab.kl_divergence([0.0, 1.0], [0.0, 1.0, 2.0])
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.kl_divergence([0.0, 1.0], [0.0, 1.0], axis=None)


@pytest.mark.parametrize("ignore_index", ["a", 1.7, True])
def test_ignore_index_must_be_an_int(ignore_index):
    with pytest.raises(TypeError, match="ignore_index must be an int"):
        logitlab.cross_entropy([[0.0, 1.0]], [1], ignore_index=ignore_index)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distance", [0, 1e-12, 1e-6, 1e-3, 0.2, 3, 40, 95, 700])
def test_kl_divergence_relative_error(dtype, distance):
    """Small at any temperature, from nearly equal logits to very different ones."""
    rng = np.random.default_rng(0)
    for k, t in ((2, 1.0), (7, 0.5), (50, 3.0)):
        z = rng.standard_normal(k).astype(dtype)
        other = (z + distance * rng.standard_normal(k)).astype(dtype)
        scaled = [[exact.mp.mpf(float(v)) / t for v in row] for row in (z, other)]
        log_p, log_q = (exact.log_softmax(row) for row in scaled)
        with mpmath.workdps(50):
            expected = sum(mpmath.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
        result = logitlab.kl_divergence(z, other, temperature=t)
        assert result == pytest.approx(
            float(expected), rel=60 * float(np.finfo(dtype).eps), abs=1e-36
        )


@pytest.mark.parametrize(
    "gap", [0.003, 0.02, 0.06, 0.11, 0.124, 0.126, 0.2, 0.4, 0.9, 1.5, 6, 15.9, 16.1]
)
@pytest.mark.parametrize("shift", [0, 300.0])
def test_kl_divergence_at_any_distance(gap, shift):
    """Near every change of the formula: log(q/p) of all classes is within or beyond `gap`."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((20, 6)) + shift
    other = z + gap * rng.choice([1, -1, 0.5, 0.999], z.shape)
    result = logitlab.kl_divergence(z, other)
    # A difference of logits that is not small is rounded.
    rtol = 5e-15 if gap < 0.125 else 4e-14
    with mpmath.workdps(50):
        for row, q, got in zip(z.tolist(), other.tolist(), result.tolist(), strict=True):
            log_p, log_q = exact.log_softmax(row), exact.log_softmax(q)
            right = sum(mpmath.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
            assert abs(got - right) <= rtol * right


def test_errors_name_the_row_of_the_whole_array():
    """In a later block of rows as well, and by the flat index of a batch of more dimensions."""
    z = np.zeros((700, 1000))  # three blocks
    y = np.zeros(700, int)
    for row in (0, 261, 262, 600, 699):
        for value in (nan, -inf):
            bad = z.copy()
            bad[row] = value
            with pytest.raises(ValueError, match=rf"^row {row} of z has no distribution"):
                logitlab.brier_score(bad, y)
            with pytest.raises(ValueError, match=rf"^row {row} has no distribution"):
                logitlab.sample(bad)
        wrong = y.copy()
        wrong[row] = 1000
        with pytest.raises(ValueError, match=rf"got 1000 in row {row}$"):
            logitlab.accuracy(z, wrong)
        with pytest.raises(ValueError, match=rf"got 1000 in row {row}$"):
            logitlab.cross_entropy(z.reshape(7, 100, 1000), wrong.reshape(7, 100))
    z[412, 5] = nan
    with pytest.raises(ValueError, match=r"^row \(4, 12\) has no distribution"):
        logitlab.sample(z.reshape(7, 100, 1000))


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((700, 400), -1), ((2, 200, 700), 2), ((30, 5, 8), 1), ((6, 9), 0), ((9,), 0)],
)
def test_entropy_and_divergence_of_many_rows(shape, axis, dtype):
    """Those of each row alone: over blocks of rows, with a temperature for each row and a mask."""
    rng = np.random.default_rng(len(shape))
    z, other = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    rows = tuple(np.delete(shape, axis))
    t = rng.uniform(0.5, 2, rows)
    where = rng.random(shape) < 0.8
    options = {"temperature": t, "where": where}
    results = (
        logitlab.entropy(z, axis, **options),
        logitlab.kl_divergence(z, other, axis, **options),
    )
    last = [np.moveaxis(a, axis, -1) for a in (z, other, where)]
    for row in list(np.ndindex(rows))[:: max(1, t.size // 50)]:
        a, b, mask = (x[row] for x in last)
        one = {"temperature": float(t[row]), "where": mask}
        expected = logitlab.entropy(a, **one), logitlab.kl_divergence(a, b, **one)
        for result, right in zip(results, expected, strict=True):
            assert result.shape == rows
            assert result.dtype == dtype
            np.testing.assert_allclose(
                float(result[row]), float(right), rtol=4 * float(arrays.finfo(dtype).eps)
            )


def test_entropy_and_divergence_with_a_mask():
    """Those of the classes that are left, whatever the logits of the others are."""
    z, other = np.array([[0.0, 1, 2, 900]]), np.array([[2.0, 0, 1, -900]])
    where = np.array([True, True, True, False])
    p, q = logitlab.softmax(z[:, :3]), logitlab.softmax(other[:, :3])
    np.testing.assert_allclose(logitlab.entropy(z, where=where), scipy.stats.entropy(p[0]))
    np.testing.assert_allclose(
        logitlab.kl_divergence(z, other, where=where), scipy.stats.entropy(p[0], q[0])
    )
    # A class of probability 0 in z alone, and classes of other rows, have no effect.
    z, other = np.array([[0.0, -inf], [0.0, 5.0]]), np.array([[0.0, 0.0], [0.0, -5.0]])
    result = logitlab.kl_divergence(z, other)
    np.testing.assert_allclose(result[0], np.log(2), rtol=1e-15)
    np.testing.assert_allclose(result[1], logitlab.kl_divergence(z[1], other[1]), rtol=1e-14)


def test_accuracy_and_brier_score_of_many_rows():
    """The means over all blocks of rows."""
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(9000, 50)), rng.integers(0, 50, 9000)
    y[::3] = z[::3].argmax(axis=1)
    assert logitlab.accuracy(z, y) == np.mean(z.argmax(axis=1) == y)
    assert logitlab.accuracy([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [1, 1, 0]) == 2 / 3
    p = logitlab.softmax(z)
    expected = np.mean(((p - np.eye(50)[y]) ** 2).sum(axis=1))
    assert logitlab.brier_score(z, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logitlab.entropy([1j, 0]), "^z must be"),
        (lambda: logitlab.kl_divergence([1j, 0], [0, 0]), "^z must be"),
        (lambda: logitlab.kl_divergence([1.0, 0], [1j, 0]), "^other must be"),
        (lambda: logitlab.kl_divergence([1.0, 0], ["a", "b"]), "^other must be"),
        (lambda: logitlab.accuracy([["a", "b"]], [0]), "^z must be"),
        (
            lambda: logitlab.kl_divergence([1.0, 0], torch.zeros(2)),
            "^other must be an array of the same library as z, a ndarray, got Tensor$",
        ),
        (
            lambda: logitlab.kl_divergence([1.0, 0], np.ma.array([1.0, 0], mask=[True, False])),
            "^other must not be a masked array",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_entropy_of_rows_with_classes_of_probability_zero(convert):
    """0 log 0 = 0: an excluded class, one whose probability underflows, and T = 0."""
    z = convert(np.array([[0.0, 0, -inf], [0, 800, -800], [3, 3, 3]]))
    np.testing.assert_allclose(
        np.asarray(logitlab.entropy(z)), [np.log(2), 0, np.log(3)], rtol=1e-15
    )
    where = convert(np.array([[True, True, False]] * 3))
    result = logitlab.entropy(z, where=where)
    np.testing.assert_allclose(np.asarray(result), [np.log(2), 0, np.log(2)], rtol=1e-15)
    result = logitlab.entropy(z, temperature=0)
    np.testing.assert_allclose(np.asarray(result), [np.log(2), 0, np.log(3)], rtol=1e-15)


def peak_memory(function, *arguments):
    """The most memory that NumPy arrays take during a call, in bytes."""
    function(*arguments)  # imports what it needs
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_kl_divergence_without_excluded_classes(convert):
    """Accurate row by row at any distance, whatever the logits of the classes that are left out."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((8, 6))
    distance = np.resize([1e-9, 1e-3, 3.0, 1e-15], 8)
    other = z + distance[:, None] * rng.standard_normal(z.shape)
    z[:, 2] = other[:, 2] = -inf
    z[:4, 4], other[:4, 4] = 50, -70
    z[4:, 4], other[4:, 4] = -70, 50
    where = np.arange(6) != 4
    left = [0, 1, 3, 5]
    for t in (1.0, np.linspace(0.5, 2, 8)):
        rows = [x[:, left] / np.reshape(t, (-1, 1)) for x in (z, other)]
        expected = np.array([exact_kl(*row) for row in zip(*rows, strict=True)])
        options = {"temperature": t if isinstance(t, float) else convert(t)}
        result = logitlab.kl_divergence(convert(z), convert(other), where=convert(where), **options)
        # z / t is rounded in `rows`.
        rtol = 1e-13 if isinstance(t, float) else 1e-13 + 2e-15 / distance
        assert (abs(np.asarray(result) - expected) <= rtol * expected).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_entropy_of_a_long_row_takes_little_memory(dtype):
    """Two float32 arrays of the size of z and a mask."""
    z = np.zeros(500_000, dtype)
    assert peak_memory(logitlab.entropy, z) < 2.5 * 4 * z.size


@pytest.mark.parametrize(
    ("shape", "axis"), [((30_000, 50), -1), ((30_000, 50), 1), ((3, 9_999, 50), 2)]
)
def test_entropy_of_many_rows_takes_little_memory(shape, axis):
    """A few blocks of 2 MiB, not float32 arrays of the size of z."""
    z = np.zeros(shape, np.float16)
    assert peak_memory(logitlab.entropy, z, axis) < 1.5 * z.nbytes


def test_squared_errors():
    """(p - one_hot(y))^2 in one new array; p is unchanged."""
    p, y = np.array([[0.25, 0.75], [0.5, 0.5], [1, 0]]), np.array([0, 1, 1])
    expected = [[9 / 16, 9 / 16], [1 / 4, 1 / 4], [1, 1]]
    np.testing.assert_array_equal(scores.squared_errors(p, y), expected)
    np.testing.assert_array_equal(p, [[0.25, 0.75], [0.5, 0.5], [1, 0]])
    p, y = np.full((50_000, 4), 0.25), np.zeros(50_000, int)
    assert peak_memory(scores.squared_errors, p, y) < 1.75 * p.nbytes


def test_confidences():
    """Of each row of all blocks: the largest probability, and the first class that has it."""
    z = np.zeros((3000, 100))
    z[np.arange(3000), np.arange(3000) % 100] = np.log(np.arange(3000) + 99.0)
    confidence, predicted = scores.confidences(z)
    expected = (np.arange(3000) + 99) / (np.arange(3000) + 198)
    np.testing.assert_allclose(confidence, expected, rtol=1e-14)
    np.testing.assert_array_equal(predicted, np.arange(3000) % 100)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(scores.confidences(np.array([[1.0, 2, 2]]))[1], [1])


def test_the_second_logits_may_be_a_list_or_numpy_array():
    """They are converted to the library of z."""
    z, other = arrays.normal((2, 4), np.float64), arrays.normal((2, 4), np.float64, seed=1)
    expected = logitlab.kl_divergence(z, other)
    for convert in (np.asarray, torch.from_numpy, array_api_strict.asarray):
        for given in (other, other.tolist(), convert(other)):
            result = logitlab.kl_divergence(convert(z), given)
            assert type(result) is type(convert(z))
            np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-13)
    with pytest.raises(ValueError, match=r"^other must be a rectangular array, got"):
        logitlab.kl_divergence(z, [[1.0], [2.0, 3.0]])


def test_kl_divergence_under_autocast():
    """float32, as that of torch."""
    z, other = (torch.randn(5, 7, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    z, other = z.bfloat16(), other.bfloat16()
    expected = logitlab.kl_divergence(z.float(), other.float())
    with torch.autocast("cpu", torch.bfloat16):
        result = logitlab.kl_divergence(z, other)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)
    assert logitlab.kl_divergence(z, other).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 17, 70])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0])
def test_entropy_and_divergence_in_exact_arithmetic(dtype, k, spread):
    """Of rows that are close, far, saturated and with excluded classes, within 4 ULP."""
    rng = np.random.default_rng(k)
    z = (spread * rng.standard_normal((5, k))).astype(dtype)
    z[1] -= z[1].max()
    z[1, 1:] -= 40
    z[2, k // 2 + 1 :] = -inf
    other = (z + 1e-3 * rng.standard_normal(z.shape)).astype(dtype)
    other[3:] = (spread * rng.standard_normal((2, k))).astype(dtype)
    t = [1.0, 1.0, 0.7, 3.0, 1e3]
    entropy = logitlab.entropy(z, temperature=t)
    divergence = logitlab.kl_divergence(z, other, temperature=t)
    for i in range(5):
        with mpmath.workdps(50):
            log_p, log_q = (exact.log_softmax(row[i].tolist(), t[i]) for row in (z, other))
            terms = [
                (mpmath.exp(a), a, b) for a, b in zip(log_p, log_q, strict=True) if a > -mpmath.inf
            ]
            exact_entropy = -mpmath.fsum(p * a for p, a, _ in terms)
            exact_divergence = mpmath.fsum(p * (a - b) for p, a, b in terms)
            for value, right in ((entropy[i], exact_entropy), (divergence[i], exact_divergence)):
                assert abs(float(value) - right) <= 4 * float(np.spacing(value)) + 1e-30, (i, right)


def test_divergence_needs_other_logits():
    with pytest.raises(ValueError, match="other must"):
        logitlab.kl_divergence(np.zeros((2, 3)), None)


def test_entropy_and_divergence_of_long_rows():
    """Sums of a million terms are within 4 ULP too."""
    rng = np.random.default_rng(0)
    z, other = 10 * rng.standard_normal((2, 1_000_000))
    log_p, log_q = (logitlab.log_softmax(x.astype(np.longdouble)) for x in (z, other))
    p = np.exp(log_p)
    for value, right in (
        (logitlab.entropy(z), -(p * log_p).sum()),
        (logitlab.kl_divergence(z, other), (p * (log_p - log_q)).sum()),
    ):
        assert abs(np.longdouble(value) - right) <= 4 * np.spacing(value)


@pytest.mark.parametrize("classes", [1, 2, 10, 50, 51, 300])
@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.float32, np.float64, np.longdouble])
def test_row_max(classes, dtype):
    """That of NumPy, of rows in any memory order, with NaN and infinities."""
    z = (np.random.default_rng(0).standard_normal((40, classes)) * 100).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        z[0, -1], z[1], z[2, 0] = np.nan, -np.inf, np.inf
    for rows in (z, np.asfortranarray(z), z[::-2]):
        largest = row_max(rows)
        assert largest.dtype == dtype
        np.testing.assert_array_equal(largest, rows.max(axis=-1))


def test_divergence_from_a_row_that_excludes_an_improbable_class():
    for gap in (-103.0, -104.0, -700.0):
        z, other = np.float32([0, 0, gap]), np.float32([0, 0, -np.inf])
        assert logitlab.kl_divergence(z, other) == np.inf
        assert logitlab.kl_divergence(torch.from_numpy(z), torch.from_numpy(other)) == torch.inf


@pytest.mark.parametrize("n", [7, 100, 1001])
def test_weighted_accuracy_of_perfect_predictions_is_1(n):
    """To the last bit: the sum of the weights is rounded as that of the weighted predictions."""
    rng = np.random.default_rng(n)
    y = rng.integers(0, 3, n)
    z, weight = 5 * np.eye(3)[y], rng.random(n)
    assert logitlab.accuracy(z, y, sample_weight=weight) == 1
    assert logitlab.top_k_accuracy(z, y, 3, sample_weight=weight) == 1
