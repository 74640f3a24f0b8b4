"""The path over C, and the penalty selected by cross-validation."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold

from logitlab import SoftmaxRegression, SoftmaxRegressionCV, softmax_regression_path
from test_elastic_net import problem

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("k", [2, 3])
def test_path_is_the_fits(k, l1_ratio, grouped):
    """Each point is the fit at its C, with weights of rows and classes, in any order of C."""
    X, y = problem(k, n=200)
    weight = np.random.default_rng(0).random(len(y))
    options = {"l1_ratio": l1_ratio, "grouped": grouped, "class_weight": "balanced", "tol": 1e-12}
    path = softmax_regression_path(X, y + 5, weight, Cs=[1.0, 0.01, 0.1], **options)
    assert path.Cs.tolist() == [0.01, 0.1, 1.0]
    assert path.classes.tolist() == list(range(5, 5 + k))
    rows = 1 if k == 2 else k
    assert path.coefs.shape == (3, rows, X.shape[1])
    assert path.intercepts.shape == (3, rows)
    for i, C in enumerate(path.Cs):
        model = SoftmaxRegression(C=C, **options).fit(X, y + 5, weight)
        np.testing.assert_allclose(path.coefs[i], model.coef_, rtol=0, atol=1e-6)
        np.testing.assert_allclose(path.intercepts[i], model.intercept_, rtol=0, atol=1e-6)
        assert path.n_features[i] == np.count_nonzero(model.coef_.any(axis=0))
        if l1_ratio:
            np.testing.assert_array_equal(path.coefs[i] == 0, model.coef_ == 0)
            assert path.dual_gaps[i] <= 1e-12 * model.loss_curve_[-1]
        else:
            assert math.isnan(path.dual_gaps[i])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("n", "ratio"), [(300, 1e4), (10, 1e2)])
def test_default_penalties(n, ratio, grouped):
    """The first has no coefficients and is the largest such C."""
    X, y = problem(3, n=n)
    path = softmax_regression_path(X, y, Cs=6, l1_ratio=0.5, grouped=grouped)
    np.testing.assert_allclose(path.Cs[1:] / path.Cs[:-1], ratio**0.2, rtol=1e-12)
    assert path.n_features[0] == 0 < path.n_features[1]
    shares = np.bincount(y) / len(y)
    expected = np.log(shares) - np.log(shares).mean()
    np.testing.assert_allclose(path.intercepts[0], expected, rtol=0, atol=1e-6)
    above = {"C": path.Cs[0] * 1.001, "l1_ratio": 0.5, "grouped": grouped, "tol": 1e-10}
    assert SoftmaxRegression(**above).fit(X, y).coef_.any()
    np.testing.assert_allclose(
        softmax_regression_path(X, y, Cs=3, l1_ratio=0.0).Cs, [1e-4, 1, 1e4], rtol=1e-12
    )


def test_path_of_features_that_say_nothing():
    """Without a C at which a coefficient is not 0, the Cs are those of a ridge."""
    path = softmax_regression_path(np.ones((6, 2)), [0, 1, 2] * 2, Cs=2)
    assert path.Cs.tolist() == [1e-4, 1e4]
    assert not path.coefs.any()


def test_path_is_cheaper_than_its_fits():
    X, y = problem(3, n=400)
    path = softmax_regression_path(X, y, Cs=50)
    cold = [SoftmaxRegression(C=C, l1_ratio=1.0).fit(X, y).n_iter_[0] for C in path.Cs]
    assert path.n_iter.sum() < 0.7 * sum(cold)


@pytest.mark.parametrize(
    ("Cs", "message"),
    [
        (0, "Cs must be >= 1, got 0"),
        ([1.0, 0.0], "Cs must be > 0 and finite, got 0.0"),
        ([1.0, math.inf], "Cs must be > 0 and finite, got inf"),
        ([math.nan], "Cs must be > 0 and finite, got nan"),
        ([], "Cs must be > 0 and finite, got no value"),
    ],
)
def test_refused_strengths(Cs, message):
    X, y = problem(3)
    with pytest.raises(ValueError, match=message):
        softmax_regression_path(X, y, Cs=Cs)
    with pytest.raises(ValueError, match=message):
        SoftmaxRegressionCV(Cs=Cs).fit(X, y)


@pytest.mark.parametrize("k", [2, 3])
def test_scores_of_scikit_learn(k):
    """Of a ridge at the Cs and folds of LogisticRegressionCV, the same scores and selection."""
    X, y = problem(k, n=200)
    ours = SoftmaxRegressionCV(tol=1e-9).fit(X, y)
    theirs = LogisticRegressionCV(
        scoring="neg_log_loss",
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
        tol=1e-10,
        max_iter=10_000,
    ).fit(X, y)
    np.testing.assert_allclose(ours.Cs_, theirs.Cs_, rtol=1e-12)
    np.testing.assert_allclose(ours.scores_, theirs.scores_, rtol=0, atol=1e-5)
    assert pytest.approx(theirs.C_) == ours.C_
    assert ours.l1_ratio_ == theirs.l1_ratio_ == 0.0
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-4)


def test_scores_are_those_of_the_held_out_rows():
    """A loop over folds, l1_ratios and Cs gives the scores; weights count in fits and scores."""
    X, y = problem(3, n=150)
    weight = np.random.default_rng(0).random(len(y))
    options = {"grouped": True, "class_weight": "balanced", "tol": 1e-9}
    Cs, ratios = [0.02, 0.5], [0.5, 1.0]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    model = SoftmaxRegressionCV(Cs=Cs, l1_ratios=ratios, cv=folds, **options).fit(X, y, weight)
    assert model.scores_.shape == (3, 2, 2)
    for fold, (train, test) in enumerate(folds.split(X, y)):
        for i, l1_ratio in enumerate(ratios):
            for j, C in enumerate(Cs):
                one = SoftmaxRegression(C=C, l1_ratio=l1_ratio, **options)
                p = one.fit(X[train], y[train], weight[train]).predict_proba(X[test])
                expected = -log_loss(y[test], p, sample_weight=weight[test])
                assert model.scores_[fold, i, j] == pytest.approx(expected, abs=1e-6)
    best = np.unravel_index(model.scores_.mean(axis=0).argmax(), (2, 2))
    assert (model.l1_ratio_, model.C_) == (ratios[best[0]], Cs[best[1]])
    refit = SoftmaxRegression(C=model.C_, l1_ratio=model.l1_ratio_, **options).fit(X, y, weight)
    np.testing.assert_array_equal(model.coef_, refit.coef_)
    assert model.dual_gap_ == refit.dual_gap_
    np.testing.assert_array_equal(model.predict_proba(X), refit.predict_proba(X))


def test_selection_of_the_strongest_penalty():
    """Within one standard error of the best score of the selected l1_ratio."""
    X, y = problem(3, n=150)
    options = {"Cs": 20, "l1_ratios": [0.9, 1.0], "cv": 4}
    least = SoftmaxRegressionCV(**options).fit(X, y)
    sparse = SoftmaxRegressionCV(selection="one_standard_error", **options).fit(X, y)
    np.testing.assert_array_equal(least.scores_, sparse.scores_)
    assert sparse.l1_ratio_ == least.l1_ratio_
    row = options["l1_ratios"].index(least.l1_ratio_)
    mean = least.scores_[:, row].mean(axis=0)
    best = mean.argmax()
    assert least.Cs_[best] == least.C_
    error = least.scores_[:, row, best].std(ddof=1) / 2
    allowed = [C for C, score in zip(least.Cs_, mean, strict=True) if score >= mean[best] - error]
    assert sparse.C_ == min(allowed) < least.C_
    assert np.count_nonzero(sparse.coef_) < np.count_nonzero(least.coef_)


@pytest.mark.parametrize("form", [sp.csr_matrix, pd.DataFrame])
def test_scoring_and_forms(form):
    """A scorer of scikit-learn; sparse matrices and data frames."""
    X, y = problem(3, n=150)
    options = {"Cs": 5, "l1_ratios": 1.0, "cv": KFold(3)}
    X = pd.DataFrame(X, columns=list("abcdefghijkl")) if form is pd.DataFrame else form(X)
    model = SoftmaxRegressionCV(scoring="accuracy", **options).fit(X, y)
    assert ((model.scores_ >= 0) & (model.scores_ <= 1)).all()
    assert model.score(X, y) > 0.5
    assert hasattr(model, "feature_names_in_") == (form is pd.DataFrame)


def test_refused_arguments():
    X, y = problem(3, n=60)
    da = pytest.importorskip("dask.array")
    for options, error, message in (
        ({"selection": "1se"}, ValueError, "selection must be .*, got '1se'"),
        ({"l1_ratios": [0.5, 2]}, ValueError, "l1_ratio must be from 0 to 1, got 2"),
        ({"l1_ratios": []}, ValueError, "l1_ratios must hold at least one number, got none"),
        ({"grouped": 2}, TypeError, "grouped must be True or False, got 2"),
        ({"cv": 1}, ValueError, "k-fold"),
    ):
        with pytest.raises(error, match=message):
            SoftmaxRegressionCV(**options).fit(X, y)
    with pytest.raises(TypeError, match="X must be in memory, got a Array"):
        SoftmaxRegressionCV().fit(da.from_array(X), y)
    order = np.argsort(y)
    message = "cv must leave rows of every class to fit, got none of class 0 in fold 0"
    with pytest.raises(ValueError, match=message):
        SoftmaxRegressionCV(cv=KFold(3)).fit(X[order], np.arange(60) // 20)
