"""torch modules, compared with those of torch.nn, and the operators for torch.compile."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits
from torch import nn

import logitlab
import logitlab._torch_compile as _operators  # noqa: F401 - registers the operators
from logitlab.torch import LinearCrossEntropyLoss, LogSoftmax, Softmax


def generator():
    return torch.Generator().manual_seed(0)


def test_modules_match_torch():
    z = torch.randn(3, 4, 5, generator=generator())
    for dim in (0, 1, -1):
        torch.testing.assert_close(Softmax(dim)(z), nn.Softmax(dim)(z))
        torch.testing.assert_close(LogSoftmax(dim)(z), nn.LogSoftmax(dim)(z))
    assert float(Softmax(None)(z).sum()) == pytest.approx(1)
    assert Softmax(1, 2.0).jacobian(z).shape == (3, 5, 4, 4)
    assert repr(Softmax(1, 0.5)) == "Softmax(dim=1, temperature=0.5)"
    assert Softmax().state_dict() == {}
    ours, theirs = (c(5, 7, bias=True) for c in (LinearCrossEntropyLoss, nn.LinearCrossEntropyLoss))
    ours.load_state_dict(theirs.state_dict())
    x, y = torch.randn(4, 5, generator=generator()), torch.tensor([0, -100, 6, 3])
    torch.testing.assert_close(ours(x, y), theirs(x, y))


def test_learnable_temperature():
    """It is optimized, stays positive, and is restored from a state dictionary."""
    z = torch.randn(50, 4, generator=generator()) * 5
    y = torch.randint(0, 4, (50,), generator=generator())
    module = LogSoftmax(temperature=1.5, learnable=True)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(50):
        optimiser.zero_grad()
        F.nll_loss(module(z), y).backward()
        optimiser.step()
    assert float(module.temperature.detach()) > 2
    restored = LogSoftmax(temperature=1.0, learnable=True)
    restored.load_state_dict(module.state_dict())
    assert torch.equal(restored(z), module(z))
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        Softmax(temperature=0.0, learnable=True)


@pytest.mark.parametrize("module", [Softmax, LogSoftmax, partial(LinearCrossEntropyLoss, 3, 4)])
def test_invalid_temperatures(module):
    for value in (True, np.False_, "1", torch.tensor(1.0)):
        with pytest.raises(TypeError, match="temperature must be a real number, got"):
            module(temperature=value)
    with pytest.raises(ValueError, match="temperature must be a number, 0 and ±inf included"):
        module(temperature=float("nan"))
    with pytest.raises(TypeError, match="learnable must be True or False, got 1"):
        module(learnable=1)


@pytest.mark.parametrize("name", ["temperature", "label_smoothing"])
def test_booleans_are_refused_under_compile(name):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda z: logitlab.cross_entropy(z, Y, **{name: True}), backend="aot_eager"
    )
    with pytest.raises(Exception, match=f"{name} must be a real number, got True"):
        compiled(Z)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_weights_and_batches_of_the_linear_loss_match_torch(reduction, smoothing):
    weight = torch.rand(7, generator=generator()) * 3
    options = {"bias": True, "weight": weight, "reduction": reduction, "ignore_index": -100}
    ours = LinearCrossEntropyLoss(5, 7, label_smoothing=smoothing, **options)
    theirs = nn.LinearCrossEntropyLoss(5, 7, label_smoothing=smoothing, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 4, 5, generator=generator())
    y = torch.randint(0, 7, (3, 4), generator=generator())
    y[1, 2] = -100
    logits = F.linear(x, theirs.linear.weight, theirs.linear.bias).permute(0, 2, 1)
    expected = F.cross_entropy(
        logits, y, weight, reduction=reduction, label_smoothing=smoothing
    ).detach()
    torch.testing.assert_close(ours(x, y).detach(), expected)
    torch.testing.assert_close(ours(x[0, 0], y[0, 0]).detach(), theirs(x[0, 0], y[0, 0]).detach())


def test_reset_parameters():
    """Also of modules made on the meta device."""
    for kind in (Softmax, LogSoftmax, partial(LinearCrossEntropyLoss, 3, 4)):
        with torch.device("meta"):
            module = kind(temperature=2.0, learnable=True)
        assert "temperature=2" in repr(module)
        module.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(torch.nan)
        module.reset_parameters()
        assert module.temperature.item() == pytest.approx(2)
        assert all(torch.isfinite(p).all() for p in module.parameters())
    Softmax(temperature=2.0).reset_parameters()  # it has no parameters
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    module = LinearCrossEntropyLoss(3, 4, device="meta", weight=weight, learnable=True)
    assert module.log_temperature.is_meta
    module.to_empty(device="cpu").reset_parameters()
    assert torch.equal(module.weight, weight)


def test_learnable_temperature_of_the_linear_loss():
    """Its gradient is that of the loss of the logits."""
    module = LinearCrossEntropyLoss(3, 4, temperature=1.5, learnable=True)
    x = torch.randn(50, 3, generator=generator())
    y = torch.randint(0, 4, (50,), generator=generator())
    module(x, y).backward()
    t = module.temperature.detach().requires_grad_()
    logitlab.cross_entropy(module.linear(x), y, temperature=t).backward()
    torch.testing.assert_close(module.log_temperature.grad, t.grad * t.detach())


def test_training_on_digits_gives_the_losses_of_torch():
    """At every step, with nn.Linear and cross_entropy and with LinearCrossEntropyLoss."""
    data = load_digits()
    x = torch.from_numpy((data.data / 16).astype(np.float32))
    y = torch.from_numpy(data.target)
    torch.manual_seed(0)
    layer = nn.Linear(64, 10)
    fused = LinearCrossEntropyLoss(64, 10, bias=True)
    fused.linear.load_state_dict(layer.state_dict())
    twin = nn.Linear(64, 10)
    twin.load_state_dict(layer.state_dict())
    calls = [
        (layer, lambda a, b: F.cross_entropy(layer(a), b)),
        (twin, lambda a, b: logitlab.cross_entropy(twin(a), b)),
        (fused, fused),
    ]
    optimisers = [torch.optim.SGD(m.parameters(), lr=0.5) for m, _ in calls]
    for i in range(60):
        rows = slice(i * 64 % 1700, i * 64 % 1700 + 64)
        losses = []
        for (_, loss), optimiser in zip(calls, optimisers, strict=True):
            optimiser.zero_grad()
            value = loss(x[rows], y[rows])
            value.backward()
            optimiser.step()
            losses.append(float(value.detach()))
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert losses[2] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0] < 1


Z = torch.randn(4, 5, generator=generator())
Y = torch.tensor([0, 4, 2, 1])
WEIGHT = torch.randn(6, 5, generator=generator())
ROWS = torch.rand(4, generator=generator()) + 0.5
GRAPHS = {
    "softmax": lambda z: logitlab.softmax(z, 0, temperature=0.5),
    "softmax, a tuple": lambda z: logitlab.softmax(z, (0, 1)),
    "softmax, T a row": lambda z: logitlab.softmax(z, temperature=ROWS.to(z.dtype)),
    "log_softmax": lambda z: logitlab.log_softmax(z, where=Z > -1).clamp(min=-50),
    "logsumexp": lambda z: logitlab.logsumexp(z),
    "logsumexp, all": lambda z: logitlab.logsumexp(z, None, keepdims=True),
    "cross_entropy": lambda z: logitlab.cross_entropy(z, Y, ignore_index=2),
    "cross_entropy, rows": lambda z: logitlab.cross_entropy(
        z, Y, label_smoothing=0.1, reduction="none"
    ),
    "cross_entropy, weights": lambda z: logitlab.cross_entropy(
        z, Y, weight=Z[0].abs().to(z.dtype), label_smoothing=0.1, ignore_index=(1, -100)
    ),
    "linear, T a row": lambda z: logitlab.linear_cross_entropy(
        z, WEIGHT.to(z.dtype), Y, temperature=ROWS.to(z.dtype) + z[:, 0].abs()
    ),
    "linear": lambda z: logitlab.linear_cross_entropy(z, WEIGHT.to(z.dtype), Y),
    "linear, batch": lambda z: logitlab.linear_cross_entropy(
        z.reshape(2, 2, 5),
        WEIGHT.to(z.dtype),
        Y.reshape(2, 2),
        temperature=ROWS.to(z.dtype).reshape(2, 2) + z[:2, :2].abs(),
        class_weight=WEIGHT[:, 0].abs(),
        label_smoothing=0.1,
        ignore_index=[2, 3],
        reduction="none",
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_compiled_functions(name):
    """One graph without a break, with the eager values and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(GRAPHS[name], fullgraph=True, backend="aot_eager")
    results = []
    for function in (GRAPHS[name], compiled):
        z = Z.clone().requires_grad_()
        value = function(z)
        (value * value).sum().backward()
        results.append((value.detach(), z.grad))
    torch.testing.assert_close(results[1], results[0])


