"""Coverage of the interval of the calibration error, by simulation."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import logitlab
from bench.tables import write_between
from logitlab._bins import uniform_bins
from logitlab._error_interval import error_interval

CLASSES = {2: 2.0, 10: 2.0, 100: 3.0}  # number of classes: standard deviation of the logits
ERRORS = (0.0, 0.005, 0.02, 0.1)  # calibration errors of the populations
SIZES = (300, 3000, 30_000)  # number of rows of a sample
LEVELS = (0.95, 0.9)
_SAMPLES, _RESAMPLES, _STEPS = 300, 1000, 30
_N_LARGE = 1 << 18  # rows of a population
_BINS = uniform_bins(15, np.dtype(float))


class Population(NamedTuple):
    """Confidences of rows, and the probabilities that their predictions are correct."""

    classes: int
    gaps: str  # which bins have a gap
    confidence: Any
    accuracy: Any

    def error(self) -> float:
        gap = self.confidence - self.accuracy
        return float(np.abs(np.bincount(_BINS.indices(self.confidence), gap)).sum() / len(gap))


def _temperature(t: float, logits: Any, classes: int) -> Population:
    """Labels sampled from softmax(z), evaluated at t z: every bin is overconfident if t > 1."""
    accuracy = logitlab.softmax(logits).max(axis=1)
    return Population(classes, "all bins", logitlab.softmax(t * logits).max(axis=1), accuracy)


def _one_bin(t: float, logits: Any, classes: int) -> Population:
    """The accuracy is the confidence, but 2 - t times it in the bin with the third most rows."""
    confidence = logitlab.softmax(logits).max(axis=1)
    bins = _BINS.indices(confidence)
    wrong = bins == np.argsort(np.bincount(bins))[-3]
    return Population(
        classes, "one bin", confidence, np.where(wrong, (2 - t) * confidence, confidence)
    )


def _populations(error: float) -> Iterator[Population]:
    """One population of each kind, with this calibration error, where there is one."""
    for classes, spread in CLASSES.items():
        logits = np.random.default_rng(0).standard_normal((_N_LARGE, classes)) * spread
        for kind in (_temperature, _one_bin) if error else (_temperature,):
            low, high = 1.0, 2.0 if kind is _one_bin else 16.0
            if kind(high, logits, classes).error() < error:
                continue
            for _ in range(_STEPS if error else 0):
                middle = (low + high) / 2
                if kind(middle, logits, classes).error() < error:
                    low = middle
                else:
                    high = middle
            yield kind(low, logits, classes)


def _sums(population: Population, rows: int, rng: np.random.Generator) -> Any:
    """Sums over the bins of a sample."""
    sampled = rng.integers(0, _N_LARGE, rows)
    correct = rng.random(rows) < population.accuracy[sampled]
    return _BINS.sums(population.confidence[sampled], correct)


def table(quick: bool) -> str:
    """A Markdown table with a row for each population and size of the samples."""
    head = "| true error | classes, gaps | rows | mean error of the samples |"
    lines = [
        head + "".join(f" coverage at {100 * level:g} % |" for level in LEVELS) + " mean width |"
    ]
    lines.append("|---" * 7 + "|")
    for error in ERRORS[::3] if quick else ERRORS:
        for population in _populations(error):
            for rows in SIZES[:2] if quick else SIZES:
                rng, covered, widths, errors = np.random.default_rng(rows), [], [], []
                for _ in range(_SAMPLES // (10 if quick else 1)):
                    sums = _sums(population, rows, rng)
                    bounds = [error_interval(sums, level, _RESAMPLES, rng) for level in LEVELS]
                    covered.append([low <= error <= high for low, high in bounds])
                    widths.append(bounds[0][1] - bounds[0][0])
                    errors.append(np.abs(sums[1] - sums[2]).sum() / rows)
                coverage = "".join(f" {100 * c:.1f} % |" for c in np.mean(covered, axis=0))
                lines.append(
                    f"| {error:g} | {population.classes}, {population.gaps} | {rows:,} "
                    f"| {np.mean(errors):.4f} |{coverage} {np.mean(widths):.4f} |"
                )
    return "\n".join(lines)


def report(quick: bool, write: bool) -> None:
    text = table(quick)
    print(text)
    if write:
        write_between("docs/calibration.md", "coverage", text)
