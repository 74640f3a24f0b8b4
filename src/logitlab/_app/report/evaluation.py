"""Logits held against labels: scores and calibrators with intervals, classes, mistakes."""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.passes import Passes
from logitlab._bins import bins_of, class_sums, equal_width, gap_norm
from logitlab._rows import Floats, Integers
from logitlab.calibration import MatrixScaling, TemperatureSearch, VectorScaling, random_folds
from logitlab.calibration.base import RowError, original_row_numbers
from logitlab.reliability import CalibrationTest, ReliabilityCurve, consistency, curve_of
from logitlab.resampling import Interval, Tally, percentile, redrawn, scores_of

SEED = 0
N_BINS = 15
RESAMPLES = 1000
_CELLS = 200 * N_BINS  # of confidence: what one of them holds is of one confidence, nearly
HELD = 1 << 24  # entries of the rows that vector and matrix scaling are fitted on
MOST = {"vector": 2000, "matrix": 200}  # classes
_WORST = 10  # mistakes that are listed

Held = tuple[Integers, NDArray[Any]]  # row numbers and logits of rows kept in memory
Apply = Callable[[NDArray[Any], Integers], Any]  # logits and row numbers to calibrated logits


@dataclass(frozen=True)
class Scores:
    """Of one way to calibrate; ``intervals`` by the names of :func:`logitlab.bootstrap`."""

    intervals: dict[str, Interval]
    differences: dict[str, Interval] | None  # from the logits as they came
    debiased: float
    classwise: float | None
    test: CalibrationTest
    curve: ReliabilityCurve
    class_curve: ReliabilityCurve | None

    def __getitem__(self, name: str) -> float:
        return self.intervals[name].value


@dataclass(frozen=True)
class Mistake:
    row: int
    predicted: int
    confidence: float
    true: int
    true_probability: float


@dataclass(frozen=True)
class ByClass:
    """Of the rows that each class is predicted in: how many, how sure, how right. Shape (K,)."""

    rows: Integers
    confidence: Floats
    accuracy: Floats

    def half_width(self) -> Floats:
        """Of a 95 % interval of the accuracy: 1.96 standard errors (Agresti and Coull)."""
        n = self.rows + 4
        p = (self.rows * np.nan_to_num(self.accuracy) + 2) / n
        width: Floats = 1.96 * np.sqrt(p * (1 - p) / n)
        return width


@dataclass(frozen=True)
class Judged:
    before: Scores
    calibrated: dict[str, Scores]  # cross-fitted: temperature, vector, matrix
    failures: dict[str, str]  # why a calibrator is not there
    temperature: float | None  # fitted on all rows
    fold_temperatures: tuple[float, ...] | None
    fitted_rows: int  # that vector and matrix scaling were fitted on
    isotonic_error: float | None  # of the top confidence after isotonic regression, cross-fitted
    classes: ByClass
    mistakes: list[Mistake]
    confusions: list[tuple[int, int, int]]  # true, predicted, rows
    cells: dict[str, Floats] = field(repr=False)  # of the tallies: none, temperature


