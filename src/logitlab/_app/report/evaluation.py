"""Evaluation of logits with labels: scores and calibrators with intervals, classes, errors."""

import contextlib
import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.passes import Passes, select
from logitlab._app.report.sampled_rows import SampledRows, sampled_rows
from logitlab._app.threads import run_all
from logitlab._arrays import bincount
from logitlab._bins import CELLS, binned_sums, error_from_sums
from logitlab._distributed import add, rows_in_memory
from logitlab._rows import Floats, Integers
from logitlab.calibration import MatrixScaling, TemperatureSearch, VectorScaling, random_folds
from logitlab.calibration.base import Calibrator, RowError, original_row_numbers
from logitlab.calibration.isotonic import isotonic_frequencies
from logitlab.calibration.selection import MAX_CLASSES
from logitlab.calibration.temperature import Pass, PassSums, first_guess, fit_temperature
from logitlab.reliability import (
    CalibrationTest,
    ReliabilityCurve,
    consistency_test,
    curve_from_sums,
)
from logitlab.resampling import (
    Interval,
    ScoreSums,
    percentile_intervals,
    resampled_sums,
    score_intervals,
    scores_from_sums,
)

SEED = 0
N_BINS = 15
N_RESAMPLES = 1000
FIT_ELEMENTS = 1 << 24  # entries of the rows that vector and matrix scaling are fitted on
_ROUNDING = 1e-12  # rounding error of a difference of scores, whose size is about 1
_LISTED = 10  # errors and confusions that are listed

RowSample = tuple[Integers, NDArray[Any]]  # numbers and logits of rows that are kept in memory
Folds = NDArray[np.uint8]  # of rows, 0 or 1
Transform = Callable[[NDArray[Any], Folds], Any]  # logits, folds -> calibrated logits


def excludes_zero(difference: Interval) -> bool:
    """Whether the interval of a difference excludes 0, by more than rounding errors."""
    return bool(difference.low > _ROUNDING or difference.high < -_ROUNDING)


def agresti_coull(share: Any, n: Any) -> tuple[Any, Any]:
    """The centre and half the width of the 95 % interval of Agresti and Coull of a proportion."""
    centre = (n * share + 2) / (n + 4)
    return centre, 1.96 * np.sqrt(centre * (1 - centre) / (n + 4))


@dataclass(frozen=True)
class Scores:
    """Scores of one calibrator; the dictionaries have the keys of :func:`logitlab.bootstrap`."""

    intervals: dict[str, Interval]
    differences: dict[str, Interval] | None  # from the uncalibrated logits, paired
    debiased_error: float
    classwise_error: float | None
    test: CalibrationTest
    curve: ReliabilityCurve
    class_curve: ReliabilityCurve | None

    def __getitem__(self, name: str) -> float:
        return self.intervals[name].value


@dataclass(frozen=True)
class Misclassification:
    """A row whose most probable class is not the true class."""

    row: int
    predicted: int
    confidence: float
    true: int
    true_probability: float


@dataclass(frozen=True)
class PredictedClasses:
    """Rows, mean confidence and accuracy of each predicted class: shape (K,)."""

    rows: Integers
    confidence: Floats
    accuracy: Floats

    def half_width(self) -> Floats:
        """Half the width of a 95 % interval of the accuracy."""
        half_width: Floats = agresti_coull(np.nan_to_num(self.accuracy), self.rows)[1]
        return half_width


@dataclass(frozen=True)
class Evaluation:
    """Scores before and after calibration, and where the errors are."""

    rows: int
    uncalibrated: Scores
    calibrated: dict[str, Scores]  # cross-fitted: temperature, vector, matrix
    failures: dict[str, str]  # why a calibrator was not fitted
    temperature: float | None  # fitted on all rows
    fold_temperatures: tuple[float, ...] | None
    fitted_rows: int  # of vector and matrix scaling
    isotonic_error: float | None  # ECE after isotonic regression of the confidence, cross-fitted
    predicted_classes: PredictedClasses
    misclassifications: list[Misclassification]  # the most confident ones
    confusions: list[tuple[int, int, int]]  # true class, predicted class, rows
    sampled: SampledRows = field(repr=False)  # of the fitted rows
    cells: dict[str, Floats] = field(repr=False)  # of the tallies: uncalibrated, temperature


