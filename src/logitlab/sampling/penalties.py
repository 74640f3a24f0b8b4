"""Penalties, biases and bans of tokens, from the tokens before and from masks."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _dispatch, _tracing
from logitlab._arrays import bincount, repeat
from logitlab._backends import native_sampling
from logitlab._exact.formats import FORMATS
from logitlab.sampling import bans
from logitlab.sampling.calls import to_library_of
from logitlab.sampling.histories import (
    Ints,
    Rows,
    TokenLists,
    check_breakers,
    joined,
    last_occurrences,
    lengths_after_breakers,
    repeats,
)
from logitlab.sampling.settings import Setting, check_setting, rows_of

_LARGEST_POWER = FORMATS["float32"].max  # of the base of DRY

SETTINGS = {
    "repetition_penalty": Setting("", 1.0, "finite and > 0", lambda x: (x > 0) & (x < np.inf)),
    "frequency_penalty": Setting("", 0.0, "finite", lambda x: abs(x) < np.inf),
    "presence_penalty": Setting("", 0.0, "finite", lambda x: abs(x) < np.inf),
    "dry_multiplier": Setting("", 0.0, "finite and >= 0", lambda x: (x >= 0) & (x < np.inf)),
    "dry_base": Setting("", 1.75, "finite and >= 1", lambda x: (x >= 1) & (x < np.inf)),
    "dry_allowed_length": Setting("", 2, ">= 1", lambda x: x >= 1, is_integer=True),
    "no_repeat_ngram_size": Setting("", None, ">= 1", lambda x: x >= 1, is_integer=True),
    "min_tokens": Setting("", 0, ">= 0", lambda x: x >= 0, is_integer=True),
}


class _Settings:
    """The settings in use, each as one value or one for each row."""

    def __init__(self, given: Mapping[str, Any], batch: tuple[int, ...]) -> None:
        self._values = {}
        for name, setting in SETTINGS.items():
            value = check_setting(name, given[name], setting)
            if value is not None and bool(np.any(value != setting.neutral)):
                self._values[name] = rows_of(name, value, batch)
        self._rows = math.prod(batch)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def each(self, name: str) -> NDArray[np.float64]:
        """The value of each row."""
        value = self._values.get(name, SETTINGS[name].neutral)
        return np.broadcast_to(np.asarray(value, np.float64), (self._rows,))


class _Numbers(NamedTuple):
    """Tokens of each row, and a number for each."""

    lists: TokenLists
    values: NDArray[np.float64]


class _Changes(NamedTuple):
    """What changes the logits of some tokens."""

    prompt: TokenLists
    output: TokenLists
    bias: _Numbers | None  # distinct tokens
    dry: _Numbers | None  # the largest one of a token is subtracted
    repetition: NDArray[np.float64]  # (rows,), as the next ones
    frequency: NDArray[np.float64]
    presence: NDArray[np.float64]

    def arguments(self) -> tuple[tuple[Any, Any, Any, Any], tuple[Any, Any, Any]]:
        """The lists and the settings as the kernels take them."""
        prompt, output = ((x.tokens, x.offsets) for x in self[:2])
        bias, dry = (x and (x.lists.tokens, x.lists.offsets, x.values) for x in self[2:4])
        repetition, frequency, presence = map(np.ascontiguousarray, self[4:])
        return (prompt, output, bias, dry), (repetition, frequency, presence)


class _FlatChanges(NamedTuple):
    """What changes each logit of some tokens: a bias, a factor by the sign, and a penalty."""

    position: Ints  # in the flat logits, distinct
    bias: NDArray[np.float64]
    repetition: NDArray[np.float64]
    penalty: NDArray[np.float64]


def _dry_penalties(settings: _Settings, history: TokenLists, breakers: list[Ints]) -> _Numbers:
    """The penalties of repeating what follows the tokens before, for tokens that have one."""
    multiplier, base = settings.each("dry_multiplier"), settings.each("dry_base")
    allowed = settings.each("dry_allowed_length").astype(np.int64)
    with np.errstate(divide="ignore"):
        largest = np.minimum(math.log(_LARGEST_POWER) / np.log(base), 2.0**31).astype(np.int64)
    # With a base of 1, every excess has the same penalty.
    largest[base == 1] = 0
    limit = np.minimum(lengths_after_breakers(history, breakers), allowed + largest)
    at, lengths = repeats(history, allowed, np.where(multiplier == 0, 0, limit))
    single = [breaker[0] for breaker in breakers if len(breaker) == 1]
    is_penalized = ~np.isin(history.tokens[at], single)
    at, lengths = at[is_penalized], lengths[is_penalized]
    rows = history.rows_of(at)
    with np.errstate(over="ignore"):
        penalty = multiplier[rows] * base[rows] ** (lengths - allowed[rows])
    return _Numbers(history.taken(at), penalty)


def _map_biases(x: Any, rows: Rows) -> tuple[TokenLists, NDArray[np.float64]]:
    """The tokens and the biases of one mapping for every row, or of one for each."""
    maps = [x] if isinstance(x, Mapping) else [{} if m is None else m for m in x]
    n = 1 if isinstance(x, Mapping) else rows.n
    if len(maps) != n or not all(isinstance(m, Mapping) for m in maps):
        raise ValueError(
            f"logit_bias must be a mapping, one mapping for each of the {rows.n} rows of z, "
            f"or an array, got {x!r:.60}"
        )
    tokens = [[_checks.integer(token, "a token of logit_bias", 0) for token in m] for m in maps]
    biases = [
        _checks.real(bias, "logit_bias", "a number or ±inf", lambda b: b == b)
        for m in maps
        for bias in m.values()
    ]
    if isinstance(x, Mapping):
        lists = rows.lists(np.array(tokens[0], np.int64), "logit_bias", is_common=True)
        return lists, np.tile(np.array(biases, np.float64), rows.n)
    return rows.lists(tokens, "logit_bias"), np.array(biases, np.float64)


def _is_map(x: Any) -> bool:
    is_list = isinstance(x, list | tuple)
    return isinstance(x, Mapping) or (
        is_list and any(m is None or isinstance(m, Mapping) for m in x)
    )


def _array_bias(x: Any, z: Any, rows: Rows) -> Any:
    """A bias of each logit, (N, K) or (1, K): a tensor, or a NumPy array."""
    xp = array_namespace(z)
    bias = _arrays.like(_arrays.as_floating(x, "logit_bias"), z, xp, "logit_bias")
    shapes = [tuple(z.shape), (rows.k,)] if rows.is_matrix else [(rows.k,)]
    if tuple(bias.shape) not in shapes:
        listed = " or ".join(map(str, shapes))
        raise ValueError(f"logit_bias must have the shape {listed}, got {tuple(bias.shape)}")
    bias = xp.reshape(bias, (-1, rows.k))
    bias = bias if is_torch_array(bias) else _arrays.on_host(bias, "logit_bias")
    xp = array_namespace(bias)
    if _arrays.any_of(nan := xp.isnan(bias), xp):
        row, token = divmod(_arrays.first_true(nan, xp), rows.k)
        raise ValueError(f"logit_bias must not be nan, got nan for token {token} in row {row}")
    return bias


def _find_changes(
    settings: _Settings,
    rows: Rows,
    prompt: TokenLists,
    output: TokenLists,
    bias: Any,
    breakers: Any,
) -> _Changes:
    """The changes of the tokens in the histories and in mappings of biases."""
    biases = _Numbers(*_map_biases(bias, rows)) if _is_map(bias) else None
    breakers = check_breakers(breakers, rows.k)
    has_dry = "dry_multiplier" in settings
    if not (has_dry or "repetition_penalty" in settings):
        prompt = rows.lists(None, "tokens")
        if not ("frequency_penalty" in settings or "presence_penalty" in settings):
            output = prompt
    return _Changes(
        prompt,
        output,
        biases,
        _dry_penalties(settings, joined(prompt, output), breakers) if has_dry else None,
        *(settings.each(f"{name}_penalty") for name in ("repetition", "frequency", "presence")),
    )


def _flattened(changes: _Changes, rows: Rows) -> _FlatChanges:
    """The changes of each token: the formulas of what the kernels do."""
    prompt, output, bias, dry, *settings = changes
    none = _Numbers(rows.lists(None, "tokens"), np.empty(0))
    biased, biases = bias or none
    repeating, dry_penalties = dry or none
    history = joined(prompt, output)
    # In each row the biased tokens, then those that repeat, then the prompt, then the output.
    lists = joined(biased, joined(repeating, history))
    last = last_occurrences(lists, rows.k)
    order = np.arange(len(last))
    at = np.flatnonzero(last == order)
    row = lists.rows[at]
    repetition, frequency, presence = (x[row] for x in settings)
    first_output = repeat(lists.offsets[1:] - output.lengths, lists.lengths)
    count = bincount(last, weights=order >= first_output, minlength=len(last))[at]
    is_seen = at >= (lists.offsets[1:] - history.lengths)[row]
    with np.errstate(over="ignore"):
        penalty = count * frequency
        penalty += (count > 0) * presence
    if dry is not None:
        largest = np.zeros(len(last))
        places = (
            order[: len(dry_penalties)]
            + (biased.offsets[1:] + history.offsets[:-1])[repeating.rows]
        )
        np.maximum.at(largest, last[places], dry_penalties)
        penalty += largest[at]
    added = np.zeros(len(last))
    places = order[: len(biases)] + (repeating.offsets + history.offsets)[biased.rows]
    added[last[places]] = biases
    position = row * rows.k + lists.tokens[at]
    return _FlatChanges(position, added[at], np.where(is_seen, repetition, 1.0), penalty)


def _copy(z: Any) -> Any:
    """A contiguous copy."""
    if isinstance(z, np.ndarray):
        return np.array(z, dtype=_arrays.native_type(z.dtype), order="C")
    import torch

    return z.clone(memory_format=torch.contiguous_format)


def _by_kernel(z: Any, changes: _Changes, bias: Any) -> Any:
    """As :func:`_by_formulas`; None if the kernels do not apply."""
    if isinstance(z, np.ndarray):
        return native_sampling.penalize(z, bias, *changes.arguments())
    from logitlab._backends import torch_kernels

    return torch_kernels.penalize(z, bias, *changes.arguments())


def _by_formulas(z: Any, changes: _FlatChanges, bias: Any) -> Any:
    """A copy of z, (N, K), with a bias and the changes: in float64, rounded once."""
    xp = array_namespace(z)
    name = _arrays.dtype_name(z.dtype)
    wide = _arrays.widest_float(xp, z) if name in FORMATS else z.dtype
    largest = FORMATS[name].max if name in FORMATS else np.finfo(z.dtype).max

    def widened(x: Any) -> Any:
        return xp.astype(x, wide)

    def rounded(x: Any, start: Any, added: Any) -> Any:
        """Finite logits stay finite; -inf stays -inf, and a bias of -inf excludes."""
        is_finite = xp.isfinite(start) & xp.isfinite(added)
        x = xp.where(is_finite, xp.clip(x, -largest, largest), x)
        is_excluded = (start == -xp.inf) | (added == -xp.inf)
        return xp.astype(xp.where(is_excluded, -xp.inf, x), out.dtype)

    out = _copy(z)
    with np.errstate(all="ignore"):
        if bias is not None:
            bias = xp.broadcast_to(widened(bias), z.shape)
            start = widened(z)
            out[...] = rounded(start + bias, start, bias)
        if len(changes.position):
            at, added, repetition, penalty = (to_library_of(z, x) for x in changes)
            start, added = widened(xp.reshape(z, (-1,))[at]), widened(added)
            if bias is not None:
                added = added + xp.reshape(bias, (-1,))[at]
            x = start + added
            x = xp.where(x > 0, x / widened(repetition), x * widened(repetition))
            xp.reshape(out, (-1,))[at] = rounded(x - widened(penalty), start, added)
    return out


@_dispatch.breaks_graph
def penalize(
    z: Any,
    tokens: Any = None,
    *,
    prompt: Any = None,
    repetition_penalty: Any = 1.0,
    frequency_penalty: Any = 0.0,
    presence_penalty: Any = 0.0,
    dry_multiplier: Any = 0.0,
    dry_base: Any = 1.75,
    dry_allowed_length: Any = 2,
    dry_sequence_breakers: Any = (),
    no_repeat_ngram_size: Any = None,
    logit_bias: Any = None,
    min_tokens: Any = 0,
    eos_token_id: Any = None,
    allowed_token_ids: Any = None,
    banned_token_ids: Any = None,
    bitmask: Any = None,
) -> Any:
    r"""Logits with penalties, biases and bans, from the tokens before and from masks.

    Applied in this order: `logit_bias`, `repetition_penalty`, `frequency_penalty` and
    `presence_penalty`, DRY, bans. Each setting is one number or one for each row.

    Parameters
    ----------
    z : array, shape (N, K) or (K,)
        Logits of K tokens, in any array type that :func:`logitlab.softmax` accepts.
    tokens, prompt : token lists, optional
        The tokens generated so far, and those before them. The repetition penalty, DRY and n-grams
        use both; `frequency_penalty`, `presence_penalty` and `min_tokens` only `tokens`.
        Without `prompt`, everything uses `tokens`. An int array of shape (N, L), where -1 is
        padding; a list with one list of tokens, or None, for each row; or a tuple
        `(tokens, offsets)` (CSR): row i has `tokens[offsets[i]:offsets[i + 1]]`. For z of shape
        (K,), a single list.
    repetition_penalty : float or array
        r, finite and > 0: z/r where z > 0 and z·r elsewhere, once for each token in the history.
        1 changes nothing.
    frequency_penalty, presence_penalty : float or array
        Finite: subtracts the frequency penalty times the count of the token, and the presence
        penalty if the count is positive. 0 changes nothing.
    dry_multiplier, dry_base, dry_allowed_length : float, float and int, or arrays
        DRY: with n the largest number of tokens at the end of the history that occur, in this
        order, just before an earlier occurrence of a token, subtracts
        multiplier · base^(n - allowed_length) from the token if n >= allowed_length. At least 0, 1
        and 1. A multiplier of 0 changes nothing.
    dry_sequence_breakers : list of int or of lists of int
        Tokens, or sequences of tokens, that no repetition extends over. Single tokens among them
        have no DRY penalty.
    no_repeat_ngram_size : int or array of int, optional
        Bans tokens that would repeat an n-gram of this size, >= 1. More than the length of the
        history bans nothing.
    logit_bias : mapping, list of mappings or array, optional
        Added to z: a mapping of tokens to biases, one for each row, or an array of shape (N, K) or
        (K,). -inf bans a token.
    min_tokens : int or array of int
        Bans the tokens of `eos_token_id` in rows with fewer `tokens`.
    eos_token_id : int, list of int or token lists, optional
        The tokens that end a sequence: for every row, or in the forms of `tokens`.
    allowed_token_ids, banned_token_ids : list of int or token lists, optional
        The only tokens that are not banned, and tokens that are banned: for every row, or in the
        forms of `tokens`. None in a list of lists leaves a row unchanged.
    bitmask : array of int32, shape (N, ceil(K/32)), optional
        Bit j of entry i, from the least significant, allows token 32 i + j; 0 bans it. As from
        xgrammar and llguidance.

    Returns
    -------
    array, shape of z
        In the array type and dtype of z, on its device. Changed logits are computed in float64 and
        rounded, to bfloat16 and to float16 of torch through float32; finite logits stay finite,
        -inf stays -inf and NaN stays NaN unless banned.

    Raises
    ------
    TypeError
        Tokens are not integers, a setting is not a number or an array of numbers, the bitmask is
        not int32.
    ValueError
        A token is outside of [0, K), a setting is outside of its range, a list or the bitmask does
        not have one entry for each row, or every token of a row is banned. The error names the row.

    Notes
    -----
    The cost is that of a copy of z and of reading the histories. Histories are read on the host;
    the logits of torch tensors stay on their device, and derivatives pass through.

    References
    ----------
    N. S. Keskar et al., "CTRL: a conditional transformer language model for controllable
    generation", 2019 (repetition penalty). Frequency and presence penalties are those of the OpenAI
    API and vLLM, DRY is that of text-generation-webui and llama.cpp, n-grams are those of
    transformers.

    Examples
    --------
    >>> import logitlab
    >>> z = [[2.0, -1.0, 0.5, 3.0]]
    >>> logitlab.penalize(z, [[0, 1, 0]], repetition_penalty=2.0)
    array([[ 1. , -2. ,  0.5,  3. ]])
    >>> logitlab.penalize(z, [[0, 1, 0]], frequency_penalty=0.5, presence_penalty=0.25)
    array([[ 0.75, -1.75,  0.5 ,  3.  ]])
    >>> logitlab.penalize(z, [[2, 1, 2]], no_repeat_ngram_size=2, banned_token_ids=[3])
    array([[ 2. , -inf,  0.5, -inf]])
    """
    given = {name: value for name, value in locals().items() if name in SETTINGS}
    z = _arrays.as_floating(z, "z")
    _tracing.check_values(z, "z")
    shape = tuple(z.shape)
    if len(shape) not in (1, 2):
        raise ValueError(f"z must have the shape (N, K) or (K,), got {shape}")
    settings = _Settings(given, shape[:-1])
    rows = Rows(math.prod(shape[:-1]), shape[-1], len(shape) == 2)
    output, before = rows.lists(tokens, "tokens"), rows.lists(prompt, "prompt")

    # Other libraries' arrays cannot be written to.
    x = z if is_torch_array(z) else _arrays.on_host(z)
    x = x.reshape(rows.n, rows.k)
    bias = None if logit_bias is None or _is_map(logit_bias) else _array_bias(logit_bias, z, rows)
    changes = _find_changes(settings, rows, before, output, logit_bias, dry_sequence_breakers)

    banned = [rows.lists(banned_token_ids, "banned_token_ids", is_common=True).flat(rows.k)]
    ends = rows.lists(eos_token_id, "eos_token_id", is_common=True)
    if "min_tokens" in settings:
        if eos_token_id is None:
            raise ValueError("eos_token_id must be given if min_tokens > 0, got None")
        is_short = output.lengths < settings.each("min_tokens")
        banned.append(ends.flat(rows.k)[is_short[ends.rows]])
    if "no_repeat_ngram_size" in settings:
        size = settings.each("no_repeat_ngram_size")
        banned.append(bans.repeated_ngrams(joined(before, output), size, rows.k))
    allowed = rows.lists(allowed_token_ids, "allowed_token_ids", is_common=True)
    words = None if bitmask is None else bans.check_bitmask(bitmask, rows, x)

    out = _by_kernel(x, changes, bias)
    if out is None:
        out = _by_formulas(x, _flattened(changes, rows), bias)
    if allowed.is_given.any():
        bans.allow(out, allowed, rows.k)
    if words is not None:
        bans.apply_bitmask(out, words)
    out.reshape(-1)[to_library_of(out, np.concatenate(banned))] = -np.inf
    bans.check_some_left(x, out, rows)
    result = out.reshape(shape)
    return result if is_torch_array(z) else to_library_of(z, result)
