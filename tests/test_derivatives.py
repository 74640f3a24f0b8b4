"""The derivatives of softmax: compared with exact arithmetic, torch and JAX, and identities."""

import re

import array_api_strict
import jax
import numpy as np
import pytest
import torch

import arrays
import exact
import logitlab
from arrays import FLOATS, inf, nan
from exact import mp
from logitlab._backends import native, reference

TEMPERATURES = [1.0, 0.4, 3.0, -0.7, 1e-3, 1e200]
by_temperature = pytest.mark.parametrize("temperature", TEMPERATURES)


@mp.workdps(400)  # 1 - p of a saturated row
def exact_jacobian(row, t):
    p = exact.softmax(row, t)
    return [[a * ((i == j) - b) / mp.mpf(t) for j, b in enumerate(p)] for i, a in enumerate(p)]


@mp.workdps(400)
def exact_hessian(row, t):
    """The derivative of p_i (delta_ij - p_j) / T by z_k."""
    p, j = exact.softmax(row, t), exact_jacobian(row, t)
    n = range(len(p))
    return [
        [[(j[i][k] * ((i == m) - p[m]) - p[i] * j[m][k]) / mp.mpf(t) for k in n] for m in n]
        for i in n
    ]


def finite_rows():
    for z in arrays.rows(np.dtype(np.float64)):
        if np.isfinite(z).all() and len(z) < 6:
            yield z


def assert_near(value, expected, rtol=3e-15):
    """The relative error of every entry is small, except where it underflows."""
    expected = np.array(expected, dtype=object)
    for a, b in zip(np.ravel(value).tolist(), np.ravel(expected), strict=True):
        b = float(b)
        assert abs(a - b) <= rtol * abs(b) + 1e-300, (a, b)


@by_temperature
def test_jacobian_is_exact(temperature):
    """Every entry has a small relative error, also on the diagonal of a saturated row."""
    for z in finite_rows():
        assert_near(logitlab.jacobian(z, temperature=temperature), exact_jacobian(z, temperature))


@by_temperature
def test_hessian_is_exact(temperature):
    """The shape is (K, K, K); errors are relative to the largest entry."""
    for z in finite_rows():
        value = logitlab.hessian(z, temperature=temperature)
        expected = np.array(exact_hessian(z, temperature), dtype=float)
        assert value.shape == (len(z),) * 3
        size = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=1e-14, atol=4e-16 * size)


@by_temperature
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_products_match_dense_derivatives(temperature, axis):
    """The O(K) products equal products with the matrix and the tensor, along any axis."""
    z, u, v = (arrays.normal((3, 4, 5), np.float64, 2, seed) for seed in range(3))
    t = np.full([n for a, n in enumerate(z.shape) if a != axis % 3], temperature)
    j, h = (f(z, axis, temperature=t) for f in (logitlab.jacobian, logitlab.hessian))
    a, b = np.moveaxis(u, axis, -1), np.moveaxis(v, axis, -1)
    to_axis = lambda x: np.moveaxis(x, -1, axis)  # noqa: E731
    size = max(1, 1 / abs(temperature)) ** 2
    np.testing.assert_allclose(
        logitlab.jacobian_product(z, v, axis, temperature=temperature),
        to_axis(np.einsum("...ij,...j->...i", j, b)),
        rtol=1e-12,
        atol=1e-14 * size,
    )
    np.testing.assert_allclose(
        logitlab.hessian_product(z, u, v, axis, temperature=temperature),
        to_axis(np.einsum("...ijk,...j,...k->...i", h, a, b)),
        rtol=1e-12,
        atol=1e-13 * size,
    )


@by_temperature
def test_identities(temperature):
    """J is symmetric and semi-definite with rows that sum to 0; H times a constant is 0."""
    z = arrays.normal((6, 7), np.float64)
    j, h = (f(z, temperature=temperature) for f in (logitlab.jacobian, logitlab.hessian))
    ones = np.ones_like(z)
    size = max(1, 1 / abs(temperature)) ** 2
    np.testing.assert_array_equal(j, j.transpose(0, 2, 1))
    np.testing.assert_allclose(h, h.transpose(0, 1, 3, 2), atol=1e-15 * size)
    np.testing.assert_allclose(j.sum(-1), 0, atol=1e-15 * size)
    np.testing.assert_allclose(h.sum(1), 0, atol=1e-14 * size)
    np.testing.assert_array_equal(logitlab.jacobian_product(z, ones, temperature=temperature), 0)
    np.testing.assert_array_equal(logitlab.hessian_product(z, ones, z, temperature=temperature), 0)
    values = np.linalg.eigvalsh(j) * np.sign(temperature)
    assert values.min() >= -1e-15 * size


