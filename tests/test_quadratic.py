"""Coordinate descent on the models of the loss: kernels and references, and the minimum itself."""

import numpy as np
import pytest

import logitlab
from logitlab._backends import native
from logitlab.regression.quadratic import (
    QuadraticModel,
    coordinate_descent,
    coordinate_descent_in_python,
    minimize_quadratic,
)
from logitlab.regression.structured import (
    QuasiNewton,
    StructuredModel,
    structured_descent,
    structured_descent_in_python,
)


def example(group_size, rank, seed=0, groups=8, free=3):
    """Return a model, a start and the gradient there; two features are constant."""
    rng = np.random.default_rng(seed)
    n = groups * group_size + free
    root = rng.standard_normal((rank, n)) * np.exp(rng.standard_normal(n))
    root[:, group_size : 2 * group_size] = 0
    x = rng.standard_normal(n)
    x[: 3 * group_size] = 0
    gradient = root.T @ rng.standard_normal(rank)
    hessian = root.T @ root
    return QuadraticModel(hessian, groups, group_size, 1.0), x, hessian @ x + gradient


def eigenvalues(model):
    values, vectors = np.linalg.eigh(model.blocks())
    return np.maximum(values, 0), None if model.group_size == 1 else vectors


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
@pytest.mark.parametrize("rank", [10, 60])
@pytest.mark.parametrize("group_size", [1, 2, 5])
@pytest.mark.parametrize(("tol", "sweeps"), [(0.0, 1), (1e-2, 50), (0.0, 20)])
def test_kernel_is_the_reference(group_size, rank, tol, sweeps):
    model, x, gradient = example(group_size, rank)
    values, vectors = eigenvalues(model)
    results = []
    for function in (coordinate_descent, coordinate_descent_in_python):
        state = x.copy(), gradient.copy()
        largest = function(model, *state, values, vectors, tol, sweeps)
        results.append((*state, largest))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(results[0][0] == 0, results[1][0] == 0)
    moved = gradient + model.hessian @ (results[0][0] - x)
    np.testing.assert_allclose(results[0][1], moved, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("rank", [10, 60])
@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_minimum(group_size, rank, kernels, monkeypatch):
    """The gradient is in the subdifferential, where the Hessian is singular too."""
    if not kernels:
        monkeypatch.setattr(native, "_native", None)
    model, start, gradient = example(group_size, rank)
    before = start.copy(), gradient.copy()
    x = start
    for _ in range(6):  # each to a fraction of the first error
        x = minimize_quadratic(model, x, gradient + model.hessian @ (x - start), 0.0)
    np.testing.assert_array_equal(before, (start, gradient))
    gradient = gradient + model.hessian @ (x - start)
    n = model.groups * group_size
    assert abs(gradient[n:]).max() < 1e-7
    norms = model.norms(x)
    grouped, slopes = x[:n].reshape(-1, group_size), gradient[:n].reshape(-1, group_size)
    zero = norms == 0
    assert zero.any()
    assert not zero.all()
    assert (np.linalg.norm(slopes[zero], axis=1) <= model.l1 * (1 + 1e-8)).all()
    expected = -model.l1 * grouped[~zero] / norms[~zero, None]
    np.testing.assert_allclose(slopes[~zero], expected, rtol=0, atol=1e-6)


def structured(rows, grouped, diagonal, intercept=True, d=6, rank=3, seed=0):
    """Return a model, a start and the gradient there; one feature is constant."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d)) * np.exp(rng.standard_normal(d))
    root[:, 1] = 0
    covariance = root.T @ root
    shape = rows, d + intercept
    factors = rng.standard_normal((*shape, rank)) * 0.3
    factors[:, 1] = 0
    signs = np.array([1.0, 1.0, -0.01])[:rank]
    covariance = np.diagonal(covariance).copy() if diagonal else covariance
    model = StructuredModel(
        rng.random(rows) + 0.5, covariance, factors, signs, 9.0 if grouped else 2.0, 0.1, grouped
    )
    x = rng.standard_normal(shape) * (rng.random(shape[1]) < 0.6)
    return model, x, rng.standard_normal(shape) * 4


def matrix(model, shape):
    """Return B."""
    d, size = len(model.covariance), int(np.prod(shape))
    scatter = np.zeros((shape[1], shape[1]))
    diagonal = model.covariance.ndim == 1
    scatter[:d, :d] = np.diag(model.covariance) if diagonal else model.covariance
    scatter[d:, d:] = 1
    u = model.factors.reshape(size, -1)
    return np.kron(np.diag(model.a), scatter) + (u * model.signs) @ u.T


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize(("rows", "grouped"), [(1, False), (4, False), (4, True)])
def test_structured_descent(rows, grouped, diagonal, intercept):
    """Kernel and reference agree, and after a few rounds x is the minimum."""
    model, start, gradient = structured(rows, grouped, diagonal, intercept)
    x, b, hessian = start.copy(), gradient, matrix(model, start.shape)
    for _ in range(30):
        reference = x.copy()
        structured_descent_in_python(model, reference, b)
        structured_descent(model, x, b)
        np.testing.assert_allclose(x, reference, rtol=1e-8, atol=1e-9)
        np.testing.assert_array_equal(x == 0, reference == 0)
        b = gradient + (hessian @ (x - start).ravel()).reshape(x.shape)
    d = len(model.covariance)
    slope = b[:, :d] + model.l2 * x[:, :d]
    size = np.linalg.norm(x[:, :d], axis=0, keepdims=True) if grouped else abs(x[:, :d])
    steep = np.linalg.norm(slope, axis=0, keepdims=True) if grouped else abs(slope)
    zero = (size == 0) & (np.arange(d) != 1)
    assert zero.any()
    assert (steep[zero] <= model.l1).all()
    unit = np.divide(x[:, :d], size, out=np.zeros((rows, d)), where=size > 0)
    moved = np.broadcast_to(size > 0, slope.shape) & (np.arange(d) != 1)
    np.testing.assert_allclose(slope[moved], -model.l1 * unit[moved], rtol=0, atol=1e-5)
    assert abs(b[:, d:]).max(initial=0) < 1e-5


@pytest.mark.parametrize("diagonal", [True, False])
def test_quasi_newton_matrix(diagonal):
    """It is that of the BFGS formula, and maps each of the last steps to its gradient change."""
    rng = np.random.default_rng(0)
    d, k = 4, 3
    root = rng.standard_normal((9, d))
    covariance = root.T @ root
    covariance = np.diagonal(covariance).copy() if diagonal else covariance
    quasi_newton = QuasiNewton(covariance, rng.random(k) + 0.5)
    shape = k, d + 1
    true = rng.standard_normal((40, k * (d + 1)))
    true = true.T @ true
    pairs = []
    for _ in range(3):
        step = rng.standard_normal(shape)
        change = (true @ step.ravel()).reshape(shape)
        quasi_newton.update(step, change, 1.0)
        pairs.append((step.ravel(), change.ravel()))
    quasi_newton.update(step, -change, 1.0)  # no curvature: ignored
    found = matrix(quasi_newton.model(shape, 1.0, 0.0, False), shape)
    s, y = pairs[-1]
    initial = matrix(QuasiNewton(covariance, quasi_newton.spread).model(shape, 1, 0, False), shape)
    expected = initial * (s @ y) / (s @ initial @ s)
    for s, y in pairs:
        image = expected @ s
        expected = expected - np.outer(image, image) / (s @ image) + np.outer(y, y) / (s @ y)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * abs(expected).max())
    assert quasi_newton.reset()
    assert not quasi_newton.reset()
