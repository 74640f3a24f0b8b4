"""All results of a report, computed in passes over blocks of rows.

The memory does not grow with the number of rows.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._app.cluster import Cluster
from logitlab._app.io.arrays import Groups
from logitlab._app.io.layouts import describe_layout
from logitlab._app.io.passes import InputSummary, Passes, as_floating, untracked
from logitlab._app.io.source import Logits, Track, UserError
from logitlab._app.report.decisions import Decisions, decisions
from logitlab._app.report.evaluation import (
    FIT_ELEMENTS,
    N_BINS,
    N_RESAMPLES,
    SEED,
    Evaluation,
    RowSample,
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
from logitlab._arrays import bincount
from logitlab._rows import Floats, Integers, blocks, row_max
from logitlab.divergences import entropy
from logitlab.groups import GroupScores, GroupSums, resampling_groups
from logitlab.probabilities import softmax
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


def _random_rows(source: Logits, elements: int, minimum: int) -> NDArray[np.bool_]:
    """A mask of random rows: at most `elements` entries, but at least `minimum` rows."""
    size = min(source.rows, max(minimum, elements // source.classes))
    chosen = np.random.default_rng(SEED).choice(source.rows, size, replace=False, shuffle=False)
    mask = np.zeros(source.rows, bool)
    mask[chosen] = True
    return mask


class _RowSample:
    """The numbers and the logits of a sample of the rows, collected over blocks."""

    input_summary = None

    def __init__(self, _: slice) -> None:
        self._rows: list[Integers] = []
        self._logits: list[NDArray[Any]] = []

    def add(self, rows: Integers, z: NDArray[Any], chosen: NDArray[np.bool_]) -> None:
        self._rows.append(rows[chosen])
        self._logits.append(z[chosen])

    def merge(self, other: "_RowSample") -> None:
        self._rows += other._rows
        self._logits += other._logits

    def collected(self) -> RowSample:
        return np.concatenate(self._rows), np.concatenate(self._logits)


class _Setup(NamedTuple):
    """What the first pass computes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    has_labels: bool
    has_targets: bool
    group_counts: list[int] | None  # rows of each group


class _FirstPass:
    """All that needs no other pass, over some of the rows."""

    def __init__(self, setup: _Setup, part: slice) -> None:
        *batch, k = setup.shape
        rows = math.prod(batch)
        self.input_summary = InputSummary()
        self.sharpness = {
            "entropy": Distribution(0, math.log(k)),
            "perplexity": Distribution(1, k),
            "top_probability": Distribution(0, 1),
            "jacobian_trace": Distribution(0, 1),
        }
        self.over_steps = EntropyOverSteps(setup.shape)
        self.sample, self.fit_sample = _RowSample(part), _RowSample(part)
        self.shifted_hits = 0
        self.scores = self.groups = self.text = None
        if setup.has_labels:
            self.scores = ScoreAccumulator(rows, k, setup.dtype, part)
            if setup.group_counts is not None:
                self.groups = GroupSums(setup.group_counts, N_BINS, setup.dtype)
        if setup.has_targets:
            self.text = TextAccumulator(rows, part)
        # The example is the row whose entropy is nearest to half of the maximum.
        self._half = math.log(k) / 2
        self._distance = math.inf
        self.example_row, self.example = -1, np.empty(0)

    def add(
        self,
        rows: Integers,
        z: NDArray[Any],
        *,
        sampled: NDArray[np.bool_],
        label: Any = None,
        fold: Any = None,
        fitted: Any = None,
        group: Any = None,
        resampled: Any = None,
        target: Any = None,
    ) -> None:
        """Add rows; `resampled` are those of :func:`resampling_groups`."""
        if not len(rows):
            return
        wide = z.astype(np.float64)
        p, nats = softmax(wide), entropy(wide)
        self.sharpness["entropy"].add(nats)
        self.sharpness["perplexity"].add(np.exp(nats))
        self.sharpness["top_probability"].add(row_max(p))
        self.sharpness["jacobian_trace"].add(np.sum(p * (1 - p), axis=-1))
        self.over_steps.add(rows, nats)
        self.sample.add(rows, z, sampled)
        distance = np.abs(nats - self._half)
        nearest = int(distance.argmin())
        self._keep_example(distance[nearest], int(rows[nearest]), wide[nearest])
        if self.scores is not None:
            y = label.astype(np.int64)
            self.scores.add(rows, wide, label=y, fold=fold, fitted=fitted)
            self.shifted_hits += int(np.count_nonzero(wide.argmax(axis=-1) == y - 1))
            self.fit_sample.add(rows, z, fitted)
            if self.groups is not None:
                self.groups.add(group, resampled, wide, y)
        if self.text is not None:
            self.text.add(rows, wide, target.astype(np.int64))

    def _keep_example(self, distance: float, row: int, example: Floats) -> None:
        if distance < self._distance:
            self._distance, self.example_row, self.example = distance, row, example.copy()

    def merge(self, other: "_FirstPass") -> None:
        for name, distribution in self.sharpness.items():
            distribution.merge(other.sharpness[name])
        names = ("input_summary", "over_steps", "sample", "fit_sample", "scores", "groups", "text")
        for name in names:
            if (sums := getattr(self, name)) is not None:
                sums.merge(getattr(other, name))
        self._keep_example(other._distance, other.example_row, other.example)
        self.shifted_hits += other.shifted_hits


