"""Isotonic calibration: the function, the distribution, excluded classes, real predictions."""

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression as scipy_isotonic_regression
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression

import logitlab
from logitlab._bins import isotonic_regression
from logitlab.calibration.isotonic import isotonic_frequencies

pytestmark = pytest.mark.slow


def overconfident(n=1500, k=4, seed=0):
    """Logits that are overconfident where they are confident."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 4
    return z, (np.sign(z) * np.abs(z) ** 0.5 * 1.5 + rng.gumbel(size=z.shape)).argmax(axis=1)


def test_isotonic_regression():
    """The result of SciPy's, with ties, blocks to pool on both sides, and weights."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 50, 400):
        for decimals in (1, 8):
            y, weight = rng.random(size).round(decimals), rng.integers(1, 9, size).astype(float)
            expected = scipy_isotonic_regression(y, weights=weight).x
            np.testing.assert_array_equal(isotonic_regression(y, weight), expected)


def test_isotonic_frequencies():
    """Between the values, those of scikit-learn, with tied values."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 30, 200) / 30
    rows = rng.integers(1, 9, 200).astype(float)
    events = np.floor(rng.random(200) * (rows + 1))
    model = IsotonicRegression(out_of_bounds="clip").fit(x, events / rows, sample_weight=rows)
    at = np.linspace(-0.1, 1.1, 99)
    values, total, frequencies = isotonic_frequencies(x, events, rows)
    np.testing.assert_allclose(np.interp(at, values, frequencies), model.predict(at))
    assert total.sum() == rows.sum()


@pytest.mark.parametrize("decimals", [0, 8])
def test_accuracy_is_that_of_scikit_learn(decimals):
    """Its groups of equal accuracy, of weighted and of tied rows, at their mean log-odds."""
    z, y = overconfident()
    z = z.round(decimals)
    weight = np.random.default_rng(1).random(len(y))
    isotonic = logitlab.IsotonicCalibration().fit(z, y, weight)
    p = logitlab.TemperatureScaling().fit(z, y, weight).predict_proba(z)
    log_odds = np.log(p.max(axis=1) / (1 - p.max(axis=1))).round(10)
    expected = IsotonicRegression().fit(log_odds, p.argmax(axis=1) == y, weight)
    accuracy = expected.predict(log_odds).round(12)
    groups = np.unique(accuracy)
    means = [np.average(log_odds[accuracy == a], weights=weight[accuracy == a]) for a in groups]
    np.testing.assert_allclose(isotonic.log_odds_, means, atol=1e-6)
    inner = (groups > 0) & (groups < 1)
    assert inner.sum() > 10
    values = 1 / (1 + np.exp(-isotonic.calibrated_log_odds_))
    np.testing.assert_allclose(values[inner], groups[inner], atol=1e-9)


def test_groups_without_errors_or_without_correct_predictions():
    """They have the log-odds after temperature scaling, and those of 1 / K."""
    c = np.array([0.5, 1, 2, 4, 5])
    isotonic = logitlab.IsotonicCalibration().fit(c[:, None] * [1, 0, 0], [1, 0, 2, 0, 0])
    log_odds = c / isotonic.temperature_ - np.log(2)
    expected = [log_odds[0], log_odds[1:3].mean(), log_odds[3:].mean()]
    np.testing.assert_allclose(isotonic.log_odds_, expected, atol=1e-9)
    expected = [-np.log(2), 0, log_odds[3:].mean()]
    np.testing.assert_allclose(isotonic.calibrated_log_odds_, expected, atol=1e-9)
    few = logitlab.IsotonicCalibration().fit([[1.0, 0]] * 3 + [[2.0, 0]] * 9, [1] * 10 + [0] * 2)
    np.testing.assert_allclose(few.calibrated_log_odds_, np.log(2 / 7), atol=1e-9)


def test_distribution():
    """The other classes keep their ratios, their order and the predicted class."""
    z, y = overconfident()
    isotonic = logitlab.IsotonicCalibration().fit(z, y)
    z = np.concatenate([z, np.random.default_rng(2).standard_normal((2000, 4)) / 10])
    p, scaled = isotonic.predict_proba(z), logitlab.softmax(z, temperature=isotonic.temperature_)
    top = z.argmax(axis=1)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(isotonic.predict(z), top)
    np.testing.assert_array_equal(p.argmax(axis=1), top)
    np.testing.assert_array_equal(np.argsort(p, axis=1), np.argsort(z, axis=1))
    other = np.arange(4) != top[:, None]
    ratios = (p / scaled)[other].reshape(-1, 3)
    np.testing.assert_allclose(ratios, np.repeat(ratios[:, :1], 3, axis=1), rtol=1e-12)
    # The probability of the predicted class is the fitted function, or it is at the limit.
    q, ordered = scaled.max(axis=1), np.sort(p, axis=1)
    x = np.log(q / (1 - q))
    function = np.interp(x, isotonic.log_odds_, isotonic.calibrated_log_odds_)
    at_limit = np.log(ordered[:, -1] / ordered[:, -2]) < 2**-10 * (1 + 1e-9)
    assert 500 < at_limit.sum() < 2500
    np.testing.assert_allclose(
        ordered[~at_limit, -1], 1 / (1 + np.exp(-function[~at_limit])), rtol=1e-9
    )
    assert (ordered[at_limit, -1] >= 1 / (1 + np.exp(-function[at_limit])) - 1e-12).all()


def test_equal_largest_logits():
    """The first stays the predicted class, before and after the others."""
    isotonic = logitlab.IsotonicCalibration().fit(*overconfident())
    for row in ([1.0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [-np.inf, 5, 5, -np.inf]):
        z = np.array(row)
        assert isotonic.predict(z) == z.argmax() == isotonic.predict_proba(z).argmax()


def test_more_confident_is_more_probable():
    """Calibrated probabilities of the predicted class ascend with those before."""
    isotonic = logitlab.IsotonicCalibration().fit(*overconfident())
    z = np.linspace(0, 30, 400)[:, None] * [1, 0, 0, 0]
    p = isotonic.predict_proba(z)[:, 0]
    assert (np.diff(p) >= 0).all()
    assert p[-1] < 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_array_libraries(dtype):
    isotonic = logitlab.IsotonicCalibration().fit(*overconfident())
    z = overconfident(60, seed=1)[0].astype(dtype).reshape(3, 20, 4)
    z[0, 0], z[0, 1, 2], z[0, 2, :3], z[0, 3] = np.nan, -np.inf, -np.inf, -np.inf
    expected = isotonic.transform(z)
    assert expected.dtype == dtype
    np.testing.assert_allclose(
        expected, isotonic.transform(z.astype(float)), rtol=0, atol=50 * np.finfo(dtype).eps
    )
    for convert in (torch.from_numpy, jnp.asarray, array_api_strict.asarray):
        if convert is not torch.from_numpy and dtype != np.float32:
            continue
        given = convert(z)
        result = isotonic.transform(given)
        assert type(result) is type(given)
        assert result.dtype == given.dtype
        np.testing.assert_allclose(np.asarray(result), expected, rtol=0, atol=2e-5)


def test_rows_without_a_choice():
    """One class, rows with one class that is not excluded, NaN, and rows without a distribution."""
    z, y = overconfident()
    z[:9] = -np.inf
    z[np.arange(9), y[:9]] = 1
    isotonic = logitlab.IsotonicCalibration().fit(z, y)
    np.testing.assert_array_equal(isotonic.predict_proba(z)[:9], np.eye(4)[y[:9]])
    expected = logitlab.IsotonicCalibration().fit(z[9:], y[9:])
    np.testing.assert_allclose(isotonic.predict_proba(z), expected.predict_proba(z), atol=1e-8)
    assert np.isnan(isotonic.predict_proba([[0, np.nan, 0, 0], [-np.inf] * 4])).all()
    single = logitlab.IsotonicCalibration().fit(np.zeros((3, 1)), [0, 0, 0])
    np.testing.assert_array_equal(single.predict_proba(np.ones((2, 1))), 1)
    for bad in (np.array([[0, np.inf, 0, 0]]), torch.tensor([[0, np.inf, 0, 0]])):
        with pytest.raises(ValueError, match=r"row 0 of z holds \+inf; logits must be finite"):
            isotonic.transform(bad)
    with pytest.raises(ValueError, match=r"row 1 of z holds \+inf"):
        logitlab.IsotonicCalibration().fit([[0, 1], [0, np.inf]], [0, 1])


def test_excluded_class():
    z, y = overconfident()
    wide = np.concatenate([z, np.full((len(z), 1), -np.inf)], axis=1)
    p = logitlab.IsotonicCalibration().fit(wide, y).predict_proba(wide)
    expected = logitlab.IsotonicCalibration().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(p[:, :4], expected, atol=1e-8)
    assert (p[:, 4] == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30, 2.0**1019])
def test_any_scale(scale):
    z, y = overconfident()
    p = logitlab.IsotonicCalibration().fit(z * scale, y).predict_proba(z * scale)
    expected = logitlab.IsotonicCalibration().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-6)


def test_fit_depends_on_the_weighted_rows_alone():
    """Repeated rows, other orders of rows and other units of weights change nothing."""
    z, y = overconfident(300)
    weight = np.random.default_rng(1).integers(0, 4, len(y))
    p = logitlab.IsotonicCalibration().fit(z, y, weight).predict_proba(z)
    rows = np.random.default_rng(2).permutation(len(y))
    for other in (
        (np.repeat(z, weight, axis=0), np.repeat(y, weight)),
        (z[rows], y[rows], weight[rows]),
        (z + np.arange(300)[:, None], y, weight / 1000),
    ):
        q = logitlab.IsotonicCalibration().fit(*other).predict_proba(z)
        np.testing.assert_allclose(q, p, rtol=0, atol=1e-8)


def test_all_correct_or_all_incorrect():
    """No calibrated probability is 0 or 1."""
    z = np.random.default_rng(0).standard_normal((50, 3)) * 5
    right = logitlab.IsotonicCalibration().fit(z, z.argmax(axis=1))
    assert right.temperature_ == 1
    assert 0.9 < right.predict_proba(z).max() < 1
    wrong = logitlab.IsotonicCalibration().fit(z, z.argmin(axis=1))
    assert (wrong.predict_proba(z).max(axis=1) <= 0.5 + 1e-3).all()
    np.testing.assert_array_equal(wrong.predict(z), z.argmax(axis=1))
    one = logitlab.IsotonicCalibration().fit([[800.0, 0.0]], [0])
    assert one.log_odds_ == one.calibrated_log_odds_ == 800
    assert np.isfinite(one.transform([[1e300, 0.0]])).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("log_odds_", [1.0, 0.0], "log_odds_ must be ascending, with at least one number"),
        ("log_odds_", [], "log_odds_ must be ascending, with at least one number"),
        ("log_odds_", [[0.0, 1.0]], r"log_odds_ must be float64 of shape \(1,\), got float64 of"),
        ("calibrated_log_odds_", [0.0], r"must be float64 of shape \(2,\), got float64 of shape"),
        ("calibrated_log_odds_", [0.0, np.inf], "calibrated_log_odds_ must be finite"),
        ("temperature_", 0.0, "temperature_ must be > 0, got 0.0"),
    ],
)
def test_damaged_files(name, value, message, tmp_path):
    isotonic = logitlab.IsotonicCalibration().fit([[1.0, 0.0], [1.0, 0.0]], [0, 1])
    isotonic.log_odds_ = isotonic.calibrated_log_odds_ = np.array([0.0, 1.0])
    setattr(isotonic, name, np.array(value))
    isotonic.save(tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        logitlab.load_calibrator(tmp_path / "file")


def test_real_predictions(predictions):
    """Cross-fitted: the calibration error is a quarter of that of matrix scaling on 100 classes."""
    path, p, y = predictions
    z = np.asarray(logitlab.logits(p.astype(np.float64)))
    calibrated = logitlab.cross_fit(logitlab.IsotonicCalibration(), z, y)
    scaled = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    assert logitlab.accuracy(calibrated, y) == logitlab.accuracy(z, y)
    loss, before = (logitlab.cross_entropy(x, y) for x in (calibrated, scaled))
    error = logitlab.calibration_error(calibrated, y)
    if path.stem.endswith("-10"):
        assert loss < before
        assert error == pytest.approx(0.0058, abs=5e-4)
    else:
        assert loss < before - 0.01
        assert error == pytest.approx(0.0092, abs=5e-4)
        assert logitlab.calibration_error(scaled, y) > 0.04


def test_base():
    """The function is that of the cross-fitted logits of the base, which is fitted on all rows."""
    z, y = overconfident()
    z = z * np.linspace(0.5, 2, z.shape[1])
    weight = np.random.default_rng(0).random(len(y))
    base = logitlab.VectorScaling()
    isotonic = logitlab.IsotonicCalibration(base).fit(z, y, weight)
    assert not hasattr(base, "scale_")
    scaled = base.fit(z, y, weight).transform(z)
    folds = logitlab.calibration.random_folds(len(y), 5, 0)
    held_out = np.empty_like(z)
    for k in range(5):
        train = folds != k
        fold = logitlab.VectorScaling().fit(z[train], y[train], weight[train])
        held_out[~train] = fold.transform(z[~train])
    expected = logitlab.IsotonicCalibration().fit(held_out, y, weight)
    np.testing.assert_allclose(isotonic.log_odds_, expected.log_odds_, atol=1e-3)
    np.testing.assert_allclose(isotonic.predict_proba(z), expected.predict_proba(scaled), atol=1e-3)
    np.testing.assert_array_equal(isotonic.predict(z), scaled.argmax(axis=1))
    assert clone(isotonic).base is not base
    for bad in ("matrix", logitlab.MatrixScaling):
        with pytest.raises(TypeError, match="base must be a calibrator or None, got"):
            logitlab.IsotonicCalibration(bad).fit(z, y)
    with pytest.raises(ValueError, match="z must have at least 2 rows"):
        logitlab.IsotonicCalibration(base).fit(z[:1], y[:1])
    z[7, 1] = -np.inf
    with pytest.raises(ValueError, match="row 7 of z holds an infinite logit"):
        logitlab.IsotonicCalibration(logitlab.MatrixScaling()).fit(z, y)


def test_base_on_real_predictions(predictions):
    """After matrix scaling, the calibration error on 100 classes is that of the noise."""
    path, p, y = predictions
    z = np.asarray(logitlab.logits(p.astype(np.float64)))
    calibrator = logitlab.IsotonicCalibration(logitlab.StructuredMatrixScaling())
    calibrated = logitlab.cross_fit(calibrator, z, y)
    loss, error = logitlab.cross_entropy(calibrated, y), logitlab.calibration_error(calibrated, y)
    ten = path.stem.endswith("-10")
    assert loss == pytest.approx(0.2384 if ten else 0.9202, abs=1e-3)
    assert error == pytest.approx(0.0069 if ten else 0.0087, abs=2e-3)


def test_values_that_are_equal_in_the_type_of_the_logits():
    """Two values of the fitted function may round to one number."""
    z = np.array([[4.0, 0]] * 4 + [[4 + 1e-8, 0]] * 4 + [[1, 0]] * 4)
    y = [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0]
    calibrator = logitlab.IsotonicCalibration().fit(z, y)
    for dtype in (np.float16, np.float32, np.float64):
        p = calibrator.predict_proba(np.array([[21, 0], [4, 0], [1, 0]], dtype))
        assert np.isfinite(p).all()
        assert (p[:, 0] >= 0.5).all()
