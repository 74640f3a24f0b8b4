"""Wald, score and likelihood-ratio tests against statsmodels."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

import anes96
from logitlab import SoftmaxRegression

FIRST = ["logpopul", "selfLR", "age", "educ", "income"]


def smaller(classes):
    X, y, b = anes96.load()
    y = b if classes == 2 else y
    return SoftmaxRegression(C=math.inf, tol=1e-10).fit(X[FIRST], y), X, y


@pytest.mark.parametrize("cov_type", ["nonrobust", "HC0", "cluster"])
@pytest.mark.parametrize("classes", [2, 7])
def test_wald_test(classes, cov_type):
    """Names, and a matrix with values."""
    theirs = anes96.theirs(classes, cov_type)
    groups = anes96.groups() if cov_type == "cluster" else None
    ours = anes96.ours(classes).inference(cov_type=cov_type, groups=groups)
    size = 8 * (classes - 1)
    rows = np.eye(size)[np.arange(size) % 8 == 2]  # age, of all classes
    expected = theirs.wald_test(rows, scalar=True)
    for restriction in ("age", ["age"], ["age", "age"], rows):
        result = ours.wald_test(restriction)
        assert result.statistic == pytest.approx(expected.statistic, rel=1e-6)
        assert result.p_value == pytest.approx(expected.pvalue, rel=1e-5)
        assert result.df == classes - 1
    difference = np.eye(size)[0] - np.eye(size)[1]
    expected = theirs.wald_test((difference[None], np.array([0.1])), scalar=True)
    for values in (0.1, [0.1]):
        result = ours.wald_test(difference, values)
        assert result.statistic == pytest.approx(float(expected.statistic), rel=1e-6)
        assert result.df == 1


@pytest.mark.parametrize("classes", [2, 7])
def test_score_test(classes):
    """Two columns, as a frame, an array and a CSR matrix."""
    import statsmodels.api as sm

    model, X, y = smaller(classes)
    kind = sm.Logit if classes == 2 else sm.MNLogit
    theirs = kind(y, sm.add_constant(X[FIRST], prepend=False)).fit(method="newton", disp=0)
    added = X[["young", "city"]]
    expected = theirs.score_test(exog_extra=added)
    for columns in (added, added.to_numpy(np.float32), csr_array(added.to_numpy())):
        result = model.inference(cov_type="HC0").score_test(columns)
        assert result.statistic == pytest.approx(expected.statistic.item(), rel=1e-6)
        assert result.p_value == pytest.approx(expected.pvalue.item(), rel=1e-5)
        assert result.df == 2 * (classes - 1)


@pytest.mark.parametrize("layout", [np.asarray, csr_array])
@pytest.mark.parametrize("intercept", [True, False])
def test_score_test_of_the_definition(intercept, layout):
    """s' I^-1 s at the maximum of the smaller model, with weights."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4)) + np.array([0, 30, 0, 5])
    y, w = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    model = SoftmaxRegression(C=math.inf, tol=1e-11, fit_intercept=intercept)
    result = model.fit(layout(X[:, :2]), y, w).inference(base=1).score_test(X[:, 2:])
    p = model.predict_proba(X[:, :2])[:, [0, 2]]
    design = np.hstack([X, np.ones((200, 1))])[:, : 4 + intercept]
    J = np.einsum("ij,nj->nij", np.eye(2), p) - p[:, :, None] * p[:, None, :]
    n = 2 * design.shape[1]
    information = np.einsum("n,nkl,nd,ne->kdle", w, J, design, design).reshape(n, n)
    score = np.einsum("n,nk,nd->kd", w, (y[:, None] == [0, 2]) - p, design).ravel()
    assert result.statistic == pytest.approx(score @ np.linalg.solve(information, score), rel=1e-6)
    assert result.df == 4


@pytest.mark.parametrize("classes", [2, 7])
def test_likelihood_ratio_test(classes):
    """Against the null model, and of nested models in both orders."""
    theirs, large = anes96.theirs(classes), anes96.ours(classes).inference()
    result = large.likelihood_ratio_test()
    assert result.statistic == pytest.approx(theirs.llr, rel=1e-6)
    assert result.p_value == pytest.approx(theirs.llr_pvalue, rel=1e-5)
    assert result.df == theirs.df_model
    small = smaller(classes)[0].inference()
    result = large.likelihood_ratio_test(small)
    expected = 2 * (large.log_likelihood - small.log_likelihood)
    assert result.statistic == pytest.approx(expected, rel=1e-12)
    assert result.df == 2 * (classes - 1)
    assert small.likelihood_ratio_test(large) == result


def test_refused_restrictions():
    """Unknown names, shapes, dependent rows, more restrictions than clusters."""
    inference = anes96.ours(2).inference()
    with pytest.raises(ValueError, match=r"restriction must name some of logpopul, .*got 'weight'"):
        inference.wald_test(["age", "weight"])
    with pytest.raises(ValueError, match=r"restriction must name some of .*, got none"):
        inference.wald_test([])
    with pytest.raises(ValueError, match=r"with 8 columns, .*, got shape \(1, 3\)"):
        inference.wald_test([1.0, 0, 0])
    with pytest.raises(TypeError, match="must be a matrix of numbers or names of features"):
        inference.wald_test([["age"], [1, 2]])
    with pytest.raises(ValueError, match=r"values must be a number or have shape \(2,\), got"):
        inference.wald_test(["age", "educ"], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="got 2 rows and rank 1"):
        inference.wald_test(np.eye(8)[[0, 0]])
    few = anes96.ours(2).inference(cov_type="cluster", groups=np.arange(944) % 3)
    with pytest.raises(ValueError, match="covariance of full rank, got 7 rows and rank 2"):
        few.wald_test([name for name in few.names if name != "intercept"])


def test_refused_models():
    """Other rows or classes, as many parameters, not nested, no inference."""
    model, X, y = smaller(7)
    large, small = anes96.ours(7).inference(), model.inference()
    with pytest.raises(TypeError, match="other must be an Inference, got SoftmaxRegression"):
        large.likelihood_ratio_test(model)
    message = "other must be a model of the same rows, weights and classes, got others"
    half = SoftmaxRegression(C=math.inf).fit(X[FIRST][:800], y[:800]).inference()
    for other in (half, anes96.ours(2).inference()):
        with pytest.raises(ValueError, match=message):
            large.likelihood_ratio_test(other)
    with pytest.raises(ValueError, match="with fewer parameters, got 48 parameters with"):
        large.likelihood_ratio_test(large)
    noise = np.random.default_rng(0).standard_normal((944, 6))
    other = SoftmaxRegression(C=math.inf).fit(noise, y).inference()
    with pytest.raises(ValueError, match="one of the models must be a special case of the other"):
        small.likelihood_ratio_test(other)
    with pytest.raises(
        ValueError,
        match=r"X_added must have the 944 rows of the fit, shape \(944, Q\), got shape \(9, 1\)",
    ):
        small.score_test(X[["young"]][:9])
    with pytest.raises(
        ValueError, match="no linear combinations of each other and of the features"
    ):
        small.score_test(X[["age"]])
    with pytest.raises(ValueError, match=r"of the fit, shape \(944, Q\), got shape \(944,\)"):
        small.score_test(X["young"])