class Judge:
    """Sums of one way to calibrate, block by block."""

    def __init__(self, classes: int, halves: Integers, sampled: NDArray[np.bool_]) -> None:
        """`sampled`: the rows judged class by class, which costs more than all the rest."""
        self.tally = Tally(len(halves), N_BINS)
        self._edges = equal_width(N_BINS)
        self._halves, self.sampled = halves, sampled
        self.cells = np.zeros((2, 3, _CELLS))
        self._class_sums = np.zeros((3, classes, N_BINS)) if classes <= MOST["vector"] else None
        self._by_class = np.zeros((3, classes))
        self._worst: list[tuple[float, int, int, int, float]] = []
        self._pairs: Counter[tuple[int, int]] = Counter()

    def add(self, rows: Integers, z: Floats, y: Integers, temperature: Any = 1.0) -> None:
        p, _ = self.tally.add(rows, z, y, temperature)
        top, guess = p.max(axis=-1), z.argmax(axis=-1)
        hit = guess == y
        fine = bins_of(np.linspace(0, 1, _CELLS + 1), top)
        place = self._halves[rows] * _CELLS + fine
        for i, weight in enumerate((None, top, hit)):
            self.cells[:, i] += np.bincount(place, weight, 2 * _CELLS).reshape(2, _CELLS)
        for i, weight in enumerate((None, top, hit)):
            self._by_class[i] += np.bincount(guess, weight, len(self._by_class[i]))
        wrong = np.flatnonzero(~hit)
        if self._class_sums is not None:
            some = self.sampled[rows]
            self._class_sums += class_sums(self._edges, p[some], y[some])
            self._pairs.update(zip(y[wrong].tolist(), guess[wrong].tolist(), strict=True))
        for i in wrong[np.argsort(-top[wrong], kind="stable")[:_WORST]]:
            found = (top[i], -int(rows[i]), int(guess[i]), int(y[i]), p[i, y[i]])
            heapq.heappush(self._worst, found)
            if len(self._worst) > _WORST:
                heapq.heappop(self._worst)

    def scores(self, again: Floats, before: "tuple[Tally, Floats] | None" = None) -> Scores:
        """`again`: the sums over rows drawn anew; `before`: tally and sums of other logits."""
        value, drawn = scores_of(self.tally.cells.sum(axis=0)), scores_of(again)
        differences = None
        if before is not None:
            with np.errstate(invalid="ignore"):
                differences = percentile(
                    value - scores_of(before[0].cells.sum(axis=0)), drawn - scores_of(before[1])
                )
        sums = self._class_sums
        return Scores(
            percentile(value, drawn),
            differences,
            float(gap_norm(self.tally.bins, 1, debiased=True)),
            None if sums is None else float(np.mean(gap_norm(sums, 1))),
            consistency(self.cells.sum(axis=0), self._edges),
            curve_of(self._edges, self.tally.bins),
            None if sums is None else curve_of(self._edges, sums.sum(axis=1)),
        )

    def isotonic_error(self) -> float | None:
        """The calibration error of the confidences after isotonic regression on the other half."""
        from sklearn.isotonic import IsotonicRegression

        bins = np.zeros((3, N_BINS))
        for held in (0, 1):
            (n, stated, right), (m, other, hits) = self.cells[1 - held], self.cells[held]
            seen, asked = n > 0, m > 0
            if not seen.any() or not asked.any():
                return None
            model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            model.fit(stated[seen] / n[seen], right[seen] / n[seen], sample_weight=n[seen])
            q = model.predict(other[asked] / m[asked])
            place = bins_of(self._edges, q)
            for i, weight in enumerate((m[asked], m[asked] * q, hits[asked])):
                bins[i] += np.bincount(place, weight, N_BINS)
        return float(gap_norm(bins, 1))

    def by_class(self) -> ByClass:
        n, stated, right = self._by_class
        with np.errstate(invalid="ignore"):
            return ByClass(n.astype(np.int64), stated / n, right / n)

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(-row, guess, float(top), true, float(p))
            for top, row, guess, true, p in sorted(self._worst, reverse=True)
        ]

    def confusions(self) -> list[tuple[int, int, int]]:
        ordered = sorted(self._pairs.items(), key=lambda item: (-item[1], item[0]))
        return [(true, guess, n) for (true, guess), n in ordered[:_WORST]]


_LIMITS = {
    0.0: "the label ranks first in every row, so the log-loss falls for as long as the "
    "temperature does",
    math.inf: "the logits speak against the labels: equal shares for all classes have a smaller "
    "log-loss than any temperature (are the labels numbered as the columns are?)",
}


def _check_halves(rows: NDArray[Any]) -> None:
    """Each of the halves needs rows, to fit on and to judge."""
    if not rows.all():
        raise ValueError(
            f"there are too few rows that have a distribution, {int(rows[0])} and {int(rows[1])} "
            "in the two halves that judge each other"
        )


