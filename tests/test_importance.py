"""Permutation importance."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance as by_scikit_learn
from sklearn.metrics import log_loss

from logitlab import SoftmaxRegression, permutation_importance

pytestmark = pytest.mark.slow

NAMES = ["strong", "weak", "none"]


def rows(n=4000, k=3):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    z = X * [2.0, 0.3, 0.0] @ rng.standard_normal((3, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


X, y = rows()
MODEL = SoftmaxRegression().fit(X[:2000], y[:2000])


def test_agrees_with_scikit_learn():
    ours = permutation_importance(MODEL, X[2000:], y[2000:], n_repeats=20, rng=0)
    theirs = by_scikit_learn(
        MODEL, X[2000:], y[2000:], n_repeats=20, scoring="neg_log_loss", random_state=0
    )
    np.testing.assert_allclose(ours.increase, theirs.importances_mean, atol=0.01)
    assert ours.log_loss == pytest.approx(
        -np.mean(MODEL.predict_log_proba(X[2000:])[np.arange(2000), y[2000:]])
    )
    assert ours.names == ["x0", "x1", "x2"]
    assert ours.low[0] > 0.1
    assert ours.low[2] < 0 < ours.high[2]


@pytest.mark.parametrize(
    "kind",
    [
        np.asfortranarray,
        sparse.csr_array,
        sparse.csc_matrix,
    ],
)
def test_same_on_every_kind_of_matrix(kind):
    matrix = kind(X[2000:])
    ours = permutation_importance(MODEL, matrix, y[2000:], rng=3)
    expected = permutation_importance(MODEL, X[2000:], y[2000:], rng=3)
    np.testing.assert_allclose(ours.increase, expected.increase, rtol=1e-9)
    assert abs(matrix - kind(rows()[0][2000:])).max() == 0


def test_columns_named_by_numbers():
    """Also where there are fewer rows than columns."""
    wide = np.random.default_rng(0).standard_normal((40, 60))
    model = SoftmaxRegression().fit(wide, y[:40])
    ours = permutation_importance(model, pd.DataFrame(wide), y[:40], rng=3)
    expected = permutation_importance(model, wide.tolist(), y[:40], rng=3)
    np.testing.assert_allclose(ours.increase, expected.increase, rtol=1e-9)
    assert ours.names[-1] == "59"


def test_probabilities_of_0():
    """Of a forest they are exact zeros; scikit-learn's log-loss has the same bound."""
    forest = RandomForestClassifier(5, random_state=0).fit(X[:500], y[:500])
    ours = permutation_importance(forest, X[2000:], y[2000:], rng=3)
    assert ours.log_loss == pytest.approx(log_loss(y[2000:], forest.predict_proba(X[2000:])))
    assert np.isfinite(ours.increase).all()
    assert ours.increase.argmax() == 0


def test_estimators_without_classes():
    with pytest.raises(TypeError, match=r"estimator must be a fitted classifier.*Regression"):
        permutation_importance(SoftmaxRegression(), X, y)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames(frame):
    data = {name: column[:2000] for name, column in zip(NAMES, X.T, strict=True)}
    model = SoftmaxRegression().fit(pd.DataFrame(data), y[:2000])
    held_out = frame({name: column[2000:] for name, column in zip(NAMES, X.T, strict=True)})
    ours = permutation_importance(model, held_out, y[2000:], rng=3)
    assert ours.names == NAMES
    expected = permutation_importance(MODEL, X[2000:], y[2000:], rng=3)
    np.testing.assert_allclose(ours.increase, expected.increase, rtol=1e-9)


def test_coverage():
    """The intervals contain the increase over many rows at about their level."""
    rng = np.random.default_rng(1)
    large, labels = rows(200_000)
    truth = permutation_importance(MODEL, large, labels, rng=0).increase[0]
    hits = 0
    for _ in range(200):
        part = rng.integers(0, len(labels), 300)
        result = permutation_importance(MODEL, large[part], labels[part], n_repeats=5, rng=rng)
        hits += result.low[0] <= truth <= result.high[0]
    assert 182 <= hits <= 199


class WithoutLogarithm:
    classes_ = MODEL.classes_

    def predict_proba(self, data):
        return MODEL.predict_proba(data)


def test_predict_proba_is_enough():
    ours = permutation_importance(WithoutLogarithm(), X[2000:], y[2000:], rng=3)
    expected = permutation_importance(MODEL, X[2000:], y[2000:], rng=3)
    np.testing.assert_allclose(ours.increase, expected.increase, rtol=1e-9)


def test_labels_of_text_and_unsorted_classes():
    class Renamed:
        classes_ = np.array(["c", "a", "b"])
        predict_proba = staticmethod(MODEL.predict_proba)

    ours = permutation_importance(Renamed(), X[2000:], Renamed.classes_[y[2000:]], rng=3)
    expected = permutation_importance(MODEL, X[2000:], y[2000:], rng=3)
    np.testing.assert_allclose(ours.increase, expected.increase, rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[:1].tolist(), y[:1]), {}, "X must have at least 2 rows, got 1"),
        ((X[:9], y[:8]), {}, "y must have a label for each of the 9 rows of X, got 8"),
        ((X[:9], np.full(9, 7)), {}, r"y must hold classes of the estimator, \[0, 1, 2\], got 7"),
        ((X[0], y[:3]), {}, "X must have 2 dimensions, got 1"),
        ((X[:9], y[:9]), {"n_repeats": 0}, "n_repeats must be >= 1, got 0"),
        ((X[:9], y[:9]), {"confidence_level": 1}, "confidence_level must be between 0 and 1"),
    ],
)
def test_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        permutation_importance(MODEL, *arguments, **options)
