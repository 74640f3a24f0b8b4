"""Temperature scaling: the global minimum, its limits, refused rows; cross-fitting."""

import itertools
import re
import sys

import mpmath
import numpy as np
import pytest
import scipy.optimize
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import RepeatedKFold, ShuffleSplit, StratifiedKFold

import logitlab
from logitlab._backends import native
from logitlab._backends.temperature_loss import moments
from logitlab._distributed import rows_in_memory
from logitlab.calibration import TemperatureSearch
from logitlab.calibration import temperature as temperature_module
from logitlab.calibration.temperature import fit_temperature

pytestmark = pytest.mark.slow

CALIBRATORS = [
    "TemperatureScaling",
    "VectorScaling",
    "MatrixScaling",
    "IsotonicCalibration",
    "StructuredVectorScaling",
    "StructuredMatrixScaling",
]


def log_loss(z, y, t=1.0):
    return -np.mean(logitlab.log_softmax(z, temperature=t)[np.arange(len(y)), y])


def labelled(n=800, k=5, true_temperature=1.7, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 4
    p = logitlab.softmax(z, temperature=true_temperature)
    return z, np.array([rng.choice(k, p=row) for row in p])


def test_published_temperatures(predictions):
    """Temperatures and log-losses of two wide residual networks, on 10 and on 100 classes."""
    path, p, y = predictions
    z = logitlab.logits(p)
    ten_classes = path.stem.endswith("-10")
    t = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert t == pytest.approx(2.053 if ten_classes else 1.111, abs=5e-4)
    calibrated = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    assert log_loss(z, y) == pytest.approx(0.3782 if ten_classes else 0.9564, abs=5e-5)
    assert log_loss(calibrated, y) == pytest.approx(0.2746 if ten_classes else 0.9476, abs=5e-4)
    assert logitlab.accuracy(calibrated, y) == logitlab.accuracy(z, y)
    assert not ten_classes or logitlab.calibration_error(calibrated, y) < 0.0115


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-30, 1, 1e30, 1e300, 1e307])
@pytest.mark.parametrize("shift", [0, 1])
def test_minimum_at_any_scale(scale, shift):
    """T scales with the logits; a shift of a row changes nothing."""
    z, y = labelled()
    best = scipy.optimize.minimize_scalar(
        lambda log_t: log_loss(z, y, np.exp(log_t)), bounds=(-3, 3), options={"xatol": 1e-10}
    )
    shifted = (z + shift * np.arange(len(z))[:, None] / len(z)) * scale
    t = logitlab.TemperatureScaling().fit(shifted, y).temperature_ / scale
    assert t == pytest.approx(np.exp(best.x), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, int])
def test_types_of_logits(dtype):
    """Half types and integers give the temperature of float64."""
    z, y = labelled()
    z = (z * 10).astype(dtype)
    expected = logitlab.TemperatureScaling().fit(z.astype(float), y).temperature_
    temperature = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert temperature == pytest.approx(expected, rel=1e-9)


def test_excluded_classes_and_infinite_rows():
    """-inf excludes a class; the loss of a row with +inf for its label does not depend on T."""
    z, y = labelled()
    wide = np.concatenate([z, np.full((len(z), 1), -np.inf)], axis=1)
    with_inf = np.vstack([wide, np.where(np.arange(6) == 2, np.inf, 0)[None]])
    expected = logitlab.TemperatureScaling().fit(z, y).temperature_
    temperature = logitlab.TemperatureScaling().fit(with_inf, [*y, 2]).temperature_
    assert temperature == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kernel", [True, False])
