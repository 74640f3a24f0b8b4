"""Structured vector and matrix scaling: the minimum, peers, limits, real predictions."""

import sys
import types

import numpy as np
import pytest
import scipy.optimize
import torch

import logitlab

BOTH = [logitlab.StructuredVectorScaling, logitlab.StructuredMatrixScaling]


def skewed(n=1500, k=4, seed=0):
    """Labels whose distribution no single temperature describes."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 3
    true_logits = z * np.linspace(0.3, 0.8, k) + np.linspace(-1, 1, k)
    return z, (true_logits + rng.gumbel(size=z.shape)).argmax(axis=1)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("strength", [0.1, 1, 30])
def test_minimum_is_that_of_scipy(kind, strength):
    """Probabilities at the minimum of the documented objective, with weighted rows."""
    z, y = skewed(150, 3)
    weight = np.random.default_rng(1).random(len(y))
    n, k = z.shape
    scaling = kind(strength=strength).fit(z, y, weight)
    t = logitlab.TemperatureScaling().fit(z, y, weight).temperature_
    x = logitlab.log_softmax(z / t)
    assert scaling.temperature_ == t
    vector = kind is logitlab.StructuredVectorScaling
    ridge = strength * k / n * (np.eye(k) + (k - 1) * (1 - np.eye(k)))

    def parts(theta):
        deviation = np.diag(theta[:k]) if vector else theta[: k * k].reshape(k, k)
        return deviation, theta[-k:]

    def objective(theta):
        deviation, bias = parts(theta)
        losses = logitlab.cross_entropy(x + x @ deviation.T + bias, y, reduction="none")
        penalty = np.sum(ridge * deviation**2) + strength * k / n * np.sum(bias**2)
        return np.average(losses, weights=weight) + penalty

    best = scipy.optimize.minimize(objective, np.zeros(k * (2 if vector else k + 1)), tol=1e-9)
    deviation, bias = parts(best.x)
    expected = logitlab.softmax(x + x @ deviation.T + bias)
    np.testing.assert_allclose(scaling.predict_proba(z), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", BOTH)
def test_probabilities_are_those_of_probmetrics(kind, monkeypatch):
    pytest.importorskip("probmetrics")
    if "numba" not in sys.modules:  # imported, but only used by its other solver
        numba = types.ModuleType("numba")
        numba.njit = lambda *args, **_: args[0] if args else lambda function: function
        monkeypatch.setitem(sys.modules, "numba", numba)
    from probmetrics import calibrators
    from probmetrics.calibrators import factory

    # Without its mixture of the probabilities after temperature scaling with equal ones.
    made = factory.get_calibrator
    monkeypatch.setattr(factory, "get_calibrator", lambda _: made("temp-scaling"))
    z, y = skewed()
    p = logitlab.softmax(z)
    vector = kind is logitlab.StructuredVectorScaling
    peer = calibrators.SVSCalibrator() if vector else calibrators.SMSCalibrator()
    expected = peer.fit(p, y).predict_proba(p)  # in float32, to a loose tolerance
    np.testing.assert_allclose(kind().fit(z, y).predict_proba(z), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", BOTH)
def test_large_strength(kind):
    """It leaves temperature scaling."""
    z, y = skewed()
    expected = logitlab.TemperatureScaling().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(kind(strength=1e9).fit(z, y).predict_proba(z), expected, atol=1e-6)
    for bad in (-1, np.inf):
        with pytest.raises(ValueError, match="strength must be finite and >= 0"):
            kind(strength=bad).fit(z, y)


@pytest.mark.parametrize("kind", BOTH)
def test_invariance(kind):
    """Shifts of rows, units of logits and weights, and orders of rows and classes."""
    z, y = skewed(300)
    weight = np.random.default_rng(1).integers(0, 4, 300)
    p = kind().fit(z, y, weight).predict_proba(z)
    shifted = z + np.arange(300)[:, None]
    order, classes = np.random.default_rng(2).permutation(300), np.array([2, 0, 3, 1])
    for q in (
        kind().fit(shifted[order], y[order], weight[order] / 1000).predict_proba(shifted),
        kind().fit(z * 1e30, y, weight).predict_proba(z * 1e30),
        kind()
        .fit(z[:, classes], np.argsort(classes)[y], weight)
        .predict_proba(z[:, classes])[:, np.argsort(classes)],
    ):
        np.testing.assert_allclose(q, p, rtol=0, atol=1e-7)
    tensor = kind().fit(z, y, weight).predict_proba(torch.from_numpy(z))
    np.testing.assert_allclose(tensor, p, rtol=0, atol=1e-12)
    half = kind().fit(z, y, weight).transform(z.astype(np.float16))
    assert half.dtype == np.float16


def test_excluded_classes():
    """-inf stays -inf in vector scaling; matrix scaling refuses it."""
    z, y = skewed(300)
    wide = np.concatenate([z, np.full((len(z), 1), -np.inf)], axis=1)
    scaling = logitlab.StructuredVectorScaling(strength=4 / 5).fit(wide, y)
    expected = logitlab.StructuredVectorScaling().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(scaling.predict_proba(wide)[:, :4], expected, rtol=0, atol=1e-8)
    assert (scaling.predict_proba(wide)[:, 4] == 0).all()
    with pytest.raises(ValueError, match="row 0 of z holds an infinite logit"):
        logitlab.StructuredMatrixScaling().fit(wide, y)
    with pytest.raises(ValueError, match=r"row 0 of z holds \+inf"):
        scaling.transform(-wide)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("unit", [1, 800])
def test_separable_logits(kind, unit):
    """Parameters are finite and the predictions correct."""
    z = np.eye(3)[[0, 1, 2] * 5] * 5 * unit
    scaling = kind().fit(z, [0, 1, 2] * 5)
    assert np.isfinite(scaling.transform(z)).all()
    assert (scaling.transform(z).argmax(axis=1) == [0, 1, 2] * 5).all()


def test_damaged_file(tmp_path):
    scaling = logitlab.StructuredVectorScaling().fit(*skewed(30))
    scaling.temperature_ = 0.0
    scaling.save(tmp_path / "file")
    with pytest.raises(ValueError, match=r"temperature_ must be > 0, got 0\.0"):
        logitlab.load_calibrator(tmp_path / "file")


@pytest.mark.parametrize("kind", BOTH)
def test_real_predictions(predictions, kind):
    """Cross-fitted log-losses: with 10 classes, that of the matrix is below vector scaling's."""
    path, p, y = predictions
    z = np.asarray(logitlab.logits(p.astype(np.float64)))
    loss = logitlab.cross_entropy(logitlab.cross_fit(kind(), z, y), y)
    vector = kind is logitlab.StructuredVectorScaling
    expected = (0.2427, 0.9402) if vector else (0.2378, 0.9321)
    assert loss == pytest.approx(expected[not path.stem.endswith("-10")], abs=1e-3)
