"""Coverage of the bootstrap interval of the calibration error, by simulation."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import logitlab
from bench.tables import write_between
from logitlab._bins import uniform_bins

SCALES = (1.0, 1.1, 1.25, 1.5, 2.0)  # the logits are t z; t > 1 is overconfident
SIZES = {1000: 300, 10_000: 120}  # number of rows of a sample: number of samples
_CLASSES, _SPREAD, _BINS, _RESAMPLES = 4, 2.0, 15, 200
_N_LARGE = 1 << 22  # rows of the estimate of the true error


def _logits(rows: int, rng: np.random.Generator) -> Any:
    return rng.standard_normal((rows, _CLASSES)) * _SPREAD


def _true_error(t: float, rng: np.random.Generator) -> float:
    """The calibration error of the logits t z if labels are sampled from softmax(z).

    It uses the probability of a correct prediction instead of sampled labels, so it has no bias.
    """
    bins, gaps = uniform_bins(_BINS, np.dtype(float)), np.zeros(_BINS)
    for _ in range(_N_LARGE >> 16):
        z = _logits(1 << 16, rng)
        confidence = logitlab.softmax(t * z).max(axis=1)
        gap = confidence - logitlab.softmax(z).max(axis=1)
        gaps += np.bincount(bins.indices(confidence), gap, _BINS)
    return float(np.abs(gaps).sum() / _N_LARGE)


def _samples(t: float, rows: int, count: int, rng: np.random.Generator) -> Iterator[Any]:
    """For each sample: the error, the debiased error and the bounds of the interval."""
    for _ in range(count):
        z = _logits(rows, rng)
        y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
        intervals = logitlab.bootstrap(t * z, y, n_bins=_BINS, n_resamples=_RESAMPLES, rng=rng)
        debiased = logitlab.calibration_error(t * z, y, n_bins=_BINS, debiased=True)
        error = intervals["calibration_error"]
        yield error.value, float(debiased), error.low, error.high


def table(quick: bool) -> str:
    """A Markdown table with a row for each scale t."""
    head = [f"{rows:,} rows: mean | debiased | coverage" for rows in SIZES]
    lines = ["| scale t | true error | " + " | ".join(head) + " |", "|---" * 8 + "|"]
    for t in SCALES[::4] if quick else SCALES:
        true_error = _true_error(t, np.random.default_rng(0))
        cells = [f"{t:g}" + (" (calibrated)" if t == 1 else "")]
        cells.append(f"{true_error:.4f}" if true_error else "0")
        for rows, count in SIZES.items():
            rng = np.random.default_rng(rows)
            samples = np.array(list(_samples(t, rows, count // (10 if quick else 1), rng)))
            error, debiased, low, high = samples.T
            coverage = np.mean((low <= true_error) & (true_error <= high))
            cells += [f"{error.mean():.4f}", f"{debiased.mean():.4f}", f"{coverage:.0%}"]
        lines.append("| " + " | ".join(cells).replace("%", " %") + " |")
    return "\n".join(lines)


def report(quick: bool, write: bool) -> None:
    text = table(quick)
    print(text)
    if write:
        write_between("docs/calibration.md", "coverage", text)
