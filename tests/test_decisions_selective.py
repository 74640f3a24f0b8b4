"""Selective classification: the guarantee in simulations, thresholds, curves, errors."""

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import binom

import logitlab
from logitlab import plot
from logitlab.decisions import selective


def calibrated(n, k=5, scale=4.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (n, k))
    return z, logitlab.sample(z, rng=rng)


@pytest.mark.parametrize(("errors", "rows"), [(0, 10), (3, 50), (49, 50), (50, 50), (200, 10_000)])
def test_error_bound(errors, rows):
    """The error at which so few errors have the probability of the level."""
    bound = selective.error_bound(errors, rows, 0.01)
    if errors == rows:
        assert bound == 1
    else:
        assert binom.cdf(errors, rows, bound) == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize("n", [*range(1, 12), 50])
def test_levels(n):
    """The shares of delta sum to 1."""
    shares = selective._shares(n)
    assert len(shares) == n
    assert math.fsum(shares) == pytest.approx(1)
    assert (shares > 0).all()


def risks(local_error, atoms):
    """Scores, and the exact error above each, of a score that is uniform on [0, 1]."""
    grid = (np.arange(20_000) + 0.5) / 20_000
    scores = np.floor(grid * atoms) / atoms if atoms else grid
    totals = np.cumsum(local_error(grid)[::-1])[::-1]
    return scores, totals / np.arange(len(grid), 0, -1)


@pytest.mark.parametrize("atoms", [None, 10])
@pytest.mark.parametrize(
    ("local_error", "n", "max_error"),
    [
        (lambda u: 0.6 * (1 - u) ** 3, 500, 0.05),
        (lambda u: 0.0 * u + 0.0501, 500, 0.05),  # every threshold is wrong
        (lambda u: 0.4 * (1 - u) ** 3 + 0.1 * (u > 0.95), 1000, 0.05),  # errors at the top
        (lambda u: np.where(u > 0.5, 0.0501, 0.0499), 2000, 0.05),
    ],
)
def test_guarantee(local_error, n, max_error, atoms):
    """The error exceeds its limit in at most delta = 10 % of 1000 fits, with ties among scores."""
    scores, risk = risks(local_error, atoms)
    rng, exceeded = np.random.default_rng(1), 0
    for _ in range(1000):
        u = rng.random(n)
        wrong = rng.random(n) < local_error(u)
        u = np.floor(u * atoms) / atoms if atoms else u
        tests = np.arange(n) % 20 > 0
        thresholds = selective._candidates(u[~tests], tests.sum(), max_error, 0.1)
        passed = selective._lowest_threshold(thresholds, u[tests], wrong[tests], max_error, 0.1)
        if passed is not None:
            first = np.searchsorted(scores, passed.threshold)
            exceeded += risk[first] > max_error
    # 3 standard errors above delta.
    assert exceeded / 1000 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1000)


def test_more_rows_than_with_equal_levels():
    """The levels accept more rows than a Bonferroni correction of the same tests."""
    rng = np.random.default_rng(0)
    fallback = bonferroni = 0
    for _ in range(100):
        u = rng.random(1000)
        wrong = rng.random(1000) < 0.6 * (1 - u) ** 3
        thresholds = selective._candidates(u[::20], 1000, 0.05, 0.05)
        passed = selective._lowest_threshold(thresholds, u, wrong, 0.05, 0.05)
        fallback += 0 if passed is None else passed.accepted
        level = 0.05 / len(thresholds)
        bonferroni += max(
            (u >= t).sum()
            for t in [*thresholds, np.inf]
            if t == np.inf
            or selective.error_bound(int(wrong[u >= t].sum()), int((u >= t).sum()), level) <= 0.05
        )
    assert fallback > 1.02 * bonferroni > 0