class ScoreAccumulator:
    """Accumulates the scores of one calibrator over blocks of rows."""

    def __init__(self, rows: int, classes: int, dtype: np.dtype[Any], part: slice) -> None:
        """`part` are the rows that are added, out of all `rows`."""
        self.tally = ScoreSums(rows, N_BINS, dtype, part=part)
        self._bins = self.tally.bins
        self._first = part.start
        self.cells = np.zeros((2, 3, N_BINS * CELLS))
        few_classes = classes <= MAX_CLASSES["vector"]
        self._class_sums = np.zeros((3, classes, N_BINS)) if few_classes else None
        self._predicted = np.zeros((3, classes))
        self._most_confident: list[tuple[float, int, int, int, float]] = []
        self._pairs: Counter[tuple[int, int]] = Counter()

    def add(
        self,
        rows: Integers,
        z: Floats,
        *,
        label: Integers,
        fold: Folds,
        fitted: NDArray[np.bool_],
    ) -> None:
        """Add rows; only those that are `fitted` are in the class-wise error, the slowest score."""
        p, _, confidence, predicted = self.tally.add(rows - self._first, z, label)
        correct, size = predicted == label, self.cells.shape[-1]
        cells = self._bins.cells(confidence) + np.int64(size) * fold
        sums = binned_sums(cells, 2 * size, confidence, correct)
        self.cells += sums.reshape(3, 2, size).swapaxes(0, 1)
        for i, weight in enumerate((None, confidence, correct)):
            self._predicted[i] += bincount(predicted, weight, len(self._predicted[i]))
        wrong = np.flatnonzero(~correct)
        if self._class_sums is not None:
            chosen = select(fitted)
            self._class_sums += self._bins.classwise_sums(p[chosen], label[chosen])
            self._pairs.update(zip(label[wrong].tolist(), predicted[wrong].tolist(), strict=True))
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")[:_LISTED]]:
            true = int(label[i])
            item = (confidence[i], -int(rows[i]), int(predicted[i]), true, p[i, true])
            self._keep_most_confident(item)

    def _keep_most_confident(self, item: tuple[float, int, int, int, float]) -> None:
        heapq.heappush(self._most_confident, item)
        if len(self._most_confident) > _LISTED:
            heapq.heappop(self._most_confident)

    def merge(self, other: "ScoreAccumulator") -> None:
        """Add the sums over other rows."""
        self.tally.merge(other.tally)
        self.cells += other.cells
        self._predicted += other._predicted
        if self._class_sums is not None and other._class_sums is not None:
            self._class_sums += other._class_sums
        self._pairs.update(other._pairs)
        for item in other._most_confident:
            self._keep_most_confident(item)

    def scores(self, resampled: Floats, before: "tuple[ScoreSums, Floats] | None" = None) -> Scores:
        """The scores with intervals.

        `resampled` are the sums over resampled rows; `before` are the tally and the sums, over
        the same resampled rows, of the uncalibrated logits.
        """
        differences = None
        if before is not None:
            value, value_before = (
                scores_from_sums(tally.group_sums.sum(axis=0)) for tally in (self.tally, before[0])
            )
            with np.errstate(invalid="ignore"):
                differences = percentile_intervals(
                    value - value_before,
                    scores_from_sums(resampled) - scores_from_sums(before[1]),
                )
        sums = self._class_sums
        return Scores(
            score_intervals(self.tally, resampled),
            differences,
            float(error_from_sums(self.tally.bin_sums, 1, debiased=True)),
            None if sums is None else float(np.mean(error_from_sums(sums, 1))),
            consistency_test(self.tally.bin_sums, self.cells.sum(axis=0)),
            curve_from_sums(self._bins.edges, self.tally.bin_sums),
            None if sums is None else curve_from_sums(self._bins.edges, sums.sum(axis=1)),
        )

    def isotonic_error(self) -> float | None:
        """The ECE after isotonic regression of the confidence, fitted on the other fold."""
        bins = np.zeros((3, N_BINS))
        for fold in (0, 1):
            rows, confidence, correct = self.cells[1 - fold]
            test_rows, test_confidence, test_correct = self.cells[fold]
            filled, test_filled = rows > 0, test_rows > 0
            if not filled.any() or not test_filled.any():
                return None
            n = rows[filled]
            x, _, fitted = isotonic_frequencies(confidence[filled] / n, correct[filled], n)
            n = test_rows[test_filled]
            q = np.interp(test_confidence[test_filled] / n, x, fitted)
            bin_numbers = self._bins.indices(q)
            for i, weight in enumerate((n, n * q, test_correct[test_filled])):
                bins[i] += bincount(bin_numbers, weight, N_BINS)
        return float(error_from_sums(bins, 1))

    def predicted_classes(self) -> PredictedClasses:
        n, confidence, correct = self._predicted
        with np.errstate(invalid="ignore"):
            return PredictedClasses(n.astype(np.int64), confidence / n, correct / n)

    def misclassifications(self) -> list[Misclassification]:
        """The most confident errors."""
        return [
            Misclassification(-row, predicted, float(confidence), true, float(p))
            for confidence, row, predicted, true, p in sorted(self._most_confident, reverse=True)
        ]

    def confusions(self) -> list[tuple[int, int, int]]:
        """The most frequent pairs of true and predicted class."""
        ordered = sorted(self._pairs.items(), key=lambda item: (-item[1], item[0]))
        return [(true, predicted, n) for (true, predicted), n in ordered[:_LISTED]]


