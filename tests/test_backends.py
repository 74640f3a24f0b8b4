"""All backends: the names and signatures of the reference, and its values over edge cases."""

import inspect
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import array_api_strict
import jax
import ml_dtypes
import numpy as np
import pytest
import torch

import arrays
import exact
import logitlab
from arrays import FLOATS, inf, nan
from exact import mp
from logitlab._arrays import request
from logitlab._backends import jax as jax_backend
from logitlab._backends import native, reference
from logitlab._backends import torch as torch_backend
from logitlab._backends.targets import Targets
from processes import run_code

FUNCTIONS = ["softmax", "log_softmax", "logsumexp"]
BOUND = {"float16": 0.51, "bfloat16": 0.51, "float32": 4, "float64": 4}
by_function = pytest.mark.parametrize("name", FUNCTIONS)
by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
needs_kernels = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)


class Backend:
    """The functions of a backend module, called with NumPy arrays."""

    def __init__(self, module, from_numpy=lambda x: x, to_numpy=lambda x: x):
        self.module, self.from_numpy, self.to_numpy = module, from_numpy, to_numpy
        self.exact = module is not reference

    def __call__(self, name, z, axis=-1, temperature=1.0, where=None):
        call = request(z, axis, temperature, where)
        t = (
            call.temperature
            if isinstance(call.temperature, float)
            else self.from_numpy(call.temperature)
        )
        where = None if call.where is None else self.from_numpy(call.where)
        arguments = (self.from_numpy(call.z), call.axes, t, where)
        last = False if name == "logsumexp" else None
        result = self.to_numpy(getattr(self.module, name)(*arguments, last))
        return call.restore(result) if not (name == "logsumexp" and call.no_axis) else result


def to_torch(x):
    x = np.ascontiguousarray(x) if not x.dtype.isnative or min(x.strides, default=0) < 0 else x
    x = x.astype(x.dtype.newbyteorder("="), copy=True)
    if x.dtype == arrays.BFLOAT16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def from_torch(x):
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(arrays.BFLOAT16)
    return x.numpy()


@pytest.fixture(params=["reference", "native", "torch"])
def backend(request):
    """Every backend, as functions of NumPy arrays."""
    return {
        "reference": Backend(reference),
        "native": Backend(native),
        "torch": Backend(torch_backend, to_torch, from_torch),
    }[request.param]


def ulp(x, dtype):
    info = ml_dtypes.finfo(dtype)
    with np.errstate(all="ignore"):
        exponent = np.frexp(x)[1] - 1
    return np.ldexp(np.longdouble(1), np.maximum(exponent, info.minexp) - int(info.nmant))


def assert_close(value, wide, dtype, scale=None, bound=None):
    """Special values are equal; the errors of finite ones are within the bound of the type."""
    value = np.asarray(value)
    assert value.dtype == dtype
    with np.errstate(all="ignore"):
        expected = np.asarray(wide).astype(dtype)
    special = ~np.isfinite(expected.astype(float))
    np.testing.assert_array_equal(
        value[special].astype(float), expected[special].astype(float), strict=True
    )
    wide = np.asarray(wide)[~special]
    size = wide if scale is None else np.maximum(np.abs(wide), np.asarray(scale)[~special])
    off = np.abs(value[~special].astype(float) - wide.astype(np.longdouble))
    assert (off / ulp(size, dtype)).max(initial=0) <= (bound or BOUND[dtype.name])


def widest(z):
    return z.astype(np.longdouble if z.dtype.kind == "f" and z.dtype.itemsize == 8 else np.float64)


@pytest.mark.parametrize("module", [native, torch_backend, jax_backend])
def test_same_names_and_signatures(module):
    """Every backend has the functions of the reference."""
    names = [
        n for n in vars(reference) if inspect.isfunction(getattr(reference, n)) and n[0] != "_"
    ]
    public = [n for n in names if getattr(reference, n).__module__ == reference.__name__]
    assert set(FUNCTIONS) | {"logits"} <= set(public)
    for name in public:
        assert inspect.signature(getattr(module, name)) == inspect.signature(
            getattr(reference, name)
        )


@by_function
@by_dtype
def test_values_over_edge_cases(backend, name, dtype):
    """Many shapes and layouts, with rows of special values among random ones."""
    for case in arrays.cases(dtype):
        value = backend(name, case.z, case.axis)
        wide = getattr(logitlab, name)(widest(case.z), case.axis)
        scale = None
        if name == "logsumexp" and case.z.ndim:
            size = np.abs(np.where(np.isfinite(widest(case.z)), widest(case.z), 0))
            scale = size.max(axis=case.axis, initial=0)
        # NumPy sums without pairwise blocks along an axis that is not the last.
        plain = dtype == np.float64 and not (backend.exact and logitlab.native_available())
        assert_close(value, wide, dtype, scale, 20 if plain else None)


@by_function
@by_dtype
@pytest.mark.parametrize("temperature", [t for t in arrays.TEMPERATURES if t != 1])
def test_values_at_every_temperature(backend, name, dtype, temperature):
    """Rows of special values, padded to one array, with a scalar T and with one T for each row."""
    rows = list(arrays.rows(dtype))
    for width in (max(map(len, rows)), 40):
        z = np.full((len(rows), width), -inf).astype(dtype)
        for line, row in zip(z, rows, strict=True):
            line[: len(row)] = row
        wide = getattr(logitlab, name)(widest(z), temperature=temperature)
        scale = None
        if name == "logsumexp":
            size = np.where(np.isfinite(widest(z)), np.abs(widest(z)), 0).max(-1)
            scale = np.minimum(size, np.finfo(float).max)
        assert_close(backend(name, z, temperature=temperature), wide, dtype, scale)
        each = np.full(len(z), temperature)
        assert_close(backend(name, z, temperature=each), wide, dtype, scale)


@by_function
@by_dtype
def test_masks(backend, name, dtype):
    """`where` is the same as -inf, for any layout of both."""
    rng = np.random.default_rng(0)
    for shape, axis in (((30, 5), -1), ((30, 50), -1), ((50, 30), 0), ((4, 40, 5), 1)):
        z = arrays.normal(shape, dtype)
        where = rng.random(shape) < 0.7
        excluded = np.where(where, z, np.array(-inf).astype(dtype))
        z[~where] = np.array(nan).astype(dtype)
        for t in (1.0, 0.5, -1.0, 0.0, inf):
            expected = backend(name, excluded, axis, t)
            for mask in (where, np.asfortranarray(where), where[::-1][::-1]):
                value = backend(name, z, axis, t, mask).astype(float)
                # The order of summation of the reference depends on the layout of the array.
                np.testing.assert_allclose(value, expected.astype(float), rtol=1e-15)


