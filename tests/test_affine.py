"""Vector and matrix scaling: the minimum, its limits, refused rows, real predictions."""

import re

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import logitlab
from logitlab.calibration.objectives import (
    MatrixObjective,
    MatrixRows,
    VectorObjective,
    VectorRows,
)
from logitlab.regression.solver import hessian_cost

BOTH = [logitlab.VectorScaling, logitlab.MatrixScaling]


def skewed(n=1500, k=4, seed=0):
    """Labels whose distribution no single temperature describes."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 3
    true_logits = z * np.linspace(0.3, 0.8, k) + np.linspace(-1, 1, k)
    return z, (true_logits + rng.gumbel(size=z.shape)).argmax(axis=1)


def objective(scaling, z, y):
    """Mean log-loss plus the ridge, from the fitted attributes."""
    t = logitlab.TemperatureScaling().fit(z, y).temperature_
    t = t if 0 < t < np.inf else 1
    loss = logitlab.cross_entropy(scaling.transform(z), y)
    if isinstance(scaling, logitlab.VectorScaling):
        penalty = np.sum((t * scaling.scale_ - 1) ** 2) + np.sum(scaling.bias_**2)
        return loss + scaling.ridge * penalty
    off = t * scaling.weight_ * (1 - np.eye(len(scaling.bias_)))
    return loss + scaling.off_diagonal * np.sum(off**2) + scaling.bias * np.sum(scaling.bias_**2)


@pytest.mark.parametrize("kind", BOTH)
def test_minimum(kind):
    """No small step from the fitted parameters lowers the objective."""
    z, y = skewed()
    scaling = kind().fit(z, y)
    best = objective(scaling, z, y)
    rng = np.random.default_rng(0)
    names = ["bias_", "scale_" if kind is logitlab.VectorScaling else "weight_"]
    for _ in range(20):
        other = kind().fit(z, y)
        for name in names:
            value = getattr(other, name)
            setattr(other, name, value + 0.01 * rng.standard_normal(value.shape))
        assert objective(other, z, y) > best


def test_matrix_scaling_is_logistic_regression():
    """Without a ridge it is scikit-learn's logistic regression on the logits."""
    z, y = skewed()
    ours = logitlab.MatrixScaling(off_diagonal=0, bias=0).fit(z, y)
    centred = z - z.mean(axis=1, keepdims=True)
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2000).fit(centred, y)
    np.testing.assert_allclose(
        ours.predict_proba(z), theirs.predict_proba(centred), rtol=0, atol=1e-4
    )


def few_rows(seed, n, k, labels):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 3
    return z, rng.integers(0, labels, n), rng.integers(1, 4, n)


