"""Truncation: the published rules, and transformers' own processors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import arrays
import exact
import logitlab
from arrays import inf, nan
from logitlab.sampling import ORDERS
from strategies import finite_rows, temperatures


def by_rule(row, temperature, order, top_k=None, top_p=None, min_p=None):
    """The indices that are left and their masses along the way, in exact arithmetic.

    Also how near a top_p came to its boundary.
    """
    left, t, near = list(range(len(row))), 1.0, math.inf
    for stage in order:
        masked = [row[i] if i in left else -inf for i in range(len(row))]
        p = exact.softmax(masked, t)
        sign = -1 if t < 0 else 1
        ranked = sorted((i for i in left if row[i] != -inf), key=lambda i: (-sign * row[i], i))
        if stage == "temperature":
            t = temperature
        elif stage == "top_k" and top_k is not None:
            left = [i for i in ranked if sign * row[i] >= sign * row[ranked[:top_k][-1]]]
        elif stage == "top_p" and top_p is not None and top_p < 1:
            left, mass = [], 0
            for i in ranked:
                if mass >= top_p:
                    break
                near = min(near, abs(float(mass) - top_p))
                left.append(i)
                mass += p[i]
            near = min(near, abs(float(mass) - top_p))
        elif stage == "min_p" and min_p is not None:
            near = min(near, *(abs(float(p[i] / max(p)) - min_p) for i in ranked))
            left = [i for i in ranked if p[i] >= min_p * max(p)]
    return set(left), near


cuts = st.fixed_dictionaries(
    {
        "top_k": st.one_of(st.none(), st.integers(1, 45)),
        "top_p": st.one_of(st.none(), st.floats(0.01, 1)),
        "min_p": st.one_of(st.none(), st.floats(0, 1)),
    }
)
orders = st.one_of(st.sampled_from(list(ORDERS.values())), st.permutations(ORDERS["vllm"]))


@given(finite_rows(), temperatures, orders, cuts)
@settings(deadline=None, max_examples=300)
def test_the_rules_in_exact_arithmetic(row, temperature, order, cut):
    """Every order of the stages, ties, T = 0, infinite and negative."""
    expected, near = by_rule([float(x) for x in row], temperature, order, **cut)
    kept = logitlab.truncate(row, temperature=temperature, order=tuple(order), **cut)
    if near > 1e-6:
        assert set(np.flatnonzero(kept > -inf)) == expected
    drawn = logitlab.sample(row, 20, temperature=temperature, order=tuple(order), rng=0, **cut)
    assert (kept[drawn] > -inf).all()


def published(name, value):
    pytest.importorskip("transformers")
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    classes = {
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    return classes[name](value)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("k", [10, 200, 6000])
def test_transformers_processors_agree(order, k):
    """Thousands of rows, in the order of each engine; masses within 1e-5 of p excepted."""
    rng = np.random.default_rng(k)
    rows = 3000 if k < 1000 else 100
    for spread in (0.5, 3.0):
        z = rng.standard_normal((rows, k)) * spread
        values = {"temperature": 0.8, "top_k": k // 3, "top_p": 0.9, "min_p": 0.02}
        theirs, near = torch.from_numpy(z), np.zeros(rows, bool)
        for stage in ORDERS[order]:
            if stage == "top_p":
                mass = torch.softmax(theirs, -1).sort(-1, descending=True).values.cumsum(-1)
                near |= ((mass - values["top_p"]).abs() < 1e-5).any(-1).numpy()
            theirs = published(stage, values[stage])(None, theirs)
        kept = logitlab.truncate(z, order=order, **values)
        same = ((kept > -inf) == (theirs > -inf).numpy()).all(-1)
        assert (same | near).all()
        assert near.mean() < 0.3
        for stage in ("top_k", "top_p", "min_p"):
            alone = published(stage, values[stage])(None, torch.from_numpy(z)).numpy()
            ours = logitlab.truncate(z, **{stage: values[stage]})
            same = (ours == alone).all(-1)
            if stage == "top_p":
                p = torch.softmax(torch.from_numpy(z), -1).sort(-1, descending=True).values
                close = ((p.cumsum(-1) - values[stage]).abs() < 1e-5).any(-1).numpy()
                assert close.mean() < 0.3
                same |= close
            assert same.all()


def test_ties():
    """top_k keeps every tie of the k-th; top_p takes ties from the left."""
    z = np.array([1.0, 2.0, 2.0, 2.0, 0.0])
    assert np.flatnonzero(logitlab.truncate(z, top_k=2) > -inf).tolist() == [1, 2, 3]
    assert np.flatnonzero(logitlab.truncate(z, top_p=0.5) > -inf).tolist() == [1, 2]
    equal = np.zeros(10_000)
    for p, count in ((0.25, 2500), (0.5, 5000), (1.0, 10_000)):
        kept = logitlab.truncate(equal, top_p=p)
        assert np.flatnonzero(kept == 0).tolist() == list(range(count))
    assert set(logitlab.sample(equal, 1000, top_p=0.001, rng=0)) <= set(range(10))


def test_special_rows():
    """Masks, infinities, NaN: the contract's tables."""
    z = np.array([[inf, 1.0, inf, inf], [nan, 1.0, 2.0, 3.0], [-inf, -inf, 5.0, -inf]])
    kept = logitlab.truncate(z, top_p=0.6)
    np.testing.assert_array_equal(kept[0], [inf, -inf, inf, -inf])
    np.testing.assert_array_equal(kept[1], z[1])
    np.testing.assert_array_equal(kept[2], z[2])
    kept = logitlab.truncate(z[2:], temperature=-1.0, top_k=3)
    np.testing.assert_array_equal(kept, z[2:])
    masked = logitlab.truncate([3.0, 2.0, 1.0], where=[False, True, True], top_k=1)
    np.testing.assert_array_equal(masked, [-inf, 2.0, -inf])
    cold = logitlab.truncate([1.0, 5.0, 5.0, 5.0, 5.0], temperature=0, top_p=0.5)
    np.testing.assert_array_equal(cold, [-inf, 5.0, 5.0, -inf, -inf])
    each = logitlab.truncate([[0.0, 1.0], [0.0, 1.0]], temperature=[1.0, -1.0], top_k=1)
    np.testing.assert_array_equal(each, [[-inf, 1.0], [0.0, -inf]])


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
def test_kinds_and_layouts(dtype):
    """Result type = input type, any axis; torch keeps its graph."""
    z = arrays.normal((4, 300, 3), dtype)
    kept = logitlab.truncate(z, 1, top_k=20, top_p=0.7)
    assert kept.dtype == dtype
    for i in range(4):
        for j in range(3):
            alone = logitlab.truncate(z[i, :, j], top_k=20, top_p=0.7)
            np.testing.assert_array_equal(kept[i, :, j], alone)
    assert logitlab.truncate(np.array(2.0, dtype), top_k=1) == 2


