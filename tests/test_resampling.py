"""Bootstrap intervals: they cover as they promise, and the differences are paired."""

import numpy as np
import pytest
import scipy.stats

import logitlab


def drawn(n, rng, k=4):
    """Over-confident logits: labels come from the softmax of z / 1.5."""
    z = rng.standard_normal((n, k)) * 2
    return z, (z / 1.5 + rng.gumbel(size=z.shape)).argmax(axis=1)


def log_loss(z, y):
    return logitlab.cross_entropy(z, y)


def test_values_are_the_scores(labelled):
    """The same numbers as from the functions; certain rows among them."""
    z, y = labelled
    z[:20] *= 50
    found = logitlab.bootstrap(z, y, n_bins=10)
    assert found["accuracy"].value == logitlab.accuracy(z, y)
    assert found["log_loss"].value == pytest.approx(log_loss(z, y), rel=1e-13)
    assert found["brier_score"].value == pytest.approx(logitlab.brier_score(z, y), rel=1e-13)
    error = logitlab.calibration_error(z, y, n_bins=10)
    assert found["calibration_error"].value == pytest.approx(error, rel=1e-12)
    top = logitlab.softmax(z).max(axis=1)
    assert found["confidence"].value == pytest.approx(top.mean(), rel=1e-13)
    assert all(i.low <= i.value <= i.high for i in list(found.values())[:4])
    assert found == logitlab.bootstrap(z, y, n_bins=10, rng=0)
    assert found != logitlab.bootstrap(z, y, n_bins=10, rng=1)


def test_intervals_are_scipys(labelled):
    """SciPy's percentile bootstrap of the mean, to the noise of the draws."""
    z, y = labelled
    hit = (z.argmax(axis=1) == y).astype(float)
    theirs = scipy.stats.bootstrap(
        (hit,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = logitlab.bootstrap(z, y, n_resamples=20_000)["accuracy"]
    np.testing.assert_allclose(ours[1:], theirs, atol=0.003)


def test_coverage():
    """Of 500 samples of a known law, 92 to 98 % of the 95 % intervals hold the truth."""
    rng = np.random.default_rng(7)
    z, y = drawn(2_000_000, rng)
    p = logitlab.softmax(z)
    truth = {
        "accuracy": np.mean(z.argmax(axis=1) == y),
        "log_loss": -np.mean(np.log(p[np.arange(len(y)), y])),
        "brier_score": logitlab.brier_score(z, y),
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(500):
        found = logitlab.bootstrap(*drawn(400, rng), n_resamples=300, rng=rng)
        for name, true in truth.items():
            held[name] += found[name].low <= true <= found[name].high
    for name, count in held.items():
        assert 0.92 <= count / 500 <= 0.98, name


def test_many_rows_in_groups(monkeypatch, labelled):
    """Groups of rows spread as rows do."""
    z, y = drawn(20_000, np.random.default_rng(0))
    by_row = logitlab.bootstrap(z, y, n_resamples=4000)
    monkeypatch.setattr("logitlab.resampling._CELLS", 500)
    by_group = logitlab.bootstrap(z, y, n_resamples=4000)
    for name in ("accuracy", "log_loss", "brier_score"):
        assert by_group[name].value == pytest.approx(by_row[name].value, rel=1e-12)
        widths = [i[name].high - i[name].low for i in (by_row, by_group)]
        assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_paired_differences(labelled):
    """A model against itself differs in nothing; the same rows are drawn for both."""
    z, y = labelled
    assert set(logitlab.bootstrap(z, y, other=z).values()) == {(0, 0, 0)}
    better = z + 0.2 * np.eye(6)[y]
    found = logitlab.bootstrap(better, y, other=z)
    assert found["log_loss"].high < 0
    alone = [logitlab.bootstrap(m, y)["log_loss"] for m in (better, z)]
    assert alone[0].high > alone[1].low  # unpaired, they overlap
    assert found["log_loss"].value == pytest.approx(alone[0].value - alone[1].value)


def test_infinite_log_loss():
    """It has no interval; the other scores have."""
    found = logitlab.bootstrap([[0.0, -np.inf], [0.0, 1.0]], [1, 1])
    assert found["log_loss"] == (np.inf, np.inf, np.inf)
    assert np.isfinite(found["brier_score"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 95}, "confidence_level must be between 0 and 1, got 95"),
        ({"confidence_level": "a"}, "confidence_level must be a real number, got 'a'"),
        ({"n_resamples": 0}, "n_resamples must be >= 1, got 0"),
        ({"n_resamples": True}, "n_resamples must be an int, got True"),
        ({"rng": "a"}, "rng must be None, an int >= 0 or a numpy.random.Generator, got 'a'"),
        ({"rng": -1}, "rng must be None, an int >= 0 or a numpy.random.Generator, got -1"),
        (
            {"other": np.zeros((3, 3))},
            r"other has shape \(3, 3\); accepted: logits for the rows",
        ),
        ({"other": np.zeros((4, 2))}, "y must be from 0 to 1, as other has 2 classes, got 2"),
        ({"other": np.full((4, 3), np.nan)}, "row 0 of other has no distribution"),
        ({"other": "a"}, r"other has shape \(\)"),
    ],
)
def test_bad_options(options, message):
    """One line each."""
    with pytest.raises((TypeError, ValueError), match=message):
        logitlab.bootstrap(np.zeros((4, 3)), [0, 1, 2, 0], **options)


def test_rows_without_a_distribution():
    with pytest.raises(ValueError, match="row 1 of z has no distribution"):
        logitlab.bootstrap([[0.0, 1.0], [np.nan, 1.0]], [0, 0])
