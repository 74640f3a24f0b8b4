"""The loss of linear logits, by blocks, against the loss of the logits themselves."""

import subprocess
import sys

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import logitlab


def problem(n=300, d=7, k=40, dtype=np.float64):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(dtype) for s in ((n, d), (k, d), (k,)))
    return x, weight, bias, rng.integers(0, k, n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("rows", ["plain", "weights", "temperatures", "one temperature", "ignored"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_loss_and_gradients_match_those_of_the_logits(dtype, reduction, smoothing, rows, with_bias):
    x, weight, bias, y = problem(dtype=dtype)
    rng = np.random.default_rng(1)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    if rows == "weights":
        options["sample_weight"] = rng.uniform(0, 2, len(x))
    elif rows == "temperatures":
        options["temperature"] = rng.uniform(0.5, 2, len(x))
    elif rows == "one temperature":
        options["temperature"] = np.array(1.7)
    elif rows == "ignored":
        options["ignore_index"] = 3
    bias = bias if with_bias else None
    z = x.astype(float) @ weight.T.astype(float) + (0 if bias is None else bias)
    expected, g = logitlab.cross_entropy_and_grad(z, y, **options)
    loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(
        x, weight, y, bias=bias, **options
    )
    eps = np.finfo(dtype).eps
    near = {"rtol": 1e3 * eps, "atol": 1e3 * eps * np.abs(g).max()}
    np.testing.assert_allclose(loss, expected, rtol=100 * eps)
    assert loss.dtype == dx.dtype == dweight.dtype == dtype
    np.testing.assert_allclose(dx, g @ weight, **near)
    np.testing.assert_allclose(dweight, g.T @ x, **near)
    if with_bias:
        np.testing.assert_allclose(dbias, g.sum(0), **near)
    else:
        assert dbias is None
    alone = logitlab.linear_cross_entropy(x, weight, y, bias=bias, **options)
    np.testing.assert_allclose(alone, loss, rtol=4 * eps)


@pytest.mark.parametrize("kind", ["numpy", "jax", "torch", "strict"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_ignored_labels_and_batches(kind, reduction, smoothing):
    """By the formula of torch.nn.CrossEntropyLoss, in float64."""
    x, weight, bias, y = problem(30, 3, 5)
    class_weight, rows = np.array([0.5, 2, 0, 1, 3]), np.arange(30.0) / 7
    z = torch.from_numpy(x @ weight.T + bias).requires_grad_()
    each = F.cross_entropy(
        z,
        torch.from_numpy(y),
        torch.from_numpy(class_weight),
        reduction="none",
        label_smoothing=smoothing,
    )
    included = rows * ~np.isin(y, [1, 4])
    value = each * torch.from_numpy(included)
    if reduction == "mean":
        value = value.sum() / (included * class_weight[y]).sum()
    (g,) = torch.autograd.grad(value.sum(), z)
    expected = value.detach().numpy() if reduction == "none" else float(value.detach().sum())

    xp = {"numpy": np, "torch": torch, "strict": array_api_strict, "jax": jnp}[kind]
    arrays = [xp.asarray(a) for a in (x.reshape(2, 15, 3), weight, y.reshape(2, 15))]
    options = {
        "bias": xp.asarray(bias),
        "class_weight": xp.asarray(class_weight),
        "sample_weight": xp.asarray(rows.reshape(2, 15)),
        "ignore_index": [1, 4],
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    near = {"rtol": 2e-5, "atol": 1e-5} if kind == "jax" else {"rtol": 1e-12, "atol": 1e-13}
    loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(*arrays, **options)
    alone = logitlab.linear_cross_entropy(*arrays, **options)
    for given in (loss, alone):
        assert given.shape == ((2, 15) if reduction == "none" else ())
        np.testing.assert_allclose(np.asarray(given).reshape(-1), expected, **near)
    assert dx.shape == (2, 15, 3)
    np.testing.assert_allclose(np.asarray(dx).reshape(30, 3), g.numpy() @ weight, **near)
    np.testing.assert_allclose(np.asarray(dweight), g.numpy().T @ x, **near)
    np.testing.assert_allclose(np.asarray(dbias), g.numpy().sum(0), **near)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_with_class_weights(reduction, smoothing):
    x, weight, bias, y = (torch.from_numpy(a) for a in problem(12, 3, 4))
    class_weight = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
    inputs = [x.reshape(2, 6, 3), weight, bias, torch.tensor(1.3, dtype=torch.float64)]

    def call(x, weight, bias, t, class_weight=class_weight):
        return logitlab.linear_cross_entropy(
            x,
            weight,
            y.reshape(2, 6),
            bias=bias,
            temperature=t,
            class_weight=class_weight,
            label_smoothing=smoothing,
            reduction=reduction,
        )

    inputs = [a.clone().requires_grad_() for a in inputs]
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)
    shifted = (class_weight + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(call, [*inputs, shifted])


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 3, 4), (5, 0, 4), (5, 3, 1), (40, 3, 5000)])
def test_shapes(shape):
    n, d, k = shape
    x, weight, bias, y = problem(n, d, k)
    loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(
        x, weight, y, bias=bias, reduction="none"
    )
    assert loss.shape == (n,)
    assert (dx.shape, dweight.shape, dbias.shape) == ((n, d), (k, d), (k,))
    np.testing.assert_allclose(
        loss, logitlab.cross_entropy(x @ weight.T + bias, y, reduction="none"), rtol=1e-13
    )


def test_errors():
    x, weight, bias, y = problem(5, 3, 4)
    f = logitlab.linear_cross_entropy
    with pytest.raises(ValueError, match=r"weight must have shape \(K, 3\), .* got \(4, 2\)"):
        f(x, weight[:, :2], y)
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\), .* got \(2,\)"):
        f(x, weight, y, bias=bias[:2])
    with pytest.raises(TypeError, match="weight must have the type of x, float64, got float32"):
        f(x, weight.astype(np.float32), y)
    with pytest.raises(ValueError, match="y must be from 0 to 3, as z has 4 classes, got 4"):
        f(x, weight, [0, 1, 4, 0, 0])
    with pytest.raises(TypeError, match="y must be integer labels, got float64"):
        f(x, weight, y.astype(float))
    with pytest.raises(ValueError, match="x must have at least 1 dimension, got 0"):
        f(1.0, weight, y)
    with pytest.raises(ValueError, match="weight must have 2 dimensions, got 1"):
        f(x, weight[0], y)
    with pytest.raises(ValueError, match=r"y must be labels of shape \(\), got shape \(5,\)"):
        f(x[0], weight, y)
    with pytest.raises(ValueError, match=r"class_weight must have shape \(4,\), .* got \(3,\)"):
        f(x, weight, y, class_weight=[1, 2, 3])
    with pytest.raises(ValueError, match=r"class_weight must be finite and >= 0, got -1.0"):
        f(x, weight, y, class_weight=[1, 2, 3, -1])
    with pytest.raises(ValueError, match="temperature must not be 0"):
        logitlab.linear_cross_entropy_and_grad(x, weight, y, temperature=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_tensors(smoothing):
    x, weight, bias, y = problem(20, 3, 4)
    given = [torch.from_numpy(a).requires_grad_() for a in (x, weight, bias)]
    t = torch.full((20,), 1.3, dtype=torch.float64, requires_grad=True)
    y = torch.from_numpy(y)

    def call(x, weight, bias, t=1.0):
        return logitlab.linear_cross_entropy(
            x, weight, y, bias=bias, temperature=t, label_smoothing=smoothing
        )

    assert torch.autograd.gradcheck(call, given)
    assert torch.autograd.gradgradcheck(call, given)
    assert torch.autograd.gradcheck(call, [*given, t])


def test_bfloat16_tensors():
    x, weight, bias, y = (torch.from_numpy(a) for a in problem(64, 8, 50))
    half = [a.bfloat16().requires_grad_() for a in (x, weight, bias)]
    loss = logitlab.linear_cross_entropy(half[0], half[1], y, bias=half[2])
    loss.backward()
    wide = [a.detach().double().requires_grad_() for a in half]
    F.cross_entropy(F.linear(*wide), y).backward()
    for a, b in zip(half, wide, strict=True):
        assert a.grad.dtype is torch.bfloat16
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-2, atol=1e-4)


PEAK = """
import resource, sys
import numpy as np
import logitlab
n, d, k = 2048, 64, 32000
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(s, dtype=np.float32) for s in ((n, d), (k, d)))
y = rng.integers(0, k, n)
logitlab.linear_cross_entropy_and_grad(x[:64], w, y[:64])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
logitlab.linear_cross_entropy_and_grad(x, w, y)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (n * k * 4))
"""


def test_memory_is_far_below_that_of_the_logits():
    process = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True
    )
    assert float(process.stdout) < 0.1


@pytest.mark.parametrize(
    ("temperature", "smoothing"), [(1.0, 0.0), (1.0, 0.3), (0.5, 0.3), (0.0, 0.0)]
)
def test_excluded_classes(temperature, smoothing):
    """Smoothing is spread over the other classes, as in cross_entropy."""
    x, weight, bias, y = problem(30, 3, 5)
    bias[2] = -np.inf
    y[y == 2] = 0
    z = x @ weight.T + bias
    options = {"temperature": temperature, "label_smoothing": smoothing, "reduction": "none"}
    expected = logitlab.cross_entropy(z, y, **options)
    loss = logitlab.linear_cross_entropy(x, weight, y, bias=bias, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    if temperature:
        g = logitlab.cross_entropy_and_grad(z, y, **options)[1]
        _, (dx, _, dbias) = logitlab.linear_cross_entropy_and_grad(
            x, weight, y, bias=bias, **options
        )
        np.testing.assert_allclose(dx, g @ weight, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(dbias, g.sum(0), rtol=1e-11, atol=1e-13)
        assert dbias[2] == 0


def test_ignored_rows_may_contain_nan():
    x, weight, _, y = problem(40, 3, 4)
    x[7] = np.nan
    y[7] = -1
    loss, gradients = logitlab.linear_cross_entropy_and_grad(x, weight, y, ignore_index=-1)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradients if g is not None)


def test_other_arrays():
    """JAX arrays, which are immutable, and byte-swapped NumPy arrays."""
    x, weight, bias, y = problem(40, 3, 4, np.float32)
    expected = logitlab.linear_cross_entropy_and_grad(x, weight, y, bias=bias, label_smoothing=0.1)
    swapped = [a.astype(a.dtype.newbyteorder()) for a in (x, weight, bias)]
    for a, b, c in (map(jnp.asarray, (x, weight, bias)), swapped):
        loss, gradients = logitlab.linear_cross_entropy_and_grad(
            a, b, y, bias=c, label_smoothing=0.1
        )
        np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
        for one, other in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_long_products_are_computed_by_tiles(monkeypatch):
    """Between tiles signals are answered; the results are the same."""
    x, weight, bias, y = problem(70, 9, 41)
    expected = logitlab.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    for size in (1, 1000, 5000):
        monkeypatch.setattr("logitlab._backends.linear_loss._PRODUCT_SIZE", size)
        loss, gradients = logitlab.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
        assert loss == pytest.approx(expected[0], rel=1e-14)
        for one, other in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_chunked_arrays():
    """A slice of a Dask array is a copy, so its gradients are not added in place."""
    da = pytest.importorskip("dask.array")
    x, weight, bias, y = problem(300, 3, 4)
    expected = logitlab.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    arrays = [da.from_array(a, chunks=a.shape) for a in (x, weight, y)]
    loss, gradients = logitlab.linear_cross_entropy_and_grad(*arrays, bias=da.from_array(bias))
    np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
    for one, other in zip(gradients, expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("factor", [2.0**-1070, 2.0**-900, 2.0**900, 2.0**1022])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_class_weights_have_no_scale_in_a_mean(convert, smoothing, factor):
    """A common factor cancels, also where sums of weights leave the range of float64."""
    x, weight, _, y = map(np.asarray, problem(40, 5, 3))
    class_weight = np.array([1.0, 2.0, 0.5])
    arguments = [convert(np.asarray(a)) for a in (x.astype(float), weight.astype(float), y)]

    def results(class_weight):
        options = {"label_smoothing": smoothing, "ignore_index": 7}
        loss, gradients = logitlab.linear_cross_entropy_and_grad(
            *arguments, class_weight=convert(class_weight), **options
        )
        z = arguments[0] @ arguments[1].T
        of_logits = logitlab.cross_entropy_and_grad(
            z, arguments[2], weight=convert(class_weight), **options
        )
        return [np.asarray(a) for a in (loss, *gradients[:2], *of_logits)]

    for result, expected in zip(results(class_weight * factor), results(class_weight), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-18)
