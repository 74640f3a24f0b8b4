"""The kernel of penalties has the bits of the formulas, for any list, setting, type and library."""

import numpy as np
import pytest

import arrays
import logitlab
from arrays import inf, nan
from logitlab._backends import native

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)

K = 60
N = 6


def hostile_logits(dtype, seed):
    """Numbers of every size, halfway cases of half types among them, and special values."""
    rng = np.random.default_rng(seed)
    info = arrays.finfo(dtype)
    z = rng.normal(0, 3, (N, K)) * 2.0 ** rng.integers(-30, 14, (N, K))
    special = [inf, -inf, nan, 0.0, -0.0, *np.array([1, -1, 0.5]) * float(info.max)]
    special += [float(info.tiny), -float(info.tiny), 65504.0, -65504.0, 1.0, -2.0]
    at = rng.random((N, K)) < 0.5
    z[at] = rng.choice(special, at.sum())
    with np.errstate(over="ignore"):
        return z.astype(dtype)


def random_lists(rng, length):
    """A list for each row: empty ones, None and repeated tokens among them."""
    lists = [rng.integers(0, rng.choice([2, K]), rng.integers(0, length)) for _ in range(N)]
    lists[1] = np.empty(0, np.int64)
    return [None if i == 2 and rng.random() < 0.5 else x for i, x in enumerate(lists)]


def as_csr(lists):
    lists = [np.empty(0, np.int64) if x is None else x for x in lists]
    return np.concatenate(lists), np.cumsum([0] + [len(x) for x in lists])


def as_padded(lists):
    z = np.full((N, 100), -1)
    for line, x in zip(z, lists, strict=True):
        if x is not None:
            line[20 : 20 + len(x)] = x
    return z


FORMS = [lambda x: x, as_csr, as_padded, lambda x: np.asfortranarray(as_padded(x))]


def random_options(rng):
    def each(*values):
        return rng.choice(values, N) if rng.random() < 0.5 else rng.choice(values)

    options = {
        "tokens": FORMS[rng.integers(4)](random_lists(rng, 60)),
        "prompt": FORMS[rng.integers(4)](random_lists(rng, 60)) if rng.random() < 0.7 else None,
        "repetition_penalty": each(1.0, 1.1, 0.7, 3.0, 1e-300, 1e300),
        "frequency_penalty": each(0.0, 0.013, -0.4, 1e308, -1e308),
        "presence_penalty": each(0.0, 0.1, -0.7, -1e308),
        "dry_multiplier": each(0.0, 0.0, 0.8, 1e300),
        "dry_base": each(1.0, 1.75),
        "dry_allowed_length": each(1, 2),
        "dry_sequence_breakers": [[], [1], [[0, 1], 3]][rng.integers(3)],
        "no_repeat_ngram_size": each(2, 3, 10**6) if rng.random() < 0.5 else None,
    }
    # The last ones: beyond the midpoint of two half numbers, by less than float32 has digits for.
    biases = [0.0, -0.0, inf, -inf, 0.3, -1e308, 1e308]
    biases += [m + 2.0**-60 for m in (2.0**-11, -(2.0**-12), 2.0**-25, 2.0**-8, -(2.0**-9))]
    if rng.random() < 0.6:
        maps = [
            {int(token): float(rng.choice(biases)) for token in rng.integers(0, K, 8)}
            for _ in range(N)
        ]
        options["logit_bias"] = maps if rng.random() < 0.7 else maps[0]
    elif rng.random() < 0.7:
        bias = rng.choice([*biases, 0.7, 2.0], (N, K) if rng.random() < 0.5 else K)
        with np.errstate(over="ignore"):
            bias = bias.astype(arrays.FLOATS[rng.integers(4)])
        options["logit_bias"] = np.asfortranarray(bias) if rng.random() < 0.5 else bias
    return options


def bits(x):
    """The bits of an array, with one kind of NaN."""
    x = np.where(np.isnan(arrays.floats(x)), nan, arrays.floats(x)).astype(np.float64)
    return x.view(np.int64)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
def test_bits_of_the_formulas(dtype, library, threads, monkeypatch):
    before = logitlab.get_num_threads()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z = hostile_logits(dtype, seed)
        if library == "torch":
            z = arrays.tensor(z)
        if seed % 3 == 0:
            z = z[:, ::2].T.copy().T if library == "numpy" else z.T.contiguous().T
            z = np.repeat(z, 2, 1) if library == "numpy" else z
        options = random_options(rng)
        bias = options.get("logit_bias")
        if library == "torch" and isinstance(bias, np.ndarray):
            options["logit_bias"] = arrays.tensor(bias)
        try:
            logitlab.set_num_threads(threads)
            found = logitlab.penalize(z, **options)
        finally:
            logitlab.set_num_threads(before)
        with monkeypatch.context() as without:
            without.setattr(native, "_native", None)
            expected = logitlab.penalize(z, **options)
        assert found.dtype == z.dtype
        np.testing.assert_array_equal(bits(found), bits(expected), err_msg=str(options))


def test_lists_that_are_not_contiguous():
    """One token for every row, and tokens and offsets that are views of larger arrays."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4, 20)).astype(np.float32)
    tokens, offsets = np.arange(24).reshape(12, 2) % 20, np.array([[0, 3, 3, 7, 12]] * 2).T
    assert not tokens[:, 0].flags.c_contiguous
    views = tokens[:, 0], offsets[:, 0]
    copies = tuple(x.copy() for x in views)
    for settings in (
        {"logit_bias": {7: 2.0}},
        {"repetition_penalty": 1.3, "logit_bias": {7: 2.0}},
        {"banned_token_ids": 3, "frequency_penalty": 0.5},
        {"no_repeat_ngram_size": 1},
        {"dry_multiplier": 0.8, "presence_penalty": np.array([1.0, 2, 3, 4, 5, 6, 7, 8])[::2]},
    ):
        expected = logitlab.penalize(z, copies, **settings)
        np.testing.assert_array_equal(logitlab.penalize(z, views, **settings), expected)
    one = logitlab.penalize(z, logit_bias={7: 2.0})
    np.testing.assert_array_equal(one[:, 7], z[:, 7] + np.float32(2))
    np.testing.assert_array_equal(np.delete(one, 7, 1), np.delete(z, 7, 1))
