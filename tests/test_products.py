"""The kernel of vector-Jacobian products over any axis, compared with the formulas."""

from pathlib import Path

import numpy as np
import pytest

import logitlab
from logitlab._backends import native
from processes import run_code

pytestmark = pytest.mark.skipif(not logitlab.native_available(), reason="no compiled kernels")

SHAPES = [
    ((1, 1), 1),
    ((3, 2), 1),
    ((16, 3), 1),
    ((35, 7), 1),
    ((33, 16), 1),
    ((5, 17), 1),
    ((2, 9001), 1),
    ((3, 16), 0),
    ((60, 130), 1),
    ((2, 5, 17), 1),
    ((2, 130, 64), 1),
    ((150, 75), 0),
    ((2, 11, 3, 49), 1),
]
NAMES = ["softmax", "log_softmax"]


def edge_cases(shape, axis, dtype, seed=0):
    """Rows of special and saturated logits, and vectors with huge entries where p is tiny or 0."""
    rng = np.random.default_rng(seed)
    z = np.moveaxis(rng.standard_normal(shape), axis, -1).copy()
    v = rng.standard_normal(z.shape)
    rows, k = z.reshape(-1, shape[axis]), shape[axis]
    for i, (row, w) in enumerate(zip(rows, v.reshape(-1, k), strict=True)):
        kind = i % 11
        if kind == 1:
            row[rng.integers(k)] = 40  # saturated
        elif kind == 2:
            row[:] = 0.5
        elif kind == 3:
            row[rng.random(k) < 0.4] = -np.inf
        elif kind == 4:
            row[rng.integers(k, size=2)] = np.inf
        elif kind == 5:
            row[:] = np.inf
        elif kind == 6:
            row[: k // 2] = -np.inf
            row[k // 2] = np.nan
        elif kind == 7:
            row *= 30
        elif kind == 8:
            row[:] = -np.inf
        elif kind == 9 and k > 1:
            row[0], w[0] = -40, 1e8
        elif kind == 10 and k > 1:
            row[0], w[0] = -np.inf, np.inf
    return tuple(np.ascontiguousarray(np.moveaxis(x, -1, axis), dtype) for x in (z, v))


def expected(name, z, p, v, slope, axis):
    """The products in longdouble, and the size of the terms that cancel in them."""
    wide = np.longdouble
    finite = ~np.isinf(z)
    p, v = p.astype(wide), v.astype(wide)
    stop = (z == np.inf).any(axis=axis, keepdims=True) & (slope > 0)
    slope = np.where(stop, 0.0, slope)
    with np.errstate(invalid="ignore"):
        if name == "softmax":
            top = np.take_along_axis(v, np.argmax(p, axis=axis, keepdims=True), axis)
            away = np.where(p == 0, 0, v - top)
            x = p * (away - (p * away).sum(axis=axis, keepdims=True))
            size = p * (np.abs(away) + (p * np.abs(away)).sum(axis=axis, keepdims=True))
        else:
            total = np.where(finite, v, 0)
            x = v - p * total.sum(axis=axis, keepdims=True)
            size = np.abs(v) + p * np.abs(total).sum(axis=axis, keepdims=True)
        return np.where(finite, slope * x, 0), np.abs(slope) * size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_products_match_the_formula(name, shape, axis, dtype):
    z, v = edge_cases(shape, axis, dtype)
    p = logitlab.softmax(z, axis=axis)
    each = np.random.default_rng(1).choice([0.5, 2.0, -3.0, 0.0], np.take(z, [0], axis).shape)
    assert native.product_takes_axis(shape, axis)
    for slope in (1.25, each):
        out = np.empty_like(p)
        native.product(name, p, v, z, slope, out, axis)
        exact, size = expected(name, z, p, v, slope, axis)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(exact))
        off = np.abs(out - exact) - 8 * np.finfo(dtype).eps * size
        assert not (off > np.finfo(dtype).tiny).any()


def huge_vectors(shape, dtype):
    """Rows of v whose sums and differences overflow, but not all of their products."""
    largest = float(np.finfo(dtype).max)
    rng = np.random.default_rng(3)
    v = rng.choice([largest, -largest, largest / 3, 1.0], shape)
    v[::3] = (rng.uniform(-1, 1, shape) * largest)[::3]
    v[::4] = rng.choice([1.0, -1.0, 1e5], shape)[::4]
    return v.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_huge_vectors_overflow_only_in_the_result(name, shape, axis, dtype):
    z, _ = edge_cases(shape, axis, dtype)
    p, v = logitlab.softmax(z, axis=axis), huge_vectors(shape, dtype)
    info = np.finfo(dtype)
    for slope in (1.0, -0.125):
        out = np.empty_like(p)
        native.product(name, p, v, z, slope, out, axis)
        exact, size = expected(name, z, p, v, slope, axis)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(exact))
        # A subnormal p has few digits.
        error = 8 * info.eps * size + info.tiny + info.smallest_subnormal * info.max
        too_large = np.isinf(out)
        assert (np.sign(out) == np.sign(exact))[too_large].all()
        assert (np.abs(exact) + error >= info.max)[too_large].all()
        assert not (np.abs(out - exact) > error)[~too_large].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.3, -2.0, np.inf, 1e-30])
