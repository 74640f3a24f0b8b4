"""The kernels of losses and their gradients: compared with the reference and exact arithmetic."""

import numpy as np
import pytest

import arrays
import exact
import logitlab
from arrays import FLOATS
from logitlab._backends import native, reference
from logitlab._backends.targets import Targets

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)
by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
EPS = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}


def labels(batch, k, seed=0):
    """Labels, of which a few are those of ignored rows."""
    y = np.random.default_rng(seed).integers(0, max(k, 1), batch)
    return np.where(np.random.default_rng(seed + 1).random(batch) < 0.1, -1, y)


def distributions(batch, k, dtype, seed=0):
    """Target distributions, of which some are one-hot and some are zero."""
    rng = np.random.default_rng(seed)
    y = rng.dirichlet(np.full(k, 0.3), batch) if k else np.zeros((*batch, 0))
    y[rng.random(batch) < 0.2] = np.arange(k) == rng.integers(0, max(k, 1))
    y[rng.random(batch) < 0.1] = 0
    return y.astype(np.float64 if dtype == np.float64 else np.float32)


def some_targets(batch, k, dtype):
    """Labels and distributions, with and without smoothing."""
    y, label = distributions(batch, k, dtype), labels(batch, k)
    return [Targets(label), Targets(label, smoothing=0.1), Targets(label, smoothing=1.0),
            Targets(distribution=y), Targets(distribution=y, smoothing=0.3)]  # fmt: skip


def native_and_reference(z, axis, temperature, where, targets, scale):
    arguments = (z, (axis % z.ndim,), temperature, where, targets, scale)
    return native.target_loss(*arguments), reference.target_loss(*arguments)


def assert_close(ours, theirs, dtype, scale, label_alone):
    (loss, gradient), (true_loss, true_gradient) = ours, theirs
    wide = dtype == np.float64
    np.testing.assert_allclose(
        loss,
        true_loss,
        rtol=(4e-15 if label_alone else 1e-14) if wide else 4e-7,
        atol=0 if wide else 1e-45,
    )
    # NumPy sums without pairwise blocks along an axis that is not the last.
    units = (20 if wide else 4) * EPS[str(dtype)]
    np.testing.assert_allclose(
        gradient.astype(float),
        true_gradient.astype(float),
        rtol=units,
        # p and y are rounded before their difference.
        atol=max(scale, 1) * (float(arrays.tiny(dtype)) + (0 if label_alone else units)),
    )


@by_dtype
@pytest.mark.parametrize("temperature", [1.0, -0.7, 1e-3, np.inf])
def test_values_over_edge_cases(dtype, temperature):
    for case in arrays.cases(dtype):
        z, axis = case.z, case.axis
        if z.ndim == 0 or z.shape[axis] == 0:
            continue
        batch = tuple(np.delete(z.shape, axis % z.ndim))
        scale = np.random.default_rng(2).choice([0.0, 1.0, -0.5, 3e-5, 700.0], batch)
        if dtype == np.float16:
            scale = np.sign(scale)
        for targets in some_targets(batch, z.shape[axis], dtype):
            ours, theirs = native_and_reference(z, axis, temperature, None, targets, scale)
            label_alone = targets.label is not None and not targets.smoothing
            assert_close(ours, theirs, dtype, 700, label_alone)
            alone = native.target_loss(z, (axis % z.ndim,), temperature, None, targets, None)
            np.testing.assert_array_equal(alone[0], ours[0])
            assert alone[1] is None


