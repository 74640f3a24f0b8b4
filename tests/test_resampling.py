"""Bootstrap intervals: values, coverage, paired differences and errors."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

import logitlab
from logitlab import resampling
from logitlab._bins import uniform_bins

pytestmark = pytest.mark.slow


def overconfident(n, rng, k=4):
    """Logits z, and labels sampled from softmax(z / 1.5)."""
    z = rng.standard_normal((n, k)) * 2
    return z, (z / 1.5 + rng.gumbel(size=z.shape)).argmax(axis=1)


def test_values_are_the_scores(labelled):
    """They are those of the score functions, nearly certain rows included."""
    z, y = labelled
    z[:20] *= 50
    intervals = logitlab.bootstrap(z, y, n_bins=10)
    assert intervals["accuracy"].value == logitlab.accuracy(z, y)
    assert intervals["log_loss"].value == pytest.approx(logitlab.cross_entropy(z, y), rel=1e-13)
    assert intervals["brier_score"].value == pytest.approx(logitlab.brier_score(z, y), rel=1e-13)
    error = logitlab.calibration_error(z, y, n_bins=10)
    assert intervals["calibration_error"].value == pytest.approx(error, rel=1e-12)
    top = logitlab.softmax(z).max(axis=1)
    assert intervals["confidence"].value == pytest.approx(top.mean(), rel=1e-13)
    assert all(i.low <= i.value <= i.high for i in list(intervals.values())[:4])
    assert intervals == logitlab.bootstrap(z, y, n_bins=10, rng=0)
    assert intervals != logitlab.bootstrap(z, y, n_bins=10, rng=1)


def test_interval_against_scipy(labelled):
    """The percentile bootstrap of the mean, up to the noise of resampling."""
    z, y = labelled
    correct = (z.argmax(axis=1) == y).astype(float)
    expected = scipy.stats.bootstrap(
        (correct,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    interval = logitlab.bootstrap(z, y, n_resamples=20_000)["accuracy"]
    np.testing.assert_allclose(interval[1:], expected, atol=0.003)


def test_small_brier_score():
    """The Brier score of nearly certain rows keeps its digits: 2 q^2 for two classes."""
    z = np.tile([20.0, 0.0], (10, 1))
    q = np.exp(-20.0) / (1 + np.exp(-20.0))
    interval = logitlab.bootstrap(z, [0] * 10)["brier_score"]
    assert interval.value == pytest.approx(2 * q**2, rel=1e-7)


def test_coverage():
    """92 to 98 % of the 95 % intervals of 500 samples contain the true score."""
    rng = np.random.default_rng(7)
    z, y = overconfident(2_000_000, rng)
    p = logitlab.softmax(z)
    true_scores = {
        "accuracy": np.mean(z.argmax(axis=1) == y),
        "log_loss": -np.mean(np.log(p[np.arange(len(y)), y])),
        "brier_score": logitlab.brier_score(z, y),
    }
    covered = dict.fromkeys(true_scores, 0)
    for _ in range(500):
        intervals = logitlab.bootstrap(*overconfident(400, rng), n_resamples=300, rng=rng)
        for name, score in true_scores.items():
            covered[name] += intervals[name].low <= score <= intervals[name].high
    for name, count in covered.items():
        assert 0.92 <= count / 500 <= 0.98, name


def test_many_rows_in_groups(monkeypatch, labelled):
    """Resampling groups gives the interval widths of resampling rows."""
    z, y = overconfident(20_000, np.random.default_rng(0))
    by_row = logitlab.bootstrap(z, y, n_resamples=4000)
    monkeypatch.setattr("logitlab.resampling._MAX_GROUPS", 500)
    by_group = logitlab.bootstrap(z, y, n_resamples=4000)
    for name in ("accuracy", "log_loss", "brier_score"):
        assert by_group[name].value == pytest.approx(by_row[name].value, rel=1e-12)
        widths = [i[name].high - i[name].low for i in (by_row, by_group)]
        assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_paired_differences(labelled):
    """A model has no difference from itself; the same rows are resampled for both models."""
    z, y = labelled
    for interval in logitlab.bootstrap(z, y, other=z).values():
        assert interval == pytest.approx((0, 0, 0), abs=1e-15)
    better = z + 0.2 * np.eye(6)[y]
    difference = logitlab.bootstrap(better, y, other=z)["log_loss"]
    assert difference.high < 0
    unpaired = [logitlab.bootstrap(m, y)["log_loss"] for m in (better, z)]
    assert unpaired[0].high > unpaired[1].low  # the unpaired intervals overlap
    assert difference.value == pytest.approx(unpaired[0].value - unpaired[1].value)


def test_infinite_log_loss():
    """Its bounds are infinite; those of the other scores are finite."""
    intervals = logitlab.bootstrap([[0.0, -np.inf], [0.0, 1.0]], [1, 1])
    assert intervals["log_loss"] == (np.inf, np.inf, np.inf)
    assert np.isfinite(intervals["brier_score"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 95}, "confidence_level must be between 0 and 1, got 95"),
        ({"confidence_level": "a"}, "confidence_level must be a real number, got 'a'"),
        ({"n_resamples": 0}, "n_resamples must be >= 1, got 0"),
        ({"n_resamples": 10**12}, r"n_resamples must be <= 6391320, got 1000000000000"),
        ({"n_resamples": True}, "n_resamples must be an int, got True"),
        ({"rng": "a"}, "rng must be None, an int >= 0 or a numpy.random.Generator, got 'a'"),
        ({"rng": -1}, "rng must be None, an int >= 0 or a numpy.random.Generator, got -1"),
        ({"n_bins": True}, "n_bins must be an int, got True"),
        ({"n_bins": [5]}, r"n_bins must be an int, got \[5\]"),
        (
            {"other": np.zeros((3, 3))},
            r"other must have the batch shape \(4,\) of z and a class axis, got shape \(3, 3\)",
        ),
        (
            {"other": np.zeros((4, 2))},
            "y must be from 0 to 1, as other has 2 classes, got 2 in row 2",
        ),
        ({"other": np.full((4, 3), np.nan)}, "row 0 of other has no distribution"),
        ({"other": [[0.0], [1.0, 2.0]]}, "other must be a rectangular array, got"),
        ({"other": np.zeros(4)}, r"other must have the batch shape \(4,\) .*, got shape \(4,\)"),
        ({"other": "a"}, r"other must have the batch shape \(4,\) .*, got shape \(\)"),
    ],
)
def test_bad_options(options, message):
    """Each message has the argument, the rule and the value."""
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        logitlab.bootstrap(np.zeros((4, 3)), [0, 1, 2, 0], **options)


def test_rows_without_a_distribution():
    with pytest.raises(ValueError, match="row 1 of z has no distribution"):
        logitlab.bootstrap([[0.0, 1.0], [np.nan, 1.0]], [0, 0])


def test_level_of_the_interval():
    """The bounds are the quantiles of the resampled accuracies, here of a binomial variable."""
    z, y = np.tile([2.0, 0.0], (400, 1)), [0] * 280 + [1] * 120
    distribution = scipy.stats.binom(400, 0.7)
    for level in (0.5, 0.8, 0.95):
        result = logitlab.bootstrap(z, y, confidence_level=level, n_resamples=20_000)["accuracy"]
        expected = distribution.ppf([(1 - level) / 2, (1 + level) / 2]) / 400
        np.testing.assert_allclose(result[1:], expected, atol=0.003)
    assert logitlab.bootstrap(z, y) == logitlab.bootstrap(z, y, confidence_level=0.95)
    for level in (0, 1, 1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match="confidence_level must be between 0 and 1, got"):
            logitlab.bootstrap(z, y, confidence_level=level)


def test_confidences_in_the_first_bin():
    """30 equal classes: every confidence is 1/30, and no row of the second half is correct."""
    z, y = np.zeros((40, 30)), [0] * 10 + [7] * 30
    result = logitlab.bootstrap(z, y)["calibration_error"].value
    assert result == pytest.approx(0.25 - 1 / 30, rel=1e-12)
    assert result == pytest.approx(logitlab.calibration_error(z, y), rel=1e-12)


def test_resampled_sums_by_definition(monkeypatch):
    """n groups are sampled with replacement, each equally often; memory changes no result."""
    groups = np.c_[np.ones(5), np.eye(5)]
    groups = np.r_[groups, np.zeros((2, 6))]  # without rows
    sums = resampling.resampled_sums(groups, 3000, 0)
    assert sums.shape == (3000, 6)
    np.testing.assert_array_equal(sums[:, 0], 5)
    np.testing.assert_array_equal(sums[:, 1:].sum(axis=1), 5)
    counts = sums[:, 1:].sum(axis=0)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    # The number of times that one group is sampled is binomial.
    variance = sums[:, 1:].var(axis=0)
    np.testing.assert_allclose(variance, 5 * 0.2 * 0.8, rtol=0.1)
    for block in (1, 7, 35, 64):  # 35: the last block is smaller
        monkeypatch.setattr(resampling, "_BLOCK", block)
        np.testing.assert_array_equal(resampling.resampled_sums(groups, 3000, 0), sums)


def test_sums_of_blocks(labelled):
    """Sums over blocks of rows are those of all rows, group by group and bin by bin."""
    z, y = labelled
    p = logitlab.softmax(z)
    whole = resampling.ScoreSums(len(y), 15, z.dtype)
    whole.add(slice(0, len(y)), z, y)
    parts = resampling.ScoreSums(len(y), 15, z.dtype)
    for start in range(0, len(y), 70):
        rows = slice(start, min(start + 70, len(y)))
        parts.add(rows, z[rows], y[rows])
    np.testing.assert_array_equal(parts.group_sums, whole.group_sums)
    np.testing.assert_allclose(parts.bin_sums, whole.bin_sums, rtol=1e-12)
    expected = uniform_bins(15, z.dtype).sums(p.max(axis=1), p.argmax(axis=1) == y)
    np.testing.assert_allclose(parts.bin_sums, expected, rtol=1e-12)


def test_second_model_is_named():
    """The errors of its rows name it."""
    z = np.zeros((3, 2))
    with pytest.raises(ValueError, match="other must have the batch shape"):
        logitlab.bootstrap(z, [0, 1, 0], other=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="row 1 of other"):
        logitlab.bootstrap(z, [0, 1, 0], other=[[0, 1], [np.nan, 0], [0, 0]])
    with pytest.raises(TypeError, match="other must be"):
        logitlab.bootstrap(z, [0, 1, 0], other=[["a", "b"]] * 3)


def exact_sums(p, y, n_bins):
    """The columns of a group of rows, from fractions: of `ScoreSums.group_sums`."""
    losses = [-math.log(row[k]) if row[k] else math.inf for row, k in zip(p, y, strict=True)]
    correct = [row.index(max(row)) == k for row, k in zip(p, y, strict=True)]
    bins = [Fraction(0)] * n_bins
    for row, right in zip(p, correct, strict=True):
        bins[min(int(max(row) * n_bins), n_bins - 1)] += max(row) - right
    return [
        len(p),
        sum(correct),
        sum(loss for loss in losses if loss < math.inf),
        losses.count(math.inf),
        sum((x - (i == k)) ** 2 for row, k in zip(p, y, strict=True) for i, x in enumerate(row)),
        sum(map(max, p)),
        *bins,
    ]


EXACT_ROWS = [[5, 2, 1], [8, 0, 0], [1, 6, 1], [4, 4, 0], [2, 3, 3], [0, 1, 7], [0, 8, 0]]
EXACT_LABELS = [0, 1, 2, 2, 1, 2, 1]


def exact_problem():
    """Logits, labels and their probabilities as fractions; two losses are infinite."""
    p = [[Fraction(i, 8) for i in row] for row in EXACT_ROWS]
    with np.errstate(divide="ignore"):
        z = np.log(np.array(p, dtype=float))
    return z, np.array(EXACT_LABELS), p


def test_sums_of_groups_by_definition():
    """Each row is a group; its probabilities and losses are returned."""
    z, y, p = exact_problem()
    sums = resampling.ScoreSums(7, 5, z.dtype)
    for rows in (slice(3, 7), slice(0, 3)):
        returned, loss, confidence, predicted = sums.add(rows, z[rows], y[rows])
        np.testing.assert_allclose(returned, np.array(p[rows], dtype=float), atol=1e-15)
        np.testing.assert_array_equal(confidence, returned.max(axis=-1))
        np.testing.assert_array_equal(predicted, z[rows].argmax(axis=-1))
        right = [float(row[k]) for row, k in zip(p[rows], y[rows], strict=True)]
        np.testing.assert_allclose(np.exp(-loss), right, rtol=1e-14)
    expected = [exact_sums([row], [k], 5) for row, k in zip(p, y, strict=True)]
    np.testing.assert_allclose(sums.group_sums, np.array(expected, dtype=float), atol=1e-14)
    total = np.array(exact_sums(p, y.tolist(), 5), dtype=float)
    np.testing.assert_allclose(sums.group_sums.sum(axis=0), total, atol=1e-14)


def test_scores_from_sums_by_definition():
    """Of each sum of an array of sums."""
    _, y, p = exact_problem()
    parts = [slice(0, 7), slice(2, 5), slice(4, 7), slice(0, 1)]
    sums = [exact_sums(p[rows], y[rows].tolist(), 5) for rows in parts]
    expected = [
        [
            a[1] / Fraction(a[0]),
            math.inf if a[3] else a[2] / a[0],
            a[4] / a[0],
            a[5] / a[0],
            sum(map(abs, a[6:])) / a[0],
        ]
        for a in sums
    ]
    sums, expected = (np.array(x, dtype=float) for x in (sums, expected))
    np.testing.assert_allclose(resampling.scores_from_sums(sums), expected.T, rtol=1e-14)
    result = resampling.scores_from_sums(sums.reshape(2, 2, 11))
    np.testing.assert_allclose(result, expected.T.reshape(5, 2, 2), rtol=1e-14)
    np.testing.assert_allclose(resampling.scores_from_sums(sums[1]), expected[1], rtol=1e-14)


def test_percentile_intervals_by_definition():
    """Of the numbers 0 to 200 the central 95 % are from 5 to 195, by linear interpolation."""
    resampled = np.random.default_rng(0).permuted(np.tile(np.arange(201.0), (5, 1)), axis=1)
    resampled *= np.arange(1, 6)[:, None]
    values = np.array([7.0, 8, 9, 10, 11])
    for level, low, high in ((None, 5, 195), (0.9, 10, 190), (0.5, 50, 150)):
        options = () if level is None else (level,)
        intervals = resampling.percentile_intervals(values, resampled, *options)
        assert list(intervals) == [
            "accuracy",
            "log_loss",
            "brier_score",
            "confidence",
            "calibration_error",
        ]
        for i, interval in enumerate(intervals.values(), start=1):
            assert interval == pytest.approx((6 + i, low * i, high * i), rel=1e-12)


def test_bounds_of_an_infinite_score_are_infinite():
    """Also if the infinite loss is in no resample, or in both models."""
    z, y = [[0.0, -np.inf], [0.0, 1.0], [0.0, 0.0]], [1, 1, 0]
    for seed in range(20):
        result = logitlab.bootstrap(z, y, n_resamples=1, rng=seed)
        assert result["log_loss"] == (np.inf, np.inf, np.inf)
    finite = np.zeros((3, 2))
    difference = logitlab.bootstrap(finite, y, other=z, n_resamples=50)
    assert difference["log_loss"] == (-np.inf, -np.inf, -np.inf)
    assert np.isnan(logitlab.bootstrap(z, y, other=z, n_resamples=5)["log_loss"]).all()


def test_scores_of_many_rows():
    """Those of all blocks of rows, of both models."""
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(7000, 60)), rng.integers(0, 60, 7000)
    y[::3] = z[::3].argmax(axis=1)
    other = (z + rng.normal(size=z.shape)).astype(np.float32)
    result = logitlab.bootstrap(z, y, n_resamples=2)
    expected = [
        logitlab.accuracy,
        logitlab.cross_entropy,
        logitlab.brier_score,
        lambda z, y: logitlab.softmax(z).max(axis=1).mean(dtype=float),
        logitlab.calibration_error,
    ]
    difference = logitlab.bootstrap(z, y, other=other, n_resamples=2)
    for name, score in zip(resampling.SCORES, expected, strict=True):
        value = score(z, y)
        assert result[name].value == pytest.approx(value, rel=1e-12)
        assert difference[name].value == pytest.approx(value - score(other, y), rel=1e-5)


def test_groups_of_rows(monkeypatch):
    """Up to the limit each row is a group; more rows are assigned at random, always the same."""
    z, y, p = exact_problem()
    monkeypatch.setattr(resampling, "_MAX_GROUPS", 7)
    sums = resampling.ScoreSums(7, 5, z.dtype)
    sums.add(slice(0, 7), z, y)
    expected = [exact_sums([row], [k], 5) for row, k in zip(p, y, strict=True)]
    np.testing.assert_allclose(sums.group_sums, np.array(expected, dtype=float), atol=1e-14)
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(7000, 3)), rng.integers(0, 3, 7000)
    sums = resampling.ScoreSums(7000, 5, z.dtype)
    sums.add(slice(0, 7000), z, y)
    assert sums.group_sums.shape == (7, 11)
    assert scipy.stats.chisquare(sums.group_sums[:, 0]).pvalue > 1e-3
    assert logitlab.bootstrap(z, y, n_resamples=20) == logitlab.bootstrap(z, y, n_resamples=20)


def test_sums_of_all_resamples_are_bounded(monkeypatch):
    """The largest number of resamples is one whose sums fit."""
    monkeypatch.setattr(resampling, "_MAX_SUMS", 65)
    groups = np.ones((4, 6))
    assert resampling.resampled_sums(groups, 10, 0).shape == (10, 6)
    with pytest.raises(ValueError, match=r"^n_resamples must be <= 10, got 11$"):
        resampling.resampled_sums(groups, 11, 0)


def test_batches_of_more_dimensions(labelled):
    """They are the rows of the flat arrays, 1000 times resampled with the seed 0."""
    z, y = labelled
    z, y = z[:60], y[:60]
    other = z + np.sin(np.arange(6))
    expected = logitlab.bootstrap(z, y, other=other, n_resamples=1000, rng=0)
    batch = (z.reshape(5, 12, 6), y.reshape(5, 12))
    assert logitlab.bootstrap(*batch, other=other.reshape(5, 12, 6)) == expected


def test_merged_sums_leave_those_of_the_parts_unchanged():
    """A cluster may need them again, after the loss of a worker."""
    z, y = overconfident(40, np.random.default_rng(0))
    parts = []
    for rows in (slice(0, 15), slice(15, 40)):
        parts.append(resampling.ScoreSums(40, 15, z.dtype, part=rows))
        parts[-1].add(slice(0, rows.stop - rows.start), z[rows], y[rows])
    given = [part.group_sums.copy() for part in parts]
    merged = resampling._merged(*parts)
    for part, sums in zip(parts, given, strict=True):
        np.testing.assert_array_equal(part.group_sums, sums)
    np.testing.assert_array_equal(merged.group_sums, given[0] + given[1])
    assert merged.bin_sums[0].sum() == 40