@pytest.mark.parametrize("kind", [logitlab.TemperatureScaling, *BOTH])
@pytest.mark.parametrize("shape", [(15, 30, 3), (8, 3, 3), (40, 10, 10)])
@pytest.mark.parametrize("seed", [0, 1])
def test_fit_depends_on_the_weighted_rows_alone(kind, shape, seed):
    """Repeated rows, other orders of rows and classes and other units of weights change nothing."""
    z, y, weight = few_rows(seed, *shape)
    p = kind().fit(z, y, weight).predict_proba(z)
    rng = np.random.default_rng(2)
    rows, classes = rng.permutation(len(y)), rng.permutation(z.shape[1])
    others = [
        kind().fit(np.repeat(z, weight, axis=0), np.repeat(y, weight)).predict_proba(z),
        kind().fit(z[rows], y[rows], weight[rows]).predict_proba(z),
        kind().fit(z, y, weight / 1000).predict_proba(z),
        kind()
        .fit(z[:, classes], np.argsort(classes)[y], weight)
        .predict_proba(z[:, classes])[:, np.argsort(classes)],
    ]
    for other in others:
        np.testing.assert_allclose(other, p, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", BOTH)
def test_minimum_is_that_of_scipy(kind):
    """Probabilities at the minimum of the documented objective, by SciPy's trust-exact."""
    z, y, weight = few_rows(4, 60, 4, 4)
    scaling = kind().fit(z, y, weight)
    k, w = z.shape[1], weight / weight.sum()
    t = logitlab.TemperatureScaling().fit(z, y, weight).temperature_
    x = (z - z.mean(axis=1, keepdims=True)) / t
    vector = kind is logitlab.VectorScaling
    features = [np.diag(row) if vector else np.kron(np.eye(k), row) for row in x]
    maps = np.stack([np.hstack([f, np.eye(k)]) for f in features])  # logits by parameters
    start = np.concatenate([np.ones(k) if vector else np.eye(k).ravel(), np.zeros(k)])
    ridge = np.concatenate([np.full(k, 1e-3)] * 2)
    if not vector:
        ridge = 1e-2 * np.concatenate([1 - np.eye(k).ravel(), np.ones(k)])

    def value(v):
        losses = logitlab.cross_entropy(maps @ v, y, reduction="none")
        return w @ losses + ridge @ (v - start) ** 2

    def gradient(v):
        residual = (logitlab.softmax(maps @ v) - np.eye(k)[y]) * w[:, None]
        return np.einsum("nk,nkp->p", residual, maps) + 2 * ridge * (v - start)

    def hessian(v):
        curvature = logitlab.jacobian(maps @ v) * w[:, None, None]
        return np.einsum("nkp,nkl,nlq->pq", maps, curvature, maps) + np.diag(2 * ridge)

    best = scipy.optimize.minimize(
        value, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-10}
    )
    expected = logitlab.softmax(maps @ best.x)
    np.testing.assert_allclose(scaling.predict_proba(z), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", BOTH)
def test_large_ridge(kind):
    """It leaves temperature scaling (of a matrix: the diagonal)."""
    z, y = skewed()
    if kind is logitlab.VectorScaling:
        p = kind(ridge=1e6).fit(z, y).predict_proba(z)
        expected = logitlab.TemperatureScaling().fit(z, y).predict_proba(z)
        np.testing.assert_allclose(p, expected, atol=1e-5)
    else:
        scaling = kind(off_diagonal=1e6, bias=1e6).fit(z, y)
        assert np.abs(scaling.weight_ - np.diag(np.diag(scaling.weight_))).max() < 1e-5
        assert np.abs(scaling.bias_).max() < 1e-5


@pytest.mark.parametrize("kind", BOTH)
def test_conventions(kind):
    """Weights, clones, array types, shifts of rows."""
    z, y = skewed(300)
    w = np.random.default_rng(1).integers(0, 4, len(y))
    repeated = kind().fit(np.repeat(z, w, axis=0), np.repeat(y, w))
    scaling = clone(kind()).fit(z, y, sample_weight=w)
    np.testing.assert_allclose(scaling.transform(z), repeated.transform(z), atol=1e-4)
    shifted = scaling.predict_proba(z + np.arange(300)[:, None])
    np.testing.assert_allclose(shifted, scaling.predict_proba(z), atol=1e-12)
    tensor = scaling.transform(torch.from_numpy(z).float())
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor, scaling.transform(z), atol=1e-4)
    assert scaling.transform(z.astype(np.float16)).dtype == np.float16
    assert list(scaling.classes_) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"z must have shape \(\.\.\., 4\), got \(2, 3\)"):
        scaling.transform(np.zeros((2, 3)))
    name = next(iter(scaling.get_params()))
    with pytest.raises(ValueError, match=f"{name} must be finite and >= 0, got -1.0"):
        scaling.set_params(**{name: -1}).fit(z, y)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("VectorScaling", "ridge"), ("MatrixScaling", "off_diagonal"), ("MatrixScaling", "bias")],
)
def test_ridge_must_be_a_number(kind, name):
    with pytest.raises(TypeError, match=f"{name} must be a real number, got 'a'"):
        getattr(logitlab, kind)(**{name: "a"}).fit(*skewed(10))