@needs_kernels
@by_dtype
@pytest.mark.parametrize("k", [1, 3, 10, 32, 33, 64, 100, 4096, 4097, 20000])
def test_bits_depend_on_the_row_alone(dtype, k):
    """Results do not depend on batch, position, layout, alignment or number of threads."""
    z = arrays.normal((37, k), dtype, 5.0)
    before = logitlab.get_num_threads()
    try:
        for name in FUNCTIONS:
            function = getattr(logitlab, name)
            expected = function(z)
            alone = np.stack([function(row) for row in z])
            shifted = np.empty(z.nbytes + 64, np.uint8)[z.itemsize :][: z.nbytes]
            shifted = shifted.view(dtype).reshape(z.shape)
            shifted[...] = z
            strided = np.zeros((37, 2 * k), dtype)[:, ::2]
            strided[...] = z
            transposed = function(np.ascontiguousarray(z.T), 0)
            others = [
                alone,
                function(z[5:20]),
                function(z[::-1])[::-1],
                function(shifted),
                function(strided),
                function(np.asfortranarray(z)),
                transposed if name == "logsumexp" else transposed.T,
                function(z, temperature=np.ones(37)),
                function(z, where=np.ones(k, bool)),
            ]
            for threads in (1, 2, 3, 8):
                logitlab.set_num_threads(threads)
                others.append(function(np.concatenate([z] * 30))[37 * 7 : 37 * 8])
            for i, other in enumerate(others):
                start = 5 if i == 1 else 0
                assert other.tobytes() == expected[start : start + len(other)].tobytes(), i
    finally:
        logitlab.set_num_threads(before)


BITS = """
import hashlib, sys
import numpy as np
import ml_dtypes, logitlab
from logitlab._backends import native
from logitlab._backends.targets import Targets
rng = np.random.default_rng(0)
digest = hashlib.sha256()
for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
    for n, k in ((20, 1), (20, 2), (20, 3), (20, 7), (17, 10), (9, 50), (9, 200), (3, 5000)):
        for spread in (3, 30):
            z = (rng.standard_normal((n, k)) * spread).astype(dtype)
            for t in (1.0, 0.7, 300.0):
                for f in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp):
                    digest.update(f(z, temperature=t).tobytes())
                y, scale = rng.integers(-1, k, n), rng.standard_normal(n)
                even = rng.dirichlet(np.ones(k), n)
                for targets in Targets(y), Targets(y, None, 0.1), Targets(None, even, 0.2):
                    for x in native.target_loss(z, (1,), t, None, targets, scale):
                        digest.update(x.tobytes())
print(native._native.isa, digest.hexdigest())
"""


@needs_kernels
def test_bits_are_the_same_for_all_instruction_sets():
    """All variants of the kernels that this processor runs."""
    digests = dict(run_code(BITS, LOGITLAB_ISA=isa) for isa in ("v2", "v3", "v4"))
    assert len(set(digests.values())) == 1
    if len(digests) < 3:
        pytest.skip(f"this processor runs only {', '.join(digests)}")


def unaligned(x):
    """A copy that begins at an odd address."""
    memory = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unaligned_memory(dtype):
    """Unaligned NumPy arrays and tensors are read and written as aligned ones."""
    z, y = arrays.normal((5, 300), np.dtype(dtype)), np.arange(5)
    misaligned = unaligned(z)
    tensor = torch.frombuffer(bytearray(b"_" + z.tobytes()), dtype=getattr(torch, z.dtype.name),
                              offset=1).reshape(z.shape)  # fmt: skip
    assert not misaligned.flags.aligned
    assert tensor.data_ptr() % tensor.itemsize
    for name in FUNCTIONS:
        expected = getattr(logitlab, name)(z)
        np.testing.assert_array_equal(getattr(logitlab, name)(misaligned), expected)
        result = getattr(logitlab, name)(tensor)
        np.testing.assert_allclose(result, expected, rtol=4 * np.finfo(dtype).eps)
    for name in ("softmax", "log_softmax"):
        expected = getattr(logitlab, name)(z)
        out = unaligned(np.zeros_like(z))
        assert getattr(logitlab, name)(z, out=out) is out
        np.testing.assert_array_equal(out, expected)
        getattr(logitlab, name)(torch.from_numpy(z), out=tensor)
        np.testing.assert_allclose(tensor, expected, rtol=4 * np.finfo(dtype).eps)
        tensor.copy_(torch.from_numpy(z))
    expected = logitlab.cross_entropy(z, y)
    assert logitlab.cross_entropy(misaligned, unaligned(y)) == expected
    loss = logitlab.cross_entropy(tensor.requires_grad_(), torch.from_numpy(y))
    loss.backward()
    assert loss.item() == pytest.approx(float(expected), rel=4 * float(np.finfo(dtype).eps))
    gradient = logitlab.cross_entropy_and_grad(z, y)[1]
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(tensor.grad, gradient, rtol=8 * eps, atol=eps * eps)
    out = np.zeros(z.shape, z.dtype.newbyteorder())
    with pytest.raises(ValueError, match="in the other byte order"):
        logitlab.softmax(z, out=out)


@needs_kernels
def test_flush_to_zero_changes_nothing():
    """Results do not depend on the floating-point mode of the caller, which is restored."""
    z = np.array([[0.0, -90.0, -100.0, -103.0]] * 20, np.float32)
    expected = logitlab.softmax(z)
    assert (expected[0, 2:] > 0).all()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        result = logitlab.softmax(z)
        product = float(torch.tensor([1e-39]) * 0.5)
    finally:
        torch.set_flush_denormal(False)
    assert result.tobytes() == expected.tobytes()
    assert product == 0


