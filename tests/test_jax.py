"""JAX arrays: the bits of NumPy arrays on the CPU, derivatives of any order, other platforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

import arrays
import logitlab
from logitlab._backends import jax as backend
from logitlab._backends import jax_kernels, reference
from logitlab._backends.targets import Targets
from processes import run_code

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)
FUNCTIONS = [logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp]
by_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
by_dtype = pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
# JAX compiles for each temperature.
by_temperature = pytest.mark.parametrize("temperature", [1.0, 1e-3, 5e-324, 0.0, np.inf, -0.7])


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def assert_same_bits(value, expected):
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value.astype(float), expected.astype(float), strict=True)
    np.testing.assert_array_equal(np.signbit(value), np.signbit(expected))


def special_rows(dtype):
    """The rows of special values as one array, filled up with -inf."""
    rows = list(arrays.rows(dtype))
    z = np.full((len(rows), max(map(len, rows))), -np.inf).astype(dtype)
    for line, row in zip(z, rows, strict=True):
        line[: len(row)] = row
    return z


@by_function
@by_dtype
@by_temperature
def test_bits_of_special_values(x64, function, dtype, temperature):
    z = special_rows(dtype)
    assert_same_bits(
        function(jnp.asarray(z), temperature=temperature), function(z, temperature=temperature)
    )


@by_function
@by_dtype
def test_bits_over_shapes_and_axes(x64, function, dtype):
    """Results that several threads compute, subnormal ones and empty ones are among them."""
    chosen = {"17x15", "3x40001", "very wide", "special columns", "middle axis of many", "4-d"}
    chosen |= {"zero rows", "zero classes", "zero classes, first", "0-d", "1-d", "transposed"}
    cases = [case for case in arrays.cases(dtype) if case.name in chosen]
    assert len(cases) == len(chosen)
    cases.append(arrays.Case("threads", arrays.normal((600, 500), dtype, 30.0), -1))
    for case in cases:
        z = np.ascontiguousarray(case.z) if case.z.ndim else case.z
        value = function(jnp.asarray(z), case.axis)
        if z.size:
            assert_same_bits(value, function(z, case.axis))
        else:
            np.testing.assert_array_equal(value, function(z, case.axis), strict=True)


@by_function
def test_bits_under_transforms(function):
    z = arrays.normal((4, 5, 6), np.dtype(np.float32))
    x = jnp.asarray(z)
    assert_same_bits(jax.jit(lambda x: function(2 * x) * 2)(x), function(2 * z) * 2)
    for axis in (0, 1, (0, 2), None):
        assert_same_bits(jax.jit(functools.partial(function, axis=axis))(x), function(z, axis))
    for batch in range(3):
        expected = np.stack([function(row, 0) for row in np.moveaxis(z, batch, 0)])
        assert_same_bits(jax.vmap(lambda x: function(x, 0), in_axes=batch)(x), expected)
    assert_same_bits(jax.vmap(jax.vmap(function))(x), function(z))
    assert_same_bits(jax.lax.map(function, x), function(z))
    where = z > -1
    masked = jax.jit(lambda x, w: function(x, 1, where=w, temperature=0.7))(x, where)
    assert_same_bits(masked, function(z, 1, where=where, temperature=0.7))


def test_float64_without_x64():
    """JAX converts it to float32."""
    z = arrays.normal((3, 5), np.dtype(np.float64))
    assert_same_bits(logitlab.softmax(jnp.asarray(z)), logitlab.softmax(z.astype(np.float32)))
    integers = logitlab.softmax(jnp.asarray([[-128, 127]], jnp.int8))
    assert integers.dtype == jnp.float32
    assert integers.tolist() == [[0, 1]]


@by_function
def test_arrays_of_temperatures(function):
    """Also traced ones, which the formulas compute."""
    z, t = arrays.normal((3, 5), np.dtype(np.float32)), np.array([0.5, 1.0, 2.0], np.float32)
    x, expected = jnp.asarray(z), function(z, temperature=t)
    value = jax.jit(lambda z, t: function(z, temperature=t))(z, t)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    value = jax.jit(lambda z, t: function(z, temperature=t))(z, 0.5)
    np.testing.assert_allclose(value, function(z, temperature=0.5), rtol=1e-6)
    slope = jax.grad(lambda t: function(x, temperature=t)[0].sum())(0.5)
    assert np.isfinite(slope)


@by_function
@pytest.mark.parametrize("temperature", [0.4, -2.0])
def test_derivatives_of_any_order(x64, function, temperature):
    """Compared with finite differences, in forward and reverse mode, along any axis."""
    z = arrays.normal((3, 4), np.dtype(np.float64), 1.0)
    for axis in (None, 0):
        call = functools.partial(function, axis=axis, temperature=temperature)
        check_grads(jax.jit(call), (z,), order=2, modes=["fwd", "rev"])
    check_grads(jax.vmap(call, in_axes=1), (z,), order=1, modes=["fwd", "rev"])


def test_third_derivatives(x64):
    z = arrays.normal((4,), np.dtype(np.float64), 1.0)
    check_grads(
        jax.jit(logitlab.log_softmax), (z,), order=3, modes=["fwd", "rev"], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_jacobian_and_hessian(x64, dtype):
    z = arrays.normal((6,), np.dtype(dtype))
    wide, tolerance = z.astype(float), {"rtol": 20 * np.finfo(dtype).eps, "atol": 1e-7}
    for transform in (jax.jacfwd, jax.jacrev):
        jacobian = transform(functools.partial(logitlab.softmax, temperature=0.5))(z)
        expected = logitlab.jacobian(wide, temperature=0.5)
        np.testing.assert_allclose(jacobian, expected, **tolerance)
        hessian = transform(transform(logitlab.softmax))(z)
        np.testing.assert_allclose(hessian, logitlab.hessian(wide), **tolerance)
        by_log = transform(logitlab.log_softmax)(z)
        expected = np.eye(6) - logitlab.softmax(wide)
        np.testing.assert_allclose(by_log, expected, **tolerance)
    value = jax.hessian(logitlab.logsumexp)(z)
    np.testing.assert_allclose(value, logitlab.jacobian(wide), **tolerance)


@by_function
@by_temperature
def test_gradients_of_special_values(x64, function, temperature):
    """As those of torch tensors."""
    z = special_rows(np.dtype(np.float64))
    g = arrays.normal(function(z).shape, np.dtype(np.float64))
    tensor = torch.from_numpy(z).requires_grad_()
    function(tensor, temperature=temperature).backward(torch.from_numpy(g))
    _, pullback = jax.vjp(functools.partial(function, temperature=temperature), z)
    np.testing.assert_allclose(pullback(g)[0], tensor.grad, rtol=1e-14, atol=1e-300)


@by_function
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_gradients_of_half_types(function, dtype):
    """Computed in float32 and rounded once."""
    z = jnp.asarray(arrays.normal((4, 9), np.dtype(np.float32))).astype(dtype)
    g = jnp.asarray(arrays.normal(function(z).shape, np.dtype(np.float32), seed=1)).astype(dtype)
    value = jax.vjp(function, z)[1](g)[0]
    assert value.dtype == dtype
    wide = jax.vjp(function, z.astype(jnp.float32))[1](g.astype(jnp.float32))[0]
    np.testing.assert_array_equal(value.astype(float), wide.astype(dtype).astype(float))


LOSSES = {
    "plain": {},
    "temperature": {"temperature": 0.5},
    "negative": {"temperature": -2.0},
    "ignored": {"ignore_index": 3},
    "smoothed": {"label_smoothing": 0.1, "ignore_index": 0},
    "masked": {"where": np.array([True] * 5 + [False])},
    "weighted": {"weight": np.arange(1.0, 7), "sample_weight": np.arange(5.0), "reduction": "sum"},
}


@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES)
def test_losses(x64, options):
    """Values, gradients and second derivatives, compared with NumPy and finite differences."""
    z, y = arrays.normal((5, 6), np.dtype(np.float64), 2.0), np.array([0, 3, 4, 3, 1])
    loss = functools.partial(logitlab.cross_entropy, **options)
    both = functools.partial(logitlab.cross_entropy_and_grad, **options)
    expected = both(z, y)
    for value in (
        jax.value_and_grad(loss)(jnp.asarray(z), y),
        jax.jit(both)(z, y),
        both(jnp.asarray(z), y),
    ):
        for ours, theirs in zip(value, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-16)
    check_grads(jax.jit(lambda z: loss(z, y)), (z,), order=2, modes=["fwd", "rev"])
    check_grads(jax.jit(lambda z: both(z, y)), (z,), order=1, modes=["fwd", "rev"])


def test_batches_of_losses():
    z, y = arrays.normal((5, 6), np.dtype(np.float32)), np.array([0, 3, 4, 3, 1])
    gradient = jax.grad(lambda z, y: logitlab.cross_entropy(z[:, None], y[None], 0))
    _, expected = logitlab.cross_entropy_and_grad(z, y, reduction="sum")
    np.testing.assert_allclose(jax.vmap(gradient)(z, y), expected, rtol=1e-6, atol=1e-9)
    rows = functools.partial(logitlab.cross_entropy, reduction="none")
    of_all = jax.vmap(rows, (None, 0))(jnp.asarray(z), np.stack([y, y[::-1]]))
    np.testing.assert_array_equal(of_all, [rows(z, y), rows(z, y[::-1])])
    of_all = jax.vmap(rows, (0, None))(np.stack([z, -z]), jnp.asarray(y))
    np.testing.assert_array_equal(of_all, [rows(z, y), rows(-z, y)])


@by_dtype
def test_losses_of_types_and_special_values(x64, dtype):
    z = special_rows(dtype)
    y = np.arange(len(z)) % z.shape[1]
    for axis, x in ((1, z), (0, np.ascontiguousarray(z.T))):
        options = {"axis": axis, "reduction": "none", "temperature": 0.7}
        expected = logitlab.cross_entropy_and_grad(x, y, **options)
        value = logitlab.cross_entropy_and_grad(jnp.asarray(x), y, **options)
        assert_same_bits(value[0], expected[0])
        assert value[1].dtype == dtype
        eps = float(arrays.finfo(dtype).eps)
        ours, theirs = (np.asarray(v[1]).astype(float) for v in (value, expected))
        np.testing.assert_allclose(ours, theirs, rtol=2 * eps, atol=float(arrays.tiny(dtype)))


def test_labels_out_of_range_under_jit():
    """They cannot be refused; the kernel reads nothing beyond the row."""
    z, y = arrays.normal((4, 3), np.dtype(np.float32)), np.array([3, -1, 2**31 - 1, 1])
    value = jax.jit(functools.partial(logitlab.cross_entropy, reduction="none"))(z, y)
    assert value[:3].tolist() == [0, 0, 0]
    np.testing.assert_allclose(value[3], logitlab.cross_entropy(z[3:], y[3:]), rtol=1e-6)


def test_more_losses_than_fit_small_memory():
    z = arrays.normal((40000, 3), np.dtype(np.float32))
    y = np.arange(40000) % 3
    value = logitlab.cross_entropy_and_grad(jnp.asarray(z), y, reduction="none")
    for ours, theirs in zip(
        value, logitlab.cross_entropy_and_grad(z, y, reduction="none"), strict=True
    ):
        assert_same_bits(ours, theirs)


def compiled_for(function, platform):
    z = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    return jax.jit(function).trace(z).lower(lowering_platforms=(platform,)).as_text()


PROGRAMS = {
    "rows": (logitlab.log_softmax, "logitlab_rows"),
    "products": (lambda z: jax.vjp(logitlab.log_softmax, z)[1](z)[0], "logitlab_products"),
    "losses": (lambda z: logitlab.cross_entropy(z, jnp.zeros(4, int)), "logitlab_losses"),
}


@pytest.mark.parametrize(("function", "target"), PROGRAMS.values(), ids=PROGRAMS)
def test_other_platforms_have_the_formulas(function, target):
    """A program for the CPU calls the kernels."""
    assert target in compiled_for(function, "cpu")
    for platform in ("cuda", "tpu"):
        assert "logitlab_" not in compiled_for(function, platform).replace("jit_logitlab", "")


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(jax_kernels, "available", lambda: False)
    jax.clear_caches()
    yield
    jax.clear_caches()


def test_formulas_and_their_derivatives(x64, without_kernels):
    """Those that other platforms compute, and JAX without a C++ compiler."""
    z, y = arrays.normal((3, 4), np.dtype(np.float64)), np.array([1, 0, -1])
    for function in FUNCTIONS:
        value = function(jnp.asarray(z), temperature=0.5)
        np.testing.assert_allclose(value, function(z, temperature=0.5), rtol=1e-14)
    for name in ("softmax", "log_softmax", "log_softmax_transposed"):
        product = functools.partial(jax_kernels._product_formula, name=name, t=0.5)
        of_kernel = functools.partial(jax_kernels.product, name, 1, 0.5)
        for v in (z, z[::-1]):
            np.testing.assert_allclose(product(z, v), of_kernel(z, v), rtol=1e-12, atol=1e-14)
    for scale in (None, 0.5):
        arguments = (1,), 0.5, None, Targets(y, smoothing=0.1), scale
        ours = backend.target_loss(
            jnp.asarray(z), *arguments[:3], Targets(jnp.asarray(y), smoothing=0.1), scale
        )
        for value, expected in zip(ours, reference.target_loss(z, *arguments), strict=True):
            if expected is not None:
                np.testing.assert_allclose(value, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "options", "message"),
    [
        ("rows", (2, 3), "int32", {}, "z must be floating"),
        ("rows", (2, 3), "float32", {"axis": np.int64(-3)}, "axis must be < 0 and >= -2, got -3"),
        ("rows", (2, 3), "float32", {"axis": np.float64(1)}, "axis must be an int64"),
        ("rows", (2, 3), "float32", {"function": np.int64(3)}, "function must be 0, 1 or 2, got 3"),
        ("rows", (3,), "float32", {}, "the result must have the type of z and 6 entries, got 3"),
        ("products", (2, 3), "float32", {}, "arguments must have an array at 1, got 1"),
    ],
)
def test_calls_with_wrong_arguments(name, shape, dtype, options, message):
    """Of the handlers, by programs of others."""
    jax_kernels.available()
    call = jax.ffi.ffi_call(f"logitlab_{name}", jax.ShapeDtypeStruct(shape, dtype))
    attributes = {"axis": np.int64(-1), "function": np.int64(0), "temperature": np.float64(1)}
    with pytest.raises(Exception, match=message):
        call(jnp.zeros((2, 3), dtype), **attributes | options).block_until_ready()


DEVICES = """
import jax, logitlab, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = Mesh(np.array(jax.devices()), ("rows",))
z = np.random.default_rng(0).normal(0, 3, (8, 6)).astype(np.float32)
y = np.arange(8) % 6
spec = PartitionSpec("rows")
x, labels = (jax.device_put(a, NamedSharding(mesh, spec)) for a in (z, y))
def loss_gradient(z, y):
    return jax.grad(lambda z: logitlab.cross_entropy(z, y, reduction="sum"))(z)
def gradient(z, y):
    return jax.grad(lambda z: (logitlab.softmax(z) * z).sum())(z)
for f in (lambda z, y: logitlab.softmax(z), loss_gradient, gradient):
    expected = np.asarray(f(jax.numpy.asarray(z), y))
    mapped = jax.shard_map(f, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    rows = jax.vmap(lambda z, y, f=f: f(z[None], y[None])[0])
    results = jax.jit(f)(x, labels), jax.jit(mapped)(x, labels), jax.jit(rows)(x, labels)
    print(*(bool((np.asarray(r) == expected).all()) for r in results))
last = jax.device_put(z, jax.devices()[3])
print(logitlab.softmax(last).device == jax.devices()[3])
"""


def test_several_devices():
    """Sharded arrays, in a process of its own."""
    result = run_code(DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert result == ["True"] * 10


def test_derivatives_without_jit():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    expected = jax.grad(lambda z: logitlab.softmax(z)[:, 0].sum())(z)
    with jax.disable_jit():
        found = jax.grad(lambda z: logitlab.softmax(z)[:, 0].sum())(z)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