def test_excluded_classes():
    """-inf stays -inf in vector scaling; matrix scaling refuses it."""
    z, y = skewed(300)
    wide = np.concatenate([z, np.full((len(z), 1), -np.inf)], axis=1)
    scaling = logitlab.VectorScaling().fit(wide, y)
    plain = logitlab.VectorScaling().fit(z, y)
    np.testing.assert_allclose(
        scaling.predict_proba(wide)[:, :4], plain.predict_proba(z), atol=1e-5
    )
    assert (scaling.predict_proba(wide)[:, 4] == 0).all()
    with pytest.raises(ValueError, match="row 0 of z holds an infinite logit"):
        logitlab.MatrixScaling().fit(wide, y)
    with pytest.raises(ValueError, match="row 0 of z holds \\+inf"):
        logitlab.VectorScaling().fit(np.where(wide == -np.inf, np.inf, wide), [4] * 300)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale(kind, scale):
    """The ridge penalizes numbers without a unit."""
    z, y = skewed(300)
    expected = kind().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(
        kind().fit(z * scale, y).predict_proba(z * scale), expected, atol=1e-5
    )


@pytest.mark.parametrize("kind", BOTH)
def test_separable_logits(kind):
    """Parameters are finite and the predictions correct."""
    z = np.eye(3)[[0, 1, 2] * 5] * 5
    scaling = kind().fit(z, [0, 1, 2] * 5)
    assert np.isfinite(scaling.transform(z)).all()
    assert (scaling.transform(z).argmax(axis=1) == [0, 1, 2] * 5).all()


def test_real_predictions(predictions):
    """Cross-fitted log-losses on 10 and 100 classes."""
    path, p, y = predictions
    z = logitlab.logits(p)
    ten_classes = path.stem.endswith("-10")
    loss = logitlab.cross_entropy(logitlab.cross_fit(logitlab.VectorScaling(), z, y), y)
    assert loss == pytest.approx(0.2406 if ten_classes else 0.9325, abs=1e-3)
    if ten_classes:
        loss = logitlab.cross_entropy(logitlab.cross_fit(logitlab.MatrixScaling(), z, y), y)
        assert loss == pytest.approx(0.2420, abs=1e-3)


@pytest.mark.parametrize("kind", BOTH)
def test_refused_entries(kind):
    """The error names the row, as in the fit, for NumPy arrays and tensors."""
    scaling = kind().fit(*skewed())
    row = np.zeros((2, 4))
    row[1, 2] = np.inf
    for z in (row, torch.from_numpy(row)):
        with pytest.raises(ValueError, match=r"row 1 .*\+inf|row 1 .*infinite"):
            scaling.predict_proba(z)
    row[1, 2] = -np.inf
    if kind is logitlab.MatrixScaling:
        with pytest.raises(ValueError, match=r"row 1 .*infinite"):
            scaling.transform(row)
    else:
        assert scaling.predict_proba(row)[1, 2] == 0


@pytest.mark.parametrize("kind", BOTH)
def test_huge_logits(kind):
    z, y = skewed()
    p = kind().fit(z, y).predict_proba(z)
    unit = 2.0**1019
    np.testing.assert_allclose(kind().fit(z * unit, y).predict_proba(z * unit), p, atol=1e-6)


@pytest.mark.parametrize("kind", BOTH)
def test_labels_against_the_logits(kind):
    """Where the temperature is infinite, the map reverses the order of the classes."""
    z = skewed(300)[0]
    reversed_labels = (-z).argmax(axis=1)
    assert logitlab.TemperatureScaling().fit(z, reversed_labels).temperature_ == np.inf
    scaling = kind().fit(z, reversed_labels)
    assert logitlab.cross_entropy(scaling.transform(z), reversed_labels) < np.log(4) / 2


@pytest.mark.parametrize("kind", BOTH)
def test_rows_whose_sum_overflows(kind):
    """They are centred all the same."""
    z, y = skewed(300)
    unit = 2.0**1018
    shifted = (z - z.max() + 60) * unit  # at most 0.94 times the largest number
    with np.errstate(over="ignore"):
        assert np.isinf(shifted.sum(axis=1)).all()
    p = kind().fit(shifted, y).predict_proba(shifted)
    expected = kind().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-6)


def make_objective(kind, x, y, weight, *ridges, **diagonal):
    """An objective with its rows."""
    rows = (VectorRows if kind is VectorObjective else MatrixRows)(x, y, weight)
    objective = kind(rows.sums, *x.shape, *ridges, **diagonal)
    objective.rows = rows
    return objective


