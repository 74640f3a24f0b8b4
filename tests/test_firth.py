"""Firth's bias reduction: published fits, closed forms, brute force, separated classes."""

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.sparse import csr_array
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning

from logitlab import SoftmaxRegression
from logitlab.regression.firth import FirthObjective
from logitlab.regression.rows import Rows
from published_tables import alligators, endometrial, infection

pytestmark = pytest.mark.slow


def firth(**options):
    return SoftmaxRegression(**{"C": math.inf, "firth": True, "tol": 1e-9, **options})


def penalized_loss(parameters, X, y, w, k):
    """Minus the log-likelihood with the Jeffreys penalty; class 0 has the logit 0."""
    rows = np.arange(len(y))
    differences = parameters.reshape(k - 1, -1)
    z = np.hstack([np.zeros((len(y), 1)), X @ differences.T])
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    p = np.exp(log_p[:, 1:])
    J = np.einsum("ij,nj->nij", np.eye(k - 1), p) - p[:, :, None] * p[:, None, :]
    information = np.einsum("n,nkl,na,nb->kalb", w, J, X, X).reshape(parameters.size, -1)
    return -w @ log_p[rows, y] - np.linalg.slogdet(information)[1] / 2


def test_endometrial_cancer():
    """Coefficients of logistf; errors and deviance of brglm2, in its README."""
    X, y = endometrial()
    model = firth().fit(X, y)
    np.testing.assert_allclose(model.coef_[0], [2.92927330, -0.03475175, -2.60416387], rtol=1e-6)
    assert model.intercept_[0] == pytest.approx(3.77455951, rel=1e-6)
    summary = model.summary(X, y)
    errors = [1.55076, 0.03958, 0.77602, 1.48869]
    np.testing.assert_allclose(summary.standard_error[0], errors, rtol=0, atol=5e-6)
    assert summary.method == "Firth"
    assert -2 * summary.log_likelihood == pytest.approx(56.575, abs=5e-4)
    assert len(model.loss_curve_) == model.n_iter_[0] + 1
    assert (np.diff(model.loss_curve_[:6]) < 0).all()
    assert model.n_iter_[0] <= 15


def test_urinary_tract_infection():
    """Coefficients of logistf; counts are weights."""
    X, y, counts = infection()
    coef = [-1.10598131, -0.06881673, 2.26887464, -2.11140817, -0.78831694, 3.09601166]
    repeat = np.repeat(np.arange(len(y)), counts.astype(int))
    for model in (firth().fit(X, y, counts), firth().fit(X[repeat], y[repeat])):
        np.testing.assert_allclose(model.coef_[0], coef, rtol=1e-6)
        assert model.intercept_[0] == pytest.approx(0.12025405, rel=1e-6)