def test_moments_are_the_derivatives(kernel, monkeypatch):
    """Loss, slope and curvature of each row against 60 digits, by the kernel and the formulas."""
    if not kernel:
        monkeypatch.setattr(native, "_native", None)
    rng = np.random.default_rng(2)
    for dtype, rtol in ((np.float32, 2e-6), (np.float64, 1e-13)):
        for k in (1, 3, 17, 70):
            z, y, t = (rng.standard_normal((4, k)) * 5).astype(dtype), np.arange(4) % k, 1.7
            for row, label, values in zip(z, y, moments(z, y, t), strict=True):
                with mpmath.workdps(60):
                    x = [mpmath.mpf(float(v)) / mpmath.mpf(t) for v in row]
                    e = [mpmath.exp(v - max(x)) for v in x]
                    mean = sum(a * (v - max(x)) for a, v in zip(e, x, strict=True)) / sum(e)
                    square = sum(a * (v - max(x)) ** 2 for a, v in zip(e, x, strict=True)) / sum(e)
                    true = x[label] - max(x)
                    exact = [mpmath.log(sum(e)) - true, mean - true, square - mean**2, true * t]
                np.testing.assert_allclose(values, np.array(exact, float), rtol, atol=rtol)


@pytest.mark.parametrize(
    ("z", "y", "t"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], 0.0),
        ([[5e30, 0.0], [0.0, 0.1]], [0, 1], 0.0),
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], np.inf),
        ([[5.0, 0.0], [5.0, 0.0]], [1, 0], np.inf),
        ([[0.1, 0.3, 0.2]] * 3, [0, 1, 2], np.inf),
        ([[3e38, -3e38], [0.0, 0.0]], [1, 0], np.inf),
        ([[0.0, 0.0], [3.0, 3.0]], [0, 1], 1.0),
        ([[np.inf, 0.0], [3.0, 3.0]], [0, 1], 1.0),
        ([[4.0]], [0], 1.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(z, y, t, dtype):
    """0, inf, or 1 where the loss does not depend on T; never a huge or a negative number."""
    z = np.array(z, dtype)
    scaling = logitlab.TemperatureScaling().fit(z, y)
    assert scaling.temperature_ == t
    p = scaling.predict_proba(z)
    np.testing.assert_array_equal(p, logitlab.softmax(z, temperature=t))
    np.testing.assert_allclose(logitlab.softmax(scaling.transform(z)), p, rtol=1e-15)


@pytest.mark.parametrize("seed", range(8))
def test_random_labels(seed):
    """Labels independent of the logits give a large temperature or inf, the minimum."""
    rng = np.random.default_rng(seed)
    z, y = rng.standard_normal((200, 10)) * 3, rng.integers(0, 10, 200)
    t = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert t > 5
    for other in (0.9, 1.1) if t < np.inf else (1e-9,):
        assert log_loss(z, y, t) <= log_loss(z, y, t * other if t < np.inf else 1 / other)


@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        ([[5.0, -np.inf], [0.0, 5.0]], [1, 0], "row 0 of z has the logit -inf for its label"),
        (
            [[5.0, np.inf], [0.0, 5.0]],
            [0, 0],
            "row 0 of z has \\+inf for a class that is not its label",
        ),
        ([[5.0, 0.0], [np.nan, 5.0]], [0, 0], "row 1 of z holds NaN"),
        ([[5.0, 0.0], [-np.inf, -np.inf]], [0, 0], "row 1 of z holds NaN, or only -inf"),
    ],
)
def test_rows_with_infinite_loss(z, y, reason):
    """A row whose loss is infinite at every temperature is an error that names the row."""
    with pytest.raises(ValueError, match=reason):
        logitlab.TemperatureScaling().fit(z, y)


