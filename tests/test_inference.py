"""The summary of a fit against statsmodels, and fits without standard errors."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning

from exact import mp
from logitlab import SoftmaxRegression
from logitlab.regression.coefficients import one_row_per_class
from logitlab.regression.inference.covariance import information_root, null_log_likelihood
from logitlab.regression.inference.tables import Summary
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Rows

pytestmark = pytest.mark.slow


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
        null_log_likelihood(Objective(Rows(X, labels, weight, k), k, math.inf, True))
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
    assert "y=2" in text
    assert repr(summary)  # of a data class


def test_refused_summaries():
    """A penalty, separation, collinear features, other rows, refused arguments."""
    X, y = overlapping()
    with pytest.raises(ValueError, match=r"inference needs a fit with C=math\.inf, got C=1\.0"):
        SoftmaxRegression().fit(X, y).summary(X, y)
    model = SoftmaxRegression(C=math.inf).fit(X, y)
    with pytest.raises(ValueError, match="are not the optimum"):
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


TABLE = """\
                          Softmax Regression Results
==============================================================================
Dep. Variable:                   kind   No. Observations:                  150
Base Class:                         a   Df Residuals:                      146
Model:             Softmax regression   Df Model:                            2
Method:                           MLE   Pseudo R-squ.:                  0.2042
Covariance Type:              cluster   Log-Likelihood:                -55.163
AIC:                           118.33   LL-Null:                       -69.315
BIC:                           130.37   LLR p-value:                  7.14e-07
                                        Clusters:                           12
==============================================================================
      kind=b       coef    std err          z      P>|z|      [0.05      0.95]
------------------------------------------------------------------------------
x0                    1        0.5      2.000     0.0455     0.1776      1.822
intercept          -4.5        1.5     -3.000     0.0027     -6.967     -2.033
------------------------------------------------------------------------------
      kind=c       coef    std err          z      P>|z|      [0.05      0.95]
