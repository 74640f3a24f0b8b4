"""The interval of the calibration error: coverage, the parts of its test, degenerate inputs."""

import numpy as np
import pytest
import scipy.stats

import logitlab
from logitlab import _error_interval
from logitlab._bins import make_bins, uniform_bins
from logitlab._error_interval import error_interval

pytestmark = pytest.mark.slow

INTERVAL = logitlab.calibration_error_interval
BINS = uniform_bins(15, np.dtype(float))


def population(gaps, scale):
    """Confidences, probabilities of correct predictions, and the calibration error."""
    confidence = np.linspace(0.5, 0.999, 20_000)
    bins = BINS.indices(confidence)
    gap = scale * {"all": 1, "alternating": (-1.0) ** bins, "one": bins == 10, "none": 0}[gaps]
    accuracy = np.clip(confidence - gap * confidence * (1 - confidence), 0, 1)
    error = np.abs(np.bincount(bins, confidence - accuracy)).sum() / len(confidence)
    return confidence, accuracy, error


def sample(confidence, accuracy, rows, rng):
    """Sums over the bins."""
    sampled = rng.integers(0, len(confidence), rows)
    return BINS.sums(confidence[sampled], rng.random(rows) < accuracy[sampled])


def two_classes(confidence, n, correct):
    """Logits of n rows with one confidence and labels of which the first are correct."""
    z = np.tile([np.log(confidence / (1 - confidence)), 0.0], (n, 1))
    return z, np.repeat([0, 1], [correct, n - correct])


@pytest.mark.parametrize(
    ("gaps", "scale", "rows", "nominal"),
    [
        ("none", 0, 300, True),
        ("none", 0, 30_000, True),
        ("all", 0.7, 3000, True),  # every gap is clear: true error 0.1
        ("all", 0.05, 3000, False),
        ("alternating", 0.3, 3000, False),
        ("one", 1, 300, False),
        ("one", 0.5, 3000, False),
    ],
)
@pytest.mark.parametrize("level", [0.95, 0.9])
def test_coverage(gaps, scale, rows, nominal, level):
    """It is nominal without gaps and with clear gaps, and at least nominal in between."""
    confidence, accuracy, error = population(gaps, scale)
    rng, n, covered = np.random.default_rng(5), 150, 0
    for _ in range(n):
        sums = sample(confidence, accuracy, rows, rng)
        low, high = error_interval(sums, level, 200, rng)
        covered += low <= error <= high
    fewest, most = scipy.stats.binom(n, level).ppf([0.002, 0.998])
    assert fewest <= covered <= (most if nominal else n)


def test_one_bin_against_the_binomial_interval():
    """With one bin and a clear gap, the bounds are those of Clopper and Pearson."""
    z, y = two_classes(0.9, 500, 350)
    result = INTERVAL(z, y, n_bins=1, n_resamples=20_000)
    exact = scipy.stats.binomtest(350, 500).proportion_ci(0.95)
    assert result.value == pytest.approx(0.2, rel=1e-12)
    assert result.low == pytest.approx(0.9 - exact.high, abs=0.002)
    assert result.high == pytest.approx(0.9 - exact.low, abs=0.002)


def test_degenerate_inputs():
    """One row, no errors, no correct prediction, confidences of 1, one class."""
    one = INTERVAL(*two_classes(0.9, 1, 1), n_resamples=20_000)
    assert one.low == 0
    assert one.high == pytest.approx(0.9 - 0.025, abs=0.01)  # an accuracy of 2.5 % or more
    assert INTERVAL(*two_classes(0.9, 1, 0), n_resamples=20_000) == pytest.approx((0.9, 0, 0.9))
    most = 1 - 0.025 ** (1 / 50)  # errors are in none of 50 rows with a probability of 2.5 %
    for z in (np.zeros((50, 1)), np.tile([800.0, 0], (50, 1))):
        result = INTERVAL(z, [0] * 50, n_resamples=20_000)
        assert result[:2] == (0, 0)
        assert result.high == pytest.approx(most, abs=0.005)
    wrong = INTERVAL(np.tile([800.0, 0], (50, 1)), [1] * 50, n_resamples=20_000)
    assert wrong == pytest.approx((1, 1 - most, 1), abs=0.005)
    certain = INTERVAL(*two_classes(0.7, 300, 300))  # 0.3 is the largest gap of this sign
    assert certain == pytest.approx((0.3, 0.29, 0.3), abs=0.005)
    balanced = INTERVAL(*two_classes(0.5, 100, 50))
    assert balanced[:2] == (0, 0)
    assert 0.09 < balanced.high < 0.2