def test_sample_weight():
    """A weight of 2 counts as two rows, 0 as none; invalid weights are refused."""
    z, y = labelled()
    w = np.random.default_rng(1).integers(0, 4, len(y))
    z[np.flatnonzero(w == 0)[0]] = np.nan
    expected = logitlab.TemperatureScaling().fit(np.repeat(z, w, axis=0), np.repeat(y, w))
    weighted = logitlab.TemperatureScaling().fit(z, y, sample_weight=w)
    assert weighted.temperature_ == pytest.approx(expected.temperature_, rel=1e-12)
    for bad, message in (
        (w[1:], r"sample_weight must have shape \(800,\), one weight for each row, got \(799,\)"),
        (w * 0, "not zero in every row"),
        (w - 1, "sample_weight must be finite and >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            logitlab.TemperatureScaling().fit(z, y, sample_weight=bad)


@pytest.mark.parametrize("factor", [1e308 / 3, 5e-324, 1e-310])
@pytest.mark.parametrize(
    "name",
    [
        "TemperatureScaling",
        "VectorScaling",
        "MatrixScaling",
        "IsotonicCalibration",
        "StructuredVectorScaling",
        "StructuredMatrixScaling",
    ],
)
def test_weights_have_no_scale(name, factor):
    """Weights whose sum overflows, or that are subnormal, give the fit of equal weights of 1."""
    z, y = labelled()
    calibrator = getattr(logitlab, name)
    expected = calibrator().fit(z, y).predict_proba(z)
    weighted = calibrator().fit(z, y, sample_weight=np.full(len(y), factor))
    np.testing.assert_allclose(weighted.predict_proba(z), expected, rtol=1e-9)


def test_refused_row_number():
    """It counts rows of weight 0, and all rows where a subset gives the first guess."""
    z, y = np.tile([[0.0, 1.0]], (40, 1)), np.arange(40) % 2
    z[30] = np.nan
    weight = np.ones(40)
    weight[:7] = 0
    for scaling in (logitlab.TemperatureScaling(), logitlab.VectorScaling()):
        with pytest.raises(ValueError, match="row 30 of z holds NaN"):
            scaling.fit(z, y, weight)
    long = np.ones((1_500_000, 3), np.float32)
    long[4000:] = np.nan
    with pytest.raises(ValueError, match="row 4000 of z holds NaN"):
        logitlab.TemperatureScaling().fit(long, np.zeros(len(long), int))


def test_many_rows():
    """A fit whose first guess comes from a subset, and a search that gets the rows in parts."""
    z, y = labelled(n=60_000, k=100)
    search = TemperatureSearch()
    with pytest.raises(
        ValueError, match=r"^add must be called with at least one row before advance$"
    ):
        search.advance()
    while True:
        for part in np.array_split(np.arange(len(y)), 7):
            search.add(z[part], y[part])
        if search.advance():
            break
    single = z.astype(np.float32)
    assert logitlab.TemperatureScaling().fit(z, y).temperature_ == pytest.approx(
        search.temperature, rel=1e-9
    )
    assert logitlab.TemperatureScaling().fit(single, y).temperature_ == pytest.approx(
        search.temperature, rel=2e-7
    )


def test_transform_and_probabilities():
    """Logits divided by T; probabilities at the fitted temperature."""
    z, y = labelled()
    scaling = logitlab.TemperatureScaling().fit(z, y)
    np.testing.assert_array_equal(scaling.transform(z), z / scaling.temperature_)
    np.testing.assert_array_equal(
        scaling.predict_proba(z), logitlab.softmax(z, temperature=scaling.temperature_)
    )


def test_cross_fit_uses_the_other_folds():
    """Each fold is calibrated by a fit on the other one."""
    z, y = labelled()
    calibrated = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, rng=5)
    fold = np.random.default_rng(5).permutation(np.arange(len(y)) % 2)
    for k in (0, 1):
        fitted = logitlab.TemperatureScaling().fit(z[fold != k], y[fold != k])
        np.testing.assert_array_equal(calibrated[fold == k], fitted.transform(z[fold == k]))
    with pytest.raises(
        ValueError, match=f"cv must be from 2 to {len(y)}, the number of rows, got 1"
    ):
        logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, cv=1)


