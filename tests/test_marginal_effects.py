"""Marginal effects against statsmodels and finite differences."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

import anes96
from logitlab import SoftmaxRegression
from logitlab.probabilities import softmax

pytestmark = pytest.mark.slow

COV_TYPES = ("nonrobust", "HC0", "cluster")


@pytest.mark.parametrize("cov_type", COV_TYPES)
@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("at", ["overall", "mean", "median", "zero"])
def test_statsmodels(classes, at, cov_type):
    """Effects and their errors."""
    theirs = anes96.theirs(classes, cov_type).get_margeff(at=at)
    groups = anes96.groups() if cov_type == "cluster" else None
    ours = anes96.ours(classes).inference(cov_type=cov_type, groups=groups).marginal_effects(at)
    for a, b in ((ours.effect, theirs.margeff), (ours.standard_error, theirs.margeff_se)):
        a = a[1] if classes == 2 else a.T
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10)
    assert ours.at == at
    assert ours.names == list(anes96.load()[0].columns)


@pytest.mark.parametrize("cov_type", COV_TYPES)
@pytest.mark.parametrize("at", ["overall", "mean"])
def test_changes_from_0_to_1_of_statsmodels(at, cov_type):
    """Two classes; the derivative that statsmodels needs for more classes fails."""
    theirs = anes96.theirs(2, cov_type).get_margeff(at=at, dummy=True)
    groups = anes96.groups() if cov_type == "cluster" else None
    ours = anes96.ours(2).inference(cov_type=cov_type, groups=groups)
    ours = ours.marginal_effects(at, dummy=True)
    np.testing.assert_allclose(ours.effect[1], theirs.margeff, rtol=1e-6)
    np.testing.assert_allclose(ours.standard_error[1], theirs.margeff_se, rtol=1e-6)


def effects_by_differences(coef, X, weight, discrete, h=1e-5):
    """Return the mean effects (K, D) at the coefficients (K, D + 1), by central differences."""

    def mean(x):
        return weight @ softmax(x @ coef[:, :-1].T + coef[:, -1]) / weight.sum()

    result = []
    for d in range(X.shape[1]):
        low, high = X.copy(), X.copy()
        if d in discrete:
            low[:, d], high[:, d] = 0, 1
            result.append(mean(high) - mean(low))
        else:
            step = h * X[:, d].std() if len(X) > 1 else h
            low[:, d] -= step
            high[:, d] += step
            result.append((mean(high) - mean(low)) / (2 * step))
    return np.array(result).T


def problem(k=4, n=300):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, 3)) * [1, 10, 1] + [0, 20, 0]
    X[:, 2] = X[:, 2] > 0.3
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((3, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1), rng.integers(1, 4, n)


@pytest.mark.parametrize("layout", [np.asarray, csr_array])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_finite_differences(k, intercept, layout):
    """Effects, and by their differences the delta-method errors; weights, any base."""
    X, y, w = problem(k)
    model = SoftmaxRegression(C=math.inf, tol=1e-10, fit_intercept=intercept)
    inference = model.fit(layout(X), y, w).inference(cov_type="HC0", base=k - 1)
    row = np.array([[0.5, 18.0, 0.25]])
    mean = (w @ X / w.sum())[None]
    fixed = np.where([True, False, False], 1.5, mean)
    for at, x, weight, place in (
        ("overall", X, w, "overall"),
        ("mean", mean, np.ones(1), "mean"),
        ("zero", np.zeros((1, 3)), np.ones(1), "zero"),
        (row[0], row, np.ones(1), "given values"),
        ({"x0": 1.5}, fixed, np.ones(1), "x0=1.5; means"),
    ):
        for dummy in (False, True):
            discrete = [2] if dummy else []
            ours = inference.marginal_effects(at, dummy=dummy)

            def effects(free, x=x, weight=weight, discrete=discrete):
                coef = np.zeros((k, 4))
                coef[:-1, : 3 + intercept] = free.reshape(k - 1, -1)
                return effects_by_differences(coef, x, weight, discrete)

            c = inference.coef.ravel()
            np.testing.assert_allclose(ours.effect, effects(c), rtol=0, atol=1e-8)
            steps = 1e-4 * inference.standard_error.ravel()
            jacobian = np.stack(
                [
                    (effects(c + step) - effects(c - step)) / (2 * h)
                    for step, h in zip(np.diag(steps), steps, strict=True)
                ],
                axis=-1,
            )
            covariance = jacobian @ inference.cov_params() @ np.swapaxes(jacobian, 1, 2)
            expected = np.sqrt(np.einsum("kdd->kd", covariance))
            np.testing.assert_allclose(ours.standard_error, expected, rtol=1e-3, atol=1e-9)
            np.testing.assert_allclose(ours.effect.sum(axis=0), 0, atol=1e-14)
            assert ours.at == place


def test_columns_of_0_and_1():
    """A column with other values, or with one value, is not discrete; CSR with stored zeros."""
    X, y, _ = problem()
    X = np.c_[X, X[:, 2] * 2, np.ones(300)]
    model = SoftmaxRegression(C=math.inf, fit_intercept=False)
    used = X[:, [0, 2, 4]]
    stored = csr_array(used)
    stored.data[np.flatnonzero(stored.indices == 1)[:5]] = 0  # zeros that are stored
    for x in (stored.toarray(), stored):
        inference = model.fit(x, y).inference()
        a, b = (inference.marginal_effects(dummy=dummy).effect for dummy in (False, True))
        assert (a != b).any(axis=0).tolist() == [False, True, False]
    inference = model.fit(X[:, [0, 3]], y).inference()
    a, b = (inference.marginal_effects(dummy=dummy).effect for dummy in (False, True))
    np.testing.assert_array_equal(a, b)


def test_median():
    """Of an even number of rows the mean of two; of CSR too."""
    X, y, w = problem()
    for n, weight in ((299, None), (300, None), (300, w)):
        model = SoftmaxRegression(C=math.inf, tol=1e-10)
        rows = X[:n] if weight is None else np.repeat(X, w, axis=0)
        for layout in (np.asarray, csr_array):
            inference = model.fit(layout(X[:n]), y[:n], weight).inference()
            at = inference.marginal_effects("median").effect
            expected = inference.marginal_effects(np.median(rows, axis=0)).effect
            np.testing.assert_allclose(at, expected, rtol=1e-12)


def test_table():
    """The text and the frame have the effects of all classes, without the intercept."""
    effects = anes96.ours(2).inference().marginal_effects(confidence_level=0.9)
    text = str(effects)
    assert "Marginal Effects" in text
    assert "At:                            overall" in text
    assert "leaning=0      dy/dx    std err" in text
    assert "intercept" not in text
    frame = effects.to_frame()
    assert frame.columns[0] == "effect"
    assert frame.loc[(1, "age"), "effect"] == effects.effect[1, 2]
    width = (frame["upper"] - frame["lower"]) / frame["standard_error"]
    np.testing.assert_allclose(width, 2 * 1.6448536269514722)


def test_refused_arguments():
    """Unknown places, names and values."""
    X, y, _ = problem()
    inference = SoftmaxRegression(C=math.inf).fit(X, y).inference()
    with pytest.raises(ValueError, match=r"at must be one of 'overall', .*, got 'means'"):
        inference.marginal_effects("means")
    with pytest.raises(ValueError, match="at must name some of x0, x1, x2, got 'age'"):
        inference.marginal_effects({"age": 3})
    with pytest.raises(TypeError, match=r"at\['x1'\] must be a real number, got 'a'"):
        inference.marginal_effects({"x1": "a"})
    for at in ([1.0, 2.0], [1.0, 2.0, math.nan], 3, object()):
        with pytest.raises(ValueError, match="or 3 finite values, got"):
            inference.marginal_effects(at)
    with pytest.raises(TypeError, match="dummy must be True or False, got 1"):
        inference.marginal_effects(dummy=1)
