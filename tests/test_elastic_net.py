"""SoftmaxRegression with l1_ratio: the optimum, its zeros, the duality gap, refused arguments."""

import math
import warnings

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from logitlab import SoftmaxRegression, softmax
from logitlab.regression.elastic_net import ElasticNet
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Rows

pytestmark = pytest.mark.slow


def problem(k, seed=0, n=300, d=12):
    """Features of which a third matter for each class."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    coef = rng.standard_normal((d, k)) * (rng.random((d, k)) < 0.3) * 1.5
    return X, (X @ coef + rng.gumbel(size=(n, k))).argmax(axis=1)


def norm(coef, grouped):
    grouped = grouped and len(coef) > 1
    return np.linalg.norm(coef, axis=0).sum() if grouped else abs(coef).sum()


def objective(model, X, y, weight=None):
    """Return scikit-learn's objective over C times the sum of the weights."""
    weight = np.ones(len(y)) if weight is None else weight
    codes = np.searchsorted(model.classes_, y)
    losses = -np.take_along_axis(model.predict_log_proba(X), codes[:, None], axis=1)[:, 0]
    rho, coef = model.l1_ratio, model.coef_
    penalty = rho * norm(coef, model.grouped) + (1 - rho) / 2 * np.sum(coef**2)
    return (weight @ losses + penalty / model.C) / weight.sum()


def saga(X, y, weight=None, **options):
    """Return the optimum of scikit-learn's solver."""
    model = LogisticRegression(solver="saga", tol=1e-13, max_iter=1_000_000, **options)
    return model.fit(X, y, weight)


@pytest.mark.parametrize("C", [0.05, 1.0])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_optimum_of_scikit_learn(k, l1_ratio, C):
    """Coefficients, intercepts and zeros, with weights of rows and classes."""
    X, y = problem(k, seed=k)
    labels = np.array([f"class {c}" for c in range(k)])[y]
    weight = np.random.default_rng(1).random(len(y)) * 2
    weight[:20] = 0
    options = {"C": C, "l1_ratio": l1_ratio, "class_weight": "balanced"}
    ours = SoftmaxRegression(tol=1e-12, **options).fit(X, labels, weight)
    theirs = saga(X, labels, weight, **options)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=3e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    assert C == 1 or (ours.coef_ == 0).any()
    assert ours.n_iter_[0] == len(ours.loss_curve_) - 1 <= 25
    assert (np.diff(ours.loss_curve_) <= 1e-15).all()


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("k", [2, 3, 4, 20])
def test_gradient_conditions(k, l1_ratio, grouped, intercept):
    """The gradient at the optimum is in the subdifferential of the penalty, in 50 digits."""
    X, y = problem(k, seed=k, n=min(40 * k, 240), d=6)
    X += 3.0
    C = 0.4
    options = {"C": C, "l1_ratio": l1_ratio, "grouped": grouped, "fit_intercept": intercept}
    model = SoftmaxRegression(tol=1e-13, **options).fit(X, y)
    gradient, by_intercept = exact_gradient(model, X, y)
    coef = model.coef_
    if intercept:
        assert abs(by_intercept).max() < 1e-7 * len(y)
    else:
        assert not model.intercept_.any()
    gradient += (1 - l1_ratio) / C * coef
    lam = l1_ratio / C
    if grouped and k > 2:
        sizes = np.linalg.norm(coef, axis=0)
        zero = sizes == 0
        assert (np.linalg.norm(gradient[:, zero], axis=0) <= lam).all()
        expected = -lam * coef[:, ~zero] / sizes[~zero]
        np.testing.assert_allclose(gradient[:, ~zero], expected, rtol=0, atol=2e-5)
    else:
        zero = coef == 0
        assert (abs(gradient[zero]) <= lam * (1 + 1e-12)).all()
        np.testing.assert_allclose(gradient[~zero], -lam * np.sign(coef[~zero]), rtol=0, atol=2e-5)