def test_cross_fit_with_a_splitter():
    """A scikit-learn splitter gives the folds; every row must be in one test fold."""
    z, y = labelled()
    splitter = StratifiedKFold(3, shuffle=True, random_state=0)
    calibrated = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, cv=splitter)
    for train, test in splitter.split(z, y):
        scaling = logitlab.TemperatureScaling().fit(z[train], y[train])
        np.testing.assert_array_equal(calibrated[test], scaling.transform(z[test]))
    for bad in (ShuffleSplit(2, random_state=0), RepeatedKFold(n_splits=2, n_repeats=2)):
        with pytest.raises(ValueError, match="cv must have every row in exactly one test fold"):
            logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, cv=bad)


@pytest.mark.parametrize(
    ("calibrator", "options", "message"),
    [
        ("a", {}, r"calibrator must have the methods fit\(z, y\) and transform\(z\), got a str"),
        (
            logitlab.TemperatureScaling,
            {},
            r"calibrator must be an instance, TemperatureScaling\(\), got the class",
        ),
        (
            logitlab.TemperatureScaling(),
            {"rng": "a"},
            "rng must be None, an int >= 0 or a numpy.random.Generator, got 'a'",
        ),
        (logitlab.TemperatureScaling(), {"cv": 2.0}, "cv must be an int, got 2.0"),
    ],
)
def test_cross_fit_arguments_of_wrong_types(calibrator, options, message):
    with pytest.raises(TypeError, match=message):
        logitlab.cross_fit(calibrator, *labelled(), **options)


@pytest.mark.parametrize("method", ["transform", "predict_proba", "predict"])
@pytest.mark.parametrize(
    "kind",
    [
        "TemperatureScaling",
        "VectorScaling",
        "MatrixScaling",
        "IsotonicCalibration",
        "StructuredVectorScaling",
        "StructuredMatrixScaling",
    ],
)
def test_not_fitted(monkeypatch, kind, method):
    """scikit-learn's error, or one with the same bases where scikit-learn is not installed."""
    z, calibrator = labelled()[0], getattr(logitlab, kind)()
    with pytest.raises(NotFittedError, match=f"this {kind} is not fitted yet"):
        getattr(calibrator, method)(z)
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(ValueError, match=f"this {kind} is not fitted yet") as caught:
        getattr(calibrator, method)(z)
    assert isinstance(caught.value, AttributeError)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, -1.0]], 1.0),
        ([[300.0, -300.0]], 3.0),
        ([[600.0, 0.0]], 3.0),
        ([[0.03, -0.03]], 0.3),
        ([[0.03, -0.03], [7.03, 6.97]], 0.3),
        ([[300.0, -300.0, -np.inf]], 3 * np.sqrt(2 / 3)),
        ([[300.0, -300.0], [np.inf, 2.0]], 3 * np.sqrt(1 / 2)),
        ([[1e308, -1e308]], 1e306),
        ([[1e-310, -1e-310]], 1e-309),
        ([[1e-310, -1e-310, -np.inf]], 1e-309 * np.sqrt(2 / 3)),
        ([[1.7e308, -1.7e308, -1.7e308]], 1.7e306 * np.sqrt(8 / 9)),
        ([[5.0, 5.0], [-3.0, -3.0]], 5.0),
        ([[-5.0, -5.0]], 5.0),
        ([[0.0, 0.0]], 1.0),
        ([[0.0, -np.inf]], 1.0),
    ],
)
def test_first_temperature_of_a_search(rows, expected):
    """1, or the nearest number from 1 % to 10 times the standard deviation of centred logits."""
    search = TemperatureSearch()
    search.add(np.empty((0, 2)), np.empty(0, np.int64))
    assert search.temperature is None
    with np.errstate(all="raise"):
        search.add(np.array(rows), np.zeros(len(rows), np.int64))
    assert search.temperature == pytest.approx(expected, rel=1e-12)


