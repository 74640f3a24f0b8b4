"""Traces, transforms and modes of torch: the eager values on other data, or one clear error."""

from functools import partial

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import logitlab
from logitlab._backends import native, torch_kernels

# torch.jit.trace warns wherever a size is compared, and is deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def data(seed):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(4, 5, generator=g), torch.randint(5, (4,), generator=g)


def weight(z):
    return torch.linspace(-1, 1, 30, device=z.device).reshape(6, 5)


def vector(z):
    return torch.linspace(0, 2, 20, device=z.device).reshape(4, 5)


def gradient(z, y):
    z = z.detach().requires_grad_()
    loss = logitlab.cross_entropy(z, y) + logitlab.softmax(z).square().sum()
    return torch.autograd.grad(loss, z)[0]


FUNCTIONS = {
    "softmax": lambda z, y: logitlab.softmax(z, 0, temperature=0.5),
    "softmax, all axes": lambda z, y: logitlab.softmax(z, None),
    "softmax, T a row": lambda z, y: logitlab.softmax(z, temperature=z[:, 0].abs() + 1),
    "softmax, out": lambda z, y: logitlab.softmax(z, out=torch.empty_like(z)),
    "log_softmax": lambda z, y: logitlab.log_softmax(z, where=z != z[:, :1]),
    "logsumexp": lambda z, y: logitlab.logsumexp(z),
    "logits": lambda z, y: logitlab.logits(z.exp()),
    "cross_entropy": lambda z, y: logitlab.cross_entropy(z, y, ignore_index=2),
    "cross_entropy, smoothed": lambda z, y: logitlab.cross_entropy(
        z, y, label_smoothing=0.1, reduction="none"
    ),
    "cross_entropy, distributions": lambda z, y: logitlab.cross_entropy(z, z.softmax(-1)),
    "cross_entropy_and_grad": lambda z, y: logitlab.cross_entropy_and_grad(z, y)[1],
    "linear": lambda z, y: logitlab.linear_cross_entropy(z, weight(z), y, ignore_index=1),
    "linear, gradients": lambda z, y: logitlab.linear_cross_entropy_and_grad(
        z, weight(z), y, bias=weight(z)[:, 0]
    )[1][1],
    "jacobian": lambda z, y: logitlab.jacobian(z),
    "jacobian_product": lambda z, y: logitlab.jacobian_product(z, vector(z)),
    "hessian": lambda z, y: logitlab.hessian(z),
    "hessian_product": lambda z, y: logitlab.hessian_product(z, vector(z), vector(z)),
    "entropy": lambda z, y: logitlab.entropy(z),
    "kl_divergence": lambda z, y: logitlab.kl_divergence(z, vector(z)),
}
USES_VECTOR = {"jacobian_product", "hessian_product", "kl_divergence"}  # of four rows
READS_VALUES = {
    "truncate": lambda z, y: logitlab.truncate(z, top_k=2),
    "penalize": lambda z, y: logitlab.penalize(z, y[:, None], repetition_penalty=2.0),
    "sample": lambda z, y: logitlab.sample(z, 3, rng=0),
    "sample_with_log_prob": lambda z, y: logitlab.sample_with_log_prob(z, 3, rng=0)[1],
    "accuracy": lambda z, y: torch.tensor(logitlab.accuracy(z, y)),
    "calibration_error": lambda z, y: torch.tensor(logitlab.calibration_error(z, y)),
}


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z, y):
        return self.function(z, y)


def fx(**options):
    def trace(function):
        return make_fx(function, _allow_non_fake_inputs=True, **options)(*data(0))

    return trace


TRACERS = {
    "make_fx": fx(),
    "make_fx, pre-dispatch": fx(pre_dispatch=True),
    "make_fx, symbolic": fx(tracing_mode="symbolic"),
    "torch.jit.trace": lambda f: torch.jit.trace(f, data(0), check_trace=False),
    "torch.export": lambda f: torch.export.export(Module(f), data(0)).module(),
    "torch.func.functionalize": torch.func.functionalize,
    "torch.vmap": lambda f: lambda z, y: torch.vmap(f)(*(torch.stack([x, x]) for x in (z, y)))[1],
}


@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_traces_compute_on_other_data(tracer, name):
    if (tracer, name) == ("torch.vmap", "softmax, out"):
        return  # torch.empty_like is not batched
    traced = TRACERS[tracer](FUNCTIONS[name])
    for z, y in (data(1), data(2)):
        torch.testing.assert_close(traced(z, y), FUNCTIONS[name](z, y))


