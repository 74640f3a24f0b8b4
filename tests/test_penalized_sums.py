"""Sums over the rows for a penalized fit, against the full Hessian and their formulas."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import softmax, xlogy

from logitlab.regression.penalized_sums import DualPoint
from logitlab.regression.rows import Rows

pytestmark = pytest.mark.slow


def rows(k, form=np.asarray, weighted=True, n=200, d=6):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.5)
    weight = rng.random(n) * (rng.random(n) < 0.8) if weighted else None
    engine = Rows(form(X), rng.integers(k, size=n), weight, k, np.float64)
    return engine, X, rng.standard_normal((k, d)), rng.standard_normal(k)


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_matrix, np.float32])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
def test_working_hessian(form, weighted, intercept, monkeypatch):
    """It has the rows and columns of the full Hessian; of two classes those of the second one."""
    monkeypatch.setattr("logitlab.regression.rows._PRODUCT_SIZE", 700)
    last = [6] if intercept else []
    for k, columns in ((3, ([0, 2, *last], [*last], [1, 2, 4, 5, *last])), (2, ([1, 4, *last],))):
        engine, X, coef, shift = rows(k, form, weighted)
        centre = X.mean(axis=0)
        columns = [np.array(part, int) for part in columns]
        found = engine.working_hessian(coef, shift, centre, columns)
        first = 0 if k > 2 else 1
        at = np.concatenate([7 * (first + c) + part for c, part in enumerate(columns)])
        expected = engine.hessian(coef, shift, centre)[np.ix_(at, at)]
        np.testing.assert_allclose(found, expected, rtol=1e-5 if form is np.float32 else 1e-10)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_dual_entropy(form, weighted, k):
    """A probability of 0 has no entropy; the given probabilities are shared."""
    engine, X, coef, shift = rows(k, form, weighted)
    shift[0] = -1e4
    weight = np.ones(len(X)) if engine.weight is None else engine.weight
    p, y = softmax(X @ coef.T + shift, axis=1), np.eye(k)[engine.y]
    keep, share = np.linspace(0.8, 1, k), np.arange(k)[::-1] / np.arange(k).sum()
    for point in (DualPoint(keep, share, 0.7), DualPoint(np.ones(k), np.zeros(k), 1.0)):
        q = point.keep * p + np.outer(p @ (1 - point.keep), point.share)
        q = (1 - point.scale) * y + point.scale * q
        np.testing.assert_allclose(q.sum(axis=1), 1)
        expected = -weight @ xlogy(q, q).sum(axis=1)
        assert engine.dual_entropy(coef, shift, point) == pytest.approx(expected, rel=1e-12)


def test_entries():
    engine, X, _, _ = rows(3, sp.csr_matrix)
    assert engine.entries() == np.count_nonzero(X)
    assert rows(3)[0].entries() == X.size
