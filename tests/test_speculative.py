"""Verification of drafts: the distribution of its tokens, exactly and by chi-square tests."""

import ml_dtypes
import numpy as np
import pytest
import torch
from scipy import stats

import exact
import logitlab
from arrays import inf, nan
from logitlab import Sampler
from logitlab.sampling import speculative

RNG = np.random.default_rng(5)
ALPHA = 1e-6
K = 5
TARGET = RNG.normal(0, 1.5, (3, K))
CLOSE = TARGET[:2] + RNG.normal(0, 0.3, (2, K))
FAR = RNG.normal(0, 2, (2, K))
# Classes 0 to 2 of the target, 3 and 4 of the draft.
HALF_TARGET = np.where(np.arange(K) < 3, TARGET, -inf)
HALF_DRAFT = np.where(np.arange(K) < 3, -inf, FAR)
SETTINGS = {
    "plain": {},
    "truncated": {"temperature": 0.7, "top_k": 3},
    "top_p before the temperature": {"temperature": 2.0, "top_p": 0.8, "order": "llama.cpp"},
    "temperature below 0": {"temperature": -1.5},
}


def message_of(error, *args, **kwargs):
    with pytest.raises(error) as caught:
        logitlab.verify_draft(*args, **kwargs)
    return str(caught.value)


def drafted(draft, n, options, seed=11):
    """Tokens of n drafts, (n, S), each sampled from the logits (S, K)."""
    positions = [
        logitlab.sample(np.broadcast_to(z, (n, z.size)), rng=seed + i, **options)
        for i, z in enumerate(draft)
    ]
    return np.stack(positions, axis=1)


def emitted(tokens, accepted, next_token):
    """The tokens that a verification returns, -1 after the last."""
    sequence = np.concatenate([tokens, np.full((len(tokens), 1), -1)], axis=1)
    sequence[np.arange(len(tokens)), accepted] = next_token
    sequence[np.arange(sequence.shape[1]) > accepted[:, None]] = -1
    return sequence


def p_values(sequence, target, options):
    """Of chi-square tests of the tokens at each position against the target."""
    found = []
    for position, z in enumerate(target):
        tokens = sequence[:, position]
        counts = np.bincount(tokens[tokens >= 0], minlength=K)
        p = distribution(z, options)
        assert counts[p == 0].sum() == 0
        if (p > 0).sum() > 1 and counts.any():
            expected = p[p > 0] * counts.sum()
            found.append(stats.chisquare(counts[p > 0], expected).pvalue)
    return found


def distribution(z, options):
    """The probabilities that sampling with these options gives the classes."""
    t = options.get("temperature", 1.0)
    return logitlab.softmax(logitlab.truncate(z, **options), temperature=t)


def run(target, draft, options, n, draft_options=None, seed=3):
    """The p-values of n verified drafts."""
    tokens = drafted(draft, n, options if draft_options is None else draft_options)
    accepted, next_token, _ = logitlab.verify_draft(
        np.broadcast_to(target, (n, *target.shape)),
        np.broadcast_to(draft, (n, *draft.shape)),
        tokens,
        draft_sampler=None if draft_options is None else Sampler(**draft_options),
        rng=seed,
        **options,
    )
    return p_values(emitted(tokens, accepted, next_token), target, options)