@pytest.mark.parametrize("score", selective.SCORES)
def test_fit(score):
    """The attributes are those of the rows that test; the threshold is the lowest that passes."""
    z, y = calibrated(4000)
    classifier = logitlab.SelectiveClassifier(0.03, score=score).fit(z, y)
    tests = np.arange(4000) % 20 > 0
    accepted = classifier.accepts(z)[tests]
    wrong = (z.argmax(-1) != y)[tests]
    assert classifier.coverage_ == accepted.mean() > 0.2
    assert classifier.error_ == wrong[accepted].mean()
    assert classifier.error_ < classifier.error_bound_ <= 0.03
    new, labels = calibrated(20_000, seed=1)
    predicted = classifier.predict(new)
    accepted = classifier.accepts(new)
    np.testing.assert_array_equal(predicted[accepted], new.argmax(-1)[accepted])
    assert (predicted[~accepted] == -1).all()
    assert np.mean(predicted[accepted] != labels[accepted]) < 0.03
    assert accepted.mean() == pytest.approx(classifier.coverage_, abs=0.03)
    stricter = logitlab.SelectiveClassifier(0.03, delta=0.001, score=score).fit(z, y)
    assert stricter.threshold_ >= classifier.threshold_


def test_scores():
    z = np.array([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0]])
    p = logitlab.softmax(z)
    expected = {
        "confidence": [p[0, 1], p[1, 0]],
        "margin": [p[0, 1] - p[0, 2], 0],
        "entropy": -logitlab.entropy(z),
    }
    for score, values in expected.items():
        np.testing.assert_allclose(selective._checked_scores(z, score), values, atol=1e-15)
        for convert in (torch.from_numpy, jnp.asarray):
            result = selective._checked_scores(convert(z), score)
            assert type(result) is type(convert(z))
            np.testing.assert_allclose(np.asarray(result), values, atol=1e-6)
    assert selective._checked_scores(np.array([[2.0]]), "margin") == 1


def test_every_row_is_accepted():
    """Without errors the threshold is -inf."""
    z, _ = calibrated(400)
    classifier = logitlab.SelectiveClassifier(0.02).fit(z, z.argmax(-1))
    assert classifier.threshold_ == -math.inf
    assert classifier.coverage_ == 1
    assert classifier.error_ == 0
    assert classifier.error_bound_ == pytest.approx(1 - 0.05 ** (1 / 380), rel=0.1)
    assert classifier.accepts(z).all()


def test_no_row_is_accepted():
    """Too few rows, or too many errors: a warning, and every row is rejected."""
    z, _ = calibrated(100)
    for options, data in (((0.01,), (z, z.argmax(-1))), ((0.05,), calibrated(1000, scale=0.1))):
        classifier = logitlab.SelectiveClassifier(*options)
        with pytest.warns(UserWarning, match="no threshold has an error of at most 0.0"):
            classifier.fit(*data)
        assert classifier.threshold_ == math.inf
        assert classifier.coverage_ == 0
        assert math.isnan(classifier.error_)
        assert math.isnan(classifier.error_bound_)
        assert (classifier.predict(z) == -1).all()


def test_least_number_of_rows():
    """299 rows without an error pass the test of 1 % at 5 %; 298 do not."""
    assert selective._least_rows(0.01, 0.05) == 299
    assert selective.error_bound(0, 299, 0.05) <= 0.01 < selective.error_bound(0, 298, 0.05)


def test_libraries_and_batches():
    z, y = calibrated(1000)
    classifier = logitlab.SelectiveClassifier(0.1).fit(z.reshape(10, 100, 5), y.reshape(10, 100))
    expected = classifier.predict(z)
    assert -1 < np.mean(expected == -1) < 1
    for convert in (torch.from_numpy, jnp.asarray):
        predicted = classifier.predict(convert(z))
        assert type(predicted) is type(convert(z))
        np.testing.assert_array_equal(np.asarray(predicted), expected)
        fitted = logitlab.SelectiveClassifier(0.1).fit(convert(z), convert(y))
        assert fitted.threshold_ == pytest.approx(classifier.threshold_, rel=1e-6)
    np.testing.assert_array_equal(
        classifier.predict(z.reshape(10, 100, 5)), expected.reshape(10, 100)
    )
    assert classifier.predict(z[0]) == expected[0]
    assert classifier.accepts(z[0]) == (expected[0] >= 0)
    assert classifier.predict(z[:0]).shape == (0,)


def test_parameters():
    """The conventions of scikit-learn."""
    from sklearn.base import clone

    classifier = logitlab.SelectiveClassifier(0.1, score="margin")
    assert repr(clone(classifier)) == (
        "SelectiveClassifier(max_error=0.1, delta=0.05, score='margin')"
    )
    assert classifier.set_params(delta=0.2).get_params()["delta"] == 0.2