def test_errors_under_compile():
    """An axis out of bounds; an argument whose gradient is not computed."""
    for axis in (5, (1, 1)):
        with pytest.raises(Exception, match="axis"):
            torch.compile(lambda z, a=axis: logitlab.softmax(z, a), fullgraph=True)(Z)
    weight = torch.ones(4, requires_grad=True)
    compiled = torch.compile(
        lambda z: logitlab.cross_entropy(z, Y, sample_weight=weight), backend="aot_eager"
    )
    with pytest.raises(Exception, match="sample_weight must not require a gradient"):
        compiled(Z.clone().requires_grad_()).backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor():
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: logitlab.softmax(z * 2).square().sum(), fullgraph=True)
    z = Z.clone().requires_grad_()
    compiled(z).backward()
    x = Z.clone().requires_grad_()
    logitlab.softmax(x * 2).square().sum().backward()
    torch.testing.assert_close(z.grad, x.grad)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [False, True])
def test_operators(masked, rows):
    """Fake and real implementations agree, gradients included."""
    z = Z.double().requires_grad_()
    where = Z > -1 if masked else None
    t = ROWS.double().requires_grad_() if rows else None
    operators = torch.ops.logitlab
    for name in ("softmax", "logsumexp"):
        torch.library.opcheck(operators.probabilities, (name, z, 1, 0.7, t, where))
    loss = (z, Y, 1, 0.7, t, where, 0.1 if masked else 0.0, None, None, "none", None)
    torch.library.opcheck(operators.cross_entropy, loss)
    weight = WEIGHT.double().requires_grad_()
    fixed = None if t is None else t.detach()
    linear = (z, weight, Y, None, 0.7, fixed, 0.0, None, None, "mean", None)
    torch.library.opcheck(operators.linear_cross_entropy, linear)
