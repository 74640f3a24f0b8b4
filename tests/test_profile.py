"""Profile likelihood intervals: published ones, brute force, bounds at infinity."""

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.stats import chi2
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning

from logitlab import SoftmaxRegression
from logitlab.regression.profile import ProfileIntervals
from published_tables import alligators, endometrial, infection
from test_firth import firth, penalized_loss

pytestmark = pytest.mark.slow


def test_endometrial_cancer():
    """Bounds and tests of logistf (in the tests of the Python package firthlogist)."""
    X, y = endometrial()
    result = firth().fit(X, y).profile_intervals()
    expected = [[0.6097244, 7.85463171], [-0.1244587, 0.04045547]]
    expected += [[-4.3651832, -1.23272106], [1.0825371, 7.20928050]]
    np.testing.assert_allclose(np.vstack([result.lower, result.upper]).T, expected, rtol=1e-6)
    assert result.names == ["x0", "x1", "x2", "intercept"]
    assert result.coef[0, 0] == pytest.approx(2.92927330, rel=1e-6)


def test_urinary_tract_infection():
    """Bounds of logistf and its tests, to the digits published."""
    X, y, counts = infection()
    result = firth().fit(X, y, counts).profile_intervals()
    expected = [[-1.9737884, -0.30742514], [-0.9414363, 0.78920202], [1.2730216, 3.43543273]]
    expected += [[-3.2608611, -1.11773495], [-1.6080879, 0.01518468], [0.7745682, 8.03029352]]
    expected += [[-0.8185591, 1.07315122]]
    np.testing.assert_allclose(np.vstack([result.lower, result.upper]).T, expected, rtol=1e-6)
    statistics = [7.51, 0.02, 22.93, 19.10, 3.70, 7.90, 0.06]
    np.testing.assert_allclose(chi2.isf(result.p_value[0], 1), statistics, rtol=0, atol=0.0051)
    narrow = firth().fit(X, y, counts).profile_intervals(X, y, counts, confidence_level=0.5)
    assert (narrow.lower > result.lower).all()
    assert (narrow.upper < result.upper).all()


def test_quasi_separated_classes():
    """Without penalty a bound is infinite.

    The interval (1.28, inf) and the statistic 9.3576: Agresti, "Foundations of linear and
    generalized linear models", 2015.
    """
    X, y = endometrial()
    with pytest.warns(ConvergenceWarning, match="separated"):
        model = firth(firth=False).fit(X, y)
    result = model.profile_intervals()
    assert result.lower[0, 0] == pytest.approx(1.28, abs=0.005)
    assert result.upper[0, 0] == math.inf
    assert chi2.isf(result.p_value[0, 0], 1) == pytest.approx(9.357643, abs=1e-4)
    assert np.isfinite(result.upper[0, 1:]).all()
    reversed_labels = model.profile_intervals(base=1)
    np.testing.assert_allclose(reversed_labels.lower, -result.upper, rtol=1e-6)
    np.testing.assert_allclose(reversed_labels.upper, -result.lower, rtol=1e-6)


def brute_force_bound(parameters, index, end, loss, root):
    """The value of a coefficient at which the best loss is root² / 2 above the least one."""
    least = loss(parameters)

    def excess(value):
        def rest(others):
            return loss(np.insert(others, index, value))

        start = np.delete(parameters, index)
        return minimize(rest, start, method="BFGS", options={"gtol": 1e-7}).fun - least

    return brentq(lambda value: excess(value) - root**2 / 2, parameters[index], end, xtol=1e-5)