def exact_gradient(model, X, y):
    """Return the gradient of the summed losses by the coefficients and intercepts."""
    coef, intercept = model.coef_, model.intercept_
    one_row = len(coef) == 1
    if one_row:
        coef, intercept = np.vstack([0 * coef, coef]), np.append(0.0, intercept)
    by_coef = mpmath.zeros(*coef.shape)
    by_intercept = mpmath.zeros(len(coef), 1)
    with mpmath.workdps(50):
        W, b = mpmath.matrix(coef.tolist()), mpmath.matrix(intercept.tolist())
        for x, label in zip(mpmath.matrix(X.tolist()).tolist(), y.tolist(), strict=True):
            x = mpmath.matrix(x)
            e = (W * x + b).apply(mpmath.exp)
            residual = e / mpmath.fsum(e)
            residual[label] -= 1
            by_coef += residual * x.T
            by_intercept += residual
    gradient = np.array(by_coef.tolist(), float)
    by_intercept = np.array(by_intercept.tolist(), float)[:, 0]
    return (gradient[1:], by_intercept[1:]) if one_row else (gradient, by_intercept)


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("k", [3, 10])
def test_grouped_optimum_of_adelie(k, l1_ratio):
    """The optimum of glmnet's algorithm; its loss is divided by the number of classes."""
    adelie = pytest.importorskip("adelie")
    X, y = problem(k, seed=k, n=400)
    C = 0.1
    ours = SoftmaxRegression(C=C, l1_ratio=l1_ratio, grouped=True, tol=1e-12).fit(X, y)
    theirs = adelie.grpnet(
        np.asfortranarray(X),
        adelie.glm.multinomial(np.eye(k)[y]),
        alpha=l1_ratio,
        lmda_path=[1 / (C * len(y) * k)],
        penalty=np.ones(X.shape[1]),
        tol=1e-16,
        irls_tol=1e-14,
        early_exit=False,
        progress_bar=False,
    )
    coef = theirs.betas.toarray().reshape(-1, k).T
    np.testing.assert_allclose(ours.coef_, coef, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(ours.coef_ == 0, coef == 0)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("k", [2, 3, 6])
def test_dual_gap_bounds_the_error(k, l1_ratio, grouped):
    """After any number of iterations, the gap is at least the error of the objective."""
    X, y = problem(k, seed=k)
    options = {"C": 0.3, "l1_ratio": l1_ratio, "grouped": grouped}
    best = SoftmaxRegression(tol=1e-11, **options).fit(X, y)
    assert best.loss_curve_[-1] == pytest.approx(objective(best, X, y), rel=1e-14)
    for max_iter in range(best.n_iter_[0]):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            model = SoftmaxRegression(tol=1e-11, max_iter=max_iter, **options).fit(X, y)
        error = objective(model, X, y) - best.loss_curve_[-1]
        assert error <= model.dual_gap_ + 1e-14
        assert (len(warned) == 1) == (model.dual_gap_ > 1e-11 * model.loss_curve_[-1])
    message = (
        "after 1 iterations: the duality gap is .* of the objective, above tol=1e-06; increase"
    )
    with pytest.warns(ConvergenceWarning, match=message):
        SoftmaxRegression(max_iter=1, **options).fit(X, y)
    for tol in (1e-3, 1e-6):
        model = SoftmaxRegression(tol=tol, **options).fit(X, y)
        assert model.dual_gap_ <= tol * model.loss_curve_[-1]
        assert model.n_iter_ <= best.n_iter_


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_scale_of_the_features(k, grouped):
    """Where only the units of the features and their means differ, so do the coefficients.

    The penalty is that of the given units: here the features are scaled as often as they are not.
    """
    X, y = problem(k, n=400, d=8)
    mean = np.array([1e4, -1e4, 0, 3, 1e3, 0, 0, 1e4])
    options = {"C": 0.2, "l1_ratio": 0.7, "grouped": grouped}
    unit = SoftmaxRegression(tol=1e-9, **options).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shifted = SoftmaxRegression(tol=1e-9, **options).fit(X + mean, y)
    np.testing.assert_allclose(shifted.coef_, unit.coef_, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(shifted.coef_ == 0, unit.coef_ == 0)
    scale = 10.0 ** np.array([6, -6, 3, 0, 6, 0, -3, 6])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = SoftmaxRegression(**options).fit((X + mean) * scale, y)
    assert scaled.n_iter_ <= unit.n_iter_ + 3
    # Almost not penalized, or almost not there.
    assert (scaled.coef_[:, scale > 1] != 0).any(axis=0).all()
    assert (scaled.coef_[:, scale < 1] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["C", "F", "csr"])
def test_array_types(kind, dtype):
    """Every layout gives the same coefficients and zeros."""
    X, y = problem(3, n=9000)
    X[abs(X) < 0.5] = 0
    X = X.astype(np.float32)
    converted = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_matrix}[kind](X)
    options = {"C": 0.02, "l1_ratio": 0.9, "tol": 1e-9}
    plain = SoftmaxRegression(**options).fit(X.astype(float), y)
    model = SoftmaxRegression(**options).fit(converted.astype(dtype), y)
    assert model.coef_.dtype == dtype
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=3e-7, atol=1e-7)
    np.testing.assert_array_equal(model.coef_ == 0, plain.coef_ == 0)
    assert (plain.coef_ == 0).any()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_weights_are_repetitions(k, grouped):
    X, y = problem(k, seed=3)
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    options = {"C": 0.2, "l1_ratio": 0.8, "grouped": grouped, "tol": 1e-12}
    weighted = SoftmaxRegression(**options).fit(X, y, weight)
    repeated = SoftmaxRegression(**options).fit(np.repeat(X, weight, 0), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(weighted.loss_curve_[-1], repeated.loss_curve_[-1], rtol=1e-13)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("k", [2, 4])
def test_more_features_than_rows(k, l1_ratio, grouped):
    """The working set holds few of 2000 features, of which some are equal."""
    X, y = problem(k, n=80, d=2000)
    X[:, 1000:1010] = X[:, :10]
    options = {"C": 1.0, "l1_ratio": l1_ratio, "grouped": grouped}
    model = SoftmaxRegression(tol=1e-8, **options).fit(X, y)
    assert model.dual_gap_ <= 1e-8 * model.loss_curve_[-1]
    assert np.count_nonzero(model.coef_.any(axis=0)) < 300
    assert model.n_iter_ < 30


def test_even_number_of_classes():
    """Where the optimum is not unique, the coefficients are the limit of those with a ridge."""
    X, y = problem(4, n=300, d=5)
    lasso = SoftmaxRegression(l1_ratio=1.0, tol=1e-13).fit(X, y)
    assert (lasso.coef_ != 0).all(axis=0).any()
    net = SoftmaxRegression(l1_ratio=1 - 1e-7, tol=1e-13).fit(X, y)
    np.testing.assert_allclose(lasso.coef_, net.coef_, rtol=0, atol=1e-5)
    assert objective(lasso, X, y) == pytest.approx(lasso.loss_curve_[-1], rel=1e-14)


def test_warm_start():
    """A fit starts at the last coefficients; the fit of other classes does not."""
    X, y = problem(3)
    model = SoftmaxRegression(C=0.1, l1_ratio=1.0, warm_start=True).fit(X, y)
    coef = model.coef_
    assert model.fit(X, y).n_iter_ == 0
    np.testing.assert_array_equal(model.coef_, coef)
    first = model.set_params(C=0.11).fit(X, y).n_iter_[0]
    cold = SoftmaxRegression(C=0.11, l1_ratio=1.0).fit(X, y)
    assert first < cold.n_iter_[0]
    np.testing.assert_allclose(model.coef_, cold.coef_, rtol=0, atol=1e-3)
    assert model.fit(X, y + 5).n_iter_ == cold.n_iter_


def test_largest_penalty_with_a_coefficient():
    """At a C just below the closed form, all coefficients are 0; just above, some are not."""
    X, y = problem(3)
    centred = X - X.mean(axis=0)
    gradient = centred.T @ (np.eye(3)[y] - 1 / 3)
    for grouped, norm in ((False, abs(gradient).max()), (True, np.hypot.reduce(gradient.T).max())):
        for factor, zero in ((0.999, True), (1.001, False)):
            options = {"l1_ratio": 0.5, "grouped": grouped, "C": factor * 0.5 / norm}
            assert (not SoftmaxRegression(**options, tol=1e-10).fit(X, y).coef_.any()) == zero


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"l1_ratio": 1.5}, ValueError, "l1_ratio must be from 0 to 1, got 1.5"),
        ({"l1_ratio": -0.1}, ValueError, "l1_ratio must be from 0 to 1, got -0.1"),
        ({"l1_ratio": math.nan}, ValueError, "l1_ratio must be from 0 to 1, got nan"),
        ({"l1_ratio": None}, TypeError, "l1_ratio must be a real number, got None"),
        ({"grouped": 1}, TypeError, "grouped must be True or False, got 1"),
        (
            {"l1_ratio": 0.5, "C": math.inf},
            ValueError,
            r"l1_ratio must be 0 without a penalty \(C=math.inf\), got 0.5; choose a finite C",
        ),
    ],
)
def test_refused_parameters(options, error, message):
    with pytest.raises(error, match=message):
        SoftmaxRegression(**options).fit(*problem(3))


