"""The selected calibrator: the rule, the candidates, weights, limits, the real predictions."""

import numpy as np
import pytest

import logitlab
from logitlab.calibration import selection as selection_module
from logitlab.calibration.selection import _simplest


def sampled(true_logits, seed=0):
    """Labels sampled from the softmax of logits."""
    gumbel = np.random.default_rng(seed).gumbel(size=true_logits.shape)
    return (true_logits + gumbel).argmax(axis=1)


def normal(n, k, seed=1):
    return np.random.default_rng(seed).normal(0, 2, (n, k))


def test_one_standard_error():
    """The simplest whose mean loss exceeds the least by at most the error of the difference."""
    noise = np.random.default_rng(0).normal(0, 1, 10_000)
    noise -= noise.mean()
    weight = np.full(len(noise), 1 / len(noise))
    losses = {"a": np.full(len(noise), 0.5), "b": 0.409 + noise, "c": 0.4 + 0 * noise}
    assert _simplest(losses, weight) == "b"  # the error is 0.01
    losses["b"] += 0.002
    assert _simplest(losses, weight) == "c"
    infinite = np.where(noise > 3, np.inf, 0.0)
    assert _simplest({"a": infinite, "b": losses["a"]}, weight) == "b"
    assert _simplest({"a": infinite, "b": infinite}, weight) == "a"


@pytest.mark.parametrize(
    ("name", "distort"),
    [
        ("uncalibrated", lambda t: t),
        ("temperature", lambda t: 2 * t),
        ("vector", lambda t: t * np.linspace(0.6, 2, 5) + np.linspace(-1, 1, 5)),
        ("matrix", lambda t: t @ (np.eye(5) + 0.5 * np.eye(5, k=1))),
        ("isotonic", lambda t: t * (1 + 3 * (t.max(axis=1, keepdims=True) > 2.5))),
    ],
)
def test_selected_calibrator(name, distort):
    """It is fitted on all rows, and its cross-fitted log-loss is that of cross_fit."""
    t = normal(3000, 5)
    z, y = distort(t), sampled(t)
    selection = logitlab.select_calibrator(z, y)
    kind = {
        "temperature": logitlab.TemperatureScaling(),
        "vector": logitlab.VectorScaling(),
        "matrix": logitlab.MatrixScaling(),
        "isotonic": logitlab.IsotonicCalibration(),
    }.get(name)
    assert selection.name == name
    if kind is None:
        assert selection.calibrator.temperature_ == 1
        expected = z
    else:
        expected = logitlab.cross_fit(kind, z, y)
        p = kind.fit(z, y).predict_proba(z)
        np.testing.assert_allclose(selection.calibrator.predict_proba(z), p, rtol=0, atol=1e-12)
    loss = logitlab.cross_entropy(expected, y)
    assert selection.log_loss[name] == pytest.approx(loss, abs=1e-3 if name == "isotonic" else 1e-5)


def test_two_classes():
    """Structured vector scaling has the probabilities of beta calibration."""
    s = normal(4000, 1)[:, 0]
    y = (np.random.default_rng(0).random(4000) < 1 / (1 + np.exp(-s))).astype(int)
    z = np.stack([np.zeros(4000), 4 * np.tanh(s / 2.5) + 0.7], axis=1)
    selection = logitlab.select_calibrator(z, y)
    assert selection.name == "structured_vector"
    assert set(selection.log_loss) == {
        "uncalibrated",
        "temperature",
        "structured_vector",
        "structured_vector_isotonic",
    }
    beta = logitlab.BetaCalibration().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(selection.calibrator.predict_proba(z), beta, atol=0.01)


def test_weights():
    """A row of weight 0 is left out; only ratios matter; the mean losses are weighted."""
    t = normal(600, 3)
    z, y = 2 * t, sampled(t)
    weight = np.where(np.arange(600) < 300, 1.0, 0.0)
    found = logitlab.select_calibrator(z, y, weight)
    expected = logitlab.select_calibrator(z[:300], y[:300])
    assert found.log_loss == pytest.approx(expected.log_loss)
    scaled = logitlab.select_calibrator(z[:300], y[:300], np.full(300, 4.0))
    assert scaled.log_loss == pytest.approx(expected.log_loss)
    uneven = logitlab.select_calibrator(z, y, np.arange(600.0)).log_loss["uncalibrated"]
    assert uneven == pytest.approx(logitlab.cross_entropy(z, y, sample_weight=np.arange(600.0)))


