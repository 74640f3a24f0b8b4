"""Calibrators of two classes: beta calibration and Platt scaling."""

import array_api_strict
import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.optimize
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score

import logitlab
from logitlab.onnx import to_onnx

BOTH = [logitlab.BetaCalibration, logitlab.PlattScaling]


def scores(n=2000, seed=0):
    """Scores of class 1 that are overconfident above 0, as rows [0, s], and labels."""
    rng = np.random.default_rng(seed)
    s = rng.standard_normal(n) * 3
    y = (np.where(s > 0, 0.2, 0.6) * s + 0.5 + rng.logistic(size=n) > 0).astype(int)
    return np.stack([np.zeros(n), s], axis=1), y


class Scores(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose decision function is the only feature."""

    classes_ = np.array([0, 1])

    def decision_function(self, x):
        return x[:, 0]

    def fit(self, x, y):
        return self

    def predict(self, x):
        return (x[:, 0] > 0).astype(int)

    def __sklearn_is_fitted__(self):
        return True


def test_platt_scaling_is_that_of_scikit_learn():
    z, y = scores()
    model = CalibratedClassifierCV(FrozenEstimator(Scores()), method="sigmoid", ensemble=False)
    expected = model.fit(z[:, 1:], y).predict_proba(z[:, 1:])
    p = logitlab.PlattScaling().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-6)


def test_beta_calibration_is_that_of_betacal():
    """In betacal the fit stops early: its parameters have four digits."""
    betacal = pytest.importorskip("betacal")
    z, y = scores()
    given = logitlab.softmax(z)[:, 1]
    expected = betacal.BetaCalibration().fit(given[:, None], y)
    beta = logitlab.BetaCalibration().fit(z, y)
    assert (beta.a_, beta.b_) == pytest.approx(expected.calibrator_.map_[:2], abs=1e-3)
    p = beta.predict_proba(z)[:, 1]
    np.testing.assert_allclose(p, expected.predict(given), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sign", "positive"),
    [((1, 1), (True, True)), ((-1, 1), (False, True)), ((1, -1), (True, False))],
)
def test_minimum_of_beta_calibration(sign, positive):
    """The parameters are those of SciPy's bounded minimization; some are at the bound 0."""
    rng = np.random.default_rng(0)
    s = rng.standard_normal(3000) * 2
    a, b = sign
    odds = -a * np.logaddexp(0, -s) + b * np.logaddexp(0, s) + 0.3
    y = (odds + rng.logistic(size=len(s)) > 0).astype(int)
    weight = rng.random(len(s))
    z = np.stack([np.zeros(len(s)), s], axis=1)
    beta = logitlab.BetaCalibration().fit(z, y, weight)

    def loss(theta):
        t = -theta[0] * np.logaddexp(0, -s) + theta[1] * np.logaddexp(0, s) + theta[2]
        return np.average(np.logaddexp(0, t) - y * t, weights=weight)

    bounds = [(0, None), (0, None), (None, None)]
    best = scipy.optimize.minimize(loss, [1, 1, 0], bounds=bounds, options={"ftol": 1e-15})
    ours = np.array([beta.a_, beta.b_, beta.c_])
    np.testing.assert_allclose(ours, best.x, atol=2e-3)
    assert loss(ours) <= best.fun + 1e-12
    assert tuple(ours[:2] > 0) == positive


def test_labels_against_the_scores():
    """Beta calibration gives the frequency, Platt scaling a negative slope."""
    z = scores()[0]
    y = (z[:, 1] < 0).astype(int)
    beta = logitlab.BetaCalibration().fit(z, y)
    assert beta.a_ == beta.b_ == 0
    np.testing.assert_allclose(beta.predict_proba(z)[:, 1], y.mean(), rtol=1e-9)
    assert logitlab.PlattScaling().fit(z, y).slope_ < 0


@pytest.mark.parametrize("kind", BOTH)
def test_invariance(kind):
    """Shifts of rows, units of weights and other orders of the rows change nothing."""
    z, y = scores(400)
    weight = np.random.default_rng(1).integers(1, 4, 400)
    p = kind().fit(z, y, weight).predict_proba(z)
    shifted = z + np.arange(400)[:, None]
    q = kind().fit(shifted[::-1], y[::-1], weight[::-1] / 1000).predict_proba(shifted)
    np.testing.assert_allclose(q, p, rtol=0, atol=1e-8)
    swapped = kind().fit(z[:, ::-1], 1 - y, weight).predict_proba(z[:, ::-1])
    np.testing.assert_allclose(swapped[:, ::-1], p, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", BOTH)
def test_extreme_rows(kind):
    """Excluded classes, separable and huge logits, one label, NaN."""
    z, y = scores(400)
    wide = np.concatenate([z, [[-np.inf, 3], [5, -np.inf]]])
    fitted = kind().fit(wide, np.append(y, [1, 0]))
    np.testing.assert_array_equal(fitted.predict_proba(wide)[-2:], [[0, 1], [1, 0]])
    if kind is logitlab.BetaCalibration:
        expected = kind().fit(z, y).predict_proba(z)
        np.testing.assert_allclose(fitted.predict_proba(z), expected, rtol=0, atol=1e-8)
    assert np.isnan(fitted.predict_proba([[0, np.nan], [-np.inf, -np.inf]])).all()
    for labels in ((z[:, 1] > 0).astype(int), np.ones(400, int)):
        p = kind().fit(z, labels).predict_proba(z)
        assert np.isfinite(p).all()
        assert (p.argmax(axis=1) == labels).all()
    p = kind().fit(z, y).predict_proba(np.array([[-1e308, 1e308], [1e308, -1e308]]))
    assert np.isfinite(p).all()
    assert (p.argmax(axis=1) == [1, 0]).all()
    with pytest.raises(ValueError, match=r"row 1 of z holds \+inf"):
        fitted.transform([[0, 1], [0, np.inf]])
    with pytest.raises(ValueError, match="z must have a row without -inf"):
        kind().fit([[-np.inf, 0]], [1])
    with pytest.raises(
        ValueError, match=rf"shape \(..., 2\): {kind.__name__} is for two classes, got 3 classes"
    ):
        kind().fit(np.zeros((2, 3)), [0, 1])


@pytest.mark.parametrize("kind", BOTH)
def test_conventions(kind, tmp_path):
    """Array types, files, clones, scikit-learn's scores, cross-fitting, arguments."""
    z, y = scores()
    before = z.copy()
    calibrator = clone(kind()).fit(z, y)
    expected = calibrator.transform(z)
    for convert in (torch.from_numpy, array_api_strict.asarray):
        result = calibrator.transform(convert(z))
        assert type(result) is type(convert(z))
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-12)
    assert calibrator.transform(z.astype(np.float16)).dtype == np.float16
    assert calibrator.transform(z.reshape(20, 100, 2)).shape == (20, 100, 2)
    calibrator.save(tmp_path / "file")
    loaded = logitlab.load_calibrator(tmp_path / "file")
    assert type(loaded) is kind
    np.testing.assert_array_equal(loaded.transform(z), expected)
    assert cross_val_score(kind(), z, y, scoring="neg_log_loss", error_score="raise").shape == (5,)
    calibrated = logitlab.cross_fit(kind(), z, y)
    assert logitlab.cross_entropy(calibrated, y) < logitlab.cross_entropy(z, y) - 0.05
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_onnx(kind, dtype):
    calibrator = kind().fit(*scores())
    model = to_onnx(calibrator, dtype=dtype)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    z = scores(50, seed=1)[0].astype(dtype)
    z[0, 0], z[1, 1], z[2] = -np.inf, -np.inf, [0, 900]
    probabilities, predicted = session.run(None, {"logits": z})
    np.testing.assert_allclose(probabilities, calibrator.predict_proba(z), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(predicted, calibrator.predict(z))


@pytest.mark.parametrize("kind", [logitlab.BetaCalibration, logitlab.PlattScaling])
def test_nan_is_nan(kind):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 2))
    calibrator = kind().fit(z, rng.integers(0, 2, 50))
    undefined = np.array([[np.nan, -np.inf], [-np.inf, np.nan], [np.nan, 1], [0, np.nan]])
    assert np.isnan(calibrator.predict_proba(undefined)).all()
    for dtype in (np.float16, np.float32):
        largest = np.finfo(dtype).max
        assert not np.isnan(calibrator.predict_proba(np.array([[largest, -largest]], dtype))).any()