def test_first_temperature_comes_from_the_first_rows(monkeypatch):
    monkeypatch.setattr("logitlab.calibration.temperature._SUBSET", 5)
    search = TemperatureSearch()
    z = np.array([[300.0, -300.0]] * 2 + [[1e6, 0.0]])
    search.add(z, np.zeros(3, np.int64))
    assert search.temperature == pytest.approx(3, rel=1e-12)
    monkeypatch.setattr("logitlab.calibration.temperature._SUBSET", 1)
    search = TemperatureSearch()
    search.add(z[::-1], np.zeros(3, np.int64))
    assert search.temperature == pytest.approx(5e3, rel=1e-12)


@pytest.mark.parametrize("start", [1.0, 3.0, 0.02, 50.0])
def test_newton_step(start):
    """log T moves by slope / curvature of the weighted loss, at first by at most 2."""
    z, y = labelled()
    w = np.random.default_rng(1).random(len(y))
    search = TemperatureSearch(start)
    for part in (slice(None, 300), slice(300, None)):
        search.add(z[part], y[part], w[part])
    assert not search.advance()
    p = logitlab.softmax(z / start)
    mean = np.sum(p * z, axis=1)
    slope = w @ (mean - z[np.arange(len(y)), y]) / start
    curvature = w @ (np.sum(p * z**2, axis=1) - mean**2) / start**2
    step = np.clip(slope / curvature, -2, 2)
    assert search.temperature == pytest.approx(start * np.exp(step), rel=1e-9)


def passes(z, y, start=None):
    """Return the temperatures of every pass of a search."""
    search, temperatures = TemperatureSearch(start), []
    while True:
        search.add(z, y)
        temperatures.append(search.temperature)
        if search.advance():
            return [*temperatures, search.temperature]


def test_steps_grow_and_stay_between_the_bounds():
    """Limited steps double; a step beyond a temperature with the other sign of slope is halved."""
    z, y = labelled()
    steps = np.diff(np.log(passes(z, y, 1e-12)))
    np.testing.assert_allclose(steps[:3], [2, 4, 8], rtol=1e-12)
    assert len(passes(z, y)) <= 8


@pytest.mark.parametrize(
    ("z", "y", "t", "count"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], 0.0, 3),
        ([[0.0, 0.0], [3.0, 3.0]], [0, 1], 1.0, 3),
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], np.inf, 8),
    ],
)
def test_passes_to_a_limit(z, y, t, count):
    """Two where every label has the largest logit; otherwise after six that ask for a larger T."""
    result = passes(np.array(z), np.array(y))
    assert result[-1] == t
    assert len(result) == count


def pass_with_step(search, step):
    """A pass over two rows [d, 0] whose weights give log T this step; whether it is the last.

    With d/T = 2 and p the softmax of [2, 0], slope / curvature is 2 (p - w) / (4 p (1 - p)), for w
    the share of the row whose label has the larger logit.
    """
    z = np.array([[2.0, 0.0]] * 2) * search.temperature
    p = 1 / (1 + np.exp(-2.0))
    share = p - 2 * p * (1 - p) * step
    search.add(z, np.array([0, 1]), np.array([share, 1 - share]))
    return search.advance()


def test_a_search_has_at_most_300_passes():
    search = TemperatureSearch(1.0)
    for _ in range(299):
        assert not pass_with_step(search, -0.01)
    assert search.temperature == pytest.approx(np.exp(-2.99), rel=1e-9)
    assert pass_with_step(search, -0.01)
    assert search.temperature == pytest.approx(np.exp(-3), rel=1e-9)


@pytest.mark.parametrize("smaller", range(7))
def test_the_limit_is_examined_after_six_steps_to_larger_temperatures(smaller):
    """Not where a step to a smaller one is among them: a finite T is then the minimum."""
    search = TemperatureSearch(1.0)
    for i in range(6):
        before = search.temperature
        assert not pass_with_step(search, -0.01 if i == smaller else 0.01)
        assert (search.temperature == before) == (i == 5 and smaller == 6)


