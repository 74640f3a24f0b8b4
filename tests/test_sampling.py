"""Sampling: known-answer vectors of the generator, goodness-of-fit tests, special rows, errors."""

import itertools
import math
import re
from fractions import Fraction

import array_api_strict
import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import arrays
import exact
import logitlab
from arrays import inf, nan
from exact import mp
from logitlab._backends import native_sampling, reference_sampling
from logitlab._backends.reference_sampling import philox, philox_words, uniforms
from processes import run_code
from strategies import finite_rows, temperatures
from truncations import stages

# Significance level: a test rejects a correct sampler for one of a million seeds (seeds are fixed).
ALPHA = 1e-6

# kat_vectors of Random123, philox4x32 10: counter, key, output.
KNOWN_ANSWERS = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""


def test_philox_known_answers():
    """The generator is Philox4x32-10."""
    for line in KNOWN_ANSWERS.split("\n")[1:-1]:
        w = [int(word, 16) for word in line.split()]
        output = philox_words((w[4], w[5]), w[0] | w[1] << 32, w[2] | w[3] << 32)
        assert [int(x) for x in output] == w[6:]


def test_uniforms_are_correctly_rounded():
    """They are (2 w + 1) / 2^65, from 2^-65 to 1."""
    words = np.array([0, 1, 2**63, 2**64 - 1, 2**64 - 2**11, 0x123456789ABCDEF0], np.uint64)
    exact = [(2 * int(w) + 1) / 2**65 for w in words]
    assert uniforms(words).tolist() == exact


