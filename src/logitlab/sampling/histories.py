"""Lists of tokens of each row: their forms, counts, and what repeats the end of a history."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._arrays import bincount, repeat
from logitlab._backends import native_sampling

Ints = NDArray[np.int64]
_PADDING = -1


class TokenLists(NamedTuple):
    """A list of tokens for each row, one after another (CSR)."""

    tokens: Ints
    offsets: Ints  # (rows + 1,)
    is_given: NDArray[np.bool_]  # (rows,): False where the caller passed None

    @property
    def rows(self) -> Ints:
        """The row of each token."""
        return repeat(np.arange(len(self.offsets) - 1), self.lengths)

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def rows_of(self, at: Ints) -> Ints:
        """The rows of the tokens with these indices."""
        return np.searchsorted(self.offsets, at, side="right") - 1

    def taken(self, at: Ints) -> "TokenLists":
        """The lists of the tokens with these indices, which increase."""
        return TokenLists(self.tokens[at], np.searchsorted(at, self.offsets), self.is_given)

    def flat(self, k: int) -> Ints:
        """The index of each token in the flat logits of rows of k tokens."""
        return self.rows * k + self.tokens


def _integers(x: Any, name: str) -> NDArray[Any]:
    values = _arrays.on_host(_arrays.as_array(x, name), name)
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"{name} must be integers, got {_arrays.dtype_name(values.dtype)}")
    if values.dtype == np.uint64 and values.size and values.max() >= 2**63:
        raise ValueError(f"{name} must be < 2**63, got {values.max()}")
    # As the kernels read them.
    return np.require(values, np.int64, ["C", "A"])


def _is_ragged(x: Any) -> bool:
    """Whether x is a list with one list of tokens, or None, for each row."""
    return isinstance(x, list) and any(
        entry is None or isinstance(entry, list | tuple | range) or getattr(entry, "ndim", 0) > 0
        for entry in x
    )


def _wrong_number(name: str, rows: int, found: str) -> ValueError:
    return ValueError(f"{name} must have a list for each of the {rows} rows of z, got {found}")


def _from_ragged(x: Any, name: str, rows: int) -> tuple[Ints, Ints]:
    if len(x) != rows:
        raise _wrong_number(name, rows, str(len(x)))
    lists = []
    for row, entry in enumerate(x):
        values = _integers([] if entry is None else entry, f"{name}, row {row}:")
        if values.ndim != 1:
            raise ValueError(
                f"{name}, row {row}: must be a list of tokens, got shape {values.shape}"
            )
        lists.append(values)
    return np.concatenate(lists or [np.empty(0, np.int64)]), np.array([len(v) for v in lists], int)


def _from_csr(x: Any, name: str, rows: int) -> tuple[Ints, Ints]:
    if len(x) != 2:
        raise ValueError(f"{name} must be (tokens, offsets) if it is a tuple, got {len(x)} entries")
    tokens, offsets = _integers(x[0], name), _integers(x[1], f"offsets of {name}")
    if offsets.shape != (rows + 1,) or tokens.ndim != 1:
        raise ValueError(
            f"{name} must be (tokens, offsets) with shapes (n,) and ({rows + 1},) for {rows} rows, "
            f"got {tokens.shape} and {offsets.shape}"
        )
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(tokens) or (lengths < 0).any():
        raise ValueError(
            f"offsets of {name} must increase from 0 to {len(tokens)}, got {offsets.tolist()[:8]}"
        )
    return tokens, lengths


class Rows(NamedTuple):
    """The shape of the logits, for which tokens are checked."""

    n: int
    k: int
    is_matrix: bool  # whether errors name rows

    def label(self, row: int) -> str:
        return f"row {row}" if self.is_matrix else "z"

    def lists(self, x: Any, name: str, *, is_common: bool = False) -> TokenLists:
        """Checked tokens of each row; `is_common`: whether a single list is for every row."""
        n, is_given = self.n, np.ones(self.n, bool)
        if x is None:
            tokens, lengths = np.empty(0, np.int64), np.zeros(n, np.int64)
            is_given[:] = False
        elif isinstance(x, tuple):
            tokens, lengths = _from_csr(x, name, n)
        elif _is_ragged(x):
            tokens, lengths = _from_ragged(x, name, n)
            is_given = np.array([entry is not None for entry in x], bool)
        else:
            values = _integers(x, name)
            if values.ndim == 0 and is_common:
                values = values.reshape(1)
            if values.ndim == 1 and (is_common or not self.is_matrix or n == 0):
                values = np.broadcast_to(values, (n, len(values)))
            if values.ndim != 2 or len(values) != n:
                raise _wrong_number(name, n, f"shape {values.shape}")
            tokens, lengths = values.reshape(-1), np.full(n, values.shape[1])
        tokens = np.ascontiguousarray(tokens)  # as the kernels take them
        # As unsigned integers, negative ones are the largest.
        largest = int(tokens.view(np.uint64).max(initial=0))
        if largest >= self.k and not (keep := tokens != _PADDING).all():
            lengths = bincount(repeat(np.arange(n), lengths)[keep], minlength=n)
            tokens = tokens[keep]
            largest = int(tokens.view(np.uint64).max(initial=0))
        found = TokenLists(tokens, np.concatenate([[0], np.cumsum(lengths)]), is_given)
        if len(tokens) and largest >= self.k:
            wrong = int(np.argmax(tokens.view(np.uint64) >= self.k))
            row = f", row {found.rows[wrong]}" if self.is_matrix else ""
            raise ValueError(f"{name}{row}: token {tokens[wrong]} must be >= 0 and < {self.k}")
        return found


def joined(first: TokenLists, second: TokenLists) -> TokenLists:
    """For each row, the tokens of the first list and then those of the second."""
    if not len(first.tokens):
        return second
    tokens = np.empty(len(first.tokens) + len(second.tokens), np.int64)
    tokens[np.arange(len(first.tokens)) + second.offsets[first.rows]] = first.tokens
    tokens[np.arange(len(second.tokens)) + first.offsets[second.rows + 1]] = second.tokens
    return TokenLists(tokens, first.offsets + second.offsets, first.is_given)


def last_occurrences(lists: TokenLists, k: int) -> Ints:
    """For each token, the index of its last occurrence in its row."""
    tokens = lists.tokens
    last, last_of_token = np.empty_like(tokens), np.empty(k, np.int64)
    for start, end in itertools.pairwise(lists.offsets.tolist()):
        row = tokens[start:end]
        # Of several values for one index, NumPy assigns the last.
        last_of_token[row] = np.arange(start, end)
        last[start:end] = last_of_token[row]
    return last


def repeated_lengths(history: TokenLists, limit: Ints) -> Ints:
    """For each token, how many of the tokens before it are those at the end of its row's history.

    At most `limit` of a row. The cost is the sum of the lengths.
    """
    tokens, rows = history.tokens, history.rows
    first, last = history.offsets[rows], history.offsets[rows + 1] - 1
    room = np.minimum(np.arange(len(tokens)) - first, limit[rows])
    lengths = np.zeros(len(tokens), np.int64)
    at, end, k = np.arange(len(tokens)), last, 0
    while len(at):
        fits = room[at] > k
        at, end = at[fits], end[fits]
        equal = tokens[at - 1 - k] == tokens[end - k]
        at, end = at[equal], end[equal]
        k += 1
        lengths[at] = k
    return lengths


def repeats(history: TokenLists, least: Ints, limit: Ints) -> tuple[Ints, Ints]:
    """The indices of the tokens after at least so many tokens that are those at the end.

    Also how many they are, at most `limit`; both numbers are given for each row.
    """
    found = native_sampling.find_repeats(history.tokens, history.offsets, least, limit)
    if found is not None:
        return found
    lengths = repeated_lengths(history, limit)
    at = np.flatnonzero(lengths >= least[history.rows])
    return at, lengths[at]


def lengths_after_breakers(history: TokenLists, breakers: list[Ints]) -> Ints:
    """For each row, the number of tokens after the last sequence breaker in it."""
    tokens = history.tokens
    after = history.offsets[:-1].copy()
    for breaker in breakers:
        m = len(breaker)
        at = np.arange(m - 1, len(tokens))  # of the last token of a breaker
        for j, token in enumerate(breaker[::-1].tolist()):
            at = at[tokens[at - j] == token]
        rows = history.rows_of(at)
        is_within = at - (m - 1) >= history.offsets[rows]
        np.maximum.at(after, rows[is_within], at[is_within] + 1)
    return history.offsets[1:] - after


def check_breakers(x: Any, classes: int) -> list[Ints]:
    """Sequence breakers, each a token or a sequence of tokens, as arrays."""
    name = "dry_sequence_breakers"
    if isinstance(x, str) or not hasattr(x, "__iter__"):
        raise TypeError(f"{name} must be a list of tokens and of lists of tokens, got {x!r}")
    breakers = []
    for entry in x:
        is_token = np.ndim(entry) == 0
        breaker = np.array([_checks.integer(entry, name)]) if is_token else _integers(entry, name)
        if breaker.ndim != 1 or not len(breaker):
            raise ValueError(f"{name} must have no empty or nested lists, got {entry!r}")
        if wrong := [token for token in breaker.tolist() if not 0 <= token < classes]:
            raise ValueError(f"{name}: token {wrong[0]} must be >= 0 and < {classes}")
        breakers.append(breaker)
    return breakers
