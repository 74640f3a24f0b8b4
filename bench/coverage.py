"""How often the interval of the calibration error holds the true error, by simulation."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import logitlab
from bench.tables import write_between
from logitlab._bins import bin_indices, uniform_edges

TIMES = (1.0, 1.1, 1.25, 1.5, 2.0)  # over-confidence
SIZES = {1000: 300, 10_000: 120}  # rows of a sample, samples
_CLASSES, _SPREAD, _BINS, _RESAMPLES = 4, 2.0, 15, 200
_LARGE = 1 << 22  # rows that the true error is found on


def _logits(rows: int, rng: np.random.Generator) -> Any:
    return rng.standard_normal((rows, _CLASSES)) * _SPREAD


def _true_error(t: float, rng: np.random.Generator) -> float:
    """In each bin of the confidence at t z the gap to the probability of being right: softmax(z).

    No labels are drawn, hence no bias.
    """
    edges, gaps = uniform_edges(_BINS), np.zeros(_BINS)
    for _ in range(_LARGE >> 16):
        z = _logits(1 << 16, rng)
        stated = logitlab.softmax(t * z).max(axis=1)
        gap = stated - logitlab.softmax(z).max(axis=1)
        gaps += np.bincount(bin_indices(edges, stated), gap, _BINS)
    return float(np.abs(gaps).sum() / _LARGE)


def _samples(t: float, rows: int, count: int, rng: np.random.Generator) -> Iterator[Any]:
    """Of each sample: the error, the debiased error, the bounds of the interval."""
    for _ in range(count):
        z = _logits(rows, rng)
        y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
        found = logitlab.bootstrap(t * z, y, n_bins=_BINS, n_resamples=_RESAMPLES, rng=rng)
        debiased = logitlab.calibration_error(t * z, y, n_bins=_BINS, debiased=True)
        error = found["calibration_error"]
        yield error.value, float(debiased), error.low, error.high


def table(quick: bool) -> str:
    """A row for each over-confidence."""
    head = [f"{rows:,} rows: mean | debiased | covered" for rows in SIZES]
    lines = ["| over-confidence t | true error | " + " | ".join(head) + " |", "|---" * 8 + "|"]
    for t in TIMES[::4] if quick else TIMES:
        true = _true_error(t, np.random.default_rng(0))
        cells = [f"{t:g}" + (" (honest)" if t == 1 else ""), f"{true:.4f}" if true else "0"]
        for rows, count in SIZES.items():
            rng = np.random.default_rng(rows)
            each = np.array(list(_samples(t, rows, count // (10 if quick else 1), rng)))
            covered = np.mean((each[:, 2] <= true) & (true <= each[:, 3]))
            cells += [f"{each[:, 0].mean():.4f}", f"{each[:, 1].mean():.4f}", f"{covered:.0%}"]
        lines.append("| " + " | ".join(cells).replace("%", " %") + " |")
    return "\n".join(lines)


def report(quick: bool, write: bool) -> None:
    text = table(quick)
    print(text)
    if write:
        write_between("docs/calibration.md", "coverage", text)
