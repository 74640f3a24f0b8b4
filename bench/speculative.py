"""Chi-square tests of the tokens that verified drafts return: 10^7 drafts a case."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import logitlab
from bench import tables

K, S = 8, 2
DRAFTS, QUICK_DRAFTS, _BLOCK = 10_000_000, 200_000, 500_000
# The probability that any of the tests fails although the distributions are equal, at most.
FALSE_ALARMS = 1e-3
_SEED = 0

Row = tuple[str, str, int, float, float]


def _cases() -> Iterator[tuple[str, str, Any, Any, dict[str, Any]]]:
    """Names of draft and settings, the logits of target and draft, and the settings."""
    rng = np.random.default_rng(7)
    target = rng.normal(0, 1.5, (S + 1, K))
    close = target[:S] + rng.normal(0, 0.2, (S, K))
    half = np.arange(K) < K // 2
    settings: dict[str, dict[str, Any]] = {
        "none": {},
        "T 0.7, top_k 4, top_p 0.9": {"temperature": 0.7, "top_k": 4, "top_p": 0.9},
        "min_p 0.1, then T 1.5": {"temperature": 1.5, "min_p": 0.1, "order": "llama.cpp"},
    }
    for name, options in settings.items():
        yield "equal", name, target, target[:S], options
        yield "close", name, target, close, options
        yield "far", name, target, rng.normal(0, 2, (S, K)), options
        disjoint = np.where(half, -np.inf, close)
        yield "disjoint", name, np.where(half, target, -np.inf), disjoint, options
        yield "deterministic", name, target, None, options


def _tokens(
    target: NDArray[Any], draft: Any, options: dict[str, Any], n: int, first: int
) -> NDArray[np.int64]:
    """What n verified drafts return, (n, S + 1), -1 after the last token."""
    keys = np.arange(first, first + n)
    if draft is None:
        drafted = np.broadcast_to(target[:S].argmax(-1), (n, S))
        draft_z = None
    else:
        draft_z = np.broadcast_to(draft, (n, S, K))
        columns = [
            logitlab.sample(draft_z[:, i], rng=_SEED + 1 + i, row_keys=keys, **options)
            for i in range(S)
        ]
        drafted = np.stack(columns, axis=1)
    target_z = np.broadcast_to(target, (n, S + 1, K))
    accepted, next_token, _ = logitlab.verify_draft(
        target_z, draft_z, drafted, rng=_SEED, row_keys=keys, **options
    )
    tokens = np.concatenate([drafted, np.full((n, 1), -1)], axis=1)
    tokens[np.arange(n), accepted] = next_token
    tokens[np.arange(S + 1) > accepted[:, None]] = -1
    return tokens


def _p_value(counts: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    from scipy import stats

    if counts[p == 0].any():
        return 0.0
    if (p > 0).sum() == 1 or not counts.any():
        return 1.0
    return float(stats.chisquare(counts[p > 0], p[p > 0] * counts.sum()).pvalue)


def measure(quick: bool) -> Iterator[Row]:
    """For each case: the number of drafts, the mean number accepted, the least p-value."""
    n = QUICK_DRAFTS if quick else DRAFTS
    for draft_name, settings_name, target, draft, options in _cases():
        counts = np.zeros((S + 1, K + 1), np.int64)
        for first in range(0, n, _BLOCK):
            tokens = _tokens(target, draft, options, min(_BLOCK, n - first), first)
            for position in range(S + 1):
                counts[position] += np.bincount(tokens[:, position] + 1, minlength=K + 1)
        t = options.get("temperature", 1.0)
        p = logitlab.softmax(logitlab.truncate(target, **options), temperature=t)
        least = min(_p_value(c[1:], q) for c, q in zip(counts, p, strict=True))
        yield draft_name, settings_name, n, counts[1:, 1:].sum() / n, least


def report(quick: bool, write: bool) -> None:
    """Print the table, each row when it is measured; exit with status 1 if a test fails."""
    lines = [
        "| draft | settings | drafts | accepted tokens | least p-value |",
        "|---|---|--:|--:|--:|",
    ]
    print("\n".join(lines))
    rows = []
    for row in measure(quick):
        draft, settings, n, mean, p = row
        lines.append(f"| {draft} | {settings} | {n:,} | {mean:.3f} | {p:.3g} |")
        print(lines[-1], flush=True)
        rows.append(row)
    tests = len(rows) * (S + 1)
    note = (
        f"Tokens of drafts of {S} tokens of {K} classes, verified by `verify_draft`, against the "
        f"target: the least p-value of the chi-square tests of {S + 1} positions. A test fails "
        f"below {FALSE_ALARMS / tests:.2g}, so that equal distributions fail in all {tests} tests "
        f"together with a probability of at most {FALSE_ALARMS}."
    )
    print(f"\n{note}")
    if write:
        tables.write_page("speculative", "\n".join(lines) + f"\n\n{note}")
    failed = [row for row in rows if row[-1] < FALSE_ALARMS / tests]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(rows)} cases fail")
