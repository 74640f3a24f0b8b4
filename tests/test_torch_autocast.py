"""The functions under torch.autocast, compared with those of torch."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import logitlab
from logitlab import _dispatch
from logitlab.torch import LinearCrossEntropyLoss, LogSoftmax, Softmax

HALF = [torch.float16, torch.bfloat16]
OPERATORS = {
    "softmax": "softmax.int",
    "log_softmax": "log_softmax.int",
    "logsumexp": "logsumexp",
    "kl_divergence": "kl_div",
    "cross_entropy": "nll_loss",
}


def data(dtype=torch.bfloat16):
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=g).to(dtype), torch.randint(5, (6,), generator=g)


@pytest.mark.parametrize("device", ["CPU", "CUDA"])
def test_the_functions_computed_in_float32_are_those_of_torch(device):
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    theirs = {
        f for f, name in OPERATORS.items() if has_kernel(f"aten::{name}", f"Autocast{device}")
    }
    ours = _dispatch._AUTOCAST_CPU if device == "CPU" else _dispatch._AUTOCAST
    assert ours == theirs | {"linear_cross_entropy"}


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_types_on_cpus(dtype):
    z, y = data(dtype)
    with torch.autocast("cpu"):
        pairs = [
            (logitlab.softmax(z), F.softmax(z, -1)),
            (logitlab.log_softmax(z), F.log_softmax(z, -1)),
            (logitlab.logsumexp(z), torch.logsumexp(z, -1)),
            (Softmax()(z), torch.nn.Softmax(-1)(z)),
            (LogSoftmax()(z), torch.nn.LogSoftmax(-1)(z)),
            (logitlab.cross_entropy(z, y), F.cross_entropy(z, y)),
            (
                logitlab.cross_entropy(z, y, reduction="none"),
                F.cross_entropy(z, y, reduction="none"),
            ),
            (logitlab.cross_entropy(z, z.softmax(-1)), F.cross_entropy(z, z.softmax(-1))),
        ]
        assert logitlab.kl_divergence(z, z.flip(0)).dtype is torch.promote_types(
            dtype, torch.float32
        )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
    with torch.autocast("cpu", enabled=False):
        assert logitlab.cross_entropy(z, y).dtype is dtype


@pytest.mark.parametrize("dtype", HALF)
def test_gradients_have_the_type_of_the_input(dtype):
    z, y = data(dtype)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    with torch.autocast("cpu"):
        value = logitlab.cross_entropy(ours, y)
        expected = F.cross_entropy(theirs, y)
        loss, gradient = logitlab.cross_entropy_and_grad(z, y)
    value.backward()
    expected.backward()
    assert ours.grad.dtype is gradient.dtype is dtype
    torch.testing.assert_close(value, expected)
    assert torch.equal(loss, value.detach())
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(gradient, theirs.grad)


@pytest.mark.parametrize("dtype", HALF)
def test_features_of_half_types_with_a_head_of_float32(dtype):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 5, generator=g).to(dtype).requires_grad_()
    y = torch.randint(7, (2, 3), generator=g)
    ours = LinearCrossEntropyLoss(5, 7, bias=True)
    with torch.autocast("cpu", dtype=dtype):
        value = ours(x, y)
        loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(
            x.detach(), ours.linear.weight.detach(), y, bias=ours.linear.bias.detach()
        )
    value.backward()
    parameters = ours.linear.weight, ours.linear.bias
    wide = [a.detach().double().requires_grad_() for a in (x, *parameters)]
    expected = F.cross_entropy(F.linear(*wide).flatten(0, 1), y.flatten())
    expected.backward()
    assert value.dtype is loss.dtype is torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    for one, other, like in zip(
        (x.grad, *(p.grad for p in parameters)), (dx, dweight, dbias), (x, *parameters), strict=True
    ):
        assert one.dtype is other.dtype is like.dtype
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(ours.linear.weight.grad.double(), wide[1].grad, rtol=1e-5, atol=1e-7)
    with pytest.raises(TypeError, match=r"weight must have the type of x, .*, got float32"):
        ours(x, y)


def test_autocast_under_compile():
    z, y = data()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda z: logitlab.cross_entropy(z, y), fullgraph=True, backend="aot_eager"
    )
    with torch.autocast("cpu"):
        torch.testing.assert_close(compiled(z), F.cross_entropy(z, y))
