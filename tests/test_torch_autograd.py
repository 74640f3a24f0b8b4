"""Gradients of tensors: compared with finite differences and with torch."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import gradcheck, gradgradcheck

import logitlab


def cross_entropy_of_0(z):
    return logitlab.cross_entropy(z, torch.zeros(len(z), dtype=torch.int64))


FUNCTIONS = [logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp]
by_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def generator():
    return torch.Generator().manual_seed(0)


def logits(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=generator()).requires_grad_()


def finite(x):
    return torch.where(torch.isinf(x), 0.0, x)


@by_function
@pytest.mark.parametrize("temperature", [1.0, 0.7, -2.0, None], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_first_and_second_derivatives(function, temperature, masked):
    """By z, and by T if that is a tensor; over an inner axis, with a mask."""
    z = logits(3, 5, 4)
    where = torch.rand(5, 4, generator=generator()) < 0.8 if masked else None
    t = torch.rand(3, 4, dtype=torch.float64, generator=generator()).add(0.5).requires_grad_()

    def call(z, *t):
        chosen = t[0] if t else temperature
        return finite(function(z, 1, temperature=chosen, where=where))

    inputs = (z, t) if temperature is None else (z,)
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("temperature", [1.0, 0.7, -2.0, None], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["labels", "distributions"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_derivatives_of_the_loss(temperature, smoothing, kind, reduction):
    z = logits(3, 5, 4)
    t = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    options = {"label_smoothing": smoothing, "reduction": reduction}
    if kind == "labels":
        y = torch.randint(0, 5, (3, 4), generator=generator())
        y[0, 1] = -7
        options["ignore_index"] = -7
    else:
        y = torch.rand(3, 5, 4, dtype=torch.float64, generator=generator()).square()

    def call(z, *t):
        chosen = t[0] if t else temperature
        return logitlab.cross_entropy(z, y, 1, temperature=chosen, **options)

    inputs = (z, t) if temperature is None else (z,)
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("function", FUNCTIONS[:2], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("create_graph", [False, True])
def test_huge_upstream_gradients(function, dtype, create_graph):
    """Neither a difference nor a sum of them overflows."""
    largest = torch.finfo(dtype).max
    z = torch.zeros(3, dtype=dtype, requires_grad=True)
    upstream = torch.tensor([0.75, 0.75, -0.75], dtype=dtype) * largest
    (gradient,) = torch.autograd.grad(function(z), z, upstream, create_graph=create_graph)
    right = [1 / 6, 1 / 6, -1 / 3] if function is logitlab.softmax else [0.5, 0.5, -1.0]
    torch.testing.assert_close(gradient, torch.tensor(right, dtype=dtype) * largest)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_by_the_targets(smoothing):
    z, y = logits(6, 5), torch.softmax(logits(5, 6).detach().T, 1).requires_grad_()
    with torch.no_grad():
        y[0] = F.one_hot(torch.tensor(2), 5)
    ours = logitlab.cross_entropy(z, y, label_smoothing=smoothing)
    theirs = F.cross_entropy(z, y, label_smoothing=smoothing)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (z, y)), torch.autograd.grad(theirs, (z, y))
    )


@pytest.mark.parametrize("shape", [(3, 5), (2, 700), (1, 9001)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_backward_matches_torch(shape, dtype):
    z = logits(*shape, dtype=torch.float32).detach().to(dtype).requires_grad_()
    g = torch.randn(shape, generator=generator()).to(dtype)
    wide = z.detach().double().requires_grad_()
    for name in ("softmax", "log_softmax"):
        ours = torch.autograd.grad(getattr(logitlab, name)(z), z, g)[0]
        theirs = torch.autograd.grad(getattr(torch, name)(wide, -1), wide, g.double())[0]
        assert ours.dtype is dtype
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(ours.double(), theirs, rtol=8 * eps, atol=64 * eps)


@by_function
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_excluded_and_infinite_entries(function, create_graph):
    """0 at excluded entries and in rows that no finite change affects, by both backward passes."""
    z = torch.tensor(
        [[1.0, -torch.inf, 2.0, 0.5], [torch.inf, 0.0, 1.0, 2.0], [-torch.inf] * 3 + [7.0]],
        dtype=torch.float64,
        requires_grad=True,
    )
    where = torch.tensor([True, True, True, False])
    value = function(z, where=where)
    g = torch.randn(value.shape, dtype=z.dtype, generator=generator())
    gradient = torch.autograd.grad(value, z, g, create_graph=create_graph)[0].detach()
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 3] == 0).all()
    assert gradient[0, 1] == 0
    assert (gradient[0, [0, 2]] != 0).all()
    assert (gradient[1:] == 0).all()


def test_loss_of_infinite_logits():
    z = torch.tensor([[torch.inf, 1.0, 2.0], [torch.inf, torch.inf, 1.0]], requires_grad=True)
    y = torch.tensor([1, 0])
    gradients = [
        torch.autograd.grad(logitlab.cross_entropy(z, y, reduction="sum"), z, create_graph=graph)[0]
        for graph in (False, True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1].detach())
    expected = logitlab.cross_entropy_and_grad(z.detach().numpy(), y.numpy(), reduction="sum")[1]
    torch.testing.assert_close(gradients[0], torch.from_numpy(expected))


def test_tensor_with_the_negative_bit():
    x = torch.conj(torch.complex(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))).imag
    assert x.is_neg()
    torch.testing.assert_close(logitlab.softmax(x), torch.softmax(x, -1))


def test_saturated_rows_keep_their_gradient():
    """In these rows the float32 gradient of torch is 0 or has a large relative error."""
    z = torch.tensor([[30.0, 0.0]], requires_grad=True)
    logitlab.cross_entropy(z, torch.tensor([0])).backward()
    assert float(z.grad[0, 0]) == pytest.approx(-9.357622968840175e-14, rel=1e-6)
    z.grad = None
    logitlab.log_softmax(z)[0, 0].backward()
    assert float(z.grad[0, 0]) == pytest.approx(9.357622968840175e-14, rel=1e-6)


def test_functional_transforms():
    z = logits(4, 5).detach()
    y = torch.tensor([0, 2, 4, 1])

    def loss(z, y):
        return logitlab.cross_entropy(z, y, reduction="sum")

    each = torch.func.vmap(torch.func.grad(loss))(z, y)
    together = torch.func.grad(loss)(z, y)
    torch.testing.assert_close(each, together)
    torch.testing.assert_close(each, logitlab.softmax(z) - F.one_hot(y, 5))
    v = torch.ones_like(z)
    out, tangent = torch.func.jvp(logitlab.softmax, (z,), (v,))
    torch.testing.assert_close(out, logitlab.softmax(z))
    torch.testing.assert_close(tangent, torch.zeros_like(z), atol=1e-15, rtol=0)


def test_vmap():
    """Over any argument, also if a tensor that is not mapped requires a gradient."""
    z, y = logits(2, 3, 5).detach(), torch.tensor([[0, 2, 4], [1, 1, 0]])
    each = torch.stack([logitlab.cross_entropy(a, b) for a, b in zip(z, y, strict=True)])
    torch.testing.assert_close(torch.vmap(logitlab.cross_entropy)(z, y), each)
    even = torch.softmax(z.flip(2), 2)
    each = torch.stack([logitlab.cross_entropy(a, b) for a, b in zip(z, even, strict=True)])
    torch.testing.assert_close(torch.vmap(logitlab.cross_entropy)(z, even), each)
    jacobians = torch.stack([logitlab.jacobian(a) for a in z])
    torch.testing.assert_close(torch.vmap(logitlab.jacobian)(z), jacobians)
    leaf = z[0].clone().requires_grad_()
    loops = torch.vmap(lambda w: w * logitlab.cross_entropy(leaf, y[0]))(torch.ones(2))
    torch.testing.assert_close(loops, logitlab.cross_entropy(leaf, y[0]).repeat(2))


@pytest.mark.parametrize("kind", ["mean", "none", "linear", "softmax", "log_softmax"])
def test_batched_backward_passes(kind):
    z, y = logits(3, 4), torch.tensor([0, 1, 2])
    if kind == "linear":
        value = logitlab.linear_cross_entropy(z, torch.eye(4, dtype=z.dtype), y)
    elif kind in ("mean", "none"):
        value = logitlab.cross_entropy(z, y, reduction=kind)
    else:
        value = getattr(logitlab, kind)(z)
    g = torch.randn(5, *value.shape, dtype=z.dtype, generator=generator())
    together = torch.autograd.grad(value, z, g, is_grads_batched=True, retain_graph=True)[0]
    each = [torch.autograd.grad(value, z, one, retain_graph=True)[0] for one in g]
    torch.testing.assert_close(together, torch.stack(each))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kind", ["labels", "distributions"])
@pytest.mark.parametrize(
    ("dtype", "gap"), [(torch.bfloat16, 8.0), (torch.float32, 30.0), (torch.float64, 45.0)]
)
def test_saturated_losses_keep_their_gradient(dtype, gap, kind, create_graph):
    z = torch.tensor([[gap, 0.0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([0]) if kind == "labels" else torch.tensor([[1.0, 0.0]])
    loss = logitlab.cross_entropy(z, y)
    gradient = torch.autograd.grad(loss, z, create_graph=create_graph)[0].tolist()[0]
    p = logitlab.softmax([gap, 0.0])[1]
    assert gradient == pytest.approx([-p, p], rel=torch.finfo(dtype).eps)


@pytest.mark.parametrize("create_graph", [False, True])
def test_many_classes_in_float16(create_graph):
    z = torch.zeros(1, 70000, dtype=torch.float16, requires_grad=True)
    loss = logitlab.cross_entropy(z + torch.eye(1, 70000) * 2, torch.tensor([3]))
    smoothed = logitlab.cross_entropy(z, torch.tensor([3]), label_smoothing=0.5)
    assert loss.item() == pytest.approx(11.156, rel=1e-3)
    gradient = torch.autograd.grad(smoothed, z, create_graph=create_graph)[0]
    assert gradient[0, 0].item() == pytest.approx(0.5 / 70000, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("temperature", [1e-39, 1e-300, 5e-324])
def test_gradients_of_zero_at_tiny_temperatures(dtype, create_graph, temperature):
    z = torch.tensor([[0.0, 3, -1], [3, 1, 2]], dtype=dtype, requires_grad=True)
    p = logitlab.softmax(z, temperature=temperature)
    weight = torch.tensor([1.0, 2, 3], dtype=dtype)
    (dz,) = torch.autograd.grad((p * weight).sum(), z, create_graph=create_graph)
    assert dz.tolist() == [[0, 0, 0], [0, 0, 0]]
    log_p = logitlab.log_softmax(z, temperature=temperature)
    (dz,) = torch.autograd.grad(log_p[0, 1] + log_p[1, 0], z, create_graph=create_graph)
    assert dz.tolist() == [[0, 0, 0], [0, 0, 0]]


def _losses(kind):
    """Leaf tensors, and a loss of logitlab and of torch as functions of them."""
    g = torch.Generator().manual_seed(3)
    y = torch.randint(7, (40,), generator=g)
    y[::5] = -100
    z = torch.randn(40, 7, generator=g, dtype=torch.float64)
    weight = torch.randn(7, 7, generator=g, dtype=torch.float64)
    if kind == "linear_cross_entropy":
        leaves = [z.requires_grad_(), weight.requires_grad_()]
        ours = partial(logitlab.linear_cross_entropy, y=y, ignore_index=-100)
        return leaves, ours, lambda a, w, **k: F.cross_entropy(a @ w.T, y, **k)
    ours = partial(logitlab.cross_entropy, y=y, ignore_index=-100)
    return [z.requires_grad_()], ours, partial(F.cross_entropy, target=y)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["cross_entropy", "linear_cross_entropy"])
def test_repeated_backward_passes(kind, reduction):
    leaves, ours, theirs = _losses(kind)
    value, other = ours(*leaves, reduction=reduction), theirs(*leaves, reduction=reduction)
    torch.testing.assert_close(value, other)
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    expected = torch.autograd.grad(other, leaves, retain_graph=True)
    torch.testing.assert_close(first, expected)
    for x in first:
        x.zero_()  # the gradients belong to the caller
    torch.testing.assert_close(torch.autograd.grad(value, leaves, retain_graph=True), expected)
    scaled = torch.autograd.grad(-2.5 * value, leaves)
    torch.testing.assert_close(scaled, torch.autograd.grad(-2.5 * other, leaves))
    assert gradgradcheck(lambda *x: ours(*x, reduction=reduction), leaves)


def test_scaled_loss_keeps_small_gradients_of_half_types():
    z = torch.zeros(4096, 100, dtype=torch.float16)
    z[:, 0] = 8
    z.requires_grad_()
    y = torch.zeros(4096, dtype=torch.int64)
    (logitlab.cross_entropy(z, y) * 4096.0).backward()
    exact = logitlab.softmax(z.detach().double())[0, 1]
    torch.testing.assert_close(z.grad[0, 1].double(), exact, rtol=1e-3, atol=0)


def test_changed_inputs_are_an_error():
    leaves, ours, _ = _losses("cross_entropy")
    value = ours(*leaves)
    with torch.no_grad():
        leaves[0].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        value.backward()


@pytest.mark.parametrize("changed", ["labels", "targets", "mask"])
def test_changed_targets_or_masks_are_an_error(changed):
    z = torch.randn(6, 4, requires_grad=True)
    y = torch.full((6, 4), 0.25) if changed == "targets" else torch.zeros(6, dtype=torch.int64)
    where = torch.ones(6, 4, dtype=torch.bool)
    value = logitlab.cross_entropy(z, y, where=where)
    where[:, 3].logical_not_() if changed == "mask" else y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        value.backward()


def test_common_losses_have_the_bits_of_arrays():
    """Labels without options: the loss, its gradient, and again in a later backward pass."""
    for dtype in (torch.float32, torch.float64):
        z = (torch.randn(6, 7, generator=torch.Generator().manual_seed(3)) * 5).to(dtype)
        y = torch.tensor([0, 6, 3, 3, 1, 5])
        loss, gradient = logitlab.cross_entropy_and_grad(z.numpy(), y.numpy(), temperature=0.7)
        of_tensors = logitlab.cross_entropy_and_grad(z, y, temperature=0.7)
        variable = z.clone().requires_grad_()
        recorded = logitlab.cross_entropy(variable, y, temperature=0.7)
        for result in (logitlab.cross_entropy(z, y, temperature=0.7), of_tensors[0], recorded):
            assert result.dtype is dtype
            assert result.item() == loss
        assert torch.equal(of_tensors[1], torch.from_numpy(gradient))
        for factor in (1.0, 3.0, 1.0):
            [g] = torch.autograd.grad(recorded * factor, variable, retain_graph=True)
            # Every backward pass has the same bits.
            assert torch.equal(g, torch.from_numpy(gradient) * factor)
        assert logitlab.cross_entropy(variable.detach(), y).grad_fn is None


@pytest.mark.parametrize("function", [logitlab.softmax, logitlab.log_softmax, cross_entropy_of_0])
def test_hooks_of_saved_tensors_may_change_the_layout(function):
    """They return a tensor of equal values, of which the rows need not be contiguous."""

    def transposed(x):
        return x.t().contiguous().t() if x.ndim == 2 else x

    z, g = logits(3, 4).detach(), torch.randn(3, 4, dtype=torch.float64, generator=generator())
    gradients = []
    for unpack in (lambda x: x, transposed):
        variable = z.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x, unpack):
            value = function(variable)
        upstream = g if value.ndim else None
        gradients += [
            torch.autograd.grad(value, variable, upstream, retain_graph=True)[0] for _ in "ab"
        ]
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_results_are_on_the_device_of_the_logits():
    z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    torch.set_default_device("meta")
    try:
        variable = z.clone().requires_grad_()
        loss = logitlab.cross_entropy(variable, y)
        loss.backward()
        others = logitlab.cross_entropy(z, y), *logitlab.cross_entropy_and_grad(z, y)
    finally:
        torch.set_default_device(None)
    assert {x.device.type for x in (loss, variable.grad, *others)} == {"cpu"}