def test_rows_that_candidates_cannot_fit():
    z, y = np.eye(3)[[0, 1, 2] * 5], np.array([0, 1, 2] * 5)
    assert "temperature" not in logitlab.select_calibrator(z, y).log_loss  # its minimum is at 0
    t = normal(900, 4)
    z, y = 2 * t, sampled(t[:, :3])
    z[:, 3] = -np.inf
    selection = logitlab.select_calibrator(z, y)
    assert selection.name == "temperature"
    assert not {"matrix", "structured_matrix"} & set(selection.log_loss)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.nan, "holds NaN, or only -inf: it has no distribution"),
        (np.inf, r"has \+inf for a class that is not its label"),
        (-np.inf, "has the logit -inf for its label"),
    ],
)
def test_rows_without_a_finite_loss(bad, reason):
    """They are refused by their number among all rows, unless they have the weight 0."""
    z, y = normal(40, 3), np.arange(40) % 3
    z[5, (y[5] + (bad > 0)) % 3] = bad
    with pytest.raises(ValueError, match=f"^row 5 of z {reason}"):
        logitlab.select_calibrator(z, y)
    weight = np.ones(40)
    weight[0] = 0
    with pytest.raises(ValueError, match=f"^row 5 of z {reason}"):
        logitlab.select_calibrator(z, y, weight)
    weight[5] = 0
    assert np.isfinite(list(logitlab.select_calibrator(z, y, weight).log_loss.values())).all()


def test_many_classes():
    """Matrices are fitted up to 200 classes, vectors up to 2000."""
    y = np.arange(40)
    names = logitlab.select_calibrator(normal(40, 201), y).log_loss
    assert "structured_vector" in names
    assert "structured_matrix" not in names
    names = logitlab.select_calibrator(normal(40, 2001), y).log_loss
    assert not [name for name in names if "vector" in name]


def test_bad_input():
    z, y = normal(20, 3), np.arange(20) % 3
    for bad in (1, 21, "a"):
        with pytest.raises((TypeError, ValueError), match="cv must be"):
            logitlab.select_calibrator(z, y, cv=bad)
    with pytest.raises(ValueError, match=r"^z must have 2 or more rows .*, got 1"):
        logitlab.select_calibrator(z[:1], y[:1])
    with pytest.raises(ValueError, match="y must"):
        logitlab.select_calibrator(z, y + 1)


def test_real_predictions(predictions):
    """Fitted on one half: the log-loss on the other is that of the best calibrators."""
    path, p, y = predictions
    z = np.asarray(logitlab.logits(p.astype(np.float64)))
    order = np.random.default_rng(0).permutation(len(y))
    first, second = order[: len(y) // 2], order[len(y) // 2 :]
    selection = logitlab.select_calibrator(z[first], y[first])
    calibrated = selection.calibrator.transform(z[second])
    ten = path.stem.endswith("-10")
    name, loss = ("structured_matrix", 0.2268) if ten else ("structured_matrix_isotonic", 0.9283)
    assert selection.name == name
    assert logitlab.cross_entropy(calibrated, y[second]) == pytest.approx(loss, abs=1e-3)
    assert logitlab.calibration_error(calibrated, y[second]) < 0.015


def test_a_candidate_rejected_at_first_is_selected_at_last(monkeypatch):
    """Its difference from a later best candidate may have a larger standard error."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (100, 3))
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    noise = np.tile([1.0, -1.0], 50)
    losses = {
        "uncalibrated": np.full(100, 9.0),
        "temperature": np.full(100, 1.0),
        "structured_vector": np.full(100, 0.9),
        "vector": 0.89 + 2 * noise,
        "structured_matrix": np.full(100, 5.0),
        "temperature again": np.full(100, 1.0),
        "isotonic": np.full(100, 5.0),
    }
    in_turn = iter(losses.values())
    monkeypatch.setattr(selection_module, "_losses", lambda *_: next(in_turn))
    assert logitlab.select_calibrator(z, y).name == "temperature"
    assert next(in_turn, None) is None
