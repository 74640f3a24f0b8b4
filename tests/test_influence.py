"""Residuals and influence against statsmodels, and against fits without one row."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

import anes96
from logitlab import SoftmaxRegression


def test_two_classes_of_statsmodels():
    """Leverage, changes, their ratios to standard errors, Cook's distance."""
    theirs = anes96.theirs(2).get_influence()
    ours = anes96.ours(2).inference().influence()
    for a, b in (
        (ours.leverage, theirs.hat_matrix_diag),
        (ours.coef_change[:, 0], theirs.d_params),
        (ours.dfbetas[:, 0], theirs.dfbetas),
        (ours.cooks_distance, theirs.cooks_distance[0]),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10)


def test_residuals_of_statsmodels():
    """Response, Pearson and deviance residuals."""
    theirs, ours = anes96.theirs(2), anes96.ours(2).inference().residuals()
    np.testing.assert_allclose(ours.response[:, 1], theirs.resid_response, rtol=1e-6)
    np.testing.assert_allclose(ours.pearson[:, 1], theirs.resid_pearson, rtol=1e-6)
    np.testing.assert_allclose(ours.deviance, theirs.resid_dev, rtol=1e-6)
    theirs, ours = anes96.theirs(7), anes96.ours(7).inference().residuals()
    np.testing.assert_allclose(ours.response, theirs.resid_response, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours.pearson, theirs.resid_pearson, rtol=1e-6)
    assert (ours.deviance >= 0).all()
    assert ours.deviance @ ours.deviance == pytest.approx(-2 * theirs.llf, rel=1e-9)


def problem(k, n=250):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, 2)) * [1, 10] + [3, 200]
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((2, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1), rng.uniform(0.5, 3, n)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 3])
def test_newton_step_without_a_row(k, intercept):
    """The change is one Newton step of the likelihood without the row, from the maximum."""
    X, y, w = problem(k)
    model = SoftmaxRegression(C=math.inf, tol=1e-11, fit_intercept=intercept)
    inference = model.fit(X, y, w).inference(base=k - 1, cov_type="HC0")
    ours = inference.influence()
    p = model.predict_proba(X)[:, : k - 1]
    design = np.hstack([X, np.ones((len(X), 1))])[:, : 2 + intercept]
    J = np.einsum("ij,nj->nij", np.eye(k - 1), p) - p[:, :, None] * p[:, None, :]
    size = (k - 1) * design.shape[1]
    each = np.einsum("n,nkl,nd,ne->nkdle", w, J, design, design).reshape(-1, size, size)
    scores = w[:, None, None] * ((y[:, None] == np.arange(k - 1)) - p)[:, :, None]
    scores = (scores * design[:, None, :]).reshape(-1, size)
    total = each.sum(axis=0)
    errors = np.sqrt(np.diagonal(np.linalg.inv(total)))
    for n in range(0, len(X), 10):
        change = np.linalg.solve(total - each[n], scores[n])
        got = ours.coef_change[n].ravel()
        np.testing.assert_allclose(got / errors, change / errors, rtol=0, atol=1e-8)
        np.testing.assert_allclose(ours.dfbetas[n].ravel(), got / errors, rtol=1e-6)
        distance = change @ total @ change / size
        assert ours.cooks_distance[n] == pytest.approx(distance, rel=1e-6)
        leverage = np.trace(np.linalg.solve(total, each[n]))
        assert ours.leverage[n] == pytest.approx(leverage, rel=1e-6)
    assert ours.leverage.sum() == pytest.approx(size, rel=1e-10)


def test_refits_without_a_row():
    """The change is about that of the fit of the other rows; the most influential rows agree."""
    X, y, w = problem(3, 120)
    model = SoftmaxRegression(C=math.inf, tol=1e-10)
    all_rows = model.fit(X, y, w).inference()
    ours = all_rows.influence().coef_change / all_rows.standard_error
    refit = np.empty_like(ours)
    for n in range(len(X)):
        kept = np.arange(len(X)) != n
        coef = model.fit(X[kept], y[kept], w[kept]).inference().coef
        refit[n] = (all_rows.coef - coef) / all_rows.standard_error
    assert abs(ours - refit).max() < 0.2 * abs(refit).max()
    np.testing.assert_allclose(ours, refit, rtol=0.25, atol=0.01)
    assert abs(ours).sum(axis=(1, 2)).argmax() == abs(refit).sum(axis=(1, 2)).argmax()


def test_layouts():
    """CSR and float32 give the influence of an array."""
    X, y, w = problem(3)
    X = X.astype(np.float32)
    expected = SoftmaxRegression(C=math.inf, tol=1e-10).fit(X.astype(float), y, w)
    expected = expected.inference()
    for x, rtol in ((csr_array(X.astype(float)), 1e-8), (X, 1e-3)):
        other = SoftmaxRegression(C=math.inf).fit(x, y, w).inference()
        for method, name in (("influence", "cooks_distance"), ("residuals", "deviance")):
            a, b = (getattr(getattr(m, method)(), name) for m in (expected, other))
            np.testing.assert_allclose(b, a, rtol=max(rtol, 1e-4))


def test_residuals_of_certain_rows():
    """No digits are lost where a probability is almost 0 or 1."""
    x = np.r_[np.linspace(-1, 1, 40), 60, -60]
    y = np.r_[np.arange(40) % 3, 0, 1]
    y[:40][(x[:40] > 0.5) & (y[:40] == 1)] = 0
    model = SoftmaxRegression(C=math.inf, tol=1e-10).fit(x[:, None], y)
    inference = model.inference()
    residuals = inference.residuals()
    log_p = model.predict_log_proba(x[:, None])
    p_other = np.exp(log_p[40, [1, 2]]).sum()
    assert p_other < 1e-8
    assert residuals.response[40, 0] == pytest.approx(p_other, rel=1e-6)
    assert residuals.pearson[40, 0] == pytest.approx(math.sqrt(p_other), rel=1e-6)
    assert np.isfinite(residuals.pearson).all()
    assert residuals.deviance[40] == pytest.approx(math.sqrt(2 * p_other), rel=1e-3)


def test_firth_is_refused():
    """Its estimate does not maximize the likelihood, from which the step is made."""
    X, y, w = problem(3)
    inference = SoftmaxRegression(C=math.inf, firth=True).fit(X, y, w).inference()
    with pytest.raises(ValueError, match="influence needs a fit without firth"):
        inference.influence()
    assert inference.residuals().deviance.shape == (250,)