def test_torch_and_jax_agree():
    """First and second derivatives by jacrev."""
    z = arrays.normal((4, 5), np.float64)
    tensor = torch.from_numpy(z)
    first = torch.func.jacrev(lambda x: torch.softmax(x / 0.7, -1))
    j, h = (torch.func.vmap(f)(tensor) for f in (first, torch.func.jacrev(first)))
    ours = logitlab.jacobian(tensor, temperature=0.7)
    assert isinstance(ours, torch.Tensor)
    torch.testing.assert_close(ours, j)
    torch.testing.assert_close(logitlab.hessian(tensor, temperature=0.7), h)
    x = jax.numpy.asarray(z)
    theirs = jax.vmap(jax.jacrev(jax.nn.softmax))(x)
    np.testing.assert_allclose(logitlab.jacobian(x), theirs, atol=1e-6)
    np.testing.assert_allclose(
        logitlab.jacobian_product(x, x), np.einsum("nij,nj->ni", theirs, x), atol=1e-5
    )


def test_gradients_flow_through_a_product():
    """torch differentiates the products again."""
    z, v = (torch.from_numpy(arrays.normal((3, 4), np.float64, 1, s)) for s in (0, 1))
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: logitlab.jacobian_product(x, v), (z,))


def test_saturated_rows_do_not_cancel():
    """1 - p of a nearly certain class is the sum of the others, not 0."""
    z = np.array([40.0, 0.0, 0.0])
    j = logitlab.jacobian(z)
    assert j[0, 0] == pytest.approx(2 * np.exp(-40.0), rel=1e-14)
    product = logitlab.jacobian_product(z, [1.0, 0.0, 0.0])
    assert product[0] == pytest.approx(2 * np.exp(-40.0), rel=1e-14)


@pytest.mark.parametrize("where", [None, [True, False, True, True]])
def test_excluded_entries_have_zero_rows_and_columns(where):
    """Entries that are -inf or masked, even if they contain NaN."""
    z = np.array([1.0, nan if where else -inf, 2.0, 3.0])
    left = [0, 2, 3]
    for function in (logitlab.jacobian, logitlab.hessian):
        full, part = function(z, where=where), function(z[left])
        np.testing.assert_allclose(full[np.ix_(*[left] * full.ndim)], part, rtol=1e-15)
        full[np.ix_(*[left] * full.ndim)] = 0
        assert (full == 0).all()
    product = logitlab.jacobian_product(z, [1.0, nan, 2.0, 0.0], where=where)
    np.testing.assert_allclose(
        product[left], logitlab.jacobian_product(z[left], [1.0, 2.0, 0.0]), rtol=1e-15
    )
    assert product[1] == 0