def numeric_derivatives(objective, theta):
    """Return the value by its formula, the gradient by complex steps, and the Hessian by central
    differences."""
    x, y, weight = objective.rows.x, objective.rows.y, objective.rows.weight

    def value(theta):
        if isinstance(objective, VectorObjective):
            excluded = x == -np.inf
            u = np.where(excluded, 0, x) * theta[0] + theta[1]
        else:
            excluded = np.zeros(x.shape, bool)
            u = x @ theta[:, :-1].T + theta[:, -1]
        exponentials = np.where(excluded, 0, np.exp(u))
        losses = np.log(exponentials.sum(axis=1)) - u[np.arange(len(y)), y]
        deviation = theta - objective.start
        return weight @ losses + np.sum(objective.penalty * deviation**2) / 2

    directions = np.eye(theta.size).reshape(-1, *theta.shape)
    gradients = [
        [np.imag(value(base + 1e-30j * step)) / 1e-30 for step in directions]
        for base in (theta, *(theta + h * d for d in directions for h in (1e-5, -1e-5)))
    ]
    hessian = (np.array(gradients[1::2]) - np.array(gradients[2::2])) / 2e-5
    return value(theta), np.reshape(gradients[0], theta.shape), hessian


def objectives(ridge=0.3, bias=0.2):
    """Objectives of both kinds on the same weighted rows; the first excludes classes 0 and 1."""
    z, y, weight = few_rows(3, 7, 3, 3)
    y[2:4] = 2
    excluding = z.copy()
    excluding[[2, 3], [0, 1]] = -np.inf
    weight = weight / weight.sum()
    return [
        make_objective(VectorObjective, excluding, y, weight, ridge),
        make_objective(MatrixObjective, z, y, weight, ridge, bias),
        make_objective(MatrixObjective, z, y, weight, ridge, bias, diagonal=0.5),
    ]


@pytest.mark.parametrize("block", [1, 6, 1 << 16])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_derivatives_of_the_objective(kind, block, monkeypatch):
    """Value, gradient and inverse Hessian, for any blocks of rows; also of scales below 0."""
    monkeypatch.setattr("logitlab.calibration.objectives._BLOCK", block)
    objective = objectives()[kind]
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(objective.start.shape)
    theta[0, :2] = 0, -0.5
    with np.errstate(all="raise"):
        value, gradient = objective.value_and_gradient(theta)
    expected, expected_gradient, hessian = numeric_derivatives(objective, theta)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-14)
    direction = rng.standard_normal(theta.shape)
    step = objective.inverse_hessian(theta)(direction)
    np.testing.assert_allclose(hessian @ step.ravel(), direction.ravel(), rtol=0, atol=1e-8)