def test_no_standard_errors():
    X, y = problem(3)
    model = SoftmaxRegression(l1_ratio=0.5).fit(X, y)
    with pytest.raises(ValueError, match=r"inference needs a fit with C=math.inf, got C=1.0"):
        model.inference(X, y)
    with pytest.raises(ValueError, match=r"posterior needs a fit with a ridge penalty, got l1_r"):
        model.posterior(X, y)


def test_no_effect_of_grouped_on_a_ridge():
    X, y = problem(3)
    plain, grouped = (SoftmaxRegression(grouped=g).fit(X, y) for g in (False, True))
    np.testing.assert_array_equal(plain.coef_, grouped.coef_)
    assert not hasattr(plain, "dual_gap_")


def test_progress(capsys):
    X, y = problem(3)
    model = SoftmaxRegression(C=0.1, l1_ratio=1.0, verbose=True).fit(X, y)
    shown = capsys.readouterr().err
    assert f"{model.n_iter_[0]}/1000" in shown
    assert "duality gap" in shown


@pytest.mark.parametrize("load", [load_wine, load_digits])
def test_raw_data(load):
    """The default tolerance on raw features, of columns that are constant and of many scales."""
    X, y = load(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxRegression(l1_ratio=1.0).fit(X, y)
    assert model.dual_gap_ <= 1e-6 * model.loss_curve_[-1]
    exact = SoftmaxRegression(l1_ratio=1.0, tol=1e-11).fit(X, y)
    assert objective(model, X, y) <= objective(exact, X, y) * (1 + 1e-6)
    assert not model.coef_[:, X.std(axis=0) == 0].any()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("k", [2, 4])
def test_dual_values_are_lower_bounds(k, l1_ratio, grouped):
    """At any parameters: the residuals of the dual point add up to 0 in each class."""
    X, y = problem(k, seed=k)
    weight = np.random.default_rng(1).random(len(y))
    model = SoftmaxRegression(C=0.3, l1_ratio=l1_ratio, grouped=grouped, tol=1e-12)
    best = model.fit(X, y, weight).loss_curve_[-1]
    engine = Rows(X, y.astype(np.int64), weight, k)
    objective = Objective(engine, k, 1.0, True)
    elastic_net = ElasticNet(objective, 0.3, l1_ratio, grouped)
    rng, gaps = np.random.default_rng(0), []
    for size in (1e-6, 1e-3, 0.1, 1.0, 10.0):
        theta = rng.standard_normal(elastic_net.null_parameters().shape) * size
        point = elastic_net.evaluate(theta + elastic_net.null_parameters())
        value = elastic_net.dual_value(point)
        assert value <= best + 1e-12
        gaps.append(point.value - value)
        (keep, share, scale), _ = elastic_net._dual_point(point)
        coef, intercept = objective.from_centred(elastic_net.to_classes(point.theta))
        p = softmax(X @ coef.T + intercept)
        q = keep * p + np.outer(p @ (1 - keep), share)
        residual = scale * (q - np.eye(k)[y])
        assert abs(weight @ residual).max() < 1e-12 * weight.sum()
        gradient = elastic_net.gradient_of_rows((weight[:, None] * residual).T @ X)
        if l1_ratio == 1:
            largest = elastic_net.sizes(gradient).max() / weight.sum()
            assert largest <= elastic_net.l1 * (1 + 1e-9)
    assert gaps[0] < gaps[-1]