@needs_kernels
def test_calls_from_many_threads():
    """Eight concurrent calls with different rows."""
    inputs = [arrays.normal((64, 700), np.float32, seed=i) for i in range(8)]
    expected = [logitlab.softmax(z).tobytes() for z in inputs]
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        return all(logitlab.softmax(inputs[i]).tobytes() == expected[i] for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child():
    """A child forked after the parent used threads computes the same result."""
    code = """
import os, numpy as np, logitlab
z = np.random.default_rng(0).standard_normal((400, 1000)).astype(np.float32)
expected = logitlab.softmax(z).tobytes()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if logitlab.softmax(z).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
print("same")
"""
    assert run_code(code) == ["same"]


def test_set_num_threads_checks():
    """The number of threads is an int >= 1; a boolean is not one."""
    for value in (True, False, np.True_):
        with pytest.raises(TypeError, match=f"n must be an int, got .*{value}"):
            logitlab.set_num_threads(value)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        logitlab.set_num_threads(0)
    with pytest.raises(TypeError, match="n must be an int"):
        logitlab.set_num_threads(1.5)


@needs_kernels
def test_omp_num_threads_is_respected():
    """The initial number of threads is OMP_NUM_THREADS."""
    code = "import logitlab; print(logitlab.get_num_threads())"
    assert run_code(code, OMP_NUM_THREADS="1") == ["1"]


# The reference, called directly, against exact arithmetic (mpmath).
FLOAT64 = np.dtype(np.float64)


def reference_rows():
    """Finite and special rows; ties; probabilities far below the largest."""
    yield from arrays.rows(FLOAT64)
    rng = np.random.default_rng(0)
    yield from (rng.standard_normal(9) * scale for scale in (0.01, 3, 200, 1e5))
    yield np.array([700.1, 0.3, 699.9, 350.7])
    yield np.array([1e-3, 1.0, 1.0, -745.3])


@mp.workdps(200)  # the logarithm of a sum close to 1
def exact_signed_logsumexp(row, t, b):
    """T log |sum b exp(z/T)| of finite T, the sign of the sum, and the size of the terms.

    The sum is computed relative to the largest exponential, and its logarithm from the sum less 1.
    """
    used = [(mp.mpf(x) / mp.mpf(t), mp.mpf(w)) for x, w in zip(row, b, strict=True) if w]
    used = [(x, w) for x, w in used if mp.isfinite(x)]
    top = max(x for x, _ in used)
    at_top = mp.fsum(w for x, w in used if x == top)
    rest = [w * mp.exp(x - top) for x, w in used if x < top]
    total = at_top + mp.fsum(rest)
    log = mp.log(abs(total))
    terms = abs(at_top - 1) + mp.fsum(map(abs, rest))
    size = abs(mp.mpf(t)) * (abs(top) + terms / min(abs(total), 1) + abs(log))
    return mp.mpf(t) * (top + log), mp.sign(total), size


def largest(row):
    return max((abs(float(x)) for x in row if np.isfinite(x)), default=0.0)


@pytest.mark.parametrize("temperature", [*arrays.TEMPERATURES, 1e10, 1e-10])
def test_reference_against_exact_arithmetic(temperature):
    """Errors are within 2 ULP, of the log-sum-exp within 2 ULP of the largest logit."""
    for row in reference_rows():
        for t in (temperature, np.full((1, 1), temperature)):
            for name in ("softmax", "log_softmax"):
                value = getattr(reference, name)(row[None], (1,), t, None, None)
                assert value.dtype == FLOAT64
                expected = getattr(exact, name)(row.tolist(), temperature)
                errors = map(exact.distance, value[0], expected, [FLOAT64] * len(row))
                assert max(errors) <= 2, (name, row)
            (value,) = reference.logsumexp(row[None], (1,), t, None, False)
            expected = exact.logsumexp(row.tolist(), temperature)
            scale = max(largest(row), abs(expected)) if mp.isfinite(expected) else None
            assert exact.distance(value, expected, FLOAT64, scale) <= 2, row


def test_reference_takes_every_axis_mask_and_output():
    """Rows along one axis or several, a T of each row, a mask, `out` of another type."""
    z = arrays.normal((3, 4, 5), FLOAT64)
    where = np.random.default_rng(1).random((3, 4, 5)) < 0.6
    where[:, 0, 0] = True
    for axes in ((1,), (0, 2), (0, 1, 2)):
        shape = [1 if a in axes else n for a, n in enumerate(z.shape)]
        t = np.random.default_rng(2).uniform(0.5, 2, shape) * np.resize([1, -1], shape)
        rows = [a for a in range(3) if a not in axes]
        order, k = (*rows, *axes), int(np.prod([z.shape[a] for a in axes]))
        flat_z, flat_where = (x.transpose(order).reshape(-1, k) for x in (z, where))
        masked = np.where(flat_where, flat_z, -inf)
        for name in ("softmax", "log_softmax"):
            for dtype in (np.float64, np.float32):
                out = np.empty(z.shape, dtype)
                function = getattr(reference, name)
                assert function(z, axes, t, where, out) is out
                assert function(z, axes, t, where, None).dtype == FLOAT64
                flat = out.transpose(order).reshape(-1, k)
                for row, mine, t_row in zip(masked, flat, t.ravel(), strict=True):
                    expected = getattr(exact, name)(row.tolist(), float(t_row))
                    errors = map(exact.distance, mine, expected, [out.dtype] * k)
                    assert max(errors) <= 2
        for keepdims in (True, False):
            value = reference.logsumexp(z, axes, t, where, keepdims)
            assert value.shape == (tuple(shape) if keepdims else tuple(z.shape[a] for a in rows))
            expected = [
                float(exact.logsumexp(row.tolist(), float(t_row)))
                for row, t_row in zip(masked, t.ravel(), strict=True)
            ]
            np.testing.assert_allclose(value.ravel(), expected, rtol=1e-15, atol=1e-15)


def test_reference_of_no_classes():
    """A sum over nothing is 0: its logarithm times T is -inf, for T < 0 inf; the sign is 0."""
    z = np.empty((2, 0, 3))
    for t, expected in ((1.0, -inf), (0.5, -inf), (0.0, -inf), (-2.0, inf), (inf, -inf)):
        assert reference.signed_logsumexp(z, (1,), t, None, True, None)[1] is None
        for keepdims, shape in ((True, (2, 1, 3)), (False, (2, 3))):
            value = reference.logsumexp(z, (1,), t, None, keepdims)
            np.testing.assert_array_equal(value, np.full(shape, expected), strict=True)
            value, sign = reference.signed_logsumexp(z, (1,), t, None, keepdims, z)
            np.testing.assert_array_equal(value, np.full(shape, expected), strict=True)
            np.testing.assert_array_equal(sign, np.zeros(shape), strict=True)
    for t, expected in ((np.array([[[1.0]], [[-1.0]]]), [[-inf] * 3, [inf] * 3]),):
        np.testing.assert_array_equal(reference.logsumexp(z, (1,), t, None, False), expected)
    assert reference.logsumexp(np.empty((0, 3)), (0, 1), 1.0, None, False) == -inf
    for function in (reference.softmax, reference.log_softmax):
        assert function(z, (1,), 1.0, None, None).shape == (2, 0, 3)
        out = np.empty((2, 0, 3), np.float32)
        assert function(z, (1,), 1.0, None, out) is out


def test_reference_types():
    """Results have the type of z, in native byte order; longdouble is computed in longdouble."""
    z = np.array([[0.1, 2.0, -1.0]])
    for dtype in (*FLOATS, np.dtype(np.longdouble)):
        for name, last in (("softmax", None), ("log_softmax", None), ("logsumexp", False)):
            function = getattr(reference, name)
            value = function(z.astype(dtype), (1,), 0.7, None, last)
            assert value.dtype == dtype
            exact_name = getattr(exact, name)
            if dtype == np.longdouble:
                expected = np.ravel(exact_name(z[0].tolist(), 0.7))
                for x, y in zip(value.ravel(), expected, strict=True):
                    high = float(x)
                    error = abs(mp.mpf(high) + mp.mpf(float(x - high)) - y) / abs(y)
                    assert error <= 4 * mp.mpf(float(np.finfo(np.longdouble).eps))
                continue
            expected = np.ravel(exact_name(z.astype(dtype)[0].tolist(), 0.7))
            for x, y in zip(value.ravel(), expected, strict=True):
                assert exact.distance(x, y, dtype) <= (2 if dtype == FLOAT64 else 0.51)
    swapped = z.astype(z.dtype.newbyteorder())
    value = reference.softmax(swapped, (1,), 1.0, None, None)
    assert value.dtype.isnative
    np.testing.assert_array_equal(value, reference.softmax(z, (1,), 1.0, None, None))


SIGNED = [
    ([0.0, 0.0], [3.0, -1.0]),
    ([0.0, 0.0], [1.0, -3.0]),
    ([1.0, 3.0, 2.0], [0.5, -0.25, 2.0]),
    ([1.0, 3.0, 2.0], [0.5, -4.0, 2.0]),
    ([0.0, -1.0], [0.6, -0.2]),  # the sum is near 1/2
    ([0.0, -40.0], [1.0, 1e-3]),  # the sum is near 1
    ([0.0, -40.0], [1.0, -1e-3]),
    ([0.0, 0.0, -30.0], [0.5, 0.5, 2.0]),
    ([2.0, 2.0], [0.75, 0.75]),
    ([-5.0, 8.0, -inf], [2.0, 0.0, 3.0]),  # a weight of 0 excludes the largest logit
    ([1000.0, 1001.0], [-2.0, 0.5]),
    ([5.0], [-3.0]),
]


@pytest.mark.parametrize(("row", "b"), SIGNED)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 7.0, -1.0, -0.4])
def test_reference_signed_sums(row, b, temperature):
    """Of any sign; where the sum is close to 1, its logarithm has a small relative error."""
    z, weights = np.array([row]), np.array([b])
    value, sign = reference.signed_logsumexp(z, (1,), temperature, None, False, weights)
    expected, expected_sign, size = exact_signed_logsumexp(row, temperature, b)
    assert sign == expected_sign
    assert abs(value[0] - expected) <= 4e-16 * size
    # A mask excludes as a weight of 0 does.
    z, weights = np.array([[7.0, *row]]), np.array([[9.0, *b]])
    where = np.array([[False] + [True] * len(row)])
    masked = reference.signed_logsumexp(z, (1,), temperature, where, True, weights)
    assert masked[0].tolist() == [value.tolist()]
    assert masked[1].tolist() == [sign.tolist()]


