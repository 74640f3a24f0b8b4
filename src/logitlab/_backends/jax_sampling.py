"""Samples of JAX arrays in integers of 32 bits, which JAX has without x64 too.

The cumulative sums of the weights are exact sums of fixed-point numbers. So they do not depend on
the order of summation or on the number of shards, and a weight of 0 has no part of them.
"""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from logitlab._arrays import Axes, Namespace, move_axis
from logitlab._backends.jax_sharded import ShardedClasses, prepared
from logitlab._backends.reference import _temperature_array, _weights, _widen

Pair: TypeAlias = tuple[Array, Array]  # the low and the high word, uint32, of integers of 64 bits


def split(x: Array) -> Pair:
    """Integers of at most 64 bits as pairs of words."""
    if jnp.dtype(x.dtype).itemsize < 8:
        return x.astype(jnp.uint32), jnp.zeros_like(x, jnp.uint32)
    return x.astype(jnp.uint32), (x >> 32).astype(jnp.uint32)


def _add(a: Pair, b: Pair) -> Pair:
    low = a[0] + b[0]
    return low, a[1] + b[1] + (low < b[0]).astype(jnp.uint32)


def _subtract(a: Pair, b: Pair) -> Pair:
    return a[0] - b[0], a[1] - b[1] - (a[0] < b[0]).astype(jnp.uint32)


def _at_most(a: Pair, b: Pair) -> Array:
    return (a[1] < b[1]) | ((a[1] == b[1]) & (a[0] <= b[0]))


def _multiply(a: Array, b: Array) -> Pair:
    """The products of two words, from those of their halves."""
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    a_1, a_2, b_1, b_2 = a >> half, a & mask, b >> half, b & mask
    x = a_1 * b_2 + ((a_2 * b_2) >> half)
    y = a_2 * b_1 + (x & mask)
    return a * b, a_1 * b_1 + (x >> half) + (y >> half)


def _multiply_high(a: Pair, b: Pair) -> Pair:
    """a b / 2^64, rounded down."""
    zero = jnp.zeros_like(a[0])
    corner, left, right = _multiply(a[0], b[0]), _multiply(a[0], b[1]), _multiply(a[1], b[0])
    middle = _add(_add((corner[1], zero), (left[0], zero)), (right[0], zero))
    high = _add(_multiply(a[1], b[1]), (left[1], zero))
    return _add(_add(high, (right[1], zero)), (middle[1], zero))


def philox(key: Pair, low: Pair, high: Pair) -> list[Array]:
    """The four words of the Philox4x32-10 blocks, as `reference_sampling.philox_words`."""
    x = list(jnp.broadcast_arrays(*low, *high))
    k_1, k_2 = key
    for _ in range(10):
        a = _multiply(x[0], jnp.uint32(np.uint32(0xD2511F53)))
        b = _multiply(x[2], jnp.uint32(np.uint32(0xCD9E8D57)))
        x = [b[1] ^ x[1] ^ k_1, b[0], a[1] ^ x[3] ^ k_2, a[0]]
        k_1, k_2 = k_1 + np.uint32(0x9E3779B9), k_2 + np.uint32(0xBB67AE85)
    return x


class _Hash:
    """The hash function of `numpy.random.SeedSequence`, whose constant changes in every call."""

    def __init__(self, constant: int, factor: int) -> None:
        self.constant, self.factor = constant, factor

    def __call__(self, x: Array) -> Array:
        x = x ^ np.uint32(self.constant)
        self.constant = self.constant * self.factor & 0xFFFFFFFF
        x = x * np.uint32(self.constant)
        return x ^ (x >> np.uint32(16))


def key_of_seed(seed: Array) -> Pair:
    """The words that `numpy.random.SeedSequence(seed).generate_state(2)` returns.

    M. E. O'Neill, "Developing a seed_seq alternative", 2015.
    """
    low, high = split(seed)
    first = _Hash(0x43B0D7E5, 0x931E8875)
    pool = [first(word) for word in (low, high, jnp.zeros_like(low), jnp.zeros_like(low))]
    for source in range(4):
        for target in range(4):
            if source != target:
                x = np.uint32(0xCA01F9DD) * pool[target]
                x = x - np.uint32(0x4973F715) * first(pool[source])
                pool[target] = x ^ (x >> np.uint32(16))
    last = _Hash(0x8B51F9DD, 0x58F38DED)
    return last(pool[0]), last(pool[1])


