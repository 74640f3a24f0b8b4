"""logitlab.sample in functions that JAX traces: the samples of the same call outside of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arrays
import logitlab
import logitlab.jax
from logitlab._backends import jax_sampling, reference_sampling

by_x64 = pytest.mark.parametrize("x64", [False, True], indirect=True)
Z = arrays.normal((5, 300), np.dtype(np.float32))


@pytest.fixture
def x64(request):
    jax.config.update("jax_enable_x64", request.param)
    yield request.param
    jax.config.update("jax_enable_x64", False)


def compiled(z, **options):
    return np.asarray(jax.jit(functools.partial(logitlab.sample, **options))(z))


OPTIONS = {
    "one": {},
    "many": {"n": 50},
    "first axis": {"n": 3, "axis": 0},
    "temperature": {"n": 3, "temperature": 0.7},
    "zero": {"temperature": 0.0},
    "negative": {"n": 3, "temperature": -0.7},
    "temperatures": {"n": 3, "temperature": np.array([0.5, 1, 2, 0, np.inf], np.float32)},
    "where": {"n": 3, "where": np.arange(300) > 250},
    "keys": {"n": 3, "row_keys": [1, 0, 2**63, 2**64 - 1, 7]},
    "without replacement": {"n": 30, "replacement": False},
    "truncated": {"n": 3, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
    "each row": {"n": 3, "top_k": [1, 2, 3, 300, 5], "top_p": [1, 0.5, 0.9, 0.9, 0.1]},
    "stages": {"n": 3, "typical_p": 0.8, "dynatemp_range": 0.3, "order": "llama.cpp"},
    "xtc": {"n": 9, "xtc_probability": 0.5, "xtc_threshold": 0.05},
}


@by_x64
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_samples_under_jit(x64, options):
    """The same on the CPU for every setting."""
    found = compiled(Z, rng=5, **options)
    np.testing.assert_array_equal(found, logitlab.sample(Z, rng=5, **options))
    assert found.dtype == (np.int64 if x64 else np.int32)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int8, jnp.float32], ids=str)
def test_types_and_shapes(dtype):
    for shape in [(4,), (0, 4), (2, 3, 4)]:
        z = jnp.asarray(arrays.normal(shape, np.dtype(np.float32))).astype(dtype)
        expected = logitlab.sample(z, 2, rng=1)
        np.testing.assert_array_equal(compiled(z, n=2, rng=1), expected)
    assert compiled(np.float32(3), rng=0) == 0
    assert compiled(np.empty((2, 0), np.float32), rng=0).tolist() == [-1, -1]


@by_x64
def test_traced_arguments(x64):
    """Seed, keys, temperature and mask; each of them alone makes the call a traced one."""
    arguments = {
        "rng": 12,
        "row_keys": np.array([4, 0, 2, 1, 3]),
        "temperature": np.float32(0.5),
        "where": np.arange(300) % 2 > 0,
    }
    expected = logitlab.sample(Z, 4, **arguments)
    call = jax.jit(lambda z, a: logitlab.sample(z, 4, **a))
    np.testing.assert_array_equal(call(Z, arguments), expected)
    for name, value in arguments.items():
        fixed = {"rng": 12, name: value}
        call = jax.jit(lambda a, name=name: logitlab.sample(Z, **{"rng": 12, name: a}))
        np.testing.assert_array_equal(call(value), logitlab.sample(Z, **fixed))
    of_sampler = jax.jit(lambda z: logitlab.Sampler(top_k=3).sample(z, rng=2))
    np.testing.assert_array_equal(of_sampler(Z), logitlab.sample(Z, rng=2, top_k=3))


@by_x64
def test_keys_of_seeds(x64):
    """Those of NumPy."""
    seeds = [0, 1, 12345, 2**31 - 1] + [2**32, 2**63 - 1, 987654321987654321] * x64
    for seed in seeds:
        found = [int(word) for word in jax.jit(jax_sampling.key_of_seed)(seed)]
        assert found == np.random.SeedSequence(seed).generate_state(2).tolist()
        np.testing.assert_array_equal(
            jax.jit(lambda s: logitlab.sample(Z, rng=s))(seed), logitlab.sample(Z, rng=seed)
        )
    seed = np.uint32(2**32 - 1)
    np.testing.assert_array_equal(
        jax.jit(lambda s: logitlab.sample(Z, rng=s))(seed), logitlab.sample(Z, rng=2**32 - 1)
    )


def test_rows_without_a_distribution():
    """-1, as they cannot be refused; so is a temperature of NaN, and a draw of no category."""
    z = Z.copy()
    z[1], z[3], z[4, 7] = -np.inf, np.inf, np.nan
    for options in ({}, {"top_k": 5}, {"replacement": False}):
        found = compiled(z, n=2, rng=0, temperature=-1.0, **options)
        assert (found == -1).all(1).tolist() == [False, True, False, True, True]
    t = np.array([1, np.nan, 1, 1, 1], np.float32)
    found = jax.jit(lambda z, t: logitlab.sample(z, rng=0, temperature=t))(Z, t)
    assert (np.asarray(found) < 0).tolist() == [False, True, False, False, False]
    parts = jnp.stack([Z[:, :150], Z[:, 150:]])
    call = functools.partial(logitlab.jax.sample, axis_name="classes", rng=0)

    @jax.jit
    def sharded(parts, t):
        return jax.vmap(lambda z: call(z, temperature=t), axis_name="classes")(parts)

    found = sharded(parts, t)
    assert (np.asarray(found) < 0).tolist() == [[False, True, False, False, False]] * 2
    found = compiled(Z[0], n=5, rng=0, replacement=False, top_k=3)
    assert (found >= 0).tolist() == [True] * 3 + [False] * 2


def test_transforms():
    """vmap makes a call for each entry; samples are constants for grad."""
    expected = [logitlab.sample(z, 2, rng=i) for i, z in enumerate(Z)]
    seeds = np.arange(5)
    for options in ({}, {"top_k": 300}):
        call = functools.partial(logitlab.sample, n=2, **options)
        mapped = jax.vmap(lambda z, s, call=call: call(z, rng=s))
        np.testing.assert_array_equal(mapped(Z, seeds), expected)
        np.testing.assert_array_equal(jax.jit(mapped)(Z, seeds), expected)
        same_logits = jax.vmap(lambda s, call=call: call(Z[0], rng=s))(seeds)
        np.testing.assert_array_equal(same_logits, [call(Z[0], rng=i) for i in range(5)])

    def score(z):
        return logitlab.log_softmax(z)[logitlab.sample(z, rng=3)]

    index = logitlab.sample(Z[0], rng=3)
    wanted = np.eye(300)[index] - logitlab.softmax(Z[0])
    for gradient in (jax.grad(score), jax.jit(jax.grad(score))):
        np.testing.assert_allclose(gradient(jnp.asarray(Z[0])), wanted, atol=1e-6)

    def step(carry, i):
        token = logitlab.sample(carry, rng=i, top_p=0.9)
        return jnp.roll(carry, 1), token

    _, tokens = jax.lax.scan(step, jnp.asarray(Z[0]), jnp.arange(4))
    expected = [logitlab.sample(np.roll(Z[0], i), rng=i, top_p=0.9) for i in range(4)]
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rng": None}, TypeError, "rng must be an int or a traced integer .*, got None"),
        ({"rng": np.random.default_rng(0)}, TypeError, r"rng must be .*, got Generator\(PCG64\)"),
        ({"rng": 1.5}, TypeError, r"rng must be .*, got 1.5"),
        ({"rng": True}, TypeError, r"rng must be .*, got True"),
        ({"rng": -1}, ValueError, "rng must be >= 0, got -1"),
        ({"rng": 0, "n": 0}, ValueError, "n must be >= 1, got 0"),
        ({"rng": 0, "axis": None}, TypeError, "axis must be an int, got None"),
        ({"rng": 0, "row_keys": [1]}, ValueError, r"row_keys must have the batch shape \(5,\)"),
        ({"rng": 0, "top_k": [1, 2]}, ValueError, "top_k must be a number or broadcast"),
        (
            {"rng": 0, "temperature": -1.0, "dynatemp_range": 0.5},
            ValueError,
            "temperature must be >= 0 if dynatemp_range > 0, got -1.0",
        ),
        (
            {"rng": 0, "temperature": np.ones(5), "dynatemp_range": 0.5},
            TypeError,
            "temperature must be a number with dynatemp_range where JAX traces the call",
        ),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        compiled(Z, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rng", np.float32(1), r"rng must be .*, got a traced float32\[\]"),
        ("rng", np.array([1, 2]), r"rng must be .*, got a traced int32\[2\]"),
        ("row_keys", np.ones(5, np.float32), "row_keys must be an integer array, got float32"),
        ("row_keys", np.ones(4, int), r"row_keys must have the batch shape \(5,\) of z"),
        ("top_k", 3, "top_k must be an int, got"),
        ("top_p", 0.5, "top_p must have values, which this function reads, got a traced"),
    ],
)
def test_wrong_traced_arguments(name, value, message):
    """The settings of a truncation are fixed when JAX traces the call."""
    with pytest.raises((TypeError, ValueError), match=message):
        jax.jit(lambda x: logitlab.sample(Z, **{"rng": 0, name: x}))(value)


def test_other_platforms_sample_on_their_device():
    """A program for the CPU calls the host; with a truncation so does every program."""

    def text(platform, **options):
        function = jax.jit(functools.partial(logitlab.sample, rng=0, **options))
        return function.trace(Z).lower(lowering_platforms=(platform,)).as_text()

    assert "callback" in text("cpu")
    assert "callback" in text("cpu", top_k=5)
    for platform in ("cuda", "tpu"):
        assert "callback" not in text(platform)


def pair(x):
    """Integers of 64 bits as two words."""
    words = x.astype(np.uint32), (x >> np.uint64(32)).astype(np.uint32)
    return tuple(map(jnp.asarray, words))


def joined(x):
    low, high = (np.asarray(word).astype(np.uint64) for word in x)
    return low | high << np.uint64(32)


def test_integers_of_two_words():
    """Compared with exact arithmetic, at the extremes too."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**64, (2, 100), dtype=np.uint64)
    a[:4], b[:4] = [0, 2**64 - 1, 2**64 - 1, 2**32], [2**64 - 1, 2**64 - 1, 1, 2**32 - 1]
    x, y = pair(a), pair(b)
    exact = [(int(i), int(j)) for i, j in zip(a, b, strict=True)]
    assert joined(jax_sampling._add(x, y)).tolist() == [(i + j) % 2**64 for i, j in exact]
    assert joined(jax_sampling._subtract(x, y)).tolist() == [(i - j) % 2**64 for i, j in exact]
    assert joined(jax_sampling._multiply_high(x, y)).tolist() == [i * j >> 64 for i, j in exact]
    assert jax_sampling._at_most(x, y).tolist() == [i <= j for i, j in exact]
    for k in (1, 2, 7, 100):
        sums = joined(jax_sampling._cumulative(tuple(word[None, :k] for word in x)))
        assert sums[0].tolist() == np.cumsum(a[:k]).tolist()
    found = jax_sampling.philox((x[0][0], x[1][0]), x, y)
    expected = reference_sampling.philox_words((int(x[0][0]), int(x[1][0])), a, b)
    np.testing.assert_array_equal(np.array(found), np.array(expected))