def test_lower_bound_and_calibration_test():
    """The lower bound is 0 unless the test of calibration rejects."""
    rng = np.random.default_rng(3)
    confidence, accuracy, _ = population("all", 0.2)
    rejected = 0
    for _ in range(25):
        sampled = rng.integers(0, len(confidence), 1000)
        z = np.zeros((1000, 2))
        z[:, 0] = np.log(confidence[sampled] / (1 - confidence[sampled]))
        y = (rng.random(1000) > accuracy[sampled]).astype(int)
        p = logitlab.calibration_test(z, y).p_value
        low = INTERVAL(z, y).low
        assert low == 0 or p < 0.07
        assert low > 0 or p > 0.03
        rejected += low > 0
    assert 3 < rejected < 22


def test_upper_bound_of_a_small_error():
    """An error below the median of calibrated samples has the interval of the median."""
    rng = np.random.default_rng(0)
    confidence, accuracy, _ = population("none", 0)
    sums = sample(confidence, accuracy, 2000, rng)
    sums[2] = sums[1]  # accuracy equals confidence in every bin
    low, high = error_interval(sums)
    simulation = _error_interval._Simulation(sums, 1000, np.random.default_rng(0))
    median = np.median(simulation.errors(np.zeros(len(simulation.share))))
    assert low == 0
    assert high > median > 0


def test_simulated_errors():
    """Their mean and variance are those of samples of rows with these gaps."""
    rng = np.random.default_rng(1)
    confidence, accuracy, _ = population("alternating", 0.6)
    bins = BINS.indices(confidence)
    # All rows of a bin have the same confidence and accuracy.
    counts = np.maximum(np.bincount(bins, minlength=15), 1)
    confidence = (np.bincount(bins, confidence, 15) / counts)[bins]
    accuracy = (np.bincount(bins, accuracy, 15) / counts)[bins]
    sums = BINS.sums(confidence, accuracy > 2) / 40  # 500 rows
    sums[2] = np.bincount(bins, accuracy, 15) / 40
    simulation = _error_interval._Simulation(sums, 20_000, rng)
    errors = simulation.errors(simulation.gap)
    direct = []
    for _ in range(4000):
        w, p, k = sample(confidence, accuracy, 500, rng)
        direct.append(np.abs(p - k).sum() / w.sum())
    assert errors.mean() == pytest.approx(np.mean(direct), rel=0.01)
    assert errors.std() == pytest.approx(np.std(direct), rel=0.05)


@pytest.mark.parametrize(("n", "p"), [(3, 0.2), (40, 0.9), (5000, 0.9995), (60, 0.4), (9000, 0.7)])
def test_binomial_numbers(n, p):
    """Exact for few events; else the quantiles of the expansion are within one."""
    sums = np.array([[n], [n * 0.6], [n * 0.5]], dtype=float)
    simulation = _error_interval._Simulation(sums, 50_000, np.random.default_rng(0))
    numbers = simulation._binomial(np.array([p]))[0]
    levels = [0.01, 0.1, 0.3, 0.5, 0.8, 0.975, 0.999]
    expected = scipy.stats.binom(n, p).ppf(levels)
    assert numbers.min() >= 0
    assert numbers.max() <= n
    np.testing.assert_allclose(np.quantile(numbers, levels), expected, atol=1, rtol=2e-3)
    assert numbers.mean() == pytest.approx(n * p, rel=0.01)
    if n * min(p, 1 - p) < 10:
        counts = np.bincount(numbers.astype(int), minlength=n + 1)
        expected = 50_000 * scipy.stats.binom(n, p).pmf(np.arange(n + 1))
        tested = expected > 20
        assert (
            scipy.stats.chisquare(
                np.append(counts[tested], counts[~tested].sum() + 1),
                np.append(expected[tested], expected[~tested].sum() + 1),
                sum_check=False,
            ).pvalue
            > 1e-3
        )


