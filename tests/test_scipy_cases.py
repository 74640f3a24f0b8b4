"""softmax, log_softmax and logsumexp, compared with those of SciPy.

Where the contract differs (+inf, integer and half types, the default axis, complex input), the
documentation lists it, and the last test covers it.
"""

import numpy as np
import pytest
import scipy.special

import logitlab

pytestmark = pytest.mark.slow

PAIRS = [
    pytest.param(getattr(logitlab, name), getattr(scipy.special, name), id=name)
    for name in ("softmax", "log_softmax", "logsumexp")
]
inf = np.inf
# At the maximum SciPy's log_softmax is exact to an ULP of 1, not of the result.
ATOL = {"softmax": 1e-308, "log_softmax": 4e-16, "logsumexp": 0}

INPUTS = [
    [1000.0, 0.0, 0.0, 0.0],
    [1.0, 1.0],
    [0.0, 1.0],
    [1000.0, 1.0],
    [0.5, 0.5, 0.5, 0.5],
    [1.0, 2.0, 3.0, 4.0],
    [0.0, 3.2, -7.0, 1e-5],
    [-1000.0, -1000.0, -1001.0],
    [1e300, -1e300],
    [1e30, 1e30 * (1 + 1e-15)],
    [-inf, 0.0, 1.0],
    [708.0, 709.0, 710.0, 745.0],
    np.arange(200.0),
    np.arange(1000.0),
    np.log(np.arange(100.0) + 1),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("x", INPUTS, ids=lambda x: str(x)[:25])
def test_one_row(ours, theirs, x):
    """Single rows, also shifted and negated."""
    for row in (np.array(x), np.array(x) + 100.0, -np.array(x)):
        if np.isposinf(row).any():
            continue
        np.testing.assert_allclose(ours(row), theirs(row), rtol=1e-13, atol=ATOL[ours.__name__])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, (0, 1), (2, 0), None])
def test_axes(ours, theirs, axis):
    """One axis, several axes, all axes."""
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) * 20
    expected = theirs(x, axis=axis)
    np.testing.assert_allclose(ours(x, axis), expected, rtol=1e-13, atol=ATOL[ours.__name__])


@pytest.mark.parametrize("keepdims", [True, False])
def test_keepdims(keepdims):
    """The shapes are those of SciPy."""
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for axis in (1, (0, 2), None):
        ours = logitlab.logsumexp(x, axis, keepdims=keepdims)
        theirs = scipy.special.logsumexp(x, axis=axis, keepdims=keepdims)
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1), None])
@pytest.mark.parametrize("keepdims", [True, False])
def test_weights_and_signs(axis, keepdims):
    """Of any shape that broadcasts to that of z, with zeros and negative ones."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5)) * rng.choice([1, 30], (4, 1))
    for b in (2.0, rng.uniform(0, 2, 5), rng.choice([0, 1, -0.5, 2.5], (4, 5)), -np.ones((4, 1))):
        options = {"b": b, "keepdims": keepdims}
        ours = logitlab.logsumexp(x, axis, return_sign=True, **options)
        theirs = scipy.special.logsumexp(x, axis=axis, return_sign=True, **options)
        for value, right in zip(ours, theirs, strict=True):
            assert np.shape(value) == np.shape(right)
            np.testing.assert_allclose(value, right, rtol=1e-13, atol=1e-13)
        value = logitlab.logsumexp(x, axis, **options)
        np.testing.assert_array_equal(value, np.where(ours[1] < 0, np.nan, ours[0]))
    for x, b, expected in (
        ([inf, 0], [1, 2], (inf, 1)),
        ([inf, 0], [0, 2], (np.log(2), 1)),
        ([-inf, -inf], [1, 2], (-inf, 0)),
        ([0.0, 0], [1, -1], (-inf, 0)),
    ):
        assert logitlab.logsumexp(x, b=b, return_sign=True) == expected
        assert logitlab.logsumexp(x, b=b) == expected[0]


def test_logsumexp_of_extremes():
    """Infinite entries, every entry excluded, entries far beyond the range of exp."""
    for x in ([inf, 1.0], [-inf, -inf], [inf, -inf], [1e308, 1e308], [-1e308, -1e308]):
        assert logitlab.logsumexp(x) == scipy.special.logsumexp(x)
    assert np.isnan(logitlab.logsumexp([np.nan, 1.0]))


def test_float32_is_kept():
    """The result has the type of the input."""
    for ours, theirs in ((p.values[0], p.values[1]) for p in PAIRS):
        x = np.float32([1, 2, 3])
        assert ours(x).dtype == theirs(x).dtype == np.float32


def test_documented_differences():
    """The list of docs/differences.md."""
    np.testing.assert_array_equal(logitlab.softmax([inf, 1.0, inf]), [0.5, 0, 0.5])
    assert np.isnan(logitlab.softmax([-inf, -inf])).all()
    np.testing.assert_array_equal(logitlab.softmax(np.int8([-128, 127])), [np.exp(-255.0), 1])
    assert logitlab.softmax(np.zeros(70_000, np.float16)).sum(dtype=float) > 0.9
    assert logitlab.softmax(np.zeros((2, 3))).sum() == pytest.approx(2)
    with pytest.raises(TypeError, match="complex"):
        logitlab.logsumexp([1j])