def test_start_and_penalty_of_the_objectives():
    """Deviations from the identity are penalized, of a matrix not those of the diagonal."""
    vector, matrix, structured = objectives(0.3, 0.2)
    np.testing.assert_array_equal(vector.start, [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(vector.penalty, np.full((2, 3), 0.6))
    np.testing.assert_array_equal(matrix.start, np.eye(3, 4))
    expected = [[0, 0.6, 0.6, 0.4], [0.6, 0, 0.6, 0.4], [0.6, 0.6, 0, 0.4]]
    np.testing.assert_array_equal(matrix.penalty, expected)
    np.testing.assert_array_equal(structured.penalty, expected + np.eye(3, 4))


@pytest.mark.parametrize("block", [6, 1 << 16])
def test_first_inverse_hessian_of_vector_scaling(block, monkeypatch):
    """That of the diagonal; 0 where a class is excluded in every row and not penalized."""
    monkeypatch.setattr("logitlab.calibration.objectives._BLOCK", block)
    objective = objectives()[0]
    diagonal = np.diagonal(numeric_derivatives(objective, objective.start)[2]).reshape(2, 3)
    gradient = np.random.default_rng(0).standard_normal((2, 3))
    step = objective.initial_inverse_hessian()(gradient)
    np.testing.assert_allclose(step, gradient / diagonal, rtol=1e-8)
    excluded = np.array([[1.0, 2.0, -np.inf], [0.0, 3.0, -np.inf]])
    free = make_objective(VectorObjective, excluded, np.array([0, 1]), np.array([0.5, 0.5]), 0.0)
    step = free.initial_inverse_hessian()(np.ones((2, 3)))
    assert (step[:, 2] == 0).all()
    assert (step[:, :2] > 0).all()


@pytest.mark.parametrize("block", [6, 1 << 16])
@pytest.mark.parametrize(
    ("off_diagonal", "bias", "diagonal"),
    [(0.3, 0.2, 0), (0.3, 0.2, 0.1), (0.3, 0.2, 0.7), (1e-3, 0, 0), (0, 0, 0)],
)
def test_first_inverse_hessian_of_matrix_scaling(off_diagonal, bias, diagonal, block, monkeypatch):
    """The (pseudo-)inverse of the matrix in its docstring, of linearly dependent logits."""
    monkeypatch.setattr("logitlab.calibration.objectives._BLOCK", block)
    z, y, weight = few_rows(3, 7, 4, 4)
    x, w = z - z.mean(axis=1, keepdims=True), weight / weight.sum()
    objective = make_objective(MatrixObjective, x, y, w, off_diagonal, bias, diagonal)
    gradient = np.random.default_rng(0).standard_normal((4, 5))
    gradient[:, :4] -= gradient[:, :4].mean(axis=1, keepdims=True)  # as of centred rows
    step = objective.initial_inverse_hessian()(gradient)
    p = logitlab.softmax(x)
    spread, moments = w @ (p * (1 - p)), (x.T * w) @ x
    for i in range(4):
        penalty = np.where(np.arange(4) == i, 2 * diagonal, 2 * off_diagonal)
        inverse = np.linalg.pinv(spread[i] * moments + np.diag(penalty), rcond=1e-12)
        np.testing.assert_allclose(step[i, :4], inverse @ gradient[i, :4], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(step[:, 4], gradient[:, 4] / (spread + 2 * bias), rtol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1e30])
def test_first_inverse_hessian_is_positive(ridge):
    """Also where the probabilities of a class are 0, and where the penalty outweighs the loss."""
    x = np.array([[3.0, 1.0, -1e4], [1.0, 2.0, -1e4], [0.0, 4.0, -1e4]])
    objective = make_objective(
        MatrixObjective, x, np.array([0, 1, 1]), np.full(3, 1 / 3), ridge, ridge
    )
    apply = objective.initial_inverse_hessian()
    for direction in np.eye(12).reshape(12, 3, 4):
        step = apply(direction)
        assert np.isfinite(step).all()
        assert np.vdot(step, direction) > 0


def test_objectives_end_where_the_log_loss_is_below_1e_18():
    for objective in objectives():
        assert objective.is_separated(0.99e-18)
        assert not objective.is_separated(1e-18)
        # The loss is a difference of logits of this size.
        largest = np.abs(np.where(np.isinf(objective.rows.x), 0, objective.rows.x)).max(axis=1)
        assert objective.cancellation(objective.start) == pytest.approx(
            np.average(largest, weights=objective.rows.weight)
        )
        assert objective.hessian_cost(12) == hessian_cost(12, 7)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transform_is_the_affine_map_of_centred_rows(convert, dtype):
    """Rows less the mean of their finite logits; without -inf, and of a row that has only -inf."""
    z, y = skewed(300)
    rows = np.array([[4.0, 0, -1, 1], [0, 0, 0, 0], [6, 5, 4, -np.inf], [-np.inf] * 4], dtype)
    centred = [[3, -1, -2, 0], [0, 0, 0, 0], [1, 0, -1, -np.inf], [-np.inf] * 4]
    vector = logitlab.VectorScaling().fit(z, y)
    vector.scale_ = np.array([0.5, 0.0, -1.0, 0.0])
    vector.bias_ = np.array([1.0, 2.0, 3.0, 4.0])
    with np.errstate(all="raise"):
        result = vector.transform(convert(rows))
    expected = np.where(np.isinf(centred), -np.inf, 0)
    expected[:3] += [[2.5, 2, 5, 4], [1, 2, 3, 4], [1.5, 2, 4, 0]]
    assert result.dtype == convert(rows).dtype
    np.testing.assert_array_equal(result, expected)
    matrix = logitlab.MatrixScaling().fit(z, y)
    matrix.weight_ = np.arange(16.0).reshape(4, 4)
    matrix.bias_ = vector.bias_
    result = matrix.transform(convert(rows[:2]))
    assert result.dtype == convert(rows).dtype
    np.testing.assert_array_equal(result, [[1 - 5, 2 - 5, 3 - 5, 4 - 5], [1, 2, 3, 4]])


def test_default_ridges():
    assert logitlab.VectorScaling().get_params() == {"ridge": 1e-3}
    assert logitlab.MatrixScaling().get_params() == {"off_diagonal": 1e-2, "bias": 1e-2}


@pytest.mark.parametrize("kind", BOTH)
def test_minimum_where_the_temperature_is_a_limit(kind):
    """T in the objective is 1 where every label, or no label, has the largest logit."""
    z = skewed(300)[0] / 10
    for labels in (z.argmax(axis=1), z.argmin(axis=1)):
        scaling = kind().fit(z, labels)
        assert logitlab.TemperatureScaling().fit(z, labels).temperature_ in (0, np.inf)
        best, rng = objective(scaling, z, labels), np.random.default_rng(0)
        for name in ["bias_", "scale_" if kind is logitlab.VectorScaling else "weight_"]:
            value = getattr(scaling, name)
            for step in 1e-3 * rng.standard_normal((20, *value.shape)):
                setattr(scaling, name, value + step)
                assert objective(scaling, z, labels) > best
            setattr(scaling, name, value)


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        ("VectorScaling", np.inf, "holds +inf; logits must be finite or -inf"),
        (
            "MatrixScaling",
            -np.inf,
            "holds an infinite logit; logits must be finite, as each output mixes all classes: "
            "clip them, or the probabilities that they are the logarithms of",
        ),
    ],
)
def test_message_of_a_refused_row(kind, bad, message):
    """The fit and the transform name the first such row."""
    z, y = skewed(300)
    scaling = getattr(logitlab, kind)().fit(z, y)
    z[[7, 9], 1] = bad
    y[7] = 1
    for call in (scaling.transform, lambda z: scaling.fit(z, y)):
        with pytest.raises(ValueError, match=f"^row 7 of z {re.escape(message)}$"):
            call(z)