_LIMITS = {
    0.0: "the true class has the largest logit in every row, so the log-loss decreases as long as "
    "the temperature does",
    math.inf: "equal probabilities for all classes have a smaller log-loss than any temperature",
}
_ORDER_HINT = " (do the labels match the order of the columns?)"


def _check_folds(rows: NDArray[Any]) -> None:
    """Refuse a fold without rows to fit on and to evaluate."""
    if not rows.all():
        raise ValueError(
            "each of the two cross-fitting folds must have a row with a distribution, "
            f"got {int(rows[0])} and {int(rows[1])}"
        )


class _TemperatureSums:
    """The sums of a pass of several searches over some of the rows."""

    input_summary = None

    def __init__(self, passes: dict[int | None, Pass], _: slice) -> None:
        """`passes` are those of the rows outside a fold, with None those of all rows."""
        self._passes = passes
        self.sums = {fold: PassSums(0.0, 0.0, 0, 0) for fold in passes}

    def add(self, rows: Integers, z: NDArray[Any], *, label: NDArray[Any], fold: Folds) -> None:
        y = label.astype(np.int64)
        for excluded, search in self._passes.items():
            keep: Any = slice(None) if excluded is None else fold != excluded
            with original_row_numbers(rows[keep]):
                self._add_sums(excluded, search.sums(z[keep], y[keep], None))

    def _add_sums(self, fold: int | None, sums: PassSums) -> None:
        self.sums[fold] = PassSums(*add(self.sums[fold], sums))

    def merge(self, other: "_TemperatureSums") -> None:
        for fold, sums in other.sums.items():
            self._add_sums(fold, sums)


def _temperatures(
    passes: Passes, sample: RowSample, label: NDArray[Any], fold: Folds, separate_labels: bool
) -> list[float]:
    """The temperatures of all rows, of those outside fold 0, and of those outside fold 1.

    The searches start at the temperature of a sample.
    """
    rows, z = sample
    start = first_guess(z)
    # The pass over all rows raises the error of the first row.
    with contextlib.suppress(RowError):
        of_sample = fit_temperature(rows_in_memory(z, label[rows].astype(np.int64), None))
        start = of_sample if 0 < of_sample < math.inf else start
    searches = {excluded: TemperatureSearch(start) for excluded in (None, 0, 1)}
    active = dict(searches)
    while active:
        next_passes = {excluded: search.next_pass for excluded, search in active.items()}
        make = partial(_TemperatureSums, next_passes)
        found = passes.run(make, "fitting the temperature", label=label, fold=fold)
        for excluded, search in active.items():
            search.add_sums(found.sums[excluded])
        active = {excluded: search for excluded, search in active.items() if not search.advance()}
    temperatures = [search.temperature or 0.0 for search in searches.values()]
    for t in temperatures:
        if t in _LIMITS:
            hint = _ORDER_HINT if separate_labels and t == math.inf else ""
            raise ValueError(_LIMITS[t] + hint)
    return temperatures


def _scaled(temperatures: Floats, z: NDArray[Any], fold: Folds) -> Floats:
    """The logits divided by the temperatures of their folds."""
    scaled: Floats = z.astype(np.float64) / temperatures[fold][:, None]
    return scaled


def _transformed(calibrators: Sequence[Calibrator], z: NDArray[Any], fold: Folds) -> Floats:
    """The logits transformed by the calibrators of their folds."""
    calibrated = np.empty(z.shape)
    for number, calibrator in enumerate(calibrators):
        mask = fold == number
        calibrated[mask] = calibrator.transform(z[mask].astype(np.float64))
    return calibrated


def _fold_calibrators(
    make: Callable[[], Any], name: str, sample: RowSample, label: NDArray[Any], fold: Folds
) -> list[Calibrator]:
    """Vector or matrix scaling for the rows of each fold, fitted on the other one."""
    rows, z = sample
    if z.shape[1] > MAX_CLASSES[name]:
        raise ValueError(f"the number of classes must be <= {MAX_CLASSES[name]}, got {z.shape[1]}")
    _check_folds(bincount(fold[rows], minlength=2))

    def fit(number: int) -> Any:
        keep = fold[rows] != number
        with original_row_numbers(rows[keep]):
            return make().fit(z[keep], label[rows[keep]])

    return run_all([partial(fit, number) for number in (0, 1)])