@pytest.mark.parametrize("penalized", [True, False])
def test_several_classes(penalized):
    """Bounds by brute force; another base class changes their signs."""
    X, y, counts = alligators()
    model = firth(firth=penalized).fit(X, y, counts)
    result = model.profile_intervals(confidence_level=0.9)
    root = math.sqrt(chi2.ppf(0.9, 1))
    design = np.hstack([X, np.ones((len(X), 1))])

    def loss(parameters):
        if penalized:
            return penalized_loss(parameters, design, y, counts, 5)
        differences = np.vstack([np.zeros(5), parameters.reshape(4, 5)])
        z = design @ differences.T
        return counts @ (np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y])

    for index, bounds in ((7, result.upper), (14, result.lower)):
        at = np.unravel_index(index, (4, 5))
        end = result.coef[at] + 2 * (bounds[at] - result.coef[at])
        expected = brute_force_bound(result.coef.ravel(), index, end, loss, root)
        assert bounds[at] == pytest.approx(expected, abs=1e-4)
    other = model.profile_intervals(base=2, confidence_level=0.9)
    assert other.classes == [0, 1, 3, 4]
    np.testing.assert_allclose(other.lower[0], -result.upper[1], rtol=1e-5)
    np.testing.assert_allclose(other.p_value[0], result.p_value[1], rtol=1e-5)


def test_coefficients_stay_fixed():
    """A value far from the estimate has a deviance, and no p-value of 1."""
    rng = np.random.default_rng(4)
    k, d, n = rng.integers(2, 4), rng.integers(1, 4), rng.integers(15, 40)
    X = rng.standard_normal((n, d))
    y = (X @ rng.standard_normal((d, k)) * 2 + rng.gumbel(size=(n, k))).argmax(axis=1)
    result = firth(tol=1e-8).fit(X, y).profile_intervals()
    assert result.p_value[0, 2] == pytest.approx(8.81e-7, rel=1e-2)
    excluded = (result.lower > 0) | (result.upper < 0)
    np.testing.assert_array_equal(result.p_value < 0.05, excluded)


@pytest.mark.parametrize("intercept", [True, False])
def test_many_rows(intercept):
    """The Wald interval, which scale and offset of a feature do not change."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 2)) * [100, 0.1] + [500, 0.3]
    y = (rng.random(20_000) < 1 / (1 + np.exp(X[:, 0] / 100 - 5 + X[:, 1]))).astype(int)
    model = SoftmaxRegression(C=math.inf, tol=1e-9, fit_intercept=intercept).fit(X, y)
    result, summary = model.profile_intervals(), model.summary(X, y)
    width = summary.upper - summary.lower
    np.testing.assert_allclose(result.lower / width, summary.lower / width, rtol=0, atol=5e-3)
    np.testing.assert_allclose(result.upper / width, summary.upper / width, rtol=0, atol=5e-3)


def test_errors():
    """Complete separation and dependent features."""
    X, y = load_wine(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = firth(firth=False).fit(X, y)
    with pytest.raises(ValueError, match=r"completely separated .* fit with firth=True"):
        model.profile_intervals()
    X, y = endometrial()
    X = np.hstack([X, X[:, :1] + X[:, 1:2]])
    with pytest.raises(ValueError, match="linearly dependent"):
        firth().fit(X, y).profile_intervals()


def test_table():
    """Every number, also as a data frame."""
    coef, lower, upper, p_value = (
        np.array([[row, -10.5 * row]]) for row in (1.0, 0.5, math.inf, 0.01)
    )
    result = ProfileIntervals(
        base="a",
        classes=["b"],
        names=["age", "intercept"],
        coef=coef,
        lower=lower,
        upper=upper,
        p_value=p_value,
        confidence_level=0.9,
        response="y",
    )
    lines = [line.split() for line in str(result).splitlines()]
    assert ["y=b", "coef", "p", "[0.05", "0.95]"] in lines
    assert ["age", "1", "0.01", "0.5", "inf"] in lines
    assert ["intercept", "-10.5", "-0.105", "-5.25", "-inf"] in lines
    assert "Base Class:                          a" in str(result)
    assert "$P>|z|$" not in result.to_latex()
    frame = result.to_frame()
    assert frame.loc[("b", "age")].tolist() == [1.0, 0.01, 0.5, math.inf]
    assert frame.columns.tolist() == ["coef", "p_value", "lower", "upper"]