@pytest.mark.parametrize(
    ("row", "b", "temperature", "value", "sign"),
    [
        ([1.0, 1.0], [2.0, -2.0], 1.0, -inf, 0),
        ([1.0, 1.0], [2.0, -2.0], -1.0, inf, 0),
        ([1.0, 2.0], [0.0, 0.0], 1.0, -inf, 0),
        ([1.0, nan], [1.0, 1.0], 1.0, nan, nan),
        ([1.0, nan], [1.0, 0.0], 1.0, 1.0, 1),
        ([-inf, -inf], [1.0, 1.0], 1.0, -inf, 0),
        ([-inf, -inf], [1.0, 1.0], -1.0, inf, 0),
        ([inf, 2.0], [3.0, 1.0], 1.0, inf, 1),
        ([inf, 2.0], [-3.0, 1.0], 1.0, inf, -1),
        ([1.0, 2.0, 2.0], [1.0, 3.0, -5.0], 0.0, 2.0, -1),
        # T log(sum b + (sum b z)/T + ...) as T goes to infinity.
        ([0.0, 2.0], [0.5, 0.5], inf, 1.0, 1),
        ([0.0, 2.0], [-0.5, -0.5], inf, 1.0, -1),
        ([0.0, 2.0, 8.0], [0.5, -2.0, 0.5], inf, 0.0, -1),
        ([0.0, 2.0, 8.0], [0.5, -2.0, 0.5], -inf, 0.0, -1),
        ([0.0, 2.0, -inf], [0.25, 0.75, 5.0], inf, 1.5, 1),
        ([0.0, 2.0], [0.25, 0.75], -inf, 1.5, 1),
        ([0.0, 2.0], [2.0, 0.5], inf, inf, 1),
        ([0.0, 2.0], [0.25, 0.5], inf, -inf, 1),
        ([0.0, 2.0], [-2.0, 0.5], inf, inf, -1),
        ([0.0, 2.0], [0.25, 0.5], -inf, inf, 1),
        ([inf, 2.0], [0.5, 0.5], inf, inf, 1),
    ],
)
def test_reference_signed_sums_in_the_limit(row, b, temperature, value, sign):
    """Sums of 0, special rows, T = 0 and T = inf."""
    for t in (temperature, np.full((1, 1), temperature)):
        result = reference.signed_logsumexp(np.array([row]), (1,), t, None, False, np.array([b]))
        np.testing.assert_array_equal(result[0], [value])
        np.testing.assert_array_equal(result[1], [sign])


def test_reference_signed_sums_over_axes():
    """b has the shape of z, of any type; results have the type of z."""
    z = arrays.normal((3, 2, 4), np.dtype(np.float32))
    b = np.random.default_rng(1).integers(-3, 4, z.shape)
    value, sign = reference.signed_logsumexp(z, (0, 2), 1.0, None, False, b)
    sums = (b * np.exp(z.astype(float))).sum(axis=(0, 2))
    assert value.dtype == sign.dtype == np.float32
    np.testing.assert_allclose(value, np.log(abs(sums)), rtol=1e-5)
    np.testing.assert_array_equal(sign, np.sign(sums))
    value, sign = reference.signed_logsumexp(z, (0, 2), 1.0, None, True, None)
    assert sign is None
    assert value.shape == (1, 2, 1)
    np.testing.assert_allclose(value[0, :, 0], np.log(np.exp(z).sum(axis=(0, 2))), rtol=1e-5)


@pytest.mark.parametrize(
    "p",
    [
        [0.25, 0.25, 0.5],
        [0.0, 0.5, 0.5],
        [3.0, 1e-300, 7.0],
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 2.0],
        [inf, 1.0, 2.0],
        [nan, 1.0, 0.0],
        [0.1, 0.2, 1e-5],
    ],
)
def test_reference_logits(p):
    """log p less its mean over the finite entries."""
    logs = [mp.log(x) if x > 0 else -mp.inf for x in p]
    finite = [x for x in logs if mp.isfinite(x)]
    mean = mp.fsum(finite) / max(len(finite), 1)
    expected = [mp.nan if np.isnan(p).any() else x - mean for x in logs]
    for value in (
        reference.logits(np.array([p, p]), (1,))[1],
        reference.logits(np.array([p]).T, (0,))[:, 0],
    ):
        for x, y in zip(value, expected, strict=True):
            scale = max(map(abs, finite), default=1) if mp.isfinite(y) else None
            assert exact.distance(x, y, FLOAT64, scale) <= 2


