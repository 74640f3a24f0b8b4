"""Laws of speculative verification: the tokens that are emitted follow the target model."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from logitlab._arrays import bincount
from logitlab._exact.formats import Floats, rounded
from logitlab.laws.cases import explicit_case
from logitlab.laws.frequencies import show, softmax, tail_bound
from logitlab.laws.law import Finding, SamplerLaw, certain
from logitlab.laws.tested_sampler import Integers, TestedVerifier
from logitlab.sampling import sample

_N = 60_000  # drafts
# Logits of the target model at S + 1 = 3 positions; 20 + x is rounded by a narrower dtype.
_TARGET = np.array([[0.0, 1.0, -1.0, 0.5], [20.01, 20.3, 19.8, 20.16], [1.0, 0.0, 0.5, -2.0]])
_EXCLUDED = np.array([[0.0, -np.inf, 1.0, 0.5], [-np.inf, 0.5, 1.0, 0.0], [1.0, 0.0, 0.5, -2.0]])
_SWAPPED = _TARGET[:2, ::-1]
_DISJOINT = np.array([[-np.inf, 0.0, -np.inf, 0.0], [0.0, -np.inf, 0.0, -np.inf]])
_DISJOINT_TARGET = np.where(np.isinf(np.vstack([_DISJOINT, _DISJOINT[:1]])), _TARGET, -np.inf)
_NEAR = _TARGET[:2] + np.array([0.1, -0.1, 0.06, -0.03])

_LARGE = np.array([[300.4, 299.6, 300.9, 300.3], [299.7, 300.2, 300.6, 299.1]])

# Target and draft logits, (S + 1, K) and (S, K).
PAIRS: dict[str, tuple[Floats, Floats]] = {
    "equal to the target": (_TARGET, _TARGET[:2]),
    "near the target": (_TARGET, _NEAR),
    "far from the target": (_TARGET, _SWAPPED),
    "of large logits": (np.vstack([_LARGE[::-1], _TARGET[:1]]), _LARGE),
    "disjoint from the target": (_DISJOINT_TARGET, _DISJOINT),
    "uniform, some tokens excluded from the target": (_EXCLUDED, np.zeros((2, 4))),
}


class Round(NamedTuple):
    """Drafts of one pair of models and what the verifier makes of them."""

    what: str
    code: str
    target: Floats  # (S + 1, K)
    draft: Floats  # (S, K)
    tokens: Integers  # (N, S)
    accepted: Integers  # (N,)
    next_token: Integers  # (N,)


def _repeated(z: Floats) -> Floats:
    return np.repeat(z[None], _N, axis=0)


def _code(verifier: TestedVerifier, target: Floats, draft: Floats, seed: int) -> str:
    """Code that samples the draft tokens and verifies them."""

    def array(z: Floats) -> str:
        return verifier.library.numpy_source(explicit_case(z, "float32").source, "float32")

    def convert(source: str, dtype: str) -> str:
        return verifier.library.from_numpy_source(source, dtype)

    arguments = [convert(f"np.repeat({x}[None], {_N}, axis=0)", "float32") for x in "pq"]
    arguments.append(convert(f"logitlab.sample(q, {_N}, rng={seed}).T", "int64"))
    setup = f"p = {array(target)}; q = {array(draft)}; "
    return verifier.call_code(arguments, seed, {}, setup)


@functools.lru_cache(maxsize=len(PAIRS))
def _round(verifier: TestedVerifier, what: str, seed: int) -> Round:
    target, draft = (rounded(x, "float32") for x in PAIRS[what])
    tokens = sample(draft.astype(np.float32), _N, rng=seed).T.copy()
    accepted, next_token = verifier(_repeated(target), _repeated(draft), tokens, seed)
    code = _code(verifier, target, draft, seed)
    return Round(what, code, target, draft, tokens, accepted, next_token)


def _rounds(verifier: TestedVerifier, seed: int) -> Iterator[Round]:
    for i, what in enumerate(PAIRS):
        yield _round(verifier, what, seed + i)


def _emitted(r: Round, position: int) -> Integers:
    """The token emitted at a position, of the drafts that reach it."""
    reached = r.accepted >= position
    if position == r.tokens.shape[1]:
        return r.next_token[reached]
    drafted = r.accepted[reached] > position
    return np.where(drafted, r.tokens[reached, position], r.next_token[reached])


def values(verifier: TestedVerifier, seed: int) -> Iterator[Finding]:
    """The number of accepted tokens and the next token exist; no token is excluded."""
    for r in _rounds(verifier, seed):
        s, k = r.draft.shape
        outside = ((r.accepted < 0) | (r.accepted > s)).sum()
        text = f"{outside} numbers of accepted tokens outside [0, {s}]"
        yield certain(outside == 0, r.code, text, "0")
        outside = ((r.next_token < 0) | (r.next_token >= k)).sum()
        text = f"{outside} next tokens outside [0, {k - 1}]"
        yield certain(outside == 0, r.code, text, "0")


def distribution(verifier: TestedVerifier, seed: int) -> Iterator[Finding]:
    """The tokens emitted at each position, of the drafts that reach it."""
    for r in _rounds(verifier, seed):
        for position, p in enumerate(softmax(r.target)):
            tokens = _emitted(r, position)
            inside = np.clip(tokens, 0, p.size)
            counts = bincount(np.where(tokens < 0, p.size, inside), minlength=p.size + 1)
            text = f"draft {r.what}, tokens at position {position}: counts {show(counts[: p.size])}"
            expected = show(tokens.size * p)
            yield Finding(tail_bound(counts, np.append(p, 0.0)), r.code, text, expected)


def acceptance(verifier: TestedVerifier, seed: int) -> Iterator[Finding]:
    """The first draft token is accepted with probability sum_i min(p_i, q_i)."""
    for r in _rounds(verifier, seed):
        rate = float(np.minimum(softmax(r.target[0]), softmax(r.draft[0])).sum())
        n = int((r.accepted > 0).sum())
        # Where p = q, rounding may reject a few.
        bound = tail_bound(np.array([n, _N - n]), np.array([rate, 1 - rate]))
        if rate > 1 - 1e-6:
            bound = float(n >= 0.999 * _N)
        text = f"draft {r.what}: {n} of {_N} first tokens accepted"
        yield Finding(bound, r.code, text, f"{rate * _N:.0f}")


def independence(verifier: TestedVerifier, seed: int) -> Iterator[Finding]:
    """The tokens emitted at the first position by successive rows."""
    r = _round(verifier, "far from the target", seed)
    tokens, p = _emitted(r, 0), softmax(r.target[0])
    counts = bincount(tokens[::2] * p.size + tokens[1::2], minlength=p.size**2)
    text = f"joint counts of successive rows {show(counts)}"
    joint = np.outer(p, p).ravel()
    yield Finding(tail_bound(counts, joint), r.code, text, show(_N / 2 * joint))


def seeds(verifier: TestedVerifier, seed: int) -> Iterator[Finding]:
    """The same seed repeats the result, another changes it."""
    first = _round(verifier, "far from the target", seed)
    target, draft = _repeated(first.target), _repeated(first.draft)
    accepted, next_token = verifier(target, draft, first.tokens, seed)
    same = (first.next_token == next_token).all() and (first.accepted == accepted).all()
    yield certain(bool(same), first.code, "another result at the second call", "the same result")
    _, other = verifier(target, draft, first.tokens, seed + 1)
    changed = bool((other != first.next_token).any())
    yield certain(changed, first.code, f"the same result with seed {seed + 1}", "another result")


_LEVIATHAN = "Y. Leviathan, M. Kalman, Y. Matias, arXiv:2211.17192"

LAWS = (
    SamplerLaw(
        "accepted and next token",
        "the number of accepted tokens is in [0, S], the next token in [0, K)",
        _LEVIATHAN,
        "A wrong index corrupts the sequence.",
        values,
    ),
    SamplerLaw(
        "output distribution",
        "the tokens emitted at each position follow the target model, for drafts equal to it, "
        "near, far and disjoint",
        _LEVIATHAN,
        "Speculative decoding must not change what the model says.",
        distribution,
    ),
    SamplerLaw(
        "acceptance",
        "the first draft token is accepted with probability Σ min(p, q)",
        _LEVIATHAN,
        "A smaller probability wastes drafts.",
        acceptance,
        convention=True,
    ),
    SamplerLaw(
        "independent rows",
        "tokens emitted for successive rows are independent",
        "the categorical distribution with the probabilities of softmax",
        "The same noise in each row makes all continuations alike.",
        independence,
    ),
    SamplerLaw(
        "seeds",
        "the same seed gives the same result, another seed another",
        "the categorical distribution with the probabilities of softmax",
        "A test must be repeatable.",
        seeds,
        requires=("seed",),
    ),
)
