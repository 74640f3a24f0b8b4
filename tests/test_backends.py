"""All backends: the names and signatures of the reference, and its values over edge cases."""

import inspect
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import torch

import arrays
import logitlab
from arrays import FLOATS, inf, nan
from logitlab._arrays import request
from logitlab._backends import native, reference
from logitlab._backends import torch as torch_backend
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


@pytest.mark.parametrize("module", [native, torch_backend])
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