def exact_target_loss(row, t, y):
    """The loss -sum y log p and its gradient p sum y - y, 0 at an excluded class."""
    log_p, p = exact.log_softmax(row, t), exact.softmax(row, t)
    y = [mp.mpf(x) for x in y]
    loss = -mp.fsum(a * b for a, b in zip(y, log_p, strict=True) if not (a == 0 and mp.isinf(b)))
    total = mp.fsum(y)
    excluded = [x == -inf or (t < 0 and x == inf) for x in row]
    undefined = all(excluded) or any(map(np.isnan, row))
    return loss, [
        mp.mpf(0) if out and not undefined else a * total - b
        for a, b, out in zip(p, y, excluded, strict=True)
    ]


LOSSES = [
    # row, T, mask, label, smoothing
    ([1.0, 2.0, 3.0], 1.0, None, 0, 0.0),
    ([1.0, 2.0, 3.0], 0.4, None, 2, 0.0),
    ([1.0, 2.0, 3.0], -0.4, None, 2, 0.25),
    ([50.0, 0.0, 3.0], 1.0, None, 0, 0.0),  # saturated: p - 1 does not cancel
    ([50.0, 0.0, 3.0], 1.0, None, 0, 1e-9),
    ([1.0, -inf, 3.0], 1.0, None, 0, 0.3),
    ([1.0, -inf, 3.0], 1.0, None, 1, 0.0),
    ([1.0, nan, 3.0], 1.0, [True, False, True], 0, 0.3),
    ([1.0, 9.0, 3.0], 1.0, [True, False, True], 1, 0.0),
    ([1.0, nan, 3.0], 1.0, None, 0, 0.0),
    ([-inf, -inf, -inf], 1.0, None, 0, 0.0),
    ([inf, 2.0, inf], 1.0, None, 2, 0.0),
    ([inf, 2.0, inf], 1.0, None, 1, 0.0),
    ([inf, 2.0, 3.0], -1.0, None, 1, 0.1),
    ([1.0, 5.0, 5.0], 0.0, None, 1, 0.0),
    ([1.0, 5.0, 5.0], inf, None, 0, 0.5),
]


@pytest.mark.parametrize(("row", "temperature", "where", "label", "smoothing"), LOSSES)
@pytest.mark.parametrize("scale", [None, 1.0, -2.5, "each"])
def test_reference_losses_of_labels(row, temperature, where, label, smoothing, scale):
    """A second row is ignored: its loss and its gradient are 0, whatever it holds."""
    used = [x if keep else -inf for x, keep in zip(row, where or [True] * 3, strict=True)]
    y = [float(j == label) for j in range(3)]
    count = sum(x != -inf for x in used)
    uniform = [(x != -inf) / count if count else nan for x in used]
    y = [
        (1 - smoothing) * a + (smoothing * b if smoothing else 0)
        for a, b in zip(y, uniform, strict=True)
    ]
    loss, gradient = exact_target_loss(used, temperature, y)
    factor = {"each": 3.0, None: 1.0}.get(scale, scale)
    scales = np.array([3.0, 5.0]) if scale == "each" else scale
    z, labels = np.array([row, [nan, 1.0, inf]]), np.array([label, -1])
    mask = None if where is None else np.array([where, [True] * 3])
    for axis in (1, 0):
        for t in (temperature, np.full((2, 1), temperature)):
            if axis == 0:
                t = t if isinstance(t, float) else t.T
            losses, by_z = reference.target_loss(
                z if axis else z.T.copy(),
                (axis,),
                t,
                mask if axis or mask is None else mask.T,
                Targets(labels, None, smoothing),
                scales,
            )
            assert losses.shape == (2,)
            assert losses[1] == 0
            assert exact.distance(losses[0], loss, FLOAT64) <= 4
            assert (by_z is None) == (scale is None)
            if scale is None:
                continue
            by_z = by_z if axis else by_z.T
            assert by_z[1].tolist() == [0, 0, 0]
            for mine, g in zip(by_z[0], gradient, strict=True):
                if mp.isfinite(g):
                    assert mine == pytest.approx(float(factor * g), rel=2e-15, abs=1e-300)
                else:
                    assert np.isnan(mine)


@pytest.mark.parametrize(
    ("row", "temperature", "y"),
    [
        ([1.0, 2.0, 3.0], 1.0, [0.2, 0.3, 0.5]),
        ([1.0, 2.0, 3.0], 0.5, [2.0, 0.0, 1.0]),
        ([1e308, -1e308, 0.0], 1.0, [0.5, 0.25, 0.25]),  # (m - z)/T overflows, times y it does not
        ([1e308, -1e308, 0.0], -1.0, [0.25, 0.5, 0.25]),
        ([1e308, -1e308, 0.0], 0.25, [0.5, 0.125, 0.0]),
        ([1e308, -1e308, 0.0], 1e-3, [1.0, 1e-5, 0.0]),
        ([1e308, -1e308, 0.0], 1e-3, [1.0, 1.0, 0.0]),
        ([-inf, 2.0, 3.0], 1.0, [0.0, 0.5, 0.5]),
        ([-inf, 2.0, 3.0], 1.0, [0.5, 0.5, 0.0]),
    ],
)
def test_reference_losses_of_distributions(row, temperature, y):
    """Also where differences of logits overflow; excluded classes of weight 0 add nothing."""
    loss, gradient = exact_target_loss(row, temperature, y)
    losses, by_z = reference.target_loss(
        np.array([row]), (1,), temperature, None, Targets(None, np.array([y])), 2.0
    )
    assert exact.distance(losses[0], loss, FLOAT64) <= 2
    np.testing.assert_allclose(by_z[0], [float(2 * g) for g in gradient], rtol=2e-15, atol=4e-16)


def test_reference_losses_types_and_no_classes():
    """Losses are in the widest type, gradients in that of z; a row of no classes has loss 0."""
    z = np.array([[1.0, 2.0]], np.float32)
    losses, by_z = reference.target_loss(z, (1,), 1.0, None, Targets(np.array([0])), 1.0)
    assert losses.dtype == np.float64
    assert losses[0] == pytest.approx(np.log1p(np.exp(1)), rel=1e-15)
    assert by_z.dtype == np.float32
    empty = np.empty((2, 0))
    losses, by_z = reference.target_loss(empty, (1,), 1.0, None, Targets(np.array([0, 1])), None)
    assert losses.tolist() == [0, 0]
    assert by_z is None
    losses, by_z = reference.target_loss(empty, (1,), 1.0, None, Targets(np.array([0, 1])), 1.0)
    assert losses.tolist() == [0, 0]
    assert by_z.shape == (2, 0)
    # An infinite factor, as 1/T of a tiny T: a gradient of 0 stays 0.
    z = np.array([[0.0, -inf]])
    by_z = reference.target_loss(z, (1,), 1.0, None, Targets(np.array([0])), inf)[1]
    assert by_z.tolist() == [[0, 0]]
    # A mask that broadcasts.
    z = np.zeros((2, 3))
    losses, by_z = reference.target_loss(
        z, (1,), 1.0, np.array([True, True, False]), Targets(np.array([0, 1])), 1.0
    )
    np.testing.assert_allclose(losses, [np.log(2)] * 2, rtol=1e-15)
    np.testing.assert_allclose(by_z, [[-0.5, 0.5, 0], [0.5, -0.5, 0]], rtol=1e-15)


