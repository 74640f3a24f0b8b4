"""torch, JAX and array API arrays: results are of the same library, and gradients flow."""

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import arrays
import logitlab

FUNCTIONS = [logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp]
by_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
TORCH = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def as_numpy(x):
    if isinstance(x, torch.Tensor):
        x = x.detach()
        return x.float().numpy() if x.dtype is torch.bfloat16 else x.numpy()
    return np.asarray(x)


@by_function
@pytest.mark.parametrize("temperature", arrays.TEMPERATURES)
def test_torch_matches_numpy(function, temperature):
    """The values of rows of special values."""
    for dtype in (np.float16, np.float32, np.float64):
        for z in arrays.rows(np.dtype(dtype)):
            result = function(torch.from_numpy(z), temperature=temperature)
            assert isinstance(result, torch.Tensor)
            expected = function(z, temperature=temperature)
            info = np.finfo(dtype)
            np.testing.assert_allclose(
                as_numpy(result).astype(float),
                np.asarray(expected, float),
                rtol=8 * float(info.eps),
                atol=float(info.smallest_subnormal),
            )


@by_function
@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_torch_keeps_type_and_axis(function, dtype):
    """Half types too, with any class axis."""
    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    for axis in (0, 1, -1, (0, 2), None):
        result = function(z, axis)
        assert result.dtype == dtype
        expected = as_numpy(function(z.double(), axis))
        eps = torch.finfo(dtype).eps
        np.testing.assert_allclose(as_numpy(result), expected, rtol=4 * eps, atol=4 * eps)


@by_function
@pytest.mark.parametrize("temperature", [1.0, 0.3, -2.0])
def test_torch_gradients(function, temperature):
    """Compared with finite differences, at both signs of T."""
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, temperature=temperature), (z,))


@by_function
def test_torch_gradients_of_masked_rows_are_finite(function):
    """The gradient of -inf and masked entries is 0."""
    z = torch.tensor([[1.0, -torch.inf, 2.0, torch.nan]], requires_grad=True)
    where = torch.tensor([True, True, True, False])
    function(z, where=where)[..., :1].sum().backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad[0, [1, 3]] == 0).all()


def test_torch_functional_transforms():
    """jacrev of softmax is diag(p) - p p'."""
    z = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    p = logitlab.softmax(z)
    expected = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(torch.func.jacrev(logitlab.softmax)(z), expected)
    torch.testing.assert_close(torch.func.jacfwd(logitlab.softmax)(z), expected)
    batch = torch.stack([z, -z])
    torch.testing.assert_close(torch.vmap(logitlab.softmax)(batch), logitlab.softmax(batch))


def test_torch_temperature_gets_a_gradient():
    """The derivative of p by T."""
    z = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.full((4,), 1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: logitlab.softmax(z, temperature=t), (t,))


def test_torch_out():
    """`out` may be z itself; it is refused where autograd is active."""
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = logitlab.softmax(z)
    out = torch.empty_like(z)
    assert logitlab.softmax(z, out=out) is out
    assert torch.equal(out, expected)
    logitlab.softmax(z, out=z)
    assert torch.equal(z, expected)
    with pytest.raises(ValueError, match="out must be None where autograd is active"):
        logitlab.softmax(z.requires_grad_(), out=out)
    with pytest.raises(TypeError, match=r"out must be an array of .* Tensor, got ndarray"):
        logitlab.softmax(z.detach(), out=out.numpy())


@by_function
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0, np.inf, -1.0])
def test_jax(function, temperature):
    """float32 (x64 is not enabled), eagerly and under jit."""
    rows = list(arrays.rows(np.dtype(np.float32)))
    z = np.full((len(rows), max(map(len, rows))), -np.inf, np.float32)
    for line, row in zip(z, rows, strict=True):
        line[: len(row)] = row
    result = function(jnp.asarray(z), temperature=temperature)
    assert isinstance(result, jax.Array)
    assert result.dtype == jnp.float32
    expected = np.asarray(function(z, temperature=temperature), float)
    for value in (result, jax.jit(lambda x: function(x, temperature=temperature))(z)):
        np.testing.assert_allclose(np.asarray(value, float), expected, rtol=1e-6, atol=1.2e-38)