def test_limits():
    """No derivative at T = 0; 0 at T = inf and for a +inf entry; NaN propagates."""
    z = arrays.normal((2, 3), np.float64)
    for function in (logitlab.jacobian, logitlab.hessian):
        for t in (0.0, -0.0, [1.0, 0.0]):
            with pytest.raises(ValueError, match="no derivative"):
                function(z, temperature=t)
        for t in (inf, -inf):
            assert (function(z, temperature=t) == 0).all()
        assert (function([inf, inf, 1.0]) == 0).all()
        assert np.isnan(function([nan, 1.0])).all()
        assert np.isnan(function([-inf, -inf])).all()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_an_excluded_infinite_logit_has_no_effect(convert):
    """+inf at T < 0, or masked: the other classes have the derivatives of a row without it."""
    z, v = (
        np.array([[1.0, inf, 3.0], [0.0, 2.0, inf]]),
        np.array([[1.0, 5.0, -2.0], [3.0, 1.0, 0.5]]),
    )
    where = z != inf
    for options in ({"temperature": -0.7}, {"where": convert(where)}):
        results = [
            logitlab.jacobian(convert(z), **options),
            logitlab.hessian(convert(z), **options),
            logitlab.jacobian_product(*map(convert, (z, v)), **options),
            logitlab.hessian_product(*map(convert, (z, v, v)), **options),
        ]
        for row, included in enumerate(where):
            a, b = z[row, included], v[row, included]
            t = {"temperature": options.get("temperature", 1.0)}
            expected = [
                logitlab.jacobian(a, **t),
                logitlab.hessian(a, **t),
                logitlab.jacobian_product(a, b, **t),
                logitlab.hessian_product(a, b, b, **t),
            ]
            for result, right in zip(results, expected, strict=True):
                full = np.zeros((3,) * right.ndim)
                full[np.ix_(*[included] * right.ndim)] = right
                np.testing.assert_allclose(np.asarray(result)[row], full, rtol=1e-14, atol=1e-16)
    # At T > 0 no finite change of the row changes the probabilities.
    for function in (logitlab.jacobian, logitlab.hessian):
        assert (np.asarray(function(convert(z))) == 0).all()
    assert (np.asarray(logitlab.jacobian_product(*map(convert, (z, v)))) == 0).all()
    assert (np.asarray(logitlab.hessian_product(*map(convert, (z, v, v)))) == 0).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_types_and_shapes(dtype):
    """The type is kept; a batch of one keeps its axis; 0-d is K = 1."""
    z = arrays.normal((1, 4), dtype)
    assert logitlab.jacobian(z).shape == (1, 4, 4)
    assert logitlab.hessian(z).shape == (1, 4, 4, 4)
    for value in (logitlab.jacobian(z), logitlab.hessian(z), logitlab.jacobian_product(z, z)):
        assert value.dtype == dtype
    assert logitlab.jacobian(np.array(3.0).astype(dtype)).shape == (1, 1)
    assert logitlab.jacobian_product(3.0, 2.0) == 0
    assert logitlab.jacobian(np.empty((0, 3))).shape == (0, 3, 3)
    assert logitlab.hessian(np.empty((2, 0))).shape == (2, 0, 0, 0)
    with pytest.raises(ValueError, match=r"v must have the shape \(1, 4\) of z, got \(4,\)"):
        logitlab.jacobian_product(z, z[0])
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.jacobian(z, (0, 1))


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(9, 1), (9, 7), (5, 16), (5, 17), (7, 100), (3, 5003), (1, 40001)]
)
def test_kernel_products_match_the_reference(dtype, shape):
    """In saturated rows too, and with the same bits for any number of threads."""
    rng = np.random.default_rng(0)
    eps = np.finfo(dtype).eps
    before = logitlab.get_num_threads()
    try:
        for spread in (1, 30, 300):
            z = (rng.standard_normal(shape) * spread).astype(dtype)
            p = logitlab.softmax(z)
            v = rng.standard_normal(shape).astype(dtype)
            v[:, -1] = 1000
            slope = rng.uniform(0.5, 2, (shape[0], 1))
            true = reference.jacobian_product(p.astype(float), v.astype(float), slope)
            results = []
            for n in (1, 3):
                logitlab.set_num_threads(n)
                results.append(native.jacobian_product(p.copy(), v, slope))
            assert results[0].tobytes() == results[1].tobytes()
            scale = p * slope * np.abs(v - v.mean()).max()
            assert (np.abs(results[0] - true) <= 8 * eps * scale + 1e-40).all()
            if shape[1] < 1000:
                matrix = native.jacobian(p, slope)
                true = reference.jacobian(p.astype(float), slope)
                np.testing.assert_allclose(matrix, true, rtol=8 * eps, atol=1e-40)
                assert (matrix == matrix.transpose(0, 2, 1)).all()
            if shape[1] > 1:
                # The product with the transposed derivative of log_softmax.
                z[0, 0] = -np.inf
                p = logitlab.softmax(z)
                out = np.empty_like(p)
                native.product("log_softmax", p, v, z, slope, out)
                total = np.where(np.isinf(z), 0, v.astype(float)).sum(-1, keepdims=True)
                true = slope * (v - p.astype(float) * total)
                scale = slope * (np.abs(v) + p * np.abs(v).sum(-1, keepdims=True))
                assert (np.abs(out - true)[:, 1:] <= 8 * eps * scale[:, 1:]).all()
                assert out[0, 0] == 0
    finally:
        logitlab.set_num_threads(before)


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
def test_kernel_products_of_saturated_rows():
    """Every entry has a small relative error, for few classes and many."""
    for k in (3, 40, 5000):
        z = np.zeros((1, k))
        z[0, k // 2] = 40.0
        v = np.random.default_rng(0).standard_normal((1, k))
        p = [mp.mpf(x) for x in exact.softmax(z[0].tolist())]
        mean = sum(a * mp.mpf(b) for a, b in zip(p, v[0].tolist(), strict=True))
        expected = [float(a * (mp.mpf(b) - mean)) for a, b in zip(p, v[0].tolist(), strict=True)]
        np.testing.assert_allclose(logitlab.jacobian_product(z, v)[0], expected, rtol=1e-12)
        log = np.empty_like(v)
        native.product("log_softmax", logitlab.softmax(z), v, z, 1.0, log)
        total = sum(map(mp.mpf, v[0].tolist()))
        expected = [float(mp.mpf(b) - a * total) for a, b in zip(p, v[0].tolist(), strict=True)]
        np.testing.assert_allclose(log[0], expected, rtol=1e-12)


def exact_products(row, u, v, t):
    """The products with the first and second derivatives, and the sizes of their terms."""
    p = [mp.mpf(float(x)) for x in exact.softmax(row.tolist(), t)]
    u, v = ([mp.mpf(float(x)) for x in w] for w in (u, v))

    def centred(w):
        mean = sum(a * b for a, b in zip(p, w, strict=True))
        return [b - mean for b in w]

    second = centred([a * b for a, b in zip(centred(u), centred(v), strict=True)])
    largest_u, largest_v = (2 * max(map(abs, w)) for w in (u, v))
    for power, products, size in (
        (1, centred(v), largest_v),
        (2, second, 2 * largest_u * largest_v),
    ):
        scale = mp.mpf(t) ** power
        yield [a * b / scale for a, b in zip(p, products, strict=True)], size / abs(scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
@pytest.mark.parametrize("temperature", [1.0, 1e20, -0.3])
def test_products_with_huge_vectors(convert, dtype, temperature):
    """Only a product that is too large is infinite: no difference or product before it is."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    largest = float(info.max)
    for k in (2, 5, 20):
        z = rng.standard_normal((6, k)).astype(dtype)
        v = rng.choice([largest, -largest, largest / 3], (6, k)).astype(dtype)
        u = (rng.standard_normal((6, k)) * rng.choice([1, largest / 8, 1e-30], (6, 1))).astype(
            dtype
        )
        options = {"temperature": temperature}
        first = logitlab.jacobian_product(*map(convert, (z, v)), **options)
        second = logitlab.hessian_product(*map(convert, (z, u, v)), **options)
        for i, row in enumerate(z):
            cases = exact_products(row, u[i], v[i], temperature)
            for result, (right, size) in zip((first, second), cases, strict=True):
                for got, true in zip(np.asarray(result)[i].tolist(), right, strict=True):
                    error = 32 * float(info.eps) * size + float(info.tiny)
                    if np.isinf(got):
                        assert abs(true) + error >= largest
                        assert (got > 0) == (true > 0)
                    else:
                        assert abs(got - true) <= error


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tiny_temperatures_keep_zeros(dtype):
    """A derivative of 0 stays 0 where 1/T or its square overflows."""
    z = np.array([3, 0, 2], dtype)
    for t in (1e-20, 1e-160, 1e-310, 5e-324):
        assert (logitlab.jacobian(z, temperature=t) == 0).all()
        assert (logitlab.jacobian_product(z, z, temperature=t) == 0).all()
        assert (logitlab.hessian(z, temperature=t) == 0).all()
        assert (logitlab.hessian_product(z, z, z, temperature=t) == 0).all()
        for y in (0, np.array([1, 0, 0], dtype)):
            loss, gradient = logitlab.cross_entropy_and_grad(z, y, temperature=t)
            assert loss == 0
            assert (gradient == 0).all()


def test_derivatives_stay_on_the_device_of_the_logits():
    device, host = map(array_api_strict.Device, ("device1", "CPU_DEVICE"))
    z, v = arrays.normal((2, 3, 4), np.float64), arrays.normal((2, 3, 4), np.float64, seed=1)
    on_device = array_api_strict.asarray(z, device=device)
    for function, vectors in (
        (logitlab.jacobian, ()),
        (logitlab.hessian, ()),
        (logitlab.jacobian_product, (v,)),
        (logitlab.hessian_product, (v, z)),
    ):
        for temperature in (2.0, np.array([[1.0, 2.0, 0.5]])):
            expected = function(z, *vectors, temperature=temperature)
            result = function(on_device, *vectors, temperature=temperature)
            assert result.device == device
            result = np.asarray(result.to_device(host))
            np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-16)


def test_vectors_of_other_libraries_and_types():
    """A list or a NumPy array is converted to the library of z; any other is refused by name."""
    z, v = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), [1, 0, 3]
    right = logitlab.jacobian_product(z.numpy(), np.array(v, float))
    for vector in (v, np.array(v), np.float32(v), torch.tensor(v)):
        result = logitlab.jacobian_product(z, vector)
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result, right, rtol=1e-14)
    strict = array_api_strict.asarray(v)
    functions = (
        ("v", lambda w: logitlab.jacobian_product(z, w)),
        ("u", lambda w: logitlab.hessian_product(z, w, z)),
        ("v", lambda w: logitlab.hessian_product(z, z, w)),
    )
    for name, function in functions:
        message = f"^{name} must be an array of the same library as z, a Tensor, got Array$"
        with pytest.raises(TypeError, match=message):
            function(strict)
        with pytest.raises(TypeError, match=f"^{name} must be a real array .*, got complex128$"):
            function([1j, 0, 0])
        with pytest.raises(
            ValueError, match=rf"^{name} must have the shape \(3,\) of z, got \(1, 3\)$"
        ):
            function([v])


def test_messages_name_the_argument():
    z = np.zeros((2, 3))
    for function, vectors in (
        (logitlab.jacobian, ()),
        (logitlab.hessian, ()),
        (logitlab.jacobian_product, (z,)),
        (logitlab.hessian_product, (z, z)),
    ):
        for axis in (None, (0, 1)):
            with pytest.raises(
                TypeError, match=rf"^axis must be an int, got {re.escape(str(axis))}$"
            ):
                function(z, *vectors, axis)
        with pytest.raises(TypeError, match=r"^z must be a real array .*, got complex128$"):
            function(z + 1j, *vectors)
        with pytest.raises(ValueError, match=r"^temperature must not be 0, where softmax has no "):
            function(z, *vectors, temperature=0)


def test_no_warnings_where_products_or_slopes_overflow():
    z = np.array([[3.0, 0.0, 2.0], [1.0, 1.0, -inf]])
    huge = 1.7e308 * np.array([[1, -1, 1], [1, 1, -1]])
    with np.errstate(all="raise"):
        for t in (1e-310, np.array([1e-310, 1.0]), 1e308, inf):
            logitlab.jacobian(z, temperature=t)
            logitlab.hessian(z, temperature=t)
            logitlab.jacobian_product(z, huge, temperature=t)
            logitlab.hessian_product(z, huge, -huge, temperature=t)
        half, v = np.ones(3, np.float16), [1.0, -1.0, 2.0]
        for result in (
            logitlab.jacobian(half, temperature=1e-6),
            logitlab.hessian(half, temperature=1e-6),
            logitlab.jacobian_product(half, v, temperature=1e-6),
            logitlab.hessian_product(half, v, v, temperature=1e-6),
        ):
            assert np.isinf(result).all()


def test_the_last_axis_is_the_class_axis():
    z = arrays.normal((2, 3, 4), np.float64)
    for function, vectors in (
        (logitlab.jacobian, ()),
        (logitlab.hessian, ()),
        (logitlab.jacobian_product, (z,)),
        (logitlab.hessian_product, (z, z)),
    ):
        np.testing.assert_array_equal(function(z, *vectors), function(z, *vectors, 2))


def test_results_have_native_byte_order():
    z = np.array([3.0, 1.0, 2.0]).astype(np.dtype(float).newbyteorder())
    for result in (
        logitlab.jacobian(z),
        logitlab.hessian_product(z, z, z),
        logitlab.cross_entropy(z[None], [0], reduction="none"),
    ):
        assert result.dtype.isnative


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 17, 300])
def test_products_of_plain_arrays_are_those_of_others(dtype, k):
    """Contiguous arrays at one temperature go to the kernels at once; a mask of True does not."""
    rng = np.random.default_rng(k)
    z, u, v = (3 * rng.standard_normal((3, 9, k))).astype(dtype)
    z[1, 0], z[2, 0], z[3, :] = np.inf, -np.inf, -np.inf
    z[4, 0] = np.nan
    z[5, 0] = 60
    for t in (1.0, 0.3):
        for rows in (slice(None), [0, 2, 5, 6, 7, 8]):
            a, b, c = z[rows], u[rows], v[rows]
            everything = np.ones(a.shape, bool)
            for function, vectors in (
                (logitlab.jacobian_product, (b,)),
                (logitlab.hessian_product, (b, c)),
            ):
                result = function(a, *vectors, temperature=t)
                expected = function(a, *vectors, temperature=t, where=everything)
                assert result.dtype == dtype
                scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
                eps = float(np.finfo(dtype).eps)
                np.testing.assert_allclose(result, expected, rtol=30 * eps, atol=eps * scale)
