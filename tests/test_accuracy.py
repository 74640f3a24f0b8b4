"""The bounds on the error of the kernels: random, adversarial and searched-for rows, to K = 10^6.

Judged in a wider type: float64 for the smaller ones, longdouble for float64.
"""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import arrays
import logitlab

WIDE = {
    "float16": np.float64,
    "bfloat16": np.float64,
    "float32": np.float64,
    "float64": np.longdouble,
}
BOUND = {"float16": 0.51, "bfloat16": 0.51, "float32": 4, "float64": 4}
LOGSUMEXP = {"float16": 0.51, "bfloat16": 0.51, "float32": 2, "float64": 2}
by_dtype = pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
pytestmark = [
    pytest.mark.skipif(
        np.finfo(np.longdouble).nmant <= 52, reason="no type wider than float64 on this machine"
    ),
    pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler"),
]


def spacing(x, dtype):
    info = ml_dtypes.finfo(dtype)
    exponent = np.frexp(x.astype(np.longdouble))[1] - 1
    return np.ldexp(np.longdouble(1), np.maximum(exponent, info.minexp) - int(info.nmant))


def errors(z, dtype):
    """Worst errors of softmax, log_softmax and logsumexp on rows, in ULP: of logsumexp, that of the
    largest of its two terms and their sum."""
    wide = z.astype(WIDE[dtype.name])
    m = wide.max(-1, keepdims=True)
    with np.errstate(under="ignore"):
        e = np.exp(wide - m)
        rest = np.where(np.arange(z.shape[-1]) == wide.argmax(-1)[:, None], 0, e).sum(-1)
    log_sum = np.log1p(rest)
    exact = e / (1 + rest)[:, None]
    p, log_p, total = (f(z) for f in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp))
    exact_log = wide - m - log_sum[:, None]
    exact_total = m[:, 0] + log_sum
    size = np.maximum.reduce([np.abs(m[:, 0]), np.abs(log_sum), np.abs(exact_total)])

    def worst(value, true, scale):
        return float(np.max(np.abs(value.astype(np.longdouble) - true) / spacing(scale, dtype)))

    return (
        worst(p, exact, exact),
        worst(log_p, exact_log, exact_log),
        worst(total, exact_total, size),
    )


def assert_within(z, dtype):
    p, log_p, total = errors(z, dtype)
    assert p <= BOUND[dtype.name]
    assert log_p <= BOUND[dtype.name]
    assert total <= LOGSUMEXP[dtype.name]


@by_dtype
@pytest.mark.parametrize("spread", [0.01, 1, 3, 10, 30, 100])
@pytest.mark.parametrize("k", [2, 3, 10, 128, 129, 1000, 5000])
def test_random_rows(dtype, spread, k):
    """Normal logits of any spread; results below the normal range too."""
    assert_within(arrays.normal((max(4, 60_000 // k), k), dtype, spread), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spread", [0.5, 3])
@pytest.mark.parametrize("k", [2, 3, 200])
def test_many_rows(dtype, spread, k):
    """Rare ones, whose roundings all go one way, are among a million entries."""
    z = arrays.normal((1_000_000 // k, k), np.dtype(dtype), spread)
    assert_within(z, z.dtype)
    assert_within(z - z.max(-1, keepdims=True), z.dtype)


@by_dtype
@pytest.mark.parametrize("k", [100_000, 1_000_000])
def test_long_rows(dtype, k):
    """Sums do not lose digits as K grows."""
    assert_within(arrays.normal((1, k), dtype, 3), dtype)


def adversarial(k):
    """Rows whose roundings could add up."""
    i = np.arange(k)
    yield np.zeros(k)
    yield np.full(k, 0.3333)
    yield np.where(i == 0, 0, -17.3)  # a rest that one large entry could swallow
    yield np.where(i == k - 1, 0, -36.7)
    yield -i / k * 90
    yield -(i % 64) / 7
    yield np.log(i + 1)
    yield -np.log(i + 1)
    yield 1000 + (i % 3) * 0.111
    yield np.where(i % 4096 == 0, 5.0, -0.51)


@by_dtype
@pytest.mark.parametrize("k", [7, 100, 1000, 50_000])
def test_adversarial_rows(dtype, k):
    """Ties, geometric and harmonic tails, one entry beside many small ones."""
    assert_within(np.stack(list(adversarial(k))).astype(dtype), dtype)


@settings(max_examples=300)
@given(
    npst.arrays(
        np.float32,
        st.tuples(st.just(4), st.integers(1, 40)),
        elements=st.floats(-110, 110, width=32),
    )
)
def test_searched_for_rows_in_float32(z):
    """Whatever Hypothesis thinks of."""
    assert_within(z, z.dtype)


@settings(max_examples=300)
@given(
    npst.arrays(
        np.float64, st.tuples(st.just(4), st.integers(1, 40)), elements=st.floats(-800, 800)
    )
)
def test_searched_for_rows_in_float64(z):
    """The same beyond the range of single precision."""
    assert_within(z, z.dtype)