@pytest.mark.parametrize("name", ["ridge", "off_diagonal", "bias"])
def test_range_of_a_ridge(name):
    """From 0 to any finite number."""
    kind = logitlab.VectorScaling if name == "ridge" else logitlab.MatrixScaling
    for value in (np.inf, np.nan, -1e-300):
        with pytest.raises(ValueError, match=f"^{name} must be finite and >= 0, got {value}$"):
            kind(**{name: value}).fit(*skewed(100))
    for value in (0, 0.5):
        kind(**{name: value}).fit(*skewed(100))


@pytest.mark.parametrize("kind", BOTH)
def test_classes_are_on_the_last_axis(kind):
    """Of any shape; a refused row has its number in the flat order."""
    z, y = skewed(300)
    scaling = kind().fit(z, y)
    cube = z[:24].reshape(2, 3, 4, 4).copy()
    result = scaling.transform(cube)
    assert result.shape == cube.shape
    np.testing.assert_allclose(result.reshape(24, 4), scaling.transform(z[:24]), rtol=1e-12)
    cube[1, 2, 3, 0] = np.inf
    with pytest.raises(ValueError, match=r"^row 23 of z holds "):
        scaling.transform(cube)


def test_gradient_of_many_classes():
    """Where the exact Hessian is too large, the gradient at the fitted matrix is rounding."""
    rng = np.random.default_rng(0)
    k, n = 60, 500
    z = 3 * rng.standard_normal((n, k))
    y = (
        0.6 * z @ (np.eye(k) + 0.04 * rng.standard_normal((k, k))) + rng.gumbel(size=z.shape)
    ).argmax(1)
    scaling = logitlab.MatrixScaling().fit(z, y)
    t = logitlab.TemperatureScaling().fit(z, y).temperature_
    x = (z - z.mean(axis=1, keepdims=True)) / t
    weight = scaling.weight_ * t
    residual = scipy.special.softmax(x @ weight.T + scaling.bias_, axis=1) - np.eye(k)[y]
    gradient = residual.T @ x / n + 2e-2 * weight * (1 - np.eye(k))
    assert abs(gradient).max() < 1e-9
    assert abs(residual.mean(axis=0) + 2e-2 * scaling.bias_).max() < 1e-9