@pytest.mark.parametrize("tracer", ["make_fx, symbolic", "torch.jit.trace"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - USES_VECTOR))
def test_traces_of_any_number_of_rows(tracer, name):
    traced = TRACERS[tracer](FUNCTIONS[name])
    z, y = torch.cat([data(1)[0], data(2)[0]]), torch.cat([data(1)[1], data(2)[1]])
    torch.testing.assert_close(traced(z, y), FUNCTIONS[name](z, y))


@pytest.mark.parametrize("tracer", ["make_fx", "make_fx, symbolic"])
def test_traced_gradients(tracer):
    traced = TRACERS[tracer](gradient)
    torch.testing.assert_close(traced(*data(1)), gradient(*data(1)))


def test_ignored_rows_of_traces_may_contain_nan():
    """Also if no row was ignored while tracing."""

    def loss(z, y):
        return logitlab.linear_cross_entropy_and_grad(z, weight(z), y, ignore_index=2)[1][1]

    z, y = data(1)
    z[0], y[0] = torch.nan, 2
    for tracer in ("make_fx", "torch.jit.trace"):
        torch.testing.assert_close(TRACERS[tracer](loss)(z, y), loss(z, y))


@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.parametrize("name", READS_VALUES)
def test_functions_that_read_values_refuse_to_be_traced(tracer, name):
    with pytest.raises(TypeError, match="z must have values, which this function reads, got a tr"):
        TRACERS[tracer](READS_VALUES[name])(*data(1))


@pytest.mark.parametrize("name", ["truncate", "penalize", "sample", "sample_with_log_prob"])
def test_torch_compile_calls_sampling_eagerly(name):
    torch._dynamo.reset()
    function = READS_VALUES[name]
    compiled = torch.compile(lambda z, y: function(z * 2, y) + 1, backend="aot_eager")
    z, y = data(1)
    torch.testing.assert_close(compiled(z, y), function(z * 2, y) + 1)


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.outputs = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.outputs.add(result.data_ptr())
        return result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dispatch_modes_see_the_result(name):
    z, y = data(1)
    with Recorder() as recorder:
        value = FUNCTIONS[name](z, y)
    assert value.data_ptr() in recorder.outputs
    torch.testing.assert_close(value, FUNCTIONS[name](z, y))


@pytest.mark.parametrize("name", READS_VALUES)
def test_functions_that_read_values_work_in_dispatch_modes(name):
    z, y = data(1)
    with Recorder():
        value = READS_VALUES[name](z, y)
    torch.testing.assert_close(value, READS_VALUES[name](z, y))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["fake", "meta"])
