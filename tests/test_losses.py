"""cross_entropy, compared with torch, with exact arithmetic and with finite differences."""

from functools import partial

import array_api_strict
import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import arrays
import exact
import logitlab
from arrays import inf, nan
from exact import mp

REDUCTIONS = ["mean", "sum", "none"]


def label(parameter):
    """The name of a function or of a type in the name of a test."""
    return getattr(parameter, "__name__", str(parameter))


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


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_tiny_losses_keep_their_digits(convert):
    """Losses and gradients close to 0 keep their relative accuracy."""
    for gap in (5.0, 27.6, 40.0, 300.0):
        row = [gap, 0.0, -1.0]
        expected = -exact.log_softmax(row)[0]
        z = convert(np.array([row]))
        for y in (np.array([0]), np.array([[1.0, 0, 0]])):
            loss, gradient = logitlab.cross_entropy_and_grad(z, convert(y))
            assert exact.distance(loss, expected, np.float64) <= 4
            others = float(sum(exact.softmax(row)[1:]))
            assert float(gradient[0, 0]) == pytest.approx(-others, rel=1e-14)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_gradients_of_targets_of_any_sum(convert):
    """p sum y - y with a small relative error, for p close to 1 and sums y other than 1."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((8, 4)) * [[1], [1], [1], [1], [20], [20], [40], [40]]
    y = rng.uniform(0, 2, (8, 4))
    y[::2] = z[::2] == z[::2].max(axis=1, keepdims=True)
    y[::2] *= 3
    for shape in ((8, 4), (2, 4, 4)):
        arguments = (convert(a.reshape(shape)) for a in (z, y))
        gradient = logitlab.cross_entropy_and_grad(*arguments, reduction="none")[1]
        gradient = np.asarray(gradient).reshape(8, 4)
        for i, row in enumerate(z.tolist()):
            p, t = exact.softmax(row), [mp.mpf(v) for v in y[i].tolist()]
            for j in range(4):
                right = sum(t) * p[j] - t[j]
                size = abs(right) if i % 2 == 0 else sum(t)
                assert abs(float(gradient[i, j]) - right) <= 2e-15 * size


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_gradients_of_many_equal_logits(convert):
    """1/K at every class but the label, with a small relative error."""
    z, y = np.zeros((2, 1000)), np.array([0, 7])
    gradient = logitlab.cross_entropy_and_grad(*map(convert, (z, y)), reduction="none")[1]
    right = np.full((2, 1000), 1 / 1000)
    right[[0, 1], y] = -999 / 1000
    np.testing.assert_allclose(np.asarray(gradient), right, rtol=4e-16)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_ignored_rows_of_any_values(convert):
    """Their losses and gradients are 0, even of NaN and of rows without a distribution."""
    z = convert(np.array([[nan, 0.0], [0.0, 0.0], [-inf, -inf], [inf, 0.0]]))
    y = convert(np.array([5, 0, 5, 5]))
    loss, gradient = logitlab.cross_entropy_and_grad(z, y, ignore_index=5, reduction="none")
    np.testing.assert_allclose(np.asarray(loss), [0, np.log(2), 0, 0], rtol=1e-15)
    np.testing.assert_allclose(np.asarray(gradient), [[0, 0], [-0.5, 0.5], [0, 0], [0, 0]])


def test_no_warnings():
    """Rows without a distribution, weights that overflow the type of z, tiny temperatures."""
    z = np.array([[-inf, -inf], [0.0, 1.0], [inf, 1.0], [nan, 0.0]], np.float32)
    options = {"label_smoothing": 0.1, "weight": [1e300, 1.0], "reduction": "none"}
    with np.errstate(all="raise"):
        for t in (1.0, np.array([1.0, 1e-310, 1e-310, 1.0])):
            loss = logitlab.cross_entropy_and_grad(z, [0] * 4, temperature=t, **options)[0]
            np.testing.assert_array_equal(loss[[0, 3]], nan)
            np.testing.assert_array_equal(logitlab.cross_entropy(z, [0] * 4, **options)[0], nan)
            for reduction in ("mean", "sum"):
                logitlab.cross_entropy(z, [0] * 4, temperature=t, reduction=reduction)


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


def exact_loss(z, y, t):
    """-sum y log softmax(z/T), and its gradient by z."""
    log_p = exact.log_softmax(z.tolist(), t)
    p = exact.softmax(z.tolist(), t)
    y = [mp.mpf(x) for x in y]
    loss = -sum(a * b for a, b in zip(y, log_p, strict=True) if a)
    return loss, [(sum(y) * a - b) / mp.mpf(t) for a, b in zip(p, y, strict=True)]


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        *((convert, dtype) for convert in (np.asarray, arrays.tensor) for dtype in arrays.FLOATS),
        (array_api_strict.asarray, np.dtype(np.float32)),
        (array_api_strict.asarray, np.dtype(np.float64)),
    ],
    ids=label,
)
@pytest.mark.parametrize("kind", ["labels", "smoothed", "distributions"])
def test_losses_of_large_logits_are_exact(dtype, kind, convert):
    """Where (max z - z)/T overflows, its product with a small target is in range."""
    info, rng = arrays.finfo(dtype), np.random.default_rng(0)
    smoothing = 0.1 if kind == "smoothed" else 0.0
    for k in (2, 3, 16, 40):
        for t in (1.0, 3.0, 1e-20):
            z = rng.choice([1, -1, 0.3, -0.7, 0, 1e-4], (4, k)) * float(info.max)
            z = z.astype(dtype)
            if kind == "distributions":
                given = rng.dirichlet(np.ones(k), 4).astype(dtype)
                given[1] *= 1e-3
                y = given.astype(float)
            else:
                given = rng.integers(0, k, 4)
                y = np.eye(k)[given] * (1 - smoothing) + smoothing / k
            loss, gradient = logitlab.cross_entropy_and_grad(
                *map(convert, (z, given)),
                temperature=t,
                label_smoothing=smoothing,
                reduction="none",
            )
            for i, row in enumerate(z.astype(float)):
                right, slope = exact_loss(row, y[i], t)
                got = float(loss[i])
                if np.isinf(got):
                    assert right >= float(info.max)
                else:
                    rounding = 2 * float(info.eps) + 1e-14
                    assert abs(got - right) <= rounding * abs(right) + float(info.tiny)
                error = 8 * float(info.eps) / t
                for a, b in zip(arrays.floats(gradient)[i].tolist(), slope, strict=True):
                    assert abs(b) >= float(info.max) if np.isinf(a) else abs(a - b) <= error


def test_a_mean_of_large_losses_is_in_range():
    z = np.array([[1.5e308, 0.0], [1.5e308, 0.0], [0.0, 0.0]])
    y = np.array([1, 1, 0])
    expected = pytest.approx(1e308)
    assert logitlab.cross_entropy(z, y) == expected
    assert logitlab.cross_entropy(torch.from_numpy(z), torch.from_numpy(y)) == expected
    tensor = torch.from_numpy(z).requires_grad_()
    assert logitlab.cross_entropy(tensor, torch.from_numpy(y)).item() == expected
    assert logitlab.cross_entropy(z, y, sample_weight=[1e300, 1e300, 1e300]) == expected
    assert logitlab.cross_entropy(z, y, reduction="sum") == inf


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        *((convert, dtype) for convert in (np.asarray, arrays.tensor) for dtype in arrays.FLOATS),
        (jax.numpy.asarray, np.dtype(np.float32)),
    ],
    ids=label,
)
@pytest.mark.parametrize("k", [3, 20])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_gradient_beside_an_infinite_logit(convert, dtype, k, smoothing):
    """p - y in a row with +inf, where p is the softmax of the contract."""
    z = np.full((4, k), -inf).astype(dtype)
    z[:, :3] = np.array([[inf, 0, 1], [inf, inf, 0], [inf, -inf, 0], [inf, 0, 0]])
    y = np.array([1, 2, 2, 0])
    target = np.eye(k)[y] * (1 - smoothing)
    target += smoothing * (z != -inf) / (z != -inf).sum(axis=1, keepdims=True)
    right = np.where(z == -inf, 0, logitlab.softmax(z).astype(float) - target) / 2
    options = {"temperature": 2.0, "label_smoothing": smoothing, "reduction": "none"}
    loss, gradient = logitlab.cross_entropy_and_grad(*map(convert, (z, y)), **options)
    rtol = 4 * float(arrays.finfo(dtype).eps)
    np.testing.assert_allclose(arrays.floats(gradient), right, rtol=rtol)
    np.testing.assert_array_equal(
        arrays.floats(loss), np.where([False] * 3 + [not smoothing], 0, inf)
    )
    if convert is arrays.tensor:
        for create_graph in (False, True):
            x = convert(z).requires_grad_()
            total = logitlab.cross_entropy(x, convert(y), **options).sum()
            (gradient,) = torch.autograd.grad(total, x, create_graph=create_graph)
            np.testing.assert_allclose(arrays.floats(gradient), right, rtol=rtol)


def test_gradient_by_temperature_beside_an_infinite_logit():
    """The limit of sum (p - y)(max z - z)/T: 0 where the label is the class of +inf, else -inf."""
    t = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([[inf, 0.0], [inf, 0.0]])
    for label, right in ((0, 0.0), (1, -inf)):
        y = torch.full((2,), label)
        loss = logitlab.cross_entropy(z, y, temperature=t)
        assert torch.autograd.grad(loss, t) == (right,)
        layer = torch.tensor([[inf], [0.0]])
        loss = logitlab.linear_cross_entropy(torch.ones(2, 1), layer, y, temperature=t)
        assert torch.autograd.grad(loss, t) == (right,)
    excluded = logitlab.cross_entropy(
        torch.tensor([[inf, 0.0, 1.0]]), torch.tensor([1]), temperature=-t
    )
    assert torch.isfinite(torch.autograd.grad(excluded, t)[0])


@pytest.mark.parametrize("factor", [1e308, 1e-300, 5e-324, 2.0**-1000])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_a_mean_does_not_depend_on_the_scale_of_the_weights(factor, convert):
    """Weights whose sum overflows or underflows; the gradients too."""
    z, y = map(convert, problem((300, 4)))
    weight = convert(np.tile([1.0, 0.0, 1.0], 100))
    expected = logitlab.cross_entropy_and_grad(z, y, sample_weight=weight)
    scaled = weight * factor
    results = logitlab.cross_entropy_and_grad(z, y, sample_weight=scaled)
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-14)
    loss = logitlab.cross_entropy(z, y, sample_weight=scaled)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-14)
    linear = [
        logitlab.linear_cross_entropy_and_grad(z, convert(np.eye(4)), y, sample_weight=w)
        for w in (weight, scaled)
    ]
    np.testing.assert_allclose(linear[1][0], linear[0][0], rtol=1e-14)
    np.testing.assert_allclose(linear[1][1][0], linear[0][1][0], rtol=1e-12)
    classes = convert(np.array([1.0, 0.5, 0.0, 1.5]))
    means = [logitlab.cross_entropy(z, y, weight=w) for w in (classes, classes * factor)]
    if factor != 5e-324:  # which has no half
        np.testing.assert_allclose(means[1], means[0], rtol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["labels", "ignored", "probabilities"])
def test_class_weights_agree_with_torch(reduction, smoothing, kind):
    rng = np.random.default_rng(2)
    for shape in ((40, 6), (5, 20, 3, 2)):
        z, y = problem(shape)
        weight = rng.uniform(0, 3, shape[1])
        weight[1] = 0
        ignore = 2 if kind == "ignored" else None
        if kind == "probabilities":
            y = logitlab.softmax(rng.standard_normal(shape), 1)
        tensor = torch.from_numpy(z).requires_grad_()
        theirs = F.cross_entropy(
            tensor,
            torch.from_numpy(y),
            torch.from_numpy(weight),
            ignore_index=-100 if ignore is None else ignore,
            label_smoothing=smoothing,
            reduction=reduction,
        )
        theirs.sum().backward()
        options = {"label_smoothing": smoothing, "ignore_index": ignore, "reduction": reduction}
        for convert in (np.asarray, torch.from_numpy, array_api_strict.asarray):
            arguments = list(map(convert, (z, y)))
            ours, gradient = logitlab.cross_entropy_and_grad(
                *arguments, 1, weight=convert(weight), **options
            )
            np.testing.assert_allclose(np.asarray(ours), theirs.detach(), rtol=1e-13, atol=1e-13)
            np.testing.assert_allclose(np.asarray(gradient), tensor.grad, rtol=1e-11, atol=1e-14)
        ours = tensor.detach().clone().requires_grad_()
        loss = logitlab.cross_entropy(
            ours, torch.from_numpy(y), 1, weight=torch.from_numpy(weight), **options
        )
        loss.sum().backward()
        torch.testing.assert_close(loss, theirs, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(ours.grad, tensor.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("factor", [1e-250, 1e200])
def test_a_mean_does_not_depend_on_the_scale_of_class_weights(factor, smoothing):
    """Products of the weights of rows and classes that leave the range of float64 or float32."""
    z, y = problem((5, 3))
    options = {"label_smoothing": smoothing}
    rows, classes = np.array([1.0, 2, 5, 0, 1]), np.array([1.0, 0.5, 3])
    for dtype, rtol in ((np.float32, 1e-6), (np.float64, 1e-13)):
        x = z.astype(dtype)
        results = logitlab.cross_entropy_and_grad(
            x, y, weight=classes * factor, sample_weight=rows * factor, **options
        )
        expected = logitlab.cross_entropy_and_grad(
            x, y, weight=classes, sample_weight=rows, **options
        )
        for result, right in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, right, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_of_target_probabilities(reduction, weighted):
    """A mean divides by the sum of the weights of the rows alone, as in torch without them."""
    z, _ = problem((5, 3))
    y = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    rows, classes = np.array([1.0, 2, 5, 0, 1]), np.array([1.0, 0.5, 3])
    rows = rows if weighted else np.ones(5)
    losses = -rows * (classes * y * logitlab.log_softmax(z)).sum(axis=1)
    right = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / rows.sum()}[reduction]
    p = logitlab.softmax(z)
    gradient = rows[:, None] * (p * (classes * y).sum(axis=1, keepdims=True) - classes * y)
    gradient /= rows.sum() if reduction == "mean" else 1
    options = {"weight": classes, "reduction": reduction}
    if weighted:
        options["sample_weight"] = rows
    results = logitlab.cross_entropy_and_grad(z, y, **options)
    np.testing.assert_allclose(results[0], right, rtol=1e-14)
    np.testing.assert_allclose(results[1], gradient, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(logitlab.cross_entropy(z, y, **options), right, rtol=1e-14)


@pytest.mark.parametrize("convert", [np.asarray, arrays.tensor])
@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
def test_class_weights_with_other_types(dtype, convert):
    """Losses and gradients are those of float64, rounded to the type of z."""
    z, y = problem((5, 3))
    z = z.astype(dtype)
    options = {"weight": [1.0, 0.5, 3], "label_smoothing": 0.2, "reduction": "none"}
    expected = logitlab.cross_entropy_and_grad(z.astype(float), y, **options)
    results = logitlab.cross_entropy_and_grad(convert(z), convert(y), **options)
    eps = float(arrays.finfo(dtype).eps)
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == convert(z).dtype
        np.testing.assert_allclose(arrays.floats(result), right, rtol=2 * eps, atol=eps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.2},
        {"weight": [1.0, 2.0, 3.0], "label_smoothing": 0.2},
        {"weight": [1.0, 2.0, 3.0], "sample_weight": [1.0, 2.0, 0.0, 1.0]},
        {"ignore_index": 1, "temperature": [1.0, 2.0, 3.0, 4.0]},
    ],
    ids=lambda options: "-".join(options),
)
def test_losses_stay_on_the_device_of_the_logits(options, reduction):
    z, y = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 1, 2, 1])
    device = array_api_strict.Device("device1")
    convert = partial(array_api_strict.asarray, device=device)
    for targets in (y, np.full((4, 3), 1 / 3)):
        if targets.ndim == 2 and "ignore_index" in options:
            continue
        expected = logitlab.cross_entropy_and_grad(z, targets, reduction=reduction, **options)
        loss = logitlab.cross_entropy(convert(z), convert(targets), reduction=reduction, **options)
        results = logitlab.cross_entropy_and_grad(
            convert(z), convert(targets), reduction=reduction, **options
        )
        assert loss.device == device
        for result, right in zip(results, expected, strict=True):
            assert result.device == device
            result = np.asarray(result.to_device(array_api_strict.Device("CPU_DEVICE")))
            np.testing.assert_allclose(result, right, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_class_weights_beside_excluded_classes(axis):
    """The loss and the gradient of a row without those classes; label smoothing skips them."""
    z, y = np.random.default_rng(0).standard_normal((3, 2, 4)), np.array([[0, 1], [3, 0], [1, 3]])
    where, classes = np.array([True, True, False, True]), np.array([1.0, 0.5, 7, 3])
    options = {"label_smoothing": 0.2, "reduction": "none"}
    expected = logitlab.cross_entropy_and_grad(
        z[..., where], y - (y == 3), weight=classes[where], **options
    )
    options |= {"where": where.reshape(-1, *[1] * (2 - axis)), "weight": classes}
    loss, gradient = logitlab.cross_entropy_and_grad(np.moveaxis(z, -1, axis), y, axis, **options)
    gradient = np.moveaxis(gradient, axis, -1)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-14)
    np.testing.assert_allclose(gradient[..., where], expected[1], rtol=1e-13, atol=1e-16)
    np.testing.assert_array_equal(gradient[..., 2], 0)


def test_class_weights_with_other_options():
    """Weights of the rows and of the classes multiply; ignored rows may contain NaN."""
    z, y = problem((6, 4))
    z[2] = nan
    rows, classes = np.array([1.0, 2, 5, 0, 1, 1]), np.array([1.0, 0.5, 2, 3])
    y[2] = -1
    options = {"sample_weight": rows, "ignore_index": -1, "label_smoothing": 0.2}
    loss, gradient = logitlab.cross_entropy_and_grad(z, y, weight=classes, **options)
    left = [0, 1, 4, 5]
    target = classes * (np.eye(4)[y[left]] * 0.8 + 0.05)
    p = logitlab.softmax(z[left])
    total = (rows * classes[y])[left].sum()
    losses = -(target * np.log(p)).sum(axis=1)
    assert loss == pytest.approx((rows[left] * losses).sum() / total, rel=1e-14)
    right = rows[left, None] * (p * target.sum(axis=1, keepdims=True) - target) / total
    np.testing.assert_allclose(gradient[left], right, rtol=1e-13, atol=1e-16)
    np.testing.assert_array_equal(gradient[[2, 3]], 0)
    assert np.isnan(logitlab.cross_entropy([[0.0, 1.0]], [1], weight=[1.0, 0.0]))
    assert logitlab.cross_entropy(2.0, 0, weight=[3.0], reduction="none") == 0
    with pytest.raises(ValueError, match=r"weight must have shape \(4,\), .* got \(3,\)"):
        logitlab.cross_entropy(z, y, weight=[1.0, 2, 3], ignore_index=-1)
    for value in (-1.0, inf, nan):
        with pytest.raises(ValueError, match=rf"weight must be finite and >= 0, got {value} at"):
            logitlab.cross_entropy(z, y, weight=[1.0, 2, 3, value], ignore_index=-1)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_several_ignored_labels(convert):
    z, y = problem((20, 5))
    y[3] = -100
    left = (y != 1) & (y != -100)
    expected = logitlab.cross_entropy(z[left], y[left])
    for ignored in ((1, -100), [-100, 1, 2**70], np.array([1, -100]), range(-100, 2, 101)):
        loss = logitlab.cross_entropy(*map(convert, (z, y)), ignore_index=ignored)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    linear = logitlab.linear_cross_entropy(z, np.eye(5), y, ignore_index=(1, -100))
    np.testing.assert_allclose(linear, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"got -100 in row 3"):
        logitlab.cross_entropy(*map(convert, (z, y)), ignore_index=(1, 2))
    for wrong in ((1, True), (1, 1.5), [[1]], "1"):
        with pytest.raises(TypeError, match="ignore_index must be an int"):
            logitlab.cross_entropy(*map(convert, (z, y)), ignore_index=wrong)


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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"z": [["a"]]}, TypeError, "z must be a real array .*, got str.*"),
        ({"z": [[1.0], [1.0, 2.0]]}, ValueError, "z must be a rectangular array, got: .*"),
        ({"y": [[0], [0, 1]]}, ValueError, "y must be a rectangular array, got: .*"),
        ({"y": [0, None]}, ValueError, "y must have no missing values, got None in row 1"),
        (
            {"y": [0.0, 1.0]},
            TypeError,
            "y must be integer labels, or target probabilities of z's shape, got float64",
        ),
        (
            {"y": [0]},
            ValueError,
            r"y must be labels of shape \(2,\), or target probabilities of z's shape, "
            r"got shape \(1,\)",
        ),
        ({"y": [0, 3]}, ValueError, "y must be from 0 to 2, as z has 3 classes, got 3 in row 1"),
        ({"y": -np.eye(3)[:2]}, ValueError, r"y must be >= 0, got -1.0 at index \(0, 0\)"),
        (
            {"y": np.eye(3)[:2], "ignore_index": 4},
            ValueError,
            "ignore_index must be None for target probabilities, got 4",
        ),
        ({"ignore_index": "a"}, TypeError, "ignore_index must be an int, got 'a'"),
        ({"label_smoothing": "a"}, TypeError, "label_smoothing must be a real number, got 'a'"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing must be in \[0, 1\], got -0.1"),
        (
            {"reduction": "all"},
            ValueError,
            "reduction must be one of 'mean', 'sum', 'none', got 'all'",
        ),
        ({"weight": [1j, 1, 1]}, TypeError, "weight must be a real array .*, got complex128"),
        (
            {"weight": [1.0, 2.0]},
            ValueError,
            r"weight must have shape \(3,\), one weight for each class, got \(2,\)",
        ),
        ({"weight": [1, nan, 1]}, ValueError, r"weight must be finite .*, got nan at index \(1,\)"),
        ({"sample_weight": ["a"]}, TypeError, "sample_weight must be a real array .*, got str.*"),
        ({"axis": None}, TypeError, "axis must be an int, got None"),
        ({"axis": (0, 1)}, TypeError, r"axis must be an int, got \(0, 1\)"),
    ],
)
@pytest.mark.parametrize("function", [logitlab.cross_entropy, logitlab.cross_entropy_and_grad])
def test_message_of_an_invalid_argument(function, options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        function(**{"z": [[1.0, 2.0, 0.0]] * 2, "y": [0, 1]} | options)


@pytest.mark.parametrize("name", ["y", "weight"])
def test_arguments_of_another_library(name):
    """Lists and NumPy arrays are converted to the library of z; any other is refused by name."""
    z, y = map(torch.from_numpy, problem((3, 3)))
    given = {"y": np.eye(3), "weight": np.array([1.0, 2.0, 3.0])}[name]
    right = logitlab.cross_entropy(z, **{"y": y, name: torch.from_numpy(given)})
    for value in (given, given.tolist(), given.astype(np.float32)):
        assert torch.equal(logitlab.cross_entropy(z, **{"y": y, name: value}), right)
    message = f"^{name} must be an array of the same library as z, a Tensor, got Array$"
    with pytest.raises(TypeError, match=message):
        logitlab.cross_entropy(z, **{"y": y, name: array_api_strict.asarray(given)})


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
@pytest.mark.parametrize("shape", [(2, 5, 3), (3, 5, 1), (1, 5, 4)])
def test_one_temperature_for_each_row(shape, convert):
    """The loss and the gradient of a row are those at its temperature, for any class axis."""
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal(shape), rng.integers(0, 5, (shape[0], shape[2]))
    t = rng.uniform(0.5, 3, y.shape)
    loss, gradient = logitlab.cross_entropy_and_grad(
        *map(convert, (z, y)), 1, temperature=convert(t), reduction="none"
    )
    for i, j in np.ndindex(y.shape):
        right = logitlab.cross_entropy_and_grad(z[i, :, j], y[i, j], temperature=t[i, j])
        assert float(loss[i, j]) == pytest.approx(float(right[0]), rel=1e-13)
        row = np.asarray(gradient)[i, :, j]
        np.testing.assert_allclose(row, right[1], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_no_rows(convert):
    """The mean of no losses is NaN, their sum 0; their gradients are empty."""
    z, y = convert(np.zeros((0, 3))), convert(np.zeros(0, int))
    for targets in (y, z):
        for reduction, right in (("mean", nan), ("sum", 0.0)):
            loss, gradient = logitlab.cross_entropy_and_grad(z, targets, reduction=reduction)
            np.testing.assert_array_equal(float(loss), right)
            assert gradient.shape == (0, 3)
        loss, gradient = logitlab.cross_entropy_and_grad(z, targets, reduction="none")
        assert loss.shape == (0,)
        assert gradient.shape == (0, 3)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_upstream_gradients(shape, reduction):
    """A later factor of each loss, or of the reduced one, multiplies its gradient."""
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((*shape, 5)), np.asarray(rng.integers(0, 5, shape))
    factor = rng.standard_normal(shape) if reduction == "none" else rng.standard_normal()
    where = (rng.random(z.shape) < 0.7) | (np.arange(5) == y[..., None])
    options = {"sample_weight": rng.uniform(1, 2, shape), "reduction": reduction, "where": where}
    value, right = logitlab.cross_entropy_and_grad(z, y, temperature=0.7, **options)
    x = torch.from_numpy(z).requires_grad_()
    loss = logitlab.cross_entropy(x, torch.tensor(y), temperature=0.7, **options)
    np.testing.assert_allclose(loss.detach(), value, rtol=1e-13)
    (loss * torch.from_numpy(np.asarray(factor))).sum().backward()
    right = right * np.expand_dims(factor, -1)
    np.testing.assert_allclose(x.grad, right, rtol=1e-13, atol=1e-16)


def test_gradients_at_temperature_0_are_0():
    """Softmax is piecewise constant there; autograd continues."""
    for reduction in REDUCTIONS:
        z = torch.tensor([[1.0, 3.0], [2.0, 0.0]], requires_grad=True)
        loss = logitlab.cross_entropy(z, torch.tensor([1, 0]), temperature=0, reduction=reduction)
        loss.sum().backward()
        assert torch.equal(z.grad, torch.zeros(2, 2))


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


@pytest.mark.parametrize("convert", [np.array, torch.from_numpy, jax.numpy.asarray])
def test_labels_outside_the_range_of_a_narrower_type(convert):
    """No label is wrapped to another one, to a negative number or to an ignored one."""
    z = convert(np.zeros((2, 3)))
    y_convert = np.asarray if convert is jax.numpy.asarray else convert
    for label in (2**64 - 100, 2**64 - 1, 2**63, 2**32, 2**32 - 100, 2**32 + 1, -(2**32) + 1):
        y = y_convert(np.array([0, label], np.uint64 if label > 0 else np.int64))
        message = f"y must be from 0 to 2, .*got {label} in row 1"
        for ignore_index in (None, -100, (-1, 1)):
            with pytest.raises(ValueError, match=message):
                logitlab.cross_entropy(z, y, ignore_index=ignore_index)
        layer = convert(np.zeros((3, 3)))
        with pytest.raises(ValueError, match=message):
            logitlab.linear_cross_entropy(z, layer, y, ignore_index=-100)
    for score in (logitlab.accuracy, logitlab.brier_score, logitlab.calibration_error):
        with pytest.raises(ValueError, match="got 4294967297 in row 1"):
            score(np.zeros((2, 3)), np.array([0, 2**32 + 1]))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_labels_of_any_integer_type(convert):
    z, y = problem((6, 5))
    expected = logitlab.cross_entropy(z, y, ignore_index=1)
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        for ignored in (1, np.uint8(1), np.array(1), torch.tensor(1)):
            loss = logitlab.cross_entropy(convert(z), convert(y.astype(name)), ignore_index=ignored)
            np.testing.assert_allclose(loss, expected, rtol=1e-15)
    for ignored in (np.array(True), torch.tensor(True), np.float64(1)):
        with pytest.raises(TypeError, match="ignore_index must be an int"):
            logitlab.cross_entropy(convert(z), convert(y), ignore_index=ignored)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [(), (1,), (7,), (8,), (300,), (3, 5)])
@pytest.mark.parametrize("k", [1, 10, 60, 300])
def test_common_calls_have_the_bits_of_others(dtype, rows, k):
    """Calls without options are computed in one step; those with options check each argument."""
    rng = np.random.default_rng(0)
    z = (3 * rng.standard_normal((*rows, k))).astype(dtype)
    y = rng.integers(0, k, rows)
    axis = z.ndim - 1
    for t in (1.0, 0.7):
        loss, gradient = logitlab.cross_entropy_and_grad(z, y, axis, temperature=t)
        other = logitlab.cross_entropy_and_grad(z, y, axis, temperature=t, label_smoothing=0)
        assert loss.dtype == other[0].dtype == dtype
        assert loss.tobytes() == other[0].tobytes()
        assert gradient.tobytes() == other[1].tobytes()
        assert gradient.dtype == dtype
        assert logitlab.cross_entropy(z, y, temperature=t).tobytes() == loss.tobytes()


def test_common_calls_refuse_what_others_refuse():
    z = np.zeros((2, 3))
    for y in ([0, 3], [0, -1], [0], [[0, 1]]):
        with pytest.raises(ValueError, match="y must"):
            logitlab.cross_entropy(z, np.array(y))
    infinite = logitlab.cross_entropy(np.full((2, 3), np.inf), np.array([0, 1]))
    assert infinite == pytest.approx(np.log(3), rel=1e-15)