------------------------------------------------------------------------------
x0                    0      0.125      0.000          1    -0.2056     0.2056
intercept    -1.235e+04       1000    -12.346   5.12e-35 -1.399e+04  -1.07e+04
=============================================================================="""


def small_summary(confidence_level=0.9, **options):
    """A summary of chosen numbers; the quantile of the normal distribution at 95 % is 1.6449."""
    return Summary.normal(
        np.array([[1.0, -4.5], [0.0, -12346.0]]),
        np.array([[0.5, 1.5], [0.125, 1000.0]]),
        confidence_level,
        **{
            "base": "a",
            "classes": ["b", "c"],
            "names": ["x0", "intercept"],
            "response": "kind",
            "cov_type": "cluster",
            "groups": 12,
            "rows": 150.0,
            "parameters": 4,
            "df_model": 2,
            "log_likelihood": -55.1629,
            "null_log_likelihood": -69.3147,
            "llr_p_value": 7.14e-7,
            "pseudo_r2": 0.20417,
            "aic": 118.3258,
            "bic": 130.3683,
            **options,
        },
    )


def test_table_of_chosen_numbers():
    """Every number, title and space."""
    assert str(small_summary()) == TABLE
    names = ["a long name of a feature", "b"]
    lines = str(small_summary(names=names, rows=12.5, confidence_level=0.995)).split("\n")
    assert lines[2].endswith("No. Observations:                       12.5")
    assert lines[11].startswith(" " * 18 + "kind=b       coef    std err")
    assert lines[11].endswith("    [0.0025    0.9975]")
    assert lines[13].startswith("a long name of a feature          1        0.5")
    assert lines[14].startswith("b" + " " * 30 + "-4.5        1.5")
    assert len({len(line) for line in lines[11:15]}) == 1


def test_statistics_follow_from_the_standard_errors():
    """z, the two-sided p-value and the bounds, by mpmath."""
    summary = small_summary()
    quantile = mp.sqrt(2) * mp.erfinv(mp.mpf(9) / 10)
    for index in np.ndindex(2, 2):
        a, s = (mp.mpf(float(x[index])) for x in (summary.coef, summary.standard_error))
        for name, expected in (
            ("z", a / s),
            ("p_value", mp.erfc(abs(a / s) / mp.sqrt(2))),
            ("lower", a - quantile * s),
            ("upper", a + quantile * s),
        ):
            value = getattr(summary, name)[index]
            assert value == pytest.approx(float(expected), rel=1e-12)


def test_frame_of_chosen_numbers():
    """A row for each class and name, a column for each statistic."""
    summary = small_summary()
    frame = summary.to_frame()
    assert frame.index.names == ["class", "name"]
    expected = [("b", "x0"), ("b", "intercept"), ("c", "x0"), ("c", "intercept")]
    assert frame.index.tolist() == expected
    columns = ["coef", "standard_error", "z", "p_value", "lower", "upper"]
    assert frame.columns.tolist() == columns
    for name in columns:
        np.testing.assert_array_equal(frame[name], getattr(summary, name).ravel())


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_standard_errors_are_those_of_the_fisher_information(intercept, k):
    """The inverse of the information by the differences from the base class, weighted."""
    rng = np.random.default_rng(k)
    X = rng.standard_normal((300, 2)) * [1, 30] + [5, 100]
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((2, k))
    y, w = (z + rng.gumbel(size=z.shape)).argmax(axis=1), rng.uniform(0.5, 2, 300)
    labels = np.array(list("abcd"))[y]
    model = SoftmaxRegression(C=math.inf, tol=1e-10, fit_intercept=intercept).fit(X, labels, w)
    p = model.predict_proba(X)
    design = np.hstack([X, np.ones((300, 1))]) if intercept else X
    size = design.shape[1]
    for base in range(k):
        summary = model.summary(X, labels, w, base="abcd"[base])
        others = [j for j in range(k) if j != base]
        q = p[:, others]
        J = np.einsum("ij,nj->nij", np.eye(k - 1), q) - q[:, :, None] * q[:, None, :]
        information = np.einsum("n,nkl,nd,ne->kdle", w, J, design, design)
        inverse = np.linalg.inv(information.reshape((k - 1) * size, -1))
        expected = np.sqrt(np.diagonal(inverse)).reshape(k - 1, size)
        np.testing.assert_allclose(summary.standard_error, expected, rtol=1e-6)
        log_odds = np.log(q / p[:, [base]])
        np.testing.assert_allclose(design @ summary.coef.T, log_odds, rtol=0, atol=1e-9)
        assert summary.base == "abcd"[base]
        assert summary.classes == ["abcd"[j] for j in others]
        assert summary.names == ["x0", "x1", "intercept"][:size]
        assert summary.confidence_level == 0.95
        assert summary.rows == pytest.approx(w.sum(), rel=1e-14)
        log_p = np.log(p[np.arange(300), y])
        assert summary.log_likelihood == pytest.approx(w @ log_p, rel=1e-9)
        counts = np.bincount(y, w)
        null = counts @ np.log(counts / w.sum()) if intercept else -w.sum() * math.log(k)
        assert summary.null_log_likelihood == pytest.approx(null, rel=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_distance_from_the_maximum_that_is_refused(k):
    """One thousandth of a standard error, in the mean square over the coefficients."""
    rng = np.random.default_rng(k)
    X = rng.standard_normal((400, 2))
    y = (X @ rng.standard_normal((2, k)) + rng.gumbel(size=(400, k))).argmax(axis=1)
    model = SoftmaxRegression(C=math.inf, tol=1e-12).fit(X, y)
    objective = Objective(Rows(X, y, None, k), k, math.inf, True)
    theta = objective.to_centred(*one_row_per_class(model.coef_, model.intercept_))
    n = 3 * (k - 1)
    information = 400 * objective.hessian(theta).reshape(k, 3, k, 3)[1:, :, 1:]
    step = np.linalg.inv(np.linalg.cholesky(information.reshape(n, n))).T
    step = step @ rng.choice([-1.0, 1.0], n)  # a squared distance of n squared standard errors

    def root(distance):
        away = theta.copy()
        away[1:] += distance * step.reshape(k - 1, 3)
        return information_root(objective, away, list(range(1, k)))

    assert root(0.99e-3)[1].shape == (n, n)
    with pytest.raises(ValueError, match="are not the optimum of these rows") as error:
        root(1.01e-3)
    assert str(error.value) == (
        "the coefficients are not the optimum of these rows; pass the rows (and weights) of the "
        "fit, with its parameters, or fit with a smaller tol"
    )


def test_messages_about_the_features():
    """Complete messages: dependent columns, separated classes."""
    X, y = overlapping()
    collinear = np.hstack([X, X[:, :1] - X[:, 3:]])
    with pytest.raises(ValueError, match="linearly dependent") as error:
        SoftmaxRegression(C=math.inf).fit(collinear, y).summary(collinear, y)
    assert str(error.value) == (
        "the features are linearly dependent: single coefficients have no standard errors; drop "
        "the columns that are linear combinations of others"
    )
    X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    objective = Objective(Rows(X, y, None, 2), 2, math.inf, True)
    for size in (2.0, 30.0):  # the likelihood increases without bound along this direction
        theta = size * np.array([[-1.0, 0.0], [1.0, 0.0]])
        with pytest.raises(ValueError, match="separated") as error:
            information_root(objective, theta, [1])
        assert str(error.value) == (
            "the classes are separated by the features: the likelihood has no maximum, and the "
            "coefficients have no standard errors"
        )


@pytest.mark.parametrize("weighted", [True, False])
def test_null_log_likelihood(weighted):
    """The sum of n_k log(n_k / n); without intercepts that of equal probabilities."""
    X, y = overlapping(3)
    w = np.random.default_rng(0).uniform(0.1, 3, len(y)) if weighted else None
    counts = np.bincount(y, w)
    total = counts.sum()
    objective = Objective(Rows(X, y, w, 3), 3, math.inf, True)
    expected = float(counts @ np.log(counts / total))
    assert null_log_likelihood(objective) == pytest.approx(expected, rel=1e-13)
    objective = Objective(Rows(X, y, w, 3), 3, math.inf, False)
    assert null_log_likelihood(objective) == pytest.approx(-total * math.log(3), rel=1e-14)
