"""Everything the report says, found in passes over blocks of rows: memory does not grow with K."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab.app.laws import Laws, look
from logitlab.app.source import Logits, UserError
from logitlab.calibration import TemperatureSearch, split
from logitlab.probabilities import log_softmax, logits, softmax
from logitlab.reliability import ReliabilityCurve, bin_sums, curve_of, equal_width, gap_norm
from logitlab.scores import Floats, Integers, blocks, entropy

SAMPLE = 1 << 21  # elements of the rows that sweep and laws are computed on
SEED = 0
DRAWS = 1000
N_BINS = 15
SWEEP = np.geomspace(0.1, 10, 25)
SHOWN_TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)
_FINE = 10_000  # cells of a histogram: the resolution of its quantiles
_SUM_TOLERANCE = 0.01  # of a row of probabilities, as printed or held in a half type

# Wraps a pass over blocks of rows: the blocks, how many rows there are, and what is being done.
Track = Callable[[Iterator[NDArray[Any]], int, str], Iterator[NDArray[Any]]]


class Distribution:
    """A histogram on a known range, filled block by block; its mean is exact."""

    def __init__(self, low: float, high: float) -> None:
        self.edges = np.linspace(low, max(high, low + 1e-9), _FINE + 1)
        self.counts = np.zeros(_FINE, np.int64)
        self._sum = 0.0

    def add(self, values: Floats) -> None:
        inside = np.clip(values, self.edges[0], self.edges[-1])
        self.counts += np.histogram(inside, self.edges)[0]
        self._sum += float(values.sum())

    @property
    def mean(self) -> float:
        return self._sum / int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """To 1/10000 of the range."""
        below = np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()
        cell = min(int(np.searchsorted(below, q, side="right")) - 1, _FINE - 1)
        cell = cell if self.counts[cell] else int(np.flatnonzero(self.counts[: cell + 1])[-1])
        part = (q - below[cell]) / (below[cell + 1] - below[cell])
        return float(self.edges[cell] + part * (self.edges[cell + 1] - self.edges[cell]))


@dataclass
class Incoming:
    """What came in. Counts are of rows, `zeros` of entries; all but the first two leave out rows
    without a distribution."""

    nan_rows: int = 0
    empty_rows: int = 0  # nothing but -inf
    tie_rows: int = 0  # two or more entries share the maximum
    minus_inf_rows: int = 0
    plus_inf_rows: int = 0
    zeros: int = 0  # probabilities of exactly 0
    minimum: float = math.inf  # of the finite entries, as they stand in the file
    maximum: float = -math.inf
    naive_overflow_rows: int = 0
    looks_like_probabilities: bool = True


@dataclass(frozen=True)
class Scores:
    accuracy: float
    log_loss: float
    brier: float
    ece: float
    confidence: float
    curve: ReliabilityCurve


@dataclass(frozen=True)
class Judged:
    before: Scores
    temperature: float | None  # fitted on all rows
    fold_temperatures: tuple[float, ...] | None
    after: Scores | None  # cross-fitted
    failure: str | None  # why there is no temperature


@dataclass(frozen=True)
class Example:
    """One row at several temperatures, and how often 1000 draws gave each class."""

    row: int
    logits: Floats
    probabilities: Floats  # (temperatures, K)
    frequencies: Floats


@dataclass(frozen=True)
class Analysis:
    source: Logits
    probabilities: bool
    incoming: Incoming
    judged_rows: int
    sharpness: dict[str, Distribution]
    sampled_rows: int
    sweep_entropy: Floats
    sweep_top: Floats
    example: Example
    laws: Laws
    judged: Judged | None


class _Judge:
    """Scores summed up over blocks of rows."""

    def __init__(self) -> None:
        self._edges = equal_width(N_BINS)
        self._bins = np.zeros((3, N_BINS))
        self._rows = self._hits = 0
        self._loss = self._brier = self._confidence = 0.0

    def add(self, z: Floats, y: Integers, temperature: Any = 1.0) -> None:
        p = softmax(z, temperature=temperature)
        log_p = log_softmax(z, temperature=temperature)
        top, place = p.max(axis=-1), np.arange(len(y))
        hit = z.argmax(axis=-1) == y
        self._bins += bin_sums(self._edges, top, hit)
        self._rows += len(y)
        self._hits += int(hit.sum())
        self._confidence += float(top.sum())
        self._loss -= float(log_p[place, y].sum())
        p[place, y] -= 1
        self._brier += float(np.sum(p * p))

    def scores(self) -> Scores:
        curve = curve_of(self._edges, self._bins)
        n = self._rows
        return Scores(
            accuracy=self._hits / n,
            log_loss=self._loss / n,
            brier=self._brier / n,
            ece=float(gap_norm(self._bins, 1)),
            confidence=self._confidence / n,
            curve=curve,
        )


def _as_logits(p: NDArray[Any], start: int, source: str) -> Floats:
    """Logits of rows of probabilities, which are checked."""
    p = p.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = p.sum(axis=-1)
    negative = (p < 0).any(axis=-1)
    off = np.abs(total - 1) > _SUM_TOLERANCE
    for wrong, what in ((negative, "holds a negative number"), (off, "sums to {:.6g}, not to 1")):
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{source}: row {start + row} {what.format(total[row])}; "
                "logits are read without --probabilities"
            )
    z: Floats = logits(p)
    return z


def _naive_failures(z: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows in which exp(z) / sum(exp(z)), in z's type, divides by infinity or by zero."""
    with np.errstate(all="ignore"):
        e = np.exp(z)
        total = e.sum(axis=-1, dtype=e.dtype)
    failed: NDArray[np.bool_] = ~np.isfinite(total) | (total == 0)
    return failed


