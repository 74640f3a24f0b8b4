"""Verification of drafted tokens by rejection sampling."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _dispatch
from logitlab._backends import native_sampling
from logitlab._backends.reference_sampling import (
    Stage,
    Words,
    philox,
    stages_of_rows,
    truncates,
    uniforms,
)
from logitlab._backends.targets import Targets
from logitlab._rows import Floats, Integers, blocks
from logitlab.sampling.calls import check_call, to_library_of
from logitlab.sampling.draws import Key, check_row_keys, generator_key
from logitlab.sampling.sampler import Sampler, sampler_of

# xor-ed into the key: of the acceptance tests, and of the tokens that follow the accepted ones.
_ACCEPTANCE, _NEXT_TOKEN = 0x2545F491, 0x61C88647
_BLOCK_SIZE = 1 << 20  # entries of the logits of one position


class _Model(NamedTuple):
    """Logits at every position of some sequences, and how they are sampled from."""

    name: str
    z: NDArray[Any]  # (n, positions, K)
    temperature: Any  # a number, or (n, 1)
    stages: list[Stage]  # arrays have one value for each sequence

    def of_sequences(self, rows: slice) -> "_Model":
        t = _of_rows(self.temperature, rows)
        return _Model(self.name, self.z[rows], t, stages_of_rows(self.stages, rows))

    def at(self, rows: Integers, position: int) -> "_Rows":
        """The distributions of some sequences at one position."""
        all_rows = len(rows) == len(self.z)
        z = self.z[:, position] if all_rows else self.z[rows, position]
        t = _of_rows(self.temperature, rows)
        if not truncates(self.stages):
            return _Rows(z, t, None)
        kept, dynamic = native_sampling.keep(z, 1, t, None, stages_of_rows(self.stages, rows))
        return _Rows(z, t if dynamic is None else dynamic.reshape(-1, 1), kept)


class _Rows(NamedTuple):
    """Distributions: the softmax of the logits that are kept."""

    z: NDArray[Any]  # (n, K)
    temperature: Any
    kept: NDArray[np.bool_] | None

    def of(self, rows: NDArray[np.bool_]) -> "_Rows":
        if rows.all():
            return self
        return _Rows(self.z[rows], _of_rows(self.temperature, rows), _of_rows(self.kept, rows))

    def without(self, tokens: Integers) -> "_Rows":
        """These distributions without one class of each row."""
        kept = np.ones(self.z.shape, bool) if self.kept is None else self.kept.copy()
        np.put_along_axis(kept, tokens[:, None], False, axis=1)
        return self._replace(kept=kept)

    def sample(self, key: Key, row_keys: Words) -> Integers:
        """A token of each row; -1 without a distribution."""
        options: Any = [], 1, True, key, row_keys
        return native_sampling.sample(self.z, 1, self.temperature, self.kept, *options)[:, 0]

    def _compute(self, name: str, z: NDArray[Any]) -> NDArray[Any]:
        function = getattr(_dispatch.backend(z), name)
        result: NDArray[Any] = function(z, (1,), self.temperature, self.kept, None)
        return result

    def log_prob(self, tokens: Integers) -> Floats:
        """The log-probability of one token of each row, in float64; NaN without a distribution."""
        target_loss = _dispatch.backend(self.z).target_loss
        arguments = self.z, (1,), self.temperature, self.kept, Targets(tokens), None
        loss: Floats = target_loss(*arguments)[0]
        return -loss

    def probabilities(self) -> Floats:
        return self._compute("softmax", self.z.astype(np.float64))

    def rounded_log_prob(self, tokens: Integers) -> NDArray[Any]:
        """As of :func:`log_prob`, in the type of the logits."""
        log_p = self._compute("log_softmax", self.z)
        return np.take_along_axis(log_p, tokens[:, None], axis=1)[:, 0]


def _of_rows(x: Any, rows: Any) -> Any:
    return x[rows] if isinstance(x, np.ndarray) else x


def acceptance_probability(log_p: Any, log_q: Any) -> Any:
    """min(1, p/q): how probable it is that a token drafted with probability q is accepted."""
    return np.exp(np.minimum(log_p - log_q, 0.0))


def residual_weights(p: Floats, q: Floats) -> Floats:
    """max(p - q, 0): the weights of the token that replaces a rejected one; the classes last."""
    weights = np.maximum(p - q, 0.0)
    # A token is rejected only if p < q there, so that another has p > q, up to rounding.
    vanished = ~weights.any(axis=-1, keepdims=True)
    return np.where(vanished, p, weights) if vanished.any() else weights


@np.errstate(divide="ignore")
def _residual(p: _Rows, q: _Rows | None, tokens: Integers) -> _Rows:
    """The distributions of the tokens that replace rejected ones."""
    if q is None:
        return p.without(tokens)
    return _Rows(np.log(residual_weights(p.probabilities(), q.probabilities())), 1.0, None)


class _Verification:
    """The verification of a block of sequences."""

    def __init__(
        self,
        target: _Model,
        draft: _Model | None,
        tokens: Integers,
        lengths: Integers,
        key: Key,
        row_keys: Words,
        first_row: int,
    ) -> None:
        self.target, self.draft, self.tokens, self.lengths = target, draft, tokens, lengths
        self.key, self.row_keys, self.first_row = key, row_keys, first_row
        n, positions, _ = target.z.shape
        self.accepted = np.zeros(n, np.int64)
        self.next_token = np.zeros(n, np.int64)
        self.log_prob = np.zeros((n, positions), target.z.dtype)

    def run(self) -> None:
        active = np.arange(len(self.tokens))
        for position in range(self.target.z.shape[1]):
            at_end = self.lengths[active] == position
            ended, active = active[at_end], active[~at_end]
            if len(ended):
                p = self.target.at(ended, position)
                tokens = self._sample(p, ended)
                self._check(self.target, tokens < 0, ended, position)
                self.next_token[ended] = tokens
                self.log_prob[ended, position] = p.rounded_log_prob(tokens)
            if not len(active):
                return
            active = self._verify(active, position)

    def _verify(self, rows: Integers, position: int) -> Integers:
        """The sequences of which the token at this position is accepted."""
        tokens = self.tokens[rows, position]
        p = self.target.at(rows, position)
        log_p = p.log_prob(tokens)
        self._check(self.target, np.isnan(log_p), rows, position)
        q: _Rows | None = None
        log_q: Any = 0.0  # the draft has probability 1 at its token
        if self.draft is not None:
            q = self.draft.at(rows, position)
            log_q = q.log_prob(tokens)
            self._check(self.draft, np.isnan(log_q), rows, position)
            self._check_possible(tokens, log_q, rows, position)
        draws = np.full(len(rows), position, np.uint64)
        u = uniforms(philox(self._key(_ACCEPTANCE), self.row_keys[rows], draws))
        is_accepted = u <= acceptance_probability(log_p, log_q)
        if not is_accepted.all():
            rejected = ~is_accepted
            q = None if q is None else q.of(rejected)
            residual = _residual(p.of(rejected), q, tokens[rejected])
            tokens[rejected] = self._sample(residual, rows[rejected])
            self.next_token[rows[rejected]] = tokens[rejected]
        self.accepted[rows] += is_accepted
        self.log_prob[rows, position] = p.rounded_log_prob(tokens)
        remaining: Integers = rows[is_accepted]
        return remaining

    def _key(self, stream: int) -> Key:
        return self.key[0] ^ stream, self.key[1]

    def _sample(self, p: _Rows, rows: Integers) -> Integers:
        return p.sample(self._key(_NEXT_TOKEN), self.row_keys[rows])

    def _check_possible(
        self, tokens: Integers, log_q: Floats, rows: Integers, position: int
    ) -> None:
        if (impossible := log_q == -np.inf).any():
            row = int(np.argmax(impossible))
            raise ValueError(
                "tokens must have a probability > 0 under draft_z and its settings, "
                f"got {tokens[row]} in {self._place(rows[row], position)}"
            )

    def _check(
        self, model: _Model, undefined: NDArray[np.bool_], rows: Integers, position: int
    ) -> None:
        if undefined.any():
            place = self._place(rows[int(np.argmax(undefined))], position)
            raise ValueError(
                f"{model.name} has no distribution in {place}: it contains NaN, or no category "
                "is left"
            )

    def _place(self, row: int, position: int) -> str:
        return f"row {self.first_row + row} at position {position}"


def _check_tokens(tokens: Any, k: int) -> tuple[Integers, Integers]:
    """The drafted tokens, (N, S), and the lengths of the drafts."""
    tokens = _arrays.on_host(_arrays.as_array(tokens, "tokens"), "tokens")
    if tokens.dtype.kind not in "iu" and tokens.size:
        raise TypeError(f"tokens must be an integer array, got {_arrays.dtype_name(tokens.dtype)}")
    if tokens.ndim != 2:
        raise ValueError(f"tokens must have shape (N, S), got {tuple(tokens.shape)}")
    invalid = (tokens < -1) | (tokens >= k)
    ended = np.logical_or.accumulate(tokens == -1, axis=1)
    for wrong, rule in (
        (invalid, f"from 0 to {k - 1}, or -1 after the end of a draft"),
        (ended & (tokens != -1), "-1 after the end of a draft"),
    ):
        if wrong.any():
            row, position = map(int, np.argwhere(wrong)[0])
            token = tokens[row, position]
            raise ValueError(
                f"tokens must be {rule}, got {token} in row {row} at position {position}"
            )
    return tokens.astype(np.int64), (~ended).sum(axis=1)


def _check_logits(z: Any, name: str) -> NDArray[Any]:
    array = _arrays.on_host(_arrays.as_floating(z, name), name)
    if array.ndim != 3:
        raise ValueError(f"{name} must have 3 dimensions, got shape {array.shape}")
    return array


def _check_shapes(
    target: NDArray[Any], draft: NDArray[Any] | None, tokens: Integers, lengths: Integers
) -> None:
    n, s = tokens.shape
    rows, positions, k = target.shape
    expected = (n, s + 1, k)
    if (rows, positions) != expected[:2]:
        longer = lengths >= positions
        row = int(np.argmax(longer)) if rows == n and longer.any() else None
        detail = "" if row is None else f"; the draft of row {row} has {lengths[row]} tokens"
        raise ValueError(
            f"target_z must have shape (N, S + 1, K) = {expected} for tokens of shape {(n, s)}, "
            f"got {target.shape}{detail}"
        )
    if draft is not None and draft.shape != (n, s, k):
        raise ValueError(f"draft_z must have shape (N, S, K) = {(n, s, k)}, got {draft.shape}")


def _check_model(name: str, z: NDArray[Any], sampler: Sampler) -> _Model:
    """The logits with the settings of their sampler, one of each for each sequence."""
    if np.any((sampler.xtc_probability > 0) & (sampler.xtc_probability < 1)):
        raise ValueError(
            "xtc_probability must be 0 or 1 to verify drafts, which does not know the random "
            f"choices of their sampler, got {sampler.xtc_probability}"
        )
    t = sampler.temperature
    t = t if isinstance(t, float) else _arrays.on_host(t, "temperature")
    call = check_call(z[:, 0], 1, t, None)
    return _Model(name, z, call.arguments[2], sampler._stages(call, None))


@_dispatch.breaks_graph
def verify_draft(
    target_z: Any,
    draft_z: Any,
    tokens: Any,
    *,
    temperature: Any = 1.0,
    draft_sampler: Sampler | None = None,
    rng: Any = None,
    row_keys: Any = None,
    **settings: Any,
) -> tuple[Any, Any, Any]:
    r"""Accepted tokens of drafts and the token that follows, distributed as the target samples.

    Speculative decoding by rejection sampling: the token x of a draft that was sampled from q is
    accepted with probability min(1, p(x)/q(x)). The first rejected one is replaced by a sample
    from max(p - q, 0), normalized; after a draft that is accepted as a whole one more token is
    sampled from p. The accepted tokens and the next have the distribution of tokens that are
    sampled one by one from the target.

    Parameters
    ----------
    target_z : array, shape (N, S + 1, K)
        Logits of the target model after the prefix and after each of the S drafted tokens.
    draft_z : array, shape (N, S, K), or None
        Logits that the drafts were sampled from. None for drafts without random choice, such as
        n-gram look-ups: q is 1 at the token.
    tokens : array of int, shape (N, S)
        The drafted tokens; -1 after the end of a draft that is shorter than S.
    temperature : float or array
        T: a scalar, or one value for each row, shape (N,). T = 0 is greedy.
    draft_sampler : Sampler, optional
        The temperature and truncation that the drafts were sampled with: ``Sampler()`` if from
        softmax(draft_z). By default they are those of the target.
    rng, row_keys
        As in :func:`sample`, with one key for each row, shape (N,). The random numbers are not
        those of :func:`sample` under the same seed, so that drafts may be sampled with it.
    **settings
        Truncation of the target, as in :func:`truncate`; an array has shape (N,).

    Returns
    -------
    accepted : array of int64, shape (N,)
        How many tokens of each draft are accepted, 0 to S.
    next_token : array of int64, shape (N,)
        The token after them.
    log_prob : array, shape (N, S + 1)
        The log-probabilities of the accepted tokens and the next under the target, after
        temperature and truncation; 0 after the next token, so that the sum of a row is that of
        its tokens. In the dtype of `target_z`, without gradient: see :func:`log_prob`.

    Raises
    ------
    TypeError
        As :func:`sample`.
    ValueError
        Shapes that do not fit, as of drafts longer than the target allows; a token that is not
        from 0 to K - 1, or has probability 0 in the draft; a position without a distribution, of
        those that are read: none after the first rejection. The message names the row.

    References
    ----------
    Y. Leviathan, M. Kalman and Y. Matias, "Fast inference from transformers via speculative
    decoding", ICML 2023. C. Chen et al., "Accelerating large language model decoding with
    speculative sampling", arXiv:2302.01318, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> target_z = np.array([[[1.0, 3.0, 2.0], [0.0, 0.0, 3.0]]])
    >>> draft_z = np.array([[[1.0, 3.0, 1.0]]])
    >>> accepted, next_token, log_prob = logitlab.verify_draft(target_z, draft_z, [[1]], rng=0)
    >>> print(accepted, next_token, log_prob.round(4))
    [1] [2] [[-0.4076 -0.0949]]
    """
    target = _check_logits(target_z, "target_z")
    draft = None if draft_z is None else _check_logits(draft_z, "draft_z")
    tokens, lengths = _check_tokens(tokens, target.shape[-1])
    _check_shapes(target, draft, tokens, lengths)
    n, positions, k = target.shape
    keys = check_row_keys(row_keys, (n,))
    if not isinstance(draft_sampler, Sampler | None):
        raise TypeError(f"draft_sampler must be a Sampler or None, got {draft_sampler!r}")
    sampler = sampler_of("verify_draft", temperature=temperature, **settings)
    target_model = _check_model("target_z", target, sampler)
    draft_model = None
    if draft is not None and draft.size:
        draft_model = _check_model("draft_z", draft, draft_sampler or sampler)
    key = generator_key(rng)
    accepted, next_token = np.zeros((2, n), np.int64)
    log_prob = np.zeros((n, positions), _arrays.native_type(target.dtype))
    for rows in blocks(n, k, _BLOCK_SIZE):
        block = _Verification(
            target_model.of_sequences(rows),
            None if draft_model is None else draft_model.of_sequences(rows),
            tokens[rows],
            lengths[rows],
            key,
            keys[rows],
            rows.start,
        )
        block.run()
        accepted[rows], next_token[rows] = block.accepted, block.next_token
        log_prob[rows] = block.log_prob
    z = _arrays.as_floating(target_z, "target_z")
    rounded = array_namespace(z).astype(
        to_library_of(z, log_prob), _arrays.native_type(z.dtype), copy=False
    )
    return to_library_of(z, accepted), to_library_of(z, next_token), rounded
