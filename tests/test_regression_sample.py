"""Fits that start on a sample of the rows, and the sums over rows of two classes."""

import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from logitlab import SoftmaxRegression, get_num_threads, set_num_threads
from logitlab.regression import binary
from logitlab.regression.degeneracy import has_recession_direction
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Rows
from logitlab.regression.sample import sample_of, sample_start
from logitlab.regression.threads import _executor, map_in_threads, single_blas_thread

pytestmark = pytest.mark.slow


def problem(n, d, k, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.logspace(-1, 1, d) + 3
    z = scale * (X - 3) @ rng.standard_normal((d, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def make_objective(X, y, C=1.0, weight=None, intercept=True):
    k = int(y.max()) + 1
    return Objective(Rows(X, y, weight, k), k, C, intercept)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_and_residual_of_two_classes(dtype):
    """To the last digits, also where a probability rounds to 0 or 1."""
    margins = np.concatenate([np.linspace(-40, 40, 401), [-1e4, -700, 0, 80, 90, 700]])
    for label in (0, 1):
        y = np.full(len(margins), label)
        z = (margins * (2 * label - 1)).astype(dtype)
        losses, residual = binary.loss_and_residual(z, y)
        m = (z * (2 * label - 1)).astype(np.longdouble)
        assert losses.dtype == residual.dtype == dtype
        eps, tiny = np.finfo(dtype).eps, 8 * np.finfo(dtype).tiny
        expected = np.log1p(np.exp(-abs(m))) - np.minimum(m, 0)
        np.testing.assert_allclose(losses, expected.astype(float), rtol=4 * eps, atol=tiny)
        expected = (1 - 2 * label) / (1 + np.exp(m))
        np.testing.assert_allclose(residual, expected.astype(float), rtol=4 * eps, atol=tiny)


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_two_classes_are_those_of_three(form, weighted):
    """A third class of probability 0 changes neither loss, gradient nor Hessian."""
    X, y = problem(9000, 3, 2)
    rng = np.random.default_rng(1)
    weight = rng.random(9000) if weighted else None
    coef, intercept = rng.standard_normal((2, 3)), rng.standard_normal(2)
    two = Rows(form(X), y, weight, 2)
    three = Rows(form(X), y, weight, 3)
    wide = np.vstack([coef, np.zeros(3)]), np.append(intercept, -1e3)
    loss, by_coef, by_intercept = two.loss_and_gradient(coef, intercept)
    expected = three.loss_and_gradient(*wide)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(by_coef, expected[1][:2], rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(by_intercept, expected[2][:2], rtol=1e-10, atol=1e-8)
    centre = X.mean(axis=0)
    hessian = two.hessian(coef, intercept, centre)
    np.testing.assert_allclose(
        hessian, three.hessian(*wide, centre)[:8, :8], rtol=1e-9, atol=1e-9 * hessian.max()
    )


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("C", [0.05, math.inf])
def test_inverse_hessian_of_two_classes(intercept, C):
    """Applied to the gradient it gives a step with this gradient; constant columns do not move."""
    X, y = problem(500, 4, 2)
    X[:, 1] = 1.0 if intercept else 0.0
    objective = make_objective(X, y, C, intercept=intercept)
    theta = 0.2 * np.random.default_rng(0).standard_normal((1, 5 if intercept else 4))
    theta = np.vstack([-theta, theta])
    gradient = objective.value_and_gradient(theta)[1]
    step = objective.inverse_hessian(theta)(gradient)
    product = (objective.hessian(theta) @ step.ravel()).reshape(step.shape)
    np.testing.assert_allclose(product, gradient, rtol=0, atol=1e-10)
    assert (step[0] == -step[1]).all()
    if math.isinf(C):
        np.testing.assert_allclose(step[:, 1], 0, atol=1e-15)


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize(("k", "C"), [(2, 1.0), (2, math.inf), (4, 0.01), (4, math.inf)])
def test_optimum_after_a_sample(form, k, C):
    """It is the optimum of all rows, in few iterations, at the tolerance."""
    X, y = problem(20000, 4, k)
    X, order = form(X), np.argsort(y, kind="stable")
    for rows in (slice(None), order):
        model = SoftmaxRegression(C=C, tol=1e-8).fit(X[rows], y[rows])
        peer = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(X, y)
        np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(model.intercept_, peer.intercept_, rtol=1e-5, atol=1e-6)
        assert model.n_iter_[0] <= 9
    loose = SoftmaxRegression(C=C, tol=1e-3).fit(X, y)
    best = model.loss_curve_[-1]
    assert 0 <= loose.loss_curve_[-1] - best <= 1e-6 * best


def test_sample():
    """Each of the rows at most once, one of each run of `step` rows, with its label and weight."""
    n = 1003
    x = np.arange(n, dtype=float)[:, None]
    rows = Rows(x, np.arange(n) % 5, np.arange(n) + 0.5, 5)
    for step in (1, 7, 100):
        sample = rows.sample(step)
        chosen = sample.x[:, 0].astype(int)
        assert (chosen // step == np.arange(n // step)).all()
        assert (sample.y == chosen % 5).all()
        assert (sample.weight == chosen + 0.5).all()
        assert sample.classes == 5
        assert (rows.sample(step).x == sample.x).all()
    assert Rows(x, np.zeros(n, int), None, 2).sample(9).weight is None


def test_objective_of_a_sample():
    """The mean over its rows, with the centre and the penalty of all rows."""
    X, y = problem(20000, 3, 3)
    weight = np.random.default_rng(0).random(20000)
    objective = make_objective(X, y, weight=weight)
    theta = np.random.default_rng(1).standard_normal((3, 4))
    sample = objective.sample(8)
    part = make_objective(sample.engine.x, sample.engine.y, 1.0, sample.engine.weight)
    coef, intercept = objective.from_centred(theta)
    change = (objective.alpha - part.alpha) / 2 * np.sum(coef**2)
    expected = part.value_and_gradient(part.to_centred(coef, intercept))[0] + change
    assert sample.value_and_gradient(theta)[0] == pytest.approx(expected, rel=1e-12)
    assert sample.rows == 2500
    assert sample.separation_bound * sample.weight_sum == pytest.approx(
        objective.separation_bound * objective.weight_sum
    )


def test_where_there_is_no_sample():
    """Few rows for each parameter, or a class with few rows in the sample."""
    X, y = problem(20000, 3, 3)
    theta = np.zeros((3, 4))
    assert sample_of(make_objective(X, y), theta) is not None
    assert sample_of(make_objective(X[:11000], y[:11000]), theta) is None
    assert sample_of(make_objective(X, y), np.zeros((3, 501))) is None
    y[y == 2] = 0
    y[:20] = 2
    objective = make_objective(X, y)
    assert sample_of(objective, theta) is None
    assert sample_start(objective, theta, 1e-6, 10, 2.0**-53) == (theta, None)
    weight = np.where((y == 1) & (np.arange(20000) > 20), 0.0, 1.0)
    assert sample_of(make_objective(X, np.minimum(y, 1), weight=weight), theta) is None


def test_warm_start_keeps_its_coefficients():
    X, y = problem(20000, 3, 3)
    model = SoftmaxRegression(tol=1e-6, warm_start=True).fit(X, y)
    assert model.fit(X, y).n_iter_[0] <= 1
    start = model.coef_.copy()
    with pytest.warns(ConvergenceWarning):
        model.set_params(max_iter=0, tol=1e-12).fit(X, y)
    np.testing.assert_allclose(model.coef_, start, rtol=1e-12)
    with pytest.warns(ConvergenceWarning):
        assert (SoftmaxRegression(max_iter=0).fit(X, y).coef_ == 0).all()


@pytest.mark.parametrize("k", [2, 3])
def test_separation_among_many_rows(k):
    """Quasi-complete separation by a few rows is found, and only there."""
    X, y = problem(30000, 3, k)
    X[:, 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxRegression(C=math.inf).fit(X, y)
    X[:300, 2] = 1
    y[:300] = 1
    with pytest.warns(ConvergenceWarning, match="quasi-completely separated"):
        model = SoftmaxRegression(C=math.inf).fit(X, y)
    objective = make_objective(X, y, math.inf)
    assert has_recession_direction(objective, model._centred_parameters(objective))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
def test_spread_of_the_probabilities(form, weighted):
    X, y = problem(9000, 3, 4)
    rng = np.random.default_rng(1)
    weight = rng.random(9000) if weighted else None
    coef, intercept = rng.standard_normal((4, 3)), rng.standard_normal(4)
    p = softmax(X @ coef.T + intercept, axis=1)
    spread = Rows(form(X), y, weight, 4).spread(coef, intercept)
    expected = np.average(p * (1 - p), axis=0, weights=weight) * (weight is None or weight.mean())
    np.testing.assert_allclose(spread / 9000, expected, rtol=1e-12)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("C", [1e-4, math.inf])
def test_approximate_inverse_hessian(full, C, monkeypatch):
    """Of each class the inverse of the mean of p (1 - p) times the covariance, plus the penalty."""
    if not full:
        monkeypatch.setattr("logitlab.regression.objective.MAX_COVARIANCE_FEATURES", 2)
    X, y = problem(300, 3, 4)
    objective = make_objective(X, y, C)
    rng = np.random.default_rng(1)
    theta, gradient = 0.1 * rng.standard_normal((2, 4, 4))
    p = softmax((X - X.mean(axis=0)) @ theta[:, :3].T + theta[:, 3], axis=1)
    step = objective.approximate_inverse_hessian(theta)(gradient)
    for i, spread in enumerate((p * (1 - p)).mean(axis=0)):
        block = spread * np.cov(X.T, bias=True)
        if not full:
            block = np.diag(np.diagonal(block))
            block = np.diag(np.diagonal(block)) if objective.alpha > 0 else block.max() * np.eye(3)
        expected = np.linalg.solve(block + objective.alpha * np.eye(3), gradient[i, :3])
        np.testing.assert_allclose(step[i, :3], expected, rtol=1e-9)
        assert step[i, 3] == pytest.approx(gradient[i, 3] / spread, rel=1e-12)


def test_optimum_of_many_classes():
    """More parameters than the exact Hessian takes: the preconditioner is replaced on the way."""
    X, y = problem(3000, 5, 300, scale=0.2)
    y = np.unique(y, return_inverse=True)[1]
    model = SoftmaxRegression(C=0.1, tol=1e-8).fit(X, y)
    peer = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-8, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(model.coef_, peer.coef_, atol=1e-5)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, atol=1e-4)
    assert model.n_iter_[0] <= 130  # more than 200 with the first preconditioner alone


def blas_threads():
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


def test_blas_has_one_thread_during_fits():
    """And as many as before after the last of several fits at once, also after an error."""
    with threadpool_limits(2):
        before = blas_threads()
        with single_blas_thread():
            with pytest.raises(ZeroDivisionError), single_blas_thread():
                raise ZeroDivisionError
            assert blas_threads() == [1] * len(before)
        assert blas_threads() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_the_sums(dtype):
    """Nor does a fit in a forked process wait for the threads of its parent."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((3000, 20)).astype(dtype), rng.integers(0, 400, 3000)
    rows = Rows(X, y, None, 400)
    coef, intercept = rng.standard_normal((400, 20)), rng.standard_normal(400)
    before = get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            set_num_threads(threads)
            results.append(rows.loss_and_gradient(coef, intercept))
    finally:
        set_num_threads(before)
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][2], results[1][2])
    assert _executor(0, 2) is _executor(0, 2)
    assert _executor(0, 2) is not _executor(1, 2)


def test_a_sample_of_few_rows_has_one():
    """A partition may have fewer rows than the step."""
    for n, size in ((0, 0), (1, 1), (5, 1), (10, 1), (23, 2)):
        rows = Rows(np.arange(n, dtype=float)[:, None], np.zeros(n, np.int64), None, 2)
        sample = rows.sample(10)
        assert len(sample.y) == size
        assert set(sample.x[:, 0]) <= set(range(n))


def test_threads_of_a_pool_that_has_ended(monkeypatch):
    """While the interpreter ends, the blocks are computed on the thread of the caller."""

    def refuse(*_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("logitlab.regression.threads._executor", refuse)
    assert list(map_in_threads(abs, [-1, 2], 4)) == [1, 2]
