"""The random numbers of samples: keys of the generator and of rows, and decisions of XTC."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._backends.reference_sampling import Words, philox, uniforms

Key = tuple[int, int]
_LARGEST_KEY = 2**64 - 1
# Those whose raw numbers have 64 bits.
_WORD_GENERATORS = (
    np.random.PCG64,
    np.random.PCG64DXSM,
    np.random.Philox,
    np.random.SFC64,
)
# xor-ed into the key, so that the streams of random numbers differ.
_NO_REPLACEMENT = 0x5851F42D
_XTC = 0x14057B7E


def check_rng(rng: Any) -> Any:
    """A seed as an int; None or a generator unchanged."""
    is_seed = hasattr(rng, "__index__") and np.ndim(rng) == 0 and not _checks.is_boolean(rng)
    rng = _checks.integer(rng, "rng") if is_seed else rng
    is_torch = type(rng).__module__.partition(".")[0] == "torch" and hasattr(rng, "initial_seed")
    if rng is None or is_torch or isinstance(rng, np.random.Generator) or (is_seed and rng >= 0):
        return rng
    raise (ValueError if is_seed else TypeError)(
        f"rng must be None, an int >= 0, a numpy.random.Generator or a torch.Generator, got {rng!r}"
    )


def generator_key(rng: Any) -> Key:
    """The two 32-bit words of the key of the counter-based generator."""
    if isinstance(rng, np.random.Generator):
        word = _random_word(rng)
    elif (rng := check_rng(rng)) is None or isinstance(rng, int):
        a, b = np.random.SeedSequence(rng).generate_state(2)
        return int(a), int(b)
    else:
        import torch

        shape = (1,)
        low, high = -(2**63), 2**63 - 1
        word = int(torch.randint(low, high, shape, generator=rng, device=rng.device)[0])
    return word & 0xFFFFFFFF, word >> 32 & 0xFFFFFFFF


def _random_word(rng: np.random.Generator) -> int:
    """The next 64 random bits of a generator."""
    if type(rng.bit_generator) in _WORD_GENERATORS:
        return int(rng.bit_generator.random_raw())  # the same number, and faster
    return int(rng.integers(0, 2**64, dtype=np.uint64))


def check_row_keys(row_keys: Any, batch: tuple[int, ...]) -> Words:
    """One 64-bit key for each row: by default its flat index."""
    if row_keys is None:
        return np.arange(int(np.prod(batch)), dtype=np.uint64)
    keys = _arrays.on_host(_arrays.as_array(row_keys, "row_keys"), "row_keys")
    dtype = keys.dtype
    if dtype.kind == "f" and isinstance(row_keys, list | tuple):
        # So NumPy converts a list with integers above 2^63.
        keys = np.array(row_keys, object)
    integral = keys.dtype.kind in "iu" or all(type(key) is int for key in keys.flat)
    if not integral:
        raise TypeError(f"row_keys must be an integer array, got {dtype}")
    if tuple(keys.shape) != batch:
        raise ValueError(f"row_keys must have the batch shape {batch} of z, got shape {keys.shape}")
    keys = keys.reshape(-1)
    if keys.dtype.kind != "u" and (outside := (keys < 0) | (keys > _LARGEST_KEY)).any():
        row = int(outside.argmax())
        raise ValueError(f"row_keys must be from 0 to 2**64 - 1, got {keys[row]} in row {row}")
    return np.ascontiguousarray(keys.astype(np.uint64))


def without_replacement(key: Key) -> Key:
    """The key of samples without replacement."""
    return key[0] ^ _NO_REPLACEMENT, key[1]


def xtc_decisions(probability: Any, key: Key, row_keys: Words, n: int) -> NDArray[np.bool_]:
    """Whether XTC is applied, for n samples of each row: shape (rows, n)."""
    u = uniforms(philox((key[0] ^ _XTC, key[1]), row_keys[:, None], np.arange(n, dtype=np.uint64)))
    return np.asarray(u <= np.reshape(probability, (-1, 1)))