PROBABILITIES = [
    [0.25, 0.75],
    [1.0, 1e-20, 2e-20],
    [1e-20, 1.0, 0.0],
    [0.5, 0.5],
    [0.2, 0.3, 0.1, 0.4],
    [1.0],
    [0.0, 1.0],
    [1e-20, 3e-20, 1.0],
]


def exact_products(p, u, v):
    """1 - p, v less its mean, the product with the Jacobian and with the Hessian, without slope."""
    p, u, v = ([mp.mpf(x) for x in row] for row in (p, u, v))
    top = p.index(max(p))
    rest = mp.fsum(x for i, x in enumerate(p) if i != top)
    p = [1 - rest if i == top else x for i, x in enumerate(p)]  # so that they sum to 1
    mean_u, mean_v = (mp.fsum(a * b for a, b in zip(p, x, strict=True)) for x in (u, v))
    products = [(a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)]
    mean = mp.fsum(a * b for a, b in zip(p, products, strict=True))
    return (
        [1 - x for x in p],
        [(b - mean_v) if a else mp.mpf(0) for a, b in zip(p, v, strict=True)],
        [a * (b - mean_v) for a, b in zip(p, v, strict=True)],
        [a * (b - mean) for a, b in zip(p, products, strict=True)],
    )


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize(
    ("u_scale", "v_scale"),
    [
        (1, 1),
        (1e308, 1),
        (1, 1e308),
        (1e-308, 1e308),
        (1e160, 1e160),
        (1e-160, 1e-150),
        (1e-300, 1),
    ],
)
def test_reference_derivatives(p, u_scale, v_scale):
    """Small relative errors, also of saturated rows; only results that are too large overflow."""
    rng = np.random.default_rng(len(p))
    u, v = rng.uniform(-1, 1, (2, len(p))) * [[u_scale], [v_scale]]
    others, away, by_v, by_u_v = exact_products(p, u, v)
    scale = max(abs(v))
    p = np.array([p])
    np.testing.assert_allclose(reference.one_minus(p)[0], np.array(others, float), rtol=1e-15)
    if v_scale < 1e300:
        expected = np.array(away, float)
        mine = reference.centred(p, v[None])[0]
        np.testing.assert_allclose(mine, expected, rtol=1e-14, atol=1e-15 * scale)
    for slope in (1.0, -2.5, 0.0):
        slopes = np.array([[slope]])
        assert reference.jacobian(p, slopes).shape == (1, p.size, p.size)
        matrix = [
            [
                float(slope * (a * others[i] if i == j else -a * b))
                for j, b in enumerate(p[0].tolist())
            ]
            for i, a in enumerate(p[0].tolist())
        ]
        np.testing.assert_allclose(reference.jacobian(p, slopes)[0], matrix, rtol=1e-15)
        mine = reference.jacobian_product(p, v[None], slopes)[0]
        assert_products(
            mine, [slope * x for x in by_v], [x * abs(slope) * mp.mpf(scale) for x in p[0]]
        )
        mine = reference.hessian_product(p, u[None], v[None], slopes)[0]
        size = mp.mpf(max(abs(u))) * mp.mpf(scale) * mp.mpf(slope) ** 2
        assert_products(mine, [slope**2 * x for x in by_u_v], [x * size for x in p[0]])


def assert_products(value, exact_value, size):
    """Errors relative to the terms that cancel; the infinity of a result that is too large."""
    for x, y, s in zip(value.tolist(), exact_value, size, strict=True):
        if abs(y) > float(np.finfo(float).max):
            assert x == np.copysign(inf, float(mp.sign(y)))
        else:
            assert abs(x - y) <= 8e-16 * s + 1e-322


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), FLOAT64], ids=str)
def test_reference_at_every_scale(dtype):
    """At any T, also of JAX arrays, where float64 is not enabled: errors are within 6 ULP.

    JAX compiles each operation once, which takes seconds, and replaces subnormal numbers by 0.
    """
    convert = jax.numpy.asarray if dtype == np.float32 else np.asarray
    exponents, spreads, smallest = (0, 5, 18, 19, 20, 25, 28), (0.01, 1, 20), 1e-37
    if dtype == FLOAT64:
        exponents, spreads, smallest = (0, 20, 149, 154, 155, 180, 200, 300), (0.01, 1, 100), 0
    rng = np.random.default_rng(0)
    for exponent in (*exponents, *(-e for e in exponents)):
        for sign in (1, -1):
            t = float(dtype.type(sign * rng.uniform(0.3, 3) * 10.0**exponent))
            for spread in spreads:
                row = (spread * t * rng.standard_normal(9)).astype(dtype)
                for name in ("softmax", "log_softmax"):
                    z = convert(row[None])
                    value = np.asarray(getattr(reference, name)(z, (1,), t, None, None))
                    assert value.dtype == dtype
                    for x, y in zip(value[0], getattr(exact, name)(row.tolist(), t), strict=True):
                        assert abs(y) < smallest or exact.distance(x, y, dtype) <= 6


@pytest.mark.parametrize("convert", [array_api_strict.asarray, to_torch])
def test_reference_of_other_libraries(convert):
    """The values of NumPy, in the library and the type of the arguments."""
    rng = np.random.default_rng(0)
    z, b, v = rng.standard_normal((3, 4, 5))
    where, labels, scale = rng.random((4, 5)) < 0.8, np.array([0, 3, -1, 2]), np.full(4, 0.25)
    where[[0, 1, 3], [0, 3, 2]] = True
    t = np.array([[1.0], [0.3], [2.0], [-1.0]])
    p = reference.softmax(z, (1,), 1.0, None, None)
    slope = np.array([[1.0], [2.0], [0.3], [-1.0]])

    def results(f):
        """All functions, with arguments that f converts."""
        y, s = Targets(f(labels), None, 0.1), f(scale)
        distribution = Targets(None, f(p))
        yield reference.softmax(f(z), (1,), 0.7, None, None)
        yield reference.softmax(f(z), (1,), f(t), f(where), None)
        yield reference.log_softmax(f(z), (1,), 0.7, f(where), None)
        yield reference.logsumexp(f(z), (1,), f(t), f(where), True)
        yield from reference.signed_logsumexp(f(z), (1,), 2.0, f(where), False, f(b))
        yield reference.logits(f(p), (1,))
        yield from reference.target_loss(f(z), (1,), 1.0, f(where), y, s)
        yield from reference.target_loss(f(z), (1,), f(t), f(where), y, 2.0)
        yield from reference.target_loss(
            f(z), (0,), 1.0, None, distribution._replace(distribution=f(p.T)), 2.0
        )
        yield reference.one_minus(f(p))
        yield reference.centred(f(p), f(v))
        yield reference.jacobian(f(p), f(slope))
        yield reference.jacobian_product(f(p), f(v), f(slope))
        yield reference.hessian_product(f(p), f(v), f(b), f(slope))

    for mine, expected in zip(results(convert), results(np.asarray), strict=True):
        assert type(mine) is type(convert(z))
        assert tuple(mine.shape) == expected.shape
        mine = np.asarray(mine)
        assert mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, rtol=1e-13, atol=1e-15)