def test_shapes_without_values(name, kind):
    z, y = data(1)
    expected = FUNCTIONS[name](z, y)
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in (z, y)]
        value = FUNCTIONS[name](*fake)
    if kind == "meta":
        value = FUNCTIONS[name](z.to("meta"), y.to("meta"))
    assert (value.shape, value.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("name", READS_VALUES)
def test_functions_that_read_values_refuse_tensors_without_them(name):
    z, y = data(1)
    with FakeTensorMode() as mode, pytest.raises(TypeError, match="z must have values"):
        READS_VALUES[name](mode.from_tensor(z), mode.from_tensor(y))
    with pytest.raises(TypeError, match="z must have values"):
        READS_VALUES[name](z.to("meta"), y.to("meta"))


@pytest.mark.parametrize("name", FUNCTIONS | READS_VALUES)
def test_default_device(name):
    """It does not change where results are."""
    z, y = data(1)
    expected = (FUNCTIONS | READS_VALUES)[name](z, y)
    if name in ("accuracy", "calibration_error", "softmax, out"):
        return
    with torch.device("meta"):
        assert torch.equal((FUNCTIONS | READS_VALUES)[name](z, y), expected)


def test_backward_passes_in_dispatch_modes():
    """Of values computed outside of the mode."""
    z, y = data(1)
    z.requires_grad_()

    def backward(g, value):
        return torch.autograd.grad(value, z, g, retain_graph=True)[0]

    for value in (
        logitlab.softmax(z).square().sum(),
        logitlab.cross_entropy(z, y),
        logitlab.cross_entropy(z, y, reduction="none").sum(),
        logitlab.linear_cross_entropy(z, weight(z), y, reduction="none").sum(),
    ):
        expected = torch.autograd.grad(value, z, retain_graph=True)[0]
        with Recorder():
            torch.testing.assert_close(backward(torch.tensor(-2.5), value), -2.5 * expected)
        traced = make_fx(partial(backward, value=value))(torch.tensor(1.0))
        torch.testing.assert_close(traced(torch.tensor(-2.5)), -2.5 * expected)


LAYOUTS = {
    "nested": lambda z: torch.nested.nested_tensor([z[0], z[1, :3]]),
    "jagged": lambda z: torch.nested.nested_tensor([z[0], z[1, :3]], layout=torch.jagged),
    "sparse_coo": lambda z: z.to_sparse(),
    "sparse_csr": lambda z: z.to_sparse_csr(),
    "mkldnn": lambda z: z.to_mkldnn(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nested_and_sparse_tensors_are_refused(layout):
    z, y = data(1)
    x = LAYOUTS[layout](z)
    calls = [
        *(lambda f=f: f(x) for f in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp)),
        *(lambda f=f: f(x) for f in (logitlab.jacobian, logitlab.hessian, logitlab.entropy)),
        *(lambda f=f: f(x) for f in (logitlab.sample, logitlab.truncate)),
        lambda: logitlab.jacobian_product(x, z),
        lambda: logitlab.cross_entropy(x, y),
        lambda: logitlab.cross_entropy_and_grad(x, y),
        lambda: logitlab.accuracy(x, y),
        lambda: logitlab.kl_divergence(x, z),
        lambda: logitlab.linear_cross_entropy(x, weight(z), y),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"(z|x) must be a dense tensor, got"):
            call()


@pytest.mark.skipif(not native.native_available(), reason="needs the compiled kernels")
def test_which_tensors_the_kernels_read(monkeypatch):
    """Dense CPU tensors of a float type, outside of traces and transforms; no others."""
    calls = []
    names = (
        "elementwise",
        "reduce_logsumexp",
        "row_losses",
        "plain_cross_entropy",
        "product",
        "linear_loss",
    )
    for module, name in [(native._native, "rows"), *((native, name) for name in names)]:
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, f=function, n=name, **k: (calls.append(n), f(*a, **k))[1]
        )

    def uses_kernel(function, *arguments):
        calls.clear()
        function(*arguments)
        return bool(calls)

    z, y = data(1)
    kernels = [
        (logitlab.softmax, z),
        (logitlab.log_softmax, z.bfloat16()),
        (logitlab.logsumexp, z.half()),
        (logitlab.softmax, z.double()),
        (logitlab.softmax, z.T),
        (logitlab.softmax, z[:, ::2]),
        (logitlab.softmax, z.clone().requires_grad_()),
        (logitlab.softmax, torch.nn.Parameter(z)),
        (logitlab.cross_entropy, z, y),
        (logitlab.cross_entropy, z.clone().requires_grad_(), y),
        (logitlab.cross_entropy, z, z.softmax(-1)),
        (logitlab.cross_entropy_and_grad, z, y),
        (logitlab.linear_cross_entropy, z, weight(z), y),
        (logitlab.jacobian, z),
        (logitlab.jacobian_product, z, vector(z)),
    ]
    for function, *arguments in kernels:
        assert uses_kernel(function, *arguments), (function, arguments[0].dtype)

    class Subclass(torch.Tensor):
        pass

    misaligned = torch.frombuffer(bytearray(81), dtype=torch.float32, offset=1).reshape(4, 5)
    negative = torch.conj(torch.complex(z, z)).imag
    others = [z.to("meta"), z.as_subclass(Subclass), negative, misaligned]
    for x in others:
        assert not uses_kernel(logitlab.softmax, x)
        assert not torch_kernels.readable(x)
    # The kernels compute no gradient of these.
    leaf = z.clone().requires_grad_()
    assert not uses_kernel(logitlab.softmax, leaf, None)
    assert not uses_kernel(logitlab.logsumexp, leaf, (0, 1))
    logitlab.jacobian(leaf)
    logitlab.jacobian_product(leaf, vector(z))
    assert "product" not in calls
    assert not uses_kernel(logitlab.cross_entropy, z, z.softmax(-1).requires_grad_())
    assert not uses_kernel(torch.vmap(logitlab.softmax), z)
    assert not uses_kernel(torch.func.grad(lambda z: logitlab.logsumexp(z, None)), z)
    assert not uses_kernel(torch.func.jvp, logitlab.softmax, (z,), (z,))
    with torch.autograd.forward_ad.dual_level():
        assert not uses_kernel(logitlab.softmax, torch.autograd.forward_ad.make_dual(z, z))
    with Recorder():
        assert not uses_kernel(logitlab.softmax, z)
    assert uses_kernel(logitlab.softmax, z)


def test_compiled_gradients_of_rows_with_every_entry_excluded_are_zero():
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    where = torch.tensor([[False, False], [True, True]])
    compiled = torch.compile(
        lambda x: logitlab.softmax(x, where=where, empty="zero"), backend="aot_eager"
    )
    p = compiled(z)
    (gradient,) = torch.autograd.grad(p.square().sum(), z)
    assert p[0].tolist() == gradient[0].tolist() == [0, 0]
    assert torch.isfinite(gradient).all()
