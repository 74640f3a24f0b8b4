"""ONNX models give the results of the estimators that they were made of."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest

import logitlab
from logitlab.onnx import to_onnx

CALIBRATORS = [
    logitlab.TemperatureScaling,
    logitlab.VectorScaling,
    logitlab.MatrixScaling,
    logitlab.IsotonicCalibration,
    logitlab.StructuredVectorScaling,
    logitlab.StructuredMatrixScaling,
]


def run(model, x):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})


def rows(n=300, k=5):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (n, k))
    return z, (z / 2 + rng.gumbel(size=z.shape)).argmax(1)


@pytest.mark.parametrize("kind", CALIBRATORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calibrators(kind, dtype):
    calibrator = kind().fit(*rows())
    model = to_onnx(calibrator, dtype=dtype)
    for n in (0, 1, 300):
        z = np.random.default_rng(1).normal(0, 3, (n, 5)).astype(dtype)
        if kind not in (logitlab.MatrixScaling, logitlab.StructuredMatrixScaling):
            z[:1, 1] = -np.inf
        probabilities, predicted = run(model, z)
        assert probabilities.dtype == dtype
        np.testing.assert_allclose(probabilities, calibrator.predict_proba(z), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(predicted, calibrator.predict(z))


@pytest.mark.parametrize("kind", [*CALIBRATORS, logitlab.PlattScaling, logitlab.BetaCalibration])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 1e-3])
def test_extreme_logits(kind, dtype, scale):
    """Wherever the library has a distribution; `scale` makes intermediate results overflow."""
    k = 2 if kind in (logitlab.PlattScaling, logitlab.BetaCalibration) else 3
    z, y = rows(k=k)
    calibrator = kind().fit(scale * z, y)
    largest = np.finfo(dtype).max
    entries = [0, -1, 50, -200, 1e4, -1e10, 1e30, -1e30, 3e38, -3e38, largest, -largest, 1e-40]
    if kind not in (logitlab.MatrixScaling, logitlab.StructuredMatrixScaling):
        entries.append(-np.inf)
    extreme = np.array(list(itertools.product(entries, repeat=k)), dtype)
    extreme = extreme[(extreme > -np.inf).any(1)]
    expected = calibrator.predict_proba(extreme)
    defined = ~np.isnan(expected).any(1)
    assert defined.mean() > (0.99 if scale == 1 else 0.5)
    probabilities, _ = run(to_onnx(calibrator, dtype=dtype), extreme)
    np.testing.assert_allclose(probabilities[defined], expected[defined], rtol=0, atol=1e-6)


@pytest.mark.parametrize("base", CALIBRATORS)
def test_isotonic_calibration_after_another_calibrator(base):
    """At float64 the probabilities are equal up to rounding errors."""
    calibrator = logitlab.IsotonicCalibration(base()).fit(*rows())
    z = rows()[0]
    p = run(to_onnx(calibrator, dtype=np.float64), z)[0]
    np.testing.assert_allclose(p, calibrator.predict_proba(z), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("y", "temperature"), [([0, 0], 0), ([1, 1], np.inf)])
def test_limits_of_the_temperature(y, temperature):
    calibrator = logitlab.TemperatureScaling().fit([[1.0, 0.0], [1.0, 0.0]], y)
    assert calibrator.temperature_ == temperature
    z = np.array([[3.0, 3.0], [1.0, -np.inf], [-2.0, 5.0]], np.float32)
    np.testing.assert_array_equal(run(to_onnx(calibrator), z)[0], calibrator.predict_proba(z))


@pytest.mark.parametrize("labels", [[0, 1], [5, 7, 9], ["no", "yes"], ["a", "b", "ç"]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regressions(labels, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = np.array(labels)[(x[:, : len(labels)] + rng.gumbel(size=(200, len(labels)))).argmax(1)]
    regression = logitlab.SoftmaxRegression().fit(x, y)
    probabilities, predicted = run(to_onnx(regression, dtype=dtype), x.astype(dtype))
    np.testing.assert_allclose(probabilities, regression.predict_proba(x), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(predicted, regression.predict(x))


def test_refused_estimators():
    with pytest.raises(TypeError, match="calibrator, SoftmaxRegression or TableModel, got"):
        to_onnx(object())
    for unfitted in (logitlab.TemperatureScaling(), logitlab.SoftmaxRegression()):
        with pytest.raises(ValueError, match="not fitted"):
            to_onnx(unfitted)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got 'float16'"):
        to_onnx(logitlab.TemperatureScaling().fit(*rows()), dtype="float16")
