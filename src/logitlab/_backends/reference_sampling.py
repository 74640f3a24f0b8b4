"""Truncation and sampling in NumPy: the reference of the kernels, and used where they do not apply.

Every function takes rows: z of shape (R, K), T a float or an array of one for each row.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._backends.reference import _weights, _widen
from logitlab._backends.reference_stages import KEEP, dynamic_temperature

_BLOCK_SIZE = 1 << 18  # entries processed at a time
STAGES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon",
    "eta",
    "top_n_sigma",
    "top_a",
    "xtc",
)
Words = NDArray[np.uint64]


class Stage(NamedTuple):
    """A stage in use and its parameters: each a float, or an array with one for each row.

    temperature: none, or the range and the exponent of the dynamic temperature; xtc: its threshold,
    inf where it is not applied; any other stage: its one parameter.
    """

    name: str  # of STAGES
    values: tuple[Any, ...]


def truncates(stages: list[Stage]) -> bool:
    """Whether some stage removes entries or changes the temperature."""
    return any(stage.name != "temperature" or stage.values for stage in stages)


def is_dynamic(stages: list[Stage]) -> bool:
    """Whether the temperature of a row depends on its entropy."""
    return any(stage.name == "temperature" and stage.values for stage in stages)


def stages_of_rows(stages: list[Stage], rows: Any) -> list[Stage]:
    """The stages of some rows."""

    def part(x: Any) -> Any:
        return x[rows] if isinstance(x, np.ndarray) and x.ndim else x

    return [Stage(stage.name, tuple(map(part, stage.values))) for stage in stages]


def philox(key: tuple[int, int], low: Words, high: Words) -> Words:
    """The first 64 bits of the Philox4x32-10 blocks of 128-bit counters, given in halves.

    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as
    1, 2, 3", SC11 (2011).
    """
    words = philox_words(key, low, high)
    return words[0] | words[1] << np.uint64(32)


def philox_words(key: tuple[int, int], low: Words, high: Words) -> list[Words]:
    """The four 32-bit words of the Philox4x32-10 blocks."""
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
    """Uniform numbers (w + 1/2) / 2^64, rounded once: in (0, 1]."""
    high = (words >> np.uint64(32)).astype(np.float64) * 2.0**-32
    low = ((words & np.uint64(0xFFFFFFFF)).astype(np.float64) + 0.5) * 2.0**-64
    return high + low


@np.errstate(all="ignore")
def keep(
    z: Any, temperature: Any, where: Any, stages: list[Stage]
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Mask of the entries that the truncation keeps: all those of a row without a distribution.

    Also the temperature of each row, if it is dynamic.
    """
    x = _widen(z, np)
    included = np.ones(z.shape, bool) if where is None else np.broadcast_to(where, z.shape)
    if not x.size:
        return np.array(included), np.full(len(z), temperature) if is_dynamic(stages) else None
    t: Any = np.ones((1, 1))
    for stage in stages:
        values = [np.reshape(value, (-1, 1)) for value in stage.values]
        if stage.name == "temperature":
            if values:
                v = _weights(x, (1,), np.ones((1, 1)), included, np)
                temperature = dynamic_temperature(v, np.reshape(temperature, (-1, 1)), *values)
            t = np.reshape(temperature, (-1, 1)).astype(np.float64)
        else:
            v = _weights(x, (1,), t, included, np)
            w = np.where(included & (z != -np.inf), v.sign * x, -np.inf)
            included = included & (KEEP[stage.name](w, v, *values) | v.undefined)
    rows = np.reshape(temperature, -1) if is_dynamic(stages) else None
    return np.array(included), rows


def sample(
    z: Any,
    temperature: Any,
    where: Any,
    stages: list[Stage],
    n: int,
    replacement: bool,
    key: tuple[int, int],
    row_keys: Words,
) -> NDArray[np.int64]:
    """Sampled indices of shape (R, n); -1 where a row has no distribution or no entry left."""
    indices = np.full((z.shape[0], n), -1, np.int64)
    if not z.size:
        return indices
    size = max(1, _BLOCK_SIZE // z.shape[1])
    for i in range(0, len(z), size):
        rows = slice(i, i + size)
        t = temperature if isinstance(temperature, float) else temperature[rows]
        mask = None if where is None else where[rows]
        block = z[rows], t, mask, stages_of_rows(stages, rows)
        if replacement:
            _sample_block(indices[rows], *block, key, row_keys[rows])
        else:
            _sample_without_replacement(indices[rows], *block, key, row_keys[rows])
    return indices


def _log_weights(z: Any, temperature: Any, where: Any, stages: list[Stage]) -> tuple[Any, Any]:
    """(z - m)/T, -inf at the entries of probability 0, and its exponential."""
    if truncates(stages):
        where, rows = keep(z, temperature, where, stages)
        temperature = temperature if rows is None else rows
    t = np.reshape(temperature, (-1, 1)).astype(np.float64)
    v = _weights(_widen(z, np), (1,), t, where, np)
    possible = v.weighted & ~v.undefined
    return np.where(possible, v.t, -np.inf), np.where(possible, v.e, 0.0)


@np.errstate(all="ignore")
def _sample_block(
    indices: NDArray[np.int64],
    z: Any,
    t: Any,
    where: Any,
    stages: list[Stage],
    key: tuple[int, int],
    keys: Words,
) -> None:
    e = _log_weights(z, t, where, stages)[1]
    u = uniforms(philox(key, keys[:, None], np.arange(indices.shape[1], dtype=np.uint64)))
    for row, cumulative in enumerate(np.cumsum(e, axis=1)):
        total = cumulative[-1]
        if total > 0:
            index = np.searchsorted(cumulative, u[row] * total, side="right")
            # If the product is rounded up to the total: the last weight above 0.
            indices[row] = np.minimum(index, np.searchsorted(cumulative, total))


@np.errstate(all="ignore")
def _sample_without_replacement(
    indices: NDArray[np.int64],
    z: Any,
    t: Any,
    where: Any,
    stages: list[Stage],
    key: tuple[int, int],
    keys: Words,
) -> None:
    log_e, _ = _log_weights(z, t, where, stages)
    # The n largest of (z - m)/T + G, where G = -log(-log(1 - v)), v uniform, is a Gumbel variable.
    u = uniforms(philox(key, keys[:, None], np.arange(z.shape[1], dtype=np.uint64)))
    gumbel = -np.log(-np.log1p(-np.minimum(u, 1 - 2.0**-53)))
    score = log_e + gumbel
    order = np.argsort(-score, axis=1, kind="stable")[:, : indices.shape[1]]
    possible = np.take_along_axis(score, order, 1) > -np.inf
    indices[:, : order.shape[1]] = np.where(possible, order, -1)