def test_jax_transforms():
    """grad, vmap and bfloat16."""
    z = jnp.array([1.0, 2.0, -jnp.inf])
    gradient = jax.grad(lambda x: logitlab.logsumexp(x))(z)
    np.testing.assert_allclose(gradient, logitlab.softmax(np.asarray(z)), rtol=1e-6)
    assert logitlab.softmax(z.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_allclose(jax.vmap(logitlab.softmax)(z[None]), logitlab.softmax(z)[None])
    with pytest.raises(TypeError, match="immutable"):
        logitlab.softmax(z, out=z)


@by_function
def test_array_api_strict(function):
    """array-api-strict has only the functions of the standard."""
    for dtype in (np.float32, np.float64):
        for z in arrays.rows(np.dtype(dtype)):
            for t in arrays.TEMPERATURES:
                result = function(array_api_strict.asarray(z), temperature=t)
                assert type(result) is type(array_api_strict.asarray(z))
                expected = function(z, temperature=t)
                eps, tiny = (float(getattr(np.finfo(dtype), n)) for n in ("eps", "tiny"))
                # The two terms of logsumexp may cancel.
                size = np.abs(z[np.isfinite(z)]).max(initial=0)
                atol = 8 * eps * size if function is logitlab.logsumexp else tiny
                np.testing.assert_allclose(np.asarray(result), expected, rtol=8 * eps, atol=atol)
    integers = function(array_api_strict.asarray([1, 2, 3], dtype=array_api_strict.int8))
    assert integers.dtype == array_api_strict.float64
    axes = array_api_strict.reshape(array_api_strict.arange(6.0), (2, 3))
    assert function(axes, None, where=axes > 1).dtype == array_api_strict.float64


def test_libraries_are_not_mixed():
    """A tensor beside a JAX array is an error that names both."""
    with pytest.raises(TypeError, match="temperature must be an array of the same library as z"):
        logitlab.softmax(torch.zeros(2, 3), temperature=jnp.ones(2))
    # NumPy arrays and lists are converted.
    p = logitlab.softmax(torch.zeros(2, 3), temperature=np.ones(2), where=[True, False, True])
    assert torch.equal(p, torch.tensor([[0.5, 0, 0.5]] * 2))


@pytest.mark.parametrize("row", [[30.0, 0.0], [3.0, 3.0, 1.0], [2.0, -1.0, 60.0]])
def test_automatic_derivatives_keep_their_digits(row):
    """JAX and torch.func, also for a logit whose probability rounds to 1."""
    for label in range(len(row)):
        expected = logitlab.cross_entropy_and_grad([row], [label])[1]
        y = jnp.asarray([label])
        gradient = jax.grad(lambda z, y=y: logitlab.cross_entropy(z, y))(jnp.asarray([row]))
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        y = torch.tensor([label])
        z = torch.tensor([row], dtype=torch.float64)
        gradient = torch.func.grad(lambda z, y=y: logitlab.cross_entropy(z, y))(z)
        np.testing.assert_allclose(gradient, expected, rtol=1e-14)


VECTOR = np.linspace(0, 2, 20, dtype=np.float32).reshape(4, 5)
WEIGHT = np.linspace(-1, 1, 30, dtype=np.float32).reshape(6, 5)
COMPUTED = {
    "softmax": lambda z, y, as_array: logitlab.softmax(z, 0, temperature=0.5),
    "log_softmax": lambda z, y, as_array: logitlab.log_softmax(z, where=as_array(VECTOR > 1)),
    "logsumexp": lambda z, y, as_array: logitlab.logsumexp(z),
    "cross_entropy": lambda z, y, as_array: logitlab.cross_entropy(z, y, ignore_index=2),
    "cross_entropy_and_grad": lambda z, y, as_array: logitlab.cross_entropy_and_grad(z, y)[1],
    "linear_cross_entropy": lambda z, y, as_array: logitlab.linear_cross_entropy(
        z, as_array(WEIGHT), y, ignore_index=1
    ),
    "linear_cross_entropy_and_grad": lambda z, y, as_array: logitlab.linear_cross_entropy_and_grad(
        z, as_array(WEIGHT), y
    )[1][1],
    "jacobian": lambda z, y, as_array: logitlab.jacobian(z),
    "hessian": lambda z, y, as_array: logitlab.hessian(z),
    "entropy": lambda z, y, as_array: logitlab.entropy(z),
    "kl_divergence": lambda z, y, as_array: logitlab.kl_divergence(z, as_array(VECTOR)),
    "sample": lambda z, y, as_array: logitlab.sample(z, 3, rng=0, top_p=0.9),
}
READS_VALUES = {
    "truncate": lambda z, y: logitlab.truncate(z, top_k=2),
    "sample_with_log_prob": lambda z, y: logitlab.sample_with_log_prob(z, rng=0),
    "sample_with_support": lambda z, y: logitlab.sample_with_support(z, rng=0)[0],
    "accuracy": logitlab.accuracy,
    "brier_score": logitlab.brier_score,
    "calibration_error": logitlab.calibration_error,
    "calibration_error_interval": lambda z, y: logitlab.calibration_error_interval(z, y).high,
    "smooth_calibration_error": logitlab.smooth_calibration_error,
    "score_decomposition": logitlab.score_decomposition,
    "top_k_accuracy": lambda z, y: logitlab.top_k_accuracy(z, y, 2),
}


def logits_and_labels():
    rng = np.random.default_rng(0)
    return 3 * rng.standard_normal((4, 5)).astype(np.float32), np.array([0, 4, 2, 1])


@pytest.mark.parametrize("name", COMPUTED)
def test_jax_traces(name):
    z, y = logits_and_labels()
    labels = jnp.asarray(y)
    expected = COMPUTED[name](z, y, np.asarray)

    def call(z):
        return COMPUTED[name](z, labels, jnp.asarray)

    np.testing.assert_allclose(jax.jit(call)(z), expected, rtol=2e-5, atol=1e-6)
    assert jax.eval_shape(call, jax.ShapeDtypeStruct(z.shape, z.dtype)).shape == expected.shape
    if name == "linear_cross_entropy_and_grad":
        both = jax.jit(jax.vmap(call))(jnp.stack([-z, z]))
        np.testing.assert_allclose(both[1], expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", READS_VALUES)
def test_functions_that_read_values_refuse_jax_tracers(transform, name):
    z, y = logits_and_labels()
    with pytest.raises(TypeError, match=r"z must have values, .* traced or meta \w*Tracer"):
        transform(lambda z: READS_VALUES[name](z, y))(jnp.asarray(z))


def test_ignored_rows_may_contain_nan_under_jit():
    z, y = logits_and_labels()
    z[0], y[0] = np.nan, -1

    def call(z, y, weight):
        return logitlab.linear_cross_entropy_and_grad(z, weight, y, ignore_index=-1)[1][1]

    expected = call(z, y, WEIGHT)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(jax.jit(call)(z, y, WEIGHT), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_functions_on_other_libraries(name):
    """array-api-strict, and Dask arrays in several chunks of rows."""
    z, y = logits_and_labels()
    expected = COMPUTED[name](z, y, np.asarray)
    da = pytest.importorskip("dask.array")

    def chunked(a):
        return da.from_array(a, chunks=(2, *a.shape[1:]))

    for as_array in (array_api_strict.asarray, chunked):
        result = COMPUTED[name](as_array(z), as_array(y), as_array)
        assert type(result) is type(as_array(z))
        np.testing.assert_allclose(np.asarray(result), expected, rtol=2e-5, atol=1e-6)