@by_dtype
@pytest.mark.parametrize("k", [7, 300])
def test_masks_and_a_temperature_for_each_row(dtype, k):
    z = arrays.normal((33, k), dtype)
    rng = np.random.default_rng(0)
    where = rng.random(z.shape) < 0.8
    for targets in some_targets((33,), k, dtype):
        for sign in ([1], [-1, 1]):
            t = rng.uniform(0.5, 2, (33, 1)) * rng.choice(sign, (33, 1))
            results = native_and_reference(z, 1, t, where, targets, np.ones(33))
            assert_close(*results, dtype, 1, targets.distribution is None and not targets.smoothing)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_exact_arithmetic(dtype):
    """Losses within 3 ULP, from tiny to huge; gradients within 4."""
    for row in arrays.rows(np.dtype(dtype)):
        if not np.isfinite(row).all() or len(row) < 2:
            continue
        log_p, p = exact.log_softmax(row.tolist()), exact.softmax(row.tolist())
        if min(log_p) < np.finfo(dtype).min:
            continue  # the loss overflows
        for label in range(len(row)):
            loss, gradient = logitlab.cross_entropy_and_grad(row, label, reduction="sum")
            assert exact.distance(loss, -log_p[label], dtype) <= 3
            for i, g in enumerate(gradient):
                true = p[i] if i != label else -sum(q for j, q in enumerate(p) if j != i)
                assert exact.distance(g, true, dtype) <= 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("k", [5, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distributions_against_exact_arithmetic(dtype, k, smoothing):
    """Losses within 4 ULP; gradients within 4 ULP of the larger of p and y.

    Where p of a class is above 0.5, the unit is that of the sums over the other classes.
    """
    eps = np.finfo(dtype).eps
    for spread in (1, 10, 200):
        z = arrays.normal((k,), np.dtype(dtype), spread)
        sure = np.where(np.arange(k) == z.argmax(), 0.0, np.linspace(0, 1e-9, k))
        sure[z.argmax()] = 1
        for y in (*distributions((4,), k, np.dtype(dtype), spread), sure.astype(dtype)):
            p, log_p = exact.softmax(z.tolist()), exact.log_softmax(z.tolist())
            aim = [
                (1 - exact.mp.mpf(smoothing)) * exact.mp.mpf(float(t)) + exact.mp.mpf(smoothing) / k
                for t in y
            ]
            loss, gradient = logitlab.cross_entropy_and_grad(
                z, y, label_smoothing=smoothing, reduction="sum"
            )
            true = -sum(t * q for t, q in zip(aim, log_p, strict=True))
            assert exact.distance(loss, true, dtype) <= 4
            top, total = z.argmax(), sum(aim)
            for i, g in enumerate(gradient):
                true, size = total * p[i] - aim[i], max(p[i], aim[i])
                if i == top and p[i] > 0.5:
                    rest, others = (sum(v[:i]) + sum(v[i + 1 :]) for v in (aim, p))
                    true, size = rest - total * others, max(rest, others)
                assert abs(exact.mp.mpf(float(g)) - true) <= 4 * eps * size + np.finfo(dtype).tiny


@by_dtype
@pytest.mark.parametrize("shape", [(100, 10), (100, 128), (40, 129), (20, 5003)])
def test_bits_depend_on_the_row_alone(dtype, shape):
    """Results do not depend on the batch, the position, the threads or the layout."""
    z, scale = arrays.normal(shape, dtype), np.linspace(-1, 1, shape[0])
    for targets in some_targets(shape[:1], shape[1], dtype):
        loss, gradient = native.target_loss(z, (1,), 1.0, None, targets, scale)
        for first, last in ((0, 1), (3, 20), (17, 18)):
            part = slice(first, last)
            own = Targets(*(x if x is None else x[part] for x in targets[:2]), targets.smoothing)
            a, b = native.target_loss(z[part], (1,), 1.0, None, own, scale[part])
            assert a.tobytes() == loss[part].tobytes()
            assert b.tobytes() == gradient[part].tobytes()
        transposed = native.target_loss(np.asfortranarray(z), (1,), 1.0, None, targets, scale)
        assert transposed[0].tobytes() == loss.tobytes()
        assert np.ascontiguousarray(transposed[1]).tobytes() == gradient.tobytes()
        before = logitlab.get_num_threads()
        try:
            for n in (1, 2, 5):
                logitlab.set_num_threads(n)
                loss_n, gradient_n = native.target_loss(z, (1,), 1.0, None, targets, scale)
                assert loss_n.tobytes() == loss.tobytes()
                assert gradient_n.tobytes() == gradient.tobytes()
        finally:
            logitlab.set_num_threads(before)


def test_one_long_row_on_several_threads():
    z = arrays.normal((1, 300_001), np.dtype(np.float32))
    before = logitlab.get_num_threads()
    try:
        for targets in some_targets((1,), z.shape[1], z.dtype):
            results = []
            for n in (1, 4):
                logitlab.set_num_threads(n)
                results.append(native.target_loss(z, (1,), 1.0, None, targets, np.ones(1)))
            assert results[0][0] == results[1][0]
            assert results[0][1].tobytes() == results[1][1].tobytes()
    finally:
        logitlab.set_num_threads(before)


def test_results_larger_than_the_caches():
    """Large results, written past the caches, have the bits of small ones."""
    z = arrays.normal((70, 70_001), np.dtype(np.float32))
    for targets in some_targets((70,), z.shape[1], z.dtype):
        loss, gradient = native.target_loss(z, (1,), 1.0, None, targets, 1.0)
        own = Targets(*(x if x is None else x[66:67] for x in targets[:2]), targets.smoothing)
        one = native.target_loss(z[66:67], (1,), 1.0, None, own, 1.0)
        assert one[0].tobytes() == loss[66:67].tobytes()
        assert one[1].tobytes() == gradient[66:67].tobytes()