def _temperature_curves(z: Floats) -> tuple[Floats, Floats]:
    """Mean entropy and mean top probability at CURVE_TEMPERATURES."""
    sums = np.zeros((2, len(CURVE_TEMPERATURES)))
    for i, t in enumerate(CURVE_TEMPERATURES):
        for part in blocks(*z.shape):
            sums[0, i] += entropy(z[part], temperature=t).sum()
            sums[1, i] += row_max(softmax(z[part], temperature=t)).sum()
    return sums[0] / len(z), sums[1] / len(z)


def analyse(
    source: Logits,
    labels: Integers | None = None,
    *,
    targets: Integers | None = None,
    probabilities: bool = False,
    shared: NDArray[np.bool_] | None = None,
    mapping: str | None = None,
    label_warnings: tuple[str, ...] = (),
    separate_labels: bool = True,
    groups: Groups | None = None,
    track: Track = untracked,
    cluster: Cluster | None = None,
) -> Analysis:
    """All sections of the report; `track` wraps each pass over the file (a progress bar).

    With `cluster` its workers read the shards of the source.

    `labels` are the true classes, for scores and calibrators, -1 in a row that is left out;
    `targets` are the tokens of a text; `shared` selects the rows that are analysed; `mapping` says
    how labels became classes, `label_warnings` what may be wrong with them,
    `separate_labels` whether their classes may be in another order than those of the source;
    `groups` are those of rows, for scores of each.
    """
    included = None if labels is None or labels.min() >= 0 else labels >= 0
    passes = Passes(source, probabilities, track, shared, included, cluster)
    values: dict[str, NDArray[Any]] = {
        "sampled": _random_rows(source, _SAMPLE_ELEMENTS, _NUCLEUS_ROWS)
    }
    label_type = np.min_scalar_type(-source.classes)
    group_counts = label_counts = None
    if labels is not None:
        label_counts = bincount(labels[labels >= 0], minlength=source.classes)
        labelled = {
            "label": labels.astype(label_type),
            "fold": random_halves(source.rows),
            "fitted": _random_rows(source, FIT_ELEMENTS, 16),
        }
        values |= labelled
        if groups is not None:
            values["group"] = groups.numbers
            group_counts, values["resampled"] = resampling_groups(groups.numbers)
    if targets is not None:
        values["target"] = targets.astype(label_type)
    has_labels, has_targets = labels is not None, targets is not None
    setup = _Setup(source.shape, passes.dtype, has_labels, has_targets, group_counts)
    first = passes.run(partial(_FirstPass, setup), "reading", **values)
    if first.example_row < 0:
        raise UserError(f"{source.source}: every row is NaN or all -inf; none has a distribution")
    _, sampled = first.sample.collected()
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
    if labels is not None and first.scores is not None:
        fitted = first.fit_sample.collected()
        evaluation = evaluate(
            passes, first.scores, fitted, **labelled, separate_labels=separate_labels
        )
        decided = decisions(*fitted, labels, labelled["fold"], evaluation.fold_temperatures)
    notes = [*describe_layout(source, probabilities), *([mapping] if mapping else [])]
    found = {}
    if groups is not None and first.groups is not None:
        scores = first.groups.scores(N_RESAMPLES, SEED)
        found = {n: s for n, s in zip(groups.names, scores, strict=True) if s is not None}
        if without_rows := [name for name in groups.names if name not in found]:
            names = ", ".join(map(repr, without_rows))
            notes.append(
                f"Groups of {groups.column} whose rows are all ignored or excluded: {names}."
            )
    ignored = 0 if included is None else int(np.count_nonzero(~included))
    summary = first.input_summary
    excluded = ignored + summary.nan_rows + summary.empty_rows + summary.unpaired_rows
    return Analysis(
        source=source,
        probabilities=probabilities,
        notes=notes,
        label_warnings=label_warnings,
        input_summary=summary,
        evaluated_rows=source.rows - excluded,
        sharpness=first.sharpness,
        sampled_rows=len(sampled),
        mean_entropy=mean_entropy,
        mean_top_probability=mean_top_probability,
        nucleus=nucleus_sizes(sampled[nucleus_rows].astype(np.float64)),
        entropy_over_steps=first.over_steps,
        example_row=first.example_row,
        example=temperature_sweep(first.example, EXAMPLE_TEMPERATURES, n=N_SAMPLES, rng=SEED),
        numerical_checks=numerical_checks,
        evaluation=evaluation,
        decisions=decided,
        group_column=None if groups is None else groups.column,
        groups=found,
        text=first.text.scores(targets) if targets is not None and first.text else None,
        included=included,
        label_counts=label_counts,
        shifted_accuracy=first.shifted_hits / (source.rows - excluded),
    )


def fit_rows(a: Analysis, track: Track, cluster: Cluster | None) -> RowSample:
    """The numbers and the logits of the rows that vector and matrix scaling are fitted on."""
    passes = Passes(a.source, a.probabilities, track, None, a.included, cluster)
    chosen = _random_rows(a.source, FIT_ELEMENTS, 16)
    return passes.run(_RowSample, "reading", chosen=chosen).collected()
