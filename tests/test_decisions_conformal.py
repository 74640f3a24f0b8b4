"""Prediction sets: scores by definition, exact quantiles, MAPIE and crepes, coverage, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import betabinom
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedShuffleSplit

import logitlab
from logitlab.decisions import ConformalSets, conformal

KINDS = [
    {"score": "lac"},
    {"score": "aps"},
    {"score": "raps", "penalty": 0.05, "rank": 1},
    {"score": "aps", "randomized": True},
    {"score": "raps", "penalty": 0.05, "rank": 1, "randomized": True},
]


def labelled_rows(n, k=6, scale=2.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (n, k))
    return z, logitlab.sample(z, temperature=1.5, rng=rng)


def scores_by_definition(p, kind, u):
    """Of one row of distinct probabilities."""
    result = []
    for probability in p:
        rank = int(np.sum(p > probability)) + 1
        if kind["score"] == "lac":
            result.append(1 - probability)
            continue
        score = p[p >= probability].sum()
        if kind.get("randomized"):
            score -= u * probability
        if kind["score"] == "raps":
            score += kind["penalty"] * max(rank - kind["rank"], 0)
        result.append(score)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_scores(kind):
    """The scores are those of the papers."""
    z, _ = labelled_rows(50)
    u = np.random.default_rng(1).random(50) if kind.get("randomized") else None
    scores = ConformalSets(**kind)._scores(z, u)
    for i, row in enumerate(logitlab.softmax(z)):
        expected = scores_by_definition(row, kind, 0 if u is None else u[i])
        np.testing.assert_allclose(scores[i], expected, atol=1e-14)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, jnp.asarray])
def test_equal_probabilities(convert):
    """They are ranked in the order of the classes; other rows do not matter."""
    z = np.random.default_rng(0).integers(0, 3, (20, 40)).astype(float)
    z[::2] = np.random.default_rng(1).normal(size=(10, 40))
    z[3, :7] = -np.inf
    scores = np.asarray(ConformalSets(score="aps")._scores(convert(z), None))
    for row, p in zip(scores, logitlab.softmax(z), strict=True):
        for k in range(40):
            before = (p > p[k]) | ((p == p[k]) & (np.arange(40) <= k))
            assert row[k] == pytest.approx(p[before].sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("n", "coverage", "rank"),
    [(9, 0.9, 9), (8, 0.9, None), (99, 0.95, 95), (99, 0.07, 7), (100, 0.9, 91), (0, 0.5, None)],
)
def test_quantile(n, coverage, rank):
    """The ceil((n + 1) coverage)-th smallest score, without rounding of the product."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    expected = math.inf if rank is None else rank
    assert conformal._quantile(scores, coverage) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conditional", [None, "class"])
@pytest.mark.parametrize("grouped", [False, True])
def test_thresholds(kind, conditional, grouped):
    """Each group and class has the quantile of its own scores; a class without rows has none."""
    z, y = labelled_rows(300)
    y = np.where(y == 5, 4, y)
    groups = np.array(["b", "a", "b"])[np.arange(300) % 3] if grouped else None
    sets = ConformalSets(0.8, conditional=conditional, **kind).fit(z, y, groups, rng=2)
    u = np.random.default_rng(2).random(300) if sets.randomized else None
    label_scores = sets._scores(z, u)[np.arange(300), y]
    assert (sets.groups_ is None) is (not grouped)
    names = ["a", "b"] if grouped else [None]
    for row, name in zip(sets.thresholds_, names, strict=True):
        in_group = np.full(300, True) if name is None else groups == name
        for label in range(6):
            chosen = in_group & (y == label) if conditional else in_group
            assert row[label] == conformal._quantile(label_scores[chosen], 0.8)
    assert (sets.thresholds_[:, 5] == np.inf).all() == (conditional == "class")
    new, _ = labelled_rows(40, seed=1)
    new_groups = np.array(["a", "b"])[np.arange(40) % 2] if grouped else None
    u = np.random.default_rng(3).random(40) if sets.randomized else None
    index = np.arange(40) % 2 if grouped else np.zeros(40, int)
    expected = sets._scores(new, u) <= sets.thresholds_[index]
    np.testing.assert_array_equal(sets.predict(new, new_groups, rng=3), expected)
    np.testing.assert_array_equal(sets.set_sizes(new, new_groups, rng=3), expected.sum(-1))


def test_too_few_rows():
    """Without a quantile the set holds all classes, also those of probability 0."""
    z, y = labelled_rows(5)
    sets = ConformalSets(0.9).fit(z, y)
    assert (sets.thresholds_ == np.inf).all()
    assert sets.predict([[0.0, -np.inf, 0, 0, 0, 0]]).all()


