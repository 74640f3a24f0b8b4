"""The losses of labels and their gradients in the kernels, against the reference and to the bit."""

import numpy as np
import pytest

import arrays
import exact
import logitlab
from arrays import FLOATS
from logitlab.backends import native, reference

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)
by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
EPS = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}


def labels(batch, k, seed=0):
    """Labels, a few of them of rows that do not count."""
    y = np.random.default_rng(seed).integers(0, max(k, 1), batch)
    return np.where(np.random.default_rng(seed + 1).random(batch) < 0.1, -1, y)


def both(z, axis, temperature, where, y, scale):
    call = (z, (axis % z.ndim,), temperature, where, y, scale)
    return native.label_loss(*call), reference.label_loss(*call)


def assert_close(ours, theirs, dtype, scale):
    (loss, gradient), (true_loss, true_gradient) = ours, theirs
    wide = dtype == np.float64
    np.testing.assert_allclose(
        loss, true_loss, rtol=4e-15 if wide else 3e-7, atol=0 if wide else 1e-45
    )
    np.testing.assert_allclose(
        gradient.astype(float),
        true_gradient.astype(float),
        # The reference adds float64 one by one along an axis that is not the last.
        rtol=(20 if wide else 4) * EPS[str(dtype)],
        atol=max(scale, 1) * float(arrays.tiny(dtype)),
    )


@by_dtype
@pytest.mark.parametrize("temperature", [1.0, 0.3, -0.7, 1e-3, np.inf, 1e300])
def test_values_over_hostile_arrays(dtype, temperature):
    for case in arrays.cases(dtype):
        z, axis = case.z, case.axis
        if z.ndim == 0 or z.shape[axis] == 0:
            continue
        batch = tuple(np.delete(z.shape, axis % z.ndim))
        y = labels(batch, z.shape[axis])
        scale = np.random.default_rng(2).choice([0.0, 1.0, -0.5, 3e-5, 700.0], batch)
        if dtype == np.float16:
            scale = np.sign(scale)
        ours, theirs = both(z, axis, temperature, None, y, scale)
        assert_close(ours, theirs, dtype, 700)
        alone = native.label_loss(z, (axis % z.ndim,), temperature, None, y, None)
        np.testing.assert_array_equal(alone[0], ours[0])
        assert alone[1] is None


@by_dtype
@pytest.mark.parametrize("k", [7, 300])
def test_masks_and_a_temperature_for_each_row(dtype, k):
    z = arrays.normal((33, k), dtype)
    rng = np.random.default_rng(0)
    t = rng.uniform(0.5, 2, (33, 1)) * rng.choice([-1, 1], (33, 1))
    where = rng.random(z.shape) < 0.8
    assert_close(*both(z, 1, t, where, labels(33, k), np.ones(33)), dtype, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_exact_arithmetic(dtype):
    """Losses within 3 ULP, from tiny to huge; gradients within 4."""
    for row in arrays.rows(np.dtype(dtype)):
        if not np.isfinite(row).all() or len(row) < 2:
            continue
        log_p, p = exact.log_softmax(row.tolist()), exact.softmax(row.tolist())
        if min(log_p) < np.finfo(dtype).min:
            continue  # as far away as -inf, which is excluded
        for label in range(len(row)):
            loss, gradient = logitlab.cross_entropy_and_grad(row, label, reduction="sum")
            assert exact.distance(loss, -log_p[label], dtype) <= 3
            for i, g in enumerate(gradient):
                true = p[i] if i != label else -sum(q for j, q in enumerate(p) if j != i)
                assert exact.distance(g, true, dtype) <= 4


@by_dtype
@pytest.mark.parametrize("shape", [(100, 10), (100, 128), (40, 129), (20, 5003)])
def test_bits_depend_on_the_row_alone(dtype, shape):
    """Not on the batch, the position, the threads or the layout."""
    z, y = arrays.normal(shape, dtype), labels(shape[0], shape[1])
    scale = np.linspace(-1, 1, shape[0])
    loss, gradient = native.label_loss(z, (1,), 1.0, None, y, scale)
    for first, last in ((0, 1), (3, 20), (17, 18)):
        part = slice(first, last)
        a, b = native.label_loss(z[part], (1,), 1.0, None, y[part], scale[part])
        assert a.tobytes() == loss[part].tobytes()
        assert b.tobytes() == gradient[part].tobytes()
    turned = native.label_loss(np.asfortranarray(z), (1,), 1.0, None, y, scale)
    assert turned[0].tobytes() == loss.tobytes()
    assert np.ascontiguousarray(turned[1]).tobytes() == gradient.tobytes()
    before = logitlab.get_num_threads()
    try:
        for n in (1, 2, 5):
            logitlab.set_num_threads(n)
            again = native.label_loss(z, (1,), 1.0, None, y, scale)
            assert again[0].tobytes() == loss.tobytes()
            assert again[1].tobytes() == gradient.tobytes()
    finally:
        logitlab.set_num_threads(before)


def test_one_long_row_on_several_threads():
    z, y = arrays.normal((1, 300_001), np.dtype(np.float32)), np.array([299_999])
    before = logitlab.get_num_threads()
    try:
        results = []
        for n in (1, 4):
            logitlab.set_num_threads(n)
            results.append(native.label_loss(z, (1,), 1.0, None, y, np.ones(1)))
        assert results[0][0] == results[1][0]
        assert results[0][1].tobytes() == results[1][1].tobytes()
    finally:
        logitlab.set_num_threads(before)
