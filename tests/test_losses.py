"""cross_entropy, compared with torch, with exact arithmetic and with finite differences."""

from functools import partial

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import arrays
import exact
import logitlab
from arrays import inf, nan

REDUCTIONS = ["mean", "sum", "none"]


def problem(shape=(40, 6), seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(shape) * 3
    return z, rng.integers(0, shape[1], (shape[0], *shape[2:]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["labels", "ignored", "probabilities"])
def test_torch_agrees(reduction, smoothing, kind):
    """Values and gradients for labels and target distributions, with the classes on axis 1."""
    for shape in ((40, 6), (5, 6, 3, 2)):
        z, y = problem(shape)
        ignore = 2 if kind == "ignored" else None
        if kind == "probabilities":
            y = logitlab.softmax(np.random.default_rng(1).standard_normal(shape), 1)
        tensor = torch.from_numpy(z).requires_grad_()
        theirs = F.cross_entropy(
            tensor,
            torch.from_numpy(y),
            ignore_index=-100 if ignore is None else ignore,
            label_smoothing=smoothing,
            reduction=reduction,
        )
        theirs.sum().backward()
        options = {"label_smoothing": smoothing, "ignore_index": ignore, "reduction": reduction}
        ours, gradient = logitlab.cross_entropy_and_grad(z, y, 1, **options)
        np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-11, atol=1e-14)
        np.testing.assert_array_equal(ours, logitlab.cross_entropy(z, y, 1, **options))


def test_tiny_losses_keep_their_digits():
    """Losses and gradients close to 0 keep their relative accuracy."""
    for gap in (5.0, 27.6, 40.0, 300.0):
        row = [gap, 0.0, -1.0]
        expected = -exact.log_softmax(row)[0]
        loss, gradient = logitlab.cross_entropy_and_grad([row], [0])
        assert exact.distance(loss, expected, np.float64) <= 4
        others = float(sum(exact.softmax(row)[1:]))
        assert gradient[0, 0] == pytest.approx(-others, rel=1e-14)


@pytest.mark.parametrize("temperature", [1.0, 0.5, -2.0])
def test_gradient_by_finite_differences(temperature):
    """At several temperatures, with weights, masks and smoothing."""
    z, y = problem((6, 4))
    where = np.ones_like(z, bool)
    where[np.arange(3), (y[:3] + 1) % 4] = False
    options = {
        "temperature": temperature,
        "where": where,
        "sample_weight": np.linspace(0, 2, 6),
        "label_smoothing": 0.2,
    }
    gradient = logitlab.cross_entropy_and_grad(z, y, **options)[1]
    for place in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[place] += 1e-6
        down[place] -= 1e-6
        change = logitlab.cross_entropy(up, y, **options) - logitlab.cross_entropy(
            down, y, **options
        )
        assert gradient[place] == pytest.approx(change / 2e-6, abs=2e-9)


def test_weights():
    """A row of weight 2 counts as two rows, a row of weight 0 as none."""
    z, y = problem((5, 3))
    weight = np.array([1.0, 2, 0, 1, 1])
    twice = np.repeat(np.arange(5), weight.astype(int))
    assert logitlab.cross_entropy(z, y, sample_weight=weight) == pytest.approx(
        logitlab.cross_entropy(z[twice], y[twice]), rel=1e-14
    )


def test_special_rows():
    """0 log 0 = 0; the loss of an excluded label is inf; ignored rows may contain NaN."""
    assert logitlab.cross_entropy([[0.0, -inf]], [[1.0, 0.0]]) == 0
    assert logitlab.cross_entropy([[0.0, -inf]], [1]) == inf
    assert logitlab.cross_entropy([[0.0, -inf, 0.0]], [0], label_smoothing=0.5) == pytest.approx(
        np.log(2)
    )
    assert logitlab.cross_entropy([[inf, 0.0]], [0]) == 0
    # A class of probability 0 at T = 0 is not an excluded class.
    options = {"temperature": 0, "label_smoothing": 0.5}
    assert logitlab.cross_entropy([[1.0, 0.0]], [0], **options) == inf
    assert logitlab.cross_entropy([[1.0, 1.0, -inf]], [0], **options) == pytest.approx(np.log(2))
    masked = logitlab.cross_entropy([[1.0, 1.0, 0.0]], [0], where=[True, True, False], **options)
    assert masked == pytest.approx(np.log(2))
    assert logitlab.linear_cross_entropy([[1.0]], [[1.0], [0.0]], [0], **options) == inf
    assert np.isnan(logitlab.cross_entropy([[nan, 0.0]], [0]))
    loss, gradient = logitlab.cross_entropy_and_grad(
        [[nan, 0.0], [0.0, 0.0]], [-1, 0], ignore_index=-1
    )
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(gradient, [[0, 0], [-0.5, 0.5]])
    assert np.isnan(logitlab.cross_entropy([[0.0, 0.0]], [9], ignore_index=9))
    assert logitlab.cross_entropy([[0.0, 0.0]], [9], ignore_index=9, reduction="sum") == 0
    with pytest.raises(ValueError, match="no derivative"):
        logitlab.cross_entropy_and_grad([[0.0, 0.0]], [0], temperature=0)


def test_extreme_rows():
    """Large logits, tiny T, weights of 0, NaN targets, and arrays without an axis."""
    far = np.array([[3e38, -3e38]], np.float32)
    loss, gradient = logitlab.cross_entropy_and_grad(far, [1], temperature=1e-3)
    assert loss == inf
    np.testing.assert_allclose(gradient, [[1000, -1000]])
    options = {"temperature": 1e-3, "sample_weight": [1e-30], "reduction": "sum"}
    assert logitlab.cross_entropy(far, [1], **options) == pytest.approx(6e11)
    for dtype, gap, share, t in (
        (np.float32, 1e-16, 1e-30, 1e-18),
        (float, 1e-150, 1e-200, 1e-153),
    ):
        z, y = np.array([[0, -gap]], dtype), np.array([[1, share]], dtype)
        expected = pytest.approx(share * gap / t, rel=1e-6)
        assert logitlab.cross_entropy(z, y, temperature=t) == expected
        assert logitlab.cross_entropy_and_grad(z, y, temperature=t)[0] == expected
    free = logitlab.cross_entropy([[0.0, 1.0], [0.0, inf]], [0, 0], sample_weight=[1, 0])
    assert free == pytest.approx(np.log1p(np.e))
    for smoothing in (0.0, 0.5, 1.0):
        loss, gradient = logitlab.cross_entropy_and_grad(
            [[0.0, 1.0]], [[nan, 1.0]], label_smoothing=smoothing
        )
        assert np.isnan(loss)
        assert np.isnan(gradient).all()
    assert logitlab.cross_entropy(1.5, 0, reduction="none") == 0
    loss, gradient = logitlab.cross_entropy_and_grad(1.5, 0, reduction="none")
    assert loss.shape == gradient.shape == ()


def test_invalid_arguments():
    """The message names the argument and the first invalid row."""
    z, y = problem((4, 3))
    with pytest.raises(ValueError, match=r"y must be from 0 to 2, .* got 3 in row 1"):
        logitlab.cross_entropy(z, [0, 3, -1, 0])
    with pytest.raises(TypeError, match=r"y must be integer labels, or .* got float64"):
        logitlab.cross_entropy(z, y.astype(float))
    with pytest.raises(ValueError, match=r"y must be labels of shape \(4,\), .* got shape \(3,\)"):
        logitlab.cross_entropy(z, y[:3])
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(4,\), .* got \(1,\)"):
        logitlab.cross_entropy(z, y, sample_weight=[1.0])
    with pytest.raises(ValueError, match="sample_weight must be finite and >= 0, got -1"):
        logitlab.cross_entropy(z, y, sample_weight=[1.0, -1, 0, 0])
    with pytest.raises(ValueError, match=r"y must be >= 0, got -1.0 at index \(0, 0\)"):
        logitlab.cross_entropy(z, -np.ones_like(z))
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], got 2"):
        logitlab.cross_entropy(z, y, label_smoothing=2)
    with pytest.raises(ValueError, match=r"reduction must be one of .* got 'median'"):
        logitlab.cross_entropy(z, y, reduction="median")
    with pytest.raises(ValueError, match=r"reduction must be one of .* got 1"):
        logitlab.cross_entropy(z, y, reduction=1)
    for weight in (nan, inf):
        with pytest.raises(ValueError, match=rf"finite and >= 0, got {weight} at index \(2,\)"):
            logitlab.cross_entropy(z, y, sample_weight=[1.0, 0, weight, 1])
    with pytest.raises(ValueError, match="ignore_index must be None for target probabilities"):
        logitlab.cross_entropy(z, np.ones_like(z), ignore_index=0)