def test_torch_gradients():
    """1 where a logit is left, 0 where it is cut."""
    z = torch.tensor([1.0, 4.0, 2.0], requires_grad=True)
    kept = logitlab.truncate(z, top_k=2)
    (gradient,) = torch.autograd.grad(kept[kept > -inf].sum(), z)
    assert gradient.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [4, 601, 5000])
def test_the_ends_of_the_range_of_temperatures(dtype, k):
    """Where z/T overflows or vanishes: one is left, or as many as equal shares say."""
    z = np.zeros(k, dtype)
    z[-1] = 3
    for t in (5e-324, np.finfo(np.float64).tiny, 1e-300, 1e-40):
        kept = np.flatnonzero(logitlab.truncate(z, temperature=t, top_p=0.9) > -inf)
        assert kept.tolist() == [k - 1]
    for t in (1e300, 1.7e308, inf):
        kept = np.flatnonzero(logitlab.truncate(z, temperature=t, top_p=0.9) > -inf)
        assert abs(len(kept) - 0.9 * k) <= 1


def test_differences_that_overflow():
    """As in exact arithmetic: e^-2 > 0.1 > e^-2.7."""
    for k in (3, 601):
        z = np.full(k, -inf)
        z[:3] = 1e308, -1e308, -1.7e308
        kept = logitlab.truncate(z, temperature=1e308, min_p=0.1)
        np.testing.assert_array_equal(kept[:3], [1e308, -1e308, -inf])
        kept = logitlab.truncate(z, temperature=1e308, top_p=0.8)
        np.testing.assert_array_equal(kept[:3], [1e308, -inf, -inf])
    z = np.array([1000.0, 2000.0, 5000.0])
    np.testing.assert_array_equal(logitlab.truncate(z, min_p=1e-320), [-inf, -inf, 5000])


def test_a_row_that_a_temperature_empties():
    """What was cut before stays cut."""
    order = ("top_k", "temperature", "top_p", "min_p")
    kept = logitlab.truncate(
        np.array([1.0, inf, 2.0]), temperature=-1, top_k=1, top_p=0.9, order=order
    )
    np.testing.assert_array_equal(kept, [-inf, inf, -inf])


@pytest.mark.parametrize("name", ["top_p", "min_p"])
def test_a_share_is_a_number(name):
    with pytest.raises(TypeError, match=f"{name} must be a real number, got '0.5'"):
        logitlab.truncate([1.0, 2.0], **{name: "0.5"})
