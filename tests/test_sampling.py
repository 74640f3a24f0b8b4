"""Draws: the generator's published answers, statistics that can fail, what may never be drawn."""

import math

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import arrays
import logitlab
from arrays import inf, nan
from logitlab._backends.reference_sampling import philox_words, uniforms
from strategies import finite_rows, temperatures

# One test here is wrong about a right sampler once in a million seeds; the seeds are fixed.
FALSE_ALARM = 1e-6

# Random123's kat_vectors: philox4x32 10, counter, key, answer.
KNOWN = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""


def test_philox_gives_the_published_answers():
    """The generator is Philox4x32-10."""
    for line in KNOWN.split("\n")[1:-1]:
        w = [int(word, 16) for word in line.split()]
        found = philox_words((w[4], w[5]), w[0] | w[1] << 32, w[2] | w[3] << 32)
        assert [int(x) for x in found] == w[6:]


def test_uniforms_are_rounded_once_and_above_zero():
    """From 2^-65 to 1."""
    words = np.array([0, 1, 2**63, 2**64 - 1, 2**64 - 2**11, 0x123456789ABCDEF0], np.uint64)
    exact = [(2 * int(w) + 1) / 2**65 for w in words]
    assert uniforms(words).tolist() == exact


def p_value(counts, p):
    """Of the G-test and of chi-square; classes expected less than five times are one."""
    counts, expected = np.asarray(counts, float), np.sum(counts) * np.asarray(p, float)
    assert counts[expected == 0].sum() == 0
    few = expected < 5
    observed = np.append(counts[~few], counts[few].sum())
    wanted = np.append(expected[~few], expected[few].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    g = 2 * special.rel_entr(observed, wanted).sum()
    return stats.chi2.sf(g, len(wanted) - 1), stats.chisquare(observed, wanted).pvalue


DISTRIBUTIONS = [
    np.array([2.0, 1.0, 3.0, 5.0, 4.0]),
    np.zeros(7),
    np.random.default_rng(0).standard_normal(100) * 2,
    np.random.default_rng(1).standard_normal(1000),
    np.random.default_rng(2).standard_normal(9000) * 3,
]


@pytest.mark.parametrize("z", DISTRIBUTIONS, ids=lambda z: f"K{len(z)}")
@pytest.mark.parametrize("temperature", [1.0, 0.3, -2.0, inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_frequencies(z, temperature, dtype):
    """G-test and chi-square of a million draws."""
    z = z.astype(dtype)
    drawn = logitlab.sample(z, 1_000_000, temperature=temperature, rng=1)
    counts = np.bincount(drawn, minlength=len(z))
    exact = logitlab.softmax(z.astype(float), temperature=temperature)
    assert min(p_value(counts, exact)) > FALSE_ALARM


def test_the_statistics_can_fail():
    """A bias of 1 % in one class is caught."""
    z = DISTRIBUTIONS[0]
    p = logitlab.softmax(z)
    biased = p.copy()
    biased[3] *= 1.01
    counts = np.bincount(logitlab.sample(np.log(biased), 1_000_000, rng=1), minlength=5)
    assert max(p_value(counts, p)) < FALSE_ALARM


@pytest.mark.parametrize("k", [5, 130])
def test_rows_are_independent(k):
    """Frequencies over the rows of one batch, a draw each; of pairs of draws too."""
    z = np.random.default_rng(3).standard_normal(k)
    drawn = logitlab.sample(np.broadcast_to(z, (100_000, k)), 2, rng=0)
    p = logitlab.softmax(z)
    assert min(p_value(np.bincount(drawn[:, 0], minlength=k), p)) > FALSE_ALARM
    pairs = np.bincount(drawn[:, 0] * k + drawn[:, 1], minlength=k * k)
    assert min(p_value(pairs, np.outer(p, p).ravel())) > FALSE_ALARM
    neighbours = np.bincount(drawn[:-1:2, 0] * k + drawn[1::2, 0], minlength=k * k)
    assert min(p_value(neighbours, np.outer(p, p).ravel())) > FALSE_ALARM


def test_zero_probability_is_never_drawn():
    """torch.multinomial of the same weights draws 0 and 3."""
    z = logitlab.logits([0.0, 10.0, 3.0, 0.0])
    assert set(logitlab.sample(z, 100_000, rng=0)) == {1, 2}
    for width in (4, 200, 5000):
        row = np.full(width, -inf, np.float32)
        row[width // 2] = -3.0
        assert set(logitlab.sample(row, 1000, rng=0)) == {width // 2}
        row[width // 2 :] = np.linspace(-1, 1, width - width // 2)
        assert logitlab.sample(row, 10_000, rng=0).min() >= width // 2


def test_two_to_the_25_categories():
    """Where float32 sums never reach the upper half: weights 2:1 give it a third."""
    k = 1 << 25
    z = np.zeros(k, np.float32)
    z[: k // 2] = np.log(2)
    upper = (logitlab.sample(z, 30_000, rng=0) >= k // 2).sum()
    assert stats.binomtest(int(upper), 30_000, 1 / 3).pvalue > FALSE_ALARM


@pytest.mark.parametrize("k", [3, 100, 1000, 6000])
def test_special_rows(k):
    """Ties at T = 0, +inf, one finite logit, masks, T < 0."""
    z = np.full((5, k), -1.0)
    z[0, [0, k - 1]] = 4.0  # tied maxima
    z[1, [1, k - 1]] = inf
    z[2] = -inf
    z[2, 1] = 1e308
    z[3] = [-inf if i % 2 else 1e308 for i in range(k)]
    z[4, 2] = -2.0
    cold = logitlab.sample(z[:4], 40_000, temperature=0, rng=0)
    for row, allowed in zip(cold, ([0, k - 1], [1, k - 1], [1], range(0, k, 2)), strict=True):
        counts = np.bincount(row, minlength=k)
        p = np.isin(np.arange(k), allowed) / len(allowed)
        if len(allowed) > 1:
            assert min(p_value(counts, p)) > FALSE_ALARM
        assert set(row) <= set(allowed)
    assert set(logitlab.sample(z[1], 1000, rng=0)) == {1, k - 1}
    assert set(logitlab.sample(z[4], 1000, temperature=-1e-3, rng=0)) == {2}
    warm = set(logitlab.sample(z[3], 1000, temperature=inf, rng=0))
    assert all(i % 2 == 0 for i in warm)
    where = np.arange(k) == 1
    assert set(logitlab.sample(z[0], 100, where=where, rng=0)) == {1}


@pytest.mark.parametrize("k", [4, 600, 7000])
def test_nothing_to_draw_from(k):
    """NaN, or nothing left: the first such row is named."""
    z = np.zeros((6, k))
    z[4, k - 1] = nan
    with pytest.raises(ValueError, match="row 4 has no distribution"):
        logitlab.sample(z, rng=0)
    z[2] = -inf
    with pytest.raises(ValueError, match="row 2 has no distribution"):
        logitlab.sample(z, 3, rng=0)
    with pytest.raises(ValueError, match=r"row \(1, 0\) has no distribution"):
        logitlab.sample(z.reshape(3, 2, k), rng=0)
    with pytest.raises(ValueError, match="z has no distribution"):
        logitlab.sample(z[2], rng=0)
    z[4] = inf
    with pytest.raises(ValueError, match="row 2 has no distribution"):
        logitlab.sample(z, temperature=-1.0, rng=0)
    with pytest.raises(ValueError, match="row 0 has no distribution"):
        logitlab.sample(np.empty((2, 0)), rng=0)
    assert logitlab.sample(np.empty((0, k)), rng=0).shape == (0,)


@pytest.mark.parametrize("k", [7, 900, 5000])
@pytest.mark.parametrize("replacement", [True, False])
def test_a_draw_depends_on_row_seed_and_number(k, replacement):
    """Not on the batch around it, the layout, or how many draws there are."""
    z = np.random.default_rng(0).standard_normal((24, k)).astype(np.float32)
    z[3] = z[4]
    options = {"rng": 5, "replacement": replacement, "top_p": 0.95, "temperature": 0.8}
    whole = logitlab.sample(z, 5, **options)
    keys = np.arange(24)
    halves = [logitlab.sample(z[s], 5, row_keys=keys[s], **options) for s in np.split(keys, 2)]
    assert (np.concatenate(halves) == whole).all()
    assert (logitlab.sample(z, 3, **options) == whole[:, :3]).all()
    assert (logitlab.sample(z, **options) == whole[:, 0]).all()
    assert (logitlab.sample(z[::-1], 5, row_keys=keys[::-1], **options)[::-1] == whole).all()
    assert (logitlab.sample(np.asfortranarray(z), 5, **options) == whole).all()
    assert (logitlab.sample(z.T, 5, 0, **options) == whole).all()
    assert (logitlab.sample(z.reshape(4, 6, k), 5, **options) == whole.reshape(4, 6, 5)).all()
    theirs = logitlab.sample(torch.from_numpy(z), 5, **options)
    assert (theirs.numpy() == whole).all()
    assert theirs.dtype == torch.int64
    assert (np.asarray(logitlab.sample(jax.numpy.asarray(z), 5, **options)) == whole).all()
    same = logitlab.sample(z[3:5], 5, row_keys=[9, 9], **options)
    assert (same[0] == same[1]).all()
    assert (whole[3] != whole[4]).any()


def test_rng():
    """An int repeats, generators advance, None draws anew."""
    z = np.zeros(1 << 20)
    assert logitlab.sample(z, rng=3) == logitlab.sample(z, rng=3)
    assert logitlab.sample(z, rng=3) != logitlab.sample(z, rng=4)
    assert logitlab.sample(z) != logitlab.sample(z)
    for make in (np.random.default_rng, lambda s: torch.Generator().manual_seed(s)):
        one, other = make(0), make(0)
        first = [int(logitlab.sample(z, rng=one)) for _ in range(3)]
        assert len(set(first)) == 3
        assert first == [int(logitlab.sample(z, rng=other)) for _ in range(3)]
    with pytest.raises(TypeError, match="rng is a str"):
        logitlab.sample(z, rng="0")
    with pytest.raises(ValueError, match="rng is -1"):
        logitlab.sample(z, rng=-1)


def test_without_replacement():
    """No category twice; the first is a plain draw, pairs follow the successive law."""
    z = np.array([2.0, 1.0, 3.0, 0.0])
    p = logitlab.softmax(z)
    drawn = logitlab.sample(np.broadcast_to(z, (200_000, 4)), 4, replacement=False, rng=0)
    assert (np.sort(drawn, axis=1) == np.arange(4)).all()
    assert min(p_value(np.bincount(drawn[:, 0]), p)) > FALSE_ALARM
    pair = np.outer(p, p) / (1 - p)[:, None]
    np.fill_diagonal(pair, 0)
    counts = np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16)
    assert min(p_value(counts, pair.ravel())) > FALSE_ALARM
    with pytest.raises(ValueError, match="n is 3; row 1 has 2 categories to draw from"):
        logitlab.sample([[1, 2, 3], [1, -inf, 3]], 3, replacement=False)
    with pytest.raises(ValueError, match="n is 3; z has 2 categories"):
        logitlab.sample(z, 3, replacement=False, top_k=2)
    assert sorted(logitlab.sample([0, 5, 5], 2, replacement=False, temperature=0)) == [1, 2]


@given(finite_rows(), temperatures, st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_log_prob_is_that_of_the_distribution(row, temperature, seed):
    """log_softmax of what is left, at the indices of sample."""
    given = {"temperature": temperature, "top_p": 0.9, "min_p": 0.01}
    index, log_prob = logitlab.sample_with_log_prob(row, 4, rng=seed, **given)
    assert (index == logitlab.sample(row, 4, rng=seed, **given)).all()
    kept = logitlab.truncate(row, **given)
    expected = logitlab.log_softmax(kept, temperature=temperature)[index]
    np.testing.assert_array_equal(log_prob, expected)
    assert log_prob.dtype == row.dtype


def test_log_prob_shapes_and_gradients():
    """Of the caller's kind; torch differentiates it."""
    z = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 9.0]], requires_grad=True)
    index, log_prob = logitlab.sample_with_log_prob(z, rng=0)
    (gradient,) = torch.autograd.grad(log_prob.sum(), z)
    p = torch.softmax(z.detach(), -1)
    expected = torch.nn.functional.one_hot(index, 3) - p
    torch.testing.assert_close(gradient, expected)
    index, log_prob = logitlab.sample_with_log_prob(np.zeros((2, 5, 3)), 4, 1, rng=0)
    assert index.shape == log_prob.shape == (2, 3, 4)
    assert log_prob == pytest.approx(-math.log(5))


def test_kinds():
    """Every type, 0-d included; indices are int64."""
    for dtype in arrays.FLOATS:
        z = arrays.normal((3, 5), dtype)
        assert logitlab.sample(z, rng=0).dtype == np.int64
    assert logitlab.sample(torch.zeros(3, 4, dtype=torch.bfloat16), rng=0).shape == (3,)
    assert logitlab.sample([1, 2, 3], temperature=0) == 2
    assert logitlab.sample(5.0) == 0
    assert logitlab.sample_with_log_prob(5.0)[1] == 0
    assert isinstance(logitlab.sample([1.0, 2.0]), np.int64)


def test_errors():
    """One line that names the argument."""
    z = [1.0, 2.0]
    for options, text in (
        ({"n": 0}, "n must be >= 1, got 0"),
        ({"top_k": 0}, "top_k must be >= 1, got 0"),
        ({"top_p": 0}, r"top_p is 0.0; accepted: \(0, 1\]"),
        ({"top_p": nan}, r"top_p is nan; accepted"),
        ({"min_p": -0.1}, "min_p is -0.1; accepted: 0 to 1"),
        ({"order": "hf"}, "order is 'hf'; accepted: 'transformers'"),
        ({"order": ("top_k", "top_p")}, "order is"),
        ({"row_keys": [1]}, "row_keys has shape"),
    ):
        with pytest.raises(ValueError, match=text):
            logitlab.sample(z, **options)
    for options, text in (
        ({"n": 1.5}, "n must be an int"),
        ({"top_k": 2.0}, "top_k must be an int"),
        ({"top_k": True}, "top_k must be an int, got True"),
        ({"top_p": True}, "top_p must be a real number, got True"),
        ({"axis": None}, "axis must be an int"),
        ({"row_keys": 0.5}, "row_keys has type float64"),
    ):
        with pytest.raises(TypeError, match=text):
            logitlab.sample(z, **options)


def test_a_temperature_for_each_row_of_another_library():
    """JAX without float64 gives float32 temperatures."""
    z = np.zeros((4, 4), np.float32)
    z[:, 1] = 3
    t = np.float32([1e-3, 1e3, 1e-3, 1e-3])
    jax = pytest.importorskip("jax")
    theirs = jax.numpy.asarray(z), jax.numpy.asarray(t)
    for f in (
        lambda z, t: logitlab.sample(z, 8, temperature=t, rng=0),
        lambda z, t: logitlab.truncate(z, temperature=t, top_p=0.9),
    ):
        np.testing.assert_array_equal(f(z, t), f(*theirs))


def test_one_row_of_a_tensor():
    """A tensor gives tensors, 0-d as NumPy gives scalars."""
    z = torch.tensor([1.0, 2.0])
    assert isinstance(logitlab.sample(z, rng=0), torch.Tensor)
    index, log_prob = logitlab.sample_with_log_prob(z, rng=0)
    assert isinstance(index, torch.Tensor)
    assert log_prob.shape == index.shape == ()
    assert isinstance(logitlab.sample(z.numpy(), rng=0), np.int64)


def test_distinct_draws_where_a_difference_overflows():
    z = np.array([1e308, -1e308])
    drawn = logitlab.sample(z, 2, temperature=1e308, replacement=False, rng=0)
    assert sorted(drawn) == [0, 1]


def test_a_batch_without_rows():
    for z in (np.zeros((0, 5)), torch.zeros(0, 5)):
        for n, shape in ((3, (0, 3)), (None, (0,))):
            found, log_prob = logitlab.sample_with_log_prob(z, n)
            assert tuple(found.shape) == tuple(log_prob.shape) == shape


def test_the_faintest_are_drawn_last():
    """Without replacement every category that is left comes, also where exp(z/T) is 0."""
    z = np.array([[1.0, 2.0, 3.0, -np.inf], [-5e4, 0.0, -4e4, 1.0]])
    for t in (1e-3, 1e-5):
        found = logitlab.sample(z, 3, replacement=False, temperature=t, rng=0)
        assert found.tolist() == [[2, 1, 0], [3, 1, 2]]
    with pytest.raises(ValueError, match="row 0 has 3 categories"):
        logitlab.sample(z, 4, replacement=False, temperature=1e-3, rng=0)
