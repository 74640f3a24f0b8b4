"""SoftmaxRegression: the optimum at any scale of the features, warnings, refused arguments."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import logitlab
from logitlab import SoftmaxRegression
from logitlab.regression.coefficients import one_row_per_class
from logitlab.regression.objective import Objective
from logitlab.regression.rows import Rows


def loss(model, X, y, weight=1.0):
    """Return scikit-learn's objective at a fitted model."""
    codes = np.searchsorted(model.classes_, y)
    losses = -np.take_along_axis(model.predict_log_proba(X), codes[:, None], axis=1)[:, 0]
    return model.C * np.sum(weight * losses) + 0.5 * np.sum(model.coef_**2)


def peer(X, y, weight=None, **kwargs):
    """Return the optimum of scikit-learn's most exact solver."""
    model = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=200, **kwargs)
    return model.fit(X, y, weight)


def problem(k, seed=0, n=300, d=5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    z = X @ rng.standard_normal((d, k)) * 1.5
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("intercept", [True, False])
def test_optimum_of_scikit_learn(k, intercept):
    """Coefficients, intercepts and every method, with weights of rows and classes."""
    X, y = problem(k, seed=k)
    labels = np.array([f"class {c}" for c in range(k)])[y]
    weight = np.random.default_rng(1).random(len(y)) * 3
    weight[:20] = 0
    options = {"C": 0.7, "fit_intercept": intercept, "class_weight": "balanced"}
    ours = SoftmaxRegression(tol=1e-10, **options).fit(X, labels, weight)
    theirs = peer(X, labels, weight, **options)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=0, atol=1e-8)
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        a, b = getattr(ours, method)(X), getattr(theirs, method)(X)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)
    assert (ours.predict(X) == theirs.predict(X)).all()
    assert ours.score(X, labels) == theirs.score(X, labels)
    assert ours.n_iter_.shape == (1,)
    assert ours.n_iter_[0] == len(ours.loss_curve_) - 1


def test_two_classes_at_half_the_penalty():
    """The optimum of one row of coefficients is that of a row for each class at C / 2."""
    X, y = problem(2)
    one = SoftmaxRegression(C=3.0, tol=1e-9).fit(X, y)
    rows = Rows(X, y.astype(np.int64), None, 2)
    objective = Objective(rows, 2, 1.5, True)
    theta = objective.to_centred(*one_row_per_class(one.coef_, one.intercept_))
    _, gradient = objective.value_and_gradient(theta)
    assert abs(gradient).max() < 1e-9


def test_scale_of_the_features():
    """Scaled and shifted features give the same fit, without a warning."""
    X, y = problem(4, n=500)
    unit = SoftmaxRegression(C=math.inf, tol=1e-9).fit(X, y)
    factor, shift = 10.0 ** np.array([6, -6, 3, 0, -3]), np.array([0, 0, 5e5, 1e4, -1])
    scaled = SoftmaxRegression(C=math.inf, tol=1e-9).fit(X * factor + shift, y)
    assert scaled.n_iter_ <= unit.n_iter_ + 3
    np.testing.assert_allclose(scaled.coef_ * factor, unit.coef_, rtol=0, atol=1e-5)


def test_raw_digits():
    """The optimum at the default tolerance, where scikit-learn's lbfgs does not converge."""
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression().fit(X, y)
    assert loss(model, X, y) == pytest.approx(17.0323521816, rel=1e-9)
    single = SoftmaxRegression().fit(X.astype(np.float32), y)
    assert abs(single.coef_ - model.coef_).max() < 1e-5 * abs(model.coef_).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["C", "F", "csr", "csc", "frame"])
def test_array_types(kind, dtype):
    """Every layout gives the same coefficients."""
    X, y = problem(3, n=9000)
    X[np.abs(X) < 0.5] = 0
    plain = SoftmaxRegression().fit(X, y)
    X = X.astype(dtype)
    converted = {
        "C": np.ascontiguousarray,
        "F": np.asfortranarray,
        "csr": sp.csr_matrix,
        "csc": sp.csc_array,
        "frame": lambda X: pd.DataFrame(X, columns=list("abcde")),
    }[kind](X)
    model = SoftmaxRegression().fit(converted, y)
    assert model.coef_.dtype == dtype
    np.testing.assert_allclose(
        model.coef_, plain.coef_, rtol=0, atol=2e-5 if dtype == np.float32 else 1e-6
    )
    np.testing.assert_allclose(
        model.predict_proba(converted), plain.predict_proba(X), rtol=0, atol=1e-5
    )
    assert (kind == "frame") == hasattr(model, "feature_names_in_")