def test_reference_on_another_device():
    """Every array that a function creates is on the device of its arguments."""
    device = array_api_strict.Device("device1")

    def f(x):
        return array_api_strict.asarray(np.asarray(x), device=device)

    z, p, slope = f([[1.0, 2.0, 0.5]]), f([[0.25, 0.25, 0.5]]), f([[2.0]])
    targets = Targets(f([1]), None, 0.1)
    results = [
        reference.softmax(z, (1,), 0.7, None, None),
        reference.log_softmax(z, (1,), 0.7, f([True, False, True]), None),
        reference.logsumexp(z, (1,), 0.7, None, False),
        reference.logits(p, (1,)),
        *reference.target_loss(z, (1,), 0.7, None, targets, 2.0),
        reference.one_minus(p),
        reference.centred(p, z),
        reference.jacobian(p, slope),
        reference.jacobian_product(p, z, slope),
        reference.hessian_product(p, z, z, slope),
        reference.linear_loss(z, p, None, Targets(f([0])), 0.7, None, False)[0],
    ]
    assert all(x.device == device for x in results)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reference_products_and_quotients_with_their_rounding_errors(dtype):
    """A product and its rounding error are exact; a quotient has twice the digits of its type."""
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(1, 2, 500).astype(dtype) for _ in range(2))
    products, errors = reference._exact_product(a, b, np)
    for x, y, product, error in zip(a, b, products, errors, strict=True):
        assert product == x * y
        assert Fraction(float(product)) + Fraction(float(error)) == Fraction(float(x)) * Fraction(
            float(y)
        )
    largest_exponent = 30 if dtype == np.float32 else 280
    scales = 10.0 ** rng.integers(-largest_exponent, largest_exponent, 500)
    m = rng.uniform(-3, 3, 500).astype(dtype)
    w = (m - rng.exponential(1, 500)).astype(dtype)
    s = rng.uniform(0.1, 1, 500).astype(dtype)
    m, w, s = ((x * scales).astype(dtype) for x in (m, w, s))
    eps = float(np.finfo(dtype).eps)
    quotients, errors = reference._exact_quotient(w, m, s, np)
    for x, y, z, quotient, error in zip(w, m, s, quotients, errors, strict=True):
        exact_quotient = (Fraction(float(x)) - Fraction(float(y))) / Fraction(float(z))
        off = Fraction(float(quotient)) + Fraction(float(error)) - exact_quotient
        assert abs(off) <= abs(exact_quotient) * Fraction(2 * eps * eps)


@pytest.mark.parametrize("temperature", [1.0, 0.5, -2.0])
def test_reference_gradients_of_saturated_rows(temperature):
    """Those of log p by torch: (delta_ij - p_j) / T, where 1 - p does not cancel."""
    rows = [[50.0, 0.0, 3.0], [2.0, 2.0, -1.0], [0.0, 45.0, 45.0], [1.0, 2.0, 3.0]]
    with mp.workdps(60):
        for i in range(3):
            z = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
            log_p = reference.log_softmax(z, (1,), temperature, None, None)
            (gradient,) = torch.autograd.grad(log_p[:, i].sum(), z)
            for row, mine in zip(rows, gradient.tolist(), strict=True):
                p = exact.softmax(row, temperature)
                one_minus = mp.fsum(x for j, x in enumerate(p) if j != i)
                expected = [one_minus if j == i else -x for j, x in enumerate(p)]
                assert mine == pytest.approx([float(x) / temperature for x in expected], rel=1e-13)


@pytest.mark.parametrize("temperature", [0.0, inf, -inf, 1.0])
def test_reference_gradients_are_finite(temperature):
    """Of rows with infinite logits and in the limits of T: there they are 0."""
    rows = [[1.0, 2.0, 3.0], [inf, 0.0, inf], [-inf, 1.0, 2.0], [-inf, -inf, -inf], [5.0, 5.0, 1.0]]
    for name in ("softmax", "log_softmax"):
        z = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        value = getattr(reference, name)(z, (1,), temperature, None, None)
        finite = torch.where(torch.isfinite(value), value, 0.0)
        weights = torch.tensor([1.0, 3.0, -2.0], dtype=torch.float64)
        (gradient,) = torch.autograd.grad((finite * weights).sum(), z)
        assert torch.isfinite(gradient).all()
        if temperature != 1:
            assert (gradient == 0).all()
        else:
            assert (gradient[[1, 3]] == 0).all()
            assert (gradient[[0, 4]] != 0).all()


def test_reference_rows_are_independent():
    """Each row of a batch of three axes has the result of that row alone, along any axis."""
    rng = np.random.default_rng(0)
    z, v, u = rng.standard_normal((3, 2, 3, 4))
    b = rng.dirichlet(np.ones(4), (2, 3)) * [[[1], [-1], [2]], [[1], [1], [-0.5]]]
    z[0, 1, 2], z[1, 0, 3], z[1, 1, :] = nan, -inf, 2.0
    where = rng.random((2, 3, 4)) < 0.7
    where[..., 0] = where[0, 1, 2] = True
    p = rng.dirichlet(np.ones(4), (2, 3))
    p[0, 0] = [1.0, 1e-20, 0.0, 2e-20]
    q = p.copy()
    q[1, 2, 0] = nan
    labels, scale = rng.integers(0, 4, (2, 3)), rng.standard_normal((2, 3))
    labels[1, 2] = -1
    slope = rng.standard_normal((2, 3, 1))
    t = rng.choice([0.5, -2.0, inf, 1.0, 0.0], (2, 3, 1))

    def results(f, axis, rows, t):
        """All functions on some rows; f moves the classes of three axes to the axis."""
        y = Targets(labels[rows], None, 0.1)
        x, mask = f(z[rows]), f(where[rows])
        t = t if isinstance(t, float) else f(t[rows])
        yield f(reference.softmax(x, axis, t, mask, None), True)
        yield f(reference.log_softmax(x, axis, t, mask, None), True)
        yield f(reference.logsumexp(x, axis, t, mask, True), True)
        for part in reference.signed_logsumexp(x, axis, t, mask, True, f(b[rows])):
            yield f(part, True)
        yield f(reference.logits(f(q[rows]), axis), True)
        losses, gradient = reference.target_loss(x, axis, t, mask, y, scale[rows])
        yield losses
        yield f(gradient, True)
        yield reference.one_minus(p[rows])
        yield reference.centred(p[rows], v[rows])
        yield reference.jacobian(p[rows], slope[rows])
        yield reference.jacobian_product(p[rows], v[rows], slope[rows])
        yield reference.hessian_product(p[rows], u[rows], v[rows], slope[rows])

    def moved(x, back=False):
        return np.moveaxis(x, *((1, -1) if back else (-1, 1)))

    for temperature in (0.7, inf, t):
        for f, axis in ((lambda x, back=False: x, (2,)), (moved, (1,))):
            batch = list(results(f, axis, np.s_[:, :], temperature))
            for i, j in np.ndindex(2, 3):
                alone = results(
                    lambda x, back=False: x, (2,), np.s_[i : i + 1, j : j + 1], temperature
                )
                for whole, part in zip(batch, alone, strict=True):
                    np.testing.assert_allclose(whole[i, j], part[0, 0], rtol=1e-13, atol=1e-15)


