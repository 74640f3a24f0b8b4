"""The posterior distribution of the coefficients of a fit with a ridge penalty."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from logitlab import SoftmaxRegression

pytestmark = pytest.mark.slow


def rows(k, n=300):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, 2)) * [1, 30] + [0, 400]
    z = (X - [0, 400]) / [1, 30] @ rng.standard_normal((2, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def by_hand(model, X, weight, base, intercept):
    """Covariance of the differences: their information plus the inverse of their prior."""
    k, n, d = len(model.classes_), len(X), X.shape[1]
    x = np.hstack([X, np.ones((n, 1))]) if intercept else X
    p = model.predict_proba(X)
    others = [j for j in range(k) if j != base]
    information = np.zeros((k, x.shape[1], k, x.shape[1]))
    for i in range(k):
        for j in range(k):
            w = weight * p[:, i] * ((i == j) - p[:, j])
            information[i, :, j] = x.T @ (w[:, None] * x)
    information = information[others][:, :, others]
    # Of two classes scikit-learn's coefficient has the prior variance C, of more each row has.
    prior = model.C * (np.eye(k - 1) + 1) / (2 if k == 2 else 1)
    precision = np.linalg.inv(prior)
    for j in range(d):
        information[:, j, :, j] += precision
    size = (k - 1) * x.shape[1]
    return np.sqrt(np.diag(np.linalg.inv(information.reshape(size, size)))).reshape(k - 1, -1)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_information_plus_prior(k, intercept):
    X, y = rows(k)
    weight = np.random.default_rng(0).integers(1, 4, len(y)).astype(float)
    model = SoftmaxRegression(C=0.7, tol=1e-10, fit_intercept=intercept).fit(X, y, weight)
    result = model.posterior(X, y, weight, base=1)
    expected = by_hand(model, X, weight, 1, intercept)
    np.testing.assert_allclose(result.standard_deviation, expected, rtol=1e-6)
    assert result.classes == [j for j in range(k) if j != 1]
    assert result.names == ["x0", "x1", "intercept"][: 2 + intercept]
    z = model.decision_function(X)
    z = np.stack([np.zeros(len(z)), z], axis=1) if k == 2 else z
    x = np.hstack([X, np.ones((len(X), 1))]) if intercept else X
    np.testing.assert_allclose(
        x @ result.coef.T, np.delete(z, 1, axis=1) - z[:, [1]], rtol=1e-6, atol=1e-9
    )
    low, high = result.credible_interval(0.9)
    np.testing.assert_allclose((low + high) / 2, result.coef)
    np.testing.assert_allclose(norm.cdf(high, result.coef, result.standard_deviation), 0.95)


def test_near_the_exact_posterior_of_many_rows():
    """One coefficient, integrated on a grid."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 1))
    y = (0.4 * X[:, 0] + rng.logistic(size=2000) > 0).astype(int)
    model = SoftmaxRegression(C=0.05, fit_intercept=False).fit(X, y)
    grid = np.linspace(0, 1, 2001)
    z = X * grid
    log_posterior = -np.log1p(np.exp(-np.where(y[:, None] == 1, z, -z))).sum(axis=0)
    density = softmax(log_posterior - grid**2 / (2 * 0.05))
    mean = density @ grid
    result = model.posterior(X, y)
    assert result.coef[0, 0] == pytest.approx(mean, rel=0.01)
    deviation = np.sqrt(density @ (grid - mean) ** 2)
    assert result.standard_deviation[0, 0] == pytest.approx(deviation, rel=0.01)


def test_constant_column_keeps_its_prior():
    X, y = rows(3)
    X[:, 0] = 5
    result = SoftmaxRegression(C=0.5).fit(X, y).posterior(X, y)
    np.testing.assert_allclose(result.standard_deviation[:, 0], np.sqrt(2 * 0.5), rtol=1e-6)


def test_refused():
    X, y = rows(3)
    model = SoftmaxRegression().fit(X, y)
    with pytest.raises(ValueError, match=r"base must be one of \[0, 1, 2\], got 9"):
        model.posterior(X, y, base=9)
    with pytest.raises(ValueError, match="y must have the classes of the fit"):
        model.posterior(X, y % 2)
    model = SoftmaxRegression(C=np.inf).fit(X, y)
    with pytest.raises(ValueError, match="posterior needs a fit with a ridge penalty, got C=inf"):
        model.posterior(X, y)


def test_rows_of_another_fit():
    X, y = rows(3)
    model = SoftmaxRegression().fit(X, y)
    for change in (lambda: (X[:50] * 9, y[:50]), lambda: model.set_params(C=100.0) and (X, y)):
        with pytest.raises(ValueError, match="the coefficients are not the optimum of these rows"):
            model.posterior(*change())
    model.set_params(C=1.0)
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, got 2\.0"):
        model.posterior(X, y).credible_interval(2.0)