def test_blocks_add_up():
    """Loss, gradient and Hessian of rows in several blocks agree with the formulas."""
    X, y = problem(3, n=10_000, d=4)
    rng = np.random.default_rng(0)
    weight = rng.random(len(y))
    coef, b, centre = (
        rng.standard_normal((3, 4)),
        rng.standard_normal(3),
        np.average(X, axis=0, weights=weight),
    )
    for x in (X, np.asfortranarray(X), sp.csr_array(X)):
        rows = Rows(x, y.astype(np.int64), weight, 3)
        cost, by_coef, by_intercept = rows.loss_and_gradient(coef, b)
        z = X @ coef.T + b
        expected, by_z = logitlab.cross_entropy_and_grad(
            z, y, sample_weight=weight, reduction="sum"
        )
        assert cost == pytest.approx(float(expected), rel=1e-12)
        np.testing.assert_allclose(by_coef, by_z.T @ X, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(by_intercept, by_z.sum(axis=0), rtol=1e-9, atol=1e-9)
        p = logitlab.softmax(z)
        J = np.einsum("ij,nj->nij", np.eye(3), p) - p[:, :, None] * p[:, None, :]
        xc = np.hstack([X - centre, np.ones((len(X), 1))])
        hessian = np.einsum("n,nkl,nd,ne->kdle", weight, J, xc, xc).reshape(15, 15)
        np.testing.assert_allclose(rows.hessian(coef, b, centre), hessian, atol=1e-8)
        products = (xc[:, :-1].T * weight) @ xc[:, :-1]
        sums = weight @ xc[:, :-1]
        for full, expected in ((True, products), (False, np.diagonal(products))):
            scatter = rows.scatter(centre, full)
            np.testing.assert_allclose(scatter[0], sums, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(scatter[1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("full", [True, False])
def test_duplicate_entries_of_a_sparse_matrix(full):
    """They count as their sum; the matrix is not changed."""
    x = sp.csr_array(([1.0, 2.0, 4.0, 8.0], [1, 1, 0, 2], [0, 2, 4]), shape=(2, 3))
    y, centre = np.array([0, 1]), np.array([1.0, 2.0, 3.0])
    for result, expected in zip(
        Rows(x, y, None, 2).scatter(centre, full),
        Rows(x.toarray(), y, None, 2).scatter(centre, full),
        strict=True,
    ):
        np.testing.assert_allclose(result, expected)
    assert x.nnz == 4


def test_products_of_sparse_columns_with_large_means():
    """They are as exact as those of dense rows, for dense and for rare columns."""
    rng = np.random.default_rng(1)
    near = rng.standard_normal((9000, 1))
    X = np.hstack([near, near + 1e-4 * rng.standard_normal((9000, 1))]) + 1e4
    rare = rng.standard_normal((9000, 4)) * (rng.random((9000, 4)) < [0.02, 0.4, 0.6, 0.9])
    X = np.hstack([X[:, :1], rare + 5 * (rare != 0), X[:, 1:]])
    y, weight = np.zeros(9000, np.int64), rng.random(9000)
    centre = np.average(X, axis=0, weights=weight)
    expected = Rows(X, y, weight, 2).scatter(centre, True)[1]
    products = Rows(sp.csr_array(X), y, weight, 2).scatter(centre, True)[1]
    size = np.sqrt(np.diagonal(expected))
    assert (abs(products - expected) < 1e-13 * np.outer(size, size)).all()


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_collinear_features_with_large_means(form):
    """Almost collinear features have their optimum, collinear ones that of least norm."""
    rng = np.random.default_rng(1)
    t, u = rng.standard_normal((2, 500))
    y = (u + rng.logistic(size=500) > 0).astype(int)
    plain = SoftmaxRegression(C=math.inf).fit(np.c_[t, u], y).coef_[0]
    near = SoftmaxRegression(C=math.inf).fit(form(np.c_[t, t + 1e-4 * u] + 1e4), y).coef_[0]
    np.testing.assert_allclose(near, [plain[0] - 1e4 * plain[1], 1e4 * plain[1]], rtol=1e-4)
    rng = np.random.default_rng(4)
    X = rng.standard_normal((200, 2)) + 10
    y = (X[:, 0] - 10 + rng.logistic(size=200) > 0).astype(int)
    exact = SoftmaxRegression(C=math.inf).fit(form(np.c_[X, X.sum(axis=1)]), y).coef_[0]
    assert exact @ [1, 1, -1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", [np.array, np.float32, sp.csr_array, sp.csc_matrix])
def test_constant_columns_have_no_coefficient(kind):
    """Also without penalty, and where rounding leaves a variance above 0."""
    X, y = problem(2, n=1000, d=2)
    weight = np.random.default_rng(0).random(1000) + 0.1
    for w in (None, weight):
        plain = SoftmaxRegression(C=math.inf).fit(X, y, w)
        for values in (0.1, 0.7, [0.1, 1e6 / 3]):
            constant = np.broadcast_to(values, (1000, np.size(values)))
            model = SoftmaxRegression(C=math.inf).fit(kind(np.hstack([X, constant])), y, w)
            assert (model.coef_[:, 2:] == 0).all()
            np.testing.assert_allclose(model.coef_[:, :2], plain.coef_, rtol=1e-4)
            np.testing.assert_allclose(model.intercept_, plain.intercept_, rtol=1e-4)


def test_inverse_hessians():
    """At equal probabilities both are the inverse of the Hessian."""
    X, y = problem(3, n=200)
    objective = Objective(Rows(X * 100 + 7, y.astype(np.int64), None, 3), 3, 1.0, True)
    rng = np.random.default_rng(0)
    g = rng.standard_normal((3, 6))
    g -= g.mean(axis=0)
    theta = np.zeros((3, 6))
    for inverse_hessian in (
        objective.initial_inverse_hessian(),
        objective.inverse_hessian(theta),
    ):
        step = inverse_hessian(g)
        np.testing.assert_allclose(
            objective.hessian(theta) @ step.ravel(), g.ravel(), rtol=0, atol=1e-8
        )


def test_stopping_rule():
    """The relative distance from the optimum is within tol squared."""
    X, y = problem(5, n=2000)
    exact = SoftmaxRegression(tol=1e-12).fit(X, y)
    best = exact.loss_curve_[-1]
    for tol in (1e-2, 1e-4):
        model = SoftmaxRegression(tol=tol).fit(X, y)
        assert model.loss_curve_[-1] - best <= tol**2 * best
    with pytest.warns(ConvergenceWarning, match="after 2 iterations"):
        SoftmaxRegression(max_iter=2).fit(X, y)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_warning_about_rounding(form):
    """Emitted for float32 features with large means; not for small means, nor float64."""
    X, y = problem(3, n=2000)
    model = SoftmaxRegression(C=math.inf)
    with pytest.warns(
        ConvergenceWarning, match="rounding prevents further progress: centre X, or pass"
    ):
        model.fit(form((X + 1e6).astype(np.float32)), y)
    exact = SoftmaxRegression(C=math.inf).fit((X + 1e6).astype(np.float32).astype(float), y)
    assert abs(model.coef_ - exact.coef_).max() > 1e-3
    for tol in (1e-6, 1e-12):
        for shift, dtype in ((0, np.float32), (30, np.float32), (1e6, np.float64)):
            SoftmaxRegression(C=math.inf, tol=tol).fit(form((X + shift).astype(dtype)), y)


def test_least_norm_without_penalty():
    """The coefficients have the least norm of those with the same logits."""
    X, y = problem(3)
    dependent = np.hstack([X, X[:, :2] * 1000, np.full((len(X), 1), 5.0)])
    model = SoftmaxRegression(C=math.inf, tol=1e-10).fit(dependent, y)
    centred = dependent - dependent.mean(axis=0)
    np.testing.assert_allclose(
        model.coef_, model.coef_ @ np.linalg.pinv(centred) @ centred, rtol=0, atol=1e-10
    )
    plain = SoftmaxRegression(C=math.inf, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(dependent), plain.predict_proba(X), atol=1e-7)
    theirs = peer(X, y, C=math.inf)
    np.testing.assert_allclose(plain.coef_, theirs.coef_, rtol=0, atol=1e-6)


def test_warning_about_separation():
    """Without a penalty there is no optimum where the classes are separated, also partly."""
    X, y = load_wine(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="are completely separated"):
        model = SoftmaxRegression(C=math.inf).fit(X, y)
    assert model.score(X, y) == 1
    X, y = problem(3)
    X[:, 0] = np.where(y == 2, 1.0, 0.0)  # a column that determines one class; the others overlap
    with pytest.warns(ConvergenceWarning, match="quasi-completely separated"):
        SoftmaxRegression(C=math.inf).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxRegression(C=1e6).fit(X, y)


def test_separation_of_one_class():
    """Classes 0 and 1 overlap, class 2 is separated from both."""
    X, y = np.array([0, 0, 1, 1, 2, 2, 2.0])[:, None], np.array([0, 1, 0, 1, 0, 1, 2])
    with pytest.warns(ConvergenceWarning, match="quasi-completely separated"):
        model = SoftmaxRegression(C=math.inf).fit(X, y)
    with pytest.raises(ValueError, match="separated"):
        model.summary(X, y)


@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_heavy_tails(tol):
    """An outlying row is not taken for separation, and does not hide a separating column."""
    rng = np.random.default_rng(0)
    far = rng.standard_normal(1000)
    y = (far + rng.logistic(size=1000) > 0).astype(int)
    far[0], y[0] = 1e4, 1
    lognormal = np.exp(3 * rng.standard_normal(1000))
    model = SoftmaxRegression(C=math.inf, tol=tol)
    for x, labels in (
        (far, y),
        (lognormal, (lognormal + rng.logistic(size=1000) > 0).astype(int)),
    ):
        error = model.fit(x[:, None], labels).summary(x[:, None], labels).standard_error
        assert (error < 1).all()
        X = np.c_[x, (labels == 1) & (rng.random(1000) < 0.05)]
        with pytest.warns(ConvergenceWarning, match="quasi-completely separated"):
            model.fit(X, labels)


def test_separation_with_weights_of_0():
    """A row of weight 0 does not undo a separation; a class of weight 0 is separated."""
    rng = np.random.default_rng(0)
    X = np.c_[np.r_[np.zeros(40), np.ones(20)], rng.standard_normal(60)]
    y = np.r_[rng.integers(0, 2, 40), np.ones(20, int)]
    against = np.r_[X, [[1.0, 0.0]]], np.r_[y, 0], np.r_[np.ones(60), 0]
    overlap, two = problem(2)
    without = overlap, np.r_[two[:-1], 2], np.r_[np.ones(len(two) - 1), 0]
    for rows in (against, without):
        with pytest.warns(ConvergenceWarning, match="quasi-completely separated"):
            model = SoftmaxRegression(C=math.inf).fit(*rows)
        with pytest.raises(ValueError, match="separated"):
            model.summary(*rows)


def test_warm_start():
    """A fit that starts at the optimum ends at once; other features start at 0."""
    for k in (2, 4):
        X, y = problem(k)
        model = SoftmaxRegression(warm_start=True).fit(X, y)
        assert model.fit(X, y).n_iter_ <= 1
        model.fit(X[:, :3], y)
        assert model.coef_.shape[1] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": 0.0}, "C must be > 0, got 0.0"),
        ({"C": math.nan}, "C must be > 0, got nan"),
        ({"C": True}, "C must be a real number, got True"),
        ({"C": 1e-320}, "must be >= 1e-300, got C=1e-320 and a sum of 300.0"),
        ({"tol": -1}, "tol must be > 0, got -1.0"),
        ({"max_iter": 1.5}, "max_iter must be an int, got 1.5"),
        ({"max_iter": -1}, "max_iter must be >= 0, got -1"),
        ({"fit_intercept": "no"}, "fit_intercept must be True or False, got 'no'"),
        ({"warm_start": 1}, "warm_start must be True or False, got 1"),
        ({"class_weight": {0: -1, 1: 1}}, "class_weight must be >= 0, got -1.0 for class 0"),
        ({"class_weight": {0: 0, 1: 1}}, "at least 2 classes with rows of weight > 0, got 1"),
    ],
)
def test_refused_parameters(options, message):
    """The error names the parameter and its rule."""
    with pytest.raises((TypeError, ValueError), match=message):
        SoftmaxRegression(**options).fit(*problem(2))


def test_refused_labels():
    X, y = problem(2)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        SoftmaxRegression().fit(X, y + 0.5)
    with pytest.raises(ValueError, match=r"y must have at least 2 classes, got one class, 0\.0"):
        SoftmaxRegression().fit(X, np.zeros(len(y)))
    with pytest.raises(ValueError, match="at least 2 classes with rows of weight > 0, got 1"):
        SoftmaxRegression().fit(X, y, y == 1)


@pytest.mark.parametrize("weight", [1e308, 1e-320])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_weights_whose_sum_overflows_or_underflows(weight, class_weight):
    X, y = problem(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="sample_weight"):
            SoftmaxRegression(class_weight=class_weight).fit(X, y, np.full(len(y), weight))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("dtype", "largest"), [(np.float64, 1e152), (np.float32, 3e34)])
def test_columns_whose_squares_overflow(form, intercept, dtype, largest):
    """They are refused by name; smaller columns are fitted as after scaling."""
    X, y = problem(2)
    X[:, 1] = X[:, 1] / np.abs(X[:, 1]).max()
    model = SoftmaxRegression(C=math.inf, fit_intercept=intercept)
    plain = model.fit(X, y).coef_
    X[:, 1] *= largest / 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coef = model.fit(form(X.astype(dtype)), y).coef_.astype(float)
        coef[:, 1] *= largest / 10
        np.testing.assert_allclose(coef, plain, rtol=2e-3)
        X[:, 1] *= 1000
        with pytest.raises(ValueError, match=r"column x1 of X must be <= .*: its squares overflow"):
            model.fit(form(X.astype(dtype)), y)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("dtype", "smallest"), [(np.float64, 1e-152), (np.float32, 1e-33)])
def test_columns_whose_squares_underflow(form, intercept, dtype, smallest):
    """They are refused by name without a penalty; with one their coefficient is almost 0."""
    X, y = problem(2)
    X, y = np.vstack([X, -X]), np.r_[y, y[::-1]]
    model = SoftmaxRegression(C=math.inf, fit_intercept=intercept)
    plain = model.fit(X, y).coef_
    X[:, 1] *= smallest
    coef = model.fit(form(X.astype(dtype)), y).coef_.astype(float)
    coef[:, 1] *= smallest
    np.testing.assert_allclose(coef, plain, rtol=2e-3)
    for factor in (1e-2, 1e-10):
        small = X.copy()
        small[:, 1] *= factor
        with pytest.raises(
            ValueError,
            match=r"column x1 of X must be 0 or >= .*: its squares underflow",
        ):
            model.fit(form(small.astype(dtype)), y)
    assert abs(SoftmaxRegression().fit(form(small.astype(dtype)), y).coef_[0, 1]) < smallest
    small[:, 1] = 0
    assert model.fit(form(small.astype(dtype)), y).coef_[0, 1] == pytest.approx(0, abs=1e-15)


def test_progress(capsys):
    """verbose=True shows a progress bar on standard error."""
    X, y = problem(2)
    SoftmaxRegression(verbose=True).fit(X, y)
    assert "objective" in capsys.readouterr().err


LARGE = 2**60  # LARGE and LARGE + 1 are one float
LABELS = {
    "Int64": pd.Series([LARGE, LARGE + 1], dtype="Int64"),
    "UInt8": pd.Series([3, 1], dtype="UInt8"),
    "boolean": pd.Series([True, False], dtype="boolean"),
    "string": pd.Series(["a", "b"], dtype="string"),
    "Python integers": np.array([LARGE, LARGE + 1], object),
    "unsigned": np.array([2**64 - 1, 2**64 - 2], np.uint64),
    "text": np.array(["01", "1"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_keep_their_type_and_value(name):
    """Nullable types, large integers and text come back as they were passed."""
    given = LABELS[name]
    X = np.arange(20.0)[:, None]
    y = pd.concat([given] * 10) if isinstance(given, pd.Series) else np.tile(given, 10)
    model = SoftmaxRegression().fit(X, y)
    assert model.classes_.tolist() == sorted(given.tolist())
    assert model.classes_.dtype.kind in ("OU" if name in ("string", "text") else "iub")
    assert set(model.predict(X).tolist()) <= set(given.tolist())


MISSING = {
    "None": ["a", None, "b"],
    "None among integers": [0, None, 1],
    "nan": [0.0, np.nan, 1.0],
    "nan among text": np.array(["a", np.nan, "b"], object),
    "pandas": np.array([0, pd.NA, 1], object),
    "Int64": pd.Series([0, None, 1], dtype="Int64"),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "string": pd.Series(["a", None, "b"], dtype="string"),
    "Categorical": pd.Series(pd.Categorical(["a", None, "b"])),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_labels(name):
    """One error names the row, for every kind of missing value, of labels and of classes."""
    y, X, z = MISSING[name], np.arange(3.0)[:, None], np.zeros((3, 2))
    message = "y must have no missing values, got .* in row 1"
    for function, rows in (
        (SoftmaxRegression().fit, X),
        (logitlab.TemperatureScaling().fit, z),
        (logitlab.accuracy, z),
        (logitlab.cross_entropy, z),
    ):
        with pytest.raises(ValueError, match=message):
            function(rows, y)


def test_labels_that_are_refused():
    """A masked array, labels of two types, and floats that merge integers."""
    X = np.arange(3.0)[:, None]
    with pytest.raises(TypeError, match="y must not be a masked array"):
        SoftmaxRegression().fit(X, np.ma.array([0, 1, 0], mask=[0, 0, 1]))
    with pytest.raises(TypeError, match="y must hold labels of one type, got int and str"):
        SoftmaxRegression().fit(X, np.array([0, "a", 1], object))
    with pytest.raises(ValueError, match=r"y must hold labels below 2\*\*53 if they are floats"):
        SoftmaxRegression().fit(X, [2.0**60, 1.0, 0.0])
    for function in (logitlab.accuracy, logitlab.TemperatureScaling().fit):
        with pytest.raises(ValueError, match=r"z must have shape \(2, K\), one row of logits for"):
            function([0.1, 0.9], [0, 1])


FORMS = [np.ascontiguousarray, np.asfortranarray, sp.csr_array]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weighted", [True, False])
def test_totals_and_margins_are_sums_over_the_blocks(form, weighted, monkeypatch):
    """A row of weight 0 counts in no sum, nor in the margins."""
    monkeypatch.setattr("logitlab.regression.rows._BLOCK_ROWS", 64)
    X, y = problem(3, n=200, d=4)
    X[np.abs(X) < 0.5] = 0
    w = np.random.default_rng(1).integers(0, 5, 200) + 0.5 * (np.arange(200) == 150)
    w[0] = 0
    w = w if weighted else None
    given = np.ones(200) if w is None else w
    rows = Rows(form(X), y, w, 3)
    n, total, least, sums, sizes = rows.totals()
    assert (n, total, least) == (200, given.sum(), given[given > 0].min())
    np.testing.assert_allclose(sums, given @ X, rtol=1e-12)
    np.testing.assert_allclose(sizes, given @ np.abs(X), rtol=1e-12)
    rng = np.random.default_rng(2)
    coef, intercept = rng.standard_normal((3, 4)), rng.standard_normal(3)
    z = X @ coef.T + intercept
    margins = (z[np.arange(200), y][:, None] - z)[given > 0]
    margins = margins[np.arange(3) != y[given > 0][:, None]]
    assert rows.margins(coef, intercept) == pytest.approx((margins.min(), margins.max()))


def test_margins_of_no_rows():
    rows = Rows(np.zeros((0, 2)), np.zeros(0, np.int64), None, 3)
    assert rows.margins(np.zeros((3, 2)), np.zeros(3)) == (math.inf, -math.inf)
    assert rows.totals()[:3] == (0, 0.0, math.inf)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, math.inf])
def test_objective_is_its_formula(intercept, C):
    """The mean weighted loss of centred features plus the penalty, and its derivatives."""
    X, y = problem(3, n=50, d=2)
    X += 3
    w = np.random.default_rng(1).random(50)
    objective = Objective(Rows(X, y, w, 3), 3, C, intercept)
    mean = np.average(X, axis=0, weights=w) if intercept else np.zeros(2)
    np.testing.assert_allclose(objective.mean, mean, rtol=1e-14)
    assert objective.alpha == pytest.approx(1 / (C * w.sum()))

    def value(theta):
        W, c = theta[:, :2], theta[:, 2] if intercept else np.zeros(3)
        z = (X - mean) @ W.T + c
        losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(50), y]
        return (w @ losses) / w.sum() + np.sum(W**2) / (2 * C * w.sum())

    theta = np.random.default_rng(2).standard_normal((3, 3 if intercept else 2))
    theta -= theta.mean(axis=0)  # as of every iterate
    directions = np.eye(theta.size).reshape(-1, *theta.shape)
    gradients = [
        [np.imag(value(base + 1e-30j * step)) / 1e-30 for step in directions]
        for base in (theta, *(theta + h * d for d in directions for h in (1e-5, -1e-5)))
    ]
    hessian = (np.array(gradients[1::2]) - np.array(gradients[2::2])) / 2e-5
    cost, gradient = objective.value_and_gradient(theta)
    assert cost == pytest.approx(value(theta), rel=1e-13)
    np.testing.assert_allclose(gradient.ravel(), gradients[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(objective.hessian(theta), hessian, rtol=0, atol=1e-8)
    step = objective.inverse_hessian(theta)(gradient)
    np.testing.assert_allclose(
        objective.hessian(theta) @ step.ravel(), gradient.ravel(), rtol=0, atol=1e-9
    )
    coef, b = objective.from_centred(theta)
    np.testing.assert_allclose(coef, theta[:, :2])
    c = theta[:, 2] if intercept else np.zeros(3)
    np.testing.assert_allclose(X @ coef.T + b, (X - mean) @ coef.T + c, atol=1e-12)
    np.testing.assert_allclose(objective.to_centred(coef, b), theta, atol=1e-14)
    expected = (np.abs(theta[:, :2]) @ np.abs(mean)).max()
    assert objective.cancellation(theta) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
def test_inverse_hessian_of_variances(intercept, monkeypatch):
    """Of many features that of the diagonal; without penalty the largest variance for all."""
    monkeypatch.setattr("logitlab.regression.objective.MAX_COVARIANCE_FEATURES", 4)
    X, y = problem(3, n=50)
    X = X * [1, 2, 3, 4, 0] + 1
    w = np.random.default_rng(1).random(50)
    size = 6 if intercept else 5
    gradient = np.random.default_rng(2).standard_normal((3, size))
    centre = np.average(X, axis=0, weights=w) if intercept else 0
    variance = np.average((X - centre) ** 2, axis=0, weights=w)
    for C in (0.1, math.inf):
        objective = Objective(Rows(X, y, w, 3), 3, C, intercept)
        np.testing.assert_allclose(objective.variances(), variance, rtol=1e-12, atol=1e-30)
        curvature = variance / 3 + 1 / (C * w.sum())
        curvature = curvature if math.inf > C else curvature.max()
        expected = np.hstack([gradient[:, :5] / curvature, gradient[:, 5:] * 3])
        step = objective.initial_inverse_hessian()(gradient)
        np.testing.assert_allclose(step, expected, rtol=1e-12)


def test_covariance_of_the_features():
    """A matrix of up to 1024 features, variances of more; weighted, and 0 for constant features."""
    X, y = problem(3, n=50)
    X[:, 2] = 0.1
    w = np.random.default_rng(1).random(50)
    covariance = Objective(Rows(X, y, w, 3), 3, 1.0, True).covariance
    np.testing.assert_allclose(covariance, np.cov(X.T, aweights=w, ddof=0), atol=1e-15)
    assert (covariance[2] == 0).all()
    assert (covariance[:, 2] == 0).all()
    for features in (1024, 1025):
        wide = np.random.default_rng(0).standard_normal((4, features))
        objective = Objective(Rows(wide, y[:4], None, 3), 3, 1.0, True)
        assert objective.covariance.ndim == (2 if features == 1024 else 1)
        np.testing.assert_allclose(objective.variances(), wide.var(axis=0), rtol=1e-10)


def test_value_below_which_the_classes_are_separated():
    """The loss of probability 1/2 in the row of the least weight above 0; never with a penalty."""
    X, y = problem(2, n=4)
    w = np.array([3.0, 0.5, 0.0, 1.0])
    free = Objective(Rows(X, y, w, 2), 2, math.inf, True)
    bound = 0.5 * math.log(2) / 4.5
    assert free.separation_bound == pytest.approx(bound)
    assert free.is_separated(0.99 * bound)
    assert not free.is_separated(free.separation_bound)
    assert not Objective(Rows(X, y, w, 2), 2, 1.0, True).is_separated(0.99 * bound)


def dense_sums(X, y, w, coef, intercept, centre):
    """The sums that an engine returns, by their formulas."""
    k = len(coef)
    z = X @ coef.T + intercept
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    by_z = w[:, None] * (p - np.eye(k)[y])
    centred = X - centre
    design = np.hstack([centred, np.ones((len(X), 1))])
    J = np.einsum("ij,nj->nij", np.eye(k), p) - p[:, :, None] * p[:, None, :]
    size = k * design.shape[1]
    return {
        "loss": -(w @ np.log(p[np.arange(len(X)), y])),
        "by_coef": by_z.T @ X,
        "by_intercept": by_z.sum(axis=0),
        "hessian": np.einsum("n,nkl,nd,ne->kdle", w, J, design, design).reshape(size, size),
        "sums": w @ centred,
        "products": (centred.T * w) @ centred,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [2, 3])
def test_sums_over_many_blocks(form, weighted, dtype, k, monkeypatch):
    """Of 64 rows, those of the Hessian of fewer; columns of every density."""
    monkeypatch.setattr("logitlab.regression.rows._BLOCK_ROWS", 64)
    monkeypatch.setattr("logitlab.regression.rows._BLOCK_SIZE", 300)
    rng = np.random.default_rng(k)
    density = [0.1, 0.45, 0.55, 0.9, 1.0, 0.0]
    means = np.array([1, 2, -3, 4, 5, 9])
    X = (rng.random((230, 6)) < density) * (rng.standard_normal((230, 6)) + means)
    X[70:140, 3] = 0  # in one block without entries, in another one with all
    X = X.astype(dtype)
    y, w = rng.integers(0, k, 230), rng.uniform(0.005, 0.02, 230) if weighted else None
    coef, intercept = 0.3 * rng.standard_normal((k, 6)), rng.standard_normal(k)
    rows = Rows(form(X), y, w, k)
    given = np.ones(230) if w is None else w
    X = X.astype(float)
    rtol = 1e-11 if dtype == np.float64 else 2e-4
    for centre in (np.average(X, axis=0, weights=w), np.zeros(6)):
        expected = dense_sums(X, y, given, coef, intercept, centre)
        size = np.sqrt(np.diagonal(expected["products"]))
        loss, by_coef, by_intercept = rows.loss_and_gradient(coef, intercept)
        assert isinstance(loss, float)
        assert loss == pytest.approx(expected["loss"], rel=rtol)
        scale = np.abs(expected["by_coef"]).max()
        np.testing.assert_allclose(by_coef, expected["by_coef"], rtol=0, atol=rtol * scale)
        np.testing.assert_allclose(
            by_intercept, expected["by_intercept"], rtol=0, atol=rtol * scale
        )
        hessian = rows.hessian(coef, intercept, centre)
        scale = np.abs(expected["hessian"]).max()
        np.testing.assert_allclose(hessian, expected["hessian"], rtol=0, atol=rtol * scale)
        for full in (True, False):
            sums, products = rows.scatter(centre, full)
            np.testing.assert_allclose(
                sums, expected["sums"], rtol=0, atol=1e-4 if rtol > 1e-5 else 1e-9
            )
            exact = expected["products"] if full else np.diagonal(expected["products"])
            outer = np.outer(size, size) + 1e-300 if full else size**2 + 1e-300
            assert (np.abs(products - exact) <= rtol * outer).all()


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_not_changed(form):
    """No sum writes to the rows, the labels or the weights."""
    X, y = problem(3, n=100)
    X[np.abs(X) < 0.5] = 0
    w = np.random.default_rng(0).random(100)
    given = form(X)
    before = given.copy()
    rows = Rows(given, y, w, 3)
    coef, intercept = np.ones((3, 5)), np.zeros(3)
    rows.totals(), rows.scatter(X.mean(axis=0), True), rows.scatter(X.mean(axis=0), False)
    rows.loss_and_gradient(coef, intercept), rows.hessian(coef, intercept, X.mean(axis=0))
    rows.margins(coef, intercept)
    assert abs(given - before).max() == 0
    assert (coef == 1).all()
    assert (w == np.random.default_rng(0).random(100)).all()


def test_rows_of_no_features():
    """The intercepts alone."""
    X, y, w = np.zeros((6, 0)), np.array([0, 1, 2, 2, 1, 2]), np.arange(1.0, 7)
    for x in (X, sp.csr_array(X)):
        objective = Objective(Rows(x, y, w, 3), 3, 1.0, True)
        value, gradient = objective.value_and_gradient(np.zeros((3, 1)))
        assert value == pytest.approx(math.log(3), rel=1e-14)
        shares = np.array([1, 2 + 5, 3 + 4 + 6]) / 21
        np.testing.assert_allclose(gradient[:, 0], 1 / 3 - shares, rtol=0, atol=1e-15)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("C", [0.05, math.inf])
def test_initial_inverse_hessian(intercept, full, C, monkeypatch):
    """The inverse of the covariance over K plus the penalty, and of 1/K for the intercepts."""
    if not full:
        monkeypatch.setattr("logitlab.regression.objective.MAX_COVARIANCE_FEATURES", 2)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 3)) + 2
    y, w = rng.integers(0, 4, 60), rng.random(60)
    objective = Objective(Rows(X, y, w, 4), 4, C, intercept)
    alpha = 1 / (C * w.sum())
    assert objective.alpha == pytest.approx(alpha, rel=1e-14)
    centred = X - (np.average(X, axis=0, weights=w) if intercept else 0)
    covariance = (centred.T * w) @ centred / w.sum()
    if full:
        np.testing.assert_allclose(objective.covariance, covariance, rtol=1e-12)
        inverse = np.linalg.inv(covariance / 4 + alpha * np.eye(3))
    else:
        diagonal = np.diagonal(covariance) / 4 + alpha
        inverse = np.diag(1 / (diagonal if alpha else np.full(3, diagonal.max())))
    gradient = rng.standard_normal((4, 4 if intercept else 3))
    before = gradient.copy()
    step = objective.initial_inverse_hessian()(gradient)
    expected = np.hstack([gradient[:, :3] @ inverse, 4 * gradient[:, 3:]])
    np.testing.assert_allclose(step, expected, rtol=1e-10)
    assert (gradient == before).all()


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("C", [0.05, math.inf])
def test_inverse_hessian_is_the_pseudo_inverse(intercept, C):
    """Of the Hessian at theta, for gradients whose rows sum to 0; constant columns do not move."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 3)) + 2
    X[:, 1] = 1.0 if intercept else 0.0
    X[0, 1] *= 1 + 4 * np.finfo(float).eps  # constant up to rounding
    y, w = rng.integers(0, 3, 60), rng.random(60)
    objective = Objective(Rows(X, y, w, 3), 3, C, intercept)
    theta = 0.2 * rng.standard_normal((3, 4 if intercept else 3))
    theta -= theta.mean(axis=0)
    gradient = rng.standard_normal(theta.shape)
    gradient -= gradient.mean(axis=0)
    free = math.isinf(C)
    projected = gradient.copy()
    if free:
        projected[:, 1] = 0
    expected = np.linalg.pinv(objective.hessian(theta), rcond=1e-12) @ projected.ravel()
    step = objective.inverse_hessian(theta)(gradient)
    assert step.shape == theta.shape
    step = step - step.mean(axis=0) if free else step
    np.testing.assert_allclose(step, expected.reshape(theta.shape), rtol=0, atol=1e-9)


def test_variance_that_is_rounding():
    """Below (8 eps mean)^2 a feature is constant; above it is not."""
    eps = np.finfo(float).eps
    for sign in (1, -1):
        for units, constant in ((4, True), (20, False)):
            X = np.full((2, 2), 1.0)
            X[:, 1] = [1.0, 2.0]
            X[1, 0] += units * eps  # the standard deviation is half of it
            objective = Objective(Rows(sign * X, np.array([0, 1]), None, 2), 2, 1.0, True)
            assert (objective.variances()[0] == 0) == constant
            assert (objective.covariance[0] == 0).all() == constant
            assert (objective.covariance[:, 0] == 0).all() == constant
            assert objective.variances()[1] == pytest.approx(0.25)
    objective = Objective(Rows(X * [0, 1], np.array([0, 1]), None, 2), 2, 1.0, False)
    assert objective.zero_columns.tolist() == [True, False]
    assert objective.variances().tolist() == [0, 2.5]
    assert objective.rows == 2
    assert objective.features == 2


def test_rounding_error_of_the_mean_is_corrected():
    """The second pass finds the rest of the mean: of float32 sums, and of large numbers."""
    X = np.array([[1e8 + 1], [1e8 + 2], [1e8 + 6]])
    y, w = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])
    objective = Objective(Rows(X, y, w, 2), 2, 1.0, True)
    mean = sum(Fraction(a) * Fraction(b) for a, b in zip(X[:, 0], w, strict=True)) / sum(
        map(Fraction, w)
    )
    variance = sum(Fraction(b) * (Fraction(a) - mean) ** 2 for a, b in zip(X[:, 0], w, strict=True))
    variance /= sum(map(Fraction, w))
    assert objective.mean[0] == pytest.approx(float(mean), rel=2e-16)
    assert objective.covariance[0, 0] == pytest.approx(float(variance), rel=1e-12)


def test_cost_of_a_hessian():
    """Measured in gradient evaluations: 10 + size / 10 + size^2 / (3 rows)."""
    X, y = problem(3, n=50)
    objective = Objective(Rows(X, y, None, 3), 3, 1.0, True)
    assert objective.hessian_cost(18) == pytest.approx(10 + 1.8 + 18**2 / 150)


@pytest.mark.parametrize("form", FORMS)
def test_margins_of_one_sign(form):
    """The label's own logit, and rows of weight 0, are in no margin."""
    X, y = np.array([[1.0], [2.0], [-3.0], [4.0]]), np.array([1, 1, 0, 1])
    coef, intercept = np.array([[0.0], [2.0]]), np.zeros(2)
    for sign, expected in ((1, (2.0, 8.0)), (-1, (-8.0, -2.0))):
        rows = Rows(form(X), y, None, 2)
        assert rows.margins(sign * coef, intercept) == expected
        rows = Rows(form(X), y, np.array([0.0, 1.0, 2.0, 0.0]), 2)
        inner = (4.0, 6.0) if sign == 1 else (-6.0, -4.0)
        assert rows.margins(sign * coef, intercept) == inner


def test_initial_inverse_hessian_of_constant_features(monkeypatch):
    """Without penalty, constant features do not move."""
    monkeypatch.setattr("logitlab.regression.objective.MAX_COVARIANCE_FEATURES", 2)
    rows = Rows(np.full((4, 3), 2.0), np.array([0, 1, 0, 1]), None, 2)
    step = Objective(rows, 2, math.inf, True).initial_inverse_hessian()(np.ones((2, 4)))
    np.testing.assert_array_equal(step, [[0, 0, 0, 2], [0, 0, 0, 2]])