def test_reference_derivatives_of_one_row_and_of_no_classes():
    """One axis is enough; without classes the argument comes back."""
    p, v = np.array([0.2, 0.8]), np.array([1.0, 3.0])
    np.testing.assert_allclose(reference.one_minus(p), [0.8, 0.2], rtol=1e-15)
    np.testing.assert_allclose(reference.centred(p, v), [-1.6, 0.4], rtol=1e-15)
    slope = np.array([2.0])
    np.testing.assert_allclose(reference.jacobian(p, slope), [[0.32, -0.32], [-0.32, 0.32]])
    np.testing.assert_allclose(reference.jacobian_product(p, v, slope), [-0.64, 0.64])
    # Mean of the products 0.64, so 4 (0.2 (2.56 - 0.64), 0.8 (0.16 - 0.64)).
    np.testing.assert_allclose(reference.hessian_product(p, v, v, slope), [1.536, -1.536])
    empty, slope = np.empty((2, 0)), np.ones((2, 1))
    assert reference.one_minus(empty).shape == (2, 0)
    assert reference.centred(empty, empty).shape == (2, 0)
    assert reference.jacobian_product(empty, empty, slope).shape == (2, 0)
    assert reference.hessian_product(empty, empty, empty, slope).shape == (2, 0)


def test_reference_mask_in_the_limit_of_signed_sums():
    """Only the weights of entries that are not excluded count."""
    z, b = np.array([[0.0, 2.0, 7.0]]), np.array([[0.5, 0.5, 3.0]])
    where = np.array([[True, True, False]])
    value, sign = reference.signed_logsumexp(z, (1,), inf, where, False, b)
    assert value.tolist() == [1.0]
    assert sign.tolist() == [1.0]


@pytest.mark.parametrize(
    ("dtype", "u", "v", "slope"),
    [
        (np.float64, [1.0, 1.0, -1.0], [1e300, 1e-200, -1e-200], 1.0),
        (np.float64, [1e300, 1e-200, -1e-200], [1.0, 1.0, -1.0], 1.0),
        (np.float64, [1.0, 1e-200, -1e-200], [0.0, 1e-200, -2e-200], 1e60),
        (np.float64, [0.0, 1e200, -1e200], [1.0, 1e200, -2e200], 1e-60),
        (np.float64, [0.0, 1e200, -1e200], [1.0, 1e-200, -2e-200], 3.0),
        (np.float64, [0.0, 1.7e308, -1.7e308], [1.0, 1e-200, -2e-200], 3.0),
        (np.float32, [1.0, 1e-20, -1e-20], [0.0, 1e-20, -2e-20], 1e20),
        (np.float32, [0.0, 1e25, -1e25], [1.0, 1e25, -2e25], 1e-20),
        (np.float32, [0.0, 1e-20, -1e-20], [1.0, 1e25, -2e25], 3.0),
    ],
)
def test_reference_products_of_huge_and_tiny_vectors(dtype, u, v, slope):
    """Only a result that is out of range overflows or underflows; entries where p is 0 are ignored.

    float32 as of JAX, in which float64 is not enabled.
    """
    convert = jax.numpy.asarray if dtype == np.float32 else np.asarray
    u, v, p, slope = (np.array([x], dtype) for x in (u, v, [0.0, 0.25, 0.75], [slope]))
    exact_u, exact_v = ([Fraction(float(x)) for x in w[0, 1:]] for w in (u, v))
    weights, factor = [Fraction(1, 4), Fraction(3, 4)], Fraction(float(slope[0, 0]))
    centred = [
        [x - sum(a * b for a, b in zip(weights, w, strict=True)) for x in w]
        for w in (exact_u, exact_v)
    ]
    products = [a * b for a, b in zip(*centred, strict=True)]
    mean = sum(a * b for a, b in zip(weights, products, strict=True))
    expected = [float(factor**2 * a * (b - mean)) for a, b in zip(weights, products, strict=True)]
    arguments = map(convert, (p, u, v, slope))
    value = np.asarray(reference.hessian_product(*arguments))
    assert value.dtype == dtype
    rtol = 1e-14 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(value[0], [0, *expected], rtol=rtol)


def test_reference_jacobian_product_where_differences_overflow():
    v = np.array([[1.7e308, -1.7e308, 0.0]])
    p = np.array([[0.25, 0.5, 0.25]])
    mean = 0.25 * 1.7e308 - 0.5 * 1.7e308
    expected = [0.25 * (1.7e308 / 2 - mean / 2) * 2, 0.5 * (-1.7e308 - mean), -0.25 * mean]
    value = reference.jacobian_product(p, v, np.ones((1, 1)))
    np.testing.assert_allclose(value, [expected], rtol=1e-15)


def test_reference_limits_of_a_batch():
    """Each row has its own limit at T = inf; a loss of no classes has the batch shape."""
    z, b = np.array([[0.0, 2.0], [3.0, 7.0]]), np.array([[0.5, 0.5], [-0.25, -0.75]])
    value, sign = reference.signed_logsumexp(z, (1,), inf, None, False, b)
    assert value.tolist() == [1.0, 6.0]
    assert sign.tolist() == [1.0, -1.0]
    empty, labels = np.empty((2, 3, 0)), Targets(np.zeros((2, 3), int))
    losses, gradient = reference.target_loss(empty, (2,), 1.0, None, labels, 1.0)
    np.testing.assert_array_equal(losses, np.zeros((2, 3)), strict=True)
    assert gradient.shape == (2, 3, 0)