def p_values(counts, p):
    """P-values of the G-test and the chi-square test; classes of expected count < 5 are merged."""
    counts, expected = np.asarray(counts, float), np.sum(counts) * np.asarray(p, float)
    assert counts[expected == 0].sum() == 0
    few = expected < 5
    observed = np.append(counts[~few], counts[few].sum())
    expected = np.append(expected[~few], expected[few].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    g = 2 * special.rel_entr(observed, expected).sum()
    return stats.chi2.sf(g, len(expected) - 1), stats.chisquare(observed, expected).pvalue


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
    """A million samples pass the G-test and the chi-square test."""
    z = z.astype(dtype)
    samples = logitlab.sample(z, 1_000_000, temperature=temperature, rng=1)
    counts = np.bincount(samples, minlength=len(z))
    exact = logitlab.softmax(z.astype(float), temperature=temperature)
    assert min(p_values(counts, exact)) > ALPHA


def test_the_tests_reject_a_biased_sampler():
    """A bias of 1 % in one class is detected."""
    z = DISTRIBUTIONS[0]
    p = logitlab.softmax(z)
    biased = p.copy()
    biased[3] *= 1.01
    counts = np.bincount(logitlab.sample(np.log(biased), 1_000_000, rng=1), minlength=5)
    assert max(p_values(counts, p)) < ALPHA


@pytest.mark.parametrize("k", [5, 130])
def test_rows_are_independent(k):
    """Frequencies over the rows of a batch, and of pairs of samples within and between rows."""
    z = np.random.default_rng(3).standard_normal(k)
    samples = logitlab.sample(np.broadcast_to(z, (100_000, k)), 2, rng=0)
    p = logitlab.softmax(z)
    assert min(p_values(np.bincount(samples[:, 0], minlength=k), p)) > ALPHA
    pairs = np.bincount(samples[:, 0] * k + samples[:, 1], minlength=k * k)
    assert min(p_values(pairs, np.outer(p, p).ravel())) > ALPHA
    neighbours = np.bincount(samples[:-1:2, 0] * k + samples[1::2, 0], minlength=k * k)
    assert min(p_values(neighbours, np.outer(p, p).ravel())) > ALPHA


def test_zero_probability_is_never_sampled():
    """torch.multinomial returns 0 and 3 for the same weights."""
    z = logitlab.logits([0.0, 10.0, 3.0, 0.0])
    assert set(logitlab.sample(z, 100_000, rng=0)) == {1, 2}
    for width in (4, 200, 5000):
        row = np.full(width, -inf, np.float32)
        row[width // 2] = -3.0
        assert set(logitlab.sample(row, 1000, rng=0)) == {width // 2}
        row[width // 2 :] = np.linspace(-1, 1, width - width // 2)
        assert logitlab.sample(row, 10_000, rng=0).min() >= width // 2


def test_two_to_the_25_categories():
    """A float32 cumulative sum would stop growing before the upper half; its probability is 1/3."""
    k = 1 << 25
    z = np.zeros(k, np.float32)
    z[: k // 2] = np.log(2)
    upper = (logitlab.sample(z, 30_000, rng=0) >= k // 2).sum()
    assert stats.binomtest(int(upper), 30_000, 1 / 3).pvalue > ALPHA


@pytest.mark.parametrize("k", [3, 100, 1000, 6000])
def test_special_rows(k):
    """Ties at T = 0, +inf, one finite logit, masks and T < 0."""
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
            assert min(p_values(counts, p)) > ALPHA
        assert set(row) <= set(allowed)
    assert set(logitlab.sample(z[1], 1000, rng=0)) == {1, k - 1}
    assert set(logitlab.sample(z[4], 1000, temperature=-1e-3, rng=0)) == {2}
    warm = set(logitlab.sample(z[3], 1000, temperature=inf, rng=0))
    assert all(i % 2 == 0 for i in warm)
    where = np.arange(k) == 1
    assert set(logitlab.sample(z[0], 100, where=where, rng=0)) == {1}


@pytest.mark.parametrize("k", [4, 600, 7000])
def test_rows_without_a_distribution(k):
    """NaN, or no category left: the error names the first such row."""
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
def test_samples_depend_on_row_key_and_seed_alone(k, replacement):
    """Not on the batch, its memory layout, the array library or the number of samples."""
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
    tensor = logitlab.sample(torch.from_numpy(z), 5, **options)
    assert (tensor.numpy() == whole).all()
    assert tensor.dtype == torch.int64
    assert (np.asarray(logitlab.sample(jax.numpy.asarray(z), 5, **options)) == whole).all()
    same = logitlab.sample(z[3:5], 5, row_keys=[9, 9], **options)
    assert (same[0] == same[1]).all()
    assert (whole[3] != whole[4]).any()


def test_rng():
    """An int repeats the samples, a generator advances, None uses a random seed."""
    z = np.zeros(1 << 20)
    assert logitlab.sample(z, rng=3) == logitlab.sample(z, rng=3)
    assert logitlab.sample(z, rng=3) != logitlab.sample(z, rng=4)
    assert logitlab.sample(z) != logitlab.sample(z)
    for make in (np.random.default_rng, lambda s: torch.Generator().manual_seed(s)):
        one, other = make(0), make(0)
        first = [int(logitlab.sample(z, rng=one)) for _ in range(3)]
        assert len(set(first)) == 3
        assert first == [int(logitlab.sample(z, rng=other)) for _ in range(3)]
    rule = "rng must be None, an int >= 0, a numpy.random.Generator or a torch.Generator, got "
    for rng, error in (("0", TypeError), (-1, ValueError), (True, TypeError), ([1], TypeError)):
        with pytest.raises(error, match=re.escape(rule + repr(rng))):
            logitlab.sample(z, rng=rng)


def words_of(rng):
    """The key of a seed or a generator, as documented."""
    if isinstance(rng, int):
        return tuple(map(int, np.random.SeedSequence(rng).generate_state(2)))
    word = int(rng.integers(0, 2**64, dtype=np.uint64))
    return word & 0xFFFFFFFF, word >> 32


@pytest.mark.parametrize("make", [lambda s: s, np.random.default_rng])
@pytest.mark.parametrize("k", [7, 1000])
def test_samples_follow_from_the_key(make, k):
    """Both words of the key count; without replacement the first differs by a constant."""
    keys = np.array([3, 0, 2**40], np.uint64)
    z = arrays.normal((3, k), np.float64)
    weights = np.exp(z - z.max(axis=1, keepdims=True))
    for seed in range(5):
        a, b = words_of(make(seed))
        u = uniforms(philox((a, b), keys[:, None], np.arange(4, dtype=np.uint64)))
        cumulative = np.cumsum(weights, axis=1)
        expected = [np.searchsorted(c, c[-1] * x) for c, x in zip(cumulative, u, strict=True)]
        samples = logitlab.sample(z, 4, rng=make(seed), row_keys=keys)
        np.testing.assert_array_equal(samples, expected)
        key = (a ^ 0x5851F42D, b)
        u = uniforms(philox(key, keys[:, None], np.arange(k, dtype=np.uint64)))
        gumbel = -np.log(-np.log1p(-np.minimum(u, 1 - 2.0**-53)))
        expected = np.argsort(-(z + gumbel), axis=1)[:, :4]
        samples = logitlab.sample(z, 4, rng=make(seed), row_keys=keys, replacement=False)
        np.testing.assert_array_equal(samples, expected)


def test_both_words_of_the_key_count():
    z = np.zeros((50, 1000))
    keys = np.arange(50, dtype=np.uint64)
    for replacement in (True, False):
        draws = [
            native_sampling.sample(z, 1, 1.0, None, stages(), 1, replacement, key, keys)
            for key in ((1, 2), (1, 3), (2, 2), (1, 2))
        ]
        assert (draws[0] == draws[3]).all()
        assert (draws[0] != draws[1]).mean() > 0.9
        assert (draws[0] != draws[2]).mean() > 0.9


def test_without_replacement():
    """Categories are distinct; firsts and pairs have the probabilities of successive draws."""
    z = np.array([2.0, 1.0, 3.0, 0.0])
    p = logitlab.softmax(z)
    samples = logitlab.sample(np.broadcast_to(z, (200_000, 4)), 4, replacement=False, rng=0)
    assert (np.sort(samples, axis=1) == np.arange(4)).all()
    assert min(p_values(np.bincount(samples[:, 0]), p)) > ALPHA
    pair = np.outer(p, p) / (1 - p)[:, None]
    np.fill_diagonal(pair, 0)
    counts = np.bincount(samples[:, 0] * 4 + samples[:, 1], minlength=16)
    assert min(p_values(counts, pair.ravel())) > ALPHA
    with pytest.raises(ValueError, match="n must be <= 2 without replacement, got 3: row 1 has 2"):
        logitlab.sample([[1, 2, 3], [1, -inf, 3]], 3, replacement=False)
    with pytest.raises(ValueError, match="n must be <= 2 without replacement, got 3: z has 2"):
        logitlab.sample(z, 3, replacement=False, top_k=2)
    assert sorted(logitlab.sample([0, 5, 5], 2, replacement=False, temperature=0)) == [1, 2]


@given(finite_rows(), temperatures, st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_log_prob_is_log_softmax_of_the_truncated_logits(row, temperature, seed):
    """At the indices that `sample` returns."""
    options = {"temperature": temperature, "top_p": 0.9, "min_p": 0.01}
    index, log_prob = logitlab.sample_with_log_prob(row, 4, rng=seed, **options)
    assert (index == logitlab.sample(row, 4, rng=seed, **options)).all()
    kept = logitlab.truncate(row, **options)
    expected = logitlab.log_softmax(kept, temperature=temperature)[index]
    np.testing.assert_array_equal(log_prob, expected)
    assert log_prob.dtype == row.dtype


def test_log_prob_shapes_and_gradients():
    """Shapes follow n and axis; a torch log-probability is differentiable."""
    z = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 9.0]], requires_grad=True)
    index, log_prob = logitlab.sample_with_log_prob(z, rng=0)
    (gradient,) = torch.autograd.grad(log_prob.sum(), z)
    p = torch.softmax(z.detach(), -1)
    expected = torch.nn.functional.one_hot(index, 3) - p
    torch.testing.assert_close(gradient, expected)
    index, log_prob = logitlab.sample_with_log_prob(np.zeros((2, 5, 3)), 4, 1, rng=0)
    assert index.shape == log_prob.shape == (2, 3, 4)
    assert log_prob == pytest.approx(-math.log(5))


def test_dtypes():
    """Every floating dtype, lists and 0-d arrays; indices are int64."""
    for dtype in arrays.FLOATS:
        z = arrays.normal((3, 5), dtype)
        assert logitlab.sample(z, rng=0).dtype == np.int64
    assert logitlab.sample(torch.zeros(3, 4, dtype=torch.bfloat16), rng=0).shape == (3,)
    assert logitlab.sample([1, 2, 3], temperature=0) == 2
    assert logitlab.sample(5.0) == 0
    assert logitlab.sample_with_log_prob(5.0)[1] == 0
    assert isinstance(logitlab.sample([1.0, 2.0]), np.int64)


def test_errors():
    """Each message has the argument, the rule and the value."""
    z = [1.0, 2.0]
    for options, text in (
        ({"n": 0}, "n must be >= 1, got 0"),
        ({"top_k": 0}, "top_k must be >= 1, got 0"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": nan}, r"top_p must be in \(0, 1\], got nan"),
        ({"min_p": -0.1}, r"min_p must be in \[0, 1\], got -0.1"),
        ({"order": "hf"}, "order must be 'transformers', 'vllm', .*, got 'hf'"),
        (
            {"order": ("top_k", "top_p"), "temperature": 2.0},
            r"order must name every stage in use; 'temperature' is missing: \('top_k', 'top_p'\)",
        ),
        ({"row_keys": [1]}, r"row_keys must have the batch shape \(\) of z, got shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=text):
            logitlab.sample(z, **options)
    for options, text in (
        ({"n": 1.5}, "n must be an int"),
        ({"n": True}, "n must be an int, got True"),
        ({"n": [3]}, r"n must be an int, got \[3\]"),
        ({"top_k": 2.0}, "top_k must be an int"),
        ({"top_k": True}, "top_k must be an int, got True"),
        ({"top_p": True}, "top_p must be a real number, got True"),
        ({"axis": None}, "axis must be an int"),
        ({"row_keys": 0.5}, "row_keys must be an integer array, got float64"),
        ({"replacement": "no"}, "replacement must be True or False, got 'no'"),
    ):
        with pytest.raises(TypeError, match=text):
            logitlab.sample(z, **options)


def test_float32_temperatures_of_jax():
    """One temperature for each row, from a library in which float64 is not enabled."""
    z = np.zeros((4, 4), np.float32)
    z[:, 1] = 3
    t = np.float32([1e-3, 1e3, 1e-3, 1e-3])
    jax = pytest.importorskip("jax")
    jax_arguments = jax.numpy.asarray(z), jax.numpy.asarray(t)
    for f in (
        lambda z, t: logitlab.sample(z, 8, temperature=t, rng=0),
        lambda z, t: logitlab.truncate(z, temperature=t, top_p=0.9),
    ):
        np.testing.assert_array_equal(f(z, t), f(*jax_arguments))


def test_one_row_of_a_tensor():
    """The result of a tensor is a 0-d tensor; of a NumPy array it is a scalar."""
    z = torch.tensor([1.0, 2.0])
    assert isinstance(logitlab.sample(z, rng=0), torch.Tensor)
    index, log_prob = logitlab.sample_with_log_prob(z, rng=0)
    assert isinstance(index, torch.Tensor)
    assert log_prob.shape == index.shape == ()
    assert isinstance(logitlab.sample(z.numpy(), rng=0), np.int64)


def test_without_replacement_if_a_difference_of_logits_overflows():
    z = np.array([1e308, -1e308])
    samples = logitlab.sample(z, 2, temperature=1e308, replacement=False, rng=0)
    assert sorted(samples) == [0, 1]


def test_empty_batch():
    for z in (np.zeros((0, 5)), torch.zeros(0, 5)):
        for n, shape in ((3, (0, 3)), (None, (0,))):
            indices, log_prob = logitlab.sample_with_log_prob(z, n)
            assert tuple(indices.shape) == tuple(log_prob.shape) == shape


def test_without_replacement_if_weights_underflow():
    """Categories whose exp(z/T) is 0 in float64 are sampled last."""
    z = np.array([[1.0, 2.0, 3.0, -np.inf], [-5e4, 0.0, -4e4, 1.0]])
    for t in (1e-3, 1e-5):
        samples = logitlab.sample(z, 3, replacement=False, temperature=t, rng=0)
        assert samples.tolist() == [[2, 1, 0], [3, 1, 2]]
    with pytest.raises(ValueError, match="n must be <= 3 without replacement, got 4: row 0 has 3"):
        logitlab.sample(z, 4, replacement=False, temperature=1e-3, rng=0)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_row_keys_of_any_integer_type(convert):
    z = np.zeros((3, 50))
    expected = logitlab.sample(z, row_keys=[5, 0, 100], rng=0)
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        keys = convert(np.array([5, 0, 100], name))
        np.testing.assert_array_equal(logitlab.sample(z, row_keys=keys, rng=0), expected)
    large = [2**64 - 1, 2**63, 1]
    expected = logitlab.sample(z, 20, row_keys=np.array(large, np.uint64), rng=0)
    np.testing.assert_array_equal(logitlab.sample(z, 20, row_keys=large, rng=0), expected)


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ([0, -1], ValueError, "row_keys must be from 0 to 2[*][*]64 - 1, got -1 in row 1"),
        (np.array([-7, 0], np.int8), ValueError, "got -7 in row 0"),
        ([0, 2**64], ValueError, "got 18446744073709551616 in row 1"),
        ([2**63, -1], ValueError, "got -1 in row 1"),
        ([2**63, 0.5], TypeError, "row_keys must be an integer array, got float64"),
        ([True, False], TypeError, "row_keys must be an integer array, got bool"),
        ([2**64, "a"], TypeError, "row_keys must be an integer array, got object"),
    ],
)
def test_invalid_row_keys(keys, error, message):
    with pytest.raises(error, match=message):
        logitlab.sample(np.zeros((2, 3)), row_keys=keys)


def test_integer_options_of_any_type():
    """NumPy scalars and 0-d integer arrays; booleans of any kind are refused."""
    z = arrays.normal((4, 5), np.float64)
    calls = {
        "n": lambda x: logitlab.sample(z, x, rng=0),
        "top_k": lambda x: logitlab.sample(z, 9, top_k=x, rng=0),
        "rng": lambda x: logitlab.sample(z, 9, rng=x),
        "axis": lambda x: logitlab.sample(z, axis=x, rng=0),
    }
    for name, call in calls.items():
        expected = call(1)
        for value in (
            np.int8(1),
            np.uint64(1),
            np.array(1),
            np.array(1, np.uint8),
            torch.tensor(1),
        ):
            np.testing.assert_array_equal(call(value), expected)
        for value in (True, np.True_, np.array(True), torch.tensor(True), 1.0, np.float64(1)):
            with pytest.raises(TypeError, match=f"{name} must be "):
                call(value)
    assert (logitlab.truncate(z, top_k=2**70) == z).all()
    with pytest.raises(MemoryError, match="4 x 1180591620717411303424 samples do not fit"):
        logitlab.sample(z, 2**70)


# The reference, called directly. Its uniform numbers are those of the generator, tested above.
KEY = (0x12345678, 0x9ABCDEF0)
NO_CUT = stages()


def exact_uniforms(row_key, n):
    """The first n uniform numbers of a row: (2 w + 1) / 2^65."""
    words = [philox(KEY, np.uint64(row_key), np.uint64(j)) for j in range(n)]
    return [Fraction(2 * int(w) + 1, 2**65) for w in words]


def sample_exactly(weights, row_key, n):
    """Sampled indices of integer weights: the class whose interval has the uniform number."""
    cumulative = list(itertools.accumulate(map(Fraction, weights)))
    indices = []
    for u in exact_uniforms(row_key, n):
        indices.append(next(i for i, c in enumerate(cumulative) if u * cumulative[-1] < c))
        # No class is within rounding of the boundary.
        assert min(abs(u * cumulative[-1] - c) for c in cumulative) > 1e-9 * cumulative[-1]
    return indices


def sample_without_replacement_exactly(weights, row_key, n):
    """The n largest of log w + G of the weights above 0, G = -log(-log(1 - u))."""
    uniform = exact_uniforms(row_key, len(weights))
    scores = {
        i: mp.log(weight) - mp.log(-mp.log1p(-mp.mpf(u.numerator) / u.denominator))
        for i, (weight, u) in enumerate(zip(weights, uniform, strict=True))
        if weight
    }
    ranked = sorted(scores, key=lambda i: -scores[i])[:n]
    return ranked + [-1] * (n - len(ranked))


def test_first_words_of_a_block():
    """The generator of samples takes the first 64 bits, for counters of any shape."""
    for line in KNOWN_ANSWERS.split("\n")[1:-1]:
        w = [int(word, 16) for word in line.split()]
        low, high = w[0] | w[1] << 32, w[2] | w[3] << 32
        assert int(philox((w[4], w[5]), low, high)) == w[6] | w[7] << 32
    keys, j = np.array([[3], [2**40]], np.uint64), np.arange(4, dtype=np.uint64)
    table = philox(KEY, keys, j)
    assert table.shape == (2, 4)
    assert int(table[1, 2]) == int(philox(KEY, np.uint64(2**40), np.uint64(2)))


WEIGHTS = [[1, 2, 3, 4], [0, 5, 0, 1], [7, 0, 0, 0], [1, 1, 1, 1], [1000, 1, 1000, 10]]
ROW_KEYS = np.array([5, 0, 2**63 + 1, 17, 2**32], np.uint64)


@pytest.mark.parametrize("block", [1, 4, 9, 1 << 18])
@pytest.mark.parametrize("each", [True, False])
def test_reference_samples(block, each, monkeypatch):
    """Every row has the samples of its weights and its key, in blocks of any size."""
    monkeypatch.setattr(reference_sampling, "_BLOCK_SIZE", block)
    with np.errstate(divide="ignore"):
        z = np.log(np.array(WEIGHTS, float))
    t = np.ones(len(z)) if each else 1.0
    for replacement, exactly in (
        (True, sample_exactly),
        (False, sample_without_replacement_exactly),
    ):
        for n in (1, 3, 6):
            indices = reference_sampling.sample(z, t, None, NO_CUT, n, replacement, KEY, ROW_KEYS)
            assert indices.dtype == np.int64
            expected = [exactly(w, int(k), n) for w, k in zip(WEIGHTS, ROW_KEYS, strict=True)]
            assert indices.tolist() == expected


def test_reference_sampling_options(monkeypatch):
    """A temperature and a mask of each row, and truncation before sampling."""
    monkeypatch.setattr(reference_sampling, "_BLOCK_SIZE", 8)
    weights = np.array([[1, 2, 3, 4], [2, 1, 5, 1], [3, 3, 1, 2]])
    z, keys = np.log(weights), ROW_KEYS[:3]
    t = np.array([1.0, 0.5, -1.0])
    mask = np.array([[True, True, True, False], [True] * 4, [False, True, True, True]])
    powers = [[1, 2, 3, 0], [4, 1, 25, 1], [0, 2, 6, 3]]  # times 6 in the last row
    top_two = [[0, 2, 3, 0], [4, 0, 25, 0], [0, 0, 6, 3]]
    top_half = [[0, 0, 3, 0], [0, 0, 25, 0], [0, 0, 6, 0]]
    min_third = [[1, 2, 3, 0], [0, 0, 25, 0], [0, 2, 6, 3]]
    for cut, kept in (
        (NO_CUT, powers),
        (stages(top_k=2), top_two),
        (stages(top_p=0.5), top_half),
        (stages(min_p=0.33), min_third),
    ):
        for replacement, exactly in (
            (True, sample_exactly),
            (False, sample_without_replacement_exactly),
        ):
            indices = reference_sampling.sample(z, t, mask, cut, 4, replacement, KEY, keys)
            expected = [exactly(w, int(k), 4) for w, k in zip(kept, keys, strict=True)]
            assert indices.tolist() == expected


@pytest.mark.parametrize("replacement", [True, False])
def test_reference_samples_of_rows_without_a_distribution(replacement):
    """All are -1; the other rows are sampled."""
    z = np.array([[0.0, nan], [-inf, -inf], [3.0, -inf], [inf, -inf], [1.0, inf]])
    keys = np.arange(5, dtype=np.uint64)
    indices = reference_sampling.sample(z, 1.0, None, NO_CUT, 1, replacement, KEY, keys)
    assert indices.tolist() == [[-1], [-1], [0], [0], [1]]
    cut = stages(top_k=1)
    indices = reference_sampling.sample(z, 1.0, None, cut, 1, replacement, KEY, keys)
    assert indices.tolist() == [[-1], [-1], [0], [0], [1]]
    for shape in ((3, 0), (0, 3)):
        keys = np.arange(shape[0], dtype=np.uint64)
        empty = np.zeros(shape)
        indices = reference_sampling.sample(empty, 1.0, None, NO_CUT, 2, replacement, KEY, keys)
        assert indices.tolist() == [[-1, -1]] * shape[0]
        assert indices.shape == (shape[0], 2)


def test_reference_samples_at_the_ends_of_the_uniform_numbers(monkeypatch):
    """u = 1 gives the last class of weight above 0; a boundary belongs to the class after it."""
    z, key = np.array([[-inf, 0.0, 0.0, -inf, 0.0, 0.0, -inf]]), np.zeros(1, np.uint64)
    for u, expected in ((2.0**-65, 1), (0.25, 2), (0.5, 4), (1.0, 5)):
        monkeypatch.setattr(reference_sampling, "uniforms", lambda w, u=u: np.full(w.shape, u))
        indices = reference_sampling.sample(z, 1.0, None, NO_CUT, 2, True, KEY, key)
        assert indices.tolist() == [[expected, expected]]
        # Equal noise: classes in their order, all of them.
        indices = reference_sampling.sample(z, 1.0, None, NO_CUT, 5, False, KEY, key)
        assert indices.tolist() == [[1, 2, 4, 5, -1]]


def test_reference_samples_without_replacement_where_weights_underflow():
    """Classes whose exp(z/T) is 0 in float64 are sampled last, in the order of their logits."""
    z, key = np.array([[-5e4, 0.0, -4e4, 1.0]]), np.zeros(1, np.uint64)
    for t, cut in ((1e-3, NO_CUT), (1e-5, NO_CUT), (1e-3, stages(top_k=4))):
        indices = reference_sampling.sample(z, t, None, cut, 4, False, KEY, key)
        assert indices.tolist() == [[3, 1, 2, 0]]


SPREAD = np.array([[0.0, 1.0, 2.0, 3.0], [3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 0.5, 0.0]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 2},
        {"top_p": 0.6},
        {"min_p": 0.3},
        {"where": [True, False, True, True]},
        {"where": [True, False, True, True], "top_k": 2},
        {"row_keys": [7, 2**40, 9]},
        {"replacement": False},
        {"temperature": 0.2},
        {"temperature": [0.2, 5.0, -1.0], "top_p": 0.7},
        {"temperature": 3.0, "top_p": 0.7, "order": "transformers"},
        {"temperature": 3.0, "top_p": 0.7, "order": "llama.cpp"},
        {"min_p": 0.3, "top_k": 2, "order": ["min_p", "top_k", "top_p", "temperature"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("n", [4, None])
def test_log_prob_of_every_option(options, axis, n):
    """The samples are those of `sample`, and probabilities those of the truncated logits."""
    n = 2 if options.get("replacement") is False and n else n
    z = SPREAD if axis else SPREAD.T
    options = dict(options)
    if axis == 0 and "where" in options:
        options["where"] = np.reshape(options["where"], (4, 1))
    index, log_prob = logitlab.sample_with_log_prob(z, n, axis, rng=3, **options)
    np.testing.assert_array_equal(index, logitlab.sample(z, n, axis, rng=3, **options))
    assert index.shape == log_prob.shape == ((3,) if n is None else (3, n))
    temperature = options.get("temperature", 1.0)
    options = {x: y for x, y in options.items() if x not in ("row_keys", "replacement")}
    kept = logitlab.truncate(z, axis, **options)
    assert np.isinf(kept).any() == bool(set(options) - {"temperature"})
    kept = kept if axis else kept.T
    for row, t, indices, values in zip(
        kept,
        np.broadcast_to(temperature, 3).tolist(),
        index.reshape(3, -1).tolist(),
        log_prob.reshape(3, -1).tolist(),
        strict=True,
    ):
        expected = exact.log_softmax(row.tolist(), t)
        assert values == pytest.approx([float(expected[i]) for i in indices], rel=1e-14)


@pytest.mark.parametrize("convert", [torch.from_numpy, array_api_strict.asarray, jax.numpy.asarray])
def test_options_of_other_libraries(convert):
    """The results of NumPy, in the library of z."""
    z = SPREAD.astype(np.float32)
    options = {"temperature": np.float32([0.5, 2.0, -1.0]), "where": np.arange(4) != 1}
    given = {name: convert(x) for name, x in options.items()}
    kept = logitlab.truncate(convert(z), top_k=2, **given)
    assert type(kept) is type(convert(z))
    assert kept.dtype == convert(z).dtype
    np.testing.assert_array_equal(np.asarray(kept), logitlab.truncate(z, top_k=2, **options))
    index, log_prob = logitlab.sample_with_log_prob(convert(z), 3, rng=0, top_k=2, **given)
    assert type(index) is type(log_prob) is type(kept)
    expected = logitlab.sample_with_log_prob(z, 3, rng=0, top_k=2, **options)
    np.testing.assert_array_equal(np.asarray(index), expected[0])
    np.testing.assert_allclose(np.asarray(log_prob), expected[1], rtol=1e-6)


def test_one_class():
    """z without a class axis: one class of probability 1, in every function and option."""
    assert logitlab.truncate(np.array(2.0), top_k=1) == 2
    index, log_prob = logitlab.sample_with_log_prob(np.array(2.0), 3, rng=0, top_k=1)
    assert index.tolist() == log_prob.tolist() == [0, 0, 0]
    index, log_prob = logitlab.sample_with_log_prob(
        torch.tensor(2.0), rng=0, where=torch.tensor(True)
    )
    assert index.item() == log_prob.item() == 0


def message_of(error, function, *args, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def test_messages():
    """Each is complete: the argument, the rule, the value."""
    z = [1.0, 2.0]
    rule = (
        "order must be 'transformers', 'vllm', 'llama.cpp', 'sglang' or a list of distinct stages "
        "of ('temperature', 'top_k', 'top_p', 'min_p', 'typical_p', 'epsilon', 'eta', "
        "'top_n_sigma', 'top_a', 'xtc'), got "
    )
    for order in ("hf", ("top_k", "top_q"), ["top_k"] * 4, 5, {"top_k": 1}):
        assert message_of(ValueError, logitlab.sample, z, order=order) == rule + repr(order)
    for options, message in (
        ({"top_k": 0}, "top_k must be >= 1, got 0"),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0.0"),
        ({"top_p": 1.5}, "top_p must be in (0, 1], got 1.5"),
        ({"min_p": -0.1}, "min_p must be in [0, 1], got -0.1"),
        ({"min_p": 1.5}, "min_p must be in [0, 1], got 1.5"),
    ):
        for function in (logitlab.truncate, logitlab.sample, logitlab.sample_with_log_prob):
            assert message_of(ValueError, function, z, **options) == message
    for options, message in (
        ({"n": 0}, "n must be >= 1, got 0"),
        ({"n": 2**60}, f"1 x {2**60} samples do not fit in memory"),
        (
            {"rng": 1.5},
            "rng must be None, an int >= 0, a numpy.random.Generator or a torch.Generator, got 1.5",
        ),
        (
            {"rng": -1},
            "rng must be None, an int >= 0, a numpy.random.Generator or a torch.Generator, got -1",
        ),
        (
            {"rng": torch.zeros(3)},
            "rng must be None, an int >= 0, a numpy.random.Generator or a "
            "torch.Generator, got tensor([0., 0., 0.])",
        ),
        (
            {"rng": np.array([1])},
            "rng must be None, an int >= 0, a numpy.random.Generator or a "
            "torch.Generator, got array([1])",
        ),
        (
            {"rng": np.bool_(True)},
            "rng must be None, an int >= 0, a numpy.random.Generator or a "
            "torch.Generator, got np.True_",
        ),
        ({"replacement": 1}, "replacement must be True or False, got 1"),
        ({"row_keys": [1]}, "row_keys must have the batch shape () of z, got shape (1,)"),
        ({"row_keys": 0.5}, "row_keys must be an integer array, got float64"),
        ({"row_keys": -3}, "row_keys must be from 0 to 2**64 - 1, got -3 in row 0"),
        (
            {"row_keys": np.ma.array(1)},
            "row_keys must not be a masked array; pass the rows without the mask instead",
        ),
        ({"axis": None}, "axis must be an int, got None"),
        ({"axis": (0,)}, "axis must be an int, got (0,)"),
    ):
        errors = (TypeError, ValueError, MemoryError)
        assert message_of(errors, logitlab.sample, z, **options) == message
    complex_numbers = message_of(TypeError, logitlab.sample, np.zeros(2, complex))
    assert complex_numbers.startswith("z must be a real array (")
    assert complex_numbers.endswith("), got complex128")


def test_messages_about_rows():
    """The first row without enough categories, by its index in the batch."""
    z = np.zeros((2, 3, 4))
    z[1, 2, :3] = -inf
    z[1, 1, :] = nan
    rule = " has no distribution: it contains NaN, or no category is left"
    assert message_of(ValueError, logitlab.sample, z) == "row (1, 1)" + rule
    assert message_of(ValueError, logitlab.sample, z[1]) == "row 1" + rule
    assert message_of(ValueError, logitlab.sample, z[1, 1]) == "z" + rule
    z[1, 1, :] = 0
    rule = "n must be <= 1 without replacement, got 3: {} has 1 categories"
    for part, name in ((z, "row (1, 2)"), (z[1], "row 2"), (z[1, 2], "z")):
        text = message_of(ValueError, logitlab.sample, part, 3, replacement=False)
        assert text == rule.format(name)
    assert logitlab.sample(z, 1, replacement=False).shape == (2, 3, 1)


def test_messages_about_traced_arrays():
    """The argument without values is named."""
    z = np.zeros((2, 3), np.float32)
    rule = " must have values, which this function reads, got a traced or meta "
    sample = logitlab.sample_with_log_prob
    for name, function, x in (
        ("z", sample, z),
        ("temperature", lambda t: sample(jax.numpy.asarray(z), temperature=t), z[:, 0]),
        ("where", lambda w: sample(jax.numpy.asarray(z), where=w), z == 0),
        ("row_keys", lambda k: sample(z, row_keys=k), np.arange(2)),
    ):
        assert message_of(TypeError, jax.jit(function), x).startswith(name + rule)


def test_limits_that_are_allowed():
    """Both ends of every range, and orders as a tuple or a list."""
    z = SPREAD
    for options in ({"top_p": 1}, {"min_p": 0}, {"top_k": 4}):
        np.testing.assert_array_equal(logitlab.truncate(z, **options), z)
    largest = np.where(z == z.max(axis=1, keepdims=True), z, -inf)
    np.testing.assert_array_equal(logitlab.truncate(z, min_p=1), largest)
    np.testing.assert_array_equal(logitlab.truncate(z, top_k=1), largest)
    assert logitlab.sample(z, rng=0).shape == (3,)
    order = ("top_p", "top_k", "temperature", "min_p")
    for given_order in (order, list(order)):
        kept = logitlab.truncate([0.0, 0.0, 0.0, 0.0], top_p=0.5, top_k=1, order=given_order)
        assert kept.tolist() == [0, 0, -inf, -inf]


def test_row_keys_are_those_of_the_flat_batch():
    """By default the flat index; keys of a batch of two axes, of any memory layout."""
    z = np.zeros((2, 3, 100))
    expected = logitlab.sample(z, 2, rng=0)
    for keys in ([[0, 1, 2], [3, 4, 5]], np.asfortranarray(np.arange(6).reshape(2, 3))):
        np.testing.assert_array_equal(logitlab.sample(z, 2, rng=0, row_keys=keys), expected)
    text = message_of(ValueError, logitlab.sample, z, row_keys=[[0, 1, 2], [3, -4, 5]])
    assert text == "row_keys must be from 0 to 2**64 - 1, got -4 in row 4"
    one = logitlab.sample(z[0, 0], 2, rng=0, row_keys=4)
    np.testing.assert_array_equal(one, expected[1, 1])
    assert logitlab.sample(np.zeros((0, 3)), row_keys=np.zeros(0, int)).shape == (0,)


def test_the_key_of_a_torch_generator():
    """The two halves of a 64-bit integer of the generator, which advances by one integer."""
    z, keys = arrays.normal((3, 1000), np.float64), np.array([3, 0, 2**40], np.uint64)
    limits = -(2**63), 2**63 - 1
    for seed in range(5):
        ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
        for _ in range(2):
            word = int(torch.empty((), dtype=torch.int64).random_(*limits, generator=theirs))
            key = word % 2**32, word // 2**32 % 2**32
            expected = reference_sampling.sample(z, 1.0, None, NO_CUT, 4, True, key, keys)
            samples = logitlab.sample(z, 4, rng=ours, row_keys=keys)
            np.testing.assert_array_equal(samples, expected)


DEVICES = """
import jax, logitlab
z = jax.device_put(jax.numpy.zeros((2, 3)), jax.devices()[1])
results = logitlab.truncate(z, top_k=2), logitlab.sample(z, rng=0)
print(*(x.device == z.device for x in results))
"""


def test_results_are_on_the_device_of_the_logits():
    """In a process of its own, where JAX has two devices: it takes seconds to import."""
    code = run_code(DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert code == ["True", "True"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("temperature", [0.0, 0.7, -1.0])
def test_common_calls_are_those_with_options(dtype, axis, temperature):
    """One sample of each row without options has a function of its own."""
    z = np.random.default_rng(0).normal(0, 3, (5, 4, 7)).astype(dtype)
    z[0, 0, 0] = -np.inf
    options = {"axis": axis, "temperature": temperature}
    several = logitlab.sample(z, 1, rng=np.random.default_rng(8), **options)[..., 0]
    one = logitlab.sample(z, rng=np.random.default_rng(8), **options)
    assert one.dtype == np.int64
    np.testing.assert_array_equal(one, several)
    assert logitlab.sample(z[0, 0], rng=3).shape == ()


def test_generators_advance_by_64_bits():
    """A call takes the number that `integers` gives, of every generator of NumPy."""
    z = np.zeros((2, 50))
    for name in ("PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937"):
        generator, other = (np.random.Generator(getattr(np.random, name)(5)) for _ in range(2))
        for rng in (generator, other):
            rng.integers(0, 9, dtype=np.int32)  # half of a word stays in store
        word = int(other.integers(0, 2**64, dtype=np.uint64))
        key = word & 0xFFFFFFFF, word >> 32
        expected = native_sampling.plain_sample(z, 1, 1.0, [], lambda rng: rng, key, None)
        if expected is not None:
            np.testing.assert_array_equal(logitlab.sample(z, rng=generator), expected)
        assert generator.random() == other.random()


@pytest.mark.parametrize("settings", [{}, {"top_k": 3, "min_p": 0.01}, {"order": "vllm"}])
@pytest.mark.parametrize("shape", [(6,), (2, 6), (3, 2, 6)])
def test_one_sample_is_the_first_of_many(settings, shape):
    """Along a new last axis if n is 1, without an axis if it is None; of lists as well."""
    z = np.random.default_rng(0).normal(0, 2, shape)
    two = logitlab.sample(z, 2, rng=5, temperature=2.0, **settings)
    for logits in (z, z.tolist()):
        for n, expected in ((1, two[..., :1]), (None, two[..., 0])):
            found = logitlab.sample(logits, n, rng=5, temperature=2.0, **settings)
            assert np.shape(found) == expected.shape
            np.testing.assert_array_equal(found, expected, strict=True)


def test_a_call_draws_one_key():
    """Calls that mean the same take the same random numbers, in every form of the arguments."""
    z = np.random.default_rng(0).normal(0, 2, (6, 5))
    calls = [
        lambda rng: logitlab.sample(z, rng=rng, temperature=2.0),
        lambda rng: logitlab.sample(z, rng=rng, temperature=2),
        lambda rng: logitlab.sample(z.tolist(), rng=rng, temperature=2.0),
        lambda rng: logitlab.sample(z.astype(">f8"), rng=rng, temperature=2.0),
        lambda rng: logitlab.sample(z.T, axis=0, rng=rng, temperature=2.0),
        lambda rng: logitlab.sample(z, 1, rng=rng, temperature=2.0)[:, 0],
    ]
    generators = [np.random.default_rng(3) for _ in calls]
    results = [np.asarray(call(rng)) for call, rng in zip(calls, generators, strict=True)]
    for result in results:
        np.testing.assert_array_equal(result, results[0])
    assert len({rng.random() for rng in generators}) == 1
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="axis"):
        logitlab.sample(z, rng=rng, axis=7)
    assert rng.random() == np.random.default_rng(3).random()