def test_path_by_definition():
    """min(max(base, x slope), limit) with the x that gives the sum; proportional to base below."""
    rng = np.random.default_rng(2)
    base, slope = rng.random(6) * [0, 1, 1, 0, 1, 0], 0.1 + rng.random(6)
    limit = base + rng.random(6)
    path = _error_interval._path(base, slope, limit)
    for x in (0.5, 1, 2, 3):
        vector = np.minimum(np.maximum(base, x * slope), limit)
        np.testing.assert_allclose(path(vector.sum()), vector, atol=1e-12)
    np.testing.assert_allclose(path(base.sum() / 4), base / 4)
    np.testing.assert_allclose(path(limit.sum()), limit)


def test_boundary_by_bisection():
    """Near the guess and far from it; a condition that always or never holds."""
    for at in (0.0123, 0.3, 0.5021, 0.99):
        found = _error_interval._boundary(lambda x, at=at: x <= at, 0, 1, 0.5, 0.01)
        assert found == pytest.approx(at, abs=1e-5)
    assert _error_interval._boundary(lambda x: True, 0, 1, 0.5, 0.01) == 1
    assert _error_interval._boundary(lambda x: False, 0, 1, 0.5, 0.01) < 1e-4


def test_interval_of_bootstrap():
    """`bootstrap` returns it for one model, up to the noise of the simulations."""
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal((3000, 4))
    y = (z / 1.3 + rng.gumbel(size=z.shape)).argmax(axis=1)
    for level in (0.95, 0.8):
        expected = INTERVAL(z, y, n_bins=10, confidence_level=level, n_resamples=20_000)
        result = logitlab.bootstrap(z, y, n_bins=10, confidence_level=level)["calibration_error"]
        assert result == pytest.approx(expected, abs=0.004)
    first = INTERVAL(z, y)
    assert first == INTERVAL(z, y, rng=0) == INTERVAL(z, y, rng=np.random.default_rng(0))
    assert first != INTERVAL(z, y, rng=1)
    assert first.value == logitlab.calibration_error(z, y)
    narrow = INTERVAL(z, y, confidence_level=0.5)
    assert first.low < narrow.low < narrow.high < first.high


def test_weights_and_bins():
    """Equal weights change nothing; unequal ones count as fewer rows; quantile bins are fixed."""
    rng = np.random.default_rng(4)
    z = 2 * rng.standard_normal((2000, 3))
    y = (z / 1.4 + rng.gumbel(size=z.shape)).argmax(axis=1)
    expected = INTERVAL(z, y)
    assert INTERVAL(z, y, sample_weight=np.full(2000, 3.0)) == pytest.approx(expected, rel=1e-9)
    unequal = INTERVAL(z, y, sample_weight=rng.exponential(size=2000))
    assert unequal.high - unequal.low > 1.15 * (expected.high - expected.low)
    weight = rng.exponential(size=2000)
    value = logitlab.calibration_error(z, y, sample_weight=weight)
    result = INTERVAL(z, y, sample_weight=weight)
    assert result.value == value
    of_scores = logitlab.bootstrap(z, y, sample_weight=weight)["calibration_error"]
    assert of_scores == pytest.approx(result, abs=0.004)
    ignored = np.where(np.arange(2000) < 500, -100, y)
    assert INTERVAL(z, ignored, ignore_index=-100) == INTERVAL(z[500:], y[500:])
    assert INTERVAL(z.T, y, axis=0) == expected
    p = logitlab.softmax(z).max(axis=1)
    sums = make_bins(p, 8, "quantile", z.dtype).sums(p, z.argmax(axis=1) == y)
    result = INTERVAL(z, y, n_bins=8, strategy="quantile")
    assert result[1:] == error_interval(sums)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 1.0}, "confidence_level must be between 0 and 1, got 1.0"),
        ({"n_resamples": 39}, "n_resamples must be >= 40, got 39"),
        ({"confidence_level": 0.9, "n_resamples": 19}, "n_resamples must be >= 20, got 19"),
        ({"confidence_level": 0.999}, "n_resamples must be >= 2000, got 1000"),
        ({"n_resamples": 100_001}, "n_resamples must be <= 100000, got 100001"),
        ({"rng": "a"}, "rng must be None, an int >= 0 or a numpy.random.Generator, got 'a'"),
        ({"n_bins": 0}, "n_bins must be >= 1, got 0"),
        ({"strategy": "isotonic"}, "strategy must be one of 'uniform', 'quantile', got 'isotonic'"),
    ],
)
def test_bad_options(options, message):
    """Each message has the argument, the rule and the value, before the rows are read."""
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        INTERVAL(None, None, **options)