CASES = {
    "equal": (TARGET, TARGET[:2]),
    "close": (TARGET, CLOSE),
    "far": (TARGET, FAR),
    "disjoint": (HALF_TARGET, HALF_DRAFT[:2]),
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("logits", CASES.values(), ids=CASES)
def test_tokens_have_the_distribution_of_the_target(logits, options):
    """At each position, of the tokens of 50,000 drafts."""
    assert min(run(*logits, options, 50_000)) > ALPHA


def test_settings_of_the_draft():
    """Drafts from another temperature and truncation than the target's."""
    target = {"temperature": 0.8, "top_p": 0.9}
    for draft in ({}, {"temperature": 2.0, "top_k": 2}):
        assert min(run(TARGET, CLOSE, target, 50_000, draft)) > ALPHA


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_drafts_without_random_choice(options):
    """q is 1 at the token: n-gram drafts."""
    n = 50_000
    for token in (int(TARGET[0].argmax()), int(TARGET[0].argmin())):
        tokens = np.full((n, 2), token)
        target = np.broadcast_to(TARGET, (n, 3, K))
        accepted, next_token, _ = logitlab.verify_draft(target, None, tokens, rng=2, **options)
        sequence = emitted(tokens, accepted, next_token)
        assert min(p_values(sequence, TARGET, options)) > ALPHA
        p = distribution(TARGET[0], options)[token]
        assert (accepted > 0).mean() == pytest.approx(p, abs=6 * np.sqrt(p * (1 - p) / n))


def test_tokens_of_one_draft_are_independent():
    """The counts of pairs of tokens are those of two independent samples."""
    n = 100_000
    tokens = drafted(CLOSE, n, {})
    accepted, next_token, _ = logitlab.verify_draft(
        np.broadcast_to(TARGET, (n, 3, K)), np.broadcast_to(CLOSE, (n, 2, K)), tokens, rng=4
    )
    sequence = emitted(tokens, accepted, next_token)
    for i in (0, 1):
        pairs = sequence[accepted > i][:, i : i + 2]
        counts = np.zeros((K, K))
        np.add.at(counts, tuple(pairs.T), 1)
        # Rows: the accepted tokens, distributed as min(p, q).
        expected = counts.sum(1, keepdims=True) * logitlab.softmax(TARGET[i + 1])
        few = expected < 5
        statistic = ((counts - expected) ** 2 / expected)[~few].sum()
        assert stats.chi2.sf(statistic, (~few).sum() - K) > ALPHA


def test_settings_of_each_row():
    """Rows in turn have other settings; each row is verified as it is alone."""
    n = 30_000
    settings = {
        "temperature": np.tile([0.5, 1.0, 2.0], n // 3),
        "top_k": np.tile([2, 5, 3], n // 3),
        "top_p": np.tile([1.0, 0.8, 1.0], n // 3),
    }
    target, draft = np.broadcast_to(TARGET, (n, 3, K)), np.broadcast_to(CLOSE, (n, 2, K))
    tokens = np.stack(
        [logitlab.sample(draft[:, i], rng=20 + i, **settings) for i in range(2)], axis=1
    )
    results = logitlab.verify_draft(target, draft, tokens, rng=1, **settings)
    sequence = emitted(tokens, *results[:2])
    for i in range(3):
        rows = slice(i, None, 3)
        options = {name: x[i].item() for name, x in settings.items()}
        assert min(p_values(sequence[rows], TARGET, options)) > ALPHA
        rows = slice(i, 300, 3)
        alone = logitlab.verify_draft(
            target[rows], draft[rows], tokens[rows], rng=1, row_keys=np.arange(n)[rows], **options
        )
        for whole, part in zip(results, alone, strict=True):
            assert whole[rows].tobytes() == part.tobytes()


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_output_distribution_is_exact(options):
    """The probability of every token, summed over all drafts and decisions."""
    t = options.get("temperature", 1.0)
    for z, draft in ((TARGET[0], CLOSE[0]), (TARGET[0], FAR[0]), (HALF_TARGET[0], FAR[0])):
        rows = np.stack([z] * K), np.stack([draft] * K)
        p, q = (
            speculative._check_model("z", x[:, None], Sampler(**options)).at(np.arange(K), 0)
            for x in rows
        )
        tokens = np.arange(K)
        log_q = q.log_prob(tokens)
        log_q[log_q == -inf] = 0  # never drafted
        accepted = speculative.acceptance_probability(p.log_prob(tokens), log_q)
        weights = speculative.residual_weights(p.probabilities(), q.probabilities())
        residual = weights / weights.sum(1, keepdims=True)
        expected = exact.softmax(logitlab.truncate(z, **options).tolist(), t)
        drafts = exact.softmax(logitlab.truncate(draft, **options).tolist(), t)
        for token in range(K):
            found = drafts[token] * float(accepted[token])
            for i in range(K):
                if drafts[i]:
                    found += drafts[i] * (1 - float(accepted[i])) * float(residual[i, token])
            assert float(found - expected[token]) == pytest.approx(0, abs=1e-15)


def test_planted_faults_are_found(monkeypatch):
    """Public errors of engines: tokens replaced from p, a strict comparison, p and q exchanged."""
    faults = {
        "residual_weights": [lambda p, q: p, lambda p, q: np.maximum(q - p, 0) + 1e-300],
        "acceptance_probability": [
            lambda log_p, log_q: np.exp(np.minimum(log_q - log_p, 0)),
            lambda log_p, log_q: np.exp(log_p),
            lambda log_p, log_q: (log_p > log_q) * 1.0,
        ],
    }
    for name, functions in faults.items():
        for function in functions:
            with monkeypatch.context() as patched:
                patched.setattr(speculative, name, function)
                assert min(run(TARGET, FAR, {}, 50_000)) < ALPHA


def test_greedy():
    """The draft is accepted up to its first token that is not the largest logit of the target."""
    target = RNG.normal(size=(200, 4, 7)).astype(np.float32)
    tokens = target[:, :3].argmax(-1)
    wrong = RNG.integers(0, 4, 200)
    tokens[np.arange(200)[wrong < 3], wrong[wrong < 3]] += 1
    tokens %= 7
    draft = np.zeros((200, 3, 7))
    np.put_along_axis(draft, tokens[..., None], 1.0, axis=-1)
    for draft_z in (draft, None):
        accepted, next_token, log_prob = logitlab.verify_draft(
            target, draft_z, tokens, temperature=0, rng=0
        )
        np.testing.assert_array_equal(accepted, wrong)
        np.testing.assert_array_equal(next_token, target.argmax(-1)[np.arange(200), wrong])
        assert not log_prob.any()


def test_equal_logits_are_always_accepted():
    z = RNG.normal(size=(5000, 3, 40)).astype(np.float32)
    tokens = logitlab.sample(z[:, :2], top_p=0.9, temperature=0.7, rng=0)
    accepted = logitlab.verify_draft(z, z[:, :2], tokens, top_p=0.9, temperature=0.7, rng=1)[0]
    assert (accepted == 2).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_log_prob(dtype):
    """To the bit those of `log_prob` at the tokens, 0 after them; tensors give the same results."""
    z = RNG.normal(0, 3, (200, 4, 30)).astype(dtype)
    draft = (z[:, :3] + RNG.normal(size=(200, 3, 30))).astype(dtype)
    options = {"top_k": 8, "temperature": 0.8}
    tokens = logitlab.sample(draft, rng=0, **options)
    result = logitlab.verify_draft(z, draft, tokens, rng=1, **options)
    accepted, next_token, log_prob = result
    assert log_prob.dtype == dtype
    sequence = emitted(tokens, accepted, next_token)
    support = logitlab.Support.from_mask(logitlab.truncate(z, **options) != -inf)
    expected = logitlab.log_prob(z, np.maximum(sequence, 0), temperature=0.8, support=support)
    expected[sequence < 0] = 0
    assert log_prob.tobytes() == expected.tobytes()
    kind = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}[np.dtype(dtype).itemsize]
    kind = torch.float16 if dtype is np.float16 else kind
    tensors = [torch.from_numpy(x.astype(np.float64)).to(kind) for x in (z, draft)]
    found = logitlab.verify_draft(*tensors, torch.from_numpy(tokens), rng=1, **options)
    for tensor, array in zip(found, result, strict=True):
        assert tensor.dtype == (kind if tensor.is_floating_point() else torch.int64)
        np.testing.assert_array_equal(tensor.double(), array.astype(np.float64))


def test_dynamic_temperature():
    """The log-probabilities are those of samples."""
    sampler = Sampler(dynatemp_range=0.5, min_p=0.1)
    z = RNG.normal(size=(40, 1, 6))
    _, token, log_prob = logitlab.verify_draft(
        z, None, np.zeros((40, 0), int), rng=0, dynatemp_range=0.5, min_p=0.1
    )
    tokens, sampled = sampler.sample_with_log_prob(z[:, 0], 200, rng=0)
    for row in range(40):
        values = sampled[row][tokens[row] == token[row]]
        assert log_prob[row, 0] == values[0]


def test_drafts_of_several_lengths():
    """Rows with padding are those of drafts without it, for every cut of the batch."""
    z, draft = RNG.normal(size=(60, 5, 6)), RNG.normal(size=(60, 4, 6))
    tokens = logitlab.sample(draft, rng=0)
    lengths = np.arange(60) % 5
    padded = np.where(np.arange(4) < lengths[:, None], tokens, -1)
    z[np.arange(5) > lengths[:, None]] = nan
    result = logitlab.verify_draft(z, draft, padded, rng=1)
    assert (result[0] <= lengths).all()
    for length in range(5):
        rows = np.flatnonzero(lengths == length)
        part = logitlab.verify_draft(
            z[rows, : length + 1], draft[rows, :length], tokens[rows, :length], rng=1, row_keys=rows
        )
        np.testing.assert_array_equal(part[0], result[0][rows])
        np.testing.assert_array_equal(part[1], result[1][rows])
        np.testing.assert_array_equal(part[2], result[2][rows, : length + 1])
        assert not result[2][rows, length + 1 :].any()


def test_blocks_do_not_matter(monkeypatch):
    z, draft = RNG.normal(size=(50, 3, 6)), RNG.normal(size=(50, 2, 6))
    tokens = logitlab.sample(draft, rng=0)
    options = {"top_p": np.linspace(0.3, 1, 50)}
    tokens = logitlab.sample(draft, rng=0, top_p=options["top_p"][:, None])
    whole = logitlab.verify_draft(z, draft, tokens, rng=1, **options)
    monkeypatch.setattr(speculative, "_BLOCK_SIZE", 6 * 7)
    for a, b in zip(whole, logitlab.verify_draft(z, draft, tokens, rng=1, **options), strict=True):
        assert a.tobytes() == b.tobytes()


def test_residual_that_rounding_makes_zero():
    """It is replaced by the target."""
    p = np.array([[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(speculative.residual_weights(p, p), p)
    q = np.array([[0.25, 0.75], [0.25, 0.75]])
    np.testing.assert_array_equal(speculative.residual_weights(p, q), [[0.25, 0.75], [0.25, 0]])


def test_empty_batches_and_drafts():
    accepted, next_token, log_prob = logitlab.verify_draft(
        np.zeros((0, 3, 4)), np.zeros((0, 2, 4)), np.zeros((0, 2), int)
    )
    assert accepted.shape == next_token.shape == (0,)
    assert log_prob.shape == (0, 3)
    z = RNG.normal(size=(7, 1, 4))
    accepted, next_token, _ = logitlab.verify_draft(z, np.zeros((7, 0, 4)), np.zeros((7, 0), int))
    assert not accepted.any()
    assert ((next_token >= 0) & (next_token < 4)).all()


def test_generators_advance():
    z, draft = np.zeros((100, 3, 9)), np.zeros((100, 2, 9))
    tokens = logitlab.sample(draft, rng=0)
    rng = np.random.default_rng(0)
    first, second = (logitlab.verify_draft(z, draft, tokens, rng=rng)[1] for _ in range(2))
    assert (first != second).any()


def test_errors():
    """Each names the row, and says what came."""
    z, draft, tokens = np.zeros((3, 3, 4)), np.zeros((3, 2, 4)), np.zeros((3, 2), int)
    longer = np.zeros((3, 4), int)
    longer[0, 1:] = -1
    assert message_of(ValueError, z, np.zeros((3, 4, 4)), longer) == (
        "target_z must have shape (N, S + 1, K) = (3, 5, 4) for tokens of shape (3, 4), "
        "got (3, 3, 4); the draft of row 1 has 4 tokens"
    )
    assert message_of(ValueError, z, draft[:, :1], tokens) == (
        "draft_z must have shape (N, S, K) = (3, 2, 4), got (3, 1, 4)"
    )
    assert message_of(ValueError, z[0], draft, tokens) == (
        "target_z must have 3 dimensions, got shape (3, 4)"
    )
    rule = "tokens must be from 0 to 3, or -1 after the end of a draft, got "
    for row, message in (
        ([4, 0], f"{rule}4 in row 1 at position 0"),
        ([0, -2], f"{rule}-2 in row 1 at position 1"),
        ([-1, 0], "tokens must be -1 after the end of a draft, got 0 in row 1 at position 1"),
    ):
        assert message_of(ValueError, z, draft, [[0, 0], row, [0, 0]]) == message
    assert message_of(TypeError, z, draft, tokens * 0.5) == (
        "tokens must be an integer array, got float64"
    )
    for name, bad in (("target_z", z), ("draft_z", draft)):
        for value in (nan, -inf):
            given = {"target_z": z, "draft_z": draft, name: bad.copy()}
            given[name][2, 0] = value
            assert message_of(ValueError, given["target_z"], given["draft_z"], tokens, rng=0) == (
                f"{name} has no distribution in row 2 at position 0: it contains NaN, or no "
                "category is left"
            )
    last = z.copy()
    last[1, 2] = -inf
    assert message_of(ValueError, last, draft, tokens, rng=0) == (
        "target_z has no distribution in row 1 at position 2: it contains NaN, or no category is "
        "left"
    )
    draft[1, 1, 0] = -inf
    assert message_of(ValueError, z, draft, tokens, rng=0) == (
        "tokens must have a probability > 0 under draft_z and its settings, "
        "got 0 in row 1 at position 1"
    )
    assert message_of(ValueError, z, None, tokens, row_keys=[1, 2]) == (
        "row_keys must have the batch shape (3,) of z, got shape (2,)"
    )
    assert message_of(ValueError, z, None, tokens, top_k=[1, 2]).startswith("top_k must")
    assert message_of(ValueError, z, None, tokens, xtc_probability=0.5).startswith(
        "xtc_probability must be 0 or 1"
    )
    assert message_of(TypeError, z, None, tokens, draft_sampler={}).startswith("draft_sampler must")