def test_empty_sets():
    """A row more uncertain than those of the fit."""
    z = np.tile([[9.0, 0.0]], (50, 1))
    assert ConformalSets().fit(z, np.zeros(50, int)).set_sizes([[0.0, 0.0]]).tolist() == [0]


class Probabilities(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its probabilities."""

    def fit(self, X, y):
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(-1)


def mapie_sets(score, calibration, new, coverage, **options):
    """The fitted classifier of MAPIE and its sets."""
    mapie = pytest.importorskip("mapie.classification")
    z, y = calibration
    classifier = mapie.SplitConformalClassifier(
        estimator=Probabilities().fit(z, y),
        confidence_level=coverage,
        conformity_score=score,
        prefit=True,
        random_state=7,
    )
    classifier.conformalize(logitlab.softmax(z), y)
    _, sets = classifier.predict_set(logitlab.softmax(new), conformity_score_params=options)
    return classifier, sets[:, :, 0]


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [60, 203])
def test_lac_of_mapie(coverage, n):
    calibration, (new, _) = labelled_rows(n), labelled_rows(100, seed=1)
    _, expected = mapie_sets("lac", calibration, new, coverage)
    np.testing.assert_array_equal(ConformalSets(coverage).fit(*calibration).predict(new), expected)


class SameNumbers(np.random.Generator):
    """The random numbers of MAPIE, which has a legacy generator of the same seed in each call."""

    def random(self, n):
        return np.random.RandomState(7).uniform(size=n)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [60, 203])
def test_randomized_aps_of_mapie(coverage, n):
    calibration, (new, _) = labelled_rows(n), labelled_rows(100, seed=1)
    _, expected = mapie_sets("aps", calibration, new, coverage, include_last_label="randomized")
    rng = SameNumbers(np.random.PCG64(0))
    sets = ConformalSets(coverage, score="aps", randomized=True).fit(*calibration, rng=rng)
    np.testing.assert_array_equal(sets.predict(new, rng=rng), expected)


def test_raps_of_mapie():
    """MAPIE chooses penalty and rank by some of the rows; the thresholds and sets are equal."""
    (z, y), (new, _) = labelled_rows(400, 20, 5), labelled_rows(100, 20, 5, seed=1)
    mapie, expected = mapie_sets("raps", (z, y), new, 0.9, include_last_label=False)
    score = mapie._mapie_classifier.conformity_score_function_
    split = StratifiedShuffleSplit(1, test_size=score.size_raps, random_state=7)
    rest, _ = next(split.split(z, y))
    assert score.k_star[0] < 10
    sets = ConformalSets(
        score="raps",
        randomized=True,
        penalty=float(score.lambda_star),
        rank=int(score.k_star[0]),
    )
    sets.fit(z[rest], y[rest], rng=SameNumbers(np.random.PCG64(0)))
    np.testing.assert_allclose(sets.thresholds_[0, 0], score.quantiles_[0], rtol=1e-12)
    predicted = sets.set_params(randomized=False).predict(new)
    # MAPIE keeps the most probable class in a set that would be empty.
    predicted[np.arange(100), new.argmax(-1)] |= ~predicted.any(-1)
    np.testing.assert_array_equal(predicted, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coverage", [0.52, 0.9, 0.95])
def test_crepes(kind, coverage):
    """Marginal, in groups and in classes. (n + 1) coverage is no integer: if it is, crepes adds
    the classes whose p-value equals 1 - coverage."""
    crepes = pytest.importorskip("crepes")
    (z, y), (new, _) = labelled_rows(202), labelled_rows(60, seed=1)
    groups, new_groups = np.arange(202) % 2, np.arange(60) % 2
    seeds = np.random.default_rng(0).random(202), np.random.default_rng(1).random(60)
    sets = ConformalSets(coverage, **kind)
    u, new_u = seeds if sets.randomized else (None, None)
    scores, new_scores = sets._scores(z, u)[np.arange(202), y], sets._scores(new, new_u)
    if kind["score"] == "lac":
        from crepes.extras import hinge

        np.testing.assert_array_equal(hinge(logitlab.softmax(new)), new_scores)
    options = {"confidence": coverage, "smoothing": False}
    peer = crepes.ConformalClassifier().fit(scores)
    expected = peer.predict_set(new_scores, **options)
    np.testing.assert_array_equal(sets.fit(z, y, rng=0).predict(new, rng=1), expected)
    peer = crepes.ConformalClassifier().fit(scores, bins=groups)
    expected = peer.predict_set(new_scores, bins=new_groups, **options)
    predicted = sets.fit(z, y, groups, rng=0).predict(new, new_groups, rng=1)
    np.testing.assert_array_equal(predicted, expected)
    sets.set_params(conditional="class").fit(z, y, rng=0)
    peer = crepes.ConformalClassifier().fit(scores, bins=y)
    for label, column in enumerate(sets.predict(new, rng=1).T):
        if (np.bincount(y, minlength=6)[label] + 1) * coverage % 1:
            bins = np.full(60, label)
            expected = peer.predict_set(new_scores[:, [label]], bins=bins, **options)
            np.testing.assert_array_equal(column, expected[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_coverage(kind):
    """Over 2000 splits the number of covered rows has the beta-binomial distribution."""
    n, m, splits, coverage = 59, 40, 2000, 0.8
    rng = np.random.default_rng(0)
    z, y = labelled_rows(splits * (n + m), k=4, scale=3, seed=4)
    z, y = z.reshape(splits, n + m, 4), y.reshape(splits, n + m)
    sets = ConformalSets(coverage, **kind)
    covered = np.array(
        [
            m
            * sets.fit(rows[:n], labels[:n], rng=rng).empirical_coverage(
                rows[n:], labels[n:], rng=rng
            )
            for rows, labels in zip(z, y, strict=True)
        ]
    ).round()
    law = betabinom(m, 48, 12)
    band = 3.3 * law.std() / math.sqrt(splits)
    assert abs(covered.mean() - law.mean()) < band
    distance = max(abs(np.mean(covered <= i) - law.cdf(i)) for i in range(m + 1))
    assert distance < 1.63 / math.sqrt(splits)  # Kolmogorov's test at 1 %


@pytest.mark.parametrize("conditional", [None, "class"])
def test_conditional_coverage(conditional):
    """It holds for each class or group, where the marginal sets miss it."""
    z, y = labelled_rows(40_000, k=3)
    z += np.array([2.0, 0.0, -2.0])  # class 2 is predicted too rarely
    groups = np.where(np.random.default_rng(0).random(40_000) < 0.5, "noisy", "clean")
    z[groups == "noisy"] /= 4
    fit, new = slice(0, 20_000), slice(20_000, None)
    use = None if conditional else groups
    sets = ConformalSets(0.8, conditional=conditional).fit(
        z[fit], y[fit], None if use is None else use[fit]
    )
    covered = sets.predict(z[new], None if use is None else use[new])[np.arange(20_000), y[new]]
    parts = y[new] if conditional else groups[new]
    marginal = ConformalSets(0.8).fit(z[fit], y[fit]).predict(z[new])[np.arange(20_000), y[new]]
    for part in np.unique(parts):
        assert covered[parts == part].mean() == pytest.approx(0.8, abs=0.02)
    assert min(marginal[parts == part].mean() for part in np.unique(parts)) < 0.77


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("convert", [torch.from_numpy, jnp.asarray])
def test_libraries(kind, convert):
    """Masks and sizes of z's library, equal to those of NumPy; batches of any shape."""
    z, y = labelled_rows(200)
    sets = ConformalSets(**kind).fit(*labelled_rows(200, seed=1), rng=0)
    expected = sets.predict(z, rng=1)
    for result, reference in (
        (sets.predict(convert(z), rng=1), expected),
        (sets.set_sizes(convert(z), rng=1), expected.sum(-1)),
    ):
        assert type(result) is type(convert(z))
        np.testing.assert_array_equal(np.asarray(result), reference)
    batch = z.reshape(10, 20, 6)
    np.testing.assert_array_equal(sets.predict(batch, rng=1), expected.reshape(10, 20, 6))
    assert sets.predict(z[0], rng=1).shape == (6,)
    assert sets.predict(z[:0]).shape == (0, 6)
    again = ConformalSets(**kind).fit(convert(batch), convert(y.reshape(10, 20)), rng=0)
    same = ConformalSets(**kind).fit(z, y, rng=0)
    np.testing.assert_allclose(again.thresholds_, same.thresholds_, rtol=1e-6)


def test_jit():
    z, y = labelled_rows(200)
    sets = ConformalSets(score="aps").fit(jnp.asarray(z), y)
    predicted = jax.jit(sets.predict)(jnp.asarray(z))
    np.testing.assert_array_equal(predicted, sets.predict(jnp.asarray(z)))


def test_groups_of_other_types():
    """Integers, booleans, lists and the strings of a data frame."""
    z, y = labelled_rows(60)
    for groups in (
        np.arange(60) % 2 > 0,
        list(np.arange(60) % 2),
        pd.Series(np.array(["x", "y"], dtype=object)[np.arange(60) % 2]),
    ):
        sets = ConformalSets(0.7).fit(z, y, groups)
        assert len(sets.groups_) == 2
        assert sets.empirical_coverage(z, y, groups) >= 0.7


def test_seeds():
    """A seed determines randomized sets; None does not."""
    z, y = labelled_rows(300)
    sets = ConformalSets(score="aps", randomized=True).fit(z, y, rng=0)
    np.testing.assert_array_equal(sets.predict(z, rng=5), sets.predict(z, rng=5))
    assert (sets.predict(z) != sets.predict(z)).any()
    assert (sets.predict(z, rng=5) != sets.predict(z, rng=6)).any()


def test_parameters():
    """The conventions of scikit-learn."""
    sets = ConformalSets(0.8, score="raps", rank=2)
    assert clone(sets).get_params() == sets.get_params()
    assert sets.set_params(coverage=0.7).coverage == 0.7


Z, Y = labelled_rows(40)
FIT = ConformalSets().fit(Z, Y)
GROUPED = ConformalSets().fit(Z, Y, np.arange(40) % 2)
NAN = np.where(np.arange(40)[:, None] == 7, np.nan, Z)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ConformalSets(1.0).fit(Z, Y),
            ValueError,
            "coverage must be between 0 and 1, got 1.0",
        ),
        (lambda: ConformalSets(0).fit(Z, Y), ValueError, "coverage must be between 0 and 1"),
        (lambda: ConformalSets("0.9").fit(Z, Y), TypeError, "coverage must be a real number"),
        (
            lambda: ConformalSets(score="p").fit(Z, Y),
            ValueError,
            "score must be one of 'lac', 'aps', 'raps', got 'p'",
        ),
        (
            lambda: ConformalSets(conditional="group").fit(Z, Y),
            ValueError,
            "conditional must be one of None, 'class', got 'group'",
        ),
        (
            lambda: ConformalSets(randomized=True).fit(Z, Y),
            ValueError,
            "randomized must be False for score 'lac', got True",
        ),
        (lambda: ConformalSets(randomized=1).fit(Z, Y), TypeError, "randomized must be True or"),
        (lambda: ConformalSets(penalty=-1).fit(Z, Y), ValueError, "penalty must be finite and"),
        (lambda: ConformalSets(rank=-1).fit(Z, Y), ValueError, "rank must be >= 0, got -1"),
        (lambda: FIT.fit(Z[:1], Y[:1]), ValueError, "z must hold at least 2 rows, got 1"),
        (lambda: FIT.fit(Z, Y + 1), ValueError, "y must be from 0 to 5, as z has 6 classes"),
        (lambda: FIT.fit(NAN, Y), ValueError, "row 7 of z has no distribution"),
        (lambda: FIT.fit(Z, Y, Y[1:]), ValueError, r"groups must have shape \(40,\)"),
        (lambda: FIT.fit(Z, Y, Y / 2), TypeError, "groups must be integers or strings, got float"),
        (lambda: FIT.fit(Z, Y, ["a"] * 39 + [None]), ValueError, "groups must have no missing"),
        (lambda: FIT.fit(Z, Y, rng="x"), TypeError, "rng must be None, an int"),
        (lambda: ConformalSets().predict(Z), ValueError, "is not fitted yet; call fit first"),
        (lambda: FIT.predict(Z[:, :3]), ValueError, r"z must have shape \(..., 6\), got \(40, 3\)"),
        (lambda: FIT.predict(NAN), ValueError, "row 7 of z has no distribution"),
        (lambda: FIT.predict(Z, Y), ValueError, "groups must be None, as in fit"),
        (lambda: GROUPED.predict(Z), ValueError, "groups must be given, as in fit, got None"),
        (
            lambda: GROUPED.predict(Z, np.where(np.arange(40) == 9, 7, 1)),
            ValueError,
            "groups must be groups of the fit, got 7 in row 9",
        ),
        (
            lambda: GROUPED.predict(Z, ["a"] * 40),
            ValueError,
            "groups must be groups of the fit, got 'a' in row 0",
        ),
        (lambda: FIT.empirical_coverage(Z, Y + 1), ValueError, "y must be from 0 to 5"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", KINDS)
def test_real_predictions(predictions, kind):
    """Half of the rows fits; in the other half the coverage is within 3.3 standard deviations."""
    _, p, y = predictions
    z, y, order = logitlab.logits(p), y.reshape(-1), np.random.default_rng(0).permutation(len(y))
    fit, new = np.split(order, 2)
    sets = ConformalSets(0.95, **kind).fit(z[fit], y[fit], rng=0)
    law = betabinom(len(new), 4751, 5001 - 4751)
    covered = len(new) * sets.empirical_coverage(z[new], y[new], rng=1)
    assert abs(covered - law.mean()) < 3.3 * law.std()
