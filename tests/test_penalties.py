"""penalize: loops over tokens, published values, transformers, forms of histories."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import arrays
import logitlab
from arrays import inf, nan
from logitlab import penalize

K = 7


def dry_length(history, j, breakers):
    """The length of the repetition that history[j] continued."""
    end = len(history)
    after = [p + len(b) for b in breakers for p in range(end) if history[p : p + len(b)] == b]
    limit = min(j, end - max(after, default=0))
    return max(n for n in range(limit + 1) if history[j - n : j] == history[end - n :])


def penalized_row(row, prompt, tokens, bias, mask, s):
    """The definitions, token by token."""
    history = prompt + tokens
    w = [float(z) + b for z, b in zip(row, bias, strict=True)]
    for v in range(len(w)):
        if v in history:
            r = s["repetition_penalty"]
            w[v] = w[v] / r if w[v] > 0 else w[v] * r
        w[v] -= tokens.count(v) * s["frequency_penalty"] + (v in tokens) * s["presence_penalty"]
        breakers = s["dry_sequence_breakers"]
        lengths = [dry_length(history, j, breakers) for j in range(len(history)) if history[j] == v]
        if lengths and [v] not in breakers and max(lengths) >= s["dry_allowed_length"]:
            excess = max(lengths) - s["dry_allowed_length"]
            w[v] -= s["dry_multiplier"] * s["dry_base"] ** excess
        n = s["no_repeat_ngram_size"]
        grams = [history[i : i + n] for i in range(len(history) - n + 1)]
        end = history[len(history) - n + 1 :] if len(history) >= n - 1 else None
        if not mask[v] or (end is not None and [*end, v] in grams):
            w[v] = -inf
    return w


def csr(lists):
    return np.concatenate([*lists, []]).astype(int), np.cumsum([0] + [len(x) for x in lists])


def padded(lists):
    width = max(map(len, lists)) + 1
    return np.array([x[:1] + [-1] * (width - len(x)) + x[1:] for x in lists])


FORMS = [
    lambda x: x,
    csr,
    padded,
    lambda x: torch.tensor(padded(x)),
    lambda x: [np.array(row, np.int32) if row else None for row in x],
]
lists_of_tokens = st.lists(st.integers(0, 3), max_size=14)


@st.composite
def cases(draw):
    n = draw(st.integers(1, 3))
    rows = {
        "repetition_penalty": st.sampled_from([0.5, 1.0, 1.3]),
        "frequency_penalty": st.sampled_from([-0.5, 0.0, 0.7]),
        "presence_penalty": st.sampled_from([0.0, 0.25]),
        "dry_multiplier": st.sampled_from([0.0, 0.8]),
        "dry_base": st.sampled_from([1.0, 1.75]),
        "dry_allowed_length": st.integers(1, 3),
        "no_repeat_ngram_size": st.sampled_from([1, 2, 3, 10**6]),
    }
    each = {name: [draw(values) for _ in range(n)] for name, values in rows.items()}
    return {
        "prompt": [draw(lists_of_tokens) for _ in range(n)],
        "tokens": [draw(lists_of_tokens) for _ in range(n)],
        "bias": [draw(st.dictionaries(st.integers(0, K - 1), st.floats(-2, 2))) for _ in range(n)],
        "banned": [draw(st.lists(st.integers(0, 5), max_size=3)) for _ in range(n)],
        "breakers": draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=2), max_size=2)),
        "each": each,
        "form": draw(st.sampled_from(FORMS)),
        "seed": draw(st.integers(0, 99)),
    }


@given(case=cases())
@settings(deadline=None, max_examples=300)
def test_against_loops(case):
    """All settings at once, one for each row, and every form of histories."""
    n, form, each = len(case["tokens"]), case["form"], case["each"]
    z = np.random.default_rng(case["seed"]).normal(0, 2, (n, K))
    expected = []
    for i in range(n):
        bias = [case["bias"][i].get(v, 0.0) for v in range(K)]
        mask = [v not in case["banned"][i] for v in range(K)]
        of_row = {name: values[i] for name, values in each.items()}
        of_row["dry_sequence_breakers"] = case["breakers"]
        expected.append(
            penalized_row(z[i], case["prompt"][i], case["tokens"][i], bias, mask, of_row)
        )
    options = each | {
        "prompt": form(case["prompt"]),
        "logit_bias": case["bias"],
        "dry_sequence_breakers": [b[0] if len(b) == 1 else b for b in case["breakers"]],
        "banned_token_ids": form(case["banned"]),
    }
    result = penalize(z, form(case["tokens"]), **options)
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-13)
    dense = np.array([[m.get(v, 0.0) for v in range(K)] for m in case["bias"]])
    tensor = penalize(torch.from_numpy(z), form(case["tokens"]), **options | {"logit_bias": dense})
    np.testing.assert_allclose(tensor, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("history", "options", "expected"),
    [
        ([0], {"frequency_penalty": 5, "presence_penalty": 5}, [0.000011] + [0.249997] * 4),
        (
            [0, 1, 2, 0, 0],
            {"frequency_penalty": 5, "presence_penalty": 5},
            [0, 0.000023, 0.000023, 0.499977, 0.499977],
        ),
        ([0, 1], {"dry_multiplier": 1, "dry_base": 1.1}, [0.2] * 5),
        (
            [0, 1, 2, 0, 1],
            {"dry_multiplier": 2, "dry_base": 1.1},
            [0.241818, 0.241818, 0.032727, 0.241818, 0.241818],
        ),
        (
            [0, 1, 3, 4, 0, 1],
            {"dry_multiplier": 1, "dry_base": 1.1, "dry_sequence_breakers": [3]},
            [0.2] * 5,
        ),
        (
            [0, 1, 2, 3, 4, 0, 1],
            {"dry_multiplier": 1, "dry_base": 1.1, "dry_allowed_length": 4},
            [0.2] * 5,
        ),
    ],
)
def test_published_values_of_llama_cpp(history, options, expected):
    """Equal probabilities before; those after, from llama.cpp's test-sampling.cpp."""
    p = logitlab.softmax(penalize(np.log(np.full(5, 0.2)), history, **options))
    np.testing.assert_allclose(p, expected, atol=2e-6)