def _fixed_point(e: Array, digits: int) -> Pair:
    """e 2^digits, rounded."""
    x = jnp.round(e * 2.0**digits)
    high = jnp.floor(x * 2.0**-32)
    return (x - high * 2.0**32).astype(jnp.uint32), high.astype(jnp.uint32)


def _cumulative(x: Pair) -> Pair:
    """The cumulative sums of rows.

    By doubling: XLA takes seconds to compile `associative_scan`, whose steps have different shapes.
    """
    place = jnp.arange(x[0].shape[1])

    def add_earlier(i: Array, x: Pair) -> Pair:
        at = place - (1 << i)
        word_1, word_2 = (
            jnp.where(at < 0, jnp.uint32(0), word[:, jnp.maximum(at, 0)]) for word in x
        )
        return _add(x, (word_1, word_2))

    sums: Pair = lax.fori_loop(0, place.size.bit_length(), add_earlier, x)
    return sums


def _sum_before(total: Pair, xp: ShardedClasses) -> tuple[Pair, Pair]:
    """The sums, (rows, 1), of the shards before this one, and of all."""
    shard = lax.axis_index(xp.axis_name)
    low, high = (
        lax.psum(jnp.where(jnp.arange(xp.shards) == shard, word, jnp.uint32(0)), xp.axis_name)
        for word in total
    )
    low, high = _cumulative((low, high))
    up_to_this = low[:, shard, None], high[:, shard, None]
    return _subtract(up_to_this, total), (low[:, -1:], high[:, -1:])


def _count_at_most(cumulative: Pair, target: Pair) -> Array:
    """How many of the ascending numbers of a row are <= each target, by bisection."""
    k = cumulative[0].shape[1]
    digits = k.bit_length()

    def add_digit(i: Any, count: Array) -> Array:
        next_count = count + (1 << (digits - 1 - i))
        at = jnp.minimum(next_count, k) - 1
        low, high = (jnp.take_along_axis(word, at, axis=1) for word in cumulative)
        return jnp.where((next_count <= k) & _at_most((low, high), target), next_count, count)

    # The first step is before the loop, whose variable must have the type of a value of a shard.
    count = add_digit(0, jnp.zeros_like(target[0], jnp.int32))
    return lax.fori_loop(1, digits, add_digit, count)


def sample(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    n: int,
    key: Pair,
    row_keys: Pair,
    xp: Namespace,
) -> Array:
    """Sampled indices of shape (rows, n); -1 in rows without a distribution.

    xp is jax.numpy, or the namespace of a shard of the classes.
    """
    z, t = prepared(z, temperature)
    x = _widen(z, xp)
    k, rows = z.shape[axis[0]], row_keys[0].shape[0]
    if not z.size:
        return jnp.full((rows, n), -1)
    v = _weights(x, axis, _temperature_array(t, x, xp), where, xp)
    e = jnp.where(v.weighted & ~v.undefined, v.e, 0.0)
    e = move_axis(e, axis[0], -1, xp).reshape(rows, k)
    is_sharded = isinstance(xp, ShardedClasses)
    classes = k * xp.shards if is_sharded else k
    # No weight is above 1, so the sums are below 2^63.
    cumulative = _cumulative(_fixed_point(e, 63 - classes.bit_length()))
    total = cumulative[0][:, -1:], cumulative[1][:, -1:]
    if is_sharded:
        before, total = _sum_before(total, xp)
        cumulative = _add(cumulative, before)
    keys, draws = (tuple(w[:, None] for w in row_keys), split(jnp.arange(n, dtype=jnp.uint32)))
    uniform = philox(key, keys, draws)[:2]
    target = _multiply_high((uniform[0], uniform[1]), total)
    count = _count_at_most(cumulative, target)
    index = lax.psum(count, xp.axis_name) if is_sharded else count
    has_distribution = (total[0] != 0) | (total[1] != 0)
    return jnp.where(has_distribution, index, -1).astype(jnp.result_type(int))