class _CalibratedScores:
    """The scores of several calibrators, over some of the rows."""

    input_summary = None

    def __init__(
        self,
        transforms: dict[str, Transform],
        make: Callable[[slice], ScoreAccumulator],
        part: slice,
    ) -> None:
        self._transforms = transforms
        self.scores = {name: make(part) for name in transforms}

    def add(
        self,
        rows: Integers,
        z: NDArray[Any],
        *,
        label: NDArray[Any],
        fold: Folds,
        fitted: NDArray[np.bool_],
    ) -> None:
        y = label.astype(np.int64)

        def add_scores(name: str) -> None:
            calibrated = self._transforms[name](z, fold)
            self.scores[name].add(rows, calibrated, label=y, fold=fold, fitted=fitted)

        run_all([partial(add_scores, name) for name in self._transforms])

    def merge(self, other: "_CalibratedScores") -> None:
        for name, scores in self.scores.items():
            scores.merge(other.scores[name])


def _reason(error: ValueError) -> str:
    """The message without the name of the argument, which the report does not show."""
    return f"row {error.row} {error.reason}" if isinstance(error, RowError) else str(error)


def evaluate(
    passes: Passes,
    uncalibrated: ScoreAccumulator,
    sample: RowSample,
    *,
    label: NDArray[Any],
    fold: Folds,
    fitted: NDArray[np.bool_],
    separate_labels: bool = True,
) -> Evaluation:
    """Scores before and after each calibrator, 2-fold cross-fitted.

    `label`, `fold` and `fitted`, the rows of the sample, have a value for each row of the source.
    `separate_labels` is whether the classes of the labels may be in another order.
    """
    transforms: dict[str, Transform] = {}
    failures: dict[str, str] = {}
    temperature, fold_temperatures = None, None
    try:
        _check_folds(uncalibrated.cells[:, 0].sum(axis=-1))
        temperature, *others = _temperatures(passes, sample, label, fold, separate_labels)
        fold_temperatures = tuple(others)
        transforms["temperature"] = partial(_scaled, np.array(others))
    except ValueError as error:
        failures["temperature"] = _reason(error)
    for name, make in (("vector", VectorScaling), ("matrix", MatrixScaling)):
        try:
            calibrators = _fold_calibrators(make, name, sample, label, fold)
            transforms[name] = partial(_transformed, calibrators)
        except ValueError as error:
            failures[name] = _reason(error)
    calibrated: dict[str, ScoreAccumulator] = {}
    if transforms:
        accumulator = partial(ScoreAccumulator, len(label), passes.classes, passes.dtype)
        calibrated = passes.run(
            partial(_CalibratedScores, transforms, accumulator),
            "evaluating the calibrators",
            label=label,
            fold=fold,
            fitted=fitted,
        ).scores
    accumulators = [uncalibrated, *calibrated.values()]
    resampled = resampled_sums(
        np.hstack([a.tally.group_sums for a in accumulators]), N_RESAMPLES, SEED
    )
    parts = np.split(resampled, len(accumulators), axis=1)
    cells = {"uncalibrated": uncalibrated.tally.group_sums}
    if "temperature" in calibrated:
        cells["temperature"] = calibrated["temperature"].tally.group_sums
    before = uncalibrated.tally, parts[0]
    scored = [
        partial(accumulator.scores, part, None if accumulator is uncalibrated else before)
        for accumulator, part in zip(accumulators, parts, strict=True)
    ]
    rows, z = sample
    y = label[rows].astype(np.int64)
    in_detail = partial(sampled_rows, rows, z, y, N_BINS, passes.dtype, temperature)
    details, *scores = run_all([in_detail, *scored])
    return Evaluation(
        rows=int(uncalibrated.tally.bin_sums[0].sum()),
        uncalibrated=scores[0],
        calibrated=dict(zip(calibrated, scores[1:], strict=True)),
        failures=failures,
        temperature=temperature,
        fold_temperatures=fold_temperatures,
        fitted_rows=len(sample[0]),
        isotonic_error=uncalibrated.isotonic_error(),
        predicted_classes=uncalibrated.predicted_classes(),
        misclassifications=uncalibrated.misclassifications(),
        confusions=uncalibrated.confusions(),
        sampled=details,
        cells=cells,
    )


def random_halves(rows: int) -> Folds:
    """The cross-fitting fold of each row, 0 or 1; a single row is in fold 0."""
    folds = random_folds(rows, 2, SEED) if rows > 1 else np.zeros(rows)
    return folds.astype(np.uint8)
