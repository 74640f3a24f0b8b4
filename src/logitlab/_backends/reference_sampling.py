"""Truncation and draws in NumPy: the oracle of the kernels, and what stands in for them.

Every function takes rows: z of shape (R, K), T a float or one for each row.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._backends.reference import _weights, _widen

_BLOCK = 1 << 18  # entries worked on at a time
STAGES = ("temperature", "top_k", "top_p", "min_p")
Words = NDArray[np.uint64]


class Cut(NamedTuple):
    """A checked truncation: None where a stage does nothing."""

    order: tuple[str, ...]  # of STAGES
    top_k: int | None
    top_p: float | None
    min_p: float | None

    def filters(self) -> list[str]:
        return [s for s in self.order if s != "temperature" and getattr(self, s) is not None]


def philox(key: tuple[int, int], low: Words, high: Words) -> Words:
    """The first 64 bits of Philox4x32-10 at counters of two 64-bit halves.

    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as
    1, 2, 3", SC11 (2011).
    """
    words = philox_words(key, low, high)
    return words[0] | words[1] << np.uint64(32)


def philox_words(key: tuple[int, int], low: Words, high: Words) -> list[Words]:
    """The four 32-bit words of every block."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    low, high = np.broadcast_arrays(np.asarray(low, np.uint64), np.asarray(high, np.uint64))
    x = [low & mask, low >> half, high & mask, high >> half]
    k = [int(key[0]), int(key[1])]
    for _ in range(10):
        a, b = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [
            (b >> half) ^ x[1] ^ np.uint64(k[0]),
            b & mask,
            (a >> half) ^ x[3] ^ np.uint64(k[1]),
            a & mask,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


def uniforms(words: Words) -> NDArray[np.float64]:
    """(w + 1/2) / 2^64, rounded once: above 0, at most 1."""
    high = (words >> np.uint64(32)).astype(np.float64) * 2.0**-32
    low = ((words & np.uint64(0xFFFFFFFF)).astype(np.float64) + 0.5) * 2.0**-64
    return high + low


@np.errstate(all="ignore")
def keep(z: Any, temperature: Any, where: Any, cut: Cut) -> NDArray[np.bool_]:
    """The entries that the truncation leaves; a row without a distribution stays as it is."""
    x = _widen(z, np)
    left = np.ones(z.shape, bool) if where is None else np.broadcast_to(where, z.shape)
    if not x.size:
        return np.array(left)
    t: Any = np.ones((1, 1))
    for stage in cut.order:
        if stage == "temperature":
            t = np.reshape(temperature, (-1, 1)).astype(np.float64)
        elif getattr(cut, stage) is not None:
            v = _weights(x, (1,), t, left, np)
            rank = np.where(left & (z != -np.inf), v.sign * x, -np.inf)
            kept = _STAGES[stage](rank, v.e, getattr(cut, stage))
            left = left & (kept | v.undefined)
    return np.array(left)


def _top_k(rank: Any, e: Any, k: int) -> Any:
    if k >= rank.shape[1]:
        return rank > -np.inf
    kth = -np.partition(-rank, k - 1, axis=1)[:, k - 1 : k]
    return (rank >= kth) & (rank > -np.inf)


def _top_p(rank: Any, e: Any, p: float) -> Any:
    order = np.argsort(-rank, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(e, order, 1), axis=1)
    before = np.concatenate([np.zeros_like(mass[:, :1]), mass[:, :-1]], axis=1)
    kept = np.empty(rank.shape, bool)
    np.put_along_axis(kept, order, before < p * mass[:, -1:], 1)
    return kept & (rank > -np.inf)


def _min_p(rank: Any, e: Any, least: float) -> Any:
    return (e >= least) & (rank > -np.inf)


_STAGES = {"top_k": _top_k, "top_p": _top_p, "min_p": _min_p}


def sample(
    z: Any,
    temperature: Any,
    where: Any,
    cut: Cut,
    n: int,
    replacement: bool,
    key: tuple[int, int],
    row_keys: Words,
) -> NDArray[np.int64]:
    """Indices of shape (R, n); -1 where a row has nothing to draw, or nothing more."""
    found = np.full((z.shape[0], n), -1, np.int64)
    if not z.size:
        return found
    size = max(1, _BLOCK // z.shape[1])
    for i in range(0, len(z), size):
        part = slice(i, i + size)
        t = temperature if isinstance(temperature, float) else temperature[part]
        mask = None if where is None else where[part]
        block = z[part], t, mask, cut
        if replacement:
            _sample_block(found[part], *block, key, row_keys[part])
        else:
            _sample_distinct(found[part], *block, key, row_keys[part])
    return found


def _log_weights(z: Any, temperature: Any, where: Any, cut: Cut) -> tuple[Any, Any]:
    """(z - m)/T, -inf where nothing is to be drawn, and its exponential."""
    if cut.filters():
        where = keep(z, temperature, where, cut)
    t = np.reshape(temperature, (-1, 1)).astype(np.float64)
    v = _weights(_widen(z, np), (1,), t, where, np)
    left = v.share & ~v.undefined
    return np.where(left, v.t, -np.inf), np.where(left, v.e, 0.0)


@np.errstate(all="ignore")
def _sample_block(
    found: NDArray[np.int64],
    z: Any,
    t: Any,
    where: Any,
    cut: Cut,
    key: tuple[int, int],
    keys: Words,
) -> None:
    e = _log_weights(z, t, where, cut)[1]
    u = uniforms(philox(key, keys[:, None], np.arange(found.shape[1], dtype=np.uint64)))
    for row, cumulative in enumerate(np.cumsum(e, axis=1)):
        total = cumulative[-1]
        if total > 0:
            places = np.searchsorted(cumulative, u[row] * total, side="right")
            # Where the product was rounded up to the total: the last weight above 0.
            found[row] = np.minimum(places, np.searchsorted(cumulative, total))


@np.errstate(all="ignore")
def _sample_distinct(
    found: NDArray[np.int64],
    z: Any,
    t: Any,
    where: Any,
    cut: Cut,
    key: tuple[int, int],
    keys: Words,
) -> None:
    log_e, _ = _log_weights(z, t, where, cut)
    # Keys (z - m)/T + G, G Gumbel: -log of an exponential -log(1 - v), v a uniform.
    u = uniforms(philox(key, keys[:, None], np.arange(z.shape[1], dtype=np.uint64)))
    gumbel = -np.log(-np.log1p(-np.minimum(u, 1 - 2.0**-53)))
    score = log_e + gumbel
    order = np.argsort(-score, axis=1, kind="stable")[:, : found.shape[1]]
    drawn = np.take_along_axis(score, order, 1) > -np.inf
    found[:, : order.shape[1]] = np.where(drawn, order, -1)