def test_far_starts_reach_the_minimum():
    """Also where the limits are examined before, in one pass at the same T, and T is larger."""
    z, y = labelled()
    best = passes(z, y)[-1]
    far = passes(z, y, 1e-300)
    assert far[-1] == pytest.approx(best, rel=1e-9)
    assert far[4] < far[5] == far[6] == far[7] < far[8]
    assert passes(z, y, 1e300)[-1] == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_temperatures_stay_inside_the_bracket(seed):
    """Every T is between the largest that was too small and the least that was too large; the
    search ends at a step of log T below 1e-5."""
    rng = np.random.default_rng(seed)
    z, y = rng.standard_normal((6, 3)) * 4, rng.integers(0, 3, 6)
    if np.mean(z - z[np.arange(6), y][:, None]) >= 0:
        y = z.argmax(axis=1)
        y[0] = z[0].argmin()
    bounds = [0.0, np.inf]
    temperatures = passes(z, y, np.exp(rng.uniform(-4, 4)))
    for t, following in itertools.pairwise(temperatures):
        p = logitlab.softmax(z, temperature=t)
        slope = np.sum(p * z) - z[np.arange(6), y].sum()
        bounds[int(slope < 0)] = t
        assert bounds[0] <= following <= bounds[1]
    steps = np.abs(np.diff(np.log(temperatures)))
    assert steps[-1] < 1e-5
    assert ((steps[:-1] >= 1e-5) | (steps[:-1] == 0)).all()  # 0: the limits are examined


@pytest.mark.parametrize("unit", [1.0, 1e-60])
@pytest.mark.parametrize("start", [None, 1e-60, 1e-300])
@pytest.mark.parametrize(("weights", "finite"), [((3, 2), True), ((2, 3), False), ((1, 1), False)])
def test_weights_decide_whether_the_limit_is_the_minimum(weights, finite, start, unit):
    """T is finite where the label with the larger logit has more weight; rows in several parts.
    Excluded classes, equal logits, rows with +inf and a common factor of weights do not count."""
    search = TemperatureSearch(start)
    for _ in range(40):
        for label, weight in enumerate(weights):
            row = np.array([[1.0, 0.0, -np.inf]])
            search.add(row, np.array([label]), np.array([weight * unit]))
        unchanging = np.array([[2.0, 2.0, -np.inf], [np.inf, 5.0, 0.0]])
        search.add(unchanging, np.array([0, 0]), np.array([7.0, 9.0]) * unit)
        if search.advance():
            break
    assert search.temperature == pytest.approx(1 / np.log(1.5) if finite else np.inf, rel=1e-9)


def temperature_of(z, y, weight=None):
    return fit_temperature(rows_in_memory(z, y, weight))


def test_fit_starts_from_evenly_spaced_rows(monkeypatch):
    """Where there are more than 4 times as many as the subset has, with their weights; all rows are
    then read in parts."""
    z, y = labelled(90)
    w = np.random.default_rng(1).random(90) + 0.1
    plain = temperature_of(z, y, w)
    calls = []
    moments = temperature_module.moments

    def recorded(z, y, t):
        calls.append((z, y, t))
        return moments(z, y, t)

    monkeypatch.setattr(temperature_module, "moments", recorded)
    monkeypatch.setattr(temperature_module, "_SUBSET", 104)
    monkeypatch.setattr(temperature_module, "_CHUNK", 200)
    assert temperature_of(z, y, w) == pytest.approx(plain, rel=1e-9)
    subset = [call for call in calls if len(call[1]) == 23]
    parts = calls[len(subset) :]
    for given, expected in zip(subset[0], (z, y), strict=False):
        np.testing.assert_array_equal(given, expected[::4])
    assert [len(y) for _, y, _ in parts[:3]] == [40, 40, 10]
    for given, expected in zip(zip(*parts[:3], strict=True), (z, y), strict=False):
        np.testing.assert_array_equal(np.concatenate(given), expected)
    assert parts[0][2] == temperature_of(z[::4], y[::4], w[::4])
    calls.clear()
    temperature_of(z[:80], y[:80])
    assert {len(y) for _, y, _ in calls} == {40}
    monkeypatch.setattr(temperature_module, "_SUBSET", 1)
    assert temperature_of(z, y) == pytest.approx(temperature_of(z, y, np.ones(90)), rel=1e-9)