@pytest.mark.parametrize("divisor", [1, 3])
def test_alligators(divisor):
    """Several classes by brute force; divided by 3, as brglm2 does, the counts are separated."""
    X, y, counts = alligators()
    counts = np.round(counts / divisor)
    if divisor == 1:  # Agresti, "Categorical data analysis", 2002, table 7.4
        table = [[1.46, -1.66, 0.94, 1.12, -1.55], [-0.35, 1.24, 2.46, 2.94, -3.31]]
        table += [[-0.63, 0.70, -0.65, 1.09, -2.09], [0.33, 0.83, 0.01, 1.52, -1.90]]
        plain = firth(firth=False).fit(X, y, counts).summary(X, y, counts)
        np.testing.assert_allclose(plain.coef, table, rtol=0, atol=0.0051)
    summary = firth().fit(X, y, counts).summary(X, y, counts)
    design = np.hstack([X, np.ones((len(X), 1))])
    rest = design, y, counts, 5
    found = minimize(penalized_loss, np.zeros(20), rest, "BFGS", options={"gtol": 1e-6})
    np.testing.assert_allclose(summary.coef.ravel(), found.x, rtol=0, atol=1e-5)
    slope = approx_fprime(summary.coef.ravel(), penalized_loss, 1e-6, *rest)
    np.testing.assert_allclose(slope, 0, atol=1e-4)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_saturated_model(k):
    """Two groups with a coefficient each: half a row is added to every cell."""
    counts = np.random.default_rng(k).integers(1, 6, (2, k)).astype(float)
    counts[0, 0] = counts[1, 1] = 0
    X, y = np.repeat([[0.0], [1.0]], k, axis=0), np.tile(np.arange(k), 2)
    p = firth(tol=1e-11).fit(X, y, counts.ravel()).predict_proba([[0.0], [1.0]])
    expected = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, expected, rtol=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_gradient(k, intercept):
    """The gradient by finite differences; without penalty where all logits are equal."""
    rng = np.random.default_rng(k)
    X = rng.standard_normal((60, 3)) * [1, 10, 0.1] + [0, 5, 3]
    y, w = rng.integers(k, size=60), rng.uniform(0.2, 3, 60)
    objective = FirthObjective(Rows(X, y, w, k), k, intercept)
    shape = k, 3 + intercept
    value, _ = objective.value_and_gradient(np.zeros(shape))
    assert value == pytest.approx(math.log(k), rel=1e-12)
    theta = 0.3 * rng.standard_normal(shape) * ([1, 0.1, 10, 1][: shape[1]])
    _, gradient = objective.value_and_gradient(theta)
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-5
        ends = (objective.value_and_gradient(theta + s * step)[0] for s in (1, -1))
        slope = (next(ends) - next(ends)) / (2 * step[index])
        assert slope == pytest.approx(gradient[index], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("k", [2, 3])
def test_containers(k):
    """Sparse, Fortran order and float32 rows, scaled and shifted features, permuted labels."""
    rng = np.random.default_rng(k)
    X = rng.standard_normal((150, 4)) * (rng.random((150, 4)) < 0.5)
    y = (X @ rng.standard_normal((4, k)) * 3 + rng.gumbel(size=(150, k))).argmax(axis=1)
    expected = firth().fit(X, y)
    for other in (csr_array(X), np.asfortranarray(X)):
        model = firth().fit(other, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    single = firth(tol=1e-5).fit(X.astype(np.float32), y)
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.coef_, expected.coef_, rtol=1e-3)
    scaled = firth().fit(X * [1, 1e3, 1e-3, 1] + [0, 1e4, 0, 5], y)
    np.testing.assert_allclose(scaled.coef_ * [1, 1e3, 1e-3, 1], expected.coef_, rtol=1e-5)
    permuted = firth().fit(X, (k - 1) - y)
    sign = -1 if k == 2 else 1
    np.testing.assert_allclose(permuted.coef_[::-1], sign * expected.coef_, rtol=1e-6)


def test_separated_classes():
    """Finite and without a warning; the fit starts where the previous one ended."""
    X, y = load_wine(return_X_y=True)
    model = firth(tol=1e-6, warm_start=True).fit(X, y)
    assert abs(model.coef_ * X.std(axis=0)).max() < 10
    assert model.score(X, y) == 1
    assert (model.summary(X, y).standard_error > 0).all()
    before = model.n_iter_[0]
    assert model.fit(X, y).n_iter_[0] < before / 4
    with pytest.warns(ConvergenceWarning, match="did not converge after 2 iterations"):
        firth(max_iter=2).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="choose a finite C, or firth=True"):
        firth(firth=False).fit(X, y)


def test_dependent_features():
    """The coefficients of least norm, with the probabilities of independent features."""
    X, y = endometrial()
    alone = firth().fit(X, y)
    dependent = np.hstack([X, X[:, :1], np.full((79, 1), 2.0)])
    model = firth().fit(dependent, y)
    np.testing.assert_allclose(model.coef_[0, [1, 2]], alone.coef_[0, 1:], rtol=1e-6)
    np.testing.assert_allclose(model.coef_[0, [0, 3]], alone.coef_[0, 0] / 2, rtol=1e-6)
    assert model.coef_[0, 4] == 0
    with pytest.raises(ValueError, match="linearly dependent"):
        model.summary(dependent, y)


def test_errors():
    """Another penalty, a wrong type, too many parameters, tests that need maximum likelihood."""
    X, y = endometrial()
    full, small = (firth().fit(x, y).inference() for x in (X, X[:, :2]))
    with pytest.raises(ValueError, match="score_test needs a fit without firth"):
        small.score_test(X[:, 2:])
    with pytest.raises(ValueError, match="likelihood_ratio_test needs a fit without firth"):
        full.likelihood_ratio_test(small)
    with pytest.raises(ValueError, match=r"firth=True needs C=math\.inf, got C=1\.0"):
        SoftmaxRegression(firth=True).fit(X, y)
    with pytest.raises(TypeError, match="firth must be True or False, got 'yes'"):
        firth(firth="yes").fit(X, y)
    wide = np.random.default_rng(0).standard_normal((79, 1500))
    for columns, size in ((1025, 1026), (1500, 1501)):
        with pytest.raises(ValueError, match=f"got {size} parameters of {columns} features"):
            firth().fit(wide[:, :columns], y)


def test_dask():
    """Sums of partitions."""
    import dask.array as da
    import distributed

    X, y, counts = alligators()
    expected = firth().fit(X, y, counts)
    options = {"processes": False, "n_workers": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        parts = (da.from_array(a, chunks=(15, *a.shape[1:])) for a in (X, y, counts))
        model = firth().fit(*parts)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-7)