def _in_type(z: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    floating = dtype.kind == "f" or dtype.name == "bfloat16"
    return z.astype(dtype if floating else np.float64, copy=False)


class _Passes:
    """The rows that have a distribution, as often as needed: numbers of the rows, and logits."""

    def __init__(self, source: Logits, probabilities: bool, track: Track) -> None:
        self._source, self._probabilities, self._track = source, probabilities, track

    def blocks(self, what: str, seen: Incoming | None = None) -> Iterator[tuple[Integers, Any]]:
        start = 0
        for raw in self._track(self._source.read(), self._source.rows, what):
            z = _as_logits(raw, start, self._source.source) if self._probabilities else raw
            top = z.max(axis=-1)
            nan, empty = np.isnan(top), np.isneginf(top)
            some = ~(nan | empty)
            if seen is not None:
                seen.nan_rows += int(nan.sum())
                seen.empty_rows += int(empty.sum())
                self._look(raw[some], z[some], seen)
            yield start + np.flatnonzero(some), z[some]
            start += len(raw)

    def _look(self, raw: NDArray[Any], z: NDArray[Any], seen: Incoming) -> None:
        top = z.max(axis=-1, keepdims=True)
        seen.tie_rows += int(((z == top).sum(axis=-1) > 1).sum())
        seen.minus_inf_rows += int(np.isneginf(z).any(axis=-1).sum())
        seen.plus_inf_rows += int(np.isposinf(top).sum())
        finite = raw[np.isfinite(raw)].astype(np.float64)
        seen.minimum = min(seen.minimum, float(finite.min(initial=math.inf)))
        seen.maximum = max(seen.maximum, float(finite.max(initial=-math.inf)))
        if self._probabilities:
            seen.zeros += int((raw == 0).sum())
            return
        seen.naive_overflow_rows += int(_naive_failures(_in_type(z, z.dtype)).sum())
        if seen.looks_like_probabilities:
            wide = raw.astype(np.float64)
            seen.looks_like_probabilities = bool(
                ((wide >= 0) & (wide <= 1)).all() and (np.abs(wide.sum(axis=-1) - 1) < 1e-3).all()
            )


_LIMITS = {
    0.0: "the label ranks first in every row, so the log-loss falls for as long as the "
    "temperature does",
    math.inf: "the logits speak against the labels: equal shares for all classes have a smaller "
    "log-loss than any temperature (are the labels numbered as the columns are?)",
}


def _fit(passes: _Passes, labels: Integers, half: Integers) -> list[float]:
    """The temperatures of all rows, and of those outside each half, found in the same passes."""
    searches = [TemperatureSearch() for _ in range(3)]
    left = dict(zip((None, 0, 1), searches, strict=True))
    while left:
        for rows, z in passes.blocks("fitting the temperature"):
            for held, search in left.items():
                keep = half[rows] != held if held is not None else slice(None)
                search.add(z[keep], labels[rows[keep]])
        left = {held: search for held, search in left.items() if not search.advance()}
    return [search.temperature or 0.0 for search in searches]


def _judge(passes: _Passes, labels: Integers, before: Scores) -> Judged:
    """The temperature of all rows, and the scores under the one fitted on the other half."""
    if len(labels) < 2:
        return Judged(before, None, None, None, "one row is too few")
    half = split(len(labels), 2, SEED)
    try:
        temperature, *folds = _fit(passes, labels, half)
    except ValueError as error:
        return Judged(before, None, None, None, str(error))
    for t in (temperature, *folds):
        if t in _LIMITS:
            return Judged(before, None, None, None, _LIMITS[t])
    judge = _Judge()
    for rows, z in passes.blocks("judging after calibration"):
        judge.add(z.astype(np.float64), labels[rows], np.array(folds)[half[rows]])
    return Judged(before, temperature, tuple(folds), judge.scores(), None)


def _example(row: int, z: Floats) -> Example:
    p = np.stack([softmax(z, temperature=t) for t in SHOWN_TEMPERATURES])
    rng = np.random.default_rng(SEED)
    frequencies = np.zeros_like(p)
    for drawn, q in zip(frequencies, p, strict=True):
        # Only classes that can be drawn: the last one of a multinomial takes what rounding left.
        possible = q > 0
        drawn[possible] = rng.multinomial(DRAWS, q[possible] / q[possible].sum()) / DRAWS
    return Example(row, z, p, frequencies)


def _sweep(z: Floats) -> tuple[Floats, Floats]:
    means = np.zeros((2, len(SWEEP)))
    for i, t in enumerate(SWEEP):
        for part in blocks(*z.shape):
            means[0, i] += entropy(z[part], temperature=t).sum()
            means[1, i] += softmax(z[part], temperature=t).max(axis=-1).sum()
    return means[0] / len(z), means[1] / len(z)


def analyse(
    source: Logits,
    labels: Integers | None = None,
    *,
    probabilities: bool = False,
    track: Track = lambda chunks, _rows, _what: chunks,
) -> Analysis:
    """All sections of the report; `track` wraps each pass over the file (a progress bar)."""
    log_k = math.log(source.classes)
    sharpness = {
        "entropy": Distribution(0, log_k),
        "perplexity": Distribution(1, source.classes),
        "top_probability": Distribution(0, 1),
        "saturation": Distribution(0, 1),
    }
    size = min(source.rows, max(16, SAMPLE // source.classes))
    drawn = np.random.default_rng(SEED).choice(source.rows, size, replace=False, shuffle=False)
    drawn.sort()
    incoming, judge, passes = Incoming(), _Judge(), _Passes(source, probabilities, track)
    sampled: list[NDArray[Any]] = []
    best, example_row, example = math.inf, -1, np.empty(0)
    for rows, z in passes.blocks("reading", incoming):
        if not len(rows):
            continue
        wide = z.astype(np.float64)
        p, nats = softmax(wide), entropy(wide)
        sharpness["entropy"].add(nats)
        sharpness["perplexity"].add(np.exp(nats))
        sharpness["top_probability"].add(p.max(axis=-1))
        sharpness["saturation"].add(np.sum(p * (1 - p), axis=-1))
        here = drawn[np.searchsorted(drawn, rows[0]) : np.searchsorted(drawn, rows[-1] + 1)]
        sampled.append(z[np.isin(rows, here, assume_unique=True)])
        # The row halfway between certain and flat shows the most.
        middling = int(np.abs(nats - log_k / 2).argmin())
        if abs(nats[middling] - log_k / 2) < best:
            best = abs(nats[middling] - log_k / 2)
            example_row, example = int(rows[middling]), wide[middling].copy()
        if labels is not None:
            judge.add(wide, labels[rows])
    sample = np.concatenate(sampled) if sampled else np.empty((0, source.classes))
    if not len(sample):
        raise UserError(f"{source.source}: no row holds a distribution, only NaN or -inf")
    sweep = _sweep(sample.astype(np.float64))
    judged = None if labels is None else _judge(passes, labels, judge.scores())
    return Analysis(
        source=source,
        probabilities=probabilities,
        incoming=incoming,
        judged_rows=source.rows - incoming.nan_rows - incoming.empty_rows,
        sharpness=sharpness,
        sampled_rows=len(sample),
        sweep_entropy=sweep[0],
        sweep_top=sweep[1],
        example=_example(example_row, example),
        laws=look(_in_type(sample, source.dtype)),
        judged=judged,
    )