def test_dry_of_long_repetitions():
    """The power is limited to float32's largest number; the logits stay finite."""
    history = [[1] * 5000, [1, 2] * 2500]
    z = np.zeros((2, 4))
    result = penalize(z, history, dry_multiplier=[1.0, 2.0], dry_base=[2.0, 1.0])
    np.testing.assert_array_equal(result, [[0, -(2.0**127), 0, 0], [0, -2, 0, 0]])
    assert penalize(z.astype(np.float16), history, dry_multiplier=1.0)[0, 1] == -65504


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_transformers(dtype):
    """Its processors, on random histories and settings."""
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    for _ in range(60):
        k, length = int(rng.integers(5, 60)), int(rng.integers(4, 40))
        z = torch.from_numpy(rng.normal(0, 3, (3, k))).to(dtype)
        ids = torch.from_numpy(rng.integers(0, max(3, k // 8), (3, length)))
        r, n = float(rng.uniform(0.5, 2)), int(rng.integers(1, 5))
        bias = {int(v): float(rng.normal()) for v in rng.integers(0, k, 3)}
        expected = transformers.SequenceBiasLogitsProcessor({(v,): b for v, b in bias.items()})(
            ids, z
        )
        expected = transformers.RepetitionPenaltyLogitsProcessor(r)(ids, expected)
        expected = transformers.NoRepeatNGramLogitsProcessor(n)(ids, expected)
        cut, at_least = int(rng.integers(0, length)), int(rng.integers(0, 20))
        expected = transformers.MinNewTokensLengthLogitsProcessor(cut, at_least, [k - 1])(
            ids, expected
        )
        expected = transformers.generation.SuppressTokensLogitsProcessor([k - 2])(ids, expected)
        result = penalize(
            z,
            ids[:, cut:],
            prompt=ids[:, :cut],
            repetition_penalty=r,
            no_repeat_ngram_size=n,
            logit_bias=bias,
            min_tokens=at_least,
            eos_token_id=k - 1,
            banned_token_ids=[k - 2],
        )
        torch.testing.assert_close(result, expected.to(dtype), rtol=3e-6, atol=3e-6)


def words_of(mask):
    """The packed form, bit by bit."""
    n, k = mask.shape
    words = np.zeros((n, -(-k // 32)), np.int64)
    for i, j in np.argwhere(mask):
        words[i, j // 32] += 1 << (j % 32)
    return words.astype(np.uint32).view(np.int32)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_bitmask(kind):
    """Token 32 i + j is bit j of entry i, from the least significant; the sign bit is token 31."""
    z = np.arange(70.0)[None]
    words = np.array([[-(2**31) + 5, 0, 2]], np.int32)
    for x in (z, torch.from_numpy(z)):
        assert np.flatnonzero(penalize(x, bitmask=kind(words))[0] > -inf).tolist() == [0, 2, 31, 65]
    assert np.flatnonzero(penalize(z[0], bitmask=kind(words[0])) > -inf).tolist() == [0, 2, 31, 65]
    rng = np.random.default_rng(0)
    for k in (1, 31, 32, 33, 500):
        mask = rng.random((4, k)) < 0.5
        mask[:, 0] = True
        z = rng.normal(size=(4, k)).astype(np.float32)
        for x in (z, torch.from_numpy(z)):
            result = penalize(x, bitmask=kind(words_of(mask)))
            np.testing.assert_array_equal(result, np.where(mask, z, -inf))
    words = words_of(mask).view(np.uint32)
    words.flags.writeable = False
    np.testing.assert_array_equal(penalize(torch.from_numpy(z), bitmask=words), result)
    np.testing.assert_array_equal(penalize(z, bitmask=words), result)


def test_token_lists_of_bans():
    """One list for every row, or one for each; None leaves a row unchanged."""
    z = np.zeros((3, 5))
    for x in (z, torch.from_numpy(z)):
        kept = np.asarray(penalize(x, allowed_token_ids=[1, 3, 3], banned_token_ids=[3]) == 0)
        assert [np.flatnonzero(row).tolist() for row in kept] == [[1]] * 3
        kept = np.asarray(
            penalize(
                x,
                [[0], [1, 1], [1, 2, 3]],
                allowed_token_ids=[[0, 4], None, [1, 2]],
                banned_token_ids=[None, [2], []],
                min_tokens=[2, 3, 3],
                eos_token_id=[1, 4],
            )
            == 0
        )
        assert [np.flatnonzero(row).tolist() for row in kept] == [[0], [0, 3], [1, 2]]
    assert penalize(z[0], [0, 1], min_tokens=3, eos_token_id=2).tolist() == [0, 0, -inf, 0, 0]


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
def test_special_values(dtype):
    """-inf stays, finite stays finite, +inf and NaN follow the formula, bans win."""
    largest = float(arrays.finfo(dtype).max)
    z = np.array([[inf, -inf, nan, 0.0, largest, -largest]], np.float64).astype(dtype)
    z = np.repeat(z, 3, axis=0)
    all_tokens = [[0, 1, 2, 3, 4, 5]] * 3
    kinds = [z, arrays.tensor(z)]
    for x in kinds:
        result = arrays.floats(
            penalize(
                x,
                all_tokens,
                repetition_penalty=[2.0, 0.5, 2.0],
                frequency_penalty=1.0,
                logit_bias=[{}, {}, {0: -inf, 1: inf, 2: -inf, 3: inf}],
            )
        )
        with np.errstate(over="ignore"):
            half = float(np.asarray(largest / 2 - 1).astype(dtype))
        expected = [
            [inf, -inf, nan, -1, half, -largest],
            [inf, -inf, nan, -1, largest, float(np.asarray(-largest / 2 - 1).astype(dtype))],
            [-inf, -inf, -inf, inf, half, -largest],
        ]
        np.testing.assert_array_equal(result, expected)
        dense = np.array([0.0, inf, 0, -inf, largest, -largest]).astype(dtype)
        of_kind = dense if x is z else arrays.tensor(dense)
        result = arrays.floats(penalize(x, logit_bias=of_kind))[0]
        np.testing.assert_array_equal(result, [inf, -inf, nan, -inf, largest, -largest])
        banned = arrays.floats(penalize(x, banned_token_ids=[0, 2]))[0]
        np.testing.assert_array_equal(banned, [-inf, -inf, -inf, 0, largest, -largest])


def test_rounded_once():
    """Half types are computed in float64."""
    z = arrays.normal((5, 40), np.float16, 3.0)
    history = np.random.default_rng(0).integers(0, 40, (5, 60))
    options = {"repetition_penalty": 1.37, "frequency_penalty": 0.013, "presence_penalty": 0.1}
    exact = penalize(z.astype(np.float64), history, **options)
    for x in (z, torch.from_numpy(z)):
        result = penalize(x, history, **options)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, exact.astype(np.float16))


def test_arrays_and_layouts():
    """The caller's array is not changed; any layout, type and library has the same result."""
    z = arrays.normal((4, 9), np.float64)
    history = [[1, 2], [3], [], [4, 4]]
    options = {"repetition_penalty": 1.5, "frequency_penalty": [1, 2, 3, 4]}
    options["bitmask"] = np.full((4, 1), 509, np.int32)
    options["logit_bias"] = np.asfortranarray(arrays.normal((4, 9), np.float64))
    before = z.copy()
    expected = penalize(z, history, **options)
    np.testing.assert_array_equal(z, before)
    for x in (np.asfortranarray(z), z.astype(">f8"), z[:, ::-1].copy()[:, ::-1], z.tolist()):
        np.testing.assert_array_equal(penalize(x, history, **options), expected)
    tensor = torch.from_numpy(z.copy()).T.contiguous().T
    np.testing.assert_array_equal(penalize(tensor, history, **options), expected)
    assert penalize(z[:0], [], repetition_penalty=2.0).shape == (0, 9)
    no_rows = {"bitmask": np.zeros((0, 1), np.int32), "allowed_token_ids": [1]}
    for x in (z[:0], torch.from_numpy(z[:0])):
        assert penalize(x, np.zeros((0, 3), int), dry_multiplier=1.0, **no_rows).shape == (0, 9)
    assert penalize(z[:, :0]).shape == (4, 0)
    assert penalize(np.arange(3), [1], presence_penalty=1).tolist() == [0.0, 0.0, 2.0]


def test_other_libraries():
    jax = pytest.importorskip("jax.numpy")
    z = arrays.normal((2, 9), np.float32)
    history = [[1, 2, 2], [3]]
    options = {"frequency_penalty": 1.0, "bitmask": np.array([[7], [-1]], np.int32)}
    expected = penalize(z, history, logit_bias=z, **options)
    options["bitmask"] = jax.asarray(options["bitmask"])
    result = penalize(jax.asarray(z), history, logit_bias=jax.asarray(z), **options)
    assert type(result) is type(jax.asarray(z))
    np.testing.assert_array_equal(result, expected)
    with pytest.raises(TypeError, match="logit_bias must be an array of the same library as z"):
        penalize(z, history, logit_bias=torch.zeros(9))


def test_gradient():
    """The derivatives of the formula, and 0 for what is banned."""
    z = torch.tensor([[2.0, -1.0, 0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    options = {"repetition_penalty": 2.0, "banned_token_ids": [3], "allowed_token_ids": [0, 1, 3]}
    result = penalize(z, [[0, 1, 0]], **options)
    result[result > -inf].sum().backward()
    assert z.grad.tolist() == [[0.5, 2.0, 0.0, 0.0]]


def test_split_batches():
    """A row has the same bits alone."""
    rng = np.random.default_rng(0)
    z, history = arrays.normal((5, 50), np.float32), rng.integers(-1, 9, (5, 40))
    options = {"repetition_penalty": 1.1, "dry_multiplier": 0.8, "no_repeat_ngram_size": 3}
    whole = penalize(z, history, **options)
    for i in range(5):
        np.testing.assert_array_equal(penalize(z[i], history[i], **options), whole[i])
