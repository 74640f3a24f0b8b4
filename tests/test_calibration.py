"""Temperature scaling: the minimum is found, or the reason why there is none is given."""

import numpy as np
import pytest
import scipy.optimize

import logitlab


def log_loss(z, y, t=1.0):
    return -np.mean(logitlab.log_softmax(z, temperature=t)[np.arange(len(y)), y])


def labelled(n=800, k=5, true_temperature=1.7, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 4
    p = logitlab.softmax(z, temperature=true_temperature)
    return z, np.array([rng.choice(k, p=row) for row in p])


def test_published_temperatures(predictions):
    """Two wide residual networks: the temperature and the log-loss that it reaches."""
    path, p, y = predictions
    z = logitlab.logits(p)
    few = path.stem.endswith("-10")
    t = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert t == pytest.approx(2.053 if few else 1.111, abs=5e-4)
    honest = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    assert log_loss(z, y) == pytest.approx(0.3782 if few else 0.9564, abs=5e-5)
    assert log_loss(honest, y) == pytest.approx(0.2746 if few else 0.9476, abs=5e-4)
    assert logitlab.accuracy(honest, y) == logitlab.accuracy(z, y)
    assert not few or logitlab.calibration_error(honest, y) < 0.0115


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1, 1e30, 1e300])
@pytest.mark.parametrize("shift", [0, 1])
def test_the_minimum_is_found_at_any_scale(scale, shift):
    """T is scaled as the logits are; a shift of the row changes nothing."""
    z, y = labelled()
    best = scipy.optimize.minimize_scalar(
        lambda log_t: log_loss(z, y, np.exp(log_t)), bounds=(-3, 3), options={"xatol": 1e-10}
    )
    moved = (z + shift * np.arange(len(z))[:, None] / len(z)) * scale
    t = logitlab.TemperatureScaling().fit(moved, y).temperature_ / scale
    assert t == pytest.approx(np.exp(best.x), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, int])
def test_any_type(dtype):
    """Half types and integers are as good as float64."""
    z, y = labelled()
    z = (z * 10).astype(dtype)
    expected = logitlab.TemperatureScaling().fit(z.astype(float), y).temperature_
    found = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert found == pytest.approx(expected, rel=1e-9)


def test_excluded_classes_and_infinite_rows():
    """-inf excludes a class; a row with +inf at its label costs the same at every T."""
    z, y = labelled()
    wide = np.concatenate([z, np.full((len(z), 1), -np.inf)], axis=1)
    with_inf = np.vstack([wide, np.where(np.arange(6) == 2, np.inf, 0)[None]])
    expected = logitlab.TemperatureScaling().fit(z, y).temperature_
    found = logitlab.TemperatureScaling().fit(with_inf, [*y, 2]).temperature_
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("z", "y", "why"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], "ranks its label first in every row"),
        ([[0.0, 0.0], [0.0, 0.0]], [0, 1], "ranks its label first in every row"),
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], "speaks against"),
        ([[5.0, -np.inf], [0.0, 5.0]], [1, 0], "row 0 of z gives its label the logit -inf"),
        ([[5.0, np.inf], [0.0, 5.0]], [0, 0], "row 0 of z has \\+inf beside its label"),
        ([[5.0, 0.0], [np.nan, 5.0]], [0, 0], "row 1 of z holds NaN"),
    ],
)
def test_no_temperature(z, y, why):
    """Never 1386304 and never a negative one: an error that says why."""
    with pytest.raises(ValueError, match=why):
        logitlab.TemperatureScaling().fit(z, y)


def test_transform_and_probabilities():
    """Logits over T; probabilities as if in exact arithmetic."""
    z, y = labelled()
    scaling = logitlab.TemperatureScaling().fit(z, y)
    np.testing.assert_array_equal(scaling.transform(z), z / scaling.temperature_)
    np.testing.assert_array_equal(
        scaling.predict_proba(z), logitlab.softmax(z, temperature=scaling.temperature_)
    )


def test_cross_fit_never_judges_what_it_saw():
    """Each fold is calibrated by the other: refitting by hand gives the same."""
    z, y = labelled()
    honest = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, rng=5)
    fold = np.random.default_rng(5).permutation(np.arange(len(y)) % 2)
    for k in (0, 1):
        fitted = logitlab.TemperatureScaling().fit(z[fold != k], y[fold != k])
        np.testing.assert_array_equal(honest[fold == k], fitted.transform(z[fold == k]))
    with pytest.raises(ValueError, match="folds is 1"):
        logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, folds=1)
