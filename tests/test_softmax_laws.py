"""The laws of softmax as they hold in floating point."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import logitlab
from strategies import finite_rows, temperatures


@given(finite_rows(), temperatures)
def test_range_and_sum(z, t):
    """In [0, 1]; the sum is 1 within half an ULP of 1 for every entry, and two for the division."""
    p = logitlab.softmax(z, temperature=t)
    assert (p >= 0).all()
    assert (p <= 1).all()
    eps = float(np.finfo(z.dtype).eps)
    assert abs(p.astype(np.float64).sum() - 1) <= eps * (2 + p.size / 2)


@given(finite_rows(), temperatures)
def test_weak_order(z, t):
    """A larger logit never gets a smaller probability (at T < 0: a larger one)."""
    p = logitlab.softmax(z, temperature=t)
    rank = np.argsort(z, kind="stable")
    step = np.diff(p[rank])
    assert ((step >= 0) if t >= 0 else (step <= 0)).all()


@given(finite_rows(), temperatures)
def test_ties_stay_ties(z, t):
    """Equal logits get equal bits."""
    p, log_p = (f(z, temperature=t) for f in (logitlab.softmax, logitlab.log_softmax))
    for value in np.unique(z):
        assert len(np.unique(p[z == value])) == 1
        assert len(np.unique(log_p[z == value])) == 1


@given(finite_rows(), st.floats(-(2.0**100), 2.0**100, width=32))
def test_translation(z, c):
    """softmax(z + c) differs by no more than the rounding of z + c explains."""
    with np.errstate(over="ignore"):
        moved = z + z.dtype.type(c)
    # Errors of at most d in the logits move log p by at most 2 d.
    pairs = zip(moved.tolist(), z.tolist(), strict=True)
    d = float(max(abs(Fraction(a) - Fraction(b) - Fraction(c)) for a, b in pairs))
    p, q = (logitlab.softmax(x).astype(np.longdouble) for x in (z, moved))
    eps, tiny = (np.longdouble(getattr(np.finfo(z.dtype), n)) for n in ("eps", "tiny"))
    allowed = (p + eps * tiny) * np.expm1(np.minimum(2 * d + 8 * eps, 1e4)) + 8 * eps * tiny
    assert (np.abs(q - p) <= allowed).all()


@given(finite_rows(np.float64), st.integers(-300, 300))
def test_temperature_is_scaling(z, power):
    """softmax(z, T) is softmax(z / T): exactly so for powers of two."""
    scaled = np.ldexp(z, power)
    assert np.array_equal(
        logitlab.softmax(scaled, temperature=2.0**power),
        logitlab.softmax(np.ldexp(scaled, -power)),
    )


@given(finite_rows(np.float64, max_size=10), st.floats(0.1, 10))
def test_scaling_does_change_the_result(z, factor):
    """Where the exact result changes visibly, so does ours, and in the right direction."""
    z = np.clip(z, -10, 10)
    spread = z.max() - z.min()
    if spread < 1e-3 or abs(factor - 1) < 1e-3:
        return
    before, after = logitlab.softmax(z), logitlab.softmax(factor * z)
    assert (after[z.argmax()] > before[z.argmax()]) == (factor > 1)


@given(finite_rows(), temperatures)
def test_the_three_agree(z, t):
    """exp(log_softmax) is softmax, and z/T - log_softmax is logsumexp/T, in every entry."""
    p, log_p = logitlab.softmax(z, temperature=t), logitlab.log_softmax(z, temperature=t)
    eps = float(np.finfo(z.dtype).eps)
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(
            np.exp(log_p.astype(np.float64)),
            p,
            rtol=8 * eps * (1 + np.abs(log_p[np.isfinite(log_p)]).max()),
            atol=float(np.finfo(z.dtype).tiny),
        )
    if t != 0 and np.isfinite(t):
        total = float(logitlab.logsumexp(z, temperature=t)) / t
        wide = z.astype(np.float64) / t
        size = np.abs(wide).max() + abs(total) + 1
        np.testing.assert_allclose(wide - log_p, total, atol=8 * eps * size)
