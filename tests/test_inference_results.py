"""Inference on anes96 against statsmodels; robust covariances; the rows that a fit keeps."""

import copy
import math
import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone

import anes96
from exact import mp
from logitlab import SoftmaxRegression
from logitlab.regression.coefficients import one_row_per_class

pytestmark = pytest.mark.slow

COV_TYPES = ("nonrobust", "HC0", "cluster")


def overlapping(k=3, n=300, seed=0):
    rng = np.random.default_rng([k, seed])
    X = rng.standard_normal((n, 3)) * [1, 100, 0.1] + [0, 500, 1]
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((3, k))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    return X, y, rng.integers(0, 4, n), rng.integers(0, 25, n)


def options_of(cov_type, groups):
    return {"cov_type": cov_type, "groups": groups if cov_type == "cluster" else None}


def fitted(X, y, *weight, **options):
    return SoftmaxRegression(C=math.inf, tol=1e-10, **options).fit(X, y, *weight)


@pytest.mark.parametrize("cov_type", COV_TYPES)
@pytest.mark.parametrize("classes", [2, 7])
def test_statsmodels(classes, cov_type):
    """Coefficients, covariance, tests of single coefficients, intervals, criteria."""
    theirs = anes96.theirs(classes, cov_type)
    ours = anes96.ours(classes).inference(**options_of(cov_type, anes96.groups()))
    shape = ours.coef.shape
    for a, b in (
        (ours.coef, theirs.params),
        (ours.standard_error, theirs.bse),
        (ours.z, theirs.tvalues),
        (ours.p_value, theirs.pvalues),
    ):
        np.testing.assert_allclose(a.T.ravel(), np.ravel(b), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ours.cov_params(), theirs.cov_params(), rtol=1e-6, atol=1e-10)
    bounds = np.asarray(theirs.conf_int(0.1)).reshape(*shape, 2)
    for i, bound in enumerate(ours.confidence_interval(0.9)):
        np.testing.assert_allclose(bound, bounds[..., i], rtol=1e-6, atol=1e-9)
    assert ours.parameters == theirs.params.size
    assert (ours.rows, ours.df_model) == (theirs.nobs, theirs.df_model)
    for name, theirs_name in (("aic", "aic"), ("bic", "bic"), ("log_likelihood", "llf")):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, theirs_name), rel=1e-10)
    assert ours.null_log_likelihood == pytest.approx(theirs.llnull, rel=1e-8)
    assert ours.groups == (37 if cov_type == "cluster" else None)


@pytest.mark.parametrize("classes", [2, 7])
def test_hc1(classes):
    """HC0 times n / (n - p); the discrete models of statsmodels return HC0 for it."""
    model = anes96.ours(classes)
    hc0, hc1 = (model.inference(cov_type=name) for name in ("HC0", "HC1"))
    factor = 944 / (944 - hc0.parameters)
    np.testing.assert_allclose(hc1.cov_params(), factor * hc0.cov_params(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 3])
def test_sandwich_of_the_definition(k, intercept):
    """The inverse of the information, times the scores, times the inverse; any base."""
    X, y, w, groups = overlapping(k)
    model = fitted(X, y, w, fit_intercept=intercept)
    p = model.predict_proba(X)
    design = np.hstack([X, np.ones((len(X), 1))])[:, : 3 + intercept]
    n = w.sum()
    for base in range(k):
        others = [j for j in range(k) if j != base]
        q = p[:, others]
        J = np.einsum("ij,nj->nij", np.eye(k - 1), q) - q[:, :, None] * q[:, None, :]
        size = (k - 1) * design.shape[1]
        information = np.einsum("n,nkl,nd,ne->kdle", w, J, design, design).reshape(size, size)
        scores = ((y[:, None] == others) - q)[:, :, None] * design[:, None, :]
        scores = scores.reshape(len(X), size)
        sums = np.array([w[groups == g] @ scores[groups == g] for g in range(25)])
        inverse = np.linalg.inv(information)
        for cov_type, products in (
            ("HC0", scores.T @ (scores * w[:, None])),
            ("HC1", scores.T @ (scores * w[:, None]) * n / (n - size)),
            ("cluster", sums.T @ sums * 25 / 24 * (n - 1) / (n - size)),
        ):
            ours = model.inference(base=base, **options_of(cov_type, groups))
            expected = inverse @ products @ inverse
            scale = np.sqrt(np.diagonal(expected))
            error = (ours.cov_params() - expected) / scale / scale[:, None]
            assert abs(error).max() < 1e-7
            np.testing.assert_allclose(ours.standard_error.ravel(), scale, rtol=1e-6)


