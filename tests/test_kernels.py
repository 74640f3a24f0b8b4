"""The compiled kernels over edge cases. These tests run under the sanitizers."""

import numpy as np
import pytest

import arrays
import logitlab
from arrays import FLOATS
from logitlab._backends import native

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)
FUNCTIONS = [logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp]
by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def test_kernels_are_installed():
    """The extension is that of the package, with a known instruction set."""
    assert native._native.isa in ("v2", "v3", "v4", "neon", "generic")


@by_dtype
def test_every_shape_and_layout(dtype):
    """No error for any shape and layout; memory next to `out` is not written."""
    for case in arrays.cases(dtype):
        for temperature in (1.0, 0.3, -2.0, 0.0, np.inf, 1e-300):
            for function in FUNCTIONS:
                function(case.z, case.axis, temperature=temperature)
        if case.z.ndim == 0:
            continue
        memory = np.full((3, *case.z.shape), 7).astype(dtype)
        logitlab.softmax(case.z, case.axis, out=memory[1])
        assert (memory[[0, 2]] == 7).all()


@by_dtype
@pytest.mark.parametrize(
    "k", [*range(1, 20), 31, 33, 63, 64, 65, 127, 128, 129, 143, 145, 4095, 4097]
)
def test_numbers_of_classes_and_rows(dtype, k):
    """Nothing is read or written beyond the end of the arrays (with a sanitizer)."""
    for n in (1, 15, 16, 17, 33):
        z = arrays.normal((n, k), dtype)
        out = np.empty_like(z)
        logitlab.softmax(z, out=out)
        np.testing.assert_allclose(out.astype(float).sum(-1), 1, atol=0.05 if k > 1000 else 0.02)
        logitlab.jacobian_product(z, z)
        if k < 20:
            logitlab.jacobian(z)
        logitlab.log_softmax(z, out=z)
        columns = arrays.normal((k, n), dtype)
        logitlab.softmax(columns, 0, out=columns)
        np.testing.assert_allclose(columns.astype(float).sum(0), 1, atol=0.05 if k > 1000 else 0.02)


@by_dtype
def test_masks_and_temperatures_of_any_layout(dtype):
    """Broadcast and strided masks and temperatures."""
    z = arrays.normal((6, 50, 7), dtype)
    rng = np.random.default_rng(0)
    for mask in (rng.random(7) < 0.8, rng.random((50, 1)) < 0.8, rng.random((6, 1, 1)) < 0.8):
        for axis in (0, 1, 2, (0, 2), None):
            for function in FUNCTIONS:
                function(z, axis, where=mask)
    for function in FUNCTIONS:
        function(z, 1, temperature=rng.standard_normal((6, 7)))
        function(z, 1, temperature=rng.standard_normal(7)[::-1])
        function(z, 0, temperature=rng.standard_normal((50, 1)))


@by_dtype
def test_long_rows_on_several_threads(dtype):
    """One row split among threads, with many excluded entries, and in place."""
    before = logitlab.get_num_threads()
    z = arrays.normal((1, 300_001), dtype)
    z[0, 8000:200_000] = -np.inf
    try:
        logitlab.set_num_threads(1)
        expected = [function(z) for function in FUNCTIONS]
        logitlab.set_num_threads(4)
        for function, one in zip(FUNCTIONS, expected, strict=True):
            assert function(z).tobytes() == one.tobytes()
        alias = z.copy()
        logitlab.softmax(alias, out=alias)
        assert alias.tobytes() == expected[0].tobytes()
        z[0, 290_000] = np.inf
        assert float(logitlab.softmax(z)[0, 290_000]) == 1
        z[0, 7] = np.nan
        assert np.isnan(logitlab.softmax(z).astype(float)).all()
    finally:
        logitlab.set_num_threads(before)


def test_large_results_do_not_share_memory():
    """Memory is reused only after the last view of it is deleted."""
    z = np.ones((1500, 1000), np.float32)
    results = [logitlab.softmax(z * i) for i in range(4)]
    views = [result[3:5] for result in results]
    before = [view.copy() for view in views]
    del results
    for _ in range(6):
        fresh = logitlab.log_softmax(z)
        assert fresh.flags.writeable
        assert fresh.flags.c_contiguous
        fresh[...] = 7
    for view, expected in zip(views, before, strict=True):
        np.testing.assert_array_equal(view, expected)
    assert not any(np.shares_memory(a, b) for a in views for b in views if a is not b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 40, 129, 5000])
def test_excluded_entries_weigh_nothing_at_any_temperature(k, dtype):
    for t in (1e10, 1e17):
        z = np.full((16, k), -np.inf, dtype)
        z[:, 0] = 0
        for others in (-np.inf, -130 * t):
            z[:, 1] = others
            expected = dtype(t * np.exp(others / t))
            for rows, axis in ((z, 1), (np.asfortranarray(z), 1), (np.ascontiguousarray(z.T), 0)):
                result = logitlab.logsumexp(rows, axis=axis, temperature=t)
                np.testing.assert_allclose(result, expected, rtol=3e-5)
