"""Bans of tokens: lists, n-grams, a minimum length and bitmasks set logits to -inf."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab.sampling.calls import to_library_of
from logitlab.sampling.histories import Ints, Rows, TokenLists, repeats

_WORD = 32  # tokens in an entry of a bitmask
_FIRST = 1024  # tokens in which most rows have one that is not banned


def repeated_ngrams(history: TokenLists, size: NDArray[np.float64], k: int) -> Ints:
    """The flat indices of the tokens that would repeat an n-gram of the history."""
    prefix = np.minimum(size - 1, len(history.tokens) + 1).astype(np.int64)
    # A size above the length bans nothing: its rows need no comparisons.
    limit = np.where(prefix < history.lengths, prefix, 0)
    at, _ = repeats(history, prefix, limit)
    return history.rows_of(at) * k + history.tokens[at]


def check_bitmask(x: Any, rows: Rows, z: Any) -> Any:
    """A bitmask of shape (N, words) as an int32 array: of torch on the device of z, or of NumPy."""
    mask = _arrays.as_array(x, "bitmask")
    dtype = _arrays.dtype_name(mask.dtype)
    if dtype not in ("int32", "uint32"):
        raise TypeError(f"bitmask must be an int32 array, got {dtype}")
    words = -(-rows.k // _WORD)
    shapes = [(rows.n, words)] if rows.is_matrix else [(words,), (1, words)]
    if tuple(mask.shape) not in shapes:
        raise ValueError(
            f"bitmask must have the shape {shapes[0]} for {rows.k} tokens, 32 in an entry, "
            f"got {tuple(mask.shape)}"
        )
    if not isinstance(z, np.ndarray):
        import torch

        if not isinstance(mask, torch.Tensor):
            mask = torch.tensor(np.ascontiguousarray(mask).view(np.int32))
        return mask.to(z.device).view(torch.int32).reshape(rows.n, words)
    return np.ascontiguousarray(_arrays.on_host(mask, "bitmask"), "<u4").reshape(rows.n, words)


def allow(out: Any, allowed: TokenLists, k: int) -> None:
    """Ban every token that is not in its row's list; rows without a list are unchanged."""
    flat = out.reshape(-1)
    # Derivatives of torch pass once through each entry.
    index = allowed.flat(k) if isinstance(out, np.ndarray) else np.unique(allowed.flat(k))
    index = to_library_of(out, index)
    kept = flat[index]
    out[to_library_of(out, np.flatnonzero(allowed.is_given))] = -np.inf
    flat[index] = kept


def apply_bitmask(out: Any, words: Any) -> None:
    """Ban the tokens whose bit is 0."""
    k = out.shape[1]
    if isinstance(out, np.ndarray):
        # For each byte of the mask, the bytes of 8 logits that remain, and of -inf for the others.
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        keep = np.repeat(255 * bits, out.itemsize, axis=1)
        fill = np.tile(np.array([-np.inf], out.dtype).view(np.uint8), 8) & ~keep
        for row, word in zip(out.view(np.uint8), words.view(np.uint8), strict=True):
            row &= keep.take(word, axis=0).reshape(-1)[: len(row)]
            row |= fill.take(word, axis=0).reshape(-1)[: len(row)]
        return
    xp = array_namespace(out)
    shifts = xp.arange(_WORD, dtype=words.dtype, device=out.device)
    bits = (words[..., None] >> shifts) & 1
    out.masked_fill_(bits.flatten(1)[:, :k] == 0, -xp.inf)


def check_some_left(z: Any, out: Any, rows: Rows) -> None:
    """Refuse a row of which the bans left no token."""
    xp = array_namespace(out)
    none_left = ~xp.any(out[:, :_FIRST] != -xp.inf, axis=1)
    for row in np.flatnonzero(_arrays.on_host(none_left)).tolist():
        if not xp.any(out[row] != -xp.inf) and xp.any(z[row] != -xp.inf):
            raise ValueError(f"{rows.label(row)}: all {rows.k} tokens are banned")