@pytest.mark.parametrize("cov_type", [*COV_TYPES, "HC1"])
@pytest.mark.parametrize("k", [2, 3])
def test_weights_count_as_repeated_rows(k, cov_type):
    """Of every covariance, of effects, predictions and pseudo R²; groups of weight 0 vanish."""
    X, y, w, groups = overlapping(k)
    w[groups == 3] = 0
    repeat = np.repeat(np.arange(len(y)), w)
    options, rows = {"class_weight": {0: 2, 1: 1, 2: 1}}, repeat[y[repeat] == 0]
    repeat = np.r_[repeat, rows]
    a = fitted(X, y, w, class_weight={j: options["class_weight"][j] for j in range(k)})
    b = fitted(X[repeat], y[repeat])
    a = a.inference(**options_of(cov_type, groups))
    b = b.inference(**options_of(cov_type, groups[repeat]))
    assert a.rows == b.rows
    assert a.groups == b.groups
    np.testing.assert_allclose(a.standard_error, b.standard_error, rtol=1e-6)
    for at in ("overall", "mean", "median"):
        effects = [model.marginal_effects(at) for model in (a, b)]
        for name in ("effect", "standard_error"):
            first, second = (getattr(table, name) for table in effects)
            np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-9)
    assert a.bic == pytest.approx(b.bic, rel=1e-9)
    for kind in ("mcfadden", "adjusted", "cox_snell", "nagelkerke", *["tjur"] * (k == 2)):
        assert a.pseudo_r2(kind) == pytest.approx(b.pseudo_r2(kind), rel=1e-7)


@pytest.mark.parametrize("cov_type", COV_TYPES)
@pytest.mark.parametrize("k", [2, 3])
def test_layouts_types_and_means(k, cov_type):
    """CSR and Fortran order give the results of an array, float32 almost, and so do large means."""
    X, y, _, groups = overlapping(k)
    X = X.astype(np.float32).astype(float)
    options = options_of(cov_type, groups)
    plain = fitted(X, y).inference(**options)
    far = X + np.array([1e6, 1e7, 1e5])
    cases = (
        (csr_array(X), 1e-7),
        (np.asfortranarray(X), 1e-7),
        (X.astype(np.float32), 1e-3),
        (far, 1e-4),
    )
    for x, rtol in cases:
        tol = 1e-10 if x.dtype == np.float64 else 1e-6
        other = SoftmaxRegression(C=math.inf, tol=tol).fit(x, y).inference(**options)
        a, b = (model.standard_error[:, :3] for model in (plain, other))
        np.testing.assert_allclose(b, a, rtol=rtol)
        effects = [model.marginal_effects() for model in (plain, other)]
        for name in ("effect", "standard_error"):
            a, b = (getattr(table, name) for table in effects)
            np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * abs(a).max())
        a, b = plain.predict(X[:20]), other.predict(x[:20])
        np.testing.assert_allclose(b.standard_error, a.standard_error, rtol=10 * rtol)
        if x is not far:
            np.testing.assert_allclose(b.upper, a.upper, rtol=rtol)


def test_predictions_of_statsmodels():
    """Two classes: the interval on the scale of the log-odds."""
    X, _, _ = anes96.load()
    theirs = anes96.theirs(2, "HC0").get_prediction().summary_frame()
    ours = anes96.ours(2).inference(cov_type="HC0").predict(X)
    assert ours.classes == [0, 1]
    for a, b in (
        (ours.probability, theirs["predicted"]),
        (ours.standard_error, theirs["se"]),
        (ours.lower, theirs["ci_lower"]),
        (ours.upper, theirs["ci_upper"]),
    ):
        np.testing.assert_allclose(a[:, 1], b, rtol=1e-6)
    np.testing.assert_allclose(ours.lower[:, 0], 1 - ours.upper[:, 1], rtol=1e-9)


