"""The summary of a fit against statsmodels, and fits without standard errors."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning

from logitlab import SoftmaxRegression
from logitlab.regression.inference import _null_log_likelihood
from logitlab.regression.objective import Objective, Rows


def overlapping(k=3, n=400):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, 4)) * [1, 100, 0.01, 1] + [0, 5000, 0, 3]
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((4, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def test_anes96():
    """Coefficients to 1e-6, standard errors to 1e-5, the log-likelihood of statsmodels."""
    import statsmodels.api as sm
    from statsmodels.datasets import anes96

    data = anes96.load_pandas()
    X, y = data.exog, data.endog.astype(int)
    theirs = sm.MNLogit(y, sm.add_constant(X, prepend=False)).fit(method="newton", disp=0)
    ours = SoftmaxRegression(C=math.inf, tol=1e-8).fit(X, y).summary(X, y)
    assert ours.names == [*X.columns, "intercept"]
    assert ours.base == 0
    assert ours.classes == [1, 2, 3, 4, 5, 6]
    for a, b, atol in (
        (ours.coef, theirs.params, 1e-6),
        (ours.standard_error, theirs.bse, 1e-5),
        (ours.z, theirs.tvalues, 1e-5),
        (ours.p_value, theirs.pvalues, 1e-6),
    ):
        np.testing.assert_allclose(a.T, b.to_numpy(), rtol=0, atol=atol)
    bounds = theirs.conf_int().to_numpy()
    np.testing.assert_allclose(ours.lower.ravel(), bounds[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.upper.ravel(), bounds[:, 1], rtol=0, atol=1e-5)
    assert ours.log_likelihood == pytest.approx(-1461.92274725, abs=1e-7)
    assert ours.null_log_likelihood == pytest.approx(theirs.llnull, abs=1e-5)
    assert ours.pseudo_r2 == pytest.approx(theirs.prsquared, abs=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
def test_two_classes(intercept):
    """The logit model of statsmodels."""
    import statsmodels.api as sm

    X, y = overlapping(2)
    theirs = sm.Logit(y, sm.add_constant(X, prepend=False) if intercept else X).fit(disp=0)
    model = SoftmaxRegression(C=math.inf, tol=1e-9, fit_intercept=intercept).fit(X, y)
    ours = model.summary(X, y)
    np.testing.assert_allclose(ours.coef[0], theirs.params, rtol=1e-6)
    np.testing.assert_allclose(ours.standard_error[0], theirs.bse, rtol=1e-6)
    assert ours.log_likelihood == pytest.approx(theirs.llf)
    if intercept:
        assert ours.null_log_likelihood == pytest.approx(theirs.llnull)


def test_weights_count_as_repeated_rows():
    """Weights of rows and of classes give the summary of repeated rows."""
    X, y = overlapping()
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    options = {"C": math.inf, "tol": 1e-9, "class_weight": {0: 2, 1: 1, 2: 1}}
    weighted = SoftmaxRegression(**options).fit(X, y, weight).summary(X, y, weight)
    repeat = np.repeat(np.arange(len(y)), weight * np.where(y == 0, 2, 1))
    options.pop("class_weight")
    rows = SoftmaxRegression(**options).fit(X[repeat], y[repeat]).summary(X[repeat], y[repeat])
    np.testing.assert_allclose(weighted.coef, rows.coef, rtol=1e-6)
    np.testing.assert_allclose(weighted.standard_error, rows.standard_error, rtol=1e-6)
    assert weighted.log_likelihood == pytest.approx(rows.log_likelihood)
    assert weighted.null_log_likelihood == pytest.approx(rows.null_log_likelihood)
    assert weighted.rows == rows.rows == len(repeat)


def test_null_log_likelihood_of_a_class_without_weight():
    """0 log 0 = 0."""
    X, y = overlapping(2)
    weight = np.ones(len(y))
    weight[-1] = 0
    more = np.r_[y[:-1], 2]
    value, expected = (
        _null_log_likelihood(Objective(Rows(X, labels, weight, k), k, math.inf, True))
        for labels, k in ((more, 3), (y, 2))
    )
    assert value == pytest.approx(expected, rel=1e-12)


def test_base():
    """Another base gives differences from that class, and the same likelihood."""
    X, y = overlapping()
    labels = np.array(["low", "mid", "top"])[y]
    model = SoftmaxRegression(C=math.inf, tol=1e-9).fit(X, labels)
    first, last = (
        model.summary(X, labels),
        model.summary(X, labels, base="top", confidence_level=0.5),
    )
    assert last.classes == ["low", "mid"]
    np.testing.assert_allclose(last.coef[0], -first.coef[1])
    np.testing.assert_allclose(last.standard_error[0], first.standard_error[1])
    assert last.log_likelihood == first.log_likelihood
    assert (last.lower > last.coef - last.standard_error).all()


def test_table_and_frame():
    """Both contain every number."""
    X, y = overlapping()
    summary = SoftmaxRegression(C=math.inf).fit(X, y).summary(X, y)
    frame = summary.to_frame()
    assert frame.shape == (2 * 5, 6)
    assert frame.loc[(2, "x1"), "z"] == summary.z[1, 1]
    text = str(summary)
    assert all(f"{value:.4g}" in text for value in summary.coef.ravel())
    assert "base class 0" in text
    assert "class 2" in text


def test_refused_summaries():
    """A penalty, separation, collinear features, other rows, refused arguments."""
    X, y = overlapping()
    with pytest.raises(ValueError, match=r"summary needs a fit with C=math\.inf, got C=1\.0"):
        SoftmaxRegression().fit(X, y).summary(X, y)
    model = SoftmaxRegression(C=math.inf).fit(X, y)
    with pytest.raises(ValueError, match="do not maximize"):
        model.summary(X[:200], y[:200])
    with pytest.raises(ValueError, match=r"base must be one of \[0, 1, 2\], got 7"):
        model.summary(X, y, base=7)
    with pytest.raises(ValueError, match="confidence_level must be between 0 and 1, got 95"):
        model.summary(X, y, confidence_level=95)
    with pytest.raises(ValueError, match="y must have the classes of the fit"):
        model.summary(X[y < 2], y[y < 2])
    collinear = np.hstack([X, X[:, :1] - X[:, 3:]])
    with pytest.raises(ValueError, match="linearly dependent"):
        SoftmaxRegression(C=math.inf).fit(collinear, y).summary(collinear, y)
    for data in (load_wine, load_iris):  # completely; only class 0
        X, y = data(return_X_y=True)
        with pytest.warns(ConvergenceWarning, match="separated"):
            model = SoftmaxRegression(C=math.inf).fit(X, y)
        with pytest.raises(ValueError, match="separated"):
            model.summary(X, y)