@pytest.mark.parametrize("limit", [0.0, np.inf])
def test_a_limit_of_the_subset_is_no_start(limit, monkeypatch):
    """The fit of all rows starts at a first guess where the labels of every fourth row give a
    temperature of 0 or inf."""
    z, y = labelled(90)
    y[::4] = z[::4].argmax(axis=1) if limit == 0 else z[::4].argmin(axis=1)
    y[1::4] = z[1::4].argmax(axis=1)
    assert temperature_of(z[::4], y[::4]) == limit
    expected = temperature_of(z, y)
    assert 0 < expected < np.inf
    monkeypatch.setattr("logitlab.calibration.temperature._SUBSET", 104)
    assert temperature_of(z, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("row", [0, 4, 7, 80, 89])
def test_number_of_a_row_that_is_refused_in_parts(row, monkeypatch):
    """It counts all rows, also where a subset of them is read first."""
    z, y = labelled(90)
    z[row] = np.nan
    for subset, chunk in ((104, 200), (1 << 20, 35), (104, 1 << 20)):
        monkeypatch.setattr("logitlab.calibration.temperature._SUBSET", subset)
        monkeypatch.setattr("logitlab.calibration.temperature._CHUNK", chunk)
        with pytest.raises(ValueError, match=rf"^row {row} of z holds NaN"):
            logitlab.TemperatureScaling().fit(z, y)


class Recorder:
    """A calibrator that notes the rows of its fit and returns their number."""

    def fit(self, z, y):
        assert len(z) == len(y)
        self.rows = z[:, 0].astype(int)
        assert (y == self.rows % 2).all()

    def transform(self, z):
        return np.full_like(z, len(self.rows))


def test_folds_of_cross_fit():
    """2 random folds of the seed 0 by default; sizes differ by at most one; z keeps its shape."""
    z = np.stack([np.arange(11.0), np.zeros(11)], axis=1)
    y = np.arange(11) % 2
    recorder = Recorder()
    result = logitlab.cross_fit(recorder, z, y)
    assert not hasattr(recorder, "rows")
    assert sorted(result[:, 0]) == [5] * 6 + [6] * 5
    np.testing.assert_array_equal(result, logitlab.cross_fit(recorder, z, y, cv=2, rng=0))
    thirds = logitlab.cross_fit(recorder, z, y, cv=3, rng=1)
    assert sorted(thirds[:, 0]) == [7] * 8 + [8] * 3
    every = logitlab.cross_fit(recorder, z, y, cv=11)
    np.testing.assert_array_equal(every, np.full((11, 2), 10.0))
    single = z[:10].reshape(2, 5, 2).astype(np.float32)
    nested = logitlab.cross_fit(recorder, single, y[:10].reshape(2, 5))
    assert nested.dtype == np.float32
    np.testing.assert_array_equal(nested, np.full((2, 5, 2), 5.0))


def test_splitter_must_test_every_row_once():
    """The error names the first row that it does not."""

    class Splitter:
        def __init__(self, *folds):
            self.folds = folds

        def split(self, z, y):
            assert len(z) == len(y) == 4
            return [([0, 1, 2, 3], fold) for fold in self.folds]

    z, y = np.stack([np.arange(4.0), np.zeros(4)], axis=1), np.arange(4) % 2
    message = "^cv must have every row in exactly one test fold, got row {} in {} test folds$"
    for folds, row, count in (([[0, 1], [1, 3]], 1, 2), ([[0], [2, 3]], 1, 0), ([[3, 3]], 0, 0)):
        with pytest.raises(ValueError, match=message.format(row, count)):
            logitlab.cross_fit(Recorder(), z, y, cv=Splitter(*folds))
    result = logitlab.cross_fit(Recorder(), z, y, cv=Splitter([2, 0], [3, 1]))
    np.testing.assert_array_equal(result, np.full((4, 2), 4.0))


def test_calibrator_must_have_both_methods():
    z, y = labelled(10)
    for name in ("fit", "transform"):
        half = type("Half", (), {name: lambda *rows: rows})()
        with pytest.raises(
            TypeError, match=r"^calibrator must have the methods fit\(z, y\) and .*, got a Half$"
        ):
            logitlab.cross_fit(half, z, y)


@pytest.mark.parametrize(
    ("t", "z", "expected"),
    [
        (0.0, [[1, 2, 0], [3, 3, -np.inf]], [[-np.inf, 0, -np.inf], [0, 0, -np.inf]]),
        (np.inf, [[1, 2, 0], [3, 3, -np.inf]], [[0, 0, 0], [0, 0, -np.inf]]),
        (0.0, [[1, np.nan, 0]], [[np.nan] * 3]),
        (np.inf, [[1, np.nan, 0]], [[np.nan] * 3]),
        (1e-300, [[1e200, 1, -1e200]], [[np.inf, 1 / 1e-300, -np.inf]]),
        (1e300, [[1e-200, 1e300, -np.inf]], [[0, 1, -np.inf]]),
    ],
)
def test_transform_at_extreme_temperatures(t, z, expected):
    """0 for the classes left at a limit, -inf for the others; no warning."""
    scaling = logitlab.TemperatureScaling().fit(*labelled(50, 3))
    scaling.temperature_ = t
    with np.errstate(all="raise"):
        result = scaling.transform(np.array(z, float))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([np.nan, 1], "holds NaN, or only -inf: it has no distribution"),
        ([-np.inf, -np.inf], "holds NaN, or only -inf: it has no distribution"),
        ([-np.inf, 1], "has the logit -inf for its label: its log-loss is infinite"),
        ([1, np.inf], "has +inf for a class that is not its label: its log-loss is infinite"),
    ],
)
def test_message_of_a_row_that_is_refused(bad, message):
    z = np.ones((6, 2))
    z[1] = np.inf, 0  # the label has the logit +inf: a loss of 0
    z[[3, 5]] = bad
    with pytest.raises(ValueError, match=f"^row 3 of z {re.escape(message)}$"):
        logitlab.TemperatureScaling().fit(z, np.zeros(6, int))


def test_cross_fit_copies_the_calibrator_once_a_fold():
    """Also the objects that it holds."""
    fits = []

    class Nested(Recorder):
        def __init__(self):
            self.history = []

        def fit(self, z, y):
            super().fit(z, y)
            assert not self.history
            self.history.append(len(z))
            fits.append(len(z))

    z, y = np.stack([np.arange(9.0), np.zeros(9)], axis=1), np.arange(9) % 2
    calibrator = Nested()
    logitlab.cross_fit(calibrator, z, y, cv=3)
    assert fits == [6, 6, 6]
    assert calibrator.history == []


def test_search_at_the_smallest_temperatures():
    """Gaps of logits that overflow when divided by T are compared all the same."""
    y = np.array([0, 1])
    starts = [(1e30, t) for t in (1e-320, 1e-300, 1e-280, 1.0)]
    starts += [(1e-30, 1e-320), (1e-30, 1e-300), (1e-100, 1e-320)]
    for gap, start in starts:
        z = np.array([[gap, 0.0], [gap, 0.0]])
        search = TemperatureSearch(start)
        for _ in range(400):
            search.add(z, y)
            if search.advance():
                break
        assert search.temperature == np.inf