def _temperatures(passes: Passes, labels: Integers, half: Integers) -> list[float]:
    """The temperatures of all rows, and of those outside each half, found in the same passes."""
    searches = [TemperatureSearch() for _ in range(3)]
    left = dict(zip((None, 0, 1), searches, strict=True))
    while left:
        for rows, z in passes.blocks("fitting the temperature"):
            for held, search in left.items():
                keep = half[rows] != held if held is not None else slice(None)
                with original_row_numbers(rows[keep]):
                    search.add(z[keep], labels[rows[keep]])
        left = {held: search for held, search in left.items() if not search.advance()}
    found = [search.temperature or 0.0 for search in searches]
    for t in found:
        if t in _LIMITS:
            raise ValueError(_LIMITS[t])
    return found


def _affine(
    make: Callable[[], Any], name: str, held: Held, labels: Integers, half: Integers
) -> Apply:
    rows, z = held
    if z.shape[1] > MOST[name]:
        raise ValueError(f"{z.shape[1]} classes are too many; accepted: up to {MOST[name]}")
    _check_halves(np.bincount(half[rows], minlength=2))
    fitted = []
    for keep in (half[rows] != k for k in (0, 1)):
        with original_row_numbers(rows[keep]):
            fitted.append(make().fit(z[keep], labels[rows[keep]]))

    def apply(block: NDArray[Any], numbers: Integers) -> Any:
        calibrated = np.empty(block.shape)
        for k in (0, 1):
            mine = half[numbers] == k
            calibrated[mine] = fitted[k].transform(block[mine].astype(np.float64))
        return calibrated

    return apply


def _reason(error: ValueError) -> str:
    """Without the argument's name, which a reader of the report has not seen."""
    return f"row {error.row} {error.reason}" if isinstance(error, RowError) else str(error)


def judge(passes: Passes, labels: Integers, before: Judge, held: Held, half: Integers) -> Judged:
    """Scores before and after each calibrator, every row calibrated by the other half."""
    ways: dict[str, Apply] = {}
    failures: dict[str, str] = {}
    temperature, folds = None, None
    try:
        _check_halves(before.cells[:, 0].sum(axis=-1))
        temperature, *fold = _temperatures(passes, labels, half)
        folds = tuple(fold)
        of_half = np.array(fold)
        ways["temperature"] = lambda z, rows: z.astype(np.float64) / of_half[half[rows]][:, None]
    except ValueError as error:
        failures["temperature"] = _reason(error)
    for name, make in (("vector", VectorScaling), ("matrix", MatrixScaling)):
        try:
            ways[name] = _affine(make, name, held, labels, half)
        except ValueError as error:
            failures[name] = _reason(error)
    after = {name: Judge(passes.classes, half, before.sampled) for name in ways}
    if ways:
        for rows, z in passes.blocks("judging after calibration"):
            for name, apply in ways.items():
                after[name].add(rows, apply(z, rows), labels[rows])
    everything = [before, *after.values()]
    again = redrawn(np.hstack([one.tally.cells for one in everything]), RESAMPLES, SEED)
    parts = np.split(again, len(everything), axis=1)
    return Judged(
        before=before.scores(parts[0]),
        calibrated={
            name: one.scores(part, (before.tally, parts[0]))
            for (name, one), part in zip(after.items(), parts[1:], strict=True)
        },
        failures=failures,
        temperature=temperature,
        fold_temperatures=folds,
        fitted_rows=len(held[0]),
        isotonic_error=before.isotonic_error(),
        classes=before.by_class(),
        mistakes=before.mistakes(),
        confusions=before.confusions(),
        cells={
            name: one.tally.cells
            for name, one in {"none": before, **after}.items()
            if name in ("none", "temperature")
        },
    )


def halves(rows: int) -> Integers:
    """Which half each row is in; a single row is in the first."""
    return random_folds(rows, 2, SEED) if rows > 1 else np.zeros(rows, np.int64)
