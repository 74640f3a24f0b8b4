"""All results of a report, computed in passes over blocks of rows.

The memory does not grow with the number of rows.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.arrays import Groups
from logitlab._app.io.layouts import describe_layout
from logitlab._app.io.passes import InputSummary, Passes, Track, as_floating
from logitlab._app.io.source import Logits, UserError
from logitlab._app.report.decisions import Decisions, decisions
from logitlab._app.report.evaluation import (
    FIT_ELEMENTS,
    N_BINS,
    N_RESAMPLES,
    SEED,
    Evaluation,
    ScoreAccumulator,
    evaluate,
    random_halves,
)
from logitlab._app.report.histogram import Distribution
from logitlab._app.report.language_model import (
    EntropyOverSteps,
    TextAccumulator,
    TextScores,
    nucleus_sizes,
)
from logitlab._app.report.numerics import NumericalChecks, check_rows
from logitlab._app.threads import run_all
from logitlab._rows import Floats, Integers, blocks, row_max
from logitlab.groups import GroupScores, GroupSums
from logitlab.probabilities import softmax
from logitlab.scores import entropy
from logitlab.sweep import TemperatureSweep, temperature_sweep

_PROBABILITIES_HINT = (
    "{}: these look like probabilities. If they are, run again with --probabilities; this report "
    "reads them as logits."
)
_SAMPLE_ELEMENTS = 1 << 21  # entries of the rows of the temperature curves and numerical checks
_NUCLEUS_ROWS = 64
N_SAMPLES = 1000
CURVE_TEMPERATURES = np.geomspace(0.1, 10, 25)
EXAMPLE_TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Analysis:
    """The results of a report."""

    source: Logits
    probabilities: bool
    notes: list[str]  # how rows, classes and labels are read from the files
    label_warnings: tuple[str, ...]
    input_summary: InputSummary
    evaluated_rows: int
    sharpness: dict[str, Distribution]
    sampled_rows: int
    mean_entropy: Floats  # at CURVE_TEMPERATURES
    mean_top_probability: Floats
    nucleus: Integers  # sizes: (TOP_P, TEMPERATURES, rows)
    entropy_over_steps: EntropyOverSteps
    example_row: int
    example: TemperatureSweep
    numerical_checks: NumericalChecks
    evaluation: Evaluation | None
    decisions: Decisions | None
    group_column: str | None
    groups: dict[str, GroupScores]  # by the values of the column, those with rows
    text: TextScores | None
    included: NDArray[np.bool_] | None  # rows that are not ignored by their labels; None: all
    label_counts: Integers | None  # of each class
    shifted_accuracy: float  # of labels minus 1

    @property
    def ignored_rows(self) -> int:
        """The number of rows that are left out by their labels."""
        return 0 if self.included is None else int(np.count_nonzero(~self.included))

    @property
    def looks_like_probabilities(self) -> bool:
        """Whether rows that were read as logits look like probabilities."""
        return self.input_summary.looks_like_probabilities and not self.probabilities

    @property
    def warnings(self) -> list[str]:
        """What in the input is probably a mistake."""
        found = list(self.label_warnings)
        if self.looks_like_probabilities:
            reason = "Every row is non-negative and sums to one"
            if self.source.one_score:
                reason = "Every number is between 0 and 1"
            found.append(_PROBABILITIES_HINT.format(reason))
        rows = self.source.rows
        for n, reason in (
            (self.input_summary.nan_rows, "NaN"),
            (self.input_summary.empty_rows, "Only -inf"),
        ):
            if n:
                found.append(f"{reason} in {n} of {rows} rows; excluded.")
        if self.evaluation is None or self.label_counts is None:
            return found
        occurring = np.flatnonzero(self.label_counts)
        if len(occurring) == 1 < self.source.classes:
            found.append(f"Every label is class {occurring[0]}; scores of one class say little.")
        elif (
            self.label_counts[0] == 0
            and self.shifted_accuracy > self.evaluation.uncalibrated["accuracy"]
        ):
            found.append(
                "No label is 0, and labels minus 1 agree better with the logits: these labels "
                "seem to count from 1; they must count from 0."
            )
        return found


class _RandomRows:
    """A random sample of the rows, collected over blocks."""

    def __init__(self, source: Logits, elements: int, minimum: int) -> None:
        """At most `elements` entries, but at least `minimum` rows if there are so many."""
        size = min(source.rows, max(minimum, elements // source.classes))
        chosen = np.random.default_rng(SEED).choice(source.rows, size, replace=False, shuffle=False)
        self.mask = np.zeros(source.rows, bool)
        self.mask[chosen] = True
        self._rows: list[Integers] = []
        self._logits: list[NDArray[Any]] = []

    def add(self, rows: Integers, z: NDArray[Any]) -> None:
        keep = self.mask[rows]
        self._rows.append(rows[keep])
        self._logits.append(z[keep])

    def collected(self) -> tuple[Integers, NDArray[Any]]:
        return np.concatenate(self._rows), np.concatenate(self._logits)


def _temperature_curves(z: Floats) -> tuple[Floats, Floats]:
    """Mean entropy and mean top probability at CURVE_TEMPERATURES."""
    sums = np.zeros((2, len(CURVE_TEMPERATURES)))
    for i, t in enumerate(CURVE_TEMPERATURES):
        for part in blocks(*z.shape):
            sums[0, i] += entropy(z[part], temperature=t).sum()
            sums[1, i] += row_max(softmax(z[part], temperature=t)).sum()
    return sums[0] / len(z), sums[1] / len(z)


def _sharpness(classes: int) -> dict[str, Distribution]:
    return {
        "entropy": Distribution(0, math.log(classes)),
        "perplexity": Distribution(1, classes),
        "top_probability": Distribution(0, 1),
        "jacobian_trace": Distribution(0, 1),
    }


def analyse(
    source: Logits,
    labels: Integers | None = None,
    *,
    targets: Integers | None = None,
    probabilities: bool = False,
    shared: NDArray[np.bool_] | None = None,
    mapping: str | None = None,
    label_warnings: tuple[str, ...] = (),
    groups: Groups | None = None,
    track: Track = lambda chunks, _rows, _task: chunks,
) -> Analysis:
    """All sections of the report; `track` wraps each pass over the file (a progress bar).

    `labels` are the true classes, for scores and calibrators, -1 in a row that is left out;
    `targets` are the tokens of a text; `shared` selects the rows that are analysed; `mapping` says
    how labels became classes, `label_warnings` what may be wrong with them;
    `groups` are those of rows, for scores of each.
    """
    included = None if labels is None or labels.min() >= 0 else labels >= 0
    log_k = math.log(source.classes)
    sharpness = _sharpness(source.classes)
    sample = _RandomRows(source, _SAMPLE_ELEMENTS, _NUCLEUS_ROWS)
    input_summary, passes = InputSummary(), Passes(source, probabilities, track, shared, included)
    label_counts, shifted_hits = None, 0
    if labels is not None:
        label_counts = np.bincount(labels[labels >= 0], minlength=source.classes)
        fit_sample = _RandomRows(source, FIT_ELEMENTS, 16)
        folds = random_halves(source.rows)
        uncalibrated = ScoreAccumulator(source.classes, passes.dtype, folds, fit_sample.mask)
    group_sums = None if groups is None else GroupSums(groups.numbers, N_BINS, passes.dtype)
    text = None if targets is None else TextAccumulator(targets)
    over_steps = EntropyOverSteps(source.shape)
    distance, example_row, example = math.inf, -1, np.empty(0)
    for rows, z in passes.blocks("reading", input_summary):
        if not len(rows):
            continue
        wide = z.astype(np.float64)
        p, nats = softmax(wide), entropy(wide)
        sharpness["entropy"].add(nats)
        sharpness["perplexity"].add(np.exp(nats))
        sharpness["top_probability"].add(row_max(p))
        sharpness["jacobian_trace"].add(np.sum(p * (1 - p), axis=-1))
        over_steps.add(rows, nats)
        sample.add(rows, z)
        # The example is the row whose entropy is nearest to half of the maximum.
        nearest = int(np.abs(nats - log_k / 2).argmin())
        if abs(nats[nearest] - log_k / 2) < distance:
            distance = abs(nats[nearest] - log_k / 2)
            example_row, example = int(rows[nearest]), wide[nearest].copy()
        if labels is not None:
            uncalibrated.add(rows, wide, labels[rows])
            shifted_hits += int(np.count_nonzero(wide.argmax(axis=-1) == labels[rows] - 1))
            fit_sample.add(rows, z)
            if group_sums is not None:
                group_sums.add(rows, wide, labels[rows])
        if text is not None:
            text.add(rows, wide)
    if example_row < 0:
        raise UserError(f"{source.source}: every row is NaN or all -inf; none has a distribution")
    _, sampled = sample.collected()
    nucleus_rows = np.random.default_rng(SEED).choice(
        len(sampled), min(len(sampled), _NUCLEUS_ROWS), replace=False, shuffle=False
    )
    (mean_entropy, mean_top_probability), numerical_checks = run_all(
        [
            partial(_temperature_curves, sampled.astype(np.float64)),
            partial(check_rows, as_floating(sampled, source.dtype)),
        ]
    )
    evaluation = decided = None
    if labels is not None:
        fitted = fit_sample.collected()
        evaluation = evaluate(passes, labels, uncalibrated, fitted, folds)
        decided = decisions(*fitted, labels, folds, evaluation.fold_temperatures)
    notes = [*describe_layout(source, probabilities), *([mapping] if mapping else [])]
    found = {}
    if groups is not None and group_sums is not None:
        scores = group_sums.scores(N_RESAMPLES, SEED)
        found = {n: s for n, s in zip(groups.names, scores, strict=True) if s is not None}
        if without_rows := [name for name in groups.names if name not in found]:
            names = ", ".join(map(repr, without_rows))
            notes.append(
                f"Groups of {groups.column} whose rows are all ignored or excluded: {names}."
            )
    ignored = 0 if included is None else int(np.count_nonzero(~included))
    excluded = ignored + input_summary.nan_rows + input_summary.empty_rows
    excluded += input_summary.unpaired_rows
    return Analysis(
        source=source,
        probabilities=probabilities,
        notes=notes,
        label_warnings=label_warnings,
        input_summary=input_summary,
        evaluated_rows=source.rows - excluded,
        sharpness=sharpness,
        sampled_rows=len(sampled),
        mean_entropy=mean_entropy,
        mean_top_probability=mean_top_probability,
        nucleus=nucleus_sizes(sampled[nucleus_rows].astype(np.float64)),
        entropy_over_steps=over_steps,
        example_row=example_row,
        example=temperature_sweep(example, EXAMPLE_TEMPERATURES, n=N_SAMPLES, rng=SEED),
        numerical_checks=numerical_checks,
        evaluation=evaluation,
        decisions=decided,
        group_column=None if groups is None else groups.column,
        groups=found,
        text=text.scores() if text else None,
        included=included,
        label_counts=label_counts,
        shifted_accuracy=shifted_hits / (source.rows - excluded),
    )


def fit_rows(a: Analysis, track: Track) -> tuple[Integers, NDArray[Any]]:
    """The numbers and the logits of the rows that vector and matrix scaling are fitted on."""
    sample = _RandomRows(a.source, FIT_ELEMENTS, 16)
    for rows, z in Passes(a.source, a.probabilities, track, included=a.included).blocks("reading"):
        sample.add(rows, z)
    return sample.collected()
