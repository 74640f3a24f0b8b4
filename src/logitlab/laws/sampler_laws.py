"""Laws of samplers: support, frequencies, independence, seeds, temperature and truncation."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from logitlab._arrays import bincount
from logitlab._exact.formats import Floats
from logitlab.laws.cases import Case, equal_case, explicit_case, normal_case
from logitlab.laws.frequencies import show, softmax, tail_bound
from logitlab.laws.law import Finding, SamplerLaw, certain
from logitlab.laws.tested_sampler import Integers, TestedSampler
from logitlab.sampling import truncate

_ORDERS = ("transformers", "vllm", "llama.cpp", "sglang")
_MANY, _FEW = 100_000, 20_000  # samples


def _counts(tokens: Integers, k: int) -> Any:
    """The counts of k categories and, in one more, of tokens that do not exist."""
    inside = (tokens >= 0) & (tokens < k)
    return bincount(np.where(inside, tokens, k).ravel(), minlength=k + 1)


def _compare(
    tokens: Integers, p: Floats, code: str, what: str = "counts", note: str = ""
) -> Finding:
    """Tokens against their probabilities."""
    counts, p = _counts(tokens, p.size), np.append(p, 0.0)
    shown = slice(0, len(p) - 1 if counts[-1] == 0 else None)
    text = f"{what} {show(counts[shown])}"
    return Finding(tail_bound(counts, p), code, text, show(tokens.size * p[shown]), note=note)


def _frequencies(
    sampler: TestedSampler, case: Case, n: int, seed: int, **options: Any
) -> Iterator[Finding]:
    """The frequencies of every row against its probabilities after truncation."""
    tokens = sampler(case, n, seed, **options)
    code = sampler.code(case, n, seed, **options)
    for i, row in enumerate(tokens):
        p = _distribution(case.z[i], "transformers", options)
        yield _compare(row, p, code, f"row {i}: counts" if len(tokens) > 1 else "counts")


def _distribution(z: Floats, order: str, options: dict[str, Any]) -> Floats:
    t = options.get("temperature", 1.0)
    if order != "sglang":
        return softmax(truncate(z, order=order, **options), t)
    # Every stage is applied to the same distribution.
    stages = [{key: value} for key, value in options.items() if key != "temperature"]
    kept = [truncate(z, temperature=t, **stage) for stage in stages]
    return softmax(np.minimum.reduce([z, *kept]), t)


def support(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """Excluded categories and categories that do not exist."""
    alone = np.where(np.arange(81) == 40, 0.0, -np.inf)[None, :]
    cases = [
        explicit_case([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]], "float32"),
        explicit_case([[5.0, -np.inf], [-np.inf, -50.0]], "float32"),
        explicit_case([[0.0], [-100.0]], "float32"),
        Case(alone, "float32", "np.where(np.arange(81) == 40, 0.0, -np.inf)[None, :]"),
    ]
    for case in cases:
        for row, counts in zip(case.z, map_counts(sampler, case, seed), strict=True):
            wrong = np.flatnonzero((counts > 0) & np.append(row == -np.inf, True))
            text = ", ".join(f"{counts[i]} of category {i}" for i in wrong)
            code = sampler.code(case, _FEW, seed)
            yield certain(not wrong.size, code, f"samples, {text}", "none of these")


def map_counts(sampler: TestedSampler, case: Case, seed: int) -> Iterator[Any]:
    """The counts of each row."""
    for tokens in sampler(case, _FEW, seed):
        yield _counts(tokens, case.n_classes)


def frequencies(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """Short rows; rows of large logits, which a narrower dtype rounds; improbable categories."""
    rows = [[0.0, 1.0], [0.0, 0.0, 0.0], [20.01, 20.06, 20.04, 19.98], [0.0, -60.0, -60.0, -90.0]]
    rows += [[300.01, 300.2, 299.9], [-1000.0, -1001.0, -1002.5]]
    for i, row in enumerate(rows):
        yield from _frequencies(sampler, explicit_case([row], "float32"), _MANY, seed + i)
    for k in (10, 33, 100):
        yield from _frequencies(sampler, normal_case(1, k, 1.5, k, "float32"), _FEW, seed + k)


def long_rows(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """The halves and quarters of long rows, of which every entry is improbable."""
    k, n = 4096, 4000
    rare = Case(np.repeat([[0.0, -7.0]], k // 2, axis=1), "float32", "")
    rare = Case(rare.z, "float32", f"np.repeat([[0.0, -7.0]], {k // 2}, axis=1)")
    for case, parts in ((rare, 2), (equal_case(k, "float32"), 4)):
        tokens = sampler(case, n, seed)[0]
        p = softmax(case.z[0]).reshape(parts, -1).sum(axis=-1)
        outside = np.where((tokens < 0) | (tokens >= k), parts, tokens * parts // k)
        yield _compare(outside, p, sampler.code(case, n, seed), "counts of equal parts of the row")


def batch(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """The frequencies of every row of a batch of different rows."""
    yield from _frequencies(sampler, normal_case(17, 6, 1.5, 3, "float32"), _FEW, seed)


def _joint(a: Integers, b: Integers, p: Floats, code: str, what: str) -> Finding:
    """The joint counts of two sequences of tokens against independence."""
    k = p.size
    return _compare(a * k + b, np.outer(p, p).ravel(), code, f"joint counts of {what}")


_FOUR = [0.0, 0.3, -0.2, 0.1]


def rows(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """Tokens of equal rows at different positions are independent."""
    case = explicit_case([_FOUR] * 4, "float32")
    tokens, code = sampler(case, _FEW, seed), sampler.code(case, _FEW, seed)
    p = softmax(case.z[0])
    for i, j in itertools.combinations(range(4), 2):
        yield _joint(tokens[i], tokens[j], p, code, f"rows {i} and {j}")


def draws(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """Tokens of one row are independent of the previous token and of those half the way back."""
    case = explicit_case([_FOUR], "float32")
    tokens, code = sampler(case, 2 * _FEW, seed)[0], sampler.code(case, 2 * _FEW, seed)
    p = softmax(case.z[0])
    yield _joint(tokens[::2], tokens[1::2], p, code, "successive draws")
    yield _joint(tokens[:_FEW], tokens[_FEW:], p, code, "the two halves of the draws")


def seeds(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """A seed repeats its draws; those of another are independent, in other rows too."""
    case = explicit_case([_FOUR] * 2, "float32")
    first, again, other = (sampler(case, _FEW, s) for s in (seed, seed, seed + 1))
    code = sampler.code(case, _FEW, seed)
    same = bool((first == again).all())
    yield certain(same, code, "other samples at the second call", "the same samples")
    p = softmax(case.z[0])
    for i, j in itertools.product(range(2), range(2)):
        what = f"row {i} with seed {seed} and row {j} with seed {seed + 1}"
        yield _joint(first[i], other[j], p, code, what)


def batch_samples(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """The samples of the first row alone and in a batch."""
    case = normal_case(9, 10, 1.0, 5, "float32")
    alone = Case(case.z[:1], "float32", f"{case.source}[:1]")
    same = (sampler(case, 50, seed)[0] == sampler(alone, 50, seed)[0]).all()
    code = sampler.code(case, 50, seed)
    yield certain(bool(same), code, "the first row has other samples than alone", "the same")


def temperature(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """Small and large temperatures."""
    for t in (0.25, 0.7, 2.5, 20.0):
        for row in ([1.0, 0.0, 0.5, -2.0], [20.01, 20.06, 20.04, 19.98]):
            case = explicit_case([row], "float32")
            yield from _frequencies(sampler, case, _MANY, seed, temperature=t)
    case = explicit_case([[0.0, 1.0, 0.5]], "float32")
    yield from _frequencies(sampler, case, _FEW, seed, temperature=1e-3)


def temperature_zero(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """The largest logit at T = 0."""
    case = explicit_case([[0.0, 3.0, 2.999]], "float32")
    counts = _counts(sampler(case, 100, seed, temperature=0.0)[0], 3)
    code = sampler.code(case, 100, seed, temperature=0.0)
    yield certain(counts[1] == 100, code, f"counts {show(counts[:3])}", "[0, 100, 0]")


_VALUES: dict[str, tuple[float, ...]] = {
    "top_k": (1, 3, 20),
    "top_p": (0.1, 0.5, 0.9, 0.999),
    "min_p": (0.02, 0.3, 1.0),
}


def _truncation(name: str) -> Any:
    def tests(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
        """Batches of rows, whose kept sets differ."""
        for value in _VALUES[name]:
            case = normal_case(3, 20, 2.0, 11, "float32")
            yield from _frequencies(sampler, case, _FEW, seed, **{name: value})

    return tests


def ties_in_top_k(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """All ties of the k-th largest logit are kept."""
    case = explicit_case([[1.0, 1.0, 0.0, 1.0]], "float32")
    yield from _frequencies(sampler, case, _FEW, seed, top_k=2)


def ties_in_top_p(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """Equal logits are kept from the lowest index on."""
    case = explicit_case([[1.0, 1.0, 1.0, 1.0]], "float32")
    yield from _frequencies(sampler, case, _FEW, seed, top_p=0.4)


def order(sampler: TestedSampler, seed: int) -> Iterator[Finding]:
    """The stages together, in the order of one engine for all settings."""
    settings = [{"temperature": 3.0, "top_p": 0.8}, {"temperature": 0.4, "top_p": 0.8}]
    if sampler.names["min_p"]:
        settings += [{"temperature": t, "min_p": 0.15} for t in (3.0, 0.4)]
        settings += [{"min_p": 0.1, "top_p": 0.7}]
    if sampler.names["top_k"]:
        settings += [{"top_k": 4, "top_p": 0.7}]
    case = normal_case(1, 20, 2.0, 12, "float32")
    found: dict[str, list[Finding]] = {name: [] for name in _ORDERS}
    for options in settings:
        tokens = sampler(case, _FEW, seed, **options)[0]
        code = sampler.code(case, _FEW, seed, **options)
        for name in _ORDERS:
            p = _distribution(case.z[0], name, options)
            found[name].append(_compare(tokens, p, code))
    worst = [min(f, key=lambda finding: finding.p_value) for f in found.values()]
    best = max(worst, key=lambda finding: finding.p_value)
    names = [name for name, w in zip(found, worst, strict=True) if w.p_value == best.p_value]
    # The smallest of several probabilities counts once for each of them.
    p_value = min(1.0, best.p_value * len(settings))
    yield best._replace(p_value=p_value, note=f"as {' and '.join(names)}")


_CATEGORICAL = "the categorical distribution with the probabilities of softmax"
_HOLTZMAN = "A. Holtzman et al., The curious case of neural text degeneration, arXiv:1904.09751"
_FAN = "A. Fan, M. Lewis, Y. Dauphin, Hierarchical neural story generation, arXiv:1805.04833"
_NGUYEN = "N. Nguyen et al., Turning up the heat: min-p sampling, arXiv:2407.01082"

LAWS = (
    SamplerLaw(
        "support",
        "no category with the logit -inf is sampled, and none that does not exist",
        _CATEGORICAL,
        "An excluded token must not be sampled.",
        support,
    ),
    SamplerLaw(
        "frequencies",
        "the frequencies agree with the probabilities, for large logits too",
        _CATEGORICAL,
        "Samples follow the probabilities.",
        frequencies,
    ),
    SamplerLaw(
        "long rows",
        "each part of a row of 4096 classes is sampled with its probability",
        _CATEGORICAL,
        "A cumulative sum in low precision never reaches the last categories.",
        long_rows,
    ),
    SamplerLaw(
        "batch",
        "every row of a batch follows its own probabilities",
        _CATEGORICAL,
        "A row must not get the token of another.",
        batch,
    ),
    SamplerLaw(
        "independent rows",
        "tokens of equal rows in one batch are independent",
        _CATEGORICAL,
        "The same noise in each row makes all continuations alike.",
        rows,
    ),
    SamplerLaw(
        "independent draws",
        "successive draws from one row are independent",
        _CATEGORICAL,
        "Repeated draws carry less information than their number says.",
        draws,
    ),
    SamplerLaw(
        "seeds",
        "the same seed gives the same samples, another seed independent ones, in other rows too",
        _CATEGORICAL,
        "A test must be repeatable, and two seeds must be two experiments.",
        seeds,
        requires=("seed",),
    ),
    SamplerLaw(
        "batch samples",
        "with the same seed, the samples of the first row are the same alone and in a batch",
        "a row's samples are a function of the row and the seed",
        "A request must not depend on the requests beside it.",
        batch_samples,
        requires=("seed",),
        convention=True,
    ),
    SamplerLaw(
        "temperature",
        "the frequencies are those of softmax(z / T), T from 1e-3 to 20",
        "G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531",
        "An ignored temperature gives argmax or T = 1.",
        temperature,
        requires=("temperature",),
    ),
    SamplerLaw(
        "temperature zero",
        "T = 0 gives the largest logit",
        "the limit of the formula",
        "Greedy decoding is T = 0, without a special case in the caller.",
        temperature_zero,
        requires=("temperature",),
        convention=True,
    ),
    SamplerLaw(
        "top_k",
        "the k largest logits are kept, with their probabilities renormalised",
        _FAN,
        "A token outside the kept set must not be sampled.",
        _truncation("top_k"),
        requires=("top_k",),
    ),
    SamplerLaw(
        "top_p",
        "the smallest set of the most probable classes with a mass of at least p is kept",
        _HOLTZMAN,
        "One class more or fewer changes every probability.",
        _truncation("top_p"),
        requires=("top_p",),
    ),
    SamplerLaw(
        "min_p",
        "the classes with at least min_p times the largest probability are kept",
        _NGUYEN,
        "A token outside the kept set must not be sampled.",
        _truncation("min_p"),
        requires=("min_p",),
    ),
    SamplerLaw(
        "order of stages",
        "temperature and truncation together follow transformers, vLLM, SGLang or llama.cpp",
        "documentation of these engines",
        "The order changes the kept set.",
        order,
        requires=("temperature", "top_p"),
    ),
    SamplerLaw(
        "ties in top_k",
        "top_k keeps all ties of the k-th largest logit",
        "transformers and vLLM",
        "The index of a token should not decide.",
        ties_in_top_k,
        requires=("top_k",),
        convention=True,
    ),
    SamplerLaw(
        "ties in top_p",
        "top_p keeps equal logits from the lowest index on",
        "a stable sort in descending order",
        "The kept set is the smallest one and repeatable.",
        ties_in_top_p,
        requires=("top_p",),
        convention=True,
    ),
)