def area_by_definition(scores, wrong):
    """The mean error of all sets of accepted rows; ties in random order, exactly."""
    total, errors, rows = Fraction(0), 0, 0
    for score in sorted(set(scores), reverse=True):
        group = [w for s, w in zip(scores, wrong, strict=True) if s == score]
        for j in range(1, len(group) + 1):
            total += (errors + Fraction(sum(group) * j, len(group))) / (rows + j)
        errors, rows = errors + sum(group), rows + len(group)
    return total / rows


@pytest.mark.parametrize("levels", [3, 1000])
def test_risk_coverage_curve(levels):
    """Against the definition, with ties and without."""
    rng = np.random.default_rng(0)
    z = np.stack([np.floor(rng.random(60) * levels) / levels, np.zeros(60)], axis=-1)
    y = rng.integers(0, 2, 60)
    curve = logitlab.risk_coverage_curve(z, y)
    scores, wrong = logitlab.softmax(z).max(-1), z.argmax(-1) != y
    assert (np.diff(curve.thresholds) < 0).all()
    for threshold, coverage, error in zip(
        curve.thresholds, curve.coverage, curve.error, strict=True
    ):
        assert coverage == np.mean(scores >= threshold)
        assert error == pytest.approx(np.mean(wrong[scores >= threshold]))
    exact = area_by_definition(scores.tolist(), wrong.astype(int).tolist())
    assert curve.area == pytest.approx(float(exact), rel=1e-12)
    assert curve.coverage[-1] == 1
    assert logitlab.risk_coverage_curve(z[:1], 1 - z[:1].argmax(-1)).area == 1


def test_plot():
    curve = logitlab.risk_coverage_curve(*calibrated(50))
    ax = Figure().add_subplot()
    assert curve.plot(ax) is ax
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), curve.error)
    with pytest.raises(TypeError, match="curve must be a result of"):
        plot.risk_coverage([1.0])


Z, Y = calibrated(40)
FIT = logitlab.SelectiveClassifier(0.5).fit(Z, Z.argmax(-1))
NAN = np.where(np.arange(40)[:, None] == 7, np.nan, Z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: logitlab.SelectiveClassifier(0).fit(Z, Y),
            "max_error must be between 0 and 1, got 0",
        ),
        (lambda: logitlab.SelectiveClassifier(1.0).fit(Z, Y), "max_error must be between"),
        (lambda: logitlab.SelectiveClassifier(0.1, delta=1).fit(Z, Y), "delta must be between"),
        (
            lambda: logitlab.SelectiveClassifier(0.1, score="max").fit(Z, Y),
            "score must be one of 'confidence', 'margin', 'entropy', got 'max'",
        ),
        (lambda: logitlab.SelectiveClassifier(0.1).fit(Z[:1], Y[:1]), "z must hold at least 2"),
        (lambda: logitlab.SelectiveClassifier(0.1).fit(Z, Y + 1), "y must be from 0 to 4"),
        (lambda: logitlab.SelectiveClassifier(0.1).fit(NAN, Y), "row 7 of z has no distribution"),
        (lambda: logitlab.SelectiveClassifier(0.1).predict(Z), "is not fitted yet; call fit first"),
        (lambda: FIT.predict(Z[:, :3]), r"z must have shape \(..., 5\), got \(40, 3\)"),
        (lambda: FIT.accepts(NAN), "row 7 of z has no distribution"),
        (lambda: FIT.set_params(other=1), "parameter of SelectiveClassifier must be one of"),
        (lambda: logitlab.risk_coverage_curve(Z, Y, score="p"), "score must be one of"),
        (lambda: logitlab.risk_coverage_curve(NAN, Y), "row 7 of z has no distribution"),
        (lambda: logitlab.risk_coverage_curve(Z, Y[1:]), r"y must be labels of shape \(40,\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_real_predictions(predictions):
    """Half of the rows fits; in the other half the error is below its bound."""
    _, p, y = predictions
    z, y, order = logitlab.logits(p), y.reshape(-1), np.random.default_rng(0).permutation(len(y))
    fit, new = np.split(order, 2)
    for max_error in (0.02, 0.05):
        classifier = logitlab.SelectiveClassifier(max_error).fit(z[fit], y[fit])
        predicted = classifier.predict(z[new])
        accepted = predicted >= 0
        assert accepted.mean() > 0.15
        assert np.mean(predicted[accepted] != y[new][accepted]) <= max_error