def test_predictions_by_derivatives():
    """Three classes: the log-odds of each and their errors by mpmath, at rows far away too."""
    X, y, _, groups = overlapping(3)
    model = fitted(X, y)
    inference = model.inference(cov_type="cluster", groups=groups)
    far = np.vstack([X[:3], X[:1] + 30 * X.std(axis=0)])
    result = inference.predict(far, 0.9)
    covariance = mp.matrix(inference.cov_params().tolist())
    quantile = mp.sqrt(2) * mp.erfinv(mp.mpf("0.9"))

    def log_odds(c, x, j):
        z = [mp.mpf(0)] + [mp.fdot(c[4 * i : 4 * i + 3], x) + c[4 * i + 3] for i in range(2)]
        return z[j] - mp.log(mp.fsum(mp.exp(v) for i, v in enumerate(z) if i != j))

    c = [mp.mpf(float(v)) for v in inference.coef.ravel()]
    h = mp.mpf("1e-20")
    for n, row in enumerate(far):
        x = [mp.mpf(float(v)) for v in row]
        for j in range(3):
            value = log_odds(c, x, j)
            shifted = [[v + h * (i == m) for m, v in enumerate(c)] for i in range(8)]
            gradient = mp.matrix([(log_odds(s, x, j) - value) / h for s in shifted])
            error = mp.sqrt((gradient.T * covariance * gradient)[0])
            p = 1 / (1 + mp.exp(-value))
            for name, expected in (
                ("probability", p),
                ("standard_error", p * (1 - p) * error),
                ("lower", 1 / (1 + mp.exp(quantile * error - value))),
                ("upper", 1 / (1 + mp.exp(-quantile * error - value))),
            ):
                assert getattr(result, name)[n, j] == pytest.approx(float(expected), rel=1e-6)
    assert (result.lower > 0).all()
    assert (result.upper <= 1).all()
    assert (result.lower <= result.probability).all()
    assert (result.probability <= result.upper).all()
    frame = result.to_frame()
    assert frame.shape == (12, 4)
    assert frame.loc[(2, 1), "upper"] == result.upper[2, 1]


def test_pseudo_r2():
    """The definitions."""
    ours, theirs = anes96.ours(2).inference(), anes96.theirs(2)
    assert ours.pseudo_r2() == pytest.approx(theirs.prsquared, rel=1e-8)
    cox_snell = 1 - math.exp(2 * (theirs.llnull - theirs.llf) / 944)
    p = theirs.predict()
    y = theirs.model.endog
    for kind, expected in (
        ("adjusted", 1 - (theirs.llf - 8) / theirs.llnull),
        ("cox_snell", cox_snell),
        ("nagelkerke", cox_snell / (1 - math.exp(2 * theirs.llnull / 944))),
        ("tjur", p[y == 1].mean() - p[y == 0].mean()),
    ):
        assert ours.pseudo_r2(kind) == pytest.approx(expected, rel=1e-7)
    with pytest.raises(ValueError, match="kind='tjur' needs two classes, got 7"):
        anes96.ours(7).inference().pseudo_r2("tjur")
    with pytest.raises(ValueError, match=r"kind must be one of 'mcfadden', .*, got 'efron'"):
        ours.pseudo_r2("efron")


def test_rows_of_the_fit_are_kept():
    """As a reference, without a penalty only; X and y may be passed."""
    X, y, w, _ = overlapping()
    model = fitted(X, y, w)
    assert model._rows_of_fit.engine.x is X
    kept, passed = model.inference(), model.inference(X, y, w)
    np.testing.assert_array_equal(kept.standard_error, passed.standard_error)
    assert str(model.summary(base=2)) == str(model.summary(X, y, w, base=2))
    X[:, 0] *= 2
    with pytest.raises(ValueError, match="are not the optimum of these rows"):
        model.inference()
    model.set_params(C=1.0).fit(X, y)
    assert not hasattr(model, "_rows_of_fit")
    with pytest.raises(ValueError, match=r"inference needs a fit with C=math\.inf, got C=1\.0"):
        model.inference()