@pytest.mark.parametrize("k", [1, 2, 3, 8, 9, 100])
def test_bisection(k):
    sums = np.cumsum(np.random.default_rng(k).integers(0, 3, k, dtype=np.uint64))
    target = np.arange(int(sums[-1]) + 2, dtype=np.uint64)
    cumulative = tuple(word[None] for word in pair(sums))
    found = jax_sampling._count_at_most(cumulative, tuple(word[None] for word in pair(target)))
    np.testing.assert_array_equal(found[0], np.searchsorted(sums, target, side="right"))


@by_x64
@pytest.mark.parametrize("temperature", [1.0, 0.0, np.inf, -0.7])
def test_formula_of_other_platforms(x64, temperature):
    """With x64 the same samples; without, up to the rounding of the weights to float32."""
    dtype = np.dtype(np.float64 if x64 else np.float32)
    z = arrays.normal((4, 5000), dtype)
    z[1, :4990], z[2, 3], z[3, 7] = -np.inf, np.inf, np.nan
    keys = jnp.arange(4, dtype=jnp.uint32), jnp.zeros(4, jnp.uint32)
    key = tuple(map(jnp.uint32, np.random.SeedSequence(3).generate_state(2)))
    arguments = (1,), temperature, None, 2000, key, keys, jnp
    found = jax.jit(lambda z: jax_sampling.sample(z, *arguments))(z)
    expected = logitlab.sample(z[:3], 2000, rng=3, temperature=temperature)
    assert (np.asarray(found)[:3] != expected).sum() <= (0 if x64 else 2)
    assert (found[3] == -1).all()