@pytest.mark.parametrize("value", [True, np.False_])
def test_booleans_are_not_numbers(value):
    """A boolean option of a loss is a TypeError."""
    z, y = problem((4, 3))
    functions = [
        partial(logitlab.cross_entropy, z, y),
        partial(logitlab.cross_entropy, z, logitlab.softmax(z)),
        partial(logitlab.cross_entropy_and_grad, z, y),
        partial(logitlab.linear_cross_entropy, z, np.eye(3), y),
        partial(logitlab.linear_cross_entropy_and_grad, z, np.eye(3), y),
    ]
    for function in functions:
        for name, rule in {
            "label_smoothing": "a real number",
            "temperature": "a real number",
            "ignore_index": "an int",
        }.items():
            with pytest.raises(TypeError, match=f"{name} must be {rule}, got .*{value}"):
                function(**{name: value})
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.cross_entropy(z, y, value)
    with pytest.raises(TypeError, match=r"y must be integer labels, .* got bool"):
        logitlab.cross_entropy(z, y > 0)


def test_array_libraries_and_types():
    """Tensors with gradients, JAX, half types."""
    z, y = problem((8, 5))
    expected = logitlab.cross_entropy(z, y)
    tensor = torch.from_numpy(z).requires_grad_()
    loss = logitlab.cross_entropy(tensor, torch.from_numpy(y))
    loss.backward()
    gradient = logitlab.cross_entropy_and_grad(z, y)[1]
    np.testing.assert_allclose(tensor.grad, gradient, rtol=1e-11, atol=1e-16)
    assert torch.autograd.gradcheck(
        lambda x: logitlab.cross_entropy(x, torch.from_numpy(y)), tensor
    )
    ours = logitlab.cross_entropy(jax.numpy.asarray(z), y)
    assert isinstance(ours, jax.Array)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    for dtype in arrays.FLOATS:
        loss, gradient = logitlab.cross_entropy_and_grad(z.astype(dtype), y)
        assert loss.dtype == gradient.dtype == dtype
    assert logitlab.cross_entropy(3.0, 0) == 0


@pytest.mark.parametrize("convert", [np.array, torch.from_numpy])
def test_large_unsigned_labels(convert):
    """Labels above the largest int64 are out of range: no negative number, no ignore_index."""
    z = convert(np.zeros((2, 3)))
    for label in (2**64 - 100, 2**64 - 1, 2**63):
        y = convert(np.array([0, label], np.uint64))
        for ignore_index in (None, -100, -1):
            with pytest.raises(ValueError, match=f"y must be from 0 to 2, .*got {label} in row 1"):
                logitlab.cross_entropy(z, y, ignore_index=ignore_index)