def test_rows_are_not_copied_nor_pickled():
    """A model without rows has one clear error; with X and y it works."""
    X, y, _, _ = overlapping()
    model = fitted(X, y)
    expected = model.inference().standard_error
    assert len(pickle.dumps(model)) < X.nbytes / 2
    for other in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match="pickled, copied or fitted with a penalty; pass X"):
            other.summary()
        np.testing.assert_array_equal(other.inference(X, y).standard_error, expected)
    assert not hasattr(clone(model), "coef_")
    for arguments in ({"y": y}, {"sample_weight": np.ones(len(y))}):
        with pytest.raises(ValueError, match="X must be given with y and sample_weight, got None"):
            model.inference(**arguments)


def test_another_fit_does_not_change_an_inference():
    """The inference has the coefficients of its own fit."""
    X, y, _, _ = overlapping()
    model = fitted(X, y)
    inference = model.inference()
    before = inference.predict(X[:3]).probability
    model.fit(X[:, :2], y)
    np.testing.assert_array_equal(inference.predict(X[:3]).probability, before)


def test_float32_labels_and_names():
    """The classes are Python labels; the response has the name of the series."""
    X, _, _ = anes96.load()
    summary = anes96.ours(2).summary()
    assert summary.response == "leaning"
    assert type(summary.classes[0]) is int
    assert summary.names == [*X.columns, "intercept"]
    X, y, _, _ = overlapping()
    assert fitted(X, y).summary().response == "y"


def test_refused_arguments():
    """Unknown covariance, groups of another length or without use, unknown base, other columns."""
    X, y, _, groups = overlapping()
    model = fitted(X, y)
    with pytest.raises(ValueError, match=r"cov_type must be one of 'nonrobust', .*, got 'HC3'"):
        model.inference(cov_type="HC3")
    with pytest.raises(ValueError, match="groups must be given with cov_type='cluster', got none"):
        model.inference(cov_type="cluster")
    with pytest.raises(ValueError, match="groups must be None with cov_type='HC0', got a ndarray"):
        model.inference(cov_type="HC0", groups=groups)
    with pytest.raises(ValueError, match=r"groups must have a label for each of the 300 rows, .*9"):
        model.inference(cov_type="cluster", groups=groups[:9])
    with pytest.raises(ValueError, match="at least 2 groups of weight > 0, got 1"):
        model.inference(cov_type="cluster", groups=np.zeros(300))
    missing = np.where(groups > 3, groups, np.nan)
    with pytest.raises(ValueError, match="groups must have no missing values, got nan in row"):
        model.inference(cov_type="cluster", groups=missing)
    with pytest.raises(TypeError, match="groups must hold labels of one type, got int and str"):
        model.inference(cov_type="cluster", groups=np.array([1, "a"] * 150, object))
    with pytest.raises(ValueError, match=r"base must be one of \[0, 1, 2\], got 'a'"):
        model.inference(base="a")
    with pytest.raises(ValueError, match="X has 2 features, but SoftmaxRegression is expecting 3"):
        model.inference(X[:, :2], y)
    with pytest.raises(ValueError, match="X has 2 features"):
        model.inference().predict(X[:, :2])
    light = np.full(300, 1e-3)
    model = fitted(X, y, light)
    with pytest.raises(ValueError, match="cov_type='HC1' needs a sum of weights above the number"):
        model.inference(cov_type="HC1")


def test_coefficients_are_those_of_the_model():
    """Relative to the base class."""
    X, y, _, _ = overlapping()
    model = fitted(X, y)
    coef, intercept = one_row_per_class(model.coef_, model.intercept_)
    full = np.hstack([coef, intercept[:, None]])
    np.testing.assert_allclose(model.inference(base=1).coef, full[[0, 2]] - full[1], rtol=1e-9)
