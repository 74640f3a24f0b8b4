"""A correct sampler and a correct verifier in plain NumPy, and functions with one defect each."""

import ml_dtypes
import numpy as np


def softmax(z, temperature=1.0):
    e = np.exp((z - z.max(axis=-1, keepdims=True)) / temperature)
    return e / e.sum(axis=-1, keepdims=True)


def keep(z, mask):
    return np.where(mask, z, -np.inf)


def truncated(z, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """The logits over T, truncated in the order of transformers."""
    z = z.astype(np.float64)
    if temperature == 0:
        return keep(z * 0, np.arange(z.shape[-1]) == z.argmax(axis=-1)[:, None])
    z = z / temperature
    if top_k is not None:
        z = keep(z, z >= np.sort(z, axis=-1)[:, -min(top_k, z.shape[-1]), None])
    rank = np.argsort(-z, axis=-1, kind="stable")
    p = np.take_along_axis(softmax(z), rank, axis=-1)
    inside = np.cumsum(p, axis=-1) - p < top_p
    kept = np.zeros(z.shape, bool)
    np.put_along_axis(kept, rank, inside, axis=-1)
    z = keep(z, kept)
    p = softmax(z)
    return keep(z, p >= min_p * p.max(axis=-1, keepdims=True))


def draw(p, n, rng):
    """n categories for each row of probabilities, by the inverse of the cumulative sum."""
    steps = np.cumsum(p, axis=-1)
    u = rng.random((len(p), n)) * steps[:, -1:]
    return np.stack([np.searchsorted(s, x, side="right") for s, x in zip(steps, u, strict=True)])


def correct(logits, n, seed=0, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    z = truncated(logits, temperature, top_k, top_p, min_p)
    return draw(softmax(z), n, np.random.default_rng(seed))


# Defects; DEFECTS has the law that reports each.


def excluded_sampled(logits, n, seed=0):
    return correct(np.where(np.isinf(logits), -10, logits), n, seed)


def last_plus_one(logits, n, seed=0):
    return correct(logits, n, seed) + 1


def greedy(logits, n, seed=0, temperature=1.0):
    return np.repeat(logits.argmax(axis=-1)[:, None], n, axis=1)


def float16_sums(logits, n, seed=0):
    steps = np.cumsum(softmax(logits).astype(np.float16), axis=-1)
    u = np.random.default_rng(seed).random((len(logits), n)) * steps[:, -1:]
    return np.stack([np.searchsorted(s, x, side="right") for s, x in zip(steps, u, strict=True)])


def row_copied_in_batches_above_7(logits, n, seed=0):
    z = logits.copy()
    if 7 < len(z) < 1000:
        z[5] = z[4]
    return correct(z, n, seed)


def same_noise_in_rows(logits, n, seed=0):
    return np.concatenate([correct(row[None], n, seed) for row in logits])


def repeated_noise(logits, n, seed=0):
    return np.repeat(correct(logits, (n + 1) // 2, seed), 2, axis=1)[:, :n]


def seed_ignored(logits, n, seed=0):
    return correct(logits, n, None)


def one_seed_only(logits, n, seed=0):
    return correct(logits, n, 0)


def seed_plus_row(logits, n, seed=0):
    return np.concatenate([correct(row[None], n, seed + i) for i, row in enumerate(logits)])


def noise_of_the_whole_batch(logits, n, seed=0):
    rng = np.random.default_rng(seed)
    rng.random(len(logits))
    return draw(softmax(logits.astype(np.float64)), n, rng)


def temperature_squared(logits, n, seed=0, temperature=1.0):
    return correct(logits, n, seed, temperature**2)


def division_by_zero(logits, n, seed=0, temperature=1.0):
    return draw(softmax(logits / temperature), n, np.random.default_rng(seed))


def one_more_in_top_k(logits, n, seed=0, top_k=None):
    return correct(logits, n, seed, top_k=None if top_k is None else top_k + 1)


def last_of_top_p_cut(logits, n, seed=0, top_p=1.0):
    z = logits.astype(np.float64)
    rank = np.argsort(-z, axis=-1)
    sums = np.cumsum(np.take_along_axis(softmax(z), rank, axis=-1), axis=-1)
    inside = sums <= top_p
    inside[:, 0] = True
    kept = np.zeros(z.shape, bool)
    np.put_along_axis(kept, rank, inside, axis=-1)
    return draw(softmax(keep(z, kept)), n, np.random.default_rng(seed))


def absolute_min_p(logits, n, seed=0, min_p=0.0):
    p = softmax(logits.astype(np.float64))
    p = np.where((p >= min_p) | (p == p.max(axis=-1, keepdims=True)), p, 0)
    return draw(p, n, np.random.default_rng(seed))


def temperature_between_stages(logits, n, seed=0, temperature=1.0, top_p=1.0, min_p=0.0):
    z = truncated(logits, 1.0, None, 1.0, min_p)
    z = truncated(z, temperature, None, top_p) if temperature < 1 else truncated(z, 1.0, 5, top_p)
    return draw(softmax(z, 1 if temperature < 1 else temperature), n, np.random.default_rng(seed))


def ties_cut_by_index(logits, n, seed=0, top_k=None):
    return correct(logits - 1e-6 * np.arange(logits.shape[-1]), n, seed, top_k=top_k)


def ties_all_kept(logits, n, seed=0, top_p=1.0):
    z = truncated(logits, top_p=top_p)
    lowest = np.where(np.isinf(z), np.inf, z).min(axis=-1, keepdims=True)
    return correct(keep(logits, logits >= lowest), n, seed)


DEFECTS = {
    excluded_sampled: "support",
    last_plus_one: "support",
    greedy: "frequencies",
    float16_sums: "long rows",
    row_copied_in_batches_above_7: "batch",
    same_noise_in_rows: "independent rows",
    repeated_noise: "independent draws",
    seed_ignored: "seeds",
    one_seed_only: "seeds",
    seed_plus_row: "seeds",
    noise_of_the_whole_batch: "batch samples",
    temperature_squared: "temperature",
    division_by_zero: "temperature zero",
    one_more_in_top_k: "top_k",
    last_of_top_p_cut: "top_p",
    absolute_min_p: "min_p",
    temperature_between_stages: "order of stages",
    ties_cut_by_index: "ties in top_k",
    ties_all_kept: "ties in top_p",
}


# Verifiers of drafts.


def one_of(p, rng):
    """One category for each row of weights."""
    steps = np.cumsum(p, axis=-1)
    u = rng.random(len(p))[:, None] * steps[:, -1:]
    return (u >= steps).sum(axis=-1)


def residual(p, q):
    rest = np.maximum(p - q, 0)
    return np.where(rest.sum(axis=-1, keepdims=True) > 0, rest, p)


def of_rows(x, positions):
    return x[np.arange(len(x)), positions]


def verify(target_logits, draft_logits, draft_tokens, seed=0, correction=residual):
    """Rejection sampling; the token after a rejected one comes from the residual."""
    rng = np.random.default_rng(seed)
    p = softmax(target_logits.astype(np.float64))
    q = softmax(draft_logits.astype(np.float64))
    s = q.shape[1]
    drafted = np.take_along_axis(p[:, :s], draft_tokens[..., None], -1)[..., 0]
    proposed = np.take_along_axis(q, draft_tokens[..., None], -1)[..., 0]
    rejected = rng.random(drafted.shape) * proposed >= drafted
    accepted = np.where(rejected.any(axis=-1), rejected.argmax(axis=-1), s)
    q = np.concatenate([q, np.zeros_like(q[:, :1])], axis=1)
    return accepted, one_of(correction(of_rows(p, accepted), of_rows(q, accepted)), rng)


def bonus_from_first_position(target_logits, draft_logits, draft_tokens, seed=0):
    target = target_logits.copy()
    target[:, -1] = target[:, 0]
    return verify(target, draft_logits, draft_tokens, seed)


def corrected_from_target(target_logits, draft_logits, draft_tokens, seed=0):
    return verify(target_logits, draft_logits, draft_tokens, seed, correction=lambda p, q: p)


def one_uniform_for_all_rows(target_logits, draft_logits, draft_tokens, seed=0):
    """Rows in pairs get the same random numbers."""
    accepted, token = verify(target_logits[::2], draft_logits[::2], draft_tokens[::2], seed)
    again = verify(target_logits[1::2], draft_logits[1::2], draft_tokens[1::2], seed)
    results = []
    for a, b in zip((accepted, token), again, strict=True):
        both = np.empty(len(target_logits), np.int64)
        both[::2], both[1::2] = a, b
        results.append(both)
    return tuple(results)


def accepted_minus_one(target_logits, draft_logits, draft_tokens, seed=0):
    accepted, token = verify(target_logits, draft_logits, draft_tokens, seed)
    return accepted - 1, token


def never_accepted(target_logits, draft_logits, draft_tokens, seed=0):
    p = softmax(target_logits[:, 0].astype(np.float64))
    return np.zeros(len(p), np.int64), one_of(p, np.random.default_rng(seed))


def verifier_without_seed(target_logits, draft_logits, draft_tokens, seed=0):
    return verify(target_logits, draft_logits, draft_tokens, None)


VERIFIER_DEFECTS = {
    bonus_from_first_position: "output distribution",
    corrected_from_target: "output distribution",
    one_uniform_for_all_rows: "independent rows",
    accepted_minus_one: "accepted and next token",
    never_accepted: "acceptance",
    verifier_without_seed: "seeds",
}


# The kinds of public bugs, each with the law that reports it.


def sampled_in_bfloat16(logits, n, seed=0, temperature=1.0):
    """deepseek-ai/DeepSpec#31: draft tokens are sampled from logits rounded to bfloat16."""
    rounded = logits.astype(ml_dtypes.bfloat16).astype(np.float32)
    return correct(rounded, n, seed, temperature)


def draft_in_bfloat16(target_logits, draft_logits, draft_tokens, seed=0):
    """deepseek-ai/DeepSpec#31: the acceptance ratio has another draft distribution."""
    rounded = draft_logits.astype(ml_dtypes.bfloat16).astype(np.float32)
    return verify(target_logits, rounded, draft_tokens, seed)


def temperature_not_passed(logits, n, seed=0, temperature=1.0):
    """z-lab/dflash#74: the draft sampler is called with its default temperature, 0."""
    return correct(logits, n, seed, temperature=0.0)


def accepted_if_equal(target_logits, draft_logits, draft_tokens, seed=0):
    """ml-explore/mlx-swift-lm#459: a draft token is accepted if a sample of the target equals it,
    and corrected by another sample."""
    rng = np.random.default_rng(seed)
    p = softmax(target_logits.astype(np.float64))
    samples = np.stack([one_of(p[:, i], rng) for i in range(p.shape[1])], axis=1)
    rejected = samples[:, :-1] != draft_tokens
    accepted = np.where(rejected.any(axis=-1), rejected.argmax(axis=-1), rejected.shape[1])
    return accepted, one_of(of_rows(p, accepted), rng)


def argmax_after_filters(logits, n, seed=0, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """EricLBuehler/mistral.rs#2424: the filtered distribution is made, and its mode returned."""
    z = truncated(logits, temperature, top_k, top_p, min_p)
    return np.repeat(z.argmax(axis=-1)[:, None], n, axis=1)


def draft_taken_as_certain(target_logits, draft_logits, draft_tokens, seed=0):
    """vllm-project/vllm#40149: the verifier does not get the probabilities of the draft, and takes
    a sampled draft token as certain."""
    certain = np.where(np.arange(draft_logits.shape[-1]) == draft_tokens[..., None], 0.0, -np.inf)
    return verify(target_logits, certain, draft_tokens, seed)


PUBLIC_BUGS = {
    sampled_in_bfloat16: "frequencies",
    draft_in_bfloat16: "output distribution",
    temperature_not_passed: "temperature",
    accepted_if_equal: "output distribution",
    argmax_after_filters: "frequencies",
    draft_taken_as_certain: "acceptance",
}