@pytest.mark.parametrize("threads", [1, 4])
def test_product_without_given_probabilities(name, temperature, dtype, threads):
    """The same bits with and without p, for short and long rows, few and many."""
    before = logitlab.get_num_threads()
    for shape in ((35, 7), (40, 130), (300, 200), (1, 9001), (3, 40001)):
        z, v = edge_cases(shape, 1, dtype)
        p = logitlab.softmax(z, temperature=temperature)
        given, computed = np.empty_like(p), np.empty_like(p)
        native.product(name, p, v, z, 1.25, given)
        try:
            logitlab.set_num_threads(threads)
            rest = (None, v, z, 1.25, computed, temperature)
            native.product_at(name, p.itemsize, p.shape, -1, *rest)
        finally:
            logitlab.set_num_threads(before)
        np.testing.assert_array_equal(computed, given)


@pytest.mark.parametrize("name", NAMES)
def test_probability_close_to_one(name):
    z = np.zeros((20, 5), np.float32)
    z[:, 2] = 30
    v = np.random.default_rng(0).standard_normal(z.shape, dtype=np.float32)
    p = logitlab.softmax(z, axis=1)
    exact = logitlab.softmax(z.astype(np.float64), axis=1)
    small = np.delete(exact, 2, 1) * 1.0
    if name == "softmax":
        right = -exact[:, 2] * (small * (np.delete(v, 2, 1) - v[:, [2]])).sum(1)
    else:
        right = v[:, 2] * small.sum(1) - exact[:, 2] * np.delete(v, 2, 1).sum(1)
    for axis, by in ((1, lambda x: x), (0, lambda x: np.ascontiguousarray(x.T))):
        out = np.empty_like(by(p))
        native.product(name, by(p), by(v), by(z), 1.0, out, axis)
        np.testing.assert_allclose(by(out)[:, 2] if axis else out[2], right, rtol=2e-6)


_BITS = """
import hashlib
import numpy as np
import logitlab
from logitlab._backends import native
from test_products import NAMES, SHAPES, edge_cases, huge_vectors
for threads in (1, 3):
    logitlab.set_num_threads(threads)
    digest = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for shape, axis in SHAPES:
            z, v = edge_cases(shape, axis, dtype)
            p = logitlab.softmax(z, axis=axis)
            v = np.where(np.arange(shape[0]).reshape(-1, *[1] * (z.ndim - 1)) % 5 == 2,
                         huge_vectors(shape, dtype), v)
            for name in NAMES:
                out = np.empty_like(p)
                native.product(name, p, v, z, 1.25, out, axis)
                digest.update(np.nan_to_num(out).tobytes())
    print(digest.hexdigest())
"""


def test_bits_depend_on_neither_threads_nor_instructions():
    digests = set()
    for isa in ("v2", "v3", "v4"):
        digests.update(run_code(_BITS, LOGITLAB_ISA=isa, PYTHONPATH=str(Path(__file__).parent)))
    assert len(digests) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("k", "axis"), [(3, 1), (50, 0), (50, 1)])
def test_overflowing_slope_keeps_zeros(name, k, axis):
    z = np.full((k, k), -1, np.float32)
    np.fill_diagonal(z, 3)
    p = logitlab.softmax(z, axis=axis, temperature=1e-300)
    v = np.random.default_rng(0).standard_normal(z.shape, dtype=np.float32)
    out = np.empty_like(p)
    native.product(name, p, v, z, 1e300, out, axis)
    right = v - p * v.sum(axis=axis, keepdims=True) if name == "log_softmax" else np.zeros_like(v)
    np.testing.assert_array_equal(out, np.where(right == 0, 0, np.copysign(np.inf, right)))
